"""A page of crops for each test: input, every arm of the first seed, the reference, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from arms import NOTHING, MissingError
from experiment import Job, Workshop
from networks import enhance
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scenes import TESTS
from torch import Tensor

from synthpipe.images import to_uint8

__all__ = ["draw_pages"]

_CROP = 128
_ROWS = 4
_LABEL = 16


def draw_pages(workshop: Workshop, rows: Sequence[dict[str, Any]]) -> Iterator[Path]:
    """Write ``pages/TEST.png`` for each test that has results; gives their paths."""
    for test in TESTS:
        arms = [row["arm"] for row in rows if row["test"] == test]
        seeds = {row["arm"]: row["seeds"][0] for row in rows if row["test"] == test}
        if len(arms) < 2:
            continue
        jobs = [Job(test, arm, seeds[arm]) for arm in arms]
        path = workshop.out / "pages" / f"{test}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_page(workshop, test, jobs)).save(path)
        yield path


def _page(workshop: Workshop, test: str, jobs: Sequence[Job]) -> NDArray[np.uint8]:
    scale = TESTS[test].scale
    pairs = _examples(workshop, test)
    columns = {"reference": [gt for _, gt in pairs]}
    for job in jobs:
        try:
            net = workshop.network(job)
        except (MissingError, FileNotFoundError):
            continue  # finished elsewhere, or with other weights
        name = "input" if job.arm == NOTHING else job.arm
        columns[name] = [to_uint8(enhance(net, lq, scale).clamp(0, 1)) for lq, _ in pairs]
    return np.concatenate([_column(name, images) for name, images in columns.items()], axis=1)


def _examples(workshop: Workshop, test: str) -> list[tuple[Tensor, Tensor]]:
    """Judged pairs, spread over the columns, and one compressed photograph."""
    columns = workshop.columns(test)
    judged = [pairs for name, pairs in columns.items() if name.startswith("judge")]
    spread = [pairs[(2 * n + 1) % len(pairs)] for n in range(_ROWS) for pairs in judged][:_ROWS]
    return [*spread, columns["jpeg"][0]]


def _column(name: str, images: Sequence[Tensor]) -> NDArray[np.uint8]:
    label = Image.new("RGB", (_CROP, _LABEL), "white")
    ImageDraw.Draw(label).text((2, 2), name, fill="black")
    parts = [np.asarray(label)]
    for image in images:
        top, left = ((side - min(side, _CROP)) // 2 for side in image.shape[1:])
        crop = image[:, top : top + _CROP, left : left + _CROP].permute(1, 2, 0).numpy()
        parts.append(np.pad(crop, [(0, _CROP - crop.shape[0]), (0, _CROP - crop.shape[1]), (0, 0)]))
    return np.concatenate([np.pad(part, [(0, 2), (0, 2), (0, 0)], constant_values=255) for part in parts])
