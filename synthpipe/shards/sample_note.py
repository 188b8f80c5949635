"""The JSON that `synthpipe shard` keeps beside each image; other shards have other JSON, or what is none."""

from __future__ import annotations

from typing import Any, BinaryIO

from synthpipe.json_text import parse_json
from synthpipe.shards.tar_walk import TarMember, read_member

__all__ = ["LARGEST_NOTE", "parse_note", "read_note"]

#: Bytes; what is longer is no note of ours.
LARGEST_NOTE = 1 << 20


def read_note(file: BinaryIO, member: TarMember) -> dict[str, Any] | None:
    """A member of a tar on disk as a JSON object; None where it is none, or longer than :data:`LARGEST_NOTE`."""
    return parse_note(read_member(file, member)) if member.size <= LARGEST_NOTE else None


def parse_note(text: bytes) -> dict[str, Any] | None:
    """A JSON object, or None."""
    try:
        note = parse_json(text, LARGEST_NOTE)
    except ValueError:
        return None
    return note if isinstance(note, dict) else None
