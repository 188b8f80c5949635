"""Denoising with nothing told, against non-local means with its best strength: a JSON row for each set.

    python tools/bench/denoise.py                                  # 40 minutes of one core; --side 192: six
    python tools/bench/denoise.py --only "denoise_sidd" --weights blind_spot_small
    python tools/bench/denoise.py --pictures /tmp/crops            # noisy | ours | peer | reference, middle of each

``ours`` is ``synthpipe denoise WEIGHTS IN OUT`` without options, ``peer`` scikit-image's ``denoise_nl_means`` with the
``h`` and the patches that are best on the mean of the very set, of a grid; both PSNR over RGB in dB, mean over
pictures, on 8 bits.  Rows:

* ``denoise_polyu``, ``denoise_sidd``: real pairs of ``--data``; details hold the mean of the pictures that settings
  were chosen on and of those that were judged alone, and the least gain over the input of any picture;
* ``denoise_cbsd68_15``, ``_25``, ``_50``: white noise, rounded to 8 bits (clipped).  The peer is ``blind_spot_small``
  as it was before levels and correlation were measured (``--sigma auto``);
* ``clean_cbsd68``, ``clean_kodim``, ``clean_set14``: pictures without noise; ``ours`` and ``peer`` are the least PSNR
  of a result against its own input, the peer as before (no change is reported as 99 dB).
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from report import bench_parser, provenance, result_path, write_result
from torch import Tensor

from synthpipe.config.denoise import DenoiseOptions
from synthpipe.files.image_files import list_images, read_image
from synthpipe.images import to_float, to_uint8
from synthpipe.seeds import generator_for, sample_seed
from synthpipe.transforms.build import build_denoise

sys.path.append(str(Path(__file__).resolve().parents[1]))
from evidence import is_chosen
from picture_quality import psnr

Row = dict[str, Any]
Pairs = Sequence[tuple[str, Tensor, Tensor]]
Cleaner = Callable[[Tensor], Tensor]

#: ``h`` of 255, by set; sides of patches and how far they are looked for.
STRENGTHS = {"real_noise": (3, 4, 5, 6, 8), "real_noise_sidd": (20, 25, 30, 35, 40, 50)}
PATCHES = ((7, 11), (5, 6))
LEVELS = (15, 25, 50)
CLEAN = ("cbsd68", "kodim", "set14")
_UNCHANGED = 99.0


def main() -> None:
    """Print the rows."""
    parser = bench_parser(__doc__)
    parser.add_argument("--weights", default="auto", help="what is named in the place of WEIGHTS")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the sets")
    parser.add_argument(
        "--side", type=int, default=0, help="of the middle that is looked at, pixels; 0: whole pictures"
    )
    parser.add_argument("--count", type=int, help="pictures of each set, evenly spaced; all by default")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="ROW", help="patterns of rows")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the real pairs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ours = build_denoise(DenoiseOptions(weights=args.weights)).clean
    before = build_denoise(DenoiseOptions(weights="blind_spot_small", sigma="auto")).clean
    for name, make in makers(args, ours, before).items():
        if any(fnmatch(name, pattern) for pattern in args.only):
            result = {"name": name, **make(), "weights": args.weights, "side": args.side}
            result |= {"unit": "dB", **provenance(torch.device("cpu"))}
            print(json.dumps(result), flush=True)
            if args.save:
                write_result(result_path(name, result), result)


def makers(args: Any, ours: Cleaner, before: Cleaner) -> Mapping[str, Callable[[], Row]]:
    """What makes each row, by its name."""
    made: dict[str, Callable[[], Row]] = {}
    for name, folder in (("denoise_polyu", "real_noise"), ("denoise_sidd", "real_noise_sidd")):
        made[name] = partial(real_row, args, folder, ours)
    for level in LEVELS:
        made[f"denoise_cbsd68_{level}"] = partial(white_row, args, level, ours, before)
    for name in CLEAN:
        made[f"clean_{name}"] = partial(clean_row, args, name, ours, before)
    return made


def real_row(args: Any, folder: str, ours: Cleaner) -> Row:
    """Real pairs against non-local means."""
    paths = some(list_images(args.data / folder / "noisy"), args.count)
    pairs = [(p.name, picture(p, args.side), picture(args.data / folder / "clean" / p.name, args.side)) for p in paths]
    noisy = [psnr(y, x) for _, y, x in pairs]
    results = [ours(y) for _, y, _ in pairs]
    reached = [psnr(result, x) for result, (_, _, x) in zip(results, pairs, strict=True)]
    best, means = best_means(pairs, STRENGTHS[folder])
    if args.pictures is not None:
        for (name, y, x), result, peer in zip(pairs, results, means, strict=True):
            save_side_by_side(args.pictures / folder / f"{Path(name).stem}.png", (y, result, peer, x))
    peers = [psnr(result, x) for result, (_, _, x) in zip(means, pairs, strict=True)]
    parts = {"chosen": [is_chosen(name) for name, _, _ in pairs]}
    parts["judged"] = [not chosen for chosen in parts["chosen"]]
    columns = {"noisy": noisy, "ours": reached, "peer": peers}
    gains = [after - first for after, first in zip(reached, noisy, strict=True)]
    return {
        "ours": statistics.fmean(reached),
        "peer": statistics.fmean(peers),
        "ratio": statistics.fmean(reached) / statistics.fmean(peers),
        "compared": f"denoise_nl_means, {best}",
        "input": statistics.fmean(noisy),
        "least_gain": min(gains),
        **{part: mean_where(columns, chosen) for part, chosen in parts.items() if any(chosen)},
        "each": {
            name: [round(value, 2) for value in values]
            for (name, _, _), *values in zip(pairs, noisy, reached, peers, strict=True)
        },
    }


def best_means(pairs: Pairs, strengths: Sequence[float]) -> tuple[str, list[Tensor]]:
    """Non-local means of each picture, with the strength and the patches that are best on the mean of all."""
    from skimage.restoration import denoise_nl_means

    best: tuple[float, str, list[Tensor]] = (-np.inf, "", [])
    for side, distance in PATCHES:
        for strength in strengths:
            options = {"patch_size": side, "patch_distance": distance, "h": strength / 255, "channel_axis": -1}
            made = [tensor(denoise_nl_means(array(y), fast_mode=True, **options)) for _, y, _ in pairs]
            mean = statistics.fmean(psnr(result, x) for result, (_, _, x) in zip(made, pairs, strict=True))
            print(f"patches of {side}, h {strength}: {mean:.2f} dB", file=sys.stderr, flush=True)
            if mean > best[0]:
                best = (mean, f"patch_size {side}, patch_distance {distance}, h {strength} of 255", made)
    return best[1], best[2]


def white_row(args: Any, level: int, ours: Cleaner, before: Cleaner) -> Row:
    """White noise on pictures of CBSD68, against the defaults of before."""
    columns: dict[str, list[float]] = {"ours": [], "peer": [], "input": []}
    for path in clean_paths(args, "cbsd68"):
        x = picture(path, args.side)
        generator = generator_for(sample_seed(0, 0, path.name), f"sigma {level}")
        y = to_float(to_uint8(x + level / 255 * torch.randn(x.shape, generator=generator)))
        for name, result in (("input", y), ("ours", ours(y)), ("peer", before(y))):
            columns[name].append(psnr(result, x))
    row = {name: statistics.fmean(values) for name, values in columns.items()}
    return {**row, "ratio": row["ours"] / row["peer"], "compared": "blind_spot_small, --sigma auto"}


def clean_row(args: Any, name: str, ours: Cleaner, before: Cleaner) -> Row:
    """What clean pictures lose, against the defaults of before."""
    paths = clean_paths(args, name)
    each: dict[str, list[float]] = {}
    for path in paths:
        x = picture(path, args.side)
        each[path.name] = [round(min(_UNCHANGED, psnr(clean(x), x)), 2) for clean in (ours, before)]
    least = [min(values) for values in zip(*each.values(), strict=True)]
    row = {"ours": least[0], "peer": least[1], "ratio": least[0] / least[1]}
    return {**row, "compared": "blind_spot_small, --sigma auto", "pictures": each}


def clean_paths(args: Any, name: str) -> list[Path]:
    """Pictures of a clean set."""
    return some([p for p in list_images(args.data / "clean_test") if p.name.startswith(name)], args.count)


def some(paths: Sequence[Path], count: int | None) -> list[Path]:
    """``count`` of them, evenly spaced."""
    return list(paths) if count is None else list(paths)[:: max(1, len(paths) // count)][:count]


def mean_where(columns: Mapping[str, Sequence[float]], chosen: Sequence[bool]) -> Row:
    """Means of some of the pictures, and how many they are."""
    means = {
        name: statistics.fmean(v for v, yes in zip(values, chosen, strict=True) if yes)
        for name, values in columns.items()
    }
    return {"pictures": sum(chosen), **means}


def picture(path: Path, side: int) -> Tensor:
    """``(1, 3, H, W)`` in [0, 1]; the middle, at multiples of 8 as blocks of JPEG are."""
    pixels = read_image(path)
    if side:
        top, left = (max(0, (length - side) // 16 * 8) for length in pixels.shape[:2])
        pixels = pixels[top : top + side, left : left + side]
    return to_float(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])


def array(x: Tensor) -> NDArray[np.float64]:
    """``(H, W, 3)``."""
    return x[0].permute(1, 2, 0).double().numpy()


def tensor(pixels: NDArray[np.float64]) -> Tensor:
    """``(1, 3, H, W)``, rounded to 8 bits."""
    return to_float(to_uint8(torch.from_numpy(pixels).float().permute(2, 0, 1)[None]))


def save_side_by_side(target: Path, pictures: Sequence[Tensor], side: int = 192) -> None:
    """The middles, twice as large, next to each other."""
    target.parent.mkdir(parents=True, exist_ok=True)
    top, left = (max(0, (length - side) // 2) for length in pictures[0].shape[2:])
    row = torch.cat([x[..., top : top + side, left : left + side] for x in pictures], 3)
    pixels = to_uint8(row)[0].permute(1, 2, 0).numpy()
    Image.fromarray(pixels).resize((2 * pixels.shape[1], 2 * pixels.shape[0]), Image.Resampling.NEAREST).save(target)


if __name__ == "__main__":
    main()
