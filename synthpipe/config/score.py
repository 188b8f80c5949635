"""Options of ``synthpipe score`` and ``synthpipe filter``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from synthpipe.config.kinds import KindRule
from synthpipe.config.places import FileOrURL, Folder, FolderOrURL, ShardsOrFolder, TableOrURL, Weights
from synthpipe.config.reader import ALLOW_PIPE_MEANING, MAX_PIXELS_MEANING, Options
from synthpipe.pixel_limit import MAX_PIXELS

__all__ = ["CorpusFilterOptions", "EngineOptions", "ScoreOptions"]


class EngineOptions(Options):
    """Where work is done that goes shard by shard; no result depends on it."""

    engine: Literal["local", "ray"] = Field(
        "local", description="local: processes on this machine; ray: tasks on the Ray cluster that RAY_ADDRESS names"
    )
    workers: int = Field(
        1, ge=1, le=4096, description="shards at work at once; 1 with the local engine works in the calling process"
    )


class ScoreOptions(EngineOptions):
    """What is scored, by what, and where the table goes."""

    weights: Weights = Field(
        description="a scorer's .safetensors file, or the name of shipped weights (scorer_kinds, scorer_small)",
    )
    source: tuple[ShardsOrFolder, ...] = Field(
        min_length=1, description="shards (a folder with an index, a pattern, URLs), or folders of images"
    )
    output: TableOrURL = Field(description="the table: a path or an fsspec URL that ends in .parquet")
    tiles: int = Field(16, ge=1, le=4096, description="tiles of each image that are looked at, at most")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="where the scorer runs; cuda: a device for each worker; auto: CUDA where there is one, or the CPU",
    )
    cache: Folder | None = Field(
        None, description="folder of scores by content, shared by runs, on a local disk; null: none"
    )
    max_pixels: int = Field(MAX_PIXELS, ge=1, description=MAX_PIXELS_MEANING)
    allow_pipe: bool = Field(False, description=ALLOW_PIPE_MEANING)

    @model_validator(mode="after")
    def _check(self) -> ScoreOptions:
        if self.cache is not None and "://" in self.cache:
            raise ValueError(f"expected 'cache' to be a folder on this machine, got {self.cache!r}")
        return self


class CorpusFilterOptions(EngineOptions, KindRule):
    """What is kept of a scored corpus, and where it goes."""

    source: tuple[ShardsOrFolder, ...] = Field(min_length=1, description="what was scored, named as it was then")
    scores: FileOrURL = Field(description="the table that `synthpipe score` wrote")
    output: FolderOrURL = Field(description="folder for the kept shards, or for the list of kept files")
    reject: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of the images to reject, the worst (with reject_kinds: in those kinds)",
    )
    max_logit: float | None = Field(
        None, allow_inf_nan=False, description="the largest number in the column 'by' that is kept"
    )
    by: str = Field("degraded_logit", min_length=1, description="the column that decides; higher is worse")
    per_source: bool = Field(
        False,
        description="reject the worst of each source by itself, so that none is emptied for being different; needs "
        "reject",
    )
    files: Literal["list", "link", "copy"] = Field(
        "list", description="of folders of images: list the kept files in kept.txt, or link or copy them as well"
    )
    seed: int = Field(0, ge=0, description="chooses the kept images that the report shows")
    allow_pipe: bool = Field(False, description=ALLOW_PIPE_MEANING)

    @model_validator(mode="after")
    def _check(self) -> CorpusFilterOptions:
        given = [name for name in ("reject_kinds", "reject", "max_logit") if getattr(self, name) is not None]
        if len(given) != 1 and given != ["reject_kinds", "reject"]:
            raise ValueError(f"expected exactly one of 'reject_kinds', 'reject' and 'max_logit', got {given or 'none'}")
        if len(given) == 2 and (self.threshold is not None or self.thresholds):
            raise ValueError("'reject' drops a share, whatever the thresholds; leave out one of them")
        if self.reject_kinds is not None and self.by != "degraded_logit":
            raise ValueError(f"by: {self.by!r} cannot decide beside 'reject_kinds'; leave out one of them")
        if self.per_source and self.reject is None:
            raise ValueError("'per_source' needs 'reject': a fixed threshold is the same for all sources")
        return self
