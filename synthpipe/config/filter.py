"""Options of the stream's filter: which samples are too degraded to train on."""

from __future__ import annotations

from pydantic import Field, model_validator

from synthpipe.config.kinds import KindRule
from synthpipe.config.places import FileOrURL, Weights

__all__ = ["FilterOptions"]

_DEFAULT_WEIGHTS = "scorer_small"
_DEFAULT_KIND_WEIGHTS = "scorer_kinds"
_DEFAULT_TILES = 4


class FilterOptions(KindRule):
    """Drop what is probably degraded, by kinds of degradation or by one number, ``degraded_logit``; higher is worse.

    There are two ways.  Without ``scores``, each tile that the stream cuts is judged on the device, by
    ``reject_kinds``, ``max_logit`` or ``clean_quantile``.  With ``scores``, whole images are judged by what ``synthpipe
    score`` has written for their key, by ``reject_kinds``, ``reject`` (of both, the share that is worst in those
    kinds) or ``max_logit``, before they are decoded and without a scorer; an image without a score is bad, and counted
    as ``unscored``.
    """

    weights: Weights | None = Field(
        None,
        description=f"the scorer: a .safetensors file or the name of shipped weights; null: {_DEFAULT_KIND_WEIGHTS} "
        f"with reject_kinds, else {_DEFAULT_WEIGHTS}",
    )
    tiles: int | None = Field(
        None,
        ge=1,
        le=4096,
        description=f"scorer tiles looked at in each tile of the stream, at most; null: {_DEFAULT_TILES}, cheap "
        "beside a DeFlow",
    )
    scores: FileOrURL | None = Field(
        None,
        description="table that `synthpipe score` wrote for these shards, a path or a URL; null: a scorer judges",
    )
    by: str = Field("degraded_logit", min_length=1, description="column of scores that decides; higher is worse")

    max_logit: float | None = Field(None, allow_inf_nan=False, description="the largest number that is kept")
    clean_quantile: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="keep what is no worse than this share of the clean images that the scorer was calibrated on",
    )
    reject: float | None = Field(None, ge=0, lt=1, description="share of the images in scores to drop, the worst")

    min_keep: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="share that must be kept, or the stream fails: it would read for ever and yield little; 0: never",
    )

    @model_validator(mode="after")
    def _one_rule(self) -> FilterOptions:
        other = ("max_logit", "reject") if self.scores is not None else ("max_logit", "clean_quantile")
        rules = ("reject_kinds", *other)
        names = ("reject_kinds", "max_logit", "clean_quantile", "reject")
        given = [name for name in names if getattr(self, name) is not None]
        how = "with" if self.scores is not None else "without"
        worst_in_kinds = self.scores is not None and given == ["reject_kinds", "reject"]
        if not worst_in_kinds and (len(given) != 1 or given[0] not in rules):
            raise ValueError(
                f"expected exactly one of {', '.join(rules[:-1])} and {rules[-1]} {how} scores, got {given or 'none'}"
            )
        if worst_in_kinds and (self.threshold is not None or self.thresholds):
            raise ValueError("reject drops a share, whatever the thresholds; leave out one of them")
        idle = [name for name in ("weights", "tiles") if getattr(self, name) is not None]
        if self.scores is not None and idle:
            raise ValueError(f"scores are ready numbers; leave out {' and '.join(idle)}")
        if self.scores is None and self.by != "degraded_logit":
            raise ValueError(f"by: expected a table of scores beside it, got {self.by!r} and none")
        if self.reject_kinds is not None and self.by != "degraded_logit":
            raise ValueError(f"by: {self.by!r} cannot decide beside reject_kinds; leave out one of them")
        return self

    @property
    def scorer(self) -> str:
        """The scorer to load."""
        return self.weights or (_DEFAULT_WEIGHTS if self.reject_kinds is None else _DEFAULT_KIND_WEIGHTS)

    @property
    def tiles_used(self) -> int:
        """``tiles`` or its default."""
        return self.tiles or _DEFAULT_TILES
