"""Options of a stream: which shards, which tiles and patches, how they are mixed, what is refused."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from synthpipe.config.degrade import DegradeOptions
from synthpipe.config.denoise import StreamDenoiseOptions
from synthpipe.config.filter import FilterOptions
from synthpipe.config.places import Folder, Shards
from synthpipe.config.reader import ALLOW_PIPE_MEANING, MAX_PIXELS_MEANING, Options
from synthpipe.pixel_limit import MAX_PIXELS

__all__ = ["StreamOptions"]


class StreamOptions(Options):
    """Everything that decides what a stream yields.

    With ``degrade``, HR tiles of ``tile * scale`` pixels are degraded whole, a margin is dropped, and aligned patches
    (``gt_size`` and ``gt_size / scale``) are cut from them.  Without, the stream yields clean patches of ``gt_size``.
    """

    shards: Shards | tuple[Shards, ...] = Field(
        min_length=1,
        description="shards of clean images: a path or URL with {000..511} ranges, a folder with an index, or a list "
        "of these",
    )
    gt_size: int = Field(ge=8, le=4096, description="side of the HR patches, in pixels; a multiple of scale")
    scale: int = Field(4, ge=1, le=16, description="HR side over LR side")
    batch_size: int = Field(16, ge=1, description="patches in an emitted batch")
    seed: int = Field(0, ge=0, description="all randomness comes from it; one seed gives the same batches")
    degrade: DegradeOptions | None = Field(
        None, description="what makes the low-quality partner; null: only clean patches are emitted"
    )
    denoise: StreamDenoiseOptions | None = Field(
        None, description="what cleans the tiles of their own noise, before they are judged and degraded; null: nothing"
    )
    filter: FilterOptions | None = Field(
        None, description="what is too degraded to be a clean image, and is dropped; null: nothing"
    )

    workers: int = Field(0, ge=0, le=256, description="reader processes per rank; 0 reads in the calling process")
    start_method: Literal["fork", "spawn", "forkserver"] | None = Field(
        None, description="how reader processes start; null: the platform's way, and forkserver where CUDA is in use"
    )
    prefetch: int | None = Field(
        None,
        ge=0,
        le=64,
        description="emitted batches prepared ahead in a background thread; null: 2 on an accelerator, 0 on the CPU",
    )

    compile: bool = Field(
        False,
        description="torch.compile for all that the device does, before it is captured: CUDA alone; the first batch "
        "waits for it, and results differ within rounding",
    )

    open_shards: int = Field(8, ge=1, le=256, description="shards that one reader reads in turn")
    shuffle_buffer: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="addresses (not images) held back for shuffling by each reader; 0 keeps the reading order",
    )
    epochs: int | None = Field(
        None, ge=1, description="whole passes over the corpus before iteration ends; null: for ever"
    )
    drop_last: bool = Field(True, description="in a finite stream, leave out the last batch if it is short")

    tile: int | None = Field(
        None,
        ge=8,
        le=2048,
        description="side of the LR tile that is degraded at once, in pixels; null: 160, or less where the images of "
        "the corpus are smaller",
    )
    margin: int = Field(
        8,
        ge=0,
        le=256,
        description="LR pixels dropped on each side of a degraded tile, where a network sees its border",
    )
    patches_per_tile: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="aligned patches cut from each degraded tile; null: 4, or fewer where they would not find room "
        "side by side",
    )
    crops_per_image: int = Field(1, ge=1, le=1024, description="tiles cut from each image that is read")
    tiles_per_batch: int = Field(8, ge=1, le=1024, description="tiles degraded at once on the device")
    pool: int | None = Field(
        None,
        ge=0,
        le=65536,
        description="patches that are mixed on the device before they are emitted; the first batch waits until it is "
        "full; 0 emits tile after tile; null: 8 batches",
    )
    hflip: bool = Field(True, description="mirror half of the tiles")
    rotate: bool = Field(True, description="turn tiles by a random multiple of 90 degrees")

    max_bad_fraction: float = Field(
        0.01,
        ge=0,
        le=1,
        description="bad samples are skipped and counted by reason; above this share of an epoch (which counts as 100 "
        "samples at least) the stream fails",
    )
    alpha: Literal["white", "refuse"] = Field(
        "white", description="transparent images: laid on white, or counted as bad"
    )
    max_pixels: int = Field(MAX_PIXELS, ge=1, description=MAX_PIXELS_MEANING)
    allow_pipe: bool = Field(False, description=ALLOW_PIPE_MEANING)
    spool_dir: Folder | None = Field(
        None, description="folder for remote shards while they are in use; null: the system's temporary folder"
    )

    @field_validator("shards", mode="before")
    @classmethod
    def _list_to_tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _sizes_fit(self) -> StreamOptions:
        if self.gt_size % self.scale:
            raise ValueError(f"gt_size must be a multiple of scale {self.scale}, got {self.gt_size}")
        if self.degrade is not None and self.tile is not None and self.tile < self.smallest_tile:
            raise ValueError(
                f"tile must hold an LR patch of {self.lq_size} and a margin of {self.margin} on each side, "
                f"{self.smallest_tile} in all, got {self.tile}; enlarge tile or reduce gt_size or margin"
            )
        return self

    @property
    def lq_size(self) -> int:
        """Side of the LR patches, pixels."""
        return self.gt_size // self.scale

    @property
    def pool_size(self) -> int:
        """Patches in the pool."""
        return 8 * self.batch_size if self.pool is None else self.pool

    @property
    def smallest_tile(self) -> int:
        """Smallest LR tile that one patch and the margins fit into."""
        return self.lq_size + 2 * self.margin
