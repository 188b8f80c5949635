"""``kind: kernels`` from folders and from shards: what the run writes, and that it is a function of its options."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.cli import main
from synthpipe.config.reader import parse_options, read_options
from synthpipe.config.training import SCHEMAS
from synthpipe.errors import OptionError, TrainingError
from synthpipe.images import quantize_8bit, to_uint8
from synthpipe.kernels import KernelBank
from synthpipe.kernels.evidence import evidence_of
from synthpipe.kernels.joint import estimate_groups
from synthpipe.kernels.response import FREQUENCIES, amplitudes
from synthpipe.training import train
from tests.kernels.fields import fields
from tests.kernels.known_kernels import gaussians
from tests.kernels.pictures import blurred, sharp_pictures


def write(folder: Path, pictures: list[Tensor]) -> str:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(to_uint8(picture).permute(1, 2, 0).numpy()).save(folder / f"{number:03}.png")
    return str(folder)


@pytest.fixture(scope="module")
def piles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("piles")
    soft = blurred(sharp_pictures(10, seed=2), gaussians(0.8)[0], 1, seed=3)
    return {"clean": write(root / "clean", sharp_pictures(12, seed=1)), "noisy": write(root / "noisy", soft)}


@pytest.fixture
def options(tmp_path: Path, piles: dict[str, str]) -> Callable[..., dict[str, Any]]:
    def make(**changes: Any) -> dict[str, Any]:
        data = {name: {"folder": folder} for name, folder in piles.items()}
        data |= {"crop": 80, "crops": 24, "workers": 0, **changes.pop("data", {})}
        return {"kind": "kernels", "run_dir": str(tmp_path / "run"), "estimator": "edges", "data": data, **changes}

    return make


def run(given: dict[str, Any]) -> KernelBank:
    model = checkpoints.load(train(parse_options(given, SCHEMAS["kernels"])), kind="kernels")
    assert isinstance(model, KernelBank)
    return model


def test_a_run_writes_a_bank_with_its_card(
    piles: dict[str, str], options: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    bank = run(options(side=11, kernels=6))
    assert bank.config["side"] == 11
    assert 1 <= bank.config["number"] <= 6
    expected = amplitudes(gaussians(0.8), (0.2, 0.3, 0.4))[0]
    assert (amplitudes(bank.mean()[None], (0.2, 0.3, 0.4))[0] - expected).abs().max() < 0.08
    folder = tmp_path / "run"
    info = checkpoints.read_header(folder / "final.safetensors")["info"]
    assert info["data"]["noisy"]["images"] == 10
    assert len(info["names"]) == len(info["amplitudes"]) == bank.config["number"]
    assert info["names"][0].endswith(".png")
    assert info["frequencies"] == list(FREQUENCIES)
    row = amplitudes(bank.kernels[:1])[0].tolist()
    assert info["amplitudes"][0] == pytest.approx(row, abs=1e-3)
    log = (folder / "log.txt").read_text()
    assert log.count("amplitude_0.2") == 1
    clean, noisy = log.splitlines()[-2:]
    assert clean.split("data: ")[1] == f"clean: folders {piles['clean']}; images 12"
    assert noisy.split("data: ")[1] == f"noisy: folders {piles['noisy']}; images 10"
    assert "{" not in log
    assert [path.name for path in (folder / "samples").iterdir()] == ["step_00000024.png"]
    assert read_options(folder / "options.yml", SCHEMAS["kernels"]).side == 11  # type: ignore[attr-defined]


def test_a_run_is_a_function_of_its_options(options: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    first = run(options(run_dir=str(tmp_path / "a")))
    threaded = run(options(run_dir=str(tmp_path / "b"), data={"workers": 2}))
    other = run(options(run_dir=str(tmp_path / "c"), seed=11))
    assert torch.equal(first.kernels, threaded.kernels)
    assert not torch.equal(first.kernels[0], other.kernels[0])


def test_shards_do_as_well(options: Callable[..., dict[str, Any]], piles: dict[str, str], tmp_path: Path) -> None:
    assert main(["shard", piles["noisy"], str(tmp_path / "shards"), "--min-size", "80"]) == 0
    data = {"noisy": {"shards": str(tmp_path / "shards")}}
    found = amplitudes(run(options(data=data)).mean()[None], (0.2, 0.3, 0.4))[0]
    assert (found - amplitudes(gaussians(0.8), (0.2, 0.3, 0.4))[0]).abs().max() < 0.08


def test_what_cannot_be_is_refused(options: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="unknown option 'max_steps'"):
        parse_options(options(max_steps=5), SCHEMAS["kernels"])
    with pytest.raises(OptionError, match="expected an odd number, got 12; write 13"):
        parse_options(options(side=12), SCHEMAS["kernels"])
    for crops, what in ((24, "crops"), (None, "images")):
        given = options(data={"crops": crops})
        with pytest.raises(TrainingError, match=f"stopped before all {what} were read"):
            train(parse_options(given, SCHEMAS["kernels"]), stop=lambda: True)
    flat = write(tmp_path / "flat", [torch.full((3, 90, 90), 0.5)])
    with pytest.raises(TrainingError, match="degraded: expected at least 100 isolated edges, got 0"):
        run(options(data={"noisy": {"folder": flat}}))
    (tmp_path / "run" / "final.safetensors").write_bytes(b"")
    with pytest.raises(TrainingError, match="already holds a result; choose another run_dir"):
        run(options())


def test_what_has_no_steps_has_nothing_to_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "kernels.yml"
    file.write_text(f"kind: kernels\nrun_dir: {tmp_path}/run\ndata: {{clean: {{folder: a}}, noisy: {{folder: b}}}}\n")
    assert main(["train", str(file), "--resume"]) == 2
    assert (
        "kind: kernels computes its result at once and has nothing to resume; leave --resume out"
        in capsys.readouterr().err
    )


def test_spectra_tell_a_kernel_for_each_folder(tmp_path: Path) -> None:
    clean = write(tmp_path / "clean", fields(16, seed=1))
    for name, sigma, seed in (("sharper", 0.5, 2), ("softer", 1.0, 3)):
        write(tmp_path / "noisy" / name, blurred(fields(12, seed=seed), gaussians(sigma)[0], 0, seed=1))
    write(tmp_path / "noisy" / "few", blurred(fields(4, seed=5), gaussians(1.0)[0], 0, seed=1))
    data = {"clean": {"folder": clean}, "noisy": {"folder": str(tmp_path / "noisy")}}
    data |= {"crop": 64, "crops": 200, "workers": 0}
    given = {"kind": "kernels", "run_dir": str(tmp_path / "run"), "estimator": "spectra", "data": data}
    bank = run(given)
    info = checkpoints.read_header(tmp_path / "run" / "final.safetensors")["info"]
    assert info["names"] == ["few", "sharper", "softer"]
    assert info["estimator"] == "spectra"
    assert len(info["chroma_amplitudes"]) == bank.config["number"] == 3
    assert bank.config == {"number": 3, "side": 25, "chroma": True}
    expected = amplitudes(gaussians(0.5, 1.0), (0.2, 0.3, 0.4))
    assert (amplitudes(bank.kernels[1:], (0.2, 0.3, 0.4)) - expected).abs().max() < 0.08
    assert bank.chroma is not None
    assert (amplitudes(bank.chroma[1:], (0.1, 0.2)) - amplitudes(gaussians(0.5, 1.0), (0.1, 0.2))).abs().max() < 0.1
    plain = run({**given, "run_dir": str(tmp_path / "plain"), "chroma": False, "side": 11})
    assert plain.config == {"number": 3, "side": 11}
    with pytest.raises(OptionError, match=r"expected 'data.crop' of at least 64 for spectra, got 48"):
        parse_options({**given, "data": {**data, "crop": 48}}, SCHEMAS["kernels"])


def test_whole_images_are_read_and_the_header_says_how_far_to_trust(tmp_path: Path) -> None:
    """Without a number of crops the kernels are those of whole images, whatever the seed; each once."""
    sharp, soft = fields(8, seed=1), blurred(fields(12, seed=2), gaussians(0.7)[0], 0, seed=1)
    data = {"clean": {"folder": write(tmp_path / "clean", sharp)}, "noisy": {"folder": write(tmp_path / "soft", soft)}}
    given = {
        "kind": "kernels",
        "run_dir": str(tmp_path / "run"),
        "estimator": "spectra",
        "data": {**data, "workers": 0},
    }
    bank = run(given)
    piles = [{str(n): evidence_of(quantize_8bit(x), False) for n, x in enumerate(pile)} for pile in (sharp, soft)]
    expected = estimate_groups(piles[0], {"all": piles[1]}, teller="spectra").bank.kernels
    assert torch.equal(bank.kernels, expected)
    assert torch.equal(run({**given, "run_dir": str(tmp_path / "again"), "seed": 3}).kernels, expected)
    info = checkpoints.read_header(tmp_path / "run" / "final.safetensors")["info"]
    assert info["data"]["noisy"]["read"] == 12
    (errors,) = info["amplitude_errors"]
    assert all(0 < error < 0.2 for error in errors)
    assert info["figures"]["error_0.2"] == pytest.approx(errors[1], abs=1e-4)
    assert f" +- {errors[1]:.2f} at 0.2" in (tmp_path / "run" / "log.txt").read_text()


def test_of_piles_that_are_too_large_a_part_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clean = write(tmp_path / "clean", fields(6, seed=1))
    soft = write(tmp_path / "soft", blurred(fields(8, seed=2, side=384), gaussians(0.7)[0], 0, seed=1))
    data = {"clean": {"folder": clean}, "noisy": {"folder": soft}, "megapixels": 0.3, "workers": 0}
    with caplog.at_level(logging.INFO, logger="synthpipe.training"):
        run({"kind": "kernels", "run_dir": str(tmp_path / "run"), "estimator": "spectra", "data": data})
    assert "noisy: 0.3 megapixels of 1.2 are read, from 4 of 8 images: see data.megapixels" in caplog.text
    assert "clean: 0." not in caplog.text


def test_broken_images_are_passed_over(tmp_path: Path) -> None:
    clean, soft = (write(tmp_path / name, fields(4, seed=n)) for n, name in enumerate(("clean", "soft")))
    broken = sorted(Path(soft).iterdir())
    broken[0].write_bytes(broken[0].read_bytes()[:2000])
    data = {"clean": {"folder": clean}, "noisy": {"folder": soft}, "workers": 0}
    given = {"kind": "kernels", "run_dir": str(tmp_path / "run"), "estimator": "spectra", "data": data}
    run(given)
    info = checkpoints.read_header(tmp_path / "run" / "final.safetensors")["info"]
    assert (info["data"]["noisy"]["read"], sum(info["data"]["noisy"]["skipped"].values())) == (3, 1)
    for path in broken:
        path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(TrainingError, match=r"noisy: none of 4 images can be read \(.*\), such as .*: check the files"):
        run({**given, "run_dir": str(tmp_path / "two")})


def test_no_folder_is_lost_for_its_name_and_one_with_too_few_images_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``others`` is what folders of few images are called together; a folder may be called so, too."""
    monkeypatch.chdir(tmp_path)
    clean = write(Path("clean"), fields(9, seed=1))
    names = ["others", "few", "fewer"]
    for name, count in zip(names, (9, 3, 2), strict=True):
        write(Path(name), blurred(fields(count, seed=count), gaussians(0.7)[0], 0, seed=1))
    data = {"clean": {"folder": clean}, "noisy": {"folder": names}, "crop": 64, "crops": 60, "workers": 0}
    given = {"kind": "kernels", "run_dir": "run", "estimator": "spectra", "chroma": False, "data": data}
    run(given)
    info = checkpoints.read_header(tmp_path / "run" / "final.safetensors")["info"]
    assert (info["names"], info["images"]) == (["others", "others"], [9, 5])
    with pytest.raises(TrainingError, match=r"'fewer', degraded: expected at least 3 images .*, got 2; give more"):
        run({**given, "run_dir": "two", "data": {**data, "noisy": {"folder": ["others", "fewer"]}}})


def test_a_part_of_a_large_pile_loses_no_folder_and_broken_images_are_replaced(tmp_path: Path) -> None:
    """Of 40 images three are to be read; the folder of eight has its kernel as it has when all are read."""
    clean = write(tmp_path / "clean", fields(4, seed=1))
    write(tmp_path / "noisy" / "few", blurred(fields(8, seed=2), gaussians(0.5)[0], 0, seed=1))
    write(tmp_path / "noisy" / "many", blurred(fields(32, seed=3), gaussians(1.0)[0], 0, seed=1))
    data = {"clean": {"folder": clean}, "noisy": {"folder": str(tmp_path / "noisy")}, "megapixels": 0.5, "workers": 0}
    given = {"kind": "kernels", "estimator": "spectra", "side": 9, "chroma": False, "data": data}
    run({**given, "run_dir": str(tmp_path / "run")})
    info = checkpoints.read_header(tmp_path / "run" / "final.safetensors")["info"]
    assert (info["names"], info["images"]) == (["few", "many"], [8, 8])
    for path in sorted((tmp_path / "noisy" / "many").iterdir())[::2]:
        path.write_bytes(path.read_bytes()[:2000])
    run({**given, "run_dir": str(tmp_path / "broken")})
    info = checkpoints.read_header(tmp_path / "broken" / "final.safetensors")["info"]
    assert (info["names"], info["images"]) == (["few", "many"], [8, 8])
    assert info["data"]["noisy"]["read"] == 16
