"""A scorer fitted on a clean set: reproducible, never fitted on what it is measured on, tiles in the right places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synthpipe.config.calibration import CalibrationOptions
from synthpipe.config.reader import parse_options
from synthpipe.density import DDE, DensityScorer
from synthpipe.errors import OptionError, ShapeError, TrainingError
from synthpipe.images import to_float
from synthpipe.training import calibration
from synthpipe.training.calibration import Calibrated, calibrate

TILE = 16


def options(**changes: Any) -> CalibrationOptions:
    base = {"tile": TILE, "levels": [0.05], "families": ["noise", "blur"], "tiles_per_image": 3}
    return parse_options(base | changes, CalibrationOptions)


@pytest.fixture
def dde() -> DDE:
    torch.manual_seed(0)
    return DDE(width=2, depth=2, outputs=2, domains=("clean",)).eval()


def textured(path: Path, seed: int, side: int = 72, noise: float = 0.0) -> Path:
    """A picture with edges and a little texture; ``noise`` on the 0..255 scale."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side]
    waves = sum(np.sin(x * a + y * b + c) for a, b, c in rng.uniform(0.1, 1.2, (4, 3)))
    image = 128 + 20 * waves[..., None] + 30 * (x[..., None] // 9 % 2) + rng.normal(0, 1 + noise, (side, side, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path, compress_level=1)
    return path


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Eight clean pictures."""
    for seed in range(8):
        textured(tmp_path / "clean" / f"{seed}.png", seed)
    return tmp_path / "clean"


def fitted(scorer: DensityScorer) -> Tensor:
    return torch.cat([scorer.calibration.weight, scorer.calibration.bias[None], scorer.calibration.mean])


def test_the_same_seed_gives_the_same_bits(dde: DDE, clean: Path) -> None:
    first, second = calibrate(dde, clean, options()), calibrate(dde, [clean], options())
    assert first.info == second.info
    for name, value in first.scorer.state_dict().items():
        assert torch.equal(value, second.scorer.state_dict()[name]), name
    other = calibrate(dde, clean, options(seed=1))
    assert not torch.equal(fitted(other.scorer), fitted(first.scorer))
    assert all(torch.equal(value, first.scorer.dde.state_dict()[name]) for name, value in dde.state_dict().items())


def test_it_learns_what_a_corruption_is(dde: DDE, clean: Path) -> None:
    scorer, info = calibrate(dde, clean, options())
    assert not scorer.training
    assert (info["images_fitted"], info["images_held_out"], info["skipped"]) == (6, 2, {})
    rows = info["held_out"]
    assert set(rows) == {"noise", "blur"}
    # The net is not trained; contrast and coder bits are enough here.
    assert rows["noise"]["auroc"] > 0.7
    assert rows["noise"]["pair_accuracy"] > 0.7
    assert rows["noise"]["coder_bits_auroc"] < 0.3 < 0.7 < rows["blur"]["coder_bits_auroc"]
    assert rows["noise"]["tiles"] == 2 * 3
    tiles = to_float(torch.from_numpy(np.asarray(Image.open(clean / "0.png"))[None, :TILE, :TILE].copy()))
    noisy = (tiles + 0.1 * torch.randn(tiles.shape)).clamp(0, 1)
    logits = scorer(torch.cat([tiles, noisy]).permute(0, 3, 1, 2))[:, 0]
    assert logits[1] > logits[0] + 1


def test_the_fit_never_sees_what_is_held_out(dde: DDE, clean: Path) -> None:
    def changed(seed: int) -> tuple[bool, bool]:
        path = clean / f"{seed}.png"
        original = path.read_bytes()
        textured(path, 100 + seed, noise=20)
        now = calibrate(dde, clean, options(holdout=0.4))
        path.write_bytes(original)
        return torch.equal(fitted(now.scorer), fitted(before.scorer)), now.info == before.info

    before = calibrate(dde, clean, options(holdout=0.4))
    results = [changed(seed) for seed in range(8)]
    assert sum(same_fit for same_fit, _ in results) == before.info["images_held_out"] == 3
    assert not any(same_info for same_fit, same_info in results if same_fit)


def test_copies_are_of_the_same_tile(dde: DDE, clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any corruption each copy ties with its original: all figures are 1/2 to the last bit."""
    monkeypatch.setattr(calibration, "corrupt", lambda x, corruptions: x)
    for row in calibrate(dde, clean, options()).info["held_out"].values():
        assert (row["auroc"], row["pair_accuracy"], row["coder_bits_auroc"]) == (0.5, 0.5, 0.5)


def test_a_jpegs_grid_may_begin_anywhere_and_borders_stay_out(
    dde: DDE, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def position(x: Tensor, corruptions: object) -> Tensor:
        rows, columns = (torch.arange(float(side)) for side in x.shape[2:])
        return torch.stack(
            [rows[:, None] + 0 * columns, columns + 0 * rows[:, None], 0 * rows[:, None] + 0 * columns]
        ).expand_as(x)

    tiles: list[Tensor] = []
    parts = DensityScorer.parts

    def record(self: DensityScorer, few: Tensor) -> Tensor:
        tiles.append(few)
        return parts(self, few.clamp(0, 1))

    monkeypatch.setattr(calibration, "corrupt", position)
    monkeypatch.setattr(DensityScorer, "parts", record)
    calibrate(dde, clean, options(families=["jpeg"], tiles_per_image=40, reduce=1))
    copies = torch.cat([few[40:] for few in tiles if len(few) == 80])  # 40 clean tiles, then their copies
    assert len(copies) == 320
    assert torch.equal(copies[:, 0, :, 0] - copies[:, 0, :1, 0], torch.arange(float(TILE)).expand(320, TILE))
    for channel in (0, 1):
        # 72 pixels hold the tile, 16 on each side, and every phase of a 16-pixel grid.
        assert set(copies[:, channel, 0, 0].tolist()) == set(map(float, range(16, 32)))
        assert copies[:, channel].max() < 64


def test_half_of_the_images_are_reduced(dde: DDE, clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    pieces = calibration._Reader._pieces

    def record(self: Any, image: Tensor, generator: torch.Generator) -> Any:
        sizes.append(min(image.shape[1:]))
        return pieces(self, image, generator)

    monkeypatch.setattr(calibration._Reader, "_pieces", record)
    for seed in range(3):
        calibrate(dde, clean, options(seed=seed, reduce=8))
    assert len(sizes) == 24
    assert 4 <= sizes.count(72) <= 20  # 12 expected, standard deviation 2.4
    assert min(sizes) >= TILE
    assert len(set(sizes)) > 4
    sizes.clear()
    calibrate(dde, clean, options(reduce=1))
    assert set(sizes) == {72}


def test_quantiles_are_of_means_over_tiles_of_clean_images(dde: DDE, tmp_path: Path) -> None:
    for seed in range(12):
        textured(tmp_path / "one" / f"{seed}.png", seed, side=TILE)
        textured(tmp_path / "many" / f"{seed}.png", seed, side=4 * TILE)
    one = calibrate(dde, tmp_path / "one", options(holdout=0.5, tiles_per_image=2)).scorer
    images = [np.asarray(Image.open(tmp_path / "one" / f"{seed}.png")) for seed in range(12)]
    logits = one(to_float(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)))[:, 0]
    table = one.quantiles
    # Images of a single tile: their mean over any number of tiles is that tile's.  Six are held out.
    assert torch.equal(table[1], table[4])
    assert torch.equal(table[1], table[16])
    for percent in (0, 20, 40, 60, 80, 100):
        assert float((logits - table[1][percent]).abs().min()) < 1e-4
    many = calibrate(dde, tmp_path / "many", options(holdout=0.5)).scorer.quantiles
    for rows in many.values():
        assert bool((rows.diff() >= 0).all())
    spans = {count: float(rows[100] - rows[0]) for count, rows in many.items()}
    assert spans[16] < spans[4] < spans[1]


def test_families_count_alike_however_many_tiles_they_have(
    dde: DDE, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(20):
        textured(tmp_path / "bad" / f"{seed}.png", 50 + seed, noise=30)
    seen: dict[str, Tensor] = {}
    fit = calibration.fit_calibration

    def record(clean_parts: Tensor, degraded: Tensor, weight: Tensor, *rest: Any) -> Any:
        seen.update(clean=clean_parts, degraded=degraded, weight=weight)
        return fit(clean_parts, degraded, weight, *rest)

    monkeypatch.setattr(calibration, "fit_calibration", record)
    _, info = calibrate(dde, clean, options(degraded=[str(tmp_path / "bad")]))
    assert [len(seen["clean"]), len(seen["degraded"])] == [18, 18 + 18 + 45]
    assert [float(part.sum()) for part in seen["weight"].split([18, 18, 45])] == pytest.approx([1, 1, 1])
    row = info["held_out"]["1:bad"]
    assert row["pair_accuracy"] is None
    assert row["auroc"] > 0.9
    assert row["tiles"] == 5 * 3


def test_ignored_parts_count_no_more_and_are_still_there(dde: DDE, clean: Path) -> None:
    scorer, _ = calibrate(dde, clean, options(ignore=["log_energy_*", "contrast"]))
    parts = scorer.parts(torch.rand(3, 3, TILE, TILE))
    for name, counts in (("contrast", False), (scorer.columns[1], False), ("coder_bits", True)):
        changed = parts.clone()
        changed[:, scorer.columns.index(name) - 1] += 0.1
        assert torch.equal(scorer.calibration(changed), scorer.calibration(parts)) != counts


def test_unusable_images_are_skipped_and_counted(dde: DDE, clean: Path) -> None:
    (clean / "broken.png").write_bytes(b"no picture")
    textured(clean / "small.png", 0, side=TILE - 1)
    textured(clean / "narrow.png", 0, side=TILE)
    result = calibrate(dde, clean, options(holdout=0.3))
    assert sum(result.info["skipped"].values()) == 2
    assert result.info["skipped"]["too_small"] == 1


def test_refusals(dde: DDE, clean: Path, tmp_path: Path) -> None:
    def refused(message: str, folder: Path = clean, error: type[Exception] = TrainingError, **changes: Any) -> None:
        with pytest.raises(error, match=message):
            calibrate(dde, folder, options(**changes))

    refused("nothing to tell from clean", families=[])
    refused("does not exist", folder=tmp_path / "none")
    refused(r"8 images, too few for a share.*0.01 of them", holdout=0.01)
    refused("no part is called 'sharpness'; there are log_energy", error=OptionError, ignore=["sharpness"])
    refused("levels within 0.01..0.25", error=ShapeError, levels=[0.5])
    refused(r"no usable image for 'clean'.*too_small.*128 pixels", tile=128)
    refused(r"expected more than \d+ tiles", tiles_per_image=1, holdout=0.7)


def test_figures_are_those_of_the_scorer_on_the_held_out_tiles(
    dde: DDE, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    unseen: list[dict[str, Tensor]] = []
    figures: Callable[..., dict[str, Any]] = calibration._figures

    def record(scorer: DensityScorer, parts: dict[str, Tensor], name: str, paired: bool) -> dict[str, Any]:
        unseen.append(parts)
        return figures(scorer, parts, name, paired)

    monkeypatch.setattr(calibration, "_figures", record)
    result: Calibrated = calibrate(dde, clean, options(holdout=0.5))
    parts = unseen[0]
    for name, row in result.info["held_out"].items():
        labels = [0] * len(parts["clean"]) + [1] * len(parts[name])
        both = torch.cat([parts["clean"], parts[name]])
        logits = result.scorer.calibration(both)
        bits = -both[:, result.scorer.columns.index("coder_bits") - 1]
        assert row["auroc"] == pytest.approx(metrics.roc_auc_score(labels, logits), abs=1e-4)
        assert row["coder_bits_auroc"] == pytest.approx(metrics.roc_auc_score(labels, bits), abs=1e-4)
