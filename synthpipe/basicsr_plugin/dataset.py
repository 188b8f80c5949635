"""``type: SynthPipeDataset``: a stream behind the face of a map-style dataset, because BasicSR knows no other.

BasicSR builds a sampler over ``len(dataset)`` indices and a DataLoader that asks for them.  This dataset ignores the
indices and answers with the stream's next samples: the stream has its own order, its own epochs and its own workers.
It therefore lives in the main process only, where the accelerator is.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed
from torch.utils.data import Dataset

from synthpipe.basicsr_plugin.loader import Stream
from synthpipe.config.basicsr import parse_dataset_options
from synthpipe.config.stream import StreamOptions
from synthpipe.device import AUTO, resolve_device
from synthpipe.errors import OptionError, StreamError
from synthpipe.pipeline.build import build_stream
from synthpipe.seeds import sample_seed

__all__ = ["SynthPipeDataset"]

Sample = dict[str, Any]


class SynthPipeDataset(Dataset[Sample]):
    """Endless training pairs for BasicSR's trainers.

    A sample holds ``gt`` ``(3, H, W)`` and ``lq`` ``(3, H/s, W/s)``, float32 RGB in [0, 1], on the stream's device,
    with ``gt_path`` and ``lq_path``.  Without ``degrade`` there is no ``lq``; the ``SynthPipe...Model`` types add it.

    Args:
        opt: the ``datasets.train`` block; see :class:`synthpipe.config.basicsr.DatasetOptions`.

    Raises:
        OptionError: as :func:`synthpipe.config.basicsr.parse_dataset_options`.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        self.opt = opt
        self._options = parse_dataset_options(opt)
        # BasicSR seeds PyTorch with manual_seed + rank before it builds datasets, and tells them neither.
        self._default_seed = torch.initial_seed() - _rank_and_world_size()[0]
        self._lock = threading.Lock()
        self._source: Iterator[Sample] | None = None

    def __len__(self) -> int:
        """The virtual length: an epoch of BasicSR's is this many samples."""
        return self._options.virtual_length

    @property
    def gives_pairs(self) -> bool:
        """Whether samples hold ``lq``."""
        return self._options.degrade is not None

    def __getitem__(self, index: int) -> Sample:
        """The stream's next sample, whatever ``index`` is."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """The stream's next ``len(indices)`` samples; this is what a DataLoader calls.

        With ``prefetch_mode: cpu`` two of BasicSR's threads may come here at once, hence the lock.
        """
        with self._lock:
            if self._source is None:
                self._source = self._samples()
            return [next(self._source) for _ in indices]

    def open_stream(
        self,
        batch_size: int,
        default_seed: int,
        default_device: str | None = None,
        restarted_at: int | None = None,
    ) -> Stream:
        """The stream itself, for a caller that wants batches and the stream's state.

        Args:
            batch_size: samples per batch.
            default_seed: used where the options give no ``seed``.
            default_device: used where the options give no ``device``, or ``auto``; None is CUDA where there is one.
            restarted_at: the iteration at which a run starts its stream anew: the order, the crops and the degradation
                are drawn from a seed of their own, so that the samples of before do not come again in the same way.
        """
        rank, world_size = _rank_and_world_size()
        given = self._options.model_dump(include=set(StreamOptions.model_fields))
        given["batch_size"] = batch_size
        if "seed" not in self._options.model_fields_set:
            given["seed"] = default_seed
        if restarted_at is not None:
            given["seed"] = sample_seed(given["seed"], restarted_at, "basicsr.restart")
        given_device = None if self._options.device == AUTO else self._options.device
        device = given_device or default_device or resolve_device(AUTO)
        if device == "cuda":
            device = f"cuda:{torch.cuda.current_device()}"
        return build_stream(StreamOptions.model_validate(given), rank=rank, world_size=world_size, device=device)

    def _samples(self) -> Iterator[Sample]:
        stream = self.open_stream(self._options.batch_size, default_seed=_first_ranks(self._default_seed))
        # Nobody tells a dataset when training is over.
        weakref.finalize(self, stream.close)
        return _split_batches(stream, pinned=bool(self.opt.get("pin_memory")))


def _split_batches(stream: Stream, pinned: bool) -> Iterator[Sample]:
    queue: deque[Sample] = deque()
    batches = iter(stream)
    while True:
        if not queue:
            batch = next(batches, None)
            if batch is None:
                raise StreamError("the stream ended and BasicSR wants more; leave `epochs` out of the options")
            if pinned and batch["gt"].is_cuda:
                raise OptionError(
                    "pin_memory: true, but the stream's batches are on the GPU already and cannot be pinned; set "
                    "pin_memory: false, or train with python -m synthpipe.basicsr_plugin.train"
                )
            queue.extend({name: values[i] for name, values in batch.items()} for i in range(len(batch["gt"])))
        yield queue.popleft()


def _rank_and_world_size() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _first_ranks(value: int) -> int:
    """The first rank's value: without manual_seed each rank has drawn its own, and they have to share one order."""
    if _rank_and_world_size()[1] == 1:
        return value
    holder = [value]
    torch.distributed.broadcast_object_list(holder, src=0)
    return holder[0]
