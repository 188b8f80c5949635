"""The ICC profile in a JPEG, put together from its parts: Pillow passes over one whose parts are not all there."""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["icc_profile"]

_APP2, _START_OF_SCAN = 0xFFE2, 0xFFDA
_ICC = b"ICC_PROFILE\0"


def icc_profile(data: bytes) -> bytes | None:
    """The profile in all APP2 segments before the first scan (ICC.1:2022, annex B.4).

    None where there is none; empty where parts are missing, come twice or do not say the same number of parts.
    """
    parts: dict[int, bytes] = {}
    numbers = []
    for payload in _app2_segments(data):
        if payload.startswith(_ICC) and len(payload) >= len(_ICC) + 2:
            number, count = payload[len(_ICC)], payload[len(_ICC) + 1]
            numbers.append((number, count))
            parts[number] = payload[len(_ICC) + 2 :]
    if not numbers:
        return None
    whole = sorted(numbers) == [(number, len(numbers)) for number in range(1, len(numbers) + 1)]
    return b"".join(parts[number] for number in sorted(parts)) if whole else b""


def _app2_segments(data: bytes) -> Iterator[bytes]:
    position = 2
    while position + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == 0xFFFF:  # padding
            position += 1
            continue
        if marker < 0xFF00 or marker == _START_OF_SCAN or length < 2:
            return
        if marker == _APP2:
            yield data[position + 4 : position + 2 + length]
        position += 2 + length
