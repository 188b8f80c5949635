"""Options of ``synthpipe shard``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from synthpipe.config.reader import Options

__all__ = ["ShardOptions"]


class ShardOptions(Options):
    """Everything that decides what shards are written; all but ``workers`` and ``verify`` must stay to resume."""

    #: Folders of images, searched to any depth.
    inputs: tuple[str, ...] = Field(min_length=1)
    #: Folder for the shards: a path or an fsspec URL.
    output: str = Field(min_length=1)
    #: Processes that read, check and write; 1 works in the calling process.
    workers: int = Field(default=1, ge=1, le=1024)
    #: Images in a shard, at most.
    max_samples: int = Field(default=1000, ge=1)
    #: Bytes of image files in a shard, at most (a single larger image has a shard of its own).
    max_bytes: int = Field(default=256 << 20, ge=1)
    #: Leave out images whose shorter side has fewer pixels.
    min_size: int = Field(default=0, ge=0)
    #: Store every image as 8-bit RGB PNG; by default the bytes of the file are kept as they are.
    reencode: Literal["png"] | None = None
    #: Transparent images: accepted (and, where re-encoded, laid on white), or listed as broken.
    alpha: Literal["white", "refuse"] = "white"
    #: Spreads images over the shards at random; null keeps the order of the folders.
    seed: int | None = Field(default=0, ge=0)
    #: Shards are called ``PREFIX-000000.tar``.
    prefix: str = Field(default="shard", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    #: How finished shards are checked when a run resumes: whole, or by their size.
    verify: Literal["sha256", "size"] = "sha256"
