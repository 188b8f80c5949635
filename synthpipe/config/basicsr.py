"""Options of our own inside a BasicSR option file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from synthpipe.config.degrade import DeFlowDegradeOptions, DegradeOptions
from synthpipe.config.reader import Options, parse_options
from synthpipe.config.stream import StreamOptions
from synthpipe.errors import OptionError

__all__ = ["BASICSR_KEYS", "TRANSLATED", "DatasetOptions", "FeedDataOptions", "parse_dataset_options"]

#: BasicSR makes a Python list of this many indices at each epoch: 25 MB and 0.3 s at this limit.
_LONGEST = 1_000_000

#: Keys of a dataset block that BasicSR itself reads, or that its own option files carry without reading them, each
#: with its JSON schema.
BASICSR_KEYS: dict[str, dict[str, Any]] = {
    "name": {"type": "string", "description": "name of the data set in logs and errors"},
    "type": {"const": "SynthPipeDataset", "description": "chooses this data set"},
    "phase": {"const": "train", "default": "train", "description": "BasicSR sets it; a stream is for training alone"},
    "dataset_enlarge_ratio": {
        "type": "integer",
        "minimum": 1,
        "default": 1,
        "description": "BasicSR multiplies the length by it; a stream needs none",
    },
    "use_shuffle": {"type": "boolean", "description": "not read: the stream shuffles, see shuffle_buffer"},
    "io_backend": {"type": "object", "description": "not read: the stream has its own readers"},
    "num_worker_per_gpu": {
        "enum": [0, None],
        "default": 0,
        "description": "BasicSR's own worker processes: none, the stream has its own, see workers",
    },
    "persistent_workers": {
        "enum": [False, None],
        "default": False,
        "description": "whether those worker processes stay; there are none",
    },
    "prefetch_mode": {
        "enum": ["cpu", "cuda", None],
        "default": None,
        "description": "how BasicSR fetches batches ahead; not needed, the stream does, see prefetch",
    },
    "num_prefetch_queue": {
        "type": "integer",
        "minimum": 1,
        "default": 1,
        "description": "batches that prefetch_mode cpu keeps ahead",
    },
    "pin_memory": {
        "type": "boolean",
        "default": False,
        "description": "leave it false on a GPU, where the stream's batches are already",
    },
}

#: What stays behind where a block of BasicSR's own datasets is turned into ours; a stream has nothing like it.
_OTHER_DATASETS = (
    *("dataroot_gt", "dataroot_lq", "meta_info_file", "meta_info", "filename_tmpl", "mean", "std", "color"),
    # RealESRGANDataset
    *("blur_kernel_size", "kernel_list", "kernel_prob", "blur_sigma", "betag_range", "betap_range", "sinc_prob"),
    *("blur_kernel_size2", "kernel_list2", "kernel_prob2", "blur_sigma2", "betag_range2", "betap_range2"),
    *("sinc_prob2", "final_sinc_prob"),
    # those of videos
    *("dataroot_flow", "num_frame", "interval_list", "random_reverse", "val_partition", "test_mode", "flip_sequence"),
)

#: BasicSR's names of options that a stream has, too.
TRANSLATED = {"batch_size_per_gpu": "batch_size", "use_hflip": "hflip", "use_rot": "rotate"}


class DatasetOptions(StreamOptions):
    """A ``SynthPipeDataset`` block: the stream's options, and what BasicSR has to be told."""

    virtual_length: int = Field(
        100_000,
        ge=1,
        le=_LONGEST,
        description="what len(dataset) says; it only sets how many iterations BasicSR calls an epoch",
    )
    device: str | None = Field(
        None,
        description="where degrading happens: cuda, cuda:1, cpu; null or auto: the device of the trained model",
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
    problems = [
        f"{source}: {key}: expected {none}, got {opt[key]}; the stream has its own worker processes, set `workers`"
        for key, none in (("num_worker_per_gpu", "0"), ("persistent_workers", "false"))
        if opt.get(key)
    ]
    if left := [key for key in _OTHER_DATASETS if key in opt]:
        problems.append(
            f"{source}: {', '.join(left)}: only BasicSR's own datasets have such keys; remove them, a "
            "SynthPipeDataset reads `shards`"
        )
    if problems:
        raise OptionError("\n".join(problems))
    if "batch_size" in opt:
        raise OptionError(f"{source}: unknown option 'batch_size'; BasicSR's name is 'batch_size_per_gpu'")
    ours = {TRANSLATED.get(key, key): value for key, value in opt.items() if key not in BASICSR_KEYS}
    options = parse_options(ours, DatasetOptions, source=source)
    if options.virtual_length * opt.get("dataset_enlarge_ratio", 1) > _LONGEST:
        raise OptionError(
            f"{source}: virtual_length times dataset_enlarge_ratio must be at most {_LONGEST}, got "
            f"{options.virtual_length} * {opt['dataset_enlarge_ratio']}; a stream needs no dataset_enlarge_ratio"
        )
    return options


class FeedDataOptions(Options):
    """Degrading in the model: the data set gives ``gt`` alone, the model makes ``lq`` of it in the main process."""

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
        if isinstance(self.degrade, DeFlowDegradeOptions) and self.degrade.samples > 1:
            raise ValueError("degrade.samples: is for streams; a batch that the model degrades has one of each image")
        return self
