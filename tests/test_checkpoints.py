"""Weights say what they are; what is missing, damaged or foreign is refused by name."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from synthpipe import checkpoints, registry
from synthpipe._version import __version__
from synthpipe.errors import CheckpointError
from synthpipe.flows import DeFlow

SIZES = {"scale": 2, "levels": 2, "steps": 1, "hidden": 4, "encoder": {"type": "small", "features": 4, "depth": 0}}


def perturbed(**config: object) -> DeFlow:
    model = DeFlow(**{**SIZES, **config})  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    model.mark_initialized()
    return model


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"levels": 3, "scale": 4},
        {"covariance": "colour", "coupling": "additive"},
        {"covariance": "diagonal", "quant": 32},
        {"encoder": {"type": "rrdb", "features": 4, "growth": 4, "blocks": 2, "taps": [0, 1]}},
        {
            "normalization": {
                f"{lr}{domain}_{what}": [100.0, 90.0, 80.0]
                for lr in ("", "lr_")
                for domain in ("clean", "noisy")
                for what in ("mean", "std")
            }
        },
    ],
)
def test_a_model_comes_back_as_it_was(tmp_path: Path, config: dict) -> None:
    model = perturbed(**config)
    loaded = checkpoints.load(checkpoints.save(tmp_path / "w.safetensors", model, {"data": "made up"}))
    assert loaded.config == model.config
    assert not loaded.training
    x = torch.rand(1, 3, 16, 16)
    expected = model.eval().degrade(x, [torch.Generator().manual_seed(1)])
    assert torch.equal(loaded.degrade(x, [torch.Generator().manual_seed(1)]), expected)


def test_the_header_says_what_the_file_is(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path / "deep" / "w.safetensors", perturbed(), {"terms": "CC0"})
    header = checkpoints.read_header(path)
    assert header["kind"] == "deflow"
    assert header["synthpipe"] == __version__
    assert header["size_multiple"] == 4
    assert header["info"] == {"terms": "CC0"}
    assert DeFlow(**header["config"]).config == header["config"]
    assert stat.S_IMODE(path.stat().st_mode) & stat.S_IRUSR
    assert [file.name for file in path.parent.iterdir()] == ["w.safetensors"]  # no temporary file stays


def test_shipped_weights_load_by_name_and_make_noise() -> None:
    model = checkpoints.load("deflow_small", kind="deflow")
    x = torch.full((1, 3, 64, 64), 0.5)
    y = model.degrade(x, [torch.Generator().manual_seed(0)])
    residual = (y - x)[..., 8:-8, 8:-8] * 255
    assert 2 < residual.std() < 8  # grey levels: the noise of a camera at ISO 6400
    assert residual.mean().abs() < 2


def test_half_precision_is_half_the_file_and_another_image_by_a_tenth_of_a_grey_level(tmp_path: Path) -> None:
    model = checkpoints.load("deflow_small", kind="deflow")
    path = checkpoints.save(tmp_path / "half.safetensors", model, {"terms": "none"}, half=True)
    assert path.stat().st_size < 0.55 * checkpoints.resolve("deflow_small").stat().st_size
    loaded = checkpoints.load(path)
    parameters = dict(model.named_parameters())
    for name, value in model.state_dict().items():
        stored = loaded.state_dict()[name]
        assert stored.dtype == value.dtype, name
        # float16 keeps 11 binary digits of the largest number; 255 numbers or fewer, and buffers, are kept whole.
        error = (stored.double() - value.double()).abs().max() if value.numel() else 0
        rounded = name in parameters and value.numel() >= 256
        assert error <= (2.0**-11 * value.double().abs().max() if rounded else 0), name
    x = torch.rand(2, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    made = [m.degrade(x, [torch.Generator().manual_seed(n) for n in (1, 2)]) for m in (model, loaded)]
    assert 0 < 255 * (made[1] - made[0]).abs().max() < 0.3  # where it adds noise of 5
    assert checkpoints.read_header(path)["info"] == {"terms": "none"}


def test_half_precision_keeps_buffers(tmp_path: Path) -> None:
    bank = checkpoints.load("kernels_city100")
    path = checkpoints.save(tmp_path / "w.safetensors", bank, half=True)
    assert checkpoints.fingerprint(path) == checkpoints.fingerprint("kernels_city100")


def test_half_precision_is_what_its_fingerprint_says(tmp_path: Path) -> None:
    model = perturbed()
    with torch.no_grad():
        large = next(p for p in model.parameters() if p.numel() >= 256)
        large.view(-1)[0] += 1e-6
    half = checkpoints.save(tmp_path / "a.safetensors", model, half=True)
    first = checkpoints.fingerprint(half)
    assert first != checkpoints.fingerprint_of(model)
    assert first == checkpoints.fingerprint_of(checkpoints.load(half))
    # Once rounded, nothing is lost: whole or halved again it is the same model.
    for name, again in (("b", False), ("c", True)):
        path = checkpoints.save(tmp_path / f"{name}.safetensors", checkpoints.load(half), half=again)
        assert checkpoints.fingerprint(path) == first


@pytest.mark.parametrize("factor", [1e7, 1e-7])
def test_numbers_that_half_precision_cannot_hold_stay_whole(tmp_path: Path, factor: float) -> None:
    model = perturbed()
    with torch.no_grad():
        next(p for p in model.parameters() if p.numel() >= 256).mul_(factor)
    loaded = checkpoints.load(checkpoints.save(tmp_path / "w.safetensors", model, half=True))
    name = next(name for name, p in model.named_parameters() if p.numel() >= 256)
    assert torch.equal(loaded.state_dict()[name], model.state_dict()[name])


def rewrite_header(path: Path, **changes: object) -> Path:
    header = {**checkpoints.read_header(path), **changes}
    tensors = checkpoints.load(path).state_dict()
    save_file(tensors, path, metadata={"synthpipe": json.dumps(header)})
    return path


def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no weights at 'nowhere'.*'deflow_small'"):
        checkpoints.load("nowhere")
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"\x00" * 100)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        checkpoints.load(garbage)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(CheckpointError, match="without a synthpipe header"):
        checkpoints.load(foreign)
    path = checkpoints.save(tmp_path / "w.safetensors", perturbed())
    with pytest.raises(CheckpointError, match="holds a 'deflow' model, expected 'dde'"):
        checkpoints.load(path, kind="dde")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        checkpoints.load(path)


def test_headers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path / "w.safetensors", perturbed())
    with pytest.raises(CheckpointError, match="unknown model kind 'vae'"):
        checkpoints.load(rewrite_header(checkpoints.save(path, perturbed()), kind="vae"))
    with pytest.raises(CheckpointError, match=r"does not take this configuration.*another version"):
        checkpoints.load(rewrite_header(checkpoints.save(path, perturbed()), config={"depth": 3}))
    with pytest.raises(CheckpointError, match="tensors do not fit the configuration"):
        checkpoints.load(rewrite_header(checkpoints.save(path, perturbed()), config={**SIZES, "hidden": 8}))
    header = checkpoints.read_header(checkpoints.save(path, perturbed()))
    header.pop("info")
    save_file({"a": torch.zeros(1)}, path, metadata={"synthpipe": json.dumps(header)})
    with pytest.raises(CheckpointError, match=r"lacks \['info'\]"):
        checkpoints.load(path)


def test_only_registered_models_are_saved(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Linear is not a registered model"):
        checkpoints.save(tmp_path / "w.safetensors", nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match="unknown model kind"):
        registry.build_model("nothing", {})


def test_a_fingerprint_is_of_the_numbers_and_the_configuration(tmp_path: Path) -> None:
    model = perturbed()
    first = checkpoints.fingerprint(checkpoints.save(tmp_path / "a.safetensors", model, {"data": "made up"}))
    assert first == checkpoints.fingerprint_of(model)
    assert first == checkpoints.fingerprint(
        checkpoints.save(tmp_path / "b.safetensors", model, {"data": "another card"})
    )
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-6
    assert checkpoints.fingerprint(checkpoints.save(tmp_path / "a.safetensors", model)) != first
    assert checkpoints.fingerprint_of(model.to(torch.bfloat16)) != first


def test_a_fingerprint_draws_nothing_from_the_global_generator() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    checkpoints.fingerprint("deflow_small")
    assert torch.equal(torch.rand(3), expected), "networks that BasicSR builds behind its streams would start otherwise"


def test_a_fingerprint_of_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights at"):
        checkpoints.fingerprint(tmp_path / "absent.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="without a synthpipe header"):
        checkpoints.fingerprint(tmp_path / "foreign.safetensors")
