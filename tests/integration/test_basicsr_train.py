"""BasicSR's real ``train_pipeline`` fed by the real stream: plain, through our entry, resumed, killed, distributed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from synthpipe.errors import OptionError
from tests.basicsr_runs import (
    assert_same_networks,
    networks,
    options,
    require_basicsr,
    run_entry,
    run_plain,
    write_options,
)

require_basicsr()

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

ROOT = Path(__file__).resolve().parents[2]


def saved_iterations(root: Path) -> list[int]:
    return sorted(int(path.stem) for path in (root / "experiments/run/training_states").glob("*.state"))


def assert_trained(root: Path, first: str, last: str) -> None:
    """Every network moved between two checkpoints."""
    one, two = networks(root, first), networks(root, last)
    weights = [name for name in one if name.endswith(("conv_first.weight", "conv0.weight"))]
    assert weights
    assert not [name for name in weights if torch.equal(one[name], two[name])]


@pytest.mark.parametrize("gan", [False, True], ids=["SRModel", "ESRGANModel"])
def test_plain_train_pipeline(gan: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_plain(monkeypatch, tmp_path, options(tmp_path, gan=gan))
    assert saved_iterations(tmp_path) == [4, 8]
    assert_trained(tmp_path, "4", "8")
    assert list((tmp_path / "tb_logger" / "run").iterdir())
    assert "psnr" in next((tmp_path / "experiments/run").glob("train_*.log")).read_text()


def test_plain_train_pipeline_with_prefetch_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # epochs of 3 iterations: at each, BasicSR starts another thread while the last one still holds a batch
    opt = options(tmp_path, prefetch_mode="cpu", num_prefetch_queue=1, virtual_length=6)
    run_plain(monkeypatch, tmp_path, opt)
    assert saved_iterations(tmp_path) == [4, 8]


def test_two_runs_are_bit_identical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        run_plain(monkeypatch, tmp_path / name, options(tmp_path / name))
    assert_same_networks(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_the_entry_trains_alike_however_readers_start(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As users start it: each reader imports the entry's own module anew, and must not train."""
    plain, other = tmp_path / "plain", tmp_path / "other"
    assert run_entry(monkeypatch, plain, options(plain, workers=2)) == 0
    path = write_options(other / "options.yml", options(other, workers=2, start_method=method))
    command = [sys.executable, "-m", "synthpipe.basicsr_plugin.train", "-opt", str(path)]
    done = subprocess.run(command, cwd=other, capture_output=True, text=True, check=False, env=_env())
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same_networks(plain, other)


def test_manual_seed_changes_the_samples(tmp_path: Path) -> None:
    # without touching the networks' initialisation: the stream alone
    from synthpipe.basicsr_plugin.dataset import SynthPipeDataset

    block = options(tmp_path)["datasets"]["train"] | {"phase": "train", "scale": 4}
    firsts = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        firsts.append(SynthPipeDataset(block)[0]["gt"])
    assert torch.equal(firsts[0], firsts[1])
    assert not torch.equal(firsts[0], firsts[2])


@pytest.mark.parametrize("gan", [False, True], ids=["SRModel", "ESRGANModel"])
def test_auto_resume_is_exact(gan: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_entry(monkeypatch, whole, options(whole, gan=gan, iterations=12)) == 0
    first = options(parts, gan=gan, iterations=12)
    first["train"]["total_iter"] = 6  # stops in mid-epoch, two iterations after the checkpoint
    assert run_entry(monkeypatch, parts, first) == 0
    assert saved_iterations(parts) == [4]
    first["train"]["total_iter"] = 12
    assert run_entry(monkeypatch, parts, first, "--auto_resume") == 0
    assert_same_networks(whole, parts)
    assert_same_networks(whole, parts, "8")


@pytest.mark.parametrize("mode", ["cpu", None])
def test_resume_is_exact_with_workers_pool_and_short_epochs(
    mode: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 5 iterations to an epoch, saving at 4: the resumed run is in the middle of one
    more: dict[str, Any] = {"workers": 2, "virtual_length": 10, "prefetch_mode": mode, "pool": 6}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_entry(monkeypatch, whole, options(whole, iterations=8, **more)) == 0
    opt = options(parts, iterations=6, **more)
    assert run_entry(monkeypatch, parts, opt) == 0
    opt["train"]["total_iter"] = 8
    assert run_entry(monkeypatch, parts, opt, "--auto_resume") == 0
    assert_same_networks(whole, parts)


KILLED = """
import os, signal, sys
from synthpipe.basicsr_plugin import register
register()
from basicsr.models.sr_model import SRModel
step = SRModel.optimize_parameters
def optimize_parameters(self, current_iter):
    step(self, current_iter)
    if current_iter == 11:
        os.kill(os.getpid(), signal.SIGKILL)
SRModel.optimize_parameters = optimize_parameters
from synthpipe.basicsr_plugin.train import main
sys.exit(main())
"""


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    more: dict[str, Any] = {"workers": 1, "iterations": 16}
    assert run_entry(monkeypatch, whole, options(whole, **more)) == 0
    path = write_options(killed / "options.yml", options(killed, **more))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, "-opt", str(path)],
        cwd=killed,
        capture_output=True,
        text=True,
        check=False,
        env=_env(),
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert saved_iterations(killed) == [4, 8]
    assert run_entry(monkeypatch, killed, options(killed, **more), "--auto_resume") == 0
    assert_same_networks(whole, killed)


def test_torn_checkpoint_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert run_entry(monkeypatch, whole, options(whole, iterations=12)) == 0
    opt = options(torn, iterations=8)
    assert run_entry(monkeypatch, torn, opt) == 0
    state = torn / "experiments/run/training_states/8.state"
    state.write_bytes(state.read_bytes()[:1000])
    opt["train"]["total_iter"] = 12
    assert run_entry(monkeypatch, torn, opt, "--auto_resume") == 0
    assert_same_networks(whole, torn)


def test_a_checkpoint_of_plain_basicsr_resumes_with_a_new_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr("synthpipe.basicsr_plugin.train._LOG.warning", lambda text, *_: warnings.append(text))
    opt = options(tmp_path, iterations=4)
    run_plain(monkeypatch, tmp_path, opt)
    opt["train"]["total_iter"] = 6
    assert run_entry(monkeypatch, tmp_path, opt, "--auto_resume") == 0
    assert any("no stream position" in text for text in warnings)
    assert_trained(tmp_path, "4", "latest")


def test_feed_data_models_resume_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the stream gives clean patches, the model makes the pairs
    def opt(folder: Path, iterations: int) -> dict[str, Any]:
        made = options(folder, iterations=iterations)
        made["degrade"] = made["datasets"]["train"].pop("degrade")
        made["model_type"] = "SynthPipeSRModel"
        return made

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_entry(monkeypatch, whole, opt(whole, 8)) == 0
    assert run_entry(monkeypatch, parts, opt(parts, 6)) == 0
    assert run_entry(monkeypatch, parts, opt(parts, 8), "--auto_resume") == 0
    assert_same_networks(whole, parts)


def test_a_model_with_another_degradation_does_not_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    opt = options(tmp_path, iterations=4)
    opt["degrade"] = opt["datasets"]["train"].pop("degrade")
    opt["model_type"] = "SynthPipeSRModel"
    assert run_entry(monkeypatch, tmp_path, opt) == 0
    opt["train"]["total_iter"] = 6
    opt["degrade"] = {"type": "classical", "noise": {"type": "gaussian", "sigma": [0.02, 0.2]}}
    assert run_entry(monkeypatch, tmp_path, opt, "--auto_resume") == 1
    message = capsys.readouterr().err
    assert "trained with degrade" in message
    assert "0.2]" in message


def test_options_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"num_worker_per_gpu": 2}, "set `workers`"),
        ({"persistent_workers": True}, "set `workers`"),
        ({"shuffel_buffer": 3}, "did you mean 'shuffle_buffer'"),
        ({"virtual_lenght": 3}, "did you mean 'virtual_length'"),
        ({"dataroot_gt": "/data"}, "dataroot_gt: only BasicSR's own datasets have such keys; remove them"),
        ({"batch_size": 3}, "BasicSR's name is 'batch_size_per_gpu'"),
        ({"dataset_enlarge_ratio": 100}, "at most 1000000, got 100000 * 100"),
        ({"degrade": None}, "SRModel: datasets.train has no `degrade`"),
    )
    for number, (change, message) in enumerate(cases):
        folder = tmp_path / str(number)
        assert run_entry(monkeypatch, folder, options(folder, **change)) == 2
        assert message in capsys.readouterr().err

    # A block of PairedImageDataset of which the type alone was changed: all that is wrong at once.
    left = {"dataroot_lq": "/data", "filename_tmpl": "{}", "num_worker_per_gpu": 6}
    assert run_entry(monkeypatch, tmp_path / "left", options(tmp_path / "left", **left)) == 2
    said = capsys.readouterr().err
    assert "num_worker_per_gpu: expected 0, got 6" in said
    assert "dataroot_lq, filename_tmpl: only BasicSR's own" in said

    opt = options(tmp_path)
    opt["datasets"]["val"] = opt["datasets"]["train"] | {"name": "stream"}
    with pytest.raises(OptionError, match=r"datasets.val \(stream\).*use type: PairedImageDataset"):
        run_plain(monkeypatch, tmp_path, opt)


def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    opt = options(tmp_path)
    (tmp_path / "experiments").write_text("a file where BasicSR makes a folder")
    assert run_entry(monkeypatch, tmp_path, opt) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("synthpipe.basicsr_plugin.train: cannot read or write '")
    assert "experiments" in message


def test_two_ranks_train_on_disjoint_samples_and_resume(tmp_path: Path) -> None:
    """torchrun, gloo, DDP; each rank writes the samples of its batches, then both continue exactly.

    Slow because each of the two launches starts three interpreters.
    """
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    opt = options(whole, iterations=6, save_every=2, patches_per_tile=1, pool=0)
    _torchrun(whole, opt)
    # as a run killed after its first checkpoint
    shutil.copytree(whole / "experiments", parts / "experiments")
    for iteration in (4, 6):
        (parts / f"experiments/run/training_states/{iteration}.state").unlink()
    _torchrun(parts, opt, "--auto_resume")
    assert_same_networks(whole, parts)

    first, second = _samples(whole)
    assert len(first) == len(second) == 12
    # 8 images, 2 ranks: an epoch is 4 samples of each rank, no image twice and none left out
    for start in (0, 4):
        assert len({*first[start : start + 4], *second[start : start + 4]}) == 8
    assert _samples(parts) == (first[4:], second[4:])


RANK = """
import os, sys
from synthpipe.basicsr_plugin import register
register()
from basicsr.models.sr_model import SRModel
feed = SRModel.feed_data
def feed_data(self, data):
    feed(self, data)
    if "gt_path" in data and "synthpipe_serial" in data:
        with open(f"samples-{os.environ['RANK']}.txt", "a") as file:
            file.writelines(f"{os.path.basename(path)}\\n" for path in data["gt_path"])
SRModel.feed_data = feed_data
from synthpipe.basicsr_plugin.train import main
sys.exit(main())
"""


def _torchrun(root: Path, opt: dict[str, Any], *flags: str) -> None:
    path = write_options(root / "options.yml", opt)
    (root / "rank.py").write_text(RANK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "rank.py"]
    command += ["-opt", str(path), "--launcher", "pytorch", *flags]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, env=_env())
    assert done.returncode == 0, done.stderr[-3000:]


def _samples(root: Path) -> tuple[list[str], list[str]]:
    first, second = ((root / f"samples-{rank}.txt").read_text().split() for rank in (0, 1))
    return first, second


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
