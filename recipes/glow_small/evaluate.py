"""Bits per dimension of a Glow on pictures that it never saw, and on the same pictures spoilt.

    python recipes/glow_small/evaluate.py --weights runs/glow_small/final.safetensors --data ../shared/data/clean_test

Every picture is cut into windows side by side; what is left at the right and bottom is not scored.  Spoilt pictures are
8-bit pictures again, except noise, which is neither clipped nor rounded.  PNG and lossless WebP code whole pictures.
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.files.image_files import list_images, read_image
from synthpipe.flows import Glow
from synthpipe.images import luma, quantize_8bit, to_float, to_uint8
from synthpipe.seeds import generator_for, sample_seed

#: Windows scored at a time.
BATCH = 128


def main() -> None:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="weights of kind glow")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/clean_test"), help="folder of pictures")
    parser.add_argument("--limit", type=int, help="at most so many windows of a picture, spread over it")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model = checkpoints.load(args.weights, kind="glow")
    assert isinstance(model, Glow)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    paths = list_images(args.data)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters} parameters, {len(paths)} pictures of {args.data}, seed {args.seed}\n")
    print("| picture | bits per value |")
    print("| --- | ---: |")
    pictures = [read(model, path) for path in paths]
    values = sum(picture.numel() for picture in pictures)
    png, webp = (sum(coded(picture, kind) for picture in pictures) / values for kind in ("PNG", "WebP"))
    for name, spoil in SPOILT.items():
        bits = torch.cat([scores(model, path, spoil, args.seed, args.limit) for path in paths])
        print(f"| {name} | {float(bits.mean()):.3f} |", flush=True)
    print(f"| clean, PNG | {png:.3f} |\n| clean, WebP lossless | {webp:.3f} |")


def clean(x: Tensor, generator: torch.Generator) -> Tensor:
    return x


def noise(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + 25 / 255 * torch.randn(x.shape, generator=generator)


def uniform(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(256, x.shape, generator=generator) / 255


def constant(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.full_like(x, 128 / 255)


def blur(std: float) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Gaussian blur with mirrored edges, rounded to 8 bits."""
    reach = math.ceil(4 * std)
    taps = torch.exp(-torch.arange(-reach, reach + 1.0).square() / (2 * std**2))
    taps = taps / taps.sum()

    def apply(x: Tensor, generator: torch.Generator) -> Tensor:
        planes = F.pad(x.movedim(1, 0), (reach, reach, reach, reach), mode="reflect")  # (C, 1, H, W)
        planes = F.conv2d(F.conv2d(planes, taps[None, None, None]), taps[None, None, :, None])
        return quantize_8bit(planes.movedim(0, 1))

    return apply


SPOILT: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "clean": clean,
    "noise, sigma 25": noise,
    "uniform noise": uniform,
    "blurred, std 1": blur(1),
    "blurred, std 2": blur(2),
    "constant grey": constant,
}


@torch.no_grad()
def scores(
    model: Glow, path: Path, spoil: Callable[[Tensor, torch.Generator], Tensor], seed: int, limit: int | None
) -> Tensor:
    """Bits per dimension of the windows of one picture, spoilt before it is cut."""
    generator = generator_for(sample_seed(seed, 0, path.name), "evaluate")
    windows = cut(spoil(read(model, path), generator), model.window)
    if limit is not None and len(windows) > limit:
        windows = windows[torch.linspace(0, len(windows) - 1, limit).long()]
    return torch.cat([model.bits_per_dim(part, generator) for part in windows.split(BATCH)])


def cut(picture: Tensor, side: int) -> Tensor:
    """``(1, C, H, W)`` -> windows ``(N, C, side, side)``."""
    rows, columns = (length // side for length in picture.shape[2:])
    picture = picture[0, :, : rows * side, : columns * side]
    return picture.unflatten(2, (columns, side)).unflatten(1, (rows, side)).permute(1, 3, 0, 2, 4).flatten(0, 1)


def read(model: Glow, path: Path) -> Tensor:
    """``(1, C, H, W)`` in [0, 1]; grey pictures rounded to 8 bits again."""
    picture = to_float(torch.from_numpy(read_image(path)).permute(2, 0, 1)[None])
    return quantize_8bit(luma(picture)) if model.channels == 1 else picture


def coded(picture: Tensor, kind: str) -> float:
    """Bits of the whole picture as a file."""
    values = to_uint8(picture[0]).permute(1, 2, 0).squeeze(2).numpy()
    file = io.BytesIO()
    options = {"optimize": True} if kind == "PNG" else {"lossless": True, "quality": 100, "method": 4}
    Image.fromarray(values).save(file, kind, **options)
    return 8.0 * file.tell()


if __name__ == "__main__":
    main()
