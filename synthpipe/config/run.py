"""Options that every kind of run of ``synthpipe train`` shares; the kinds' own schemas build on them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from synthpipe.config.reader import Options

__all__ = ["DomainOptions", "OptimizerOptions", "ReadingOptions", "RunOptions", "ScheduleOptions"]


class DomainOptions(Options):
    """Where the images of one domain come from, and what is done to them before they are cropped."""

    folder: str | tuple[str, ...] | None = Field(None, description="folders of images, searched with all below them")
    shards: str | tuple[str, ...] | None = Field(None, description="shards, in place of folders")
    downscale: int = Field(1, ge=1, le=64, description="bicubic reduction of every whole image when it is read")
    resize_range: tuple[float, float] | None = Field(
        None, description="[low, high]: each crop is resized by a factor drawn log-uniformly from this range"
    )
    weight: Literal["area", "uniform"] = Field("area", description="chance of an image: by its area, or equal")

    @model_validator(mode="after")
    def _check(self) -> DomainOptions:
        if (self.folder is None) == (self.shards is None):
            raise ValueError("expected exactly one of 'folder' and 'shards'")
        if self.shards is not None and (self.downscale != 1 or self.resize_range is not None):
            raise ValueError("'downscale' and 'resize_range' need 'folder': make such shards with `synthpipe shard`")
        if self.resize_range is not None and not 0.05 <= self.resize_range[0] <= self.resize_range[1] <= 4:
            raise ValueError("expected 0.05 <= low <= high <= 4 in 'resize_range'")
        return self

    @property
    def places(self) -> tuple[str, ...]:
        """The folders or shards, as a tuple."""
        given = self.folder if self.folder is not None else self.shards
        return (given,) if isinstance(given, str) else tuple(given or ())


class ReadingOptions(Options):
    """How images are cropped at random and read ahead."""

    augment: Literal["none", "hflip", "flips", "dihedral"] = Field(
        "hflip", description="hflip: left-right; flips: also upside down; dihedral: also transposed"
    )
    cache_mb: int = Field(1024, ge=16, description="decoded images kept in memory, MB for each domain and process")
    crops_per_decode: int = Field(
        16, ge=1, description="consecutive steps that take a crop of one image, where the images outgrow cache_mb"
    )
    workers: int = Field(1, ge=0, le=64, description="threads (folders) or processes (shards) that read ahead; 0: none")
    prefetch: int = Field(4, ge=1, le=256, description="batches made ahead")


class OptimizerOptions(Options):
    """Adam or AdamW."""

    kind: Literal["adam", "adamw"] = "adam"
    lr: float = Field(1e-4, gt=0)
    encoder_lr: float | None = Field(None, gt=0, description="of the conditioning network; the same as lr by default")
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)


class ScheduleOptions(Options):
    """The factor on the learning rate; all places are fractions of ``max_steps``."""

    kind: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0, description="linear rise over the first steps")
    milestones: tuple[float, ...] = Field((0.5, 0.75, 0.9, 0.95), description="constant: fractions where it drops")
    factor: float = Field(0.5, gt=0, le=1, description="constant: what each milestone multiplies by")
    final: float = Field(0.01, ge=0, le=1, description="cosine: the factor at the last step")

    @model_validator(mode="after")
    def _check(self) -> ScheduleOptions:
        if any(not 0 < place < 1 for place in self.milestones) or list(self.milestones) != sorted(self.milestones):
            raise ValueError("expected rising 'milestones' between 0 and 1")
        return self


class RunOptions(Options):
    """What every kind of run has."""

    kind: str
    run_dir: str = Field(description="folder of the run: options.yml, log.txt, tb/, samples/, checkpoints/")
    seed: int = Field(10, ge=0, lt=2**63)
    resume: Literal["auto", "never"] = Field(
        "never", description="auto: go on from the last checkpoint in run_dir; never: refuse a run_dir that has one"
    )
    init_weights: str | None = Field(None, description="weights (.safetensors) of the same kind to start from")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    max_steps: int = Field(100_000, ge=1)
    max_minutes: float | None = Field(None, gt=0, description="stop cleanly after this wall-clock time of this process")
    optimizer: OptimizerOptions = OptimizerOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    ema_decay: float = Field(0.999, ge=0, lt=1, description="of the averaged weights; rises to it over the first steps")
    clip_norm: float | None = Field(None, gt=0, description="gradient norm above which gradients are scaled down")
    max_bad_steps: int = Field(100, ge=0, description="skipped steps (loss or gradient not finite) in a row allowed")
    log_every: int = Field(50, ge=1)
    sample_every: int = Field(1000, ge=1)
    sample_images: int = Field(4, ge=1, le=64)
    checkpoint_every: int = Field(1000, ge=1)
    keep_checkpoints: int = Field(2, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _accept_number(cls, data: Any) -> Any:
        # YAML reads `precision: 32` as a number.
        if isinstance(data, dict) and data.get("precision") == 32:
            return {**data, "precision": "32"}
        return data
