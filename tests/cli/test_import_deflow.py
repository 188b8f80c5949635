"""``synthpipe import-deflow``: the golden weights through the command, and files that must be refused."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from synthpipe import checkpoints
from synthpipe.cli import import_deflow
from synthpipe.errors import CheckpointError
from synthpipe.flows.deflow import DeFlow
from synthpipe.flows.deflow_official import PUBLISHED, official_names


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    import_deflow.add_parser(parser.add_subparsers())
    return import_deflow.run(parser.parse_args(["import-deflow", *arguments]))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A tiny network of the published form, saved as the published files are."""
    encoder = {"type": "rrdb", "features": 4, "growth": 2, "blocks": 3, "taps": [0, 2]}
    model = DeFlow(**{**PUBLISHED["ntire"], "steps": 1, "transition_steps": 1, "hidden": 4, "encoder": encoder})
    state, official = model.state_dict(), {}
    for theirs, ours in official_names(model.config).items():
        value = state[ours][None] if "actnorm" in theirs else state[ours]
        official[theirs] = value.flatten() if theirs.endswith("mean_shift") else value
    path = tmp_path / "official.pth"
    torch.save(official, path)
    return path


@pytest.mark.parametrize(("config", "scale"), [("aim", 8), ("ntire", 4)])
def test_golden_weights(shared: Path, tmp_path: Path, config: str, scale: int, capsys: pytest.CaptureFixture) -> None:
    target = tmp_path / "out.safetensors"
    assert run(str(shared / "golden" / f"deflow_tiny_{config}.pth"), str(target), "--config", config) == 0
    assert f"DeFlow {config}, scale {scale}" in capsys.readouterr().out
    model = checkpoints.load(target, kind="deflow")
    header = checkpoints.read_header(target)
    assert header["size_multiple"] == 8
    assert header["info"]["configuration"] == config
    assert "academic use only" in header["info"]["terms"]
    # The reference's own behaviour comes along: its quantisation, its noise at use, its clamp.
    assert (header["config"]["quant"], header["config"]["dequantize_output"]) == (32, True)
    assert (header["config"]["normalization"] or {}).get("clamp", False) is (config == "aim")
    degraded = model.degrade(torch.full((1, 3, 20, 12), 0.5), [torch.Generator().manual_seed(0)])
    assert degraded.shape == (1, 3, 20, 12)
    assert torch.isfinite(degraded).all()


def test_says_that_a_zero_covariance_gives_no_variety(weights: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(str(weights), str(weights.with_suffix(".safetensors")), "--config", "ntire", "--taps", "0", "2") == 0
    assert "the covariance in these weights is 0" in capsys.readouterr().out


def test_tensors_that_do_not_fit_each_other(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    state["cov_shift"] = torch.zeros(5, 5)
    torch.save(state, weights)
    with pytest.raises(CheckpointError, match=r"(?s)do not fit each other: .*shifts.1.factor"):
        run(str(weights), str(tmp_path / "x.safetensors"), "--config", "ntire", "--taps", "0", "2")


class Payload:
    """Unpickling this would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "executed"))


def test_objects_in_the_file_are_refused_and_never_executed(tmp_path: Path) -> None:
    source, proof = tmp_path / "evil.pth", tmp_path / "proof"
    torch.save({"weight": Payload(proof)}, source)
    with pytest.raises(CheckpointError, match="other Python objects, which are never executed here"):
        run(str(source), str(tmp_path / "x.safetensors"), "--config", "aim")
    source.write_bytes(pickle.dumps(Payload(proof), protocol=2))  # torch's old format, without the archive
    with pytest.raises(CheckpointError):
        run(str(source), str(tmp_path / "x.safetensors"), "--config", "aim")
    assert not proof.exists()


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"params": {"a": torch.zeros(1)}}, r"expected a plain state_dict .*, got keys \['params'\]"),
        ([torch.zeros(1)], "expected a plain state_dict .*, got list"),
        ({}, "expected a plain state_dict"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, held: Any, message: str) -> None:
    source = tmp_path / "in.pth"
    torch.save(held, source)
    with pytest.raises(CheckpointError, match=message):
        run(str(source), str(tmp_path / "x.safetensors"), "--config", "aim")


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 broken archive"])
def test_files_that_are_no_weights_are_refused(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "in.pth"
    source.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"in\.pth"):
        run(str(source), str(tmp_path / "x.safetensors"), "--config", "aim")


def test_truncated_and_missing_files_are_refused(weights: Path, tmp_path: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"official\.pth"):
        run(str(weights), str(tmp_path / "x.safetensors"), "--config", "ntire")
    with pytest.raises(CheckpointError, match=r"nothing.pth: cannot be read: No such file"):
        run(str(tmp_path / "nothing.pth"), str(tmp_path / "x.safetensors"), "--config", "ntire")
    assert not (tmp_path / "x.safetensors").exists()


def test_unknown_configuration_is_a_usage_error(weights: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        run(str(weights), "x.safetensors", "--config", "sidd")
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({1: torch.zeros(3)}, "expected names of tensors, got 1, a key of type int"),
        ({None: torch.zeros(3)}, "expected names of tensors, got None"),
        ({("a",): torch.zeros(3), "b": torch.zeros(1)}, "expected names of tensors, got"),
        ({"a": torch.zeros(1), "b": 3.0}, "expected a plain state_dict"),
        ({"a": {"b": {"c": torch.zeros(1)}}}, "expected a plain state_dict"),
        ({"x" * 100_000: torch.zeros(1)}, r"beginning \['xxx"),
        ({"RRDB.conv_first.weight": torch.zeros(1).expand(10**6, 10**6)}, "that repeats 4 bytes"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "expected a dense tensor on the CPU"),
        ({"a": torch.zeros(2, 2, device="meta")}, "in.pth: "),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "expected a tensor of real numbers at 'a', got torch.complex64"),
        (torch.zeros(3), "expected a plain state_dict .*, got Tensor"),
        (3, "expected a plain state_dict .*, got int"),
    ],
)
def test_keys_and_tensors_of_other_kinds(tmp_path: Path, held: Any, message: str) -> None:
    source = tmp_path / "in.pth"
    torch.save(held, source)
    with pytest.raises(CheckpointError, match=message) as error:
        run(str(source), str(tmp_path / "x.safetensors"), "--config", "aim")
    assert str(source) in str(error.value)
    assert len(str(error.value)) < 1500
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("RRDB.conv_first.weight", torch.tensor(1.0)),
        ("RRDB.conv_first.weight", torch.zeros(0, 3, 3, 3)),
        ("RRDB.conv_first.weight", torch.zeros(7)),
        ("RRDB.RRDB_trunk.0.RDB1.conv1.weight", torch.zeros(4)),
        ("flowUpsamplerNet.layers.4.affine.fFeatures.0.weight", torch.zeros(2, 2)),
        ("mean_shift", torch.tensor(0.5)),
        ("I", torch.zeros(100_000)),
        ("I", torch.zeros(2, 3)),
        ("flowUpsamplerNet.layers." + "9" * 5000 + ".x", torch.zeros(1)),
        ("flowUpsamplerNet.layers.\u0663.x", torch.zeros(1)),
        ("RRDB.RRDB_trunk." + "9" * 5000 + ".x", torch.zeros(1)),
        ("RRDB.RRDB_trunk.999999.RDB1.conv1.weight", torch.zeros(4, 4, 3, 3)),
    ],
)
def test_tensors_of_shapes_that_no_network_has(weights: Path, tmp_path: Path, name: str, tensor: torch.Tensor) -> None:
    torch.save({**torch.load(weights, weights_only=True), name: tensor}, weights)
    with pytest.raises(CheckpointError, match=r"official\.pth") as error:
        run(str(weights), str(tmp_path / "x.safetensors"), "--config", "ntire", "--taps", "0", "2")
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize("taps", [["-1"], ["5"], ["2", "0"], ["0", "0"], ["99999999999"]])
def test_taps_that_no_network_has(weights: Path, tmp_path: Path, taps: list[str]) -> None:
    with pytest.raises(CheckpointError, match=r"official\.pth"):
        run(str(weights), str(tmp_path / "x.safetensors"), "--config", "ntire", "--taps", *taps)
