"""Image files made in memory without an image library, so that a decoder can be held against known samples."""

from __future__ import annotations

import struct
import zlib

import numpy as np

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png(
    samples: np.ndarray,
    color_type: int,
    *,
    depth: int | None = None,
    chunks: tuple[tuple[bytes, bytes], ...] = (),
    row_filter: int = 0,
    interlaced: bool = False,
) -> bytes:
    """PNG of ``(H, W, C)`` samples; ``row_filter`` 0 none, 1 left neighbour, 2 upper neighbour, 4 Paeth."""
    height, width, channels = samples.shape
    depth = depth or samples.dtype.itemsize * 8
    parts = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [samples]
    pixel = max(channels * depth // 8, 1)
    scanlines = b"".join(_scanlines(part, depth, pixel, row_filter) for part in parts if part.size)
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, int(interlaced))
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(scanlines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, payload) for kind, payload in body)


def _scanlines(samples: np.ndarray, depth: int, pixel: int, row_filter: int) -> bytes:
    rows = samples.reshape(len(samples), -1)
    if depth == 16:
        raw = rows.astype(">u2").view(np.uint8)
    elif depth == 8:
        raw = rows.astype(np.uint8)
    else:
        bits = (rows[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        raw = np.packbits(bits.reshape(len(rows), -1).astype(np.uint8), axis=1)
    out = b""
    above = np.zeros(raw.shape[1], np.int64)
    for row in raw.astype(np.int64):
        left = np.concatenate([np.zeros(pixel, np.int64), row])[: len(row)]
        corner = np.concatenate([np.zeros(pixel, np.int64), above])[: len(row)]
        guess = {0: 0 * row, 1: left, 2: above, 4: _paeth(left, above, corner)}[row_filter]
        out += bytes([row_filter]) + ((row - guess) % 256).astype(np.uint8).tobytes()
        above = row
    return out


def _paeth(left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    estimate = left + above - corner
    a, b, c = abs(estimate - left), abs(estimate - above), abs(estimate - corner)
    return np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))
