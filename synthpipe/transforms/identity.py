"""What a described transform does, as plain values: equal values promise equal results, wherever its weights lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synthpipe import checkpoints
from synthpipe.config.reader import Options

__all__ = ["options_identity", "options_identity_by_name"]

#: Options that earlier versions did not have, with what was done then: states of these versions go on to fit.
_LATER = {"samples": 1, "precision": "32"}


def options_identity(options: Options, *, leave_out: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The options of a transform with the content of their ``weights`` in place of the path.

    Args:
        options: of a degradation or a denoiser.
        leave_out: options that change nothing of the result.

    Raises:
        CheckpointError: weights that are missing or cannot be read.
    """
    described = options.model_dump(mode="json", exclude=set(leave_out))
    for name, value in _LATER.items():
        if described.get(name) == value:
            del described[name]
    if "weights" in described:
        # Not the text described, which is as an option file has to hold it.
        described["weights"] = checkpoints.fingerprint(getattr(options, "weights"))  # noqa: B009
    return described


def options_identity_by_name(options: Options) -> dict[str, Any]:
    """The same by the file name of the weights, as states of version 1 have it."""
    described = options.model_dump(mode="json", exclude=set(_LATER))
    if "weights" in described:
        described["weights"] = Path(getattr(options, "weights")).name  # noqa: B009
    return described
