"""Two processes under torchrun share the batch of one: different samples, the same weights."""

from __future__ import annotations

import json
import os
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
from synthpipe.training.data.unpaired import UnpairedData

ROOT = Path(__file__).resolve().parents[2]

#: Trains, and writes down which crops this process was given.
CHILD = """
import hashlib, json, os, sys
from pathlib import Path
from synthpipe.config.training import read_train_options
from synthpipe.training import train
from synthpipe.training.data.unpaired import UnpairedData

seen = []
draw = UnpairedData.next_batch
def next_batch(self):
    batch = draw(self)
    seen.append([hashlib.sha256(x.numpy().tobytes()).hexdigest() for x in batch["x"]])
    return batch
UnpairedData.next_batch = next_batch
train(read_train_options(sys.argv[1]))
Path(sys.argv[2], f"seen{os.environ['RANK']}.json").write_text(json.dumps(seen))
"""


def run_two(options: RunOptions, folder: Path) -> list[list[list[str]]]:
    """Train with 2 gloo ranks; hashes of the crops by rank and step."""
    write_options(folder / "two.yml", options)
    (folder / "child.py").write_text(CHILD)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(folder / "child.py"), str(folder / "two.yml"), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"seen{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow  # torchrun and two processes that import everything
def test_two_ranks_equal_one_process_with_the_whole_batch(
    run_data: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def options(name: str, **more: Any) -> TrainDeFlowOptions:
        return parse_options(
            run_data(run_dir=str(tmp_path / name), max_steps=4, optimizer={"lr": 1e-3}, **more), TrainDeFlowOptions
        )

    seen = run_two(options("two"), tmp_path)
    whole = UnpairedData(options("one").data, options("one").seed)
    for step in range(4):
        first, second = set(seen[0][step]), set(seen[1][step])
        assert len(first) == len(second) == 2
        assert not first & second
        assert first | second == {_hash(x) for x in whole.next_batch()["x"]}
    whole.close()

    train(options("one"))
    one, two = (checkpoints.load(tmp_path / name / "final.safetensors").state_dict() for name in ("one", "two"))
    start = _initial(options("start", init_weights=None))
    moved = max(float((one[name] - start[name]).abs().max()) for name in one if one[name].is_floating_point())
    assert moved > 1e-3
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=2e-5, msg=name)

    with pytest.raises(TrainingError, match=r"written by 2 processes, this run has 1"):
        train(options("two", resume="auto"))


def _hash(x: torch.Tensor) -> str:
    import hashlib

    return hashlib.sha256(x.numpy().tobytes()).hexdigest()


def _initial(options: TrainDeFlowOptions) -> dict[str, torch.Tensor]:
    from synthpipe.flows.deflow import DeFlow

    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        return DeFlow(**options.model.arguments()).state_dict()
