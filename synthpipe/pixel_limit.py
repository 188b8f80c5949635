"""How large an image may be."""

from __future__ import annotations

__all__ = ["MAX_PIXELS"]

#: Images of more pixels are refused unless a command or option says otherwise; the largest cameras of phones make 200
#: million.  A file of a few kilobytes can announce any number, and decoding takes some 10 bytes for each.
MAX_PIXELS = 200_000_000
