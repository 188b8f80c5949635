"""Lay out the piles and the judged pairs of three cameras; nothing is redistributed.

    python recipes/deflow_cameras/prepare.py --data ../shared/data --out runs/deflow_cameras

The data root holds ``clean_train/`` (BSDS500 photographs) and ``real_noise_full/`` (PolyU full frames: one noisy shot
and the mean of many of the same scene).  For each camera the folder ``CAMERA/noisy`` is its pile: the *noisy* sides of
some scenes, of several ISO settings, by links.  Of the Canon 80D there are three frames only, of three ISO settings:
their left halves, as PNG files, are the pile, their right halves are judged.  ``clean`` is the clean pile of all three.

Judged, and for the 5D Mark II's desk and recie looked at while settings were chosen: ``CAMERA/judged/SCENE`` with
aligned crops of a noisy frame and its reference, and ``frames/`` with the noisy frames themselves, whose noise level
is estimated as a user would.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cropped_pairs import GRID, choose_corners, link_all, measured_shifts, read, save_crops
from PIL import Image

# Shared by recipes and benches; behind this recipe's own folder, whose modules come first.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
import evidence


@dataclass(frozen=True)
class Camera:
    """Scenes by the names of the files."""

    name: str
    pile: tuple[str, ...]
    judged: tuple[str, ...]
    #: Whether pile and judged pairs are the left and the right halves of the same frames.
    halves: bool = False


CAMERAS = tuple(Camera(c.prefix, c.pile, c.choose + c.judge, c.halves) for c in evidence.CAMERAS.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="data root")
    parser.add_argument("--out", type=Path, default=Path("runs/deflow_cameras"), help="folder to make")
    parser.add_argument("--crops", type=int, default=24, help="crops of 256x256 from each judged frame")
    parser.add_argument("--seed", type=int, default=0, help="where the crops lie")
    args = parser.parse_args()
    full = args.data / "real_noise_full"
    if not full.is_dir():
        parser.error(f"{full}: no such folder; --data must name the data root described above")
    link_all(sorted((args.data / "clean_train").glob("*.jpg")), args.out / "clean")
    for camera in CAMERAS:
        make_pile(camera, full, args.out / camera.name)
        make_judged(camera, args)
        print(f"{args.out / camera.name}: pile of {len(camera.pile)} frames, judged {', '.join(camera.judged)}")


def make_pile(camera: Camera, full: Path, folder: Path) -> None:
    """``noisy``: links to frames, or their left halves."""
    frames = [full / "noisy" / f"{camera.name}_{scene}.jpg" for scene in camera.pile]
    if not camera.halves:
        link_all(frames, folder / "noisy")
        return
    (folder / "noisy").mkdir(parents=True, exist_ok=True)
    for frame in frames:
        image = read(frame)
        save(image[:, : middle(image)], folder / "noisy" / f"{frame.stem}.png")


def make_judged(camera: Camera, args: argparse.Namespace) -> None:
    """``judged/SCENE`` and ``frames`` of a camera."""
    full, folder = args.data / "real_noise_full", args.out / camera.name
    shifts = measured_shifts(args.data / "pairs.csv")
    (folder / "frames").mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(camera.judged):
        name = f"{camera.name}_{scene}"
        pair = [read(full / side / f"{name}.jpg") for side in ("noisy", "clean")]
        if camera.halves:
            pair = [image[:, middle(image) :] for image in pair]
        save(pair[0], folder / "frames" / f"{scene}.png")
        rng = np.random.default_rng([args.seed, number])
        corners = choose_corners(*pair[0].shape[:2], args.crops, rng)
        save_crops(pair, scene, corners, folder / "judged" / scene)
        notes = {"shift_yx_pixels": shifts.get(f"real_noise_full/noisy/{name}.jpg"), "corners_yx": corners}
        (folder / "judged" / scene / "notes.json").write_text(json.dumps(notes, indent=1))


def middle(image: np.ndarray) -> int:
    """The column at which halves part, a whole number of JPEG's coding units from the left."""
    return int(image.shape[1]) // 2 // GRID * GRID


def save(image: np.ndarray, path: Path) -> None:
    Image.fromarray(image).save(path, compress_level=1)


if __name__ == "__main__":
    main()
