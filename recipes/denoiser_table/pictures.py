"""The pictures that every row is measured on, and how: the same noise for all rows and seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from synthpipe.files.image_files import list_images, read_image
from synthpipe.images import to_float
from synthpipe.seeds import generator_for

__all__ = ["REAL", "SETS", "SYNTHETIC", "TRAINED_AT", "Picture", "build_test", "psnr"]

#: Grey levels of the noise that the rows are trained at, and those they are tested at.
TRAINED_AT = 25
LEVELS = (15, 25, 50)
#: Held-out sets by the beginning of their files' names, this many of each.
SETS = {"Kodak": "kodim", "CBSD68": "cbsd68", "Set14": "set14"}
PER_SET = 8
SIDE, REAL_SIDE = 160, 256
#: Test -> grey levels of its noise and those that the denoiser is told.
SYNTHETIC = {
    **{f"sigma_{level}": (level, level) for level in LEVELS},
    **{f"sigma_{level}_told_{TRAINED_AT}": (level, TRAINED_AT) for level in LEVELS if level != TRAINED_AT},
}
#: Test -> folder of its pairs, the number taken, and whether only the middle of each.
REAL = {"sidd": ("real_noise_sidd", 6, False), "polyu": ("real_noise", 12, True)}


@dataclass(frozen=True)
class Picture:
    """One measurement: images ``(1, 3, H, W)`` in [0, 1], and the level ``(1,)`` that the denoiser is told, if any."""

    name: str
    noisy: Tensor
    clean: Tensor
    told: Tensor | None


def build_test(name: str, data: Path) -> list[Picture]:
    """The pictures of one test, a key of ``SYNTHETIC`` or ``REAL``; ``data`` is the folder of all sets."""
    if name in SYNTHETIC:
        level, told = SYNTHETIC[name]
        chosen = [path for prefix in SETS.values() for path in _spread(data / "clean_test", prefix)]
        return [_with_noise(path, level / 255, told / 255) for path in chosen]
    folder, count, crop = REAL[name]
    paths = list_images(data / folder / "noisy")
    return [_pair(paths[place * len(paths) // count], data / folder / "clean", crop) for place in range(count)]


def psnr(denoise: Callable[[Tensor, Tensor | None], Tensor], pictures: list[Picture]) -> list[float]:
    """Of each picture, over its three channels, peak 1, the result clipped to [0, 1]; in dB."""
    found = []
    for picture in pictures:
        error = denoise(picture.noisy, picture.told).clamp(0, 1) - picture.clean
        found.append(float(-10 * error.square().mean().log10()))
    return found


def _spread(folder: Path, prefix: str) -> list[Path]:
    """``PER_SET`` pictures of one set, evenly spaced in the order of their names."""
    paths = [path for path in list_images(folder) if path.name.startswith(prefix)]
    return [paths[place * len(paths) // PER_SET] for place in range(PER_SET)]


def _with_noise(path: Path, sigma: float, told: float) -> Picture:
    """White noise that is neither clipped nor rounded on the middle of a picture; a function of its name and level."""
    clean = _middle(_read(path), SIDE)
    noise = torch.randn(clean.shape, generator=generator_for(round(255 * sigma), path.name))
    return Picture(path.stem, clean + sigma * noise, clean, torch.tensor([told]))


def _pair(path: Path, clean: Path, crop: bool) -> Picture:
    """A real pair, whose level nobody knows."""
    side = REAL_SIDE if crop else None
    noisy, reference = (_middle(_read(file), side) for file in (path, clean / path.name))
    return Picture(path.stem, noisy, reference, None)


def _read(path: Path) -> Tensor:
    return to_float(torch.from_numpy(read_image(path)).permute(2, 0, 1)[None].contiguous())


def _middle(x: Tensor, side: int | None) -> Tensor:
    if side is None:
        return x
    top, left = ((length - side) // 2 for length in x.shape[2:])
    return x[:, :, top : top + side, left : left + side].contiguous()
