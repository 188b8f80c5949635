"""Names that are not UTF-8, for people, tables and JSON."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """The same text; bytes of a name that are no UTF-8 become ``\\udcXX``, so that any file can take it.

    Python holds such bytes as lone surrogates, which cannot be written.
    """
    return text.encode("utf-8", "backslashreplace").decode()
