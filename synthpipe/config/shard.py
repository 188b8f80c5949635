"""Options of ``synthpipe shard``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from synthpipe.config.places import FolderOrURL, ShardsOrFolder
from synthpipe.config.reader import MAX_PIXELS_MEANING, Options
from synthpipe.pixel_limit import MAX_PIXELS

__all__ = ["ShardOptions"]


class ShardOptions(Options):
    """Everything that decides what shards are written; all but ``workers`` and ``verify`` must stay to resume."""

    inputs: tuple[ShardsOrFolder, ...] = Field(
        min_length=1,
        description="folders of images, searched to any depth; tars of images, patterns and folders of shards",
    )
    output: FolderOrURL = Field(description="folder for the shards: a path or an fsspec URL")
    workers: int = Field(
        1, ge=1, le=1024, description="processes that read, check and write; 1 works in the calling process"
    )
    max_samples: int = Field(1000, ge=1, description="images in a shard, at most")
    max_bytes: int = Field(
        256 << 20,
        ge=1,
        description="bytes of image files in a shard, at most; a single larger image has a shard of its own",
    )
    min_size: int = Field(0, ge=0, description="leave out images whose shorter side has fewer pixels")
    reencode: Literal["png"] | None = Field(
        None, description="png: store every image as 8-bit RGB PNG; null: the bytes of the file as they are"
    )
    alpha: Literal["white", "refuse"] = Field(
        "white", description="transparent images; white: accepted, and laid on white where re-encoded; refuse: broken"
    )
    max_pixels: int = Field(MAX_PIXELS, ge=1, description=MAX_PIXELS_MEANING)
    seed: int | None = Field(
        0, ge=0, description="spreads images over the shards at random; null: the order of the folders"
    )
    prefix: str = Field(
        "shard",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        max_length=200,
        description="shards are called PREFIX-000000.tar",
    )
    verify: Literal["sha256", "size"] = Field(
        "sha256", description="how finished shards are checked when a run resumes: whole, or by their size"
    )
