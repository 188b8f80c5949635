"""The training loader of our entry point: reads a stream directly and always knows how far training has come.

BasicSR's prefetchers ask for batches ahead of training, ask for a new iterator at every epoch, and drop what they hold
when they do.  So *pulled from the stream* and *trained on* differ.  This loader numbers its batches, keeps those that
were handed out but not trained on, hands them out again when asked for a new iterator, and reports the stream's state
as of the last batch trained on.  Nothing is lost or repeated, whatever the prefetcher does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from synthpipe.basicsr_plugin.resume import keep_rng
from synthpipe.errors import StreamError, counted
from synthpipe.pipeline.source import USED
from synthpipe.pipeline.tally import describe

__all__ = ["SERIAL", "Stream", "StreamLoader"]

#: Key of a batch's number, counted from the start of training; the model's ``feed_data`` reports it back.
SERIAL = "synthpipe_serial"


class Stream(Protocol):
    """What :func:`synthpipe.pipeline.build_stream` returns."""

    def __iter__(self) -> Iterator[dict[str, Any]]: ...

    def state_dict(self) -> dict[str, Any]:
        """Where the batch taken last left off, in plain types."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batch behind ``state``."""

    def counts(self) -> dict[str, int]:
        """Images ``used`` and what was skipped, by reason."""

    def given_up(self) -> dict[str, int]:
        """What the files of used images held and batches do not, by reason."""

    def ways(self) -> dict[str, int]:
        """Tiles by way of the degradation's choices."""

    def close(self) -> None:
        """Stop the readers; the stream gives no more batches."""


class StreamLoader:
    """Endless batches of ``stream``, in epochs of ``epoch_length``.

    Args:
        stream: endless; a batch is a dictionary.
        epoch_length: batches per iterator, at least 1.  An iterator taken in mid-epoch ends where the epoch ends.
        snapshot_every: the stream's state is kept for each batch number that is a multiple of this: BasicSR's
            ``save_checkpoint_freq``.  States are only ever asked for there.
    """

    def __init__(self, stream: Stream, epoch_length: int, snapshot_every: int) -> None:
        self.stream = stream
        self._epoch_length = epoch_length
        self._snapshot_every = snapshot_every
        self._batches: Iterator[dict[str, Any]] | None = None
        self._trained = 0
        self._pending: dict[int, dict[str, Any]] = {}
        self._snapshots: dict[int, dict[str, Any]] = {}

    @property
    def trained(self) -> int:
        """Number of the last batch trained on; the first is 1."""
        return self._trained

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return self._epoch_length

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rest of this epoch, from the batch after the last one trained on."""
        first = self._trained + 1
        last = (self._trained // self._epoch_length + 1) * self._epoch_length
        return (self._batch(number) for number in range(first, last + 1))

    def mark_trained(self, number: int) -> None:
        """Training has taken batch ``number``: it will not be handed out again."""
        self._trained = number
        self._pending = {key: batch for key, batch in self._pending.items() if key > number}
        self._snapshots = {key: state for key, state in self._snapshots.items() if key >= number}

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch trained on.

        Raises:
            StreamError: batches were pulled ahead and this number is no multiple of ``snapshot_every``.
        """
        state = self._snapshots.get(self._trained)
        if state is None:
            if self._pending:
                raise StreamError(
                    f"the stream's state after batch {self._trained} was not kept (only every "
                    f"{self._snapshot_every}th is); save at multiples of logger.save_checkpoint_freq"
                )
            state = self.stream.state_dict()
        return {"trained": self._trained, "stream": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the batch that ``state`` stands at; before the first iterator is taken."""
        self.stream.load_state_dict(state["stream"])
        self._trained = int(state["trained"])

    def begin_after(self, number: int) -> None:
        """Count on from batch ``number``, with a stream at its beginning; before the first iterator is taken."""
        self._trained = number

    def summary(self) -> str:
        """For the log: images used, skipped, and what they gave up, among all batches pulled from the stream so far."""
        counts, given_up, ways = self.stream.counts(), self.stream.given_up(), self.stream.ways()
        used = counts.pop(USED, 0)
        text = f"{counted(used, 'image')} used, skipped: {describe(counts)}"
        text += f", given up: {describe(given_up)}" if given_up else ""
        return f"{text}, degraded by: {describe(ways)}" if ways else text

    def close(self) -> None:
        """Stop the stream's workers."""
        self._pending.clear()
        self.stream.close()

    def _batch(self, number: int) -> dict[str, Any]:
        if number not in self._pending:
            if self._batches is None:
                self._batches = iter(self.stream)
            # Starting worker processes draws from the global generators, and a resumed run starts them at another time.
            with keep_rng():
                batch = next(self._batches, None)
            if batch is None:
                raise StreamError(
                    f"the stream ended after {counted(number - 1, 'batch')}, BasicSR wants more; leave out `epochs`"
                )
            self._pending[number] = {**batch, SERIAL: number}
            if number % self._snapshot_every == 0:
                self._snapshots[number] = self.stream.state_dict()
        return self._pending[number]
