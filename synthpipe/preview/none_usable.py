"""Why no image of a folder can be shown: counts, what helps by the reason, and the first few in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from synthpipe.errors import ImageError
from synthpipe.files.folder_walk import passed_over_text
from synthpipe.files.skip_advice import skip_advice

__all__ = ["none_usable"]

_NAMED = 3


def none_usable(
    what: str, reasons: Mapping[str, int], skipped: Sequence[str], cures: Mapping[str, str] | None = None
) -> ImageError:
    """The error, whose reason is ``"none"``.

    Args:
        what: begins the message: which folder, and what was looked for.
        reasons: counts of what was skipped, by reason of :class:`synthpipe.errors.ImageError`.
        skipped: what was skipped, a line each.
        cures: see :func:`synthpipe.files.skip_advice.skip_advice`.
    """
    counts = f" ({passed_over_text(reasons)})" if reasons else ""
    return ImageError(f"{what}{counts}{skip_advice(reasons, cures, start=': ')}; {'; '.join(skipped[:_NAMED])}", "none")
