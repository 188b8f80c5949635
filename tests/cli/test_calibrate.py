"""``synthpipe calibrate`` from weights and a folder to a scorer that loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synthpipe import checkpoints
from synthpipe.cli import main
from synthpipe.density import DDE, DensityScorer, scorer_parts
from synthpipe.density.scorer_parts import PartGroup, PartSettings, Statistic
from synthpipe.images import luma


@pytest.fixture
def dde(tmp_path: Path) -> str:
    model = DDE(width=2, depth=2, outputs=2, domains=("clean", "noise"))
    return str(checkpoints.save(tmp_path / "dde.safetensors", model, {"terms": "none"}))


@pytest.fixture
def clean(tmp_path: Path) -> str:
    for seed in range(8):
        path = tmp_path / "clean" / "deep" / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8))
        coarse.resize((60, 50), Image.Resampling.BICUBIC).save(path)
    return str(tmp_path / "clean")


FEW = ["--tile", "16", "--levels", "0.05", "--families", "noise", "blur"]


def test_writes_a_scorer_and_prints_what_it_is_worth(
    dde: str, clean: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    (tmp_path / "clean" / "broken.png").write_bytes(b"no picture")
    for target in (first, second):
        assert main(["calibrate", dde, clean, str(target), *FEW, "--holdout", "0.4", "--seed", "3"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "on 5 images, measured on 4 others; skipped: 1" in out[0]
    assert out[1].split()[:2] == ["family", "AUROC"]
    assert [line.split()[0] for line in out[2:4]] == ["noise", "blur"]
    assert out[4] == str(first)
    assert first.read_bytes() == second.read_bytes()
    scorer = checkpoints.load(first, kind="density_scorer")
    assert isinstance(scorer, DensityScorer)
    assert scorer.tile == 16
    assert scorer(torch.rand(2, 3, 16, 16)).shape == (2, len(scorer.columns))
    info = checkpoints.read_header(first)["info"]
    assert info["density"] == {"terms": "none"}
    assert info["calibration"]["options"]["seed"] == 3
    row = info["calibration"]["held_out"]["noise"]
    assert f"{row['auroc']:.3f}" == out[2].split()[1]


def test_a_scorer_is_calibrated_anew_under_the_density_that_it_holds(dde: str, clean: str, tmp_path: Path) -> None:
    first, again, other = (str(tmp_path / f"{name}.safetensors") for name in ("first", "again", "other"))
    assert main(["calibrate", dde, clean, first, *FEW]) == 0
    assert main(["calibrate", first, clean, again, *FEW]) == 0
    assert Path(again).read_bytes() == Path(first).read_bytes()
    assert main(["calibrate", first, clean, other, *FEW, "--seed", "1"]) == 0
    assert Path(other).read_bytes() != Path(first).read_bytes()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--ridge", "0"], "--ridge is for scorers with a density"),
        (["--families", "noise"], "--families is for scorers with a density"),
        (["--device", "cuda"], "--device: kinds are fitted on the CPU"),
    ],
)
def test_what_kinds_have_no_use_for_is_refused(
    given: list[str], words: str, clean: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.safetensors"
    assert main(["calibrate", "scorer_kinds", clean, str(target), *given]) == 2
    assert words in capsys.readouterr().err
    assert not target.exists()


def test_kinds_are_fitted_on_all_images_and_measured_on_unseen_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(6):
        path = tmp_path / "clean" / f"{seed}.png"
        path.parent.mkdir(exist_ok=True)
        coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 30, 3), dtype=np.uint8))
        coarse.resize((120, 100), Image.Resampling.BICUBIC).save(path)
    clean, target = str(tmp_path / "clean"), tmp_path / "mine.safetensors"
    given = ["--mixtures", "16", "--crisp", "2", "--noises", "--holdout", "0.5"]
    assert main(["calibrate", "scorer_kinds", clean, str(target), *given]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("fitted on 6 images; each of 2 shares")
    # Six pictures cannot say whether a probability is true.
    assert all(line.split()[2] == "unknown" for line in out[2:8])
    assert "fewer than 20 images" in out[8]
    scorer = checkpoints.load(target, kind="kind_scorer")
    assert bool(torch.isfinite(scorer(torch.rand(2, 3, 64, 64))).all())
    info = checkpoints.read_header(target)["info"]["calibration"]
    assert (info["images"], info["shares"]) == (6, 2)
    assert sum(row["images"] for row in info["held_out"].values()) > 6
    assert (info["options"]["mixtures"], info["options"]["crisp"]) == (16, 2)
    few = ["--noises", "--holdout", "0.1"]
    assert main(["calibrate", "scorer_kinds", clean, str(tmp_path / "no.safetensors"), *few]) == 1
    assert "too few, 6 usable images, to make 10 shares" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--mixtures", "--crisp"])
def test_copies_are_of_kinds_alone(
    option: str, dde: str, clean: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", dde, clean, str(tmp_path / "out.safetensors"), option, "2"]) == 2
    assert f"{option} is for scorers that tell kinds apart" in capsys.readouterr().err


def test_other_weights_are_refused_by_kind(clean: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "mmse_small", clean, str(tmp_path / "a.safetensors"), *FEW]) == 1
    assert (
        "holds a 'plain_denoiser' model, expected 'dde', 'density_scorer' or 'kind_scorer'" in capsys.readouterr().err
    )


def test_a_folder_of_degraded_images_is_a_family(
    dde: str, clean: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(8):
        (tmp_path / "bad").mkdir(exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "bad" / f"{seed}.png")
    target = str(tmp_path / "s.safetensors")
    folder = ["--degraded", str(tmp_path / "bad")]
    assert main(["calibrate", dde, clean, target, "--tile", "16", "--levels", "0.05", *folder, "--families"]) == 0
    line = capsys.readouterr().out.splitlines()[2].split()
    assert line[0] == "1:bad"
    assert float(line[1]) > 0.95
    assert line[2] == "-"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--tile", "3"], 2, "option 'tile'.*greater than or equal to 16.*got 3"),
        (["--families", "rain"], 2, "families.0.*'jpeg', 'blur'.*got 'rain'"),
        (["--device", "nowhere"], 2, "--device: 'nowhere' cannot be used here"),
        (["--families"], 1, "nothing to tell from clean"),
        (["--degraded", "/nowhere"], 1, "'/nowhere' does not exist"),
    ],
)
def test_refusals(
    arguments: list[str],
    code: int,
    message: str,
    dde: str,
    clean: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import re

    assert main(["calibrate", dde, clean, str(tmp_path / "s.safetensors"), *arguments]) == code
    assert re.search(message, capfd.readouterr().err)
    assert not (tmp_path / "s.safetensors").exists()


def test_other_weights_and_other_suffixes_are_refused(
    dde: str, clean: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", "deflow_small", clean, str(tmp_path / "s.safetensors")]) == 1
    assert "holds a 'deflow' model, expected 'dde'" in capfd.readouterr().err
    assert main(["calibrate", dde, clean, str(tmp_path / "s.pth")]) == 2
    assert "ending in .safetensors" in capfd.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["calibrate", "--help"])
    assert left.value.code == 0
    assert "synthpipe calibrate runs/dde/final.safetensors photos mine.safetensors" in capsys.readouterr().out


def test_a_new_part_is_fitted_saved_and_refused_by_a_version_without_it(
    dde: str, clean: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "new.safetensors")
    table = scorer_parts.part_table

    def longer(settings: PartSettings) -> list[PartGroup]:
        return [*table(settings), Statistic(lambda grey: grey.flatten(1).amax(1), "brightest")]

    with pytest.MonkeyPatch.context() as newer:
        newer.setattr(scorer_parts, "part_table", longer)
        assert main(["calibrate", dde, clean, target, *FEW, "--holdout", "0.4"]) == 0
        scorer = checkpoints.load(target, kind="density_scorer")
        assert isinstance(scorer, DensityScorer)
        tiles = torch.rand(2, 3, 16, 16)
        assert scorer.columns[-1] == "brightest"
        assert scorer(tiles)[:, -1].tolist() == luma(tiles).flatten(1).amax(1).tolist()
        assert float(scorer.calibration.mean[-1]) > 0.3  # of the tiles that it was fitted on
    capsys.readouterr()
    assert main(["score", target, clean, str(tmp_path / "scores.parquet")]) == 1
    message = capsys.readouterr().err
    assert "new.safetensors: scorer: unknown part 'brightest'" in message
    assert "from a newer version: update synthpipe" in message
