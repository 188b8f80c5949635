"""Scoring on one core against NIQE of BasicSR: image tiles per second of processor time, on the same pixels in turn.

    python tools/bench/score.py --data ../shared/data/clean_test
    python tools/bench/score.py --weights runs/scorer.safetensors --tiles 4 --sides 512

An image tile is a square of ``--sides`` pixels, decoded already; ours looks at up to ``--tiles`` places of the scorer's
own size in it (16 places of 64 pixels see a quarter of 512x512 and all of 192x192), NIQE at all of it.  ``ours`` and
``peer`` are image tiles per second at the largest side; the details hold every side, and how many places per second
the scorer alone does on grey and on RGB ones, with the time of each of its steps.  Without pictures of that size
(``--data``), smoothed noise stands in.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from report import bench_parser, paired_seconds, print_result

from synthpipe.basicsr_plugin import register
from synthpipe.density import DensityScorer
from synthpipe.transforms.density import Scorer, load_scorer, score_image

CPU = torch.device("cpu")
#: Places scored at once when the scorer alone is timed.
PLACES = 16


def main() -> None:
    """Measure, print."""
    args = parse_arguments()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    register()
    from basicsr.metrics.niqe import calculate_niqe

    scorer: Any = load_scorer(args.weights)
    rows = {}
    for side in sorted(args.sides):
        images = cut_images(args.data, side, args.images)
        rows[side] = paired_seconds(
            over(images, lambda image: score_image(scorer, torch.from_numpy(image).permute(2, 0, 1), args.tiles)),
            over(images, lambda image: calculate_niqe(np.ascontiguousarray(image[..., ::-1]), crop_border=0)),
            CPU,
            args.rounds,
            clock=time.process_time,
        )
    ours, peer = ([args.images / seconds for seconds in times] for times in rows[max(rows)])
    print_result(
        "score",
        ours,
        peer,
        f"image tiles of {max(rows)}x{max(rows)} / s",
        CPU,
        save=args.save,
        compared="BasicSR calculate_niqe",
        weights=str(args.weights),
        places=args.tiles,
        sides={side: row_of(*times, args.images) for side, times in rows.items()},
        scorer_alone=scorer_alone(scorer, args.rounds),
        data=str(args.data),
    )


def over(images: list[np.ndarray], call: Callable[[np.ndarray], object]) -> Callable[[], object]:
    """All images, one after the other."""
    return lambda: [call(image) for image in images]


def row_of(ours: list[float], peer: list[float], images: int) -> dict[str, float]:
    """Medians in milliseconds for an image tile, and of the paired ratios of speed."""
    return {
        "ours_ms": round(1000 * statistics.median(ours) / images, 2),
        "peer_ms": round(1000 * statistics.median(peer) / images, 2),
        "times_faster": round(statistics.median(p / o for o, p in zip(ours, peer, strict=True)), 2),
    }


@torch.no_grad()
def scorer_alone(scorer: Scorer, rounds: int) -> dict[str, Any]:
    """Places per second, and milliseconds of each step for one place."""
    generator = torch.Generator().manual_seed(0)
    tiles = torch.rand(PLACES, 3, scorer.tile, scorer.tile, generator=generator)
    grey = tiles[:, :1].contiguous()
    measure = partial(paired_seconds, device=CPU, rounds=rounds, warmup=2, clock=time.process_time)
    rgb_seconds, grey_seconds = measure(lambda: scorer(tiles), lambda: scorer(grey))
    steps: dict[str, Callable[[], object]] = {}
    if isinstance(scorer, DensityScorer):
        seen = grey if scorer.dde.channels == 1 else tiles
        steps = {
            **{f"energies_{level:g}": partial(scorer.dde.mean_energies, seen[:8], level) for level in scorer.levels},
            **{f"norm_{level:g}": partial(scorer.dde.clean_score, seen[:8], level) for level in scorer.norm_levels},
        }
    times = {name: measure(step, lambda: None)[0] for name, step in steps.items()}
    return {
        "side": scorer.tile,
        "noise_levels": [*scorer.levels] if isinstance(scorer, DensityScorer) else [],
        "grey_per_s": round(PLACES / statistics.median(grey_seconds), 1),
        "rgb_per_s": round(PLACES / statistics.median(rgb_seconds), 1),
        "step_ms": {name: round(1000 * statistics.median(seconds) / 8, 3) for name, seconds in times.items()},
    }


def cut_images(data: Path | None, side: int, count: int) -> list[np.ndarray]:
    """``(side, side, 3)`` uint8 from the middle of pictures that are large enough, or smoothed noise."""
    found: list[np.ndarray] = []
    for path in sorted(data.glob("*.png")) if data is not None else ():
        with Image.open(path) as image:
            if min(image.size) >= side and len(found) < count:
                left, top = ((length - side) // 2 for length in image.size)
                found.append(np.array(image.convert("RGB").crop((left, top, left + side, top + side))))
    rng = np.random.default_rng(0)
    while len(found) < count:
        coarse = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float64)
        found.append(np.clip(smooth + rng.normal(0, 3, smooth.shape), 0, 255).astype(np.uint8))
    return found


def parse_arguments() -> argparse.Namespace:
    """Options of the command."""
    parser = bench_parser(__doc__)
    parser.add_argument("--weights", default="scorer_small", help="a scorer's .safetensors, or shipped weights")
    parser.add_argument("--data", type=Path, help="folder of PNG pictures")
    parser.add_argument("--sides", type=int, nargs="+", default=[192, 512], help="sides of the image tiles, from 192")
    parser.add_argument("--tiles", type=int, default=16, help="places that ours looks at in an image tile, at most")
    parser.add_argument("--images", type=int, default=3, help="image tiles of each side")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
