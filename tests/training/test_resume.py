"""A run killed with SIGKILL and resumed ends with the weights, bit for bit, of one that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from synthpipe import checkpoints
from synthpipe.config.deflow import TrainDeFlowOptions
from synthpipe.config.reader import parse_options
from synthpipe.config.run import RunOptions
from synthpipe.config.training import write_options
from synthpipe.errors import TrainingError
from synthpipe.training import train

ROOT = Path(__file__).resolve().parents[2]

#: Kills itself after step KILL_STEP, or between writing the checkpoint of KILL_STEP and giving it its name.
CHILD = """
import os, signal, sys
from pathlib import Path
from synthpipe.config.training import read_train_options
from synthpipe.training import train

options, kill_step, where = sys.argv[1], int(sys.argv[2]), sys.argv[3]
asked = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def stop():
    global asked
    if where == "between" and asked == kill_step:
        die()
    asked += 1
    return False

rename = Path.replace
def replace(self, target):
    if where == "saving" and Path(target).name == f"step_{kill_step:08d}.pt":
        die()
    return rename(self, target)
Path.replace = replace
train(read_train_options(options), stop=stop)
"""


def run_killed(options: RunOptions, folder: Path, kill_step: int, where: str) -> None:
    path = folder / f"{where}.yml"
    write_options(path, options)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", CHILD, str(path), str(kill_step), where]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def weights(run_dir: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    state = torch.load(Path(run_dir) / "checkpoints" / "step_00000009.pt", weights_only=True)
    return checkpoints.load(Path(run_dir) / "final.safetensors").state_dict(), state


@pytest.mark.parametrize(("where", "kill_step", "goes_on_from"), [("between", 7, 6), ("saving", 6, 3)])
def test_killed_and_resumed_equals_uninterrupted(
    where: str, kill_step: int, goes_on_from: int, run_data: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    changes = {"max_steps": 9, "checkpoint_every": 3, "clip_norm": 5.0, "sample_every": 2}

    def options(name: str, **more: Any) -> TrainDeFlowOptions:
        return parse_options(run_data(run_dir=str(tmp_path / name), **changes, **more), TrainDeFlowOptions)

    train(options("whole"))
    run_killed(options("killed"), tmp_path, kill_step, where)
    kept = sorted((tmp_path / "killed" / "checkpoints").glob("step_*.pt"))
    assert kept[-1].name == f"step_{goes_on_from:08d}.pt"
    assert not (tmp_path / "killed" / "final.safetensors").exists()
    # Whether activations are checkpointed changes no bit.
    train(options("killed", resume="auto", activation_checkpointing=where == "between"))
    assert f"step {goes_on_from} of 9" in (tmp_path / "killed" / "log.txt").read_text()

    (whole, whole_state), (resumed, resumed_state) = weights(str(tmp_path / "whole")), weights(str(tmp_path / "killed"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert_equal_trees(
        {key: whole_state[key] for key in ("model", "averaged", "optimizer", "schedule", "processes", "bad_steps")},
        {key: resumed_state[key] for key in ("model", "averaged", "optimizer", "schedule", "processes", "bad_steps")},
    )


def assert_equal_trees(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_equal_trees(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_equal_trees(one, other)
    else:
        assert left == right


def test_initialisation_does_not_run_again_after_resume(
    run_data: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from synthpipe.training.deflow import DeFlowObjective

    train(parse_options(run_data(max_steps=2, schedule={"milestones": []}), TrainDeFlowOptions))

    def refuse(*args: object) -> None:
        raise AssertionError("initialised again")

    monkeypatch.setattr(DeFlowObjective, "initialize", refuse)
    again = run_data(max_steps=2, schedule={"milestones": []}, resume="auto")
    assert train(parse_options(again, TrainDeFlowOptions)).is_file()


def test_a_run_is_not_continued_unasked_or_with_other_options(run_data: Callable[..., dict[str, Any]]) -> None:
    train(parse_options(run_data(), TrainDeFlowOptions))
    with pytest.raises(TrainingError, match=r"already holds a run \(last checkpoint step_00000006.pt\).*--resume"):
        train(parse_options(run_data(), TrainDeFlowOptions))
    changed = run_data(resume="auto", seed=11)
    changed["optimizer"] = {"lr": 5e-4}
    with pytest.raises(
        TrainingError, match=r"other options: optimizer.lr: was 0.001, now 0.0005; seed: was 10, now 11"
    ):
        train(parse_options(changed, TrainDeFlowOptions))
    # What changes no number may change.
    free = run_data(resume="auto", log_every=1, max_minutes=5)
    free["data"]["workers"] = 2
    train(parse_options(free, TrainDeFlowOptions))


def test_a_damaged_checkpoint_is_named(run_data: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    train(parse_options(run_data(), TrainDeFlowOptions))
    last = tmp_path / "run" / "checkpoints" / "step_00000006.pt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"step_00000006.pt: not a readable checkpoint .*delete it"):
        train(parse_options(run_data(resume="auto"), TrainDeFlowOptions))
    last.unlink()
    train(parse_options(run_data(resume="auto"), TrainDeFlowOptions))
    assert "step 4 of 6" in (tmp_path / "run" / "log.txt").read_text()
