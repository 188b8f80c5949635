"""A checkpoint that is torn, foreign or hostile is named with what to do; a run goes on from the one before it."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from synthpipe.config.deflow import TrainDeFlowOptions
from synthpipe.config.reader import parse_options
from synthpipe.errors import OptionError, SynthPipeError, TrainingError
from synthpipe.training import train
from synthpipe.training.checkpoint_file import checkpoints_in, read_checkpoint
from tests.training.conftest import MODEL


class Payload:
    """Unpickling this would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "executed"))


def options(photos: Path, run_dir: Path, **changes: Any) -> TrainDeFlowOptions:
    given = {
        "run_dir": str(run_dir),
        "device": "cpu",
        "max_steps": 6,
        "sample_every": 100,
        "checkpoint_every": 2,
        "model": MODEL,
        "data": {
            "clean": {"folder": str(photos / "clean")},
            "noisy": {"folder": str(photos / "noisy")},
            "crop": 16,
            "batch_size": 2,
            "workers": 0,
        },
    }
    return parse_options(given | changes, TrainDeFlowOptions)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, and in ``run`` a run whose checkpoints are of steps 4 and 6."""
    folder = tmp_path_factory.mktemp("trained")
    for number, domain in enumerate(("clean", "noisy", "clean", "noisy")):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        (folder / domain).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / domain / f"{number}.png")
    train(options(folder, folder / "run"))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Callable[[], Path]:
    """Goes on with a copy of that run in ``tmp_path / "run"``; gives the folder of checkpoints."""
    shutil.copytree(trained / "run", tmp_path / "run")

    def resume() -> Path:
        train(options(trained, tmp_path / "run", resume="auto"))
        return tmp_path / "run" / "checkpoints"

    return resume


def last_of(tmp_path: Path) -> Path:
    return tmp_path / "run" / "checkpoints" / "step_00000006.pt"


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def refused(resume: Callable[[], Path]) -> str:
    with pytest.raises(TrainingError, match=r"step_00000006\.pt: .*delete it to go on from the one before") as error:
        resume()
    assert len(str(error.value)) < 1500
    return str(error.value)


def damage(data: bytes, what: str, proof: Path) -> bytes:
    middle = len(data) // 2
    return {
        "empty": b"",
        "zeros": bytes(5000),
        "first half": data[:middle],
        "last half": data[middle:],
        "hole": data[: middle - 500] + bytes(1000) + data[middle + 500 :],
        "text": b"kind: deflow\n" * 100,
        "pickle": pickle.dumps({"a": print}),
        "plain pickle": pickle.dumps({"step": 6}, protocol=2),
        "code": saved({"step": Payload(proof)}),
        "code, old format": saved({"step": Payload(proof)}, _use_new_zipfile_serialization=False),
        "list": saved([1, 2]),
        "tensor": saved(torch.zeros(3)),
        "nothing": saved({}),
        "weights alone": saved({"weight": torch.zeros(3)}),
    }[what]


@pytest.mark.parametrize(
    "what",
    [
        *("empty", "zeros", "first half", "last half", "text", "pickle", "plain pickle", "code", "code, old format"),
        *("list", "tensor", "nothing", "weights alone"),
    ],
)
def test_files_that_are_no_checkpoints(run: Callable[[], Path], tmp_path: Path, what: str) -> None:
    path, proof = last_of(tmp_path), tmp_path / "proof"
    path.write_bytes(damage(path.read_bytes(), what, proof))
    refused(run)
    assert not proof.exists()


def test_the_run_goes_on_from_the_one_before(run: Callable[[], Path], trained: Path, tmp_path: Path) -> None:
    path = last_of(tmp_path)
    path.write_bytes(path.read_bytes()[:5000])
    refused(run)
    path.unlink()
    assert [found.name for found in sorted(run().glob("*.pt"))] == ["step_00000004.pt", "step_00000006.pt"]
    assert "step 4 of 6" in (tmp_path / "run" / "log.txt").read_text()
    expected = load_file(trained / "run" / "final.safetensors")
    assert all(torch.equal(v, expected[k]) for k, v in load_file(tmp_path / "run" / "final.safetensors").items())


def field(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        state[name] = value

    return change


def within(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        place: Any = state
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def first_weight(part: str, value: Callable[[torch.Tensor], Any]) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        name = next(key for key, tensor in state[part].items() if tensor.is_floating_point() and tensor.numel() > 1)
        state[part][name] = value(state[part][name])

    return change


def moments(value: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        state["optimizer"]["state"][0]["exp_avg"] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("averaged"), "it lacks averaged"),
        (field("format", 2), "unknown fields ['format']; a newer version of synthpipe may have written it"),
        (field("step", "6"), "step: expected a whole number from 0, got '6'"),
        (field("step", -6), "step: expected a whole number from 0, got -6"),
        (field("step", 10**30), "it is of step 1000000000000"),
        (field("step", 4), "it is of step 4"),
        (field("world_size", 1.0), "world_size: expected a whole number from 0, got 1.0"),
        (field("options", None), "options: expected names with values, got None"),
        (field("model", [torch.zeros(1)]), "model: expected names with values"),
        (field("bad_steps", [0]), "bad_steps: expected two numbers from 0, got [0]"),
        (field("bad_steps", [0, float("nan")]), "bad_steps: expected two numbers from 0"),
        (field("processes", []), "states of 0 processes, expected 1"),
        (field("processes", [3]), "processes: expected the states of data and generator"),
        (within("processes", 0, "rng", value=torch.zeros(3)), "rng: expected 5056 bytes, got (3,) of torch.float32"),
        (within("processes", 0, "rng", value=b"x"), "rng: expected 5056 bytes, got bytes"),
        (within("processes", 0, "data", value={}), "it does not fit this run: KeyError: 'clean'"),
        (within("processes", 0, "data", "clean", value=3), "it does not fit this run: TypeError"),
        (first_weight("model", lambda value: value * float("nan")), "holds NaN or infinity"),
        (first_weight("averaged", lambda value: value + float("inf")), "holds NaN or infinity"),
        (first_weight("model", lambda value: torch.zeros(5, 5)), "it does not fit this run: RuntimeError"),
        (first_weight("averaged", lambda value: torch.zeros(5, 5)), "it does not fit this run: RuntimeError"),
        (first_weight("model", lambda value: "weights"), "expected a tensor, got str"),
        (first_weight("model", lambda value: torch.zeros(1).expand(10**6, 10**6)), "that repeats 4 bytes"),
        (first_weight("model", lambda value: value.to_sparse()), "expected a dense tensor"),
        (moments(torch.zeros(7, 7)), "exp_avg of parameter 0 is (7, 7) of torch.float32, expected the shape"),
        (moments(torch.full((64,), float("nan"))), "optimizer.0.exp_avg holds NaN or infinity"),
        (moments([0.0]), "optimizer.0.exp_avg: expected a tensor, got list"),
        (within("optimizer", "param_groups", value=[]), "optimizer: expected 1 group, got []"),
        (within("optimizer", "param_groups", 0, "params", value=[0]), "its groups hold other parameters"),
        (within("optimizer", "param_groups", 0, "lr", value="high"), "optimizer: lr is 'high'"),
        (within("optimizer", "param_groups", 0, "lr", value=float("nan")), "optimizer: lr is nan"),
        (within("optimizer", "param_groups", 0, "betas", value=(0.9,)), "optimizer: betas is (0.9,)"),
        (within("optimizer", "state", value=3), "optimizer: expected the moments"),
        (within("optimizer", "state", 10**6, value={}), "optimizer: state of parameter 1000000"),
        (within("schedule", "last_epoch", value=3), "schedule: expected that of step 6, got that of 3"),
        (within("schedule", "base_lrs", value=None), "schedule: expected that of step 6"),
        (within("schedule", "get_lr", value=3), "schedule: expected that of step 6"),
        (within("averaged", "n_averaged", value=torch.zeros(3)), "it does not fit this run: RuntimeError"),
    ],
)
def test_states_that_do_not_fit(
    run: Callable[[], Path], tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    path = last_of(tmp_path)
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    assert words in refused(run)


def test_options_of_the_future_and_of_another_kind_are_named(run: Callable[[], Path], tmp_path: Path) -> None:
    path = last_of(tmp_path)
    state = torch.load(path, weights_only=True)
    torch.save({**state, "options": {**state["options"], "momentum": 1}}, path)
    with pytest.raises(OptionError, match=r"step_00000006\.pt: unknown option 'momentum'"):
        run()
    torch.save({**state, "options": {**state["options"], "kind": "glow"}}, path)
    with pytest.raises(OptionError, match=r"step_00000006\.pt: option 'kind'"):
        run()


@pytest.mark.parametrize("step", [2.5, "6", -1, None, True])
def test_a_place_in_the_data_that_is_no_number(run: Callable[[], Path], tmp_path: Path, step: Any) -> None:
    path = last_of(tmp_path)
    state = torch.load(path, weights_only=True)
    state["processes"][0]["data"]["clean"]["step"] = step
    torch.save(state, path)
    with pytest.raises(SynthPipeError, match="expected a whole number from 0 as 'step', got"):
        run()


def test_other_names_in_the_folder_are_no_checkpoints(run: Callable[[], Path], tmp_path: Path) -> None:
    folder = last_of(tmp_path).parent
    for name in ("step_last.pt", "step_6.pt", "step_.pt", "step_00000009.tmp", "step_99999999999999999999999.pt"):
        (folder / name).write_bytes(b"")
    (folder / "step_100000000.pt").write_bytes(b"x")
    assert [path.name for path in checkpoints_in(folder)][-2:] == ["step_00000006.pt", "step_100000000.pt"]
    (folder / "step_100000000.pt").unlink()
    run()
    assert (folder / "step_last.pt").exists()


def test_the_final_weights_may_be_torn(run: Callable[[], Path], tmp_path: Path) -> None:
    final = tmp_path / "run" / "final.safetensors"
    whole = {name: value.clone() for name, value in load_file(final).items()}
    final.write_bytes(final.read_bytes()[:100])
    run()
    assert all(torch.equal(value, whole[name]) for name, value in load_file(final).items())


def test_records_that_are_packed_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "step_00000001.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/data/0", bytes(50_000_000))
    with pytest.raises(TrainingError, match=r"bytes that come to 5000\d\d\d\d in memory, expected at most 2 times"):
        read_checkpoint(path)
