"""Options of ``synthpipe score`` and ``synthpipe filter``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from synthpipe.config.reader import Options

__all__ = ["CorpusFilterOptions", "EngineOptions", "ScoreOptions"]


class EngineOptions(Options):
    """Where work is done that goes shard by shard; no result depends on it."""

    #: Processes on this machine, or tasks of a Ray cluster.
    engine: Literal["local", "ray"] = "local"
    #: Shards at work at once; 1 with the local engine works in the calling process.
    workers: int = Field(default=1, ge=1, le=4096)


class ScoreOptions(EngineOptions):
    """What is scored, by what, and where the table goes."""

    #: A ``.safetensors`` file of kind ``density_scorer``, or the name of shipped weights.
    weights: str = Field(min_length=1)
    #: Shards in any spelling, or folders of images.
    source: tuple[str, ...] = Field(min_length=1)
    #: The table: a path or an fsspec URL that ends in ``.parquet``.
    output: str = Field(pattern=r"[^/]\.parquet$")
    #: Tiles of each image that are looked at, at most.
    tiles: int = Field(default=16, ge=1, le=4096)
    #: ``cuda`` is one device for each worker.
    device: Literal["cpu", "cuda"] = "cpu"
    #: Folder of scores by content, shared by runs; a local disk.
    cache: str | None = Field(default=None, min_length=1)
    #: ``pipe:`` runs a shell command.
    allow_pipe: bool = False

    @model_validator(mode="after")
    def _check(self) -> ScoreOptions:
        if self.cache is not None and "://" in self.cache:
            raise ValueError(f"expected 'cache' to be a folder on this machine, got {self.cache!r}")
        return self


class CorpusFilterOptions(EngineOptions):
    """What is kept of a scored corpus, and where it goes."""

    #: What was scored, named as it was then.
    source: tuple[str, ...] = Field(min_length=1)
    #: The table that ``synthpipe score`` wrote.
    scores: str = Field(min_length=1)
    #: Folder for the kept shards, or for the list of kept files.
    output: str = Field(min_length=1)
    #: Share of the images to reject, the worst by ``by``.
    reject: float | None = Field(default=None, ge=0, lt=1)
    #: Or: the largest value of ``by`` that is kept.
    max_logit: float | None = Field(default=None, allow_inf_nan=False)
    #: The column that decides; higher is worse.
    by: str = Field(default="degraded_logit", min_length=1)
    #: Reject the worst of each source by itself, so that none is emptied for being different.
    per_source: bool = False
    #: For folders of images: what is made of the kept files besides the list.
    files: Literal["list", "link", "copy"] = "list"
    #: Which kept images the report shows.
    seed: int = Field(default=0, ge=0)
    #: ``pipe:`` runs a shell command.
    allow_pipe: bool = False

    @model_validator(mode="after")
    def _check(self) -> CorpusFilterOptions:
        if (self.reject is None) == (self.max_logit is None):
            raise ValueError("expected exactly one of 'reject' and 'max_logit'")
        if self.per_source and self.reject is None:
            raise ValueError("'per_source' needs 'reject': a fixed threshold is the same for all sources")
        return self
