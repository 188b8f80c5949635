"""What helps against images that are skipped: each reason has its own advice, as one cause's cure is no other's."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["raise_limit", "skip_advice"]


def raise_limit(option: str) -> str:
    """Against ``"bomb"``, where the limit on pixels is ``option``."""
    return f"raise {option} if you trust files of so many pixels"


#: By reasons of :class:`synthpipe.errors.ImageError` that have one cure wherever they are met.
_ADVICE = {
    "bomb": raise_limit("max_pixels"),
    "truncated": "copy files that end too early again",
    "unreadable": "replace or remove files that cannot be read or hold no image",
    "unsupported": "save what is not read here as PNG",
    "out_of_range": "give a larger --range",
    "alpha": "let transparency through (alpha: white)",
    "pages": "say what is done with files of several pages (--pages first)",
    "not_finite": "use other weights, for these gave NaN or infinity",
    "diverged": "take a higher --penalty, or other --first and --last",
    "truncated_shard": "write or copy the shards that end too early again",
    "missing_shard": "put the shards back",
    "duplicate_key": "write the shards anew, with keys that come once",
}


def skip_advice(skipped: Mapping[str, int], cures: Mapping[str, str] | None = None, start: str = "") -> str:
    """What to do, as in ``"truncated: copy files that end too early again; bomb: raise max_pixels if ..."``.

    Args:
        skipped: counts by reason; the most frequent comes first, and where there is one reason it is not named.
        cures: advice of the caller by reason, such as the name of an option, before what is said here.
        start: what goes before the advice where there is any.

    Returns:
        Empty where nothing is known to help.
    """
    known = _ADVICE | dict(cures or {})
    ordered = sorted((reason for reason in skipped if skipped[reason]), key=lambda reason: (-skipped[reason], reason))
    told = [(reason, known[reason]) for reason in ordered if known.get(reason)]
    words = [text if len(ordered) == 1 else f"{reason}: {text}" for reason, text in told]
    return start + "; ".join(words) if words else ""
