"""The recipe that trains on filtered corpora: its corruptions, its arms, and the whole in miniature."""

from __future__ import annotations

import importlib
import json
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synthpipe import checkpoints
from synthpipe.density.scorer import DensityScorer

RECIPE = Path(__file__).parents[2] / "recipes" / "filter_check"
SIDE = 72


@pytest.fixture
def recipe(monkeypatch):
    """Import a module of the recipe, whose folder is on the path as it is for its own script."""
    monkeypatch.syspath_prepend(str(RECIPE))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name in {"arms", "contamination", "real_shots"}:
            del sys.modules[name]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """Pictures with fine texture, in which each corruption leaves a mark."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for folder, count in (("clean_train", 4), ("clean_test", 2)):
        (root / folder).mkdir()
        for n in range(count):
            coarse = rng.integers(40, 216, (12, 20, 3)).astype(np.uint8)
            smooth = np.array(Image.fromarray(coarse).resize((240, 150), Image.Resampling.BICUBIC)).astype(float)
            picture = (smooth + 12 * rng.standard_normal(smooth.shape)).round().clip(0, 255).astype(np.uint8)
            Image.fromarray(picture).save(root / folder / f"{n}.png")
    return root


@pytest.fixture
def corpus(recipe, data_root):
    return recipe("contamination").make_corpus(data_root / "clean_train", SIDE, 100, scale=2)


def test_tiles_are_cut_side_by_side(corpus, data_root):
    assert corpus.clean.shape == (4 * 2 * 3, 3, SIDE, SIDE)
    assert corpus.clean_lq.shape == (24, 3, SIDE // 2, SIDE // 2)
    picture = np.array(Image.open(data_root / "clean_train" / "0.png")).transpose(2, 0, 1)
    top, left = (150 - 2 * SIDE) // 2, (240 - 3 * SIDE) // 2
    np.testing.assert_array_equal(corpus.clean[4], picture[:, top + SIDE :, left + SIDE :][:, :SIDE, :SIDE])


def test_corruptions_stay_in_place_and_lose_detail(corpus):
    """Every corrupted tile is its own clean tile without the finest frequencies, not shifted against it."""
    clean, bad = (tiles.mean(1).astype(float) for tiles in (corpus.clean, corpus.corrupted))
    fine = [np.abs(np.diff(tiles, axis=2)).mean((1, 2)) for tiles in (clean, bad)]
    assert (fine[1] < 0.8 * fine[0]).all()
    errors = {
        shift: ((clean[:, 8:-8, 8:-8] - np.roll(bad, shift, (1, 2))[:, 8:-8, 8:-8]) ** 2).mean((1, 2))
        for shift in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
    }
    for shift in set(errors) - {(0, 0)}:
        assert (errors[0, 0] < errors[shift]).all(), shift
    assert set(corpus.family) == {0, 1, 2}
    assert corpus.names[::6] == ("0.png", "1.png", "2.png", "3.png")


def test_contamination_is_exact_and_nested(recipe):
    contaminated = recipe("contamination").contaminated
    masks = [contaminated(1000, percent, seed=1) for percent in (0, 30, 50)]
    assert [int(mask.sum()) for mask in masks] == [0, 300, 500]
    assert masks[2][masks[1]].all()
    assert (contaminated(1000, 50, seed=2) != masks[2]).any()


def test_arms_share_what_they_can(recipe, corpus):
    """A sample whose tile both arms have is the same crop; the smaller arm never shows a tile that it has not."""
    arms = recipe("arms")
    size = arms.Size(scale=2, patch=12, batch=6, steps=30)
    # Each tile is a constant that names it, negated where it is corrupted.
    names = np.arange(24, dtype=np.uint8)[:, None, None, None]
    plain = {
        "clean": np.broadcast_to(names, (24, 3, SIDE, SIDE)).copy(),
        "corrupted": np.broadcast_to(255 - names, (24, 3, SIDE, SIDE)).copy(),
    }
    plain |= {f"{key}_lq": tiles[:, :, ::2, ::2] for key, tiles in plain.items()}
    named = type(corpus)(**plain, family=corpus.family)
    mixed, keep = np.arange(24) % 2 == 0, np.arange(24) % 3 > 0

    def seen(mask):
        batches = list(arms.draw_batches(named, mixed, mask, 5, size))
        for lq, gt in batches:
            assert (lq.shape, gt.shape) == ((6, 3, 12, 12), (6, 3, 24, 24))
            assert torch.equal(lq[:, 0, 0, 0], gt[:, 0, 0, 0])
        values = torch.cat([(lq[:, 0, 0, 0] * 255).round().int() for lq, _ in batches]).numpy()
        ids = np.where(values > 127, 255 - values, values)
        np.testing.assert_array_equal(values > 127, mixed[ids])
        return ids

    every, part = seen(np.ones(24, bool)), seen(keep)
    assert keep[part].all()
    np.testing.assert_array_equal(every[keep[every]], part[keep[every]])
    assert len(set(part)) == keep.sum()


def test_lq_and_gt_are_one_place(recipe, corpus):
    """Turned and flipped alike: the mean of each 2x2 block of gt is lq when lq was made so."""
    arms = recipe("arms")
    small = corpus.clean.reshape(24, 3, SIDE // 2, 2, SIDE // 2, 2).mean((3, 5)).round().astype(np.uint8)
    pooled = type(corpus)(corpus.clean, corpus.corrupted, small, corpus.corrupted_lq, corpus.family)
    size = arms.Size(scale=2, patch=12, batch=6, steps=8)
    nobody = np.zeros(24, bool)
    for lq, gt in arms.draw_batches(pooled, nobody, ~nobody, 0, size):
        assert float((torch.nn.functional.avg_pool2d(gt, 2) - lq).abs().max()) <= 0.51 / 255


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(3)
    scorer = DensityScorer(
        {"channels": 1, "width": 4, "depth": 2, "outputs": 2, "domains": ["clean", "blur"], "sigma_range": [0.01, 0.2]},
        [0.05],
    )
    with torch.no_grad():
        for parameter in scorer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    scorer.quantile_table.copy_(torch.linspace(-4, 4, 101).expand_as(scorer.quantile_table))
    return checkpoints.save(tmp_path_factory.mktemp("weights") / "scorer.safetensors", scorer)


def run(monkeypatch, *argv):
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, argv)])
    runpy.run_path(str(RECIPE / "run.py"), run_name="__main__")


def test_whole_in_miniature(recipe, data_root, weights, tmp_path, monkeypatch, capsys):
    options = ("--quick", "--data", data_root, "--weights", weights, "--out", tmp_path, "--percents", 0, 50)
    run(monkeypatch, *options)
    first = json.loads((tmp_path / "results.json").read_text())
    rows = {(row["percent"], row["arm"]): row for row in first["arms"]}
    assert len(rows) == 2 * 5
    assert rows[50, "oracle"]["precision"] == rows[50, "oracle"]["recall"] == 1
    assert rows[50, "random"]["kept"] == rows[50, "filtered"]["kept"] == rows[50, "oracle"]["kept"] == 12
    assert rows[50, "filtered"]["precision"] == rows[50, "filtered"]["recall"]
    assert rows[0, "filtered"]["kept"] == 24 - 5
    assert rows[0, "oracle"]["psnr_y"] == rows[0, "all"]["psnr_y"]
    assert all(10 < row["psnr_y"] < 60 for row in rows.values())
    assert first["detection"]["unseen"] == first["detection"]["unseen_kinds"]["pictures"]
    assert "| 50 % |" in capsys.readouterr().out

    # Killed after some arms, and part of the scores: the same figures, and what was there is not done again.
    kept, *gone = sorted(tmp_path.glob("arm_*.json"))
    for path in gone:
        path.unlink()
    scores = sorted(tmp_path.glob("scores_*.npy"))
    assert len(scores) == 2
    partial = np.load(scores[0])
    assert np.isfinite(partial).all()
    partial[1, 3:] = np.nan
    np.save(scores[0], partial)
    when = kept.stat().st_mtime_ns
    run(monkeypatch, *options)
    assert json.loads((tmp_path / "results.json").read_text()) == first
    assert kept.stat().st_mtime_ns == when


def test_filter_drops_what_scores_worst(recipe, corpus):
    """Against a scorer that is told the truth, and AUROC against its definition by pairs."""
    script = runpy.run_path(str(RECIPE / "run.py"))
    mixed = recipe("contamination").contaminated(24, 50, 0)
    logits = np.stack([np.linspace(-2, -1, 24), np.linspace(1, 2, 24)])
    judged = script["Judged"](corpus, logits, 0.0)
    for arm in ("filtered", "quantile"):
        np.testing.assert_array_equal(script["choose"](arm, judged, mixed, 50, 0), ~mixed)
    rng = np.random.default_rng(1)
    noisy = rng.integers(0, 6, (2, 24)).astype(float)
    found = script["detection"](noisy, corpus.family)
    for number, name in enumerate(script["CORRUPTIONS"]):
        pairs = [(b > a) + 0.5 * (b == a) for a in noisy[0] for b in noisy[1, corpus.family == number]]
        assert found[name] == pytest.approx(np.mean(pairs))


def test_kinds_of_pictures(recipe):
    kind = runpy.run_path(str(RECIPE / "run.py"))["kind_of_picture"]
    assert [kind(name) for name in ("kodim05.png", "set14_zebra.png", "12003.jpg")] == ["kodim", "set", "pictures"]


def test_value_is_the_ratio_of_gains(recipe):
    script = runpy.run_path(str(RECIPE / "run.py"))
    psnr = {"random": (30.0, 30.2), "filtered": (30.3, 30.3), "oracle": (30.4, 30.6)}
    rows = [{"percent": 50, "arm": arm, "seed": s, "psnr_y": v[s]} for arm, v in psnr.items() for s in range(2)]
    # (0.3 + 0.1) / (0.4 + 0.4), and 0.3 / 0.4, 0.1 / 0.4 by seed.
    assert "| +0.400 ± 0.000 | 0.50 (0.75, 0.25) |" in script["psnr_table"](rows)


def test_psnr_of_a_known_error(recipe):
    """Five grey levels in R, G and B are 5 * 219 / 255 in BT.601's luma, anywhere but in the border."""
    importlib.import_module("synthpipe.basicsr_plugin.compat").prepare()
    gt = torch.full((1, 3, 20, 24), 100 / 255)

    def net(lq):
        wrong = torch.nn.functional.interpolate(lq + 5 / 255, scale_factor=2.0)
        wrong[..., :2, :] = wrong[..., :, -2:] = 1.0
        return wrong

    expected = 20 * math.log10(255 / (5 * 219 / 255))
    assert recipe("arms").mean_psnr_y(net, [gt, gt], scale=2) == pytest.approx(expected, abs=0.02)


def test_real_shots_spoil_the_corpus_beside_their_own_references(recipe, corpus, tmp_path):
    rng = np.random.default_rng(0)
    lines = ["set,noisy,clean"]
    judged = ("Canon5D2_5_160_3200_chair_5", "sidd_01")
    for name in (*judged, "Canon5D2_5_160_6400_desk_4", "sidd_00"):
        for side in ("noisy", "clean"):
            pixels = rng.integers(0, 256, (2 * SIDE + 5, SIDE, 3)).astype(np.uint8)
            (tmp_path / side).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / side / f"{name}.png")
        lines.append(f"{'sidd' if name[0] == 's' else 'polyu_crop'},noisy/{name}.png,clean/{name}.png")
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    real = recipe("real_shots").make_real_corpus(tmp_path, corpus, SIDE, 2)
    shots, means = (
        {
            np.array(Image.open(tmp_path / side / f"{name}.png"))[top : top + SIDE].transpose(2, 0, 1).tobytes(): (
                name,
                top,
            )
            for name in judged
            for top in (0, SIDE)
        }
        for side in ("noisy", "clean")
    )
    assert real.kinds == ("polyu", "sidd")
    assert len(real) == len(corpus)
    for number in range(len(real)):
        shot = shots[real.corrupted[number].tobytes()]  # of a scene that judges, never the desk or the letters
        assert real.family[number] == judged.index(shot[0])
        if number % 4 == 0:
            assert means[real.clean[number].tobytes()] == shot
        else:
            np.testing.assert_array_equal(real.clean[number], corpus.clean[number])
    assert {shots[tile.tobytes()] for tile in real.corrupted} == set(shots.values())
