"""The truth about the odd files, held against other libraries: what the table of files against commands rests on."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.file_corpus import Truth, odd_files
from tests.file_corpus.colour_math import ADOBE, P3, PROPHOTO, SRGB, Space, grey_to_srgb, to_srgb
from tests.file_corpus.icc import grey_profile, rgb_profile
from tests.file_corpus.pillow_files import by_littlecms
from tests.file_corpus.truth import picture, rounded, stored


@pytest.mark.parametrize("space", [ADOBE, P3, PROPHOTO, SRGB], ids=["adobe", "p3", "prophoto", "srgb"])
@pytest.mark.parametrize("version", [2, 4])
def test_colour_formulas_are_littlecms(space: Space, version: int) -> None:
    values = picture("formulas")
    theirs = by_littlecms(values, "RGB", rgb_profile(space, version=version))
    ours = rounded(to_srgb(values, space))
    assert np.abs(theirs.astype(int) - ours).max() <= 1
    assert (space == SRGB) == (np.abs(ours.astype(int) - values).max() <= 1)


@pytest.mark.parametrize("gamma", [1.8, 2.2])
def test_grey_formulas_are_littlecms(gamma: float) -> None:
    values = picture("formulas")[..., :1]
    theirs = by_littlecms(values, "L", grey_profile(gamma))
    assert np.abs(theirs.astype(int) - rounded(grey_to_srgb(values, gamma))).max() <= 1


def test_tiff_layouts_are_what_libtiff_reads() -> None:
    """Each 8-bit layout, and of 16 bits the high bytes: Pillow keeps no more of colour."""
    found = 0
    for file in odd_files().values():
        plain = ("planar_8", "tiled", "lzw", "packbits", "deflate_predictor", "bigtiff", "mode_rgb.")
        if not file.name.startswith(plain) or "big_endian" in file.name:
            continue
        assert isinstance(file.truth, Truth)
        with Image.open(io.BytesIO(file.data)) as image:
            samples = np.array(image)
        wanted = file.truth.color if file.truth.white == 255 else (file.truth.color >> 8)
        np.testing.assert_array_equal(samples, wanted, err_msg=file.name)
        found += 1
    assert found == 14


def test_stored_and_upright() -> None:
    scene = np.arange(6).reshape(2, 3)
    assert stored(scene, 6).tolist() == [[2, 5], [1, 4], [0, 3]]  # row 0 is the right side, column 0 the top
    for orientation in range(1, 9):
        undone = {6: 8, 8: 6}.get(orientation, orientation)
        np.testing.assert_array_equal(stored(stored(scene, orientation), undone), scene)


def test_the_corpus_is_the_same_each_time() -> None:
    before = {name: file.data for name, file in odd_files().items()}
    odd_files.cache_clear()
    assert {name: file.data for name, file in odd_files().items()} == before
    assert len(before) > 200
