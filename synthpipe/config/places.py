"""Texts that name a place: what they stand for is part of their type, so that the option reference can print it.

Every option and every argument that is a place goes through :func:`expand_place`, so that ``~`` and variables mean the
same in all of them, and that a named pipe, on which reading would wait for ever, is refused before anything begins.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, PlainSerializer, ValidatorFunctionWrapHandler, WrapValidator

__all__ = [
    "File",
    "FileOrURL",
    "Folder",
    "FolderOrURL",
    "Place",
    "Shards",
    "ShardsOrFolder",
    "TableOrURL",
    "Weights",
    "expand_place",
    "special_kind",
    "written_place",
]

#: Bytes of one name, and of a whole path with the zero behind it: what Linux and its file systems take.
LONGEST_NAME = 255
LONGEST_PATH = 4096

_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", re.ASCII)
#: ``$`` is an ordinary character in URLs of the web, also behind a chain of fsspec (``filecache::https://…``); what
#: stands behind ``pipe:`` a shell reads by its own rules.
_LEFT_ALONE = re.compile(r"pipe:|(\w+::)*https?://")
_SPECIAL_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Place(str):
    """A path or URL that :func:`expand_place` has been over, which leaves it as it is the next time."""

    __slots__ = ()


def expand_place(text: str) -> Place:
    """The place that ``text`` means: a leading ``~`` or ``~user``, ``$NAME`` and ``${NAME}`` replaced.

    ``$$`` stands for ``$`` itself and ``./~`` for a name that begins so.  ``http(s)://`` URLs and ``pipe:`` commands
    stay as they are, ``~`` is replaced in paths and behind ``file://`` alone.

    Raises:
        ValueError: a variable that is not set or empty, a user who does not exist, nothing at all, a name that no file
            system takes, a link that leads to itself, or what is neither file nor folder: pipe, socket, device.

    >>> from synthpipe.config.places import expand_place
    >>> expand_place("$NO_DISK/hr")
    Traceback (most recent call last):
    ValueError: the variable NO_DISK is not set or empty, got '$NO_DISK/hr'; set it, or write $$ for a $ itself
    """
    if isinstance(text, Place):
        return text
    if not text:
        raise ValueError("expected a path, got ''")
    if _LEFT_ALONE.match(text):
        return Place(text)
    expanded = _VARIABLE.sub(lambda match: _value(match, text), text)
    scheme = "file://" if expanded.startswith("file://") else ""
    if scheme or "://" not in expanded:
        expanded = scheme + _home(expanded.removeprefix(scheme), text)
        _check_local(expanded.removeprefix(scheme))
    return Place(expanded)


def written_place(place: str) -> str:
    """The text that :func:`expand_place` makes ``place`` of: what an option file has to hold."""
    if _LEFT_ALONE.match(place):
        return str(place)
    return ("./" if place.startswith("~") else "") + place.replace("$", "$$")


def special_kind(mode: int) -> str | None:
    """What a file of this ``st_mode`` is in words, where it is neither a file nor a folder; else None."""
    return next((words for is_kind, words in _SPECIAL_KINDS if is_kind(mode)), None)


def _value(match: re.Match[str], text: str) -> str:
    dollar, *names = match.groups()
    if dollar:
        return "$"
    name = names[0] or names[1]
    value = os.environ.get(name)
    if not value:
        raise ValueError(f"the variable {name} is not set or empty, got {text!r}; set it, or write $$ for a $ itself")
    return value


def _home(path: str, text: str) -> str:
    if not path.startswith("~"):
        return path
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        user = path.split("/")[0]
        raise ValueError(f"no user {user[1:]!r} on this machine, got {text!r}; write ./{user} for a name like that")
    return expanded


def _check_local(path: str) -> None:
    if "\0" in path:
        raise ValueError(f"expected a path without a zero byte, got {path!r}")
    # The alternatives of a pattern make a long text, and short names.
    if not any(character in path for character in "{*?["):
        _check_lengths(path)
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"a link that leads to itself, got {path!r}") from error
        return
    kind = special_kind(mode)
    if kind is not None:
        raise ValueError(f"{path!r} is {kind}, expected a file or a folder, got {kind}")


def _check_lengths(path: str) -> None:
    data = os.fsencode(path)
    if len(data) >= LONGEST_PATH:
        raise ValueError(f"a path of {len(data)} bytes, expected fewer than {LONGEST_PATH}, got {_shortened(path)!r}")
    longest = max(data.split(b"/"), key=len)
    if len(longest) > LONGEST_NAME:
        raise ValueError(
            f"a name of {len(longest)} bytes, expected at most {LONGEST_NAME}, got {_shortened(os.fsdecode(longest))!r}"
        )


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:40]}...{text[-30:]}"


@dataclass(frozen=True)
class _PlaceType:
    """What a text of an option names: it is expanded when it is read, and written so that it reads back."""

    what: str
    pattern: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        written = PlainSerializer(written_place, when_used="json")
        return handler.generate_schema(Annotated[str, WrapValidator(self._validate), written])

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        matching = {} if self.pattern is None else {"pattern": self.pattern}
        return {"type": "string", "minLength": 1, "format": self.what, **matching}

    def _validate(self, value: Any, as_text: ValidatorFunctionWrapHandler) -> Place:
        # Pydantic's own text refuses names that are not UTF-8.
        place = expand_place(value if isinstance(value, str) else as_text(value))
        if self.pattern is not None and not re.search(self.pattern, place):
            raise ValueError(f"expected a text that matches {self.pattern!r}, got {value!r}")
        return place


File = Annotated[str, _PlaceType("file")]
FileOrURL = Annotated[str, _PlaceType("file or URL")]
Folder = Annotated[str, _PlaceType("folder")]
FolderOrURL = Annotated[str, _PlaceType("folder or URL")]
#: A path or URL with ``{000..511}`` ranges, or a folder with an index.
Shards = Annotated[str, _PlaceType("shards")]
ShardsOrFolder = Annotated[str, _PlaceType("shards or folder")]
#: A table of scores to write.
TableOrURL = Annotated[str, _PlaceType("file or URL", r"[^/]\.parquet$")]
#: A ``.safetensors`` file, or the name of weights that ship with the package.
Weights = Annotated[str, _PlaceType("weights")]
