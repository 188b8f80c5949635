"""The tests: real pairs that choose, real pairs that judge, intact and compressed photographs; and the ceilings' pairs.

Which scenes of real noise choose and which judge is written in ``tools/evidence.py``, those of RealSR here.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from registration import MARGIN, registered
from torch import Tensor

from synthpipe.files.image_files import list_images, read_image
from synthpipe.images import crop_to_multiple, downscale_bicubic, quantize_8bit, to_float, to_uint8

# Shared by recipes and benches; behind this recipe's own folder, whose modules come first.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from evidence import CAMERAS, Camera

__all__ = [
    "CAMERAS",
    "TESTS",
    "Camera",
    "Columns",
    "Pair",
    "Test",
    "clean_photos",
    "columns_of",
    "photos_of",
    "pile_files",
    "piles_by_camera",
    "piles_of",
    "real_pairs",
]

#: Low quality ``(3, h, w)`` and its reference ``(3, scale h, scale w)``, uint8.
Pair = tuple[Tensor, Tensor]
Columns = dict[str, list[Pair]]

#: Side of the crops of full frames that are looked at.
CROP = 256
#: Windows of each frame that the ceiling of a camera trains on, at most.
CEILING_CROPS = 60
#: Side of the middle of intact photographs that is looked at; a multiple of every scale.
_PHOTO_CROP = 384
_LEFT, _RIGHT = "left", "right"
#: RealSR's even scenes: 2, 6, 10, ... choose, 4, 8, 12, ... judge.
_CHOOSING_REMAINDER = 2
_JPEG_QUALITIES = (30, 80)


@dataclass(frozen=True)
class Test:
    """One question, and where its data lie.

    Args:
        name: as it is given to ``--only``.
        scale: HR side over LR side.
        folder: below the folder of data.
        camera: of full frames.
        ceiling: whether there are real pairs to train on.
        enlarge: the clean photographs are enlarged so many times beforehand, for every arm.  At scale 1 by 2: sharper
            than any frame, they would teach that what looks like noise may be texture.
    """

    __test__ = False  # pytest: no test of its kind

    name: str
    scale: int
    folder: str
    camera: Camera | None = None
    ceiling: bool = True
    enlarge: int = 1


TESTS: Mapping[str, Test] = {
    test.name: test
    for test in (
        Test("real_x4_realsr", 4, "real_sr/realsr_x4"),
        *(Test(f"x1_{name}", 1, "real_noise_full", camera, enlarge=2) for name, camera in CAMERAS.items()),
        Test("real_x2_city100", 2, "real_sr/city100_iphone_x2", ceiling=False),
    )
}


def columns_of(test: Test, data: Path, crops: int, photos: int) -> Columns:
    """What a network of the test is asked, by column: ``choose_*``, ``judge_*``, ``clean``, ``jpeg``.

    Args:
        test: one of :data:`TESTS`.
        data: the folder that holds ``real_sr``, ``real_noise_full`` and ``clean_test``.
        crops: of each full frame.
        photos: intact photographs.
    """
    columns = _camera_columns(test, test.camera, data, crops) if test.camera else _super_resolution_columns(test, data)
    intact = [_middle(_read(path)) for path in _photos(data, photos)]
    small = [_reduced(x, test.scale) for x in intact]
    low, high = _JPEG_QUALITIES
    qualities = [round(low + (high - low) * n / max(1, len(small) - 1)) for n in range(len(small))]
    columns["clean"] = list(zip(small, intact, strict=True))
    columns["jpeg"] = [(_jpeg(x, q), y) for x, y, q in zip(small, intact, qualities, strict=True)]
    return columns


def real_pairs(test: Test, data: Path) -> list[Pair]:
    """What the ceiling trains on, none of it of a scene that is asked: whole images, or windows of frames."""
    folder = data / test.folder
    if test.camera is None:
        return _folder_pairs(folder / "ceiling", lambda name: True)
    half = _LEFT if test.camera.halves else None
    frames = [_frame(folder, test.camera, scene, half) for scene in test.camera.pile]
    return [pair for frame in frames for pair in _spread_crops(*frame, CEILING_CROPS)]


def piles_of(test: Test, data: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Degraded images that may be learned from, and the clean photographs, all uint8 ``(3, H, W)``."""
    return [image for pile in piles_by_camera(test, data).values() for image in pile], photos_of(data)


def piles_by_camera(test: Test, data: Path) -> dict[str, list[Tensor]]:
    """Degraded images, by the name of their camera."""
    return {camera: [_read(path) for path in files] for camera, files in pile_files(test, data).items()}


def pile_files(test: Test, data: Path) -> dict[str, list[Path]]:
    """Files of degraded images by the camera that their names begin with; of one camera all together, as ``all``."""
    piles: dict[str, list[Path]] = {}
    for path in list_images(data / test.folder / "pile"):
        camera = path.stem.split("_")[0]
        piles.setdefault("all" if camera.isdigit() else camera, []).append(path)
    return piles


def photos_of(data: Path, others: bool = False) -> list[Tensor]:
    """The photographs of :func:`clean_photos`, or the others, uint8 ``(3, H, W)``."""
    return [_read(path) for path in clean_photos(data, others)]


def clean_photos(data: Path, others: bool = False) -> list[Path]:
    """Every second photograph of ``clean_train``: what all arms make their pairs of.  Or the others."""
    return list_images(data / "clean_train")[int(others) :: 2]


def _super_resolution_columns(test: Test, data: Path) -> Columns:
    folder = data / test.folder / "dev"
    if not test.ceiling:
        return {"judge": _folder_pairs(folder, lambda name: True)}
    columns: Columns = {}
    cameras = sorted({path.stem.split("_")[0] for path in list_images(folder / "lr")})
    for half, remainder in (("choose", _CHOOSING_REMAINDER), ("judge", 0)):
        for camera in cameras:

            def of_this_half(name: str, camera: str = camera, remainder: int = remainder) -> bool:
                return name.startswith(camera) and int(name.split("_")[1]) % 4 == remainder

            columns[f"{half}_{camera.lower()}"] = _folder_pairs(folder, of_this_half)
    return columns


def _camera_columns(test: Test, camera: Camera, data: Path, crops: int) -> Columns:
    half = _RIGHT if camera.halves else None
    columns: Columns = {}
    for part, scenes in (("choose", camera.choose), ("judge", camera.judge)):
        for scene in scenes:
            noisy, clean = _frame(data / test.folder, camera, scene, half)
            columns[f"{part}_{scene.lower()}"] = list(_spread_crops(noisy, clean, crops))
    return columns


def _spread_crops(noisy: Tensor, clean: Tensor, count: int) -> Iterator[Pair]:
    """Registered crops on a grid over the whole frame, so that every part of it counts; no more than fit."""
    height, width = noisy.shape[1:]
    side = min(CROP + 2 * MARGIN, height, width)
    count = max(1, min(count, height * width // side**2))
    rows = max(1, round((count * height / width) ** 0.5))
    columns = max(1, round(count / rows))
    for row in range(rows):
        for column in range(columns):
            top, left = (
                int((length - side) * (n + 0.5) / of)
                for length, n, of in ((height, row, rows), (width, column, columns))
            )
            window = (slice(None), slice(top, top + side), slice(left, left + side))
            yield registered(noisy[window], clean[window])


def _frame(folder: Path, camera: Camera, scene: str, half: str | None) -> Pair:
    noisy, clean = (_read(folder / side / f"{camera.prefix}_{scene}.jpg") for side in ("noisy", "clean"))
    if half is None:
        return noisy, clean
    middle = noisy.shape[2] // 2 // 16 * 16
    window = slice(None, middle) if half == _LEFT else slice(middle, None)
    return noisy[:, :, window], clean[:, :, window]


def _folder_pairs(folder: Path, wanted: Callable[[str], bool]) -> list[Pair]:
    paths = [path for path in list_images(folder / "lr") if wanted(path.stem)]
    return [(_read(path), _read(folder / "hr" / path.name)) for path in paths]


def _photos(data: Path, count: int) -> list[Path]:
    paths = sorted((data / "clean_test").glob("kodim*")) or list_images(data / "clean_test")
    return paths[:count]


def _read(path: Path) -> Tensor:
    return torch.from_numpy(read_image(path)).permute(2, 0, 1).contiguous()


def _middle(x: Tensor) -> Tensor:
    """At most :data:`_PHOTO_CROP` pixels of each side."""
    top, left = (max(0, side - _PHOTO_CROP) // 2 for side in x.shape[1:])
    return crop_to_multiple(x[None, :, top : top + _PHOTO_CROP, left : left + _PHOTO_CROP], 4)[0]


def _reduced(x: Tensor, scale: int) -> Tensor:
    return x if scale == 1 else to_uint8(quantize_8bit(downscale_bicubic(to_float(x[None]), scale)))[0]


def _jpeg(x: Tensor, quality: int) -> Tensor:
    stream = io.BytesIO()
    Image.fromarray(x.permute(1, 2, 0).numpy()).save(stream, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1).contiguous()
