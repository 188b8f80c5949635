"""Options of a stream: which shards, which tiles and patches, how they are mixed, what is refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from synthpipe.config.degrade import DegradeOptions
from synthpipe.config.denoise import StreamDenoiseOptions
from synthpipe.config.filter import FilterOptions
from synthpipe.config.reader import Options

__all__ = ["StreamOptions"]


class StreamOptions(Options):
    """Everything that decides what a stream yields.

    With ``degrade``, HR tiles of ``tile * scale`` pixels are degraded whole, a margin is dropped, and aligned patches
    (``gt_size`` and ``gt_size / scale``) are cut from them.  Without, the stream yields clean patches of ``gt_size``.
    """

    #: Shards of clean images: a path or URL with ``{000..511}`` ranges, a folder with an index, or a list of these.
    shards: str | tuple[str, ...] = Field(min_length=1)
    #: Side of the HR patches, pixels; a multiple of ``scale``.
    gt_size: int = Field(ge=8, le=4096)
    #: HR side over LR side.
    scale: int = Field(default=4, ge=1, le=16)
    #: Patches in an emitted batch.
    batch_size: int = Field(default=16, ge=1)
    #: All randomness comes from here.
    seed: int = Field(default=0, ge=0)
    #: What makes the low-quality partner; without it only clean patches are emitted.
    degrade: DegradeOptions | None = None
    #: What cleans the tiles of their own noise, before they are judged and degraded.
    denoise: StreamDenoiseOptions | None = None
    #: What is too degraded to be a clean image, and is dropped.
    filter: FilterOptions | None = None

    #: Reader processes per rank; 0 reads in the calling process.
    workers: int = Field(default=0, ge=0, le=256)
    #: How worker processes start; by default the platform's way.
    start_method: Literal["fork", "spawn", "forkserver"] | None = None
    #: Emitted batches prepared ahead in a background thread; by default 2 on an accelerator and 0 on the CPU.
    prefetch: int | None = Field(default=None, ge=0, le=64)

    #: Shards that one worker reads in turn.
    open_shards: int = Field(default=8, ge=1, le=256)
    #: Addresses (not images) held back for shuffling by each worker; 0 keeps the reading order.
    shuffle_buffer: int = Field(default=1000, ge=0, le=1_000_000)
    #: Whole passes over the corpus before iteration ends; ``null`` streams for ever.
    epochs: int | None = Field(default=None, ge=1)
    #: In a finite stream, leave out the last batch if it is short.
    drop_last: bool = True

    #: Side of the LR tile that is degraded at once; by default 160, or less where the corpus' images are smaller.
    tile: int | None = Field(default=None, ge=8, le=2048)
    #: LR pixels dropped on each side of a degraded tile, where a network sees its border.
    margin: int = Field(default=8, ge=0, le=256)
    #: Aligned patches cut from each degraded tile, by default 4, or fewer where they would not find room side by side.
    patches_per_tile: int | None = Field(default=None, ge=1, le=1024)
    #: Tiles cut from each image that is read.
    crops_per_image: int = Field(default=1, ge=1, le=1024)
    #: Tiles degraded at once on the device.
    tiles_per_batch: int = Field(default=8, ge=1, le=1024)
    #: Patches that are mixed on the device before they are emitted, by default 8 batches; 0 emits tile after tile.
    pool: int | None = Field(default=None, ge=0, le=65536)
    #: Mirror half of the tiles.
    hflip: bool = True
    #: Turn tiles by a random multiple of 90 degrees.
    rotate: bool = True

    #: Share of bad samples in an epoch above which the stream fails instead of skipping on.
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    #: Transparent images: laid on white, or counted as bad.
    alpha: Literal["white", "refuse"] = "white"
    #: Allow ``pipe:`` URLs, which run a shell command.
    allow_pipe: bool = False
    #: Folder for remote shards while they are in use; by default the system's temporary folder.
    spool_dir: str | None = None

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
