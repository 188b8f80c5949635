"""Small pictures in folders and shards, weights of a tiny scorer, and the table that comes of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from synthpipe import checkpoints
from synthpipe.config.score import ScoreOptions
from synthpipe.config.shard import ShardOptions
from synthpipe.corpus.score import ScoreReport, score_corpus
from synthpipe.shards.pack import write_shards
from tests.tiny_scorer import tiny_scorer

__all__ = ["encoded", "everything", "photo", "rows_of", "score", "shard_photos", "write_photos", "write_weights"]


def photo(seed: int, height: int = 24, width: int = 30) -> np.ndarray:
    """(H, W, 3) uint8 with a contrast of its own."""
    rng = np.random.default_rng(seed)
    contrast = rng.uniform(0.1, 1)
    return (127.5 + contrast * (rng.random((height, width, 3)) - 0.5) * 255).round().astype(np.uint8)


def encoded(seed: int, fmt: str = "PNG", **size: int) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    Image.fromarray(photo(seed, **size)).save(buffer, fmt)
    return buffer.getvalue()


def write_photos(folder: Path, count: int = 8) -> Path:
    """``count`` pictures, by turns in ``city``, ``wood/deep`` and in no folder."""
    for number in range(count):
        place = folder / ("city", "wood/deep", "")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        fmt, suffix = (("PNG", "png"), ("JPEG", "jpg"))[number % 2]
        (place / f"{number}.{suffix}").write_bytes(encoded(number, fmt))
    return folder


def shard_photos(photos: Path, out: Path, **options: Any) -> str:
    """The pictures as `synthpipe shard` packs them, three in a shard."""
    settings = {"inputs": (str(photos),), "output": str(out), "max_samples": 3} | options
    write_shards(ShardOptions(**settings))
    return str(out)


def write_weights(path: Path, **changes: Any) -> str:
    """A scorer for tiles of 16 pixels, saved."""
    return str(checkpoints.save(path, tiny_scorer(**changes)))


def score(
    weights: str,
    source: str | tuple[str, ...],
    output: Path | str,
    on_progress: Callable[[int, int, int], None] | None = None,
    **options: Any,
) -> ScoreReport:
    """Score with four tiles an image."""
    places = (source,) if isinstance(source, str) else source
    settings = {"weights": weights, "source": places, "output": str(output), "tiles": 4} | options
    return score_corpus(ScoreOptions(**settings), on_progress)


def rows_of(path: Path | str) -> list[dict[str, Any]]:
    """The table, read by its own library."""
    return pq.read_table(path).to_pylist()


def everything(folder: Path) -> dict[str, bytes]:
    """All files of a folder, but for locks."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
