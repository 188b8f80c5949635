"""The recipe that trains on pairs for real photographs: its parts by known answers, the whole in miniature."""

from __future__ import annotations

import importlib
import json
import math
import os
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from synthpipe.images import downscale_bicubic, to_float, to_uint8
from synthpipe.pipeline import build_stream

RECIPE = Path(__file__).parents[2] / "recipes" / "real_world"
MODULES = {path.stem for path in RECIPE.glob("*.py")}
CAMERAS = {
    "Canon5D2": ("bag", "bicyc", "circu", "chair", "desk", "recie", "fruit"),
    "Nikon800": ("bulle", "class", "desch", "flowe", "door", "plant"),
    "Canon80D": ("GO", "ball", "compr"),
}


@pytest.fixture
def recipe(monkeypatch):
    """Import a module of the recipe, whose folder is on the path as it is for its own script."""
    monkeypatch.syspath_prepend(str(RECIPE))
    yield importlib.import_module
    for name in MODULES & set(sys.modules):
        del sys.modules[name]


def picture(seed, height, width):
    """Smooth blobs and fine texture, ``(height, width, 3)`` uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 216, (height // 20 + 2, width // 20 + 2, 3)).astype(np.uint8)
    smooth = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    return (smooth + 8 * rng.standard_normal(smooth.shape)).round().clip(0, 255).astype(np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_pair(folder, name, seed, side, scale):
    hr = picture(seed, side, side)
    save(folder / "hr" / name, hr)
    save(folder / "lr" / name, np.array(Image.fromarray(hr).resize((side // scale,) * 2, Image.Resampling.BICUBIC)))


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """Small images in the folders that the recipe reads."""
    root = tmp_path_factory.mktemp("data")
    for n in range(6):
        save(root / "clean_train" / f"{n}.png", picture(n, 330, 340))
    for n in range(4):
        save(root / "clean_test" / f"{n}.png", picture(10 + n, 200, 220))
    realsr, city = root / "real_sr" / "realsr_x4", root / "real_sr" / "city100_iphone_x2"
    for number, camera in enumerate(("Canon", "Nikon")):
        for scene in range(1, 9):
            folder = realsr / ("dev" if scene % 2 == 0 else "ceiling")
            save_pair(folder, f"{camera}_{scene:03d}.png", 100 * number + scene, 320, 4)
        for scene in (1, 3):
            save(realsr / "pile" / f"{camera.lower()}_00{scene}_LR.png", picture(300 + 10 * number + scene, 128, 128))
    save_pair(city / "dev", "054.png", 54, 240, 2)
    for scene in (1, 4, 7):
        save(city / "pile" / f"00{scene}_LR.png", picture(330 + scene, 128, 128))
    for camera, scenes in CAMERAS.items():
        for number, scene in enumerate(scenes):
            clean = picture(400 + number, 320, 320)
            noise = 5 * np.random.default_rng(number).standard_normal(clean.shape)
            save(root / "real_noise_full" / "clean" / f"{camera}_{scene}.jpg", clean)
            noisy = (clean + noise).round().clip(0, 255).astype(np.uint8)
            save(root / "real_noise_full" / "noisy" / f"{camera}_{scene}.jpg", noisy)
    return root


def run_recipe(monkeypatch, *arguments):
    monkeypatch.setattr(
        sys, "argv", ["run.py", "--device", "cpu", "--threads", str(torch.get_num_threads()), *arguments]
    )
    monkeypatch.syspath_prepend(str(RECIPE))
    runpy.run_path(str(RECIPE / "run.py"), run_name="__main__")


# --- what chooses and what judges ---


def test_no_scene_both_trains_or_chooses_and_judges(recipe):
    for camera in recipe("scenes").CAMERAS.values():
        assert not set(camera.choose) & set(camera.judge)
        assert not set(camera.pile) & set(camera.choose)
        if camera.halves:
            assert camera.pile == camera.judge
        else:
            assert not set(camera.pile) & set(camera.judge)


def test_even_scenes_choose_and_judge_in_turn(recipe, data_root):
    scenes = recipe("scenes")
    test = scenes.TESTS["real_x4_realsr"]
    columns = scenes.columns_of(test, data_root, 2, 2)
    assert {name: len(pairs) for name, pairs in columns.items()} == {
        "choose_canon": 2,  # 2 and 6
        "choose_nikon": 2,
        "judge_canon": 2,  # 4 and 8
        "judge_nikon": 2,
        "clean": 2,
        "jpeg": 2,
    }
    chosen = np.array(Image.open(data_root / "real_sr/realsr_x4/dev/hr/Canon_006.png")).transpose(2, 0, 1)
    judged = np.array(Image.open(data_root / "real_sr/realsr_x4/dev/lr/Nikon_004.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(columns["choose_canon"][1][1], chosen)
    np.testing.assert_array_equal(columns["judge_nikon"][0][0], judged)
    trained = [gt for _, gt in scenes.real_pairs(test, data_root)]
    assert len(trained) == 8
    asked = [gt for pairs in columns.values() for _, gt in pairs]
    assert not any(torch.equal(a, b) for a in trained for b in asked if a.shape == b.shape)


def test_halves_of_a_frame_do_not_meet(recipe, data_root):
    scenes = recipe("scenes")
    noisy = scenes._frame(data_root / "real_noise_full", scenes.CAMERAS["80d"], "GO", "left")[0]
    other = scenes._frame(data_root / "real_noise_full", scenes.CAMERAS["80d"], "GO", "right")[0]
    whole = np.array(Image.open(data_root / "real_noise_full/noisy/Canon80D_GO.jpg")).transpose(2, 0, 1)
    np.testing.assert_array_equal(np.concatenate([noisy, other], axis=2), whole)


def test_compressed_photographs_have_qualities_from_30_to_80(recipe, data_root):
    columns = recipe("scenes").columns_of(recipe("scenes").TESTS["x1_5d2"], data_root, 2, 3)
    intact = [pair[0] for pair in columns["clean"]]
    assert all(torch.equal(lq, gt) for lq, gt in columns["clean"])
    for image, (lq, _), quality in zip(intact, columns["jpeg"], (30, 55, 80), strict=True):
        path = data_root / "again.jpg"
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path, quality=quality)
        np.testing.assert_array_equal(lq.permute(1, 2, 0), np.array(Image.open(path)))


# --- registration ---


def test_a_moved_and_brighter_reference_is_brought_back(recipe):
    registration = recipe("registration")
    y, x = np.mgrid[0:160, 0:160]

    def scene(down, right):
        """A sum of waves that are sampled where they are."""
        return sum(
            20 * np.sin(2 * np.pi * ((y - down) * fy + (x - right) * fx) + phase)
            for fy, fx, phase in ((0.02, 0.031, 0.1), (0.05, -0.04, 1.0), (0.013, 0.08, 2.0))
        )

    rng = np.random.default_rng(0)
    reference = np.stack([120 + scene(0, 0)] * 3)
    noisy = np.stack([123 + scene(0.3, -0.6)] * 3) + 4 * rng.standard_normal((3, 160, 160))
    found = registration.shift_between(noisy.mean(0), reference.mean(0))
    np.testing.assert_allclose(found, (0.3, -0.6), atol=0.02)
    pair = [to_uint8(torch.from_numpy(each / 255).clamp(0, 1)) for each in (noisy, reference)]
    a, b = (each.double() for each in registration.registered(*pair))
    assert a.shape == (3, 160 - 2 * registration.MARGIN, 160 - 2 * registration.MARGIN)
    assert float((a - b).std()) == pytest.approx(math.sqrt(16 + 2 / 12), rel=0.02)  # the noise, and rounding twice
    assert float((a - b).mean()) == pytest.approx(0, abs=0.05)


def test_a_flat_window_stays_where_it_is(recipe):
    rng = np.random.default_rng(0)
    assert recipe("registration").shift_between(rng.standard_normal((90, 90)), np.full((90, 90), 7.0)) == (0.0, 0.0)


# --- fits ---


def test_average_spectra_find_a_blur_that_is_known(recipe):
    fits = recipe("fits")
    rng = np.random.default_rng(0)
    clean = [torch.from_numpy(rng.integers(0, 256, (3, 256, 256)).astype(np.uint8)) for _ in range(12)]
    offset = np.arange(-4, 5)
    gaussian = np.exp(-(offset**2) / (2 * 0.7**2))
    gaussian /= gaussian.sum()
    blur = torch.tensor(np.outer(gaussian, gaussian), dtype=torch.float32)[None, None]
    degraded = []
    for image in clean:
        x = torch.nn.functional.conv2d((image.float() / 255)[:, None], blur)[:, 0]
        degraded.append(to_uint8(x))
    kernel = fits.average_kernel(degraded, clean, 1)
    assert kernel.sum() == pytest.approx(1)
    amplitude = np.abs(np.fft.fft2(np.pad(kernel, (0, 64 - len(kernel)))))[0]
    for frequency in (0.2, 0.3, 0.4):
        bin_ = round(frequency * 64)
        # It fixes the amplitude at 3 to 6 cycles of 64 pixels to 1, where this blur has left 0.94.
        expected = np.exp(-2 * (np.pi * 0.7 * bin_ / 64) ** 2) / np.exp(-2 * (np.pi * 0.7 * 4.5 / 64) ** 2)
        assert amplitude[bin_] == pytest.approx(expected, abs=0.08)


def test_a_bank_of_strengths_goes_from_nothing_beyond_the_kernel(recipe, tmp_path):
    kernel = np.full((3, 3), 1 / 9)
    bank = np.load(recipe("fits").strength_bank(kernel, 1.5, tmp_path / "bank.npy"))
    identity = np.zeros((3, 3))
    identity[1, 1] = 1
    np.testing.assert_allclose(bank[0], identity, atol=1e-7)
    np.testing.assert_allclose(bank[-1], identity + 1.5 * (kernel - identity), atol=1e-7)
    assert any(np.allclose(each, kernel, atol=1e-6) for each in bank)


def test_noise_in_flat_areas_is_found_beside_lost_texture(recipe):
    rng = np.random.default_rng(0)
    pairs = []
    for n in range(6):
        gt = np.full((3, 512, 512), 60.0 + 20 * n)
        gt[:, 256:] += 30 * rng.standard_normal((3, 256, 512))  # texture, which reduction takes most of away
        white = 2 * rng.standard_normal((128 + 1, 128 + 1))
        noise = (white[1:, 1:] + white[1:, :-1]) / math.sqrt(2)  # lag-1 along rows 1/2, the same in R, G, B
        lr = np.full((3, 128, 128), 60.0 + 20 * n) + noise
        pairs.append(tuple(torch.from_numpy(x.round().clip(0, 255).astype(np.uint8)) for x in (lr, gt)))
    found = recipe("fits").fitted_noise(pairs, 4)
    covariance = np.array(found["gaussian"]["covariance"]) * 255**2
    np.testing.assert_allclose(covariance, 4.0, rtol=0.12)  # rounding, and the edge between the areas, add a little
    coloured = found["coloured"]
    assert 255**2 * (coloured["a"][0] * 0.4 + coloured["b"][0]) == pytest.approx(4.0, rel=0.15)
    kernel = np.array(coloured["kernel"])
    energy = (kernel**2).sum()
    assert (kernel[:, 1:] * kernel[:, :-1]).sum() / energy == pytest.approx(0.5, abs=0.06)
    assert (kernel[1:] * kernel[:-1]).sum() / energy == pytest.approx(0, abs=0.06)


# --- measures ---


def test_the_tone_of_the_reference_takes_low_frequencies_alone(recipe):
    measures = recipe("measures")
    place = np.arange(512)
    slow, fast = (torch.tensor(0.1 * np.cos(2 * np.pi * f * place)).float().expand(3, 512, -1) for f in (1 / 512, 0.1))
    reference, image = 0.5 + slow, 0.45 + fast
    found = measures.with_tone_of(image, reference)
    middle = slice(128, 384)  # away from the mirrors
    expected = (0.5 + slow + fast)[..., middle]
    # Of the slowest wave exp(-2 (pi sigma f)^2) = 0.993 is taken, with sigma so that 1/2 is at 0.02.
    torch.testing.assert_close(found[..., middle], expected, atol=2e-3, rtol=0)
    at_limit = torch.tensor(0.1 * np.cos(2 * np.pi * 0.02 * place)).float().expand(3, 512, -1)
    half = measures.with_tone_of(torch.zeros(3, 512, 512), at_limit)
    torch.testing.assert_close(half[..., middle], at_limit[..., middle] / 2, atol=1e-3, rtol=0)
    assert measures.with_tone_of(image, image) is not image
    torch.testing.assert_close(measures.with_tone_of(image, image), image)


def test_tone_that_other_pairs_tell_and_tone_that_is_a_pair_s_own(recipe):
    tone = recipe("tone")

    def sides(seed, gain):
        """A pair whose small side has so much more contrast."""
        large = torch.from_numpy(picture(seed, 256, 256)).permute(2, 0, 1)
        small = downscale_bicubic(to_float(large[None]), 4)[0]
        mean = small.mean((1, 2), keepdim=True)
        return tone.sides_of((to_uint8(mean + gain * (small - mean)), large))

    others = [sides(seed, 1.2) for seed in (1, 2)]
    told, own = (tone.left(sides(3, gain), others) for gain in (1.2, 0.8))
    # What 8 bits round away is left.
    assert told["others' gain"] < 0.02
    assert told["own offset and gain"] < 0.02
    assert told["own offset"] > 0.9
    # 1 - 1 / gain is 0.17 of the others and -0.25 of this one: (0.42 / 0.25)^2 is left where that is applied.
    assert own["others' gain"] == pytest.approx((1 + (1 / 6) / 0.25) ** 2, rel=0.02)
    assert own["own offset and gain"] < 0.02


# --- arms ---


def test_every_arm_is_an_option_block_that_a_stream_takes(recipe, data_root, tmp_path):
    workshop = make_workshop(recipe, data_root, tmp_path)
    experiment, scenes = recipe("experiment"), recipe("scenes")
    for test in ("real_x4_realsr", "x1_5d2", "real_x2_city100"):
        for arm in recipe("arms").arm_names(scenes.TESTS[test]):
            made, _ = workshop.planned(experiment.Job(test, arm, 0))
            if made.stream is None:
                continue
            path = tmp_path / "stream.yml"
            recipe("arms").write_stream(made, path)
            with build_stream(yaml.safe_load(path.read_text())) as stream:
                assert stream.batches_per_epoch


def test_networks_are_told_apart_by_contents_and_not_by_paths(recipe, data_root, tmp_path):
    job = recipe("experiment").Job("x1_5d2", "deflow", 0)
    first = make_workshop(recipe, data_root, tmp_path)
    digest = first.planned(job)[1]
    weights = {"x1_5d2": {"deflow": str(shutil.copy(shipped("deflow_small"), tmp_path / "copy.safetensors"))}}
    assert make_workshop(recipe, data_root, tmp_path, weights=weights).planned(job)[1] == digest
    assert first.planned(recipe("experiment").Job("x1_5d2", "deflow", 1))[1] != digest
    with pytest.raises(recipe("arms").MissingError, match="no weights"):
        make_workshop(recipe, data_root, tmp_path, weights={"x1_5d2": {"deflow": "gone"}}).planned(job)
    with pytest.raises(recipe("arms").MissingError, match="named nowhere"):
        make_workshop(recipe, data_root, tmp_path, weights={}).planned(job)


def test_arms_that_no_camera_decides_share_a_network(recipe, data_root, tmp_path):
    workshop, job = make_workshop(recipe, data_root, tmp_path), recipe("experiment").Job
    digests = {
        arm: {workshop.planned(job(f"x1_{c}", arm, 0))[1] for c in ("5d2", "80d")} for arm in ("bsrgan", "gaussian")
    }
    assert {arm: len(found) for arm, found in digests.items()} == {"bsrgan": 1, "gaussian": 2}


def shipped(name):
    return Path(__file__).parents[2] / "synthpipe" / "weights" / f"{name}.safetensors"


def make_workshop(recipe, data_root, out, weights=None):
    names = {"deflow": "deflow_small", "deflow_blurred": "deflow_small"}
    tests = recipe("scenes").TESTS
    weights = dict.fromkeys(tests, names) if weights is None else weights
    return recipe("experiment").Workshop(data_root, out, weights, "tiny", "cpu")


# --- tables ---


def result(arm, seed, choose, canon, nikon):
    psnr = {"choose_canon": choose, "judge_canon": canon, "judge_nikon": nikon}
    blank = {"test": "real_x4_realsr", "ssim": {}, "niqe": {}, "training_seconds": 10.0 + seed}
    tone = {} if seed else {column: value + 1 for column, value in psnr.items()}  # not measured of all
    return {**blank, "arm": arm, "seed": seed, "psnr": psnr, "tone": tone}


def test_shares_are_of_the_gap_of_the_same_seed(recipe):
    results = [
        result("bicubic", 0, 20.0, 25.0, 30.0),
        result("bicubic", 1, 20.0, 25.2, 30.0),
        result("real", 0, 21.0, 26.0, 30.5),
        result("real", 1, 21.0, 26.2, 30.5),
        result("prototype", 0, 20.5, 25.5, 30.5),
        result("prototype", 1, 20.5, 25.9, 30.0),
    ]
    rows = {row["arm"]: row for row in recipe("tables").rows_of(results)}
    share = rows["prototype"]["share"]
    assert share["choose"]["each"] == pytest.approx([0.5, 0.5])
    assert share["judge_canon"]["each"] == pytest.approx([0.5, 0.7])
    assert share["judge_nikon"]["each"] == pytest.approx([1.0, 0.0])
    # Of the means over cameras: (0.5 + 0.5) / (1 + 0.5) and (0.7 + 0) / 1.5.
    assert share["judge"]["each"] == pytest.approx([2 / 3, 0.7 / 1.5])
    assert rows["prototype"]["psnr"]["judge"]["mean"] == pytest.approx((28.0 + 27.95) / 2)
    text = recipe("tables").table(list(rows.values()), "real_x4_realsr")
    assert "| prototype | 2 | 20.50 ± 0.00 (50%) |" in text
    assert rows["prototype"]["share_tone"]["judge"]["each"] == pytest.approx([2 / 3])
    text = recipe("tables").tone_table(list(rows.values()), "real_x4_realsr")
    assert "| prototype | 1 | 21.50 (50%) | 29.00 (67%) |" in text
    assert recipe("tables").tone_table([rows["prototype"] | {"tone": {}}], "real_x4_realsr") == ""


def test_at_scale_1_the_gap_begins_at_the_input(recipe):
    results = [{**result(arm, seed, 0, psnr, psnr), "test": "x1_5d2"} for arm, seed, psnr in
               (("nothing", 0, 30.0), ("real", 0, 32.0), ("real", 1, 33.0), ("deflow", 1, 31.5))]  # fmt: skip
    rows = {row["arm"]: row for row in recipe("tables").rows_of(results)}
    assert rows["deflow"]["share"]["judge"]["each"] == pytest.approx([0.5])


# --- the whole ---


def test_the_whole_in_miniature(monkeypatch, data_root, tmp_path, capsys):
    arguments = ["--tiny", "--data", str(data_root), "--out", str(tmp_path)]
    arguments += ["--only", "real_x4_realsr/[bp]*", "x1_5d2/[ndr]*", "real_x2_city100/bicubic"]
    settings = tmp_path / "settings.yml"
    weights = {"x1_5d2": {"deflow": "deflow_small"}, "real_x4_realsr": {}, "real_x2_city100": {}}
    settings.write_text(yaml.safe_dump({"weights": weights}))
    arguments += ["--settings", str(settings)]
    run_recipe(monkeypatch, *arguments)
    out = capsys.readouterr().out
    assert "real_x4_realsr/blur-deflow is left out" in out
    told = [line for line in out.splitlines() if line.startswith("x1_5d2/deflow/0:")]
    assert len(told) == 1
    assert "choose_desk" in told[0]
    assert "judge" not in told[0]
    rows = json.loads((tmp_path / "tiny" / "results.json").read_text())["rows"]
    arms = {test: [row["arm"] for row in rows if row["test"] == test] for test in {row["test"] for row in rows}}
    assert arms["real_x4_realsr"] == ["bicubic", "bsrgan", "prototype", "blur", "blur-noise"]
    prototype = next(row for row in rows if row["arm"] == "prototype")
    assert set(prototype["tone"]) == {
        "choose",
        "judge",
        *(f"{p}_{c}" for p in ("choose", "judge") for c in ("canon", "nikon")),
    }
    assert "| trained on, with the reference's tone | seeds | choose | judge |" in out
    assert arms["x1_5d2"] == ["nothing", "real-esrgan", "deflow", "deflow-spread", "real"]
    deflow = next(row for row in rows if row["test"] == "x1_5d2" and row["arm"] == "deflow")
    assert set(deflow["share"]) == {"choose", "judge", "choose_desk", "choose_recie", "judge_fruit"}
    nothing = next(row for row in rows if row["test"] == "x1_5d2" and row["arm"] == "nothing")
    # JPEG takes some of noise of 5 of 255 away, and what is left is as far from the reference.
    assert 32 < nothing["psnr"]["judge"]["mean"] < 40
    with Image.open(tmp_path / "tiny" / "pages" / "x1_5d2.png") as page:
        assert page.width > 128 * 5
    # Given again, nothing is trained again.
    kept = {path: os.stat(path).st_mtime_ns for path in (tmp_path / "tiny").glob("networks/*")}
    run_recipe(monkeypatch, *arguments)
    assert "x1_5d2/deflow/0:" not in capsys.readouterr().out
    assert {path: os.stat(path).st_mtime_ns for path in (tmp_path / "tiny").glob("networks/*")} == kept


def test_folders_of_the_data_that_are_used(recipe, shared):
    """Where the real data are: every file that the tests name is there."""
    scenes = recipe("scenes")
    data = shared / "data"
    for camera in scenes.CAMERAS.values():
        for scene in {*camera.pile, *camera.choose, *camera.judge}:
            for side in ("noisy", "clean"):
                assert (data / "real_noise_full" / side / f"{camera.prefix}_{scene}.jpg").is_file()
    assert len(scenes.clean_photos(data)) == 198
