"""Options of our own inside a BasicSR option file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from synthpipe.config.degrade import DegradeOptions
from synthpipe.config.reader import Options, parse_options
from synthpipe.config.stream import StreamOptions
from synthpipe.errors import OptionError

__all__ = ["DatasetOptions", "FeedDataOptions", "parse_dataset_options"]

#: BasicSR makes a Python list of this many indices at each epoch: 25 MB and 0.3 s at this limit.
_LONGEST = 1_000_000

#: Keys of a dataset block that BasicSR itself reads, or that its own option files carry without reading them.
_BASICSR_KEYS = frozenset(
    (
        *("name", "type", "phase", "dataset_enlarge_ratio", "use_shuffle", "io_backend"),
        *("prefetch_mode", "num_prefetch_queue", "pin_memory", "persistent_workers", "num_worker_per_gpu"),
    )
)

#: BasicSR's names of options that a stream has, too.
_TRANSLATED = {"batch_size_per_gpu": "batch_size", "use_hflip": "hflip", "use_rot": "rotate"}


class DatasetOptions(StreamOptions):
    """A ``SynthPipeDataset`` block: the stream's options, and what BasicSR has to be told."""

    virtual_length: int = Field(
        100_000,
        ge=1,
        le=_LONGEST,
        description="what len(dataset) says; it only sets how many iterations BasicSR calls an epoch",
    )
    device: str | None = Field(
        None, description="where degrading happens: cuda, cuda:1, cpu; null: the device of the model that is trained"
    )


def parse_dataset_options(opt: Mapping[str, Any]) -> DatasetOptions:
    """Read the ``datasets.train`` block of a BasicSR option file.

    Raises:
        OptionError: a key that neither BasicSR nor a stream knows, a wrong value, BasicSR's worker processes, or a
            phase other than training.
    """
    source = f"datasets.{opt.get('phase', 'train')} ({opt.get('name', 'SynthPipeDataset')})"
    if opt.get("phase", "train") != "train":
        raise OptionError(
            f"{source}: a stream makes new pairs for ever, and validation needs the same ones each time; "
            "use type: PairedImageDataset with frozen pairs"
        )
    if opt.get("num_worker_per_gpu") or opt.get("persistent_workers"):
        raise OptionError(
            f"{source}: expected num_worker_per_gpu: 0 and no persistent_workers, got "
            f"{opt.get('num_worker_per_gpu')} and {opt.get('persistent_workers')}; the stream has its own worker "
            "processes, set `workers`"
        )
    if "batch_size" in opt:
        raise OptionError(f"{source}: unknown option 'batch_size'; BasicSR's name is 'batch_size_per_gpu'")
    ours = {_TRANSLATED.get(key, key): value for key, value in opt.items() if key not in _BASICSR_KEYS}
    options = parse_options(ours, DatasetOptions, source=source)
    if options.virtual_length * opt.get("dataset_enlarge_ratio", 1) > _LONGEST:
        raise OptionError(
            f"{source}: virtual_length times dataset_enlarge_ratio must be at most {_LONGEST}, got "
            f"{options.virtual_length} * {opt['dataset_enlarge_ratio']}; a stream needs no dataset_enlarge_ratio"
        )
    return options


class FeedDataOptions(Options):
    """Top-level keys that the ``SynthPipe...Model`` types read."""

    scale: int = Field(ge=1, description="factor of super-resolution, a key of BasicSR itself")
    degrade: DegradeOptions | None = Field(
        None, description="what makes lq from gt; null: nothing, and the training dataset has to give lq"
    )
    gt_size: int | None = Field(
        None, ge=1, description="side of the patch cut from gt after degrading, in pixels; null: whole images"
    )

    @model_validator(mode="after")
    def _size_fits_scale(self) -> FeedDataOptions:
        if self.gt_size is not None and self.gt_size % self.scale:
            raise ValueError(f"gt_size: expected a multiple of scale {self.scale}, got {self.gt_size}")
        return self
