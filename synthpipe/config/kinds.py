"""Options that reject images by the kinds of degradation that a scorer tells apart."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from synthpipe.config.reader import Options

__all__ = ["DEFAULT_THRESHOLD", "Kind", "KindRule"]

#: What can be wrong with an image; :mod:`synthpipe.density.kinds` has the scorer.
Kind = Literal["noise", "blur", "compression", "enlargement", "pattern", "graphics"]
#: Probability from which on an image counts as having a kind.
DEFAULT_THRESHOLD = 0.5
_Probability = Annotated[float, Field(ge=0, le=1)]


class KindRule(Options):
    """Which kinds of degradation are rejected, from which probability on."""

    reject_kinds: tuple[Literal[Kind, "all"], ...] | None = Field(
        None,
        min_length=1,
        description="reject by these kinds of a scorer that tells kinds apart (scorer_kinds): noise, blur, "
        "compression, enlargement, pattern (interlacing, scan lines, print), graphics (screens, pages, plain colours); "
        "or all",
    )
    threshold: _Probability | None = Field(
        None, description=f"with reject_kinds: the largest probability that is kept; null: {DEFAULT_THRESHOLD:g}"
    )
    thresholds: dict[Kind, _Probability] = Field(
        {}, description="the same for single kinds of reject_kinds, as in {noise: 0.7}"
    )

    @model_validator(mode="after")
    def _check_kinds(self) -> KindRule:
        if self.reject_kinds is None and (self.threshold is not None or self.thresholds):
            raise ValueError("'threshold' and 'thresholds' are of kinds; name them in 'reject_kinds' (or: all)")
        strange = [kind for kind in self.thresholds if kind not in self.kinds_rejected]
        if strange:
            raise ValueError(f"thresholds: {strange[0]!r} is not among reject_kinds {list(self.kinds_rejected)}")
        return self

    @property
    def kinds_rejected(self) -> tuple[Kind, ...]:
        """The kinds that are rejected, in the order of the scorer's columns; empty without such a rule."""
        if self.reject_kinds is None:
            return ()
        return tuple(kind for kind in get_args(Kind) if kind in self.reject_kinds or "all" in self.reject_kinds)

    @property
    def kind_limits(self) -> dict[str, float]:
        """The largest probability that is kept, by kind."""
        default = DEFAULT_THRESHOLD if self.threshold is None else self.threshold
        return {kind: self.thresholds.get(kind, default) for kind in self.kinds_rejected}
