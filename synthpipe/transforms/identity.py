"""What a described transform does, as plain values: equal values promise equal results, wherever its weights lie."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from synthpipe import checkpoints
from synthpipe.config.degrade import ChainOptions, ChoiceOptions
from synthpipe.config.denoise import DenoiseOptions
from synthpipe.config.reader import Options
from synthpipe.errors import OptionError

__all__ = ["options_identity", "options_identity_by_name"]

#: Options that earlier versions did not have, with what was done then: states of these versions go on to fit.
_LATER: dict[str, Any] = {"samples": 1, "precision": "32", "level": None}
#: Those of them that chains did not have at first either.
_LATER_IN_CHAINS = {"level": None}

#: Options that name a file whose content decides.
_FILES = ("bank",)


def options_identity(options: Options, *, leave_out: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The options of a transform with the content of their ``weights`` in place of the path.

    Args:
        options: of a degradation or a denoiser.
        leave_out: options that change nothing of the result.

    Raises:
        CheckpointError: weights that are missing or cannot be read.
        OptionError: another file that is missing or cannot be read.
    """
    if isinstance(options, ChoiceOptions):  # alone it is a list of one
        options = ChainOptions(stages=(options,))
    described = options.model_dump(mode="json", exclude=set(leave_out))
    for name, value in _LATER.items():
        if name in described and described[name] == value:
            del described[name]
    return {name: _of_field(options, name, value) for name, value in described.items()}


def _by_content(value: Any, described: Any) -> Any:
    """The plain form ``described`` of ``value`` with the content of weights and files in place of their names."""
    if isinstance(value, Options):
        known = {name: field for name, field in described.items() if not _as_before(name, field)}
        return {name: _of_field(value, name, field) for name, field in known.items()}
    if isinstance(value, tuple):
        return [_by_content(*pair) for pair in zip(value, described, strict=True)]
    return described


def _as_before(name: str, described: Any) -> bool:
    """Whether an option of a stage is as all chains were before there was this option."""
    return name in _LATER_IN_CHAINS and described == _LATER_IN_CHAINS[name]


def _of_field(options: Options, name: str, described: Any) -> Any:
    value = getattr(options, name)
    if value is not None and name == "weights":
        # Not the text described, which is as an option file has to hold it.
        if isinstance(options, DenoiseOptions):
            return "+".join(map(checkpoints.fingerprint, options.networks))
        return checkpoints.fingerprint(value)
    if isinstance(value, str) and name in _FILES:  # a weight of kernels from a bank is called so, too
        return _content(name, value)
    return _by_content(value, described)


def _content(name: str, path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise OptionError(f"{name}: cannot read {path!r}: {error}") from error


def options_identity_by_name(options: Options) -> dict[str, Any]:
    """The same by the file name of the weights, as states of version 1 have it."""
    described = options.model_dump(mode="json", exclude=set(_LATER))
    if "weights" in described:
        described["weights"] = Path(getattr(options, "weights")).name  # noqa: B009
    return described
