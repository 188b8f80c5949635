"""The recipe's scripts on a data root of the same layout, made here; its option file is read as it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from synthpipe import checkpoints
from synthpipe.config.deflow import TrainDeFlowOptions
from synthpipe.config.training import read_train_options
from tests.integration.recipe_script import run_script

RECIPE = Path(__file__).parents[2] / "recipes" / "deflow_cameras"
SIGMA = 4.0
SCENES = {
    "Canon5D2": ("bag", "bicyc", "circu", "chair", "desk", "recie", "fruit"),
    "Nikon800": ("bulle", "class", "desch", "flowe", "door", "plant"),
    "Canon80D": ("GO", "ball", "compr"),
}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames with white noise on a smooth reference, high-quality JPEG."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for folder in ("clean_train", "real_noise_full/noisy", "real_noise_full/clean"):
        (root / folder).mkdir(parents=True)
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(root / "clean_train" / "a.jpg")
    y, x = np.mgrid[:272, :560] / 200
    smooth = np.repeat((120 + 60 * np.sin(y) * np.cos(x))[..., None], 3, 2)
    for camera, scenes in SCENES.items():
        for scene in scenes:
            noisy = smooth + SIGMA * rng.standard_normal(smooth.shape)
            for side, image in (("noisy", noisy), ("clean", smooth)):
                file = root / "real_noise_full" / side / f"{camera}_{scene}.jpg"
                Image.fromarray(image.round().clip(0, 255).astype(np.uint8)).save(file, quality=100, subsampling=0)
    return root


def test_prepare_then_evaluate(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(RECIPE)
    run_script(RECIPE / "prepare.py", "--data", data_root, "--out", tmp_path, "--crops", 1)
    pile = sorted(path.name for path in (tmp_path / "Nikon800" / "noisy").iterdir())
    assert pile == [f"Nikon800_{scene}.jpg" for scene in ("bulle", "class", "desch", "flowe")]
    # Halves of the 80D: what is judged is not in the pile.
    left = np.array(Image.open(tmp_path / "Canon80D" / "noisy" / "Canon80D_GO.png"))
    right = np.array(Image.open(tmp_path / "Canon80D" / "frames" / "GO.png"))
    whole = np.array(Image.open(data_root / "real_noise_full" / "noisy" / "Canon80D_GO.jpg"))
    np.testing.assert_array_equal(np.concatenate([left, right], 1), whole)
    assert left.shape[1] == 272  # 280, at a coding unit
    corner = json.loads((tmp_path / "Nikon800/judged/door/notes.json").read_text())["corners_yx"][0]
    crop = np.array(Image.open(tmp_path / "Nikon800/judged/door/noisy/door_00.png"))
    frame = np.array(Image.open(data_root / "real_noise_full/noisy/Nikon800_door.jpg"))
    np.testing.assert_array_equal(crop, frame[corner[0] : corner[0] + 256, corner[1] : corner[1] + 256])

    given = ["--cameras", "Nikon800", "--scenes", "door", "--data", tmp_path, "--out", tmp_path]
    run_script(RECIPE / "evaluate.py", *given, "--weights", "deflow_small")
    found = json.loads((tmp_path / "evaluation.json").read_text())["scenes"]["Nikon800 door"]
    assert 255 * found["level"] == pytest.approx(SIGMA, rel=0.1)
    rows = found["views"]["local mean removed"]
    # The pile's noise is white and equally strong everywhere: what is drawn from its flat areas is the same.
    peer = rows["flat-area Gaussian, no flow"]
    assert [255 * sigma for sigma in peer["sigma"]] == pytest.approx([SIGMA] * 3, rel=0.1)
    assert abs(peer["lag1_h"]) < 0.05
    assert peer["channel_correlation"] == pytest.approx([0, 0, 0], abs=0.06)
    # References without an error of their own: nothing to take off, but the registered pairs say the same.
    truth = json.loads((tmp_path / "evaluation.json").read_text())["scenes"]["Nikon800 door"]["without_errors"]
    assert [255 * sigma for sigma in truth["real noise"]["sigma"]] == pytest.approx([SIGMA] * 3, rel=0.1)
    assert truth["Gaussian, fitted"]["akld"] < truth["DeFlow"]["akld"]  # white Gaussian noise is what it is
    assert "| Nikon800 door | " in capsys.readouterr().out

    # A run of one measurement, of the same weights: the figures are those of the evaluation.
    run, flow = tmp_path / "run", checkpoints.load("deflow_small")
    checkpoints.save(run / "final.safetensors", flow)
    (run / "distance.csv").write_text("step,distance\n7,0.25\n")
    (run / "checkpoints").mkdir()
    averaged = {f"module.{name}": value for name, value in flow.state_dict().items()}
    torch.save({"averaged": averaged}, run / "checkpoints" / "step_00000007.pt")
    divergence = {}
    for calibrate in (False, True):
        options = yaml.safe_load((RECIPE / "train.yml").read_text()) | {"calibrate": calibrate, "run_dir": str(run)}
        folders = {"clean": tmp_path / "clean", "noisy": tmp_path / "Nikon800" / "noisy"}
        options["data"] |= {side: {"folder": str(folder)} for side, folder in folders.items()}
        (run / "options.yml").write_text(yaml.safe_dump(options))
        given = ["--data", tmp_path, "--run", run, "--camera", "Nikon800", "--without", "plant", "--groups", 1]
        run_script(RECIPE / "checkpoints.py", *given, "--seeds", 2)
        printed = capsys.readouterr().out.strip()
        (line,) = [line for line in printed.splitlines() if line.startswith("| 7 ")]
        step, distance, divergence[calibrate] = [
            float(cell.split(" ")[0]) for cell in line.strip("| ").split(" | ")[:3]
        ]
        assert (step, distance) == (7, 0.25)
        assert "KLD: chosen step 7 against best step 7: 0.0 (draws 0.0, crops 0.0) %" in printed
    # Of the same two draws, with four decimals.
    assert divergence[False] == pytest.approx(truth["DeFlow"]["akld"], rel=0.06)
    # Corrected by a pile of white noise, of which deflow_small has seen none: much nearer to what another draw of the
    # same noise has, which is not 0.
    least = truth["Gaussian, fitted"]["akld"]
    assert least < divergence[True] < least + 0.6 * (divergence[False] - least)


def test_what_tiles_change_is_no_change_of_all_steps_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(RECIPE)
    from checkpoints import change_with_tiles

    rng = np.random.default_rng(0)
    alike = 0.3 * rng.standard_normal(400)
    steps = alike + np.array([[0.1], [0.2], [0.15]]) + 0.01 * rng.standard_normal((3, 400))
    # Differences of two independent errors of 0.01.
    assert change_with_tiles(steps.tolist()) == pytest.approx(0.01 * 2**0.5, rel=0.1)


def test_standard_errors_are_those_of_means_over_draws_and_over_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(RECIPE)
    from checkpoints import with_errors

    rng = np.random.default_rng(0)
    draws, crops = rng.standard_normal((6, 1)), 3 * rng.standard_normal((1, 4))
    errors = [part.std(ddof=1) / np.sqrt(part.size) for part in (draws, crops)]
    wanted = f"{(5 + draws + crops).mean():.3f} (draws {errors[0]:.3f}, crops {errors[1]:.3f})"
    assert with_errors(torch.from_numpy(5 + draws + crops), 3) == wanted


def test_the_error_of_a_references_coding_is_estimated_and_taken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known photographs, coded: the error that is estimated from the file alone against the true one."""
    monkeypatch.syspath_prepend(RECIPE)
    from reference_errors import coded, coding_error, moments, register

    rng = np.random.default_rng(3)
    # As photographs are: amplitudes fall with frequency in flat areas, and colours differ less than brightness.
    draws = torch.from_numpy(rng.standard_normal((3, 4, 512, 512))).float()
    radius = torch.hypot(torch.fft.fftfreq(512)[:, None], torch.fft.rfftfreq(512)[None]).clamp(min=1 / 512)
    fields = torch.fft.irfft2(torch.fft.rfft2(draws) * radius**-2)
    fields = fields / fields.std((2, 3), keepdim=True)
    known = 120 + 25 * fields[:, :1] + 8 * fields[:, 1:]
    known = (known.round() / 255).clamp(0, 1).float()
    files = torch.stack([coded(image) for image in known])
    noise = 3 / 255 * torch.from_numpy(rng.standard_normal(known.shape)).float()
    true = moments(known - files, files, flat=True).as_dict()
    found = moments(torch.stack([coding_error(image) for image in files]), files, flat=True)
    assert found.as_dict()["sigma"] == pytest.approx(true["sigma"], rel=0.25)
    assert found.as_dict()["channel_correlation"] == pytest.approx(true["channel_correlation"], abs=0.15)
    raw = moments(known + noise - files, files, flat=True)
    left, wrong = (raw - found).as_dict()["sigma"], raw.as_dict()["sigma"]
    assert 255 * max(left) < 255 * max(wrong) - 0.1
    assert [255 * sigma for sigma in left] == pytest.approx([3.0] * 3, rel=0.03)
    # A reference half a pixel beside its shot comes back onto it, but for rounding.
    there = torch.from_numpy(np.stack([shifted(image.double().numpy(), 0.5) for image in known])).float()
    pairs = register(known, there.clamp(0, 1))
    rounding = 1 / 12 / 255**2
    assert (known - there).square().mean() > 1.5 * rounding
    assert (pairs.clean - pairs.noisy).square().mean() < 1.1 * rounding


def shifted(image: np.ndarray, pixels: float) -> np.ndarray:
    """``(3, H, W)``, down, by the shift theorem."""
    phase = np.exp(-2j * np.pi * np.fft.fftfreq(image.shape[1])[:, None] * pixels)
    return np.fft.ifft2(np.fft.fft2(image) * phase).real


def test_the_option_file_trains_with_levels_and_a_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    options = read_train_options(RECIPE / "train.yml", ["data.noisy.folder=elsewhere"])
    assert isinstance(options, TrainDeFlowOptions)
    assert options.calibrate
    assert options.model.level
    assert torch.is_tensor(checkpoints.load(str(options.init_weights)).state_dict()["shifts.0.raw"])
