"""Sizes from headers: as Pillow wrote them, without needing the pixels."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from synthpipe.errors import ImageError
from synthpipe.files.image_size import image_size


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_height_comes_first(suffix: str, mode: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new(mode, (31, 17)).save(path)
    assert image_size(path) == (17, 31)


def test_the_pixels_need_not_be_there(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.effect_noise((200, 100), 50).save(path)
    path.write_bytes(path.read_bytes()[:100])
    assert image_size(path) == (100, 200)


def test_what_is_no_image_is_refused_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"a\.png: not a readable image, expected PNG, .*unknown format") as caught:
        image_size(path)
    assert caught.value.reason == "unreadable"
    with pytest.raises(ImageError, match=r"none\.png: cannot be read: No such file"):
        image_size(tmp_path / "none.png")
    Image.new("RGB", (40, 40)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert image_size(path, max_pixels=1600) == (40, 40)
    with pytest.raises(ImageError, match="refused") as caught:
        image_size(path, max_pixels=1599)
    assert caught.value.reason == "bomb"
