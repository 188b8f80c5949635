"""The preview picture: what is drawn where, which crops are chosen, which option files are taken."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from synthpipe import images
from synthpipe.errors import ImageError, OptionError, ShapeError, StreamError
from synthpipe.preview import interest, make_preview, preview_options
from synthpipe.preview.picture import draw_grid

TITLE_HEIGHT, GUTTER = 22, 4


def photograph(height, width, seed):
    """A wall with a pattern on one half: something flat and something detailed."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), rng.integers(60, 190, 3), np.int64)
    picture[:, width // 2 :] += (
        8
        * rng.integers(-6, 7, (height // 4 + 1, width // 8 + 1, 1))
        .repeat(4, 0)
        .repeat(4, 1)[:height, : width - width // 2]
    )
    return picture.clip(0, 255).astype(np.uint8)


def write_shard(path, count, size=(160, 168)):
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            buffer = io.BytesIO()
            Image.fromarray(photograph(*size, number)).save(buffer, "PNG")
            info = tarfile.TarInfo(f"image{number}.png")
            info.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(info, buffer)
    return str(path)


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    return write_shard(tmp_path_factory.mktemp("shards") / "s-000000.tar", 8)


def options_for(shard, **changes):
    noise = {"type": "classical", "noise": {"type": "gaussian", "sigma": [0.02, 0.02]}}
    data = {"shards": shard, "gt_size": 64, "scale": 2, "degrade": noise, **changes}
    return preview_options(data, "test")


def cell(picture, row, column, side, zoom):
    """One cell of the grid at its original size; checks that each pixel is a whole square."""
    y, x = TITLE_HEIGHT + row * (side * zoom + GUTTER), column * (side * zoom + GUTTER)
    large = picture[y : y + side * zoom, x : x + side * zoom]
    small = large[::zoom, ::zoom]
    np.testing.assert_array_equal(large, small.repeat(zoom, 0).repeat(zoom, 1))
    return small


def test_the_grid_holds_every_pixel_as_a_square():
    rng = np.random.default_rng(0)
    rows = [[rng.integers(0, 256, (10, 12, 3), dtype=np.uint8) for _ in range(3)] for _ in range(2)]
    picture = draw_grid(["one", "two", "three"], rows, zoom=5)
    assert picture.shape == (TITLE_HEIGHT + 2 * 50 + GUTTER, 3 * 60 + 2 * GUTTER, 3)
    for r in range(2):
        for c in range(3):
            y, x = TITLE_HEIGHT + r * 54, c * 64
            np.testing.assert_array_equal(picture[y : y + 50 : 5, x : x + 60 : 5], rows[r][c])
    assert (picture[:TITLE_HEIGHT] < 128).any()
    assert (picture[TITLE_HEIGHT:, 60:64] == 255).all()


def test_a_grid_that_does_not_fit_is_refused():
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ShapeError, match="at least one row"):
        draw_grid(["a"], [])
    with pytest.raises(ShapeError, match="row 1: expected 2 images"):
        draw_grid(["a", "b"], [[image, image], [image, image[1:]]])


def test_columns_are_what_their_titles_say(shard):
    made = make_preview(options_for(shard), rows=3, crop=40, zoom=2)
    assert made.rows == 3
    assert made.picture.shape == (TITLE_HEIGHT + 3 * 80 + 2 * GUTTER, 3 * 80 + 2 * GUTTER, 3)
    for row in range(3):
        clean, degraded, difference = (cell(made.picture, row, c, 40, 2).astype(int) for c in range(3))
        noise = degraded - clean
        assert noise.std() == pytest.approx(0.02 * 255, rel=0.1)
        expected = (127.5 + 8 * noise).clip(0, 255)
        assert np.abs(difference - expected).max() <= 1
    assert made.degraded.sigma == pytest.approx([0.02] * 3, rel=0.05)


def test_empty_cells_and_cells_that_are_enlarged_already():
    small, large = np.full((20, 30, 3), 7, np.uint8), np.full((80, 120, 3), 9, np.uint8)
    picture = draw_grid(["a", "b", "c"], [[small, large, None]], zoom=4)
    assert picture.shape == (TITLE_HEIGHT + 80, 3 * 120 + 2 * GUTTER, 3)
    assert (picture[TITLE_HEIGHT:, :120] == 7).all()
    assert (picture[TITLE_HEIGHT:, 124:244] == 9).all()
    empty = picture[TITLE_HEIGHT:, 248:]
    assert (empty[:20] == empty[0, 0]).all()  # no text at the top
    assert (empty[30:50] < 128).any()  # but in the middle
    with pytest.raises(ShapeError, match="row 0: expected 2 images"):
        draw_grid(["a", "b"], [[small, large[:-1]]], zoom=4)
    with pytest.raises(ShapeError, match="gives the size, and is None"):
        draw_grid(["a"], [[None]])


def test_a_long_title_stays_over_its_column():
    cell = np.full((20, 20, 3), 7, np.uint8)
    picture = draw_grid(["choice/wild/another choice/mild/jpeg 2", "x"], [[cell, cell]], zoom=4)
    gap = picture[:TITLE_HEIGHT, 80:84]
    assert (gap == 255).all()
    assert (picture[:TITLE_HEIGHT, 60:80] < 128).any()


BOX = {"type": "resize", "to": "lr", "filter": "box"}


def means(cell, times):
    """Of squares of pixels, rounded."""
    height, width = (side // times for side in cell.shape[:2])
    return cell.reshape(height, times, width, times, 3).mean((1, 3))


def test_each_stage_is_shown_at_the_place_of_the_crop(shard):
    # At zoom 2 a stage at the size of gt is shown pixel by pixel: what follows can be computed from what is seen.
    chain = [{"type": "quantise", "levels": 3}, BOX, {"type": "quantise", "levels": 9, "probability": 0.5}]
    made = make_preview(options_for(shard, degrade=chain), rows=6, crop=40, zoom=2, stages=True)
    assert made.picture.shape[1] == 6 * 80 + 5 * GUTTER
    drawn = 0
    for row in range(6):
        y, x = TITLE_HEIGHT + row * 84, 84
        quantised = made.picture[y : y + 80, x : x + 80]
        assert set(np.unique(quantised)) <= {0, 128, 255}
        reduced, degraded = (cell(made.picture, row, column, 40, 2).astype(int) for column in (2, 4))
        # 1/2 is shown as 128.
        expected = means(np.where(quantised == 128, 127.5, quantised), 2)
        assert np.abs(reduced - expected).max() <= 0.51
        last = made.picture[y : y + 80, 3 * x : 3 * x + 80]
        if np.unique(last).size <= 9:
            drawn += 1
            np.testing.assert_array_equal(cell(made.picture, row, 3, 40, 2), degraded)
            levels = np.round(expected / 255 * 8) / 8 * 255
            assert (np.abs(degraded - levels) <= 0.51).mean() > 0.99
        else:
            assert (last[:20] == last[0, 0]).all()
            np.testing.assert_array_equal(reduced, degraded)
    assert 0 < drawn < 6


def test_stages_of_one_degradation(shard):
    options = options_for(shard)
    made = make_preview(options, rows=2, crop=40, zoom=1, stages=True)
    plain = make_preview(options, rows=2, crop=40, zoom=1)
    assert made.picture.shape[1] == 5 * 40 + 4 * GUTTER  # clean, reduced, noise, degraded, difference
    for row in range(2):
        # The clean crop was reduced alone, which shows at its border.
        reduced, clean = (cell(made.picture, row, column, 40, 1)[4:-4, 4:-4] for column in (1, 0))
        np.testing.assert_array_equal(reduced, clean)
        for column in (2, 3):
            np.testing.assert_array_equal(cell(made.picture, row, column, 40, 1), cell(plain.picture, row, 1, 40, 1))


def test_stages_that_none_drew_are_named(shard):
    chain = [{"type": "quantise", "levels": 3, "probability": 0}, BOX]
    made = make_preview(options_for(shard, degrade=chain), rows=2, crop=40, zoom=1, stages=True)
    assert list(made.absent) == ["quantise"]
    assert made.picture.shape[1] == 4 * 40 + 3 * GUTTER


def test_stages_of_whole_degradations_in_a_choice(shard):
    noise = {"type": "classical", "noise": {"type": "gaussian", "sigma": [0.02, 0.02]}}
    choice = {"type": "choice", "of": [{"chain": noise}, {"chain": [BOX]}, {"weight": 0, "chain": noise}]}
    made = make_preview(options_for(shard, degrade=choice), rows=4, crop=40, zoom=2, stages=True)
    # clean, reduced and noise of the first way, resize of the second, degraded, three ways, difference
    assert made.picture.shape[1] == 9 * 80 + 8 * GUTTER
    assert list(made.absent) == ["choice/3/classical"]
    for row in range(4):
        degraded, noisy, plain = (cell(made.picture, row, column, 40, 2) for column in (4, 5, 6))
        x = 84 * (2 if np.array_equal(degraded, noisy) else 3)
        assert np.array_equal(degraded, noisy) or np.array_equal(degraded, plain)
        y = TITLE_HEIGHT + row * 84
        np.testing.assert_array_equal(made.picture[y : y + 80 : 2, x : x + 80 : 2], degraded)


NESTED = {
    "type": "choice",
    "probability": 0.5,
    "of": [{"chain": [{"type": "quantise", "levels": levels}]} for levels in (2, 3)],
}
CHOICE = {
    "type": "choice",
    "of": [{"name": "as it is", "chain": []}, {"name": "rough", "weight": [[0, 1], [1000, 0]], "chain": [NESTED]}],
}


def test_every_way_of_a_choice_is_shown(shard):
    made = make_preview(options_for(shard, degrade=[BOX, CHOICE]), rows=8, crop=40, zoom=1)
    assert made.picture.shape[1] == 5 * 40 + 4 * GUTTER
    taken, levels = set(), set()
    for row in range(8):
        degraded, plain, rough = (cell(made.picture, row, column, 40, 1).astype(int) for column in range(1, 4))
        x = plain / 255
        if np.array_equal(rough, np.where(x >= 0.5, 255, 0)):
            levels.add(2)
        elif not np.array_equal(rough, plain):
            levels.add(3)
            np.testing.assert_array_equal(rough[x < 0.24], 0)
            np.testing.assert_array_equal(rough[(x > 0.26) & (x < 0.74)], 128)
        ways = [number for number, way in enumerate((plain, rough)) if np.array_equal(degraded, way)]
        taken.update(ways)
        assert ways
    assert taken == {0, 1}
    assert levels  # the choice within goes as drawn
    late = make_preview(options_for(shard, degrade=[BOX, CHOICE]), rows=8, crop=40, zoom=1, seen=1000)
    for row in range(8):
        np.testing.assert_array_equal(cell(late.picture, row, 1, 40, 1), cell(late.picture, row, 2, 40, 1))


def test_clean_is_the_reduced_source(shard):
    made = make_preview(options_for(shard), rows=1, crop=40, zoom=1)
    found = torch.from_numpy(cell(made.picture, 0, 0, 40, 1)).permute(2, 0, 1).float()
    misses = []
    for number in range(8):
        source = images.to_float(torch.from_numpy(photograph(160, 168, number)).permute(2, 0, 1)[None])
        # Every offset that a tile can have: odd rows and columns give another reduction.
        for y in (0, 1):
            for x in (0, 1):
                shifted = images.crop_to_multiple(source[..., y:, x:], 2)
                small = images.to_uint8(images.downscale_bicubic(shifted, 2))[0].float()
                windows = small[0].unfold(0, 40, 1).unfold(1, 40, 1)
                misses.append(float((windows - found[0]).abs().mean((2, 3)).min()))
    # The tile's own border is mirrored, hence not exactly zero.
    assert min(misses) < 0.6


def test_real_images_stand_beside_crops_of_like_brightness(shard, tmp_path):
    for level in (40, 90, 200):
        noisy = np.random.default_rng(level).normal(level, 6, (90, 100, 3)).round().clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(tmp_path / f"{level}.png")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    made = make_preview(options_for(shard), real=tmp_path, rows=4, crop=40, zoom=1)
    assert made.picture.shape[1] == 4 * 40 + 3 * GUTTER
    for row in range(4):
        clean, real = cell(made.picture, row, 0, 40, 1).mean(), cell(made.picture, row, 2, 40, 1).mean()
        nearest = min((40, 90, 200), key=lambda level: abs(level - clean))
        assert real == pytest.approx(nearest, abs=2)
    [said] = made.skipped
    assert said.startswith(f"{tmp_path / 'broken.png'}: not a readable image")


def test_real_folders_that_hold_nothing_of_use(shard, tmp_path):
    Image.fromarray(photograph(20, 20, 0)).save(tmp_path / "small.png")
    with pytest.raises(ImageError, match=r"small\.png: 20x20 is smaller than the crop of 40"):
        make_preview(options_for(shard), real=tmp_path, rows=1, crop=40)
    with pytest.raises(OptionError, match="found nothing"):
        make_preview(options_for(shard), real=tmp_path / "absent", rows=1, crop=40)


def test_small_images_are_shown_in_the_option_files_own_patches(tmp_path):
    shard = write_shard(tmp_path / "s-000000.tar", 6, size=(100, 100))
    made = make_preview(options_for(shard, margin=4), rows=2, zoom=1)
    # 100 / 2 - 2 * 4 leaves 42 pixels: no crop of 64, but patches of 32.
    assert made.picture.shape[1] == 3 * 32 + 2 * GUTTER


def test_a_crop_that_fits_no_image_is_refused(shard):
    with pytest.raises(StreamError, match="crops of 90"):
        make_preview(options_for(shard), rows=1, crop=90)


def test_the_same_seed_draws_the_same_picture(shard):
    one, two = (make_preview(options_for(shard), rows=2, crop=40) for _ in range(2))
    np.testing.assert_array_equal(one.picture, two.picture)
    other = make_preview(options_for(shard, seed=1), rows=2, crop=40)
    assert not np.array_equal(one.picture, other.picture)


def test_options_for_a_gpu_can_be_previewed_without_one(shard):
    plain, compiled = (make_preview(options_for(shard, compile=c), rows=2, crop=40) for c in (False, True))
    np.testing.assert_array_equal(compiled.picture, plain.picture)


def test_interest_wants_both_flat_and_detailed_parts():
    half = images.to_float(torch.from_numpy(photograph(64, 64, 0)).permute(2, 0, 1))
    flat = half[..., :32].repeat(1, 1, 2)
    busy = half[..., 32:].repeat(1, 1, 2)
    assert interest(half) > 0.5
    assert interest(half) > 3 * interest(flat)
    assert interest(half) > 3 * interest(busy)
    assert interest((half + 1).clamp(max=1)) == 0


def test_a_basicsr_option_file_is_taken():
    degrade = {"type": "classical"}
    block = {"name": "x", "type": "SynthPipeDataset", "shards": "a.tar", "gt_size": 96, "batch_size_per_gpu": 4}
    data = {"scale": 3, "degrade": degrade, "datasets": {"train": block}, "network_g": {"type": "RRDBNet"}}
    options = preview_options(data, "x.yml")
    assert (options.scale, options.gt_size, options.batch_size) == (3, 96, 4)
    assert options.degrade is not None
    # What the block says itself comes first.
    inner = preview_options({**data, "datasets": {"train": {**block, "scale": 2}}}, "x.yml")
    assert inner.scale == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"shards": "a.tar", "gt_size": 64}, "nothing to preview without `degrade`"),
        ({"shards": "a.tar", "gt_sise": 64}, "did you mean 'gt_size'"),
        ({"datasets": {"val": {}}}, r"needs a block datasets\.train"),
        ({"datasets": {"train": {"type": "SynthpipeDataset"}}}, "expected type: SynthPipeDataset, got 'SynthpipeD"),
    ],
)
def test_option_files_that_cannot_be_previewed(data, message):
    with pytest.raises(OptionError, match=message):
        preview_options(data, "x.yml")


def test_patches_too_small_to_be_measured_are_shown_larger(tmp_path):
    """8 pixels of a training's patches, and images on which the usual crop of 64 does not fit."""
    small = write_shard(tmp_path / "s-000000.tar", 4, (64, 64))
    made = make_preview(options_for(small, gt_size=16), rows=1, zoom=1)
    assert made.rows == 1
    assert made.picture.shape[0] == TITLE_HEIGHT + 16
