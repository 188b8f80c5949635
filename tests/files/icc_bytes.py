"""ICC profiles made in memory (ICC.1:2001-04, version 2), so that conversions can be held against known colours."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence

Triple = tuple[float, float, float]

D50: Triple = (0.9642, 1.0, 0.8249)

#: Colorants adapted to D50, as the profiles of Adobe, Apple and Kodak have them.
ADOBE_RGB: tuple[Triple, ...] = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
DISPLAY_P3: tuple[Triple, ...] = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
PROPHOTO: tuple[Triple, ...] = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))
SRGB: tuple[Triple, ...] = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))


def rgb_profile(primaries: Sequence[Triple], gamma: float) -> bytes:
    """Matrix and one exponent for all channels."""
    tags = [(b"wtpt", _xyz(D50))]
    tags += [(name, _xyz(value)) for name, value in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)]
    tags += [(name, _curve(gamma)) for name in (b"rTRC", b"gTRC", b"bTRC")]
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile(b"GRAY", b"XYZ ", b"mntr", [(b"wtpt", _xyz(D50)), (b"kTRC", _curve(gamma))])


def cmyk_profile() -> bytes:
    """A table of two steps an ink: paper is L* 95, each ink a colour of its own, mixed by Demichel's rule."""
    inks = ((55, -37, -50), (48, 74, -3), (89, -5, 93), (16, 0, 0))
    paper = (95.0, 0.0, -2.0)
    nodes = []
    for amounts in itertools.product((0, 1), repeat=4):
        lab = list(paper)
        for amount, ink in zip(amounts, inks, strict=True):
            if amount:
                lab = [lab[0] * ink[0] / 95, lab[1] * 0.6 + ink[1], lab[2] * 0.6 + ink[2]]
        nodes.append(lab)
    levels = bytes(
        round(min(max(v, 0), 255))
        for lab in nodes
        for v in (lab[0] * 2.55, min(lab[1], 127) + 128, min(lab[2], 127) + 128)
    )
    identity = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + identity * 4 + levels + identity * 3
    tags = [(b"wtpt", _xyz(D50)), (b"A2B0", table)]
    return _profile(b"CMYK", b"Lab ", b"prtr", tags)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(value: Triple) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, value))


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def _profile(space: bytes, connection: bytes, kind: bytes, tags: list[tuple[bytes, bytes]]) -> bytes:
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = [(b"desc", description), (b"cprt", b"text\0\0\0\0none\0"), *tags]
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, payload in tags:
        payload += bytes(-len(payload) % 4)
        table += name + struct.pack(">II", start + len(body), len(payload))
        body += payload
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02400000, kind, space, connection)
    head += bytes(12) + b"acsp" + bytes(28) + b"".join(map(_fixed, D50))
    return head.ljust(128, b"\0") + table + body
