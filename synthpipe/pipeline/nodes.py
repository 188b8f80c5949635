"""torchdata nodes of a stream: reader processes, and work ahead on a CUDA stream of its own.

A node MUST yield the same items after ``reset(state)`` as it would have yielded after ``get_state()`` returned that
state; states are plain types.  What runs in reader processes never touches the device; all else runs in the process
that iterates.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchdata.nodes import BaseNode
from torchdata.stateful_dataloader import StatefulDataLoader

from synthpipe.pipeline.reader_start import dead_reader, prepare_reader
from synthpipe.pipeline.source import Record, TileSource

__all__ = ["OnDevice", "Produced", "TileLoader"]

_log = logging.getLogger(__name__)

#: Finished batches of tiles that each worker keeps ready.
_WORKER_PREFETCH = 2


class TileLoader(BaseNode[Record]):  # type: ignore[misc]
    """Records of tiles from the reader processes, in an order that does not depend on their speed.

    Args:
        make_source: the source that begins at a given epoch.
        first_epoch: where to begin.
        epochs: epochs of a source; None for ever.
        go_on: at the end of a source begin the next one, instead of ending.
        workers: reader processes; 0 reads in this one.
        start_method: of the processes; None: the platform's.
        pin_memory: put tiles in page-locked memory, from where copies to the device are asynchronous.

    Raises:
        StreamError: (by ``reset`` and ``next``) a reader process ended while it started.
    """

    def __init__(
        self,
        make_source: Callable[[int], TileSource],
        *,
        first_epoch: int,
        epochs: int | None,
        go_on: bool,
        workers: int,
        start_method: str | None,
        pin_memory: bool,
    ) -> None:
        super().__init__()
        self._make_source = make_source
        self._first_epoch = first_epoch
        self._epochs = epochs
        self._go_on = go_on
        self._workers = workers
        self._start_method = start_method
        self._pin_memory = pin_memory
        self._source: TileSource | None = None
        self._loader: StatefulDataLoader[Record] | None = None
        self._records: Any = None

    def reset(self, initial_state: dict[str, Any] | None = None) -> None:
        """Begin at the first epoch, or where the record behind ``initial_state`` ended; stops earlier readers."""
        super().reset(initial_state)
        state = initial_state or {"epoch": self._first_epoch, "loader": None, "ended": False}
        self._epoch = state["epoch"]
        self._ended = state["ended"]
        self.close()
        if not self._ended:
            self._start(state["loader"])

    def get_state(self) -> dict[str, Any]:
        """Where the record taken last ended: plain types, with the state of each reader."""
        loader = None if self._loader is None else self._loader.state_dict()
        return {"epoch": self._epoch, "loader": loader, "ended": self._ended}

    def next(self) -> Record:
        """The next record, in the order of the plan; raises what a reader met."""
        while not self._ended:
            try:
                return next(self._records)
            except StopIteration:
                self.close()
                if not self._go_on or self._epochs is None:
                    self._ended = True
                    break
                self._epoch += self._epochs
                self._start(None)
        raise StopIteration

    def close(self) -> None:
        """Stop the reader processes, and close the shards that are read in this one."""
        records, self._records, self._loader = self._records, None, None
        # Workers are stopped by the iterator's finaliser, which may come late; nothing public does it.
        shutdown = getattr(records, "_shutdown_workers", None)
        if shutdown is not None:
            try:
                shutdown()
            except RuntimeError as error:
                # torch raises here when a reader dies while it ends: spawned ones may abort in the destructors of
                # their libraries (seen with torch 2.11, Python 3.12).  All that was asked of it has been delivered.
                if "DataLoader worker" not in str(error):
                    raise
                _log.warning("a reader died while it was being stopped, after its work was done: %s", error)
        if self._source is not None:
            self._source.close()
            self._source = None

    def _start(self, state: dict[str, Any] | None) -> None:
        self._source = self._make_source(self._epoch)
        with warnings.catch_warnings():
            # torchdata 0.11 makes a call that torch 2.13 announces the end of
            warnings.filterwarnings("ignore", message=".*set_vital")
            self._loader = StatefulDataLoader(
                self._source,
                batch_size=None,
                collate_fn=_as_it_is,
                num_workers=self._workers,
                prefetch_factor=_WORKER_PREFETCH if self._workers else None,
                multiprocessing_context=self._start_method if self._workers else None,
                pin_memory=self._pin_memory,
                worker_init_fn=prepare_reader,
                # Otherwise each start would take a number from the global generator, which the training shares.
                generator=torch.Generator(),
                snapshot_every_n_steps=1,
            )
        if state is not None:
            self._loader.load_state_dict(state)
        try:
            self._records = iter(self._loader)
        except (RuntimeError, EOFError, ConnectionError) as error:
            # The loader waits for a sign of each worker.  What a worker raises of itself arrives as it is.
            if not self._workers or (isinstance(error, RuntimeError) and "exited unexpectedly" not in str(error)):
                raise
            raise dead_reader(error, self._start_method) from error


def _as_it_is(record: Record) -> Record:
    return record


@dataclass
class Produced:
    """An item, or the error that stands in its place; ``ready`` is the moment on the device when it is complete."""

    item: Any = None
    error: Exception | None = None
    ready: torch.cuda.Event | None = None

    def unwrap(self) -> Any:
        """The item, safe to use on the current CUDA stream; raises the error."""
        if self.error is not None:
            raise self.error
        if self.ready is not None:
            for value in self.item["batch"].values():
                if isinstance(value, Tensor) and value.is_cuda:
                    current = torch.cuda.current_stream(value.device)
                    current.wait_event(self.ready)
                    value.record_stream(current)
        return self.item


class OnDevice(BaseNode[Produced]):  # type: ignore[misc]
    """Runs its source on a CUDA stream of its own, so that work ahead overlaps with training; on the CPU it only
    carries errors across threads unchanged.

    Args:
        source: node of emitted batches.
        device: where it works.
    """

    def __init__(self, source: BaseNode[Any], device: torch.device) -> None:
        super().__init__()
        self._source = source
        self._device = device
        cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]

    def reset(self, initial_state: dict[str, Any] | None = None) -> None:
        """Begin as the source does, on this node's CUDA stream."""
        super().reset(initial_state)
        with self._on_stream():
            self._source.reset(initial_state)

    def get_state(self) -> dict[str, Any]:
        """The state of the source; this node has none."""
        state: dict[str, Any] = self._source.state_dict()
        return state

    def next(self) -> Produced:
        """The source's next item, or the error that making it met."""
        try:
            with self._on_stream():
                item = next(self._source)
                ready = None if self._stream is None else self._stream.record_event()
        except StopIteration:
            raise
        # Whatever it is belongs to the thread that asked for the batch.
        except Exception as error:  # noqa: BLE001
            return Produced(error=error)
        return Produced(item, ready=ready)

    @contextlib.contextmanager
    def _on_stream(self) -> Any:
        if self._stream is None:
            yield
            return
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            yield
