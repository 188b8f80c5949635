"""Degradations side by side: the same crops in every column, what each adds, and what cannot be shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthpipe.config.presets import ZOO
from synthpipe.config.reader import parse_options
from synthpipe.errors import ImageError, OptionError
from synthpipe.preview.side_by_side import (
    DegradeFileOptions,
    degradations_by_name,
    draw_side_by_side,
    ways_of_file,
)
from tests.cli.test_preview import main

PLAIN = [{"type": "resize", "to": "lr"}]
NOISE = {"type": "classical", "noise": {"type": "gaussian", "sigma": [0.05, 0.05]}}
CHOICE = {
    "type": "choice",
    "of": [{"name": "plain", "chain": PLAIN}, {"name": "noise", "chain": NOISE}],
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        # Coarse noise, which keeps far from 0 and 255.
        small = np.random.default_rng(number).integers(90, 160, (16, 20, 3), dtype=np.uint8)
        Image.fromarray(small).resize((320, 256), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def options_of(degrade: object, scale: int = 2) -> DegradeFileOptions:
    return parse_options({"degrade": degrade, "scale": scale}, DegradeFileOptions)


def test_columns_show_the_same_crops_and_rows_the_difference(photos: Path) -> None:
    made = draw_side_by_side(ways_of_file(options_of(CHOICE).degrade), photos, scale=2, rows=2, crop=40, zoom=1)
    assert made.rows == 2
    assert made.picture.shape == (22 + 4 * 40 + 3 * 4, 3 * 40 + 2 * 4, 3)
    for row in (0, 2):
        top = 22 + row * 44
        clean, plain, noisy = (made.picture[top : top + 40, x : x + 40].astype(int) for x in (0, 44, 88))
        assert abs(plain - clean).max() <= 1
        below = made.picture[top + 44 : top + 84].astype(int)
        assert abs(below[:, 44:84] - 128).max() <= 8
        expected = (127.5 + 8 * (noisy - clean)).clip(0, 255)
        assert abs(below[:, 88:128] - expected).max() <= 1
    assert max(made.added["plain"].sigma) < 1 / 255
    assert made.added["noise"].sigma == pytest.approx([0.05] * 3, rel=0.1)


def test_the_same_seed_is_the_same_picture(photos: Path) -> None:
    pictures = [
        draw_side_by_side({"noise": options_of(NOISE).degrade}, photos, scale=2, rows=1, crop=32, seed=seed).picture
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_names_stand_for_what_an_option_file_says() -> None:
    assert list(degradations_by_name("zoo,bsrgan-x2", 2)) == [*ZOO, "bsrgan-x2"]
    assert degradations_by_name("canon_5d2", 2)["canon_5d2"] == options_of("canon_5d2").degrade
    with pytest.raises(OptionError, match="did you mean 'canon_5d2'"):
        degradations_by_name("zoo,canon_5d", 2)


def test_small_photographs_give_small_crops(photos: Path) -> None:
    def side(scale: int) -> int:
        made = draw_side_by_side({"plain": options_of(PLAIN).degrade}, photos, scale=scale, rows=1, zoom=1)
        return (made.picture.shape[1] - 4) // 2

    # 256 pixels: 128 at scale 2 hold 64 and a border of 16 on each side, 64 at scale 4 hold 32.
    assert side(2) == 64
    assert side(4) == 32


def test_photographs_that_cannot_be_shown_are_told(photos: Path) -> None:
    Image.new("RGB", (50, 50)).save(photos / "small.png")
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    made = draw_side_by_side({"plain": options_of(PLAIN).degrade}, photos, scale=2, rows=5, crop=32, zoom=1)
    assert made.rows == 3
    assert sorted("small.png" in text for text in made.skipped) == [False, True]
    for photo in photos.glob("[0-9].png"):
        photo.unlink()
    with pytest.raises(
        ImageError, match=r"no photograph for the picture \(1 too_small, 1 truncated\): .*(small|broken)\.png"
    ):
        draw_side_by_side({"plain": options_of(PLAIN).degrade}, photos, scale=2)
    empty = photos / "empty"
    empty.mkdir()
    with pytest.raises(ImageError, match="no photograph for the picture"):
        draw_side_by_side({"plain": options_of(PLAIN).degrade}, empty, scale=2)


def test_the_command_shows_the_zoo_and_the_ways_of_a_file(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = photos.parent / "look"
    small = ("--photos", photos, "--rows", 1, "--crop", 32, "--zoom", 1, "--scale", 2)
    assert main("zoo", out, *small) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" - clean: sigma")[0] for line in lines] == [*ZOO, str(out / "preview.png")]
    with Image.open(out / "preview.png") as picture:
        assert picture.size == ((1 + len(ZOO)) * 36 - 4, 22 + 2 * 32 + 4)
    file = photos.parent / "choice.yml"
    file.write_text("scale: 2\ndegrade: {type: choice, of: {canon_5d2: 1, bsrgan-x2: 2}}\n")
    assert main(file, out, *small[:-2]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" - clean: sigma")[0] for line in lines[:2]] == ["canon_5d2", "bsrgan-x2"]


def test_arguments_that_do_not_go_together(photos: Path) -> None:
    out = photos.parent / "look"
    with pytest.raises(OptionError, match="zoo: names degradations and no stream; give the images to show"):
        main("zoo", out)
    with pytest.raises(OptionError, match="--stages: shows what a stream makes"):
        main("zoo", out, "--photos", photos, "--stages")
    with pytest.raises(OptionError, match="--scale: is for --photos"):
        main("stream.yml", out, "--scale", 2)
    with pytest.raises(OptionError, match="--scale: expected at least 1"):
        main("zoo", out, "--photos", photos, "--scale", 0)
    with pytest.raises(OptionError, match="name another folder"):
        main("zoo", photos, "--photos", photos)
