"""The recipe noise_levels: which pairs it learns from, what patterns it draws, what noise it adds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

RECIPE = Path(__file__).parents[2] / "recipes" / "noise_levels"


def test_grain_is_fitted_on_the_pairs_that_settings_are_chosen_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crops whole, six pieces of a frame; nothing of what is judged."""
    monkeypatch.syspath_prepend(RECIPE)
    from grain import pieces

    rng = np.random.default_rng(0)
    sides: dict[str, np.ndarray] = {}
    for folder, name, shape in (
        ("real_noise", "Canon5D2_5_160_6400_desk_4.png", (40, 48)),
        ("real_noise", "Canon5D2_5_160_3200_chair_5.png", (40, 48)),
        ("real_noise", "NikonD800_8_100_6400_bulletin_3.png", (40, 48)),
        ("real_noise_full", "Canon5D2_desk.png", (1040, 1560)),
        ("real_noise_full", "Canon5D2_fruit.png", (40, 48)),
    ):
        for side in ("noisy", "clean"):
            pixels = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
            path = tmp_path / folder / side / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, compress_level=0)
            sides[f"{side}/{path.stem}"] = pixels
    (crop, reference), *frame = pieces(tmp_path)
    for found, side in ((crop, "noisy"), (reference, "clean")):
        assert np.array_equal(found.permute(1, 2, 0).numpy(), sides[f"{side}/Canon5D2_5_160_6400_desk_4"])
    assert [tuple(noisy.shape) for noisy, _ in frame] == [(3, 512, 512)] * 6
    for place, side in enumerate(("noisy", "clean")):
        whole = torch.from_numpy(sides[f"{side}/Canon5D2_desk"]).permute(2, 0, 1)
        last = frame[-1][place]
        assert torch.equal(last, whole[:, 520:1032, 1040:1552])


def test_patterns_have_two_values_and_their_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a grating along rows the first line changes twice in a period, which is drawn between 3 and 16 pixels."""
    monkeypatch.syspath_prepend(RECIPE)
    from patterns import KINDS, SIDE, drawn

    for kind in KINDS:
        for image in drawn(kind, True, 3):
            assert image.shape == (3, SIDE, SIDE)
            assert all(len(channel.unique()) <= 2 for channel in image)
    line = next(drawn("gratings", False, 1))[0, 0].float()
    assert 2 * SIDE / 16 - 2 < int((line.diff() != 0).sum()) < 2 * SIDE / 3 + 2


def test_noise_that_weak_adds_and_compares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its curves and its unevenness are what its text states; grey and colour of covariances worked out by hand."""
    monkeypatch.syspath_prepend(RECIPE)
    from weak import CASES, compared, degraded, strength, unevenness

    places = torch.tensor([0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
    assert strength(places, "steep").tolist() == pytest.approx([1, 1, 1, 3**-0.5, 1 / 3, 1 / 3])
    assert strength(places, "dark").tolist() == pytest.approx([0.7, 0.8, 1, 1, 1, 1])
    field = unevenness(torch.Size([600, 700]), 3)
    assert float(field.square().mean()) == pytest.approx(1, abs=0.1)
    assert float(field.log().std()) == pytest.approx(0.25, abs=1e-3)
    told, true = 4 * (0.5 * torch.ones(3, 3) + 0.5 * torch.eye(3)), torch.eye(3)
    # Grey of a covariance of 0.5 everywhere is 2 of 3, colour the third: 8 for 1, and 4 for 2.
    expected = [np.log(4) / 2, np.log(8) / 2, np.log(2) / 2, 0.5]
    assert compared(told.double(), true.double()) == pytest.approx(expected)
    noisy = degraded(torch.full((3, 128, 128), 100, dtype=torch.uint8), CASES[11], 0, {})
    # 4.5 times 1.1, 0.9 and 1; and rounding.
    assert (noisy.double() - 100).flatten(1).std(1).tolist() == pytest.approx([4.95, 4.05, 4.5], rel=0.03)
