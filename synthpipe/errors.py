"""The exception tree: everything synthpipe raises on purpose.

::

    SynthPipeError
    ├── OptionError        an option file, option value or command line that cannot be used
    ├── CheckpointError    weights that are missing, damaged, of another kind or another version
    ├── DivergenceError    an iteration that left the scale of images
    ├── EffectiveSampleError  an importance-sampling estimate that rests on too few draws
    ├── ImageError         one image that cannot be used (a stream skips and counts it, by ``reason``)
    ├── ShapeError         a tensor of the wrong shape, range or dtype (also a ``ValueError``)
    ├── ShardError         a shard, an index or an output folder that cannot be used
    ├── StreamError        a stream that cannot go on: too many bad samples, a state that does not fit
    └── TrainingError      a training run that cannot go on

Every message names the thing, what was expected, what came, and what to do.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "DivergenceError",
    "EffectiveSampleError",
    "ImageError",
    "OptionError",
    "ShapeError",
    "ShardError",
    "StreamError",
    "SynthPipeError",
    "TrainingError",
    "counted",
    "excerpt",
    "os_error_text",
    "shortened",
]

#: Characters of a value, or of another library's message, that a message of ours holds.
LONGEST_EXCERPT = 300
#: Lists and dictionaries within each other that an excerpt shows.
_DEEPEST_EXCERPT = 8


def os_error_text(error: OSError) -> str:
    """What a command says of a file or folder that the system refused, in place of a traceback."""
    return f"cannot read or write {str(error.filename)!r}: {error.strerror or error}"


def counted(number: int, what: str) -> str:
    """A number and what it counts, in the plural but for 1; ``what`` is a noun that takes an ``s``, or an ``es``.

    >>> from synthpipe.errors import counted
    >>> counted(1, "image"), counted(0, "image"), counted(3, "patch")
    ('1 image', '0 images', '3 patches')
    """
    return f"{number} {what}" + ("" if number == 1 else "es" if what.endswith(("tch", "ss")) else "s")


def shortened(text: str) -> str:
    """``text``, cut behind ``LONGEST_EXCERPT`` characters."""
    return text if len(text) <= LONGEST_EXCERPT else f"{text[:LONGEST_EXCERPT]}..."


def excerpt(value: object) -> str:
    """``repr(value)`` of plain values, cut as :func:`shortened` does; never makes the whole of a long one.

    >>> from synthpipe.errors import excerpt
    >>> excerpt({"a": [1, 2.5], "b": "x"})
    "{'a': [1, 2.5], 'b': 'x'}"
    >>> len(excerpt("x" * 10**6)), len(excerpt(10**6000))
    (303, 22)
    """
    return shortened(_written(value, 0))


def _written(value: object, depth: int) -> str:
    if isinstance(value, str | bytes):
        return repr(value[: LONGEST_EXCERPT + 1])
    if (
        isinstance(value, int) and value.bit_length() > 3 * LONGEST_EXCERPT
    ):  # Python refuses to print thousands of digits
        return f"a number of {value.bit_length()} bits"
    brackets = {dict: ("{", "}"), list: ("[", "]"), tuple: ("(", ")")}
    if not isinstance(value, dict | list | tuple) or type(value) not in brackets:
        return repr(value)
    first, last = brackets[type(value)]
    if depth == _DEEPEST_EXCERPT:
        return f"{first}...{last}"
    parts, room = [], LONGEST_EXCERPT
    for item in value:
        if isinstance(value, dict):
            part = f"{_written(item, depth + 1)}: {_written(value[item], depth + 1)}"
        else:
            part = _written(item, depth + 1)
        parts.append(part)
        room -= len(part) + 2
        if room < 0:
            break
    comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
    return f"{first}{', '.join(parts)}{comma}{last}"


class SynthPipeError(Exception):
    """Base of all errors that synthpipe raises on purpose."""


class OptionError(SynthPipeError):
    """An option file, option value or command line that cannot be used."""


class CheckpointError(SynthPipeError):
    """Weights that are missing, damaged, of another kind or another version."""


class DivergenceError(SynthPipeError):
    """An iteration that left the scale of images, or the finite numbers."""


class EffectiveSampleError(SynthPipeError):
    """An importance-sampling estimate that rests on too few draws to mean anything."""


class ImageError(SynthPipeError):
    """One image that cannot be used.

    Args:
        message: names the image, what was expected and what came.
        reason: a short fixed word for counting, such as ``"truncated"`` or ``"too_small"``.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        # Crosses process borders (shard workers); the default would lose `reason`.
        return type(self), (str(self), self.reason)


class ShapeError(SynthPipeError, ValueError):
    """A tensor of the wrong shape, range or dtype."""


class ShardError(SynthPipeError):
    """A shard, an index or an output folder that cannot be used."""


class StreamError(SynthPipeError):
    """A stream that cannot go on: too many bad samples, or a state that does not fit."""


class TrainingError(SynthPipeError):
    """A training run that cannot go on."""
