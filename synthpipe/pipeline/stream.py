"""The stream that users hold: iteration, state, counts, clean ending."""

from __future__ import annotations

import copy
import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torchdata.nodes import BaseNode, Prefetcher

from synthpipe.errors import StreamError, SynthPipeError, counted, excerpt, shortened
from synthpipe.pipeline.identity import VERSION, StreamIdentity, has_colors, has_noise
from synthpipe.pipeline.nodes import OnDevice, Produced, TileLoader
from synthpipe.pipeline.pool import PatchPool
from synthpipe.pipeline.source import USED
from synthpipe.pipeline.stream_state import StateBounds, check_state
from synthpipe.pipeline.tally import Tally, describe, nothing_used
from synthpipe.transforms.batch import Batch

__all__ = ["Pass", "Stream"]

#: What torchdata raises where a state is not one of its own.
_STATE_ERRORS = (LookupError, TypeError, ValueError, AttributeError, AssertionError)

_log = logging.getLogger(__name__)


class Pass:
    """The nodes of one pass: everything from the readers to finished batches.

    Args:
        tiles: the readers.
        pool: the node that counts.
        root: the last node.
        prefetch: batches prepared ahead in a thread; 0 for none.  It leaves no trace in the state.
    """

    def __init__(self, tiles: TileLoader, pool: PatchPool, root: OnDevice, prefetch: int) -> None:
        self._tiles = tiles
        self._pool = pool
        self._prefetcher = Prefetcher(root, prefetch) if prefetch else None
        self._last: BaseNode[Produced] = self._prefetcher or root
        # A thread in the middle of a batch when the interpreter goes would end the process with SIGABRT.
        self._thread = weakref.finalize(self, _stop_thread, self._prefetcher)

    def start(self, state: dict[str, Any] | None) -> None:
        """Begin at the beginning, or where ``state`` was taken."""
        if self._prefetcher is not None and state is not None:
            state = {"snapshot": state, "steps_since_snapshot": 0}
        self._last.reset(state)

    def state(self) -> dict[str, Any]:
        """Where the batch taken last left off."""
        state: dict[str, Any] = self._last.state_dict()
        if self._prefetcher is not None:
            # With a snapshot for every item, none is ever older than that item.
            state = state["snapshot"]
        return state

    def take(self) -> Any:
        """The next item; raises StopIteration at the end, and what went wrong in readers and on the device."""
        return next(self._last).unwrap()

    def tally(self) -> Tally:
        """All that has been counted; after the end, with the bad samples that came after the last batch."""
        return self._pool.tally

    def emitted(self) -> int:
        """Batches of this pass, those before a state was loaded included."""
        return self._pool.emitted

    def left_over(self) -> int:
        """After the end, patches that were too few for a batch."""
        return self._pool.left_over

    def close(self) -> None:
        """Stop the thread, then the readers."""
        # The thread may be in the middle of a batch; the readers must live until it is through.
        self._thread()
        self._tiles.close()


def _stop_thread(prefetcher: Prefetcher[Produced] | None) -> None:
    running = getattr(prefetcher, "_it", None)
    if running is not None:
        running._shutdown()
        if running._thread is not threading.current_thread():  # which may collect garbage
            running._thread.join()


class Stream(Iterator[Batch]):
    """Batches of training patches, made while they are asked for.

    A stream is one iterator: ``iter(stream)`` goes on where it stands.  An endless stream never stops; a finite one
    (``epochs``) stops after each pass over its epochs, and iterating again makes the next pass, in a new order.
    After an error, asking again tries to make the same batch again.

    Made by :func:`synthpipe.pipeline.build.build_stream`.

    Args:
        make_pass: the nodes of a pass, from its number and the tally's state at its beginning.
        identity: what a state must share with the stream that it is loaded into.
        bounds: positions that a state can have.
        batches_per_epoch: planned full batches of this rank.
        epochs: of a pass; None for an endless one.
        planned: batches of a pass, if no image is bad and no filter drops one on the device; None for an endless one.
    """

    def __init__(
        self,
        make_pass: Callable[[int, dict[str, Any] | None], Pass],
        identity: StreamIdentity,
        bounds: StateBounds,
        batches_per_epoch: int,
        epochs: int | None = None,
        planned: int | None = None,
    ) -> None:
        self._make_pass = make_pass
        self._identity = identity
        self._bounds = bounds
        self.batches_per_epoch = batches_per_epoch
        self._epochs = epochs or 0
        self._planned = planned
        self._loaded = False
        self._number = 0
        self._nodes: Pass | None = None
        self._nodes_state: dict[str, Any] | None = None
        self._tally_state: dict[str, Any] | None = None
        self._counts: dict[str, int] = {USED: 0}
        self._given_up: dict[str, int] = {}
        self._ways: dict[str, int] = {}
        self._epoch = 0
        self._closed = False

    def __iter__(self) -> Stream:
        return self

    def __len__(self) -> int:
        """Batches of a whole pass as planned: bad images, and what a filter drops on the device, make it fewer.

        Raises:
            TypeError: the stream is endless.
        """
        if self._planned is None:
            raise TypeError("an endless stream has no length; see batches_per_epoch, or give it epochs")
        return self._planned

    def __bool__(self) -> bool:
        """True, whatever its length: a stream is not a list that may be empty."""
        return True

    def __next__(self) -> Batch:
        if self._closed:
            raise StreamError("this stream is closed; build a new one, and load the state of this one to go on")
        nodes = self._running()
        try:
            item = nodes.take()
        except StopIteration:
            self._check_pass(nodes)
            self._end_pass(nodes)
            raise
        except BaseException:
            # Half a batch may be on its way: asked again, go on from the last whole one.
            self._stop()
            raise
        self._loaded = False
        self._counts, self._given_up, self._ways = item["counts"], item["given_up"], item["ways"]
        self._report_epochs(item["epoch"])
        batch: Batch = item["batch"]
        return batch

    def counts(self) -> dict[str, int]:
        """Images ``used``, and what was skipped by reason, among all that went into the patches emitted so far.

        Most reasons are :class:`synthpipe.errors.ImageError`'s or concern shards (``missing_shard``,
        ``truncated_shard``, ``unscored``, ...) and count images; ``not_finite`` counts tiles lost on the device.
        ``unused_image`` and ``further_image`` count image files of shards that no sample uses (by mistake, or as a mask
        beside an image, which is no loss), ``unlisted_sample`` samples that an index leaves out.
        ``filtered`` counts what the filter dropped: tiles, of images used, where it judges on the device, and else
        images beside those used.
        """
        return dict(self._counts)

    def given_up(self) -> dict[str, int]:
        """What the files of used images held and the patches emitted so far do not, by reason; empty where nothing.

        The reasons are those of :data:`synthpipe.files.decode.GIVEN_UP`: ``converted_profile``, ``unknown_profile``,
        ``flattened_alpha``, ``grey_to_rgb``, ``reduced_depth`` and ``narrow_range`` count images each time that they
        are read, ``further_pages`` counts pages.  Such images are used and not bad: ``max_bad_fraction`` does not
        reckon with them.
        """
        return dict(self._given_up)

    def ways(self) -> dict[str, int]:
        """Tiles that each way of the degradation's choices was drawn for, those that a filter drops included, among
        all that went into the patches emitted so far; empty where there is no choice.  A way is called as in
        ``synthpipe explain``: ``choice/1``."""
        return dict(self._ways)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands after the batch handed out last; plain types, small."""
        nodes = self._nodes_state if self._nodes is None else self._nodes.state()
        return {
            "version": VERSION,
            "identity": dict(self._identity.current),
            "pass": self._number,
            "nodes": nodes,
            "tally": self._tally_state,
            "counts": dict(self._counts),
            "given_up": dict(self._given_up),
            **({"ways": dict(self._ways)} if self._ways else {}),
            "epoch": self._epoch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where ``state`` was taken; may be called at any time.

        Raises:
            StreamError: the state belongs to a stream with other options, shards, ranks or workers, or is damaged:
                the key is named.
        """
        version = state.get("version") if isinstance(state, Mapping) else type(state).__name__
        if type(version) is not int or version not in (1, VERSION):
            raise StreamError(f"not the state of a stream: expected version {VERSION} or 1, got {excerpt(version)}")
        if not isinstance(state.get("identity"), Mapping):
            raise StreamError(f"not the state of a stream: no identity in it, only {excerpt(list(state))}")
        differing = self._identity.differences(version, state["identity"])
        if differing:
            raise StreamError(
                f"the state belongs to another stream ({'; '.join(differing)}); resume with the options that it had"
            )
        check_state(state, self._bounds)
        if version == 1 and self._identity.has_weights_by_name:
            _log.warning(
                "the state is of version 1, which knows the weights of degradation and filter by the names of their "
                "files: whether they hold the same numbers could not be compared"
            )
        if not has_colors(state["identity"]):
            _log.warning(
                "the state is of a version that ignored colour profiles: from here on images that have one come out "
                "in sRGB; Stream.given_up() counts them as converted_profile"
            )
        if self._identity.degrades and not has_noise(state["identity"]):
            _log.warning(
                "the state is of a version that drew noise from other generators: from here on the same tiles come "
                "with noise of the same law and other values"
            )
        self._stop()
        self._number = state["pass"]
        self._nodes_state = copy.deepcopy(state["nodes"])
        self._tally_state = state["tally"]
        self._counts = dict(state["counts"])
        self._given_up = dict(state.get("given_up", {}))
        self._ways = dict(state.get("ways", {}))
        self._epoch = state["epoch"]
        self._closed = False
        self._loaded = True

    def close(self) -> None:
        """Stop threads and processes.  The state can still be taken."""
        self._stop()
        self._closed = True

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _running(self) -> Pass:
        if self._nodes is None:
            nodes = self._make_pass(self._number, self._tally_state)
            try:
                nodes.start(self._nodes_state)
            except BaseException as error:
                nodes.close()
                ours = isinstance(error, SynthPipeError)
                if self._nodes_state is not None and isinstance(error, _STATE_ERRORS) and not ours:
                    raise StreamError(
                        f"cannot go on from this state ({type(error).__name__}: {shortened(str(error))}); use another "
                        "state, or start a new stream"
                    ) from error
                raise
            self._nodes = nodes
        return self._nodes

    def _stop(self) -> None:
        if self._nodes is not None:
            nodes, self._nodes = self._nodes, None
            self._nodes_state = nodes.state()
            nodes.close()

    def _check_pass(self, nodes: Pass) -> None:
        """A pass without a batch is no end.

        Raises:
            StreamError: says what became of the images, and which options to change.
        """
        if not nodes.emitted():
            tally = nodes.tally()
            self._counts, self._given_up, self._ways = tally.counts(), tally.given_up(), tally.ways()
            said = f"a pass over {counted(self._epochs or 0, 'epoch')} gave no batch: {nothing_used(self._counts)}"
            if nodes.left_over():
                said += f"; {counted(nodes.left_over(), 'patch')} left, too few for one: lower batch_size, or set "
                said += "drop_last: false"
            self._stop()
            raise StreamError(said)
        if self._loaded:
            _log.warning(
                "the state that was loaded was taken after the last batch of its pass: nothing is left of it; "
                "iterate again for the next"
            )
            self._loaded = False

    def _end_pass(self, nodes: Pass) -> None:
        tally = nodes.tally()
        self._counts, self._given_up, self._ways = tally.counts(), tally.given_up(), tally.ways()
        self._tally_state = tally.state_dict()
        self._stop()
        self._number += 1
        self._nodes_state = None
        self._report_epochs(self._epochs * self._number)

    def _report_epochs(self, epoch: int) -> None:
        if epoch > self._epoch:
            bad = {reason: count for reason, count in self._counts.items() if reason != USED}
            _log.info(
                "epoch %d done: %s used so far, skipped: %s%s%s",
                epoch - 1,
                counted(self._counts[USED], "sample"),
                describe(bad),
                f", given up: {describe(self._given_up)}" if self._given_up else "",
                f", degraded by: {describe(self._ways)}" if self._ways else "",
            )
            self._epoch = epoch
