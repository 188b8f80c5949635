"""The recipe that asks whether probabilities are true on pictures of several sources."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

RECIPE = Path(__file__).parents[2] / "recipes" / "scorer_kinds"


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(RECIPE)
    import sources

    yield sources
    sys.modules.pop("sources")


def save(path: Path, shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=0)
    return pixels


def test_nothing_that_only_judges_is_among_the_other_sources(sources: ModuleType, tmp_path: Path) -> None:
    chosen = save(tmp_path / "real_noise/clean/Canon5D2_5_160_6400_desk_4.png", (40, 48))
    save(tmp_path / "real_noise/clean/Canon5D2_5_160_3200_chair_5.png", (40, 48))
    save(tmp_path / "real_noise/clean/NikonD800_8_100_6400_bulletin_3.png", (40, 48))
    save(tmp_path / "real_noise_full/clean/Canon5D2_desk.png", (1040, 2080))
    save(tmp_path / "real_noise_full/clean/Canon5D2_fruit.png", (1040, 2080))
    save(tmp_path / "real_sr/city100_iphone_x2/dev/hr/1.png", (40, 48))
    for part in ("dev", "ceiling"):
        save(tmp_path / f"real_sr/realsr_x4/{part}/hr/{part}.png", (41, 48))
    save(tmp_path / "clean_test/kodim01.png", (40, 48))
    save(tmp_path / "clean_test/set14_ppt3.png", (40, 48))
    found = {name: [*pictures] for name, pictures in sources.other_sources(tmp_path).items() if name != "drawn leaves"}
    ((scene, image),) = found["PolyU references"]
    assert scene == "Canon5D2_5_160_6400_desk"
    assert torch.equal((image * 255).round().to(torch.uint8).permute(1, 2, 0), torch.from_numpy(chosen))
    # 520x1040 is one row of two parts, of one scene.
    assert [(scene, tuple(part.shape)) for scene, part in found["PolyU frames, halved"]] == [
        ("Canon5D2_desk.png", (3, 512, 512))
    ] * 2
    assert [tuple(picture.image.shape) for picture in found["RealSR HR, halved"]] == [(3, 20, 24)] * 2
    assert [picture.scene for picture in sources.judged_pictures(tmp_path, None)] == ["kodim01.png"]


def test_noise_of_a_clean_picture_is_seen(sources: ModuleType) -> None:
    plain = torch.linspace(0.3, 0.7, 256).expand(3, 192, 256)
    noise = torch.randn(3, 192, 256, generator=torch.Generator().manual_seed(0))
    assert sources.holds_noise(plain + 5 / 255 * noise)
    assert not sources.holds_noise(plain + 0.5 / 255 * noise)


def test_a_row_says_how_much_too_high_the_probability_is(sources: ModuleType) -> None:
    # 40 scenes; each has four copies at 0.7, two of which have the kind, and one surely without and with.
    values = torch.tensor([0.7, 0.7, 0.7, 0.7, 0.1, 0.9], dtype=torch.float64).repeat(40)
    there = torch.tensor([True, True, False, False, False, True]).repeat(40)
    answers = sources.Answers(values, there, torch.arange(40).repeat_interleave(6))
    row = [cell.strip() for cell in sources.row_of("made", answers).strip("|").split("|")]
    assert row[:3] == ["made", "40", "240"]
    # Pairs: 9 of 0.7, 0.7, 0.9 against 0.7, 0.7, 0.1; four are ties.
    assert row[3] == f"{(4 * 0.5 + 5) / 9:.2f}"
    # (4 * 0.7 + 0.1 + 0.9) / 6 - 0.5; all scenes are alike, so chance has no room.
    assert row[4] == "+0.13 (+0.13 to +0.13)"
    assert row[5].startswith("0.20 (0.6 to 0.8: says 0.70, 0.50 have it; +0.20 to +0.20)")


def test_few_scenes_have_no_bins(sources: ModuleType) -> None:
    answers = sources.Answers(
        torch.tensor([0.2, 0.9] * 8, dtype=torch.float64), torch.tensor([False, True] * 8), torch.arange(8).repeat(2)
    )
    assert sources.row_of("few", answers).endswith("| - |")


def test_chance_is_what_drawing_scenes_by_hand_gives(sources: ModuleType) -> None:
    # Of 50 scenes at 0.7, 35 have the kind in all copies; of 50 at 0.3, 15: true, but for the draw of scenes.
    has = np.repeat([True, False, True, False], [35, 15, 15, 35])
    high = np.arange(100) < 50
    answers = sources.Answers(
        torch.from_numpy(np.where(high, 0.7, 0.3)).repeat_interleave(4),
        torch.from_numpy(has).repeat_interleave(4),
        torch.arange(100).repeat_interleave(4),
    )
    words = sources.chance_of(answers, 100)
    found = [float(words.split(f" {what}")[0].split()[-1]) for what in ("on the median", "in 5 %", "in 1 %")]
    rng, largest = np.random.default_rng(0), []
    for _ in range(4000):
        drawn = rng.integers(0, 100, 100)
        there, top = has[drawn], high[drawn]
        odds = (~there).sum() / there.sum()  # both sides count alike
        shares = [
            odds * (there & side).sum() / (odds * (there & side).sum() + (~there & side).sum()) for side in (top, ~top)
        ]
        largest.append(max(abs(0.7 - shares[0]), abs(0.3 - shares[1])))
    assert found == pytest.approx(np.quantile(largest, [0.5, 0.95, 0.99]), abs=0.02)
    assert found[1] > 0.08


def test_changes_keep_what_they_should(sources: ModuleType) -> None:
    image = torch.rand(3, 65, 80, generator=torch.Generator().manual_seed(0))
    assert sources.halved(image).shape == (3, 32, 40)
    assert sources.rescaled(image, 1.2).shape == (3, 78, 96)
    grey = torch.full((3, 64, 64), 100 / 255)
    changes = (sources.halved, sources.crisp, lambda x: sources.rescaled(x, 1.2), sources.coded)
    for change in changes:
        assert torch.allclose(change(grey), torch.tensor(100 / 255), atol=1e-6)
    edge = torch.cat([torch.full((3, 64, 32), 0.4), torch.full((3, 64, 32), 0.6)], 2)
    assert sources.crisp(edge).amax() > 0.65  # an edge overshoots
