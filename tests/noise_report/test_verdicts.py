"""Noise of known sigma and correlation against noise that is like it, and noise that is spoilt in one way each."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest
import torch
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.noise_report import (
    Comparison,
    NoiseFigures,
    compare,
    figures_of_images,
    figures_of_pairs,
    verdicts_of,
)
from tests.noise_report.fields import Recipe, flat_images, with_noise

REAL = Recipe()
IMAGES = 10


@pytest.fixture(scope="module")
def real() -> NoiseFigures:
    """Measured without the clean side."""
    found = figures_of_images(with_noise(flat_images(IMAGES, 0), REAL, 1))
    assert found is not None
    return found


def made(recipe: Recipe, factor: float = 1.0) -> NoiseFigures:
    clean = flat_images(IMAGES, 2)
    found = figures_of_pairs(zip(clean, with_noise(clean, recipe, 3, factor), strict=True))
    assert found is not None
    return found


def statuses(made_figures: NoiseFigures, real_figures: NoiseFigures) -> dict[str, str]:
    verdicts = verdicts_of(made_figures, real_figures, compare(made_figures, real_figures))
    assert all(bool(verdict.option) == (verdict.status != "within") for verdict in verdicts)
    return {verdict.subject: verdict.status for verdict in verdicts}


def wrong(found: dict[str, str]) -> dict[str, str]:
    return {subject: status for subject, status in found.items() if status != "within"}


def test_both_ways_of_measuring_find_what_was_put_in(real: NoiseFigures) -> None:
    for figures in (real, made(REAL)):
        for at, count, sigma in zip(figures.brightness, figures.counts, figures.sigma, strict=True):
            if count > 5000:
                expected = REAL.base + REAL.slope * at
                assert [255 * s for s in sigma] == pytest.approx([expected] * 3, rel=0.12)
        assert figures.lag(0, 1) == pytest.approx(REAL.lag1, abs=0.05)
        assert figures.lag(1, 0) == pytest.approx(REAL.lag1, abs=0.05)
        # The filter's own autocorrelation at two pixels, tap^2 / (1 + 2 tap^2), and the product of both directions.
        assert figures.lag(0, 2) == pytest.approx(0.25 / 1.5, abs=0.05)
        assert figures.lag(1, 1) == pytest.approx(REAL.lag1**2, abs=0.06)
        assert figures.channel_correlation == pytest.approx([0.5] * 3, abs=0.05)
        assert figures.excess_kurtosis == pytest.approx(0, abs=0.15)


def test_like_noise_is_within_in_every_row(real: NoiseFigures) -> None:
    assert wrong(statuses(made(REAL), real)) == {}


@pytest.mark.parametrize(("factor", "status"), [(0.5, "too weak"), (2.0, "too strong"), (0.1, "not learned")])
def test_another_strength_is_strength_alone(real: NoiseFigures, factor: float, status: str) -> None:
    found = statuses(made(REAL, factor), real)
    assert found["strength"] == status
    if factor > 0.1:  # there rounding to 8 bits is as strong as the noise, and white
        assert wrong(found) == {"strength": status}


def test_the_words_say_by_how_much(real: NoiseFigures) -> None:
    half = made(REAL, 0.5)
    strength = verdicts_of(half, real, compare(half, real))[0]
    said = re.search(r"too weak by (\d+)%", strength.words)
    assert said is not None
    assert int(said[1]) == pytest.approx(50, abs=4)
    assert "degrade: level" in strength.option
    in_training = verdicts_of(half, real, compare(half, real), "training")[0]
    assert "calibrate: true" in in_training.option


def test_white_noise_has_learned_no_neighbours(real: NoiseFigures) -> None:
    found = statuses(made(dataclasses.replace(REAL, tap=0.0)), real)
    assert found["correlation of neighbours"] == "not learned"
    assert found["power spectrum"] != "within"
    assert found["strength"] == found["correlation of channels"] == "within"


def test_channels_that_do_not_hang_together(real: NoiseFigures) -> None:
    assert wrong(statuses(made(dataclasses.replace(REAL, channels=0.0)), real)) == {
        "correlation of channels": "not learned"
    }
    stronger = statuses(made(dataclasses.replace(REAL, channels=0.8)), real)
    assert wrong(stronger) == {"correlation of channels": "too strong"}


def test_noise_that_does_not_follow_brightness() -> None:
    steep = figures_of_images(with_noise(flat_images(IMAGES, 0), Recipe(base=1.5, slope=7.0), 1))
    assert steep is not None
    found = statuses(made(Recipe(base=5.0, slope=0.0)), steep)
    assert found["noise by brightness"] == "not learned"
    assert found["strength"] == "within"


def test_tails_of_another_law(real: NoiseFigures) -> None:
    clean = flat_images(IMAGES, 2)
    draws = torch.Generator().manual_seed(5)
    noisy: list[Tensor] = []
    for image in clean:
        uniform = torch.rand(image.shape, generator=draws) - 0.5
        laplace = -uniform.sign() * (1 - 2 * uniform.abs()).clamp(min=1e-6).log() / math.sqrt(2)
        noisy.append((255 * (image + 5 / 255 * laplace)).round() / 255)
    heavy = figures_of_pairs(zip(clean, noisy, strict=True))
    assert heavy is not None
    # Of the pixels, 3 for the law of Laplace; a block's low frequencies, which are left out, are nearly normal.
    assert heavy.excess_kurtosis == pytest.approx(2.7, abs=0.5)
    assert statuses(heavy, real)["histogram"] == "differs"


def test_levels_of_several_images_are_told_from_brightness() -> None:
    """Dark images of high and bright ones of low noise, which share brightnesses: it does not fall with brightness."""
    white = Recipe(base=4.0, slope=0.0, tap=0.0, channels=0.0)
    ramp = torch.linspace(0, 1, 384).repeat_interleave(1).expand(3, 96, 384)
    pile = []
    for number, (low, high, factor) in enumerate(((0.1, 0.6, 2.0), (0.25, 0.75, 1.0), (0.4, 0.9, 0.5))):
        clean = (255 * (low + (high - low) * ramp)).round() / 255
        noisy = with_noise([clean, clean], white, number, factor)
        pile += [(clean, image) for image in noisy]
    found = figures_of_pairs(pile)
    assert found is not None
    # The mean variance of the three kinds, at every brightness.
    expected = 4 * math.sqrt((0.25 + 1 + 4) / 3)
    seen = [255 * s for count, sigma in zip(found.counts, found.sigma, strict=True) if count > 3000 for s in sigma]
    assert len(seen) >= 15
    assert seen == pytest.approx([expected] * len(seen), rel=0.1)
    assert found.levels[1] / found.levels[0] == pytest.approx(4, rel=0.1)


def test_the_distance_is_what_it_says() -> None:
    real = figures_of_images(with_noise(flat_images(4, 0), REAL, 1))
    assert real is not None
    assert compare(real, real).distance == 0
    louder = dataclasses.replace(real, sigma=tuple(tuple(1.3 * s for s in sigma) for sigma in real.sigma))
    found = compare(louder, real)
    assert isinstance(found, Comparison)
    assert found.distance == pytest.approx(math.log(1.3))
    assert math.exp(found.log_strength) == pytest.approx(1.3)
    # Strength shows beside what channels are off by: 5% of it is 0.05, not the root of a sum of squares.
    red = (1.3, 1.0, 1.0)
    tinted, both = (
        tuple(tuple(f * factor * s for f, s in zip(red, sigma, strict=True)) for sigma in real.sigma)
        for factor in (1.0, 1.05)
    )
    first, second = (compare(dataclasses.replace(real, sigma=sigma), real) for sigma in (tinted, both))
    strength = math.log(1.3) / 3
    spread = math.sqrt(2) / 3 * math.log(1.3)  # of (1, 0, 0) about its mean
    assert first is not None
    assert second is not None
    assert first.distance == pytest.approx(strength + spread)
    assert second.distance - first.distance == pytest.approx(math.log(1.05))
    colder = dataclasses.replace(real, channel_correlation=tuple(c - 0.2 for c in real.channel_correlation))
    assert compare(colder, real).distance == pytest.approx(0.2)


def test_texture_of_clean_images_is_not_counted_as_made_noise() -> None:
    """Half of each image is a pattern of 8 grey levels; noise of 2 on top is measured as 2."""
    clean = flat_images(6, 0)
    draws = torch.Generator().manual_seed(1)
    for image in clean:
        image[:, :, 96:] += 8 / 255 * torch.randn(image[:, :, 96:].shape, generator=draws)
    clean = [(255 * image.clamp(0, 1)).round() / 255 for image in clean]
    found = figures_of_pairs(zip(clean, with_noise(clean, Recipe(2, 0, 0, 0), 2), strict=True))
    assert found is not None
    assert [255 * s for c, sigma in zip(found.counts, found.sigma, strict=True) if c > 4000 for s in sigma] == (
        pytest.approx([2.0] * 3 * sum(c > 4000 for c in found.counts), rel=0.12)
    )


def test_without_flat_areas_it_says_so() -> None:
    texture = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(s)) for s in range(2)]
    nothing = figures_of_pairs([(x, x) for x in texture])
    assert nothing is None
    flat = figures_of_images(flat_images(2, 0))
    (only,) = verdicts_of(nothing, flat, None)
    assert (only.status, "clean images have no flat area" in only.words) == ("not measured", True)
    with pytest.raises(ShapeError, match="one size"):
        figures_of_pairs([(texture[0], texture[1][:, :32])])


def test_figures_are_json() -> None:
    figures = made(REAL)
    assert json.loads(json.dumps(figures.as_dict()))["images"] == IMAGES
    assert json.loads(json.dumps(compare(figures, figures).as_dict()))["distance"] == 0


def test_real_images_without_noise_are_said_and_nothing_is_divided_by_it() -> None:
    """Pairs of one folder with itself, as where the clean folder is named twice."""
    clean = flat_images(4, 0)
    nothing = figures_of_pairs(zip(clean, clean, strict=True))
    assert nothing is not None
    noisy = made(REAL)
    verdicts = verdicts_of(noisy, nothing, compare(noisy, nothing))
    assert [(v.subject, v.status) for v in verdicts] == [
        ("strength", "too strong"),
        ("everything else", "not measured"),
    ]
    assert "hardly any noise" in verdicts[0].words
    assert verdicts_of(nothing, nothing, compare(nothing, nothing))[0].status == "within"
    assert statuses(nothing, noisy)["strength"] == "not learned"


def grey(images: list[Tensor]) -> list[Tensor]:
    """Of 8 bits, three equal channels."""
    return [(255 * image.mean(0, keepdim=True)).round().expand(3, -1, -1) / 255 for image in images]


def test_grey_pictures_have_no_channels_to_judge() -> None:
    """Equal channels are 1 to each other whatever degraded them; noise in colour is not called too weak for it."""
    clean = grey(flat_images(IMAGES, 2))
    noisy = grey(with_noise(clean, Recipe(channels=1.0), 4))
    figures = figures_of_pairs(zip(clean, noisy, strict=True))
    assert figures is not None
    assert (figures.grey, figures.all_grey) == (IMAGES, True)
    ours = made(REAL)
    assert (ours.grey, ours.all_grey) == (0, False)
    found = compare(ours, figures)
    assert found is not None
    verdicts = {verdict.subject: verdict for verdict in verdicts_of(ours, figures, found)}
    for subject in ("correlation of channels", "noise by channel"):
        assert verdicts[subject].status == "not measured"
        assert f"all {IMAGES} real images are grey: their channels are equal" in verdicts[subject].words
        assert "in colour" in verdicts[subject].option
    assert found.channel_correlation[0] == pytest.approx(REAL.channels - 1, abs=0.1)
    in_colour = compare(ours, dataclasses.replace(figures, grey=0))
    assert in_colour is not None
    share = math.sqrt(sum(value**2 for value in found.channel_correlation) / 3)
    assert in_colour.distance - found.distance == pytest.approx(share)


def test_a_pile_that_is_grey_in_part_is_judged_with_a_word_on_it() -> None:
    images = with_noise(flat_images(IMAGES, 0), REAL, 1)
    real = figures_of_images(grey(images[:2]) + images[2:])
    assert real is not None
    ours = made(REAL)
    (row,) = [v for v in verdicts_of(ours, real, compare(ours, real)) if v.subject == "correlation of channels"]
    assert row.status != "not measured"
    assert f"2 of {IMAGES} real images are grey, where it is 1" in row.words
