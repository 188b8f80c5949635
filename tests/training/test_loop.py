"""The loop: schedule, averaging, clipping, bad steps, what a run leaves behind, and what it refuses."""

from __future__ import annotations

import argparse
import logging
import math
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from synthpipe import checkpoints, registry
from synthpipe.cli import main
from synthpipe.cli import train as train_command
from synthpipe.config.deflow import TrainDeFlowOptions
from synthpipe.config.reader import parse_options
from synthpipe.config.run import RunOptions, ScheduleOptions
from synthpipe.config.training import changed_options, read_train_options, write_options
from synthpipe.errors import OptionError, ShapeError, TrainingError
from synthpipe.flows.deflow import DeFlow
from synthpipe.training import loop, train
from synthpipe.training.base import Objective
from synthpipe.training.loop import Trainer
from synthpipe.training.step.schedule import lr_factor
from synthpipe.transforms.batch import Batch

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


class Point(nn.Module):
    """One parameter, saved as the kind ``point``."""

    size_multiple = 1

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.config = {"start": start}
        self.at = nn.Parameter(torch.tensor(start))


class PointObjective(Objective):
    """Loss ``slope[step] * at``: gradients are what the test says."""

    def __init__(self, slopes: Sequence[float]) -> None:
        super().__init__(Point())
        self.slopes = slopes

    def forward(self, batch: Batch, seeds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        step = int(batch["step"])
        return self.model.at * self.slopes[min(step, len(self.slopes) - 1)], {}  # type: ignore[operator]

    def pictures(self, model: nn.Module, batch: Batch, seed: int) -> Tensor:
        return torch.full((3, 4, 5), 0.5)


class Counting:
    """A source of step numbers."""

    def __init__(self) -> None:
        self.step = 0
        self.closed = False

    def next_batch(self) -> Batch:
        self.step += 1
        return {"step": torch.tensor(self.step - 1), "slot": [0]}

    def example(self, count: int) -> None:
        return None

    def describe(self) -> dict[str, Any]:
        return {"counted": self.step}

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def point_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trainer]:
    """``point_run(slopes, **options)`` -> a trainer that has run."""
    monkeypatch.setitem(registry._KINDS, "point", Point)

    def run(slopes: Sequence[float], **changes: Any) -> Trainer:
        base = {"kind": "point", "run_dir": str(tmp_path / "run"), "device": "cpu", "log_every": 1}
        base |= {"optimizer": {"lr": 0.1}, "schedule": {"milestones": []}}
        options = parse_options(base | changes, RunOptions)
        trainer = Trainer(options, lambda: PointObjective(slopes), lambda rank, world: Counting())
        trainer.run()
        return trainer

    return run


def final(trainer: Trainer) -> float:
    model = trainer.objective.model
    assert isinstance(model, Point)
    return float(model.at.detach())


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.1), (4, 0.5), (9, 1), (49, 1), (50, 0.5), (74, 0.5), (75, 0.25), (99, 0.125)]
)
def test_constant_schedule_warms_up_and_halves_at_milestones(step: int, expected: float) -> None:
    options = ScheduleOptions(warmup_steps=10, milestones=(0.5, 0.75, 0.9), factor=0.5)
    assert lr_factor(options, step, 100) == pytest.approx(expected)


def test_cosine_schedule_falls_from_one_to_its_end() -> None:
    options = ScheduleOptions(kind="cosine", warmup_steps=5, final=0.1)
    factors = [lr_factor(options, step, 105) for step in range(105)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[104] == pytest.approx(0.1)
    # Halfway between step 5 and step 104 is 54.5: mean of the two beside it.
    assert (factors[54] + factors[55]) / 2 == pytest.approx(0.55, abs=1e-6)
    assert factors[4:] == sorted(factors[4:], reverse=True)


def test_adam_walks_at_its_rate_and_follows_the_schedule(point_run: Callable[..., Trainer]) -> None:
    # Adam's step under a constant gradient is lr, whatever the gradient.
    trainer = point_run([3.0], max_steps=10, schedule={"milestones": [0.5], "factor": 0.1})
    assert final(trainer) == pytest.approx(-(5 * 0.1 + 5 * 0.01), rel=1e-4)


def test_gradient_is_clipped_by_norm(point_run: Callable[..., Trainer], tmp_path: Path) -> None:
    # Adam with gradients 10 then 1 walks less in step two than with 1 and 1; clipped at 1 the two are equal.
    clipped = final(point_run([10.0, 1.0], max_steps=2, clip_norm=1.0, run_dir=str(tmp_path / "a")))
    unclipped = final(point_run([10.0, 1.0], max_steps=2, run_dir=str(tmp_path / "b")))
    assert clipped == pytest.approx(-0.2, rel=1e-4)
    assert unclipped == pytest.approx(-0.1 - 0.1 * _second_adam_step(10.0, 1.0), rel=1e-4)


def _second_adam_step(first: float, second: float) -> float:
    """Kingma & Ba 2015, algorithm 1, by hand: the second update over lr."""
    mean = (0.1 * 0.9 * first + 0.1 * second) / (1 - 0.9**2)
    square = (0.001 * 0.999 * first**2 + 0.001 * second**2) / (1 - 0.999**2)
    return mean / math.sqrt(square)


def test_average_of_weights_is_the_recursion(point_run: Callable[..., Trainer]) -> None:
    trainer = point_run([1.0], max_steps=30, ema_decay=0.5)
    places = [-0.1 * step for step in range(1, 31)]
    average = places[0]
    for count, place in enumerate(places[1:], start=1):
        decay = min(0.5, (1 + count) / (10 + count))
        average = decay * average + (1 - decay) * place
    saved = checkpoints.load(trainer.folder.path / "final.safetensors", "point")
    assert float(saved.at.detach()) == pytest.approx(average, rel=1e-4)  # type: ignore[operator, union-attr]


def test_bad_steps_change_nothing_and_are_counted(
    point_run: Callable[..., Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        trainer = point_run([1.0, math.nan, math.inf, 1.0], max_steps=5, max_bad_steps=2)
    assert final(trainer) == pytest.approx(-0.3, rel=1e-4)
    assert trainer.bad_steps.in_all == 2
    assert caplog.text.count("skipped: loss") == 2
    header = checkpoints.read_header(trainer.folder.path / "final.safetensors")
    assert header["info"]["skipped_steps"] == 2


def test_a_bad_last_step_is_counted_before_log_checkpoint_and_end(point_run: Callable[..., Trainer]) -> None:
    trainer = point_run([1.0, 1.0, 1.0, math.nan, 1.0, math.nan], max_steps=6, checkpoint_every=4, log_every=4)
    folder = trainer.folder.path
    assert torch.load(folder / "checkpoints" / "step_00000004.pt", weights_only=True)["bad_steps"] == [1, 1]
    assert "skipped_steps 1" in (folder / "log.txt").read_text()
    assert checkpoints.read_header(folder / "final.safetensors")["info"]["skipped_steps"] == 2


def test_a_checkpoint_of_an_earlier_version_goes_on(point_run: Callable[..., Trainer], tmp_path: Path) -> None:
    """tests/golden: written at b88faae, whose run to the end gave these weights, average and counts."""
    place = tmp_path / "run" / "checkpoints"
    place.mkdir(parents=True)
    shutil.copy(GOLDEN / "training_step_00000003_b88faae.pt", place / "step_00000003.pt")
    slopes = [1.0, math.nan, 3.0, 1.0, 0.5, 2.0]
    trainer = point_run(slopes, max_steps=6, checkpoint_every=3, resume="auto")
    assert final(trainer) == pytest.approx(-0.4430989623069763, rel=1e-6)
    assert float(trainer.averaged.module.at.detach()) == pytest.approx(-0.40108415484428406, rel=1e-6)
    assert (int(trainer.averaged.n_averaged), trainer.bad_steps.in_all) == (5, 1)


def test_too_many_bad_steps_in_a_row_end_the_run(
    point_run: Callable[..., Trainer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(TrainingError, match=r"3 steps in a row .*max_bad_steps=2 .*step 4, loss nan.*lower optimizer"):
        point_run([1.0, math.nan], max_steps=50, max_bad_steps=2)
    assert "ERROR stopped: 3 steps in a row" in (tmp_path / "run" / "log.txt").read_text()
    assert "stopped" not in caplog.text  # the caller has the error itself


def test_time_limit_stops_cleanly_with_weights(point_run: Callable[..., Trainer]) -> None:
    trainer = point_run([1.0], max_steps=10**9, max_minutes=1e-9)
    assert trainer.step == 0
    assert (trainer.folder.path / "final.safetensors").is_file()


def test_checkpoints_are_every_n_steps_and_only_the_last_stay(point_run: Callable[..., Trainer]) -> None:
    trainer = point_run([1.0], max_steps=11, checkpoint_every=2, keep_checkpoints=3)
    names = [path.name for path in sorted((trainer.folder.path / "checkpoints").iterdir())]
    assert names == ["step_00000008.pt", "step_00000010.pt", "step_00000011.pt"]
    state = torch.load(trainer.folder.path / "checkpoints" / names[0], weights_only=True)
    assert state["step"] == 8
    assert float(state["model"]["at"]) == pytest.approx(-0.8, rel=1e-4)


def test_a_deflow_run_leaves_all_that_is_promised(run_data: Callable[..., dict[str, Any]]) -> None:
    options = parse_options(run_data(), TrainDeFlowOptions)
    path = train(options)
    folder = Path(options.run_dir)
    assert read_train_options(folder / "options.yml") == options
    log = (folder / "log.txt").read_text()
    assert "clean: 3 images" in log
    assert "step 6: loss" in log
    for step in (3, 6):
        picture = np.asarray(Image.open(folder / "samples" / f"step_{step:08d}.png"))
        assert picture.shape == (2 * 16 + 2, 3 * 16 + 4, 3)
        assert len(np.unique(picture)) > 50
    assert _scalars(folder / "tb") >= {"loss", "bpd_clean", "bpd_noisy", "grad_norm", "lr", "shift_top"}
    header = checkpoints.read_header(path)
    assert header["info"]["steps"] == 6
    assert header["info"]["data"]["clean"]["images"] == 3
    assert math.isfinite(header["info"]["figures"]["bpd_noisy"])
    model = checkpoints.load(path, "deflow")
    picture_in = torch.rand(1, 3, 16, 16)
    assert model.degrade(picture_in, [torch.Generator().manual_seed(0)]).shape == picture_in.shape  # type: ignore


def _scalars(folder: Path) -> set[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return set(events.Tags()["scalars"])


def test_training_lowers_the_loss_and_two_runs_agree_to_the_bit(
    run_data: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    weights = []
    for name in ("a", "b"):
        data = run_data(run_dir=str(tmp_path / name), max_steps=40, optimizer={"lr": 0.01}, sample_every=1000)
        path = train(parse_options(data | {"log_every": 10, "checkpoint_every": 1000}, TrainDeFlowOptions))
        weights.append(checkpoints.load(path).state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    losses = [float(part.split("loss ")[1].split(",")[0]) for part in _log_lines(tmp_path / "a")]
    assert losses[-1] < losses[0] - 0.3


def _log_lines(folder: Path) -> list[str]:
    return [line for line in (folder / "log.txt").read_text().splitlines() if "loss " in line]


def test_init_weights_start_from_a_file(run_data: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    first = train(parse_options(run_data(), TrainDeFlowOptions))
    frozen = {"run_dir": str(tmp_path / "more"), "init_weights": str(first), "optimizer": {"lr": 1e-12}}
    second = train(parse_options(run_data(**frozen), TrainDeFlowOptions))
    before, after = checkpoints.load(first).state_dict(), checkpoints.load(second).state_dict()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)
    other = run_data(**frozen, model={"levels": 3, "steps": 1, "encoder": {"type": "small"}})
    other["run_dir"] = str(tmp_path / "other")
    with pytest.raises(OptionError, match=r"init_weights .*a DeFlow of .*expected a DeFlow of"):
        train(parse_options(other, TrainDeFlowOptions))


def test_bf16_trains_and_keeps_images_exact(
    run_data: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    nll = DeFlow.nll
    seen: list[bool] = []

    def checked(self: DeFlow, x: Tensor, *args: Any, **more: Any) -> Tensor:
        # bfloat16 has 8 bits of precision: levels above 128 would be off by up to half a level.
        seen.append(x.dtype == torch.float32 and bool(((x * 255).round() - x * 255).abs().max() < 1e-4))
        assert not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") == torch.bfloat16
        return nll(self, x, *args, **more)

    monkeypatch.setattr(DeFlow, "nll", checked)
    path = train(parse_options(run_data(precision="bf16-mixed"), TrainDeFlowOptions))
    assert seen == [True] * 7  # initialisation and six steps
    header = checkpoints.read_header(path)
    assert 0 < header["info"]["figures"]["bpd_clean"] < 20
    assert header["info"]["skipped_steps"] == 0


def test_options_that_cannot_run_say_so(run_data: Callable[..., dict[str, Any]]) -> None:
    data = run_data()
    with pytest.raises(OptionError, match=r"data.crop: expected a multiple of 4.*got 18"):
        train(parse_options(data | {"data": data["data"] | {"crop": 18}}, TrainDeFlowOptions))
    with pytest.raises(TrainingError, match="16-mixed needs a CUDA device"):
        train(parse_options(run_data(precision="16-mixed"), TrainDeFlowOptions))


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_cuda_that_is_not_there_is_refused(run_data: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(TrainingError, match="no CUDA device"):
        train(parse_options(run_data(device="cuda"), TrainDeFlowOptions))


def test_missing_extra_names_the_command(
    run_data: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(TrainingError, match=r"pip install 'synthpipe\[train\]'"):
        train(parse_options(run_data(), TrainDeFlowOptions))


def test_option_files_are_read_strictly(tmp_path: Path, run_data: Callable[..., dict[str, Any]]) -> None:
    path = tmp_path / "train.yml"
    options = parse_options(run_data(precision=32), TrainDeFlowOptions)
    write_options(path, options)
    assert read_train_options(path) == options
    changed = read_train_options(path, ["data.crop=32", "schedule.milestones=[0.3]", "kind=deflow"])
    assert isinstance(changed, TrainDeFlowOptions)
    assert (changed.data.crop, changed.schedule.milestones) == (32, (0.3,))
    with pytest.raises(OptionError, match=r"unknown option 'data.crops'; did you mean 'crop'"):
        read_train_options(path, ["data.crops=32"])
    with pytest.raises(OptionError, match=r"'kind': expected one of \[.*'dde'.*'deflow'.*got 'deflaw'"):
        read_train_options(path, ["kind=deflaw"])
    with pytest.raises(OptionError, match="even 'batch_size'"):
        read_train_options(path, ["data.batch_size=5"])
    with pytest.raises(OptionError, match="rising 'milestones'"):
        read_train_options(path, ["schedule.milestones=[0.9, 0.5]"])


def test_changed_options_are_named_and_harmless_ones_are_not() -> None:
    before = {"optimizer": {"lr": 1, "eps": 2}, "run_dir": "a", "data": {"workers": 1}, "seed": 3}
    now = {"optimizer": {"lr": 5, "eps": 2}, "run_dir": "b", "data": {"workers": 4}, "seed": 3}
    assert changed_options(before, now) == ["optimizer.lr: was 1, now 5"]


def test_command_trains_and_prints_the_path(
    run_data: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "train.yml"
    write_options(path, parse_options(run_data(), TrainDeFlowOptions))
    parser = argparse.ArgumentParser()
    train_command.add_parser(parser.add_subparsers())
    assert train_command.run(parser.parse_args(["train", str(path), "max_steps=2"])) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "run" / "final.safetensors")
    with pytest.raises(TrainingError, match="already holds a run"):
        train_command.run(parser.parse_args(["train", str(path), "max_steps=2"]))
    assert train_command.run(parser.parse_args(["train", str(path), "max_steps=2", "--resume"])) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_the_command_with_weights(
    number: int, run_data: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.yml"
    write_options(path, parse_options(run_data(max_steps=10**6, sample_every=10**6), TrainDeFlowOptions))
    step = Trainer._one_step

    def signalled(self: Trainer, batch: Batch) -> dict[str, Tensor]:
        if self.step == 4:
            os.kill(os.getpid(), number)
        return step(self, batch)

    monkeypatch.setattr(Trainer, "_one_step", signalled)
    before = signal.getsignal(number)
    args = argparse.Namespace(options=str(path), overrides=[], resume=False)
    assert train_command.run(args) == 0
    assert signal.getsignal(number) is before
    assert checkpoints.read_header(tmp_path / "run" / "final.safetensors")["info"]["steps"] == 5
    assert (tmp_path / "run" / "checkpoints" / "step_00000005.pt").is_file()


def test_exit_codes_tell_usage_from_failure(
    run_data: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "train.yml"
    write_options(path, parse_options(run_data(), TrainDeFlowOptions))
    assert main(["train", str(path), "data.corp=32"]) == 2
    assert "did you mean 'crop'?" in capsys.readouterr().err
    assert main(["train", str(path), "data.clean.folder=/nowhere"]) == 1
    assert "image folder '/nowhere' does not exist" in capsys.readouterr().err


def test_a_picture_that_fails_does_not_end_the_run(
    point_run: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> Tensor:
        raise ShapeError("the flow gave NaN or infinity")

    monkeypatch.setattr(PointObjective, "pictures", fail)
    assert point_run([1.0], max_steps=3, sample_every=2).step == 3
    assert "no sample picture at step 2: the flow gave NaN" in caplog.text


def test_loss_scaling_recovers_from_overflow_and_resumes(
    point_run: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The float16 path, with the library's own scaler on the CPU: no device with float16 is needed for its logic."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.precision.amp import MixedPrecision

    def scaled(options: RunOptions) -> Fabric:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
        return Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])

    monkeypatch.setattr(loop, "start_fabric", scaled)
    # The scaled gradient 1e35 * 2^16 overflows float32 once, then 2^15 as well; unscaled gradients would be fine.
    slopes = [1.0, 1e35, 1e35, 1.0]
    trainer = point_run(slopes, max_steps=6, precision="16-mixed", clip_norm=1.0, checkpoint_every=4)
    assert trainer.bad_steps.in_all == 2
    assert trainer.fabric.strategy.precision.state_dict()["scale"] == 2.0**14
    assert final(trainer) == pytest.approx(-0.4, rel=1e-3)
    (trainer.folder.path / "checkpoints" / "step_00000006.pt").unlink()
    again = point_run(slopes, max_steps=6, precision="16-mixed", clip_norm=1.0, checkpoint_every=4, resume="auto")
    assert again.fabric.strategy.precision.state_dict() == trainer.fabric.strategy.precision.state_dict()
    assert final(again) == final(trainer)


@pytest.mark.parametrize(("slopes", "steps", "skipped"), [([1.0, math.nan], 6, 5), ([1.0, 1.0, math.inf], 5, 3)])
def test_a_run_of_mostly_skipped_steps_is_no_result(
    point_run: Callable[..., Trainer], tmp_path: Path, slopes: list[float], steps: int, skipped: int
) -> None:
    said = rf"{skipped} of {steps} steps were skipped.*no weights were written.*lower optimizer.lr or set clip_norm"
    for resume in ("never", "auto"):
        with pytest.raises(TrainingError, match=said):
            point_run(slopes, max_steps=steps, resume=resume)
    assert not (tmp_path / "run" / "final.safetensors").exists()
    assert (tmp_path / "run" / "checkpoints" / f"step_{steps:08d}.pt").is_file()
    assert f"ERROR stopped: {skipped} of {steps} steps" in (tmp_path / "run" / "log.txt").read_text()


def test_a_run_of_no_step_is_said(point_run: Callable[..., Trainer], caplog: pytest.LogCaptureFixture) -> None:
    point_run([1.0], max_steps=10, max_minutes=1e-9)
    assert "no step was done: the weights are those that the run began with" in caplog.text
