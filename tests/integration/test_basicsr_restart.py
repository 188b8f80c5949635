"""``--restart_stream``: networks, optimizers and the iteration go on, the stream begins anew; epochs that changed."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.basicsr_runs import networks, options, require_basicsr, run_entry, write_options

require_basicsr()

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


ROOT = Path(__file__).resolve().parents[2]

RANK = """
import os, sys
from synthpipe.basicsr_plugin import register
register()
from basicsr.models.sr_model import SRModel
feed = SRModel.feed_data
def feed_data(self, data):
    feed(self, data)
    if "synthpipe_serial" in data:
        with open(f"samples-{os.environ['RANK']}.txt", "a") as file:
            file.writelines(f"{os.path.basename(path)}\\n" for path in data["gt_path"])
SRModel.feed_data = feed_data
from synthpipe.basicsr_plugin.train import main
sys.exit(main())
"""


class Seen:
    """What training has been fed, and the state of optimizers before its first step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from basicsr.models.sr_model import SRModel

        self.batches: list[torch.Tensor] = []
        self.first: dict[str, Any] = {}
        step = SRModel.optimize_parameters

        def optimize(model: Any, current_iter: int) -> None:
            if not self.batches:
                state = copy.deepcopy(model.optimizer_g.state_dict())
                self.first = {"iter": current_iter, "lr": state["param_groups"][0]["lr"], "state": state["state"]}
                self.first["weight"] = model.net_g.conv_first.weight.detach().clone()
            self.batches.append(model.gt.clone())
            step(model, current_iter)

        monkeypatch.setattr(SRModel, "optimize_parameters", optimize)

    def take(self) -> list[torch.Tensor]:
        """The batches since the last call."""
        taken, self.batches = self.batches, []
        return taken


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


def saved(root: Path, iteration: int) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(
        root / f"experiments/run/training_states/{iteration}.state", weights_only=True, map_location="cpu"
    )
    return content


def run_options(root: Path, iterations: int = 8, **train: Any) -> dict[str, Any]:
    return options(root, iterations=iterations, save_every=4, **train)


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"batch_size_per_gpu": 3}, "batch_size: state 2, here 3"),
    ({"gt_size": 16}, "gt_size: state 32, here 16"),
    ({"workers": 2}, "workers: state 0, here 2"),
    ({"pool": 8}, "pool: state 4, here 8"),
    ({"degrade": {"type": "classical", "noise": {"type": "gaussian", "sigma": [0.1, 0.2]}}}, "degrade: state"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES, ids=[next(iter(change)) for change, _ in CHANGES])
def test_a_changed_stream_is_refused_and_restarted(
    change: dict[str, Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    seen = Seen(monkeypatch)
    assert run_entry(monkeypatch, tmp_path, run_options(tmp_path, 4)) == 0
    before, weights = seen.take(), saved(tmp_path, 4)
    assert run_entry(monkeypatch, tmp_path, run_options(tmp_path, **change), "--auto_resume") == 1
    message = capsys.readouterr().err
    assert said in message
    assert "4.state" in message
    assert "add --restart_stream: it keeps networks, optimizers, schedulers and the iteration" in message

    assert run_entry(monkeypatch, tmp_path, run_options(tmp_path, **change), "--auto_resume", "--restart_stream") == 0
    after = seen.take()
    assert len(after) == 4  # iterations 5 to 8
    assert seen.first["iter"] == 5
    for place, state in weights["optimizers"][0]["state"].items():
        assert torch.equal(seen.first["state"][place]["exp_avg"], state["exp_avg"])
    network = torch.load(tmp_path / "experiments/run/models/net_g_4.pth", weights_only=True)
    assert torch.equal(seen.first["weight"], network["params"]["conv_first.weight"])
    # MultiStepLR halves at 6, counted from the run's beginning
    assert saved(tmp_path, 8)["optimizers"][0]["param_groups"][0]["lr"] == pytest.approx(5e-4)
    if after[0].shape == before[0].shape:
        assert not any(torch.equal(new, old) for new in after for old in before)


def test_a_restarted_run_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place where it restarted is part of the checkpoint: a later resume needs no flag."""
    seen = Seen(monkeypatch)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for root in (whole, parts):
        assert run_entry(monkeypatch, root, run_options(root, 4)) == 0
    seen.take()
    flags = ("--auto_resume", "--restart_stream")
    assert run_entry(monkeypatch, whole, run_options(whole, 12, workers=1), *flags) == 0
    uninterrupted = seen.take()
    assert run_entry(monkeypatch, parts, run_options(parts, 10, workers=1), *flags) == 0
    seen.take()
    assert run_entry(monkeypatch, parts, run_options(parts, 12, workers=1), "--auto_resume") == 0
    assert same(seen.take(), uninterrupted[4:])
    # a second restart draws anew once more
    assert run_entry(monkeypatch, parts, run_options(parts, 16, workers=1), *flags) == 0
    assert not same(seen.take(), uninterrupted[:4])


def test_a_restart_does_not_begin_as_the_run_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing changed: not one patch of before comes again, and the same restart gives the same batches."""
    seen = Seen(monkeypatch)
    batches = []
    for name in ("one", "two"):
        root = tmp_path / name
        assert run_entry(monkeypatch, root, run_options(root, 4)) == 0
        before = seen.take()
        assert run_entry(monkeypatch, root, run_options(root), "--auto_resume", "--restart_stream") == 0
        batches.append(seen.take())
        old = {patch.numpy().tobytes() for batch in before for patch in batch}
        assert not [patch for batch in batches[-1] for patch in batch if patch.numpy().tobytes() in old]
    assert same(*batches)


def test_another_corpus_needs_the_flag_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from tests.basicsr_runs import write_shards

    assert run_entry(monkeypatch, tmp_path, run_options(tmp_path, 4)) == 0
    opt = run_options(tmp_path)
    opt["datasets"]["train"]["shards"] = write_shards(tmp_path / "more", shards=3)
    assert run_entry(monkeypatch, tmp_path, opt, "--auto_resume") == 1
    assert "add --restart_stream" in capsys.readouterr().err
    assert run_entry(monkeypatch, tmp_path, opt, "--auto_resume", "--restart_stream") == 0


def test_resume_state_restarts_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch)
    assert run_entry(monkeypatch, tmp_path, run_options(tmp_path, 8)) == 0
    seen.take()
    opt = run_options(tmp_path, 6, workers=1)
    opt["path"]["resume_state"] = str(tmp_path / "experiments/run/training_states/4.state")
    assert run_entry(monkeypatch, tmp_path, opt, "--restart_stream") == 0
    assert len(seen.take()) == 2
    assert seen.first["iter"] == 5


@pytest.mark.parametrize(
    ("flags", "resume_state", "message"),
    [
        (("--restart_stream",), None, "--restart_stream: goes with --auto_resume or path.resume_state"),
        (("--auto_resume",), "4.state", "path.resume_state: with --auto_resume BasicSR looks in"),
    ],
)
def test_flags_that_contradict(
    flags: tuple[str, ...],
    resume_state: str | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    opt = run_options(tmp_path)
    opt["path"]["resume_state"] = resume_state
    assert run_entry(monkeypatch, tmp_path, opt, *flags) == 2
    assert message in capsys.readouterr().err


def test_a_checkpoint_without_its_networks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """BasicSR takes them from this run's folder, whoever wrote the state."""
    assert run_entry(monkeypatch, tmp_path, run_options(tmp_path, 4)) == 0
    opt = run_options(tmp_path)
    opt["name"] = "other"
    opt["path"]["resume_state"] = str(tmp_path / "experiments/run/training_states/4.state")
    assert run_entry(monkeypatch, tmp_path, opt) == 1
    message = capsys.readouterr().err
    assert "BasicSR takes the networks of iteration 4 from" in message
    assert "net_g_4.pth" in message
    assert not (tmp_path / "experiments/other").exists()


@pytest.mark.parametrize("length", [8, 1000])
def test_another_virtual_length_ends_no_run_early(length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BasicSR goes on with the epoch of the checkpoint: counted in longer epochs, all of them were over."""
    seen = Seen(monkeypatch)
    assert run_entry(monkeypatch, tmp_path, run_options(tmp_path, 8, virtual_length=4)) == 0
    assert saved(tmp_path, 8)["epoch"] == 3
    seen.take()
    assert run_entry(monkeypatch, tmp_path, run_options(tmp_path, 12, virtual_length=length), "--auto_resume") == 0
    assert len(seen.take()) == 4
    assert saved(tmp_path, 12)["iter"] == 12


@pytest.mark.parametrize(("length", "batch"), [(7, 4), (9, 2), (3, 2)])
def test_all_iterations_are_run_whatever_the_length_of_an_epoch(
    length: int, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(monkeypatch)
    opt = run_options(tmp_path, 12, virtual_length=length, batch_size_per_gpu=batch)
    assert run_entry(monkeypatch, tmp_path, opt) == 0
    assert len(seen.take()) == 12


def test_a_run_that_is_over_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_entry(monkeypatch, tmp_path, run_options(tmp_path, 8)) == 0
    weights = networks(tmp_path)
    opt = run_options(tmp_path, 8)
    opt["path"]["resume_state"] = "elsewhere/4.state"
    assert run_entry(monkeypatch, tmp_path, opt, "--auto_resume") == 0
    log = max((tmp_path / "experiments/run").glob("train_*.log")).read_text()
    assert "8.state stands at iteration 8, and train.total_iter is 8" in log
    assert "path.resume_state 'elsewhere/4.state' is passed over: --auto_resume found" in log
    assert all(torch.equal(value, weights[name]) for name, value in networks(tmp_path).items())


def test_another_number_of_ranks_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process wrote the checkpoint, two go on: the second has no file of its own, and both need one seed."""
    opt = run_options(tmp_path, 4, pool=0, patches_per_tile=1)
    opt["manual_seed"] = None
    assert run_entry(monkeypatch, tmp_path, opt) == 0
    opt["train"]["total_iter"] = 8
    path = write_options(tmp_path / "options.yml", opt)
    (tmp_path / "rank.py").write_text(RANK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "rank.py"]
    command += ["-opt", str(path), "--launcher", "pytorch", "--auto_resume"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=env)
    assert refused.returncode != 0
    assert "world_size: state 1, here 2" in refused.stderr
    command.append("--restart_stream")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = ((tmp_path / f"samples-{rank}.txt").read_text().split() for rank in (0, 1))
    # iterations 5 to 8, two samples each; 8 images: an epoch is 4 samples of each rank, none twice
    assert len(first) == len(second) == 8
    assert all(len({*first[start : start + 4], *second[start : start + 4]}) == 8 for start in (0, 4))
