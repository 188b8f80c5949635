"""Weights from anywhere: a header costs no time and no memory beyond its file, and what does not fit is named."""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from synthpipe import checkpoints
from synthpipe.errors import CheckpointError
from synthpipe.model_limits import MAX_ENTRIES, MAX_INTEGER, BuildBudget, require_plain_settings

SHIPPED = sorted(path.stem for path in checkpoints.resolve("deflow_small").parent.glob("*.safetensors"))


def written(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Shipped weights with another header of ours; ``change`` alters it in place, or gives what stands in its place."""
    with safe_open(checkpoints.resolve(name), "pt") as file:
        header = json.loads(file.metadata()["synthpipe"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    given = change(header)
    text = given if isinstance(given, str) else json.dumps(header)
    path = folder / "w.safetensors"
    path.write_bytes(save(tensors, metadata={"synthpipe": text}))
    return path


def raw(folder: Path, header: dict[str, Any] | bytes, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def refused(path: Path) -> str:
    started = time.monotonic()
    with pytest.raises(CheckpointError) as error:
        checkpoints.load(path)
    assert time.monotonic() - started < 5
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 2000
    assert torch.is_grad_enabled()
    return str(error.value)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_are_bit_for_bit_those_of_the_file_and_draw_as_a_model_does(name: str) -> None:
    from synthpipe.registry import build_model

    torch.manual_seed(3)
    model = checkpoints.load(name)
    after = torch.rand(4)
    with safe_open(checkpoints.resolve(name), "pt") as file:
        assert set(model.state_dict()) == set(file.keys())
        for key, value in model.state_dict().items():
            # Large tensors may be stored in half precision, whose numbers float32 holds exactly.
            assert torch.equal(value, file.get_tensor(key).to(value.dtype)), key
    header = checkpoints.read_header(name)
    torch.manual_seed(3)
    build_model(header["kind"], header["config"])
    assert torch.equal(torch.rand(4), after)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3", "expected an object, got 3"),
        ("null", "expected an object, got None"),
        ("[" * 100_000, "at most 64 lists and objects within each other"),
        ('{"kind": "deflow", "kind": "glow"}', "the key 'kind' stands twice"),
        ('{"kind": ' + "9" * 5000 + "}", "4300 digits"),
        ("{", "the synthpipe header is damaged"),
    ],
)
def test_a_header_that_is_no_header(tmp_path: Path, text: str, words: str) -> None:
    assert words in refused(written(tmp_path, "map_small", lambda header: text))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": ["deflow"]}, "expected a text as 'kind', got ['deflow']"),
        ({"kind": "x" * 10_000}, "unknown model kind 'xxx"),
        ({"config": [1]}, "expected an object as 'config', got [1]"),
        ({"config": None}, "expected an object as 'config', got None"),
        ({"size_multiple": "2"}, "expected a number from 1 as 'size_multiple', got '2'"),
        ({"size_multiple": 0}, "expected a number from 1 as 'size_multiple', got 0"),
        ({"size_multiple": True}, "expected a number from 1 as 'size_multiple', got True"),
        ({"info": "x"}, "expected an object as 'info'"),
        ({"synthpipe": 1}, "expected a text as 'synthpipe'"),
    ],
)
def test_a_header_with_values_of_other_types(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in refused(written(tmp_path, "map_small", lambda header: header.update(changes)))


#: Of each kind of model: what would take hours or all memory, or is nonsense.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "deflow_small": [
        {"steps": 10**9},
        {"steps": 60_000},
        {"transition_steps": 60_000},
        {"hidden": 60_000},
        {"hidden": -1},
        {"levels": 30_000},
        {"levels": 10},
        {"levels": 0},
        {"levels": 2.5},
        {"scale": 0},
        {"scale": -4},
        {"scale": 32_768},
        {"encoder": {"type": "rrdb", "blocks": 60_000}},
        {"encoder": {"type": "rrdb", "features": 60_000}},
        {"encoder": {"type": "small", "features": 4, "depth": 60_000}},
        {"encoder": {"type": ["small"]}},
        {"encoder": "small"},
        {"encoder": {"type": "small", "scale": 2}},
        {"normalization": {"clean_mean": [1]}},
        {"normalization": [1]},
        {"scale_eps": float("nan")},
        {"quant": float("inf")},
        {"covariance": ["full"]},
    ],
    "glow_small": [
        {"steps": 60_000},
        {"levels": 60_000},
        {"levels": 12, "window": 4096},
        {"hidden": 60_000},
        {"window": 0},
        {"window": "64"},
        {"priors": {"a": 1}},
    ],
    "map_small": [{"depth": 60_000}, {"width": 60_000}, {"sigma_range": [0.1]}, {"sigma_range": 3}, {"channels": "3"}],
    "mmse_small": [{"depth": 60_000}, {"width": 65_536}, {"width": None}],
    "flow_prior_small": [{"depth": 60_000}, {"width": 60_000}, {"channels": [3]}],
    "blind_spot_small": [
        {"net": {"type": "dilated", "depth": 60_000}},
        {"net": {"type": "rotated", "levels": 60_000}},
        {"net": {"type": "rotated", "width": 60_000}},
        {"net": {"type": "sweeps", "deep": [8] * 4000, "up": [8] * 3999}},
        {"net": {"type": "dilated", "head": [60_000, 60_000]}},
        {"net": {"type": "dilated", "head": "ab"}},
        {"net": {"type": "dilated", "width": "32"}},
        {"net": {}},
    ],
    "scorer_small": [
        {"dde": {"width": 60_000}},
        {"dde": {"depth": 60_000}},
        {"dde": {"outputs": 60_000}},
        {"dde": {"domains": ["d"] * 4000, "outputs": 60_000}},
        {"dde": []},
        {"levels": [0.1] * 4000},
        {"parts": ["a"] * 4000},
        {"tile": "64"},
    ],
}


@pytest.mark.parametrize(("name", "settings"), [(name, one) for name, some in SETTINGS.items() for one in some])
def test_settings_that_the_file_does_not_hold(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    assert refused(written(tmp_path, name, lambda header: header["config"].update(settings)))


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("dde_generator", {"shape": [3, 60_000, 60_000]}),
        ("dde_generator", {"shape": [3, 64, 64], "depth": 60_000}),
        ("dde_generator", {"shape": [2], "network": "residual", "width": 60_000}),
        ("dde_generator", {"shape": [3, 60_000, 60_000], "network": "dense"}),
        ("dde_generator", {"shape": "abc"}),
        ("dde_vector", {"dim": 60_000, "width": 60_000}),
        ("dde_vector", {"depth": 60_000}),
        ("dde", {"width": 60_000}),
        ("dde", {"sigma_range": [float("nan"), 1.0]}),
        ("plain_denoiser", {"depth": 60_000}),
        ("vae", {}),
        ("deflow", {"nothing": 1}),
    ],
)
def test_kinds_that_ship_no_weights(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    assert refused(written(tmp_path, "map_small", lambda header: header.update({"kind": kind, "config": config})))


def test_a_width_that_does_not_fit_is_told_with_its_shapes(tmp_path: Path) -> None:
    said = refused(written(tmp_path, "map_small", lambda header: header["config"].update({"width": 32})))
    assert "tensors do not fit the configuration in the header" in said
    assert "net.convs.0.bias is (48,) of float32, expected (32,) of float32" in said


def test_tensors_that_are_missing_unknown_or_whole_numbers(tmp_path: Path) -> None:
    header = {"synthpipe": json.dumps(checkpoints.read_header("map_small"))}
    whole = checkpoints.load("map_small").state_dict()
    path = tmp_path / "w.safetensors"
    path.write_bytes(save({k: v for k, v in whole.items() if k != "net.out.bias"}, metadata=header))
    assert "net.out.bias is missing" in refused(path)
    path.write_bytes(save({**whole, "extra": torch.zeros(1)}, metadata=header))
    assert "extra is unknown" in refused(path)
    path.write_bytes(save({**whole, "net.out.bias": torch.zeros(3, dtype=torch.int64)}, metadata=header))
    assert "net.out.bias is (3,) of int64, expected (3,) of float32" in refused(path)
    path.write_bytes(save({**whole, "net.out.bias": torch.zeros(3, dtype=torch.complex64)}, metadata=header))
    assert "'net.out.bias' is of type C64" in refused(path)
    path.write_bytes(save({**whole, "net.out.bias": torch.zeros(0)}, metadata=header))
    assert "net.out.bias is (0,)" in refused(path)
    path.write_bytes(save({k: v.half() for k, v in whole.items()}, metadata=header))
    half = checkpoints.load(path).state_dict()
    assert all(torch.equal(half[key], value.half().float()) for key, value in whole.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    header = {"synthpipe": json.dumps(checkpoints.read_header("map_small"))}
    whole = checkpoints.load("map_small").state_dict()
    whole["net.convs.1.bias"][7] = value
    path = tmp_path / "w.safetensors"
    path.write_bytes(save(whole, metadata=header))
    assert "tensor 'net.convs.1.bias' holds NaN or infinity" in refused(path)


def test_large_numbers_whose_sum_is_infinite_are_no_damage(tmp_path: Path) -> None:
    model = checkpoints.load("map_small")
    with torch.no_grad():
        model.net.convs[1].bias.fill_(3e38)
    path = checkpoints.save(tmp_path / "w.safetensors", model)
    assert torch.equal(checkpoints.load(path).net.convs[1].bias, model.net.convs[1].bias)


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"", b""),
        (b"{", b""),
        (b"[" * 10_000, b""),
        (b'{"a": ' + b"[" * 10_000, b""),
        (b"\xff\xfe", b""),
        (b"3", b""),
        ({"a": 3}, b""),
        ({"a": {**ONE, "dtype": "F31"}}, bytes(8)),
        ({"a": {**ONE, "shape": [-2]}}, bytes(8)),
        ({"a": {**ONE, "shape": [2.5]}}, bytes(8)),
        ({"a": {**ONE, "shape": [2**40, 2**40]}}, bytes(8)),
        ({"a": {**ONE, "data_offsets": [8, 0]}}, bytes(8)),
        ({"a": {**ONE, "data_offsets": [0, 2**63]}}, bytes(8)),
        ({"a": ONE, "b": ONE}, bytes(8)),
        ({"a": ONE, "b": {**ONE, "data_offsets": [4, 12]}}, bytes(12)),
        ({"a": ONE}, bytes(4)),
        ({"a": ONE}, bytes(12)),
        ({"a": ONE, "__metadata__": 3}, bytes(8)),
        ({"a": ONE, "__metadata__": {"synthpipe": 3}}, bytes(8)),
        ({"a": ONE, "__metadata__": {"synthpipe": ["x"]}}, bytes(8)),
    ],
)
def test_files_that_are_no_safetensors(tmp_path: Path, header: Any, data: bytes) -> None:
    assert "not a readable safetensors file" in refused(raw(tmp_path, header, data))


def test_a_header_length_beyond_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for length in (2**63, 2**64 - 1, 10**9, 9):
        path.write_bytes(struct.pack("<Q", length) + b"{}      ")
        assert "not a readable safetensors file" in refused(path)


def test_files_without_our_header_and_things_that_are_no_files(tmp_path: Path) -> None:
    assert "without a synthpipe header" in refused(raw(tmp_path, {"a": ONE}, bytes(8)))
    os.mkfifo(tmp_path / "pipe.safetensors")
    for place in (tmp_path, tmp_path / "pipe.safetensors"):
        assert "no weights at" in refused(place)


def test_a_budget_counts_before_torch_sets_memory_aside() -> None:
    with BuildBudget([100]), pytest.raises(CheckpointError, match=r"asks for a tensor \(1000000, 1000000\)"):
        torch.zeros(1_000_000, 1_000_000)
    for create in (
        lambda: torch.full((1 << 15, 1 << 15), 0.5),
        lambda: torch.eye(1 << 15),
        lambda: torch.empty(size=(1 << 15, 1 << 15)),
        lambda: torch.randn([1 << 15, 1 << 15]),
        lambda: torch.nn.Linear(1 << 15, 1 << 15),
    ):
        with BuildBudget([100]), pytest.raises(CheckpointError, match="asks for a tensor"):
            create()
    with BuildBudget([100]), pytest.raises(CheckpointError, match="many more tensors than the file has"):
        [torch.zeros(1) for _ in range(10_000)]
    assert torch.is_grad_enabled()
    with BuildBudget([10_000]):
        assert torch.nn.Linear(100, 100).weight.shape == (100, 100)
        assert torch.zeros(()).shape == ()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"a": MAX_INTEGER + 1}, f"config.a: expected a number up to {MAX_INTEGER}, got 65537"),
        ({"a": {"b": [1, -(10**5000)]}}, "config.a.b.1: expected a number up to"),
        ({"a": float("inf")}, "config.a: expected a finite number, got inf"),
        ({"a": "x" * 1001}, "config.a: expected at most 1000 characters, got 1001"),
        ({"a": [0] * (MAX_ENTRIES + 1)}, f"config.a: expected at most {MAX_ENTRIES} entries"),
        ({"a": [[[[[[[[[0]]]]]]]]]}, "expected at most 8 blocks and lists within each other"),
        ({"a": {1}}, "config.a: expected plain settings, got set"),
    ],
)
def test_settings_are_plain(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError) as error:
        require_plain_settings(settings)
    assert words in str(error.value)
    require_plain_settings({"a": [1, 2.5, "x", None, True, {"b": []}]})
