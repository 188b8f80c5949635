"""Lay out the training folders and the held-back pairs of this recipe; nothing is redistributed.

    python recipes/deflow_small/prepare.py --data ../shared/data --out runs/deflow_small

The data root holds ``clean_train/`` (BSDS500 photographs), ``real_noise_full/`` (PolyU full frames: one noisy shot and
the mean of many of the same scene), ``real_noise/`` (PolyU crops, recompressed) and ``pairs.csv`` (measured shifts).

Training, unpaired: the clean photographs, and the *noisy* frames of a Canon 5D Mark II at ISO 6400, scenes bag, bicyc
and circu; their references are not touched.  Held back: scenes desk and recie of the same camera and ISO, as aligned
crops with their references.  Training folders are symbolic links; crops are PNG files below ``--out``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "deflow_cameras"))
from cropped_pairs import choose_corners, link_all, measured_shifts, read, save_crops

CAMERA = "Canon5D2"
TRAIN_SCENES = ("bag", "bicyc", "circu")
HELD_BACK_SCENES = ("desk", "recie")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="data root")
    parser.add_argument("--out", type=Path, default=Path("runs/deflow_small"), help="folder to make")
    parser.add_argument("--crops", type=int, default=24, help="crops of 256x256 from each held-back frame")
    parser.add_argument("--seed", type=int, default=0, help="where the crops lie")
    args = parser.parse_args()
    full = args.data / "real_noise_full"
    if not full.is_dir():
        parser.error(f"{full}: no such folder; --data must name the data root described above")
    link_all(sorted((args.data / "clean_train").glob("*.jpg")), args.out / "train" / "clean")
    link_all([full / "noisy" / f"{CAMERA}_{scene}.jpg" for scene in TRAIN_SCENES], args.out / "train" / "noisy")
    shifts = measured_shifts(args.data / "pairs.csv")
    notes = {}
    for number, scene in enumerate(HELD_BACK_SCENES):
        name = f"{CAMERA}_{scene}"
        pair = [read(full / side / f"{name}.jpg") for side in ("noisy", "clean")]
        rng = np.random.default_rng([args.seed, number])
        corners = choose_corners(*pair[0].shape[:2], args.crops, rng)
        save_crops(pair, name, corners, args.out / "held_back")
        notes[name] = {"shift_yx_pixels": shifts.get(f"real_noise_full/noisy/{name}.jpg"), "corners_yx": corners}
    (args.out / "held_back" / "notes.json").write_text(json.dumps(notes, indent=1))
    # The data set's own crops of these scenes: recompressed at quality 75 on both sides, so another noise.
    for side in ("noisy", "clean"):
        crops = [
            p for s in HELD_BACK_SCENES for p in (args.data / "real_noise" / side).glob(f"{CAMERA}_*_6400_{s}*.jpg")
        ]
        link_all(sorted(crops), args.out / "held_back_recompressed" / side)
    print(f"{args.out}: training folders, and {args.crops} held-back pairs from each of {', '.join(HELD_BACK_SCENES)}")


if __name__ == "__main__":
    main()
