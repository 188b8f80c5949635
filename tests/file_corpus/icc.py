"""ICC profiles, byte by byte (ICC.1:2001-04 for version 2, ICC.1:2022 for version 4)."""

from __future__ import annotations

import itertools
import struct

import numpy as np

from tests.file_corpus.colour_math import D50, SRGB, Space

__all__ = ["cmyk_profile", "grey_profile", "rgb_profile"]


def rgb_profile(space: Space, *, version: int = 2, name: str = "odd") -> bytes:
    """Matrix and curves; version 4 has sRGB's curve as a formula, version 2 as a table of 1024."""
    curve = _exponent(space.gamma) if space.gamma is not None else _srgb_formula() if version == 4 else _srgb_table()
    matrix = space.to_d50()
    tags = [(key, _xyz(column)) for key, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T, strict=True)]
    tags += [(key, curve) for key in (b"rTRC", b"gTRC", b"bTRC")]
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags, version, name)


def grey_profile(gamma: float) -> bytes:
    """One curve."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", [(b"kTRC", _exponent(gamma))], 2, "odd grey")


def cmyk_profile(points: int = 9) -> bytes:
    """A printer's table: each ink lets through a colour of its own; their products, as Lab."""
    inks = np.array([[0.02, 0.35, 0.75], [0.75, 0.03, 0.25], [0.95, 0.85, 0.02], [0.02, 0.02, 0.02]])
    grid = np.array(list(itertools.product(np.linspace(0, 1, points), repeat=4)))
    linear = np.prod(1 - grid[:, :, None] * (1 - inks), axis=1)
    lab = _lab(linear @ SRGB.to_d50().T)
    table = np.round(np.stack([lab[:, 0] * 652.8, (lab[:, 1] + 128) * 256, (lab[:, 2] + 128) * 256], 1))
    ramp = struct.pack(">2H", 0, 65535)
    head = b"mft2" + bytes(4) + bytes([4, 3, points, 0])
    identity = b"".join(_fixed(value) for value in np.eye(3).ravel())
    lut = (
        head + identity + struct.pack(">2H", 2, 2) + 4 * ramp + table.clip(0, 65535).astype(">u2").tobytes() + 3 * ramp
    )
    return _profile(b"prtr", b"CMYK", b"Lab ", [(b"A2B0", lut)], 2, "odd press")


def _profile(kind: bytes, space: bytes, pcs: bytes, tags: list[tuple[bytes, bytes]], version: int, name: str) -> bytes:
    text = name.encode("ascii")
    if version == 4:
        wide = name.encode("utf-16-be")
        described = b"mluc" + struct.pack(">4xII4sII", 1, 12, b"enUS", len(wide), 28) + wide
        notice = described
    else:
        described = b"desc" + struct.pack(">4xI", len(text) + 1) + text + bytes(79)
        notice = b"text" + bytes(4) + b"nobody's\0"
    everything = [(b"desc", described), (b"wtpt", _xyz(D50)), (b"cprt", notice), *tags]
    place = 128 + 4 + 12 * len(everything)
    table, body = struct.pack(">I", len(everything)), b""
    for key, data in everything:
        table += key + struct.pack(">II", place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    number = 0x04200000 if version == 4 else 0x02100000
    head = struct.pack(">I4sI4s4s4s12x4s28x", place + len(body), b"none", number, kind, space, pcs, b"acsp")
    head += b"".join(_fixed(value) for value in D50)
    return head + bytes(128 - len(head)) + table + body


def _exponent(gamma: float) -> bytes:
    return b"curv" + struct.pack(">4xIH2x", 1, round(gamma * 256))


def _srgb_table() -> bytes:
    levels = np.round(SRGB.decode(np.linspace(0, 1, 1024)) * 65535)
    return b"curv" + struct.pack(">4xI", 1024) + levels.astype(">u2").tobytes()


def _srgb_formula() -> bytes:
    return (
        b"para" + struct.pack(">4xH2x", 3) + b"".join(map(_fixed, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)))
    )


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(_fixed(value) for value in values)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _lab(xyz: np.ndarray) -> np.ndarray:
    ratio = xyz / D50
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)
