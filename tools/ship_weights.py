"""Weights that a training left -> a file to ship: half precision, what the card says in its header, and what that cost.

python tools/ship_weights.py runs/x/final.safetensors synthpipe/weights/x.safetensors --photos ../shared/data/clean_test
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.config.reader import read_yaml
from synthpipe.files.image_files import decode_file, list_images
from synthpipe.flows.deflow import DeFlow
from synthpipe.flows.draws import SeededNoise
from synthpipe.images import quantize_8bit, to_float
from synthpipe.pixel_limit import MAX_PIXELS

__all__ = ["main", "ship", "stored_error"]

#: Photographs that are degraded by both, and the side of the square from the middle of each.
_PHOTOS = 16
_SIDE = 192


def ship(source: str | Path, target: Path, info: dict[str, Any]) -> Path:
    """Write ``target`` in half precision.

    Args:
        source: weights of any kind, a file or a name.
        target: the file to write.
        info: takes the place of what the training left in the header under these names.
    """
    header = checkpoints.read_header(source)
    return checkpoints.save(target, checkpoints.load(source), {**header["info"], **info}, half=True)


@torch.no_grad()
def stored_error(whole: DeFlow, stored: DeFlow, photos: Path) -> tuple[float, float, float]:
    """How far degraded photographs move by what storing changed, of the same seeds.

    Returns:
        Root mean square and largest difference, in levels of 255, and the part of 8-bit values that differ at all.
    """
    differences, changed = [], []
    for number, photo in enumerate(islice(_squares(photos), _PHOTOS)):
        made = [flow.degrade(photo, SeededNoise(torch.tensor([number]), "ship")) for flow in (whole, stored)]
        differences.append(255 * (made[1] - made[0]))
        changed.append(quantize_8bit(made[1]) != quantize_8bit(made[0]))
    difference, part = torch.cat([x.flatten() for x in differences]), torch.cat([x.flatten() for x in changed])
    return float(difference.square().mean().sqrt()), float(difference.abs().max()), float(part.double().mean())


def _squares(folder: Path) -> Iterator[Tensor]:
    """``(1, 3, side, side)`` from the middle of each photograph that is large enough."""
    for path in list_images(folder):
        pixels, _ = decode_file(path, MAX_PIXELS)
        top, left = ((side - _SIDE) // 2 for side in pixels.shape[:2])
        if min(top, left) >= 0:
            cut = pixels[top : top + _SIDE, left : left + _SIDE]
            yield to_float(torch.from_numpy(cut.copy()).permute(2, 0, 1))[None]


def main() -> None:
    """Convert, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="weights that a training left")
    parser.add_argument("target", type=Path, help="the file to write")
    parser.add_argument("--info", type=Path, help="YAML file: what the header says of data, terms and figures")
    parser.add_argument("--photos", type=Path, help="clean photographs, by which the error of a DeFlow is measured")
    args = parser.parse_args()
    info = {} if args.info is None else read_yaml(args.info)
    whole = checkpoints.load(args.source)
    path = ship(args.source, args.target, info)
    if args.photos is not None and isinstance(whole, DeFlow):
        stored = checkpoints.load(path)
        assert isinstance(stored, DeFlow)
        rms, most, part = stored_error(whole, stored, args.photos)
        error = {"rms_255": round(rms, 4), "most_255": round(most, 3), "changed": round(part, 4)}
        path = ship(args.source, args.target, {**info, "stored": {"precision": "half", **error}})
        print(f"half precision: images off by {rms:.3f} of 255 (rms), at most {most:.2f}; {part:.1%} of 8-bit values")
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {checkpoints.fingerprint(path)}")


if __name__ == "__main__":
    main()
