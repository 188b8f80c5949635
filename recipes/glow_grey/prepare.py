"""Write the grey pictures of the flow-prior experiment: photographs and textures that ship inside Python libraries.

    python recipes/glow_grey/prepare.py --out runs/grey_pictures

Needs scikit-image, scikit-learn and matplotlib (only their files).  Each picture is made grey, halved in size (Lanczos)
and saved as PNG: the left halves of six of them below ``clean/``, the right halves below ``unpaired/`` (what a denoiser
may see, noise added, so that no clean twin of it was seen), and six others whole below ``test/``.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from PIL import Image

#: Library and path inside it of each picture.
TRAIN = (
    "skimage/data/astronaut.png",
    "skimage/data/coffee.png",
    "skimage/data/motorcycle_left.png",
    "sklearn/datasets/images/china.jpg",
    "skimage/data/brick.png",
    "skimage/data/grass.png",
)
TEST = (
    "skimage/data/chelsea.png",
    "skimage/data/camera.png",
    "skimage/data/rocket.jpg",
    "sklearn/datasets/images/flower.jpg",
    "skimage/data/gravel.png",
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
)


def main() -> None:
    """Write the three folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/grey_pictures"), help="folder to make")
    args = parser.parse_args()
    for name in TRAIN:
        picture = halved(name)
        middle = picture.width // 2
        save(picture.crop((0, 0, middle, picture.height)), args.out / "clean", name)
        save(picture.crop((middle, 0, picture.width, picture.height)), args.out / "unpaired", name)
    for name in TEST:
        save(halved(name), args.out / "test", name)
    print(f"{args.out}: clean/ and unpaired/ from {len(TRAIN)} pictures, test/ from {len(TEST)}")


def halved(name: str) -> Image.Image:
    """The grey picture at half its size."""
    library, _, rest = name.partition("/")
    found = importlib.util.find_spec(library)
    if found is None or found.origin is None:
        raise SystemExit(f"{name}: no library {library}; run: pip install scikit-image scikit-learn matplotlib")
    picture = Image.open(Path(found.origin).parent / rest).convert("L")
    return picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS)


def save(picture: Image.Image, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / f"{Path(name).stem}.png")


if __name__ == "__main__":
    main()
