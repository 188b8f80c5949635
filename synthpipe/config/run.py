"""Options that every kind of run of ``synthpipe train`` shares; the kinds' own schemas build on them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema, model_validator

from synthpipe.config.places import Folder, Shards, Weights
from synthpipe.config.reader import MAX_PIXELS_MEANING, Options
from synthpipe.config.stages.kernels import KERNEL_STRENGTH_MEANING, KernelStrength
from synthpipe.pixel_limit import MAX_PIXELS

__all__ = [
    "AUGMENT_MEANING",
    "CHECKPOINTING_MEANING",
    "Augment",
    "BlurOptions",
    "DomainOptions",
    "OptimizerOptions",
    "ReadingOptions",
    "RunFolderOptions",
    "RunOptions",
    "ScheduleOptions",
    "folders_of",
]

#: How crops are mirrored and turned.
Augment = Literal["none", "hflip", "flips", "dihedral"]
CHECKPOINTING_MEANING = "compute most of the flow's inner values again for the gradient, in place of keeping them"
AUGMENT_MEANING = "random turns of the crops; hflip: left-right; flips: also upside down; dihedral: also transposed"


class BlurOptions(Options):
    """Learned blur of crops, as the stage `kernels` of a chain."""

    weights: Weights = Field(
        description="a .safetensors file of `kind: kernels`, or the name of shipped weights (kernels_city100)"
    )
    strength: KernelStrength = Field((0.0, 1.5), description=KERNEL_STRENGTH_MEANING)


class DomainOptions(Options):
    """Where the images of one domain come from, and what is done to them before they are cropped."""

    folder: Folder | tuple[Folder, ...] | None = Field(
        None, description="folders of images, searched to any depth; exactly one of folder and shards"
    )
    shards: Shards | tuple[Shards, ...] | None = Field(
        None, description="shards, in place of folders: paths or URLs with {000..511} ranges, or folders with an index"
    )
    downscale: int = Field(
        1, ge=1, le=64, description="every whole image is reduced by this when it is read, bicubic; needs folder"
    )
    resize_range: tuple[float, float] | None = Field(
        None,
        description="[low, high] within 0.05 to 4: each crop is resized by a factor drawn log-uniformly; needs folder; "
        "null: crops keep their size",
    )
    blur: BlurOptions | None = Field(
        None,
        description="learned blur of each crop, after any resizing, then 8 bits again: for the clean side where the "
        "noisy one is softer; needs folder; null: none",
    )
    weight: Literal["area", "uniform"] = Field(
        "area", description="chance of an image to be drawn: by its area, or equal"
    )

    @model_validator(mode="after")
    def _check(self) -> DomainOptions:
        if (self.folder is None) == (self.shards is None):
            raise ValueError("expected exactly one of 'folder' and 'shards'")
        if self.shards is not None and (self.downscale != 1 or self.resize_range is not None):
            raise ValueError("'downscale' and 'resize_range' need 'folder': make such shards with `synthpipe shard`")
        if self.shards is not None and self.blur is not None:
            raise ValueError("'blur' needs 'folder'")
        if isinstance(self.resize_range, tuple) and not 0.05 <= self.resize_range[0] <= self.resize_range[1] <= 4:
            raise ValueError("expected 0.05 <= low <= high <= 4 in 'resize_range'")
        return self

    @property
    def places(self) -> tuple[str, ...]:
        """The folders or shards, as a tuple."""
        given = self.folder if self.folder is not None else self.shards
        return (given,) if isinstance(given, str) else tuple(given or ())


class ReadingOptions(Options):
    """How images are cropped at random and read ahead."""

    augment: Augment = Field("hflip", description=AUGMENT_MEANING)
    cache_mb: int = Field(1024, ge=16, description="decoded images kept in memory, MB for each domain and process")
    crops_per_decode: int = Field(
        16, ge=1, description="consecutive steps that take a crop of one image, where the images outgrow cache_mb"
    )
    workers: int = Field(1, ge=0, le=64, description="threads (folders) or processes (shards) that read ahead; 0: none")
    prefetch: int = Field(4, ge=1, le=256, description="batches made ahead")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description=MAX_PIXELS_MEANING)


class OptimizerOptions(Options):
    """Adam or AdamW."""

    kind: Literal["adam", "adamw"] = Field("adam", description="Adam, or Adam with decoupled weight decay")
    lr: float = Field(1e-4, gt=0, description="learning rate at the factor 1 of the schedule")
    encoder_lr: float | None = Field(
        None, gt=0, description="learning rate of the conditioning network, where there is one; null: as lr"
    )
    betas: tuple[float, float] = Field((0.9, 0.999), description="decay of the means of gradient and squared gradient")
    eps: float = Field(1e-8, gt=0, description="added to the root of the mean squared gradient")
    weight_decay: float = Field(0.0, ge=0, description="pull of the weights to 0; 0: none")


class ScheduleOptions(Options):
    """The factor on the learning rate."""

    kind: Literal["constant", "cosine"] = Field(
        "constant", description="constant between milestones, or falling along a half cosine"
    )
    warmup_steps: int = Field(0, ge=0, description="steps over which it rises from 0")
    milestones: tuple[float, ...] = Field(
        (0.5, 0.75, 0.9, 0.95), description="constant: where it drops, as rising fractions of max_steps"
    )
    factor: float = Field(0.5, gt=0, le=1, description="constant: what it is multiplied by at each milestone")
    final: float = Field(0.01, ge=0, le=1, description="cosine: the factor at the last step")

    @model_validator(mode="after")
    def _check(self) -> ScheduleOptions:
        if any(not 0 < place < 1 for place in self.milestones) or list(self.milestones) != sorted(self.milestones):
            raise ValueError("expected rising 'milestones' between 0 and 1")
        return self


class RunFolderOptions(Options):
    """What every run has, whether it goes step by step or computes its result at once."""

    kind: str = Field(description="kind of training")
    run_dir: Folder = Field(description="folder of the run: options.yml, log.txt, tb/, samples/, checkpoints/")
    seed: int = Field(10, ge=0, lt=2**63, description="seed of all randomness; one seed gives the same bits")


class RunOptions(RunFolderOptions):
    """Where a run writes, how long it goes on, how weights follow gradients, what it logs and keeps."""

    resume: Literal["auto", "never"] = Field(
        "never", description="auto: go on from the last checkpoint in run_dir; never: refuse a run_dir that has one"
    )
    init_weights: Weights | None = Field(
        None, description="weights of the same kind to start from, a .safetensors file; null: none"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one, else cpu")
    # The schema for editors has the number, too: YAML reads `precision: 32` as one.
    precision: Annotated[
        Literal["32", "bf16-mixed", "16-mixed"], WithJsonSchema({"enum": ["32", 32, "bf16-mixed", "16-mixed"]})
    ] = Field("32", description="of the numbers: single, or half where it is safe; 16-mixed scales the loss")
    capture: Literal["auto", "never"] = Field(
        "auto", description="auto: on one CUDA device the gradient of a flow is one CUDA graph: launches cost little"
    )
    max_steps: int = Field(100_000, ge=1, description="steps in all, those before a resume included")
    max_minutes: float | None = Field(
        None, gt=0, description="stop cleanly after this wall-clock time of this process; null: at max_steps alone"
    )
    optimizer: OptimizerOptions = Field(OptimizerOptions(), description="how weights follow gradients")
    schedule: ScheduleOptions = Field(ScheduleOptions(), description="how the learning rate changes")
    ema_decay: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="decay of the averaged weights, which are those that are saved; rises to it over the first steps",
    )
    clip_norm: float | None = Field(
        None, gt=0, description="norm of the gradient above which it is scaled down; null: never"
    )
    max_bad_steps: int = Field(100, ge=0, description="skipped steps (loss or gradient not finite) in a row allowed")
    log_every: int = Field(50, ge=1, description="steps between lines in the log and points in TensorBoard")
    sample_every: int = Field(1000, ge=1, description="steps between pictures in samples/")
    sample_images: int = Field(4, ge=1, le=64, description="images in each such picture")
    checkpoint_every: int = Field(1000, ge=1, description="steps between checkpoints, from which a run can go on")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints that are kept")

    @model_validator(mode="before")
    @classmethod
    def _accept_number(cls, data: Any) -> Any:
        # YAML reads `precision: 32` as a number.
        if isinstance(data, dict) and data.get("precision") == 32:
            return {**data, "precision": "32"}
        return data


def folders_of(options: Options) -> tuple[str, ...]:
    """Every folder of images that ``options`` name, in any block of them."""
    if isinstance(options, DomainOptions):
        return options.places if options.folder is not None else ()
    values = [getattr(options, name) for name in type(options).model_fields]
    blocks = [block for value in values for block in (value if isinstance(value, tuple) else (value,))]
    return tuple(folder for block in blocks if isinstance(block, Options) for folder in folders_of(block))
