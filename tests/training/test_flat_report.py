"""A DeFlow's run with piles that have flat areas: the curve, the best weights, the report; bits stay the same."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.config.deflow import TrainDeFlowOptions
from synthpipe.config.reader import parse_options
from synthpipe.errors import ShapeError, TrainingError
from synthpipe.flows.deflow import DeFlow
from synthpipe.flows.pile_levels import PileLevels
from synthpipe.noise_report import compare, figures_of_images, figures_of_pairs
from synthpipe.training import train
from synthpipe.training.checkpoint_file import read_checkpoint
from synthpipe.training.data import flat_calibration
from synthpipe.training.data.flat_calibration import FlatCalibration
from synthpipe.training.data.flat_judge import FlatJudge
from synthpipe.training.data.unpaired import UnpairedData
from synthpipe.training.deflow import DeFlowObjective
from synthpipe.training.step.best import BestWeights
from tests.noise_report.fields import Recipe, flat_images, with_noise

NOISE = Recipe(base=4, slope=2)


def write(folder: Path, images: list[Tensor]) -> str:
    folder.mkdir()
    for number, image in enumerate(images):
        pixels = (255 * image).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return str(folder)


@pytest.fixture
def options(tmp_path: Path, run_data: Callable[..., dict[str, Any]]) -> Callable[..., TrainDeFlowOptions]:
    clean = write(tmp_path / "flat_clean", flat_images(6, 0))
    noisy = write(tmp_path / "flat_noisy", with_noise(flat_images(6, 1), NOISE, 2))

    def make(name: str, **changes: Any) -> TrainDeFlowOptions:
        data = {"clean": {"folder": clean}, "noisy": {"folder": noisy}, "crop": 16, "batch_size": 4}
        run = run_data(run_dir=str(tmp_path / name), data=data, max_steps=6, sample_every=2, checkpoint_every=3)
        return parse_options(run | changes, TrainDeFlowOptions)

    return make


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "distance.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_writes_curve_best_weights_and_report(options: Callable[..., TrainDeFlowOptions], tmp_path: Path) -> None:
    final = train(options("run"))
    folder = tmp_path / "run"
    curve = rows(folder)
    assert [int(row["step"]) for row in curve] == [2, 4, 6]
    header = checkpoints.read_header(folder / "best.safetensors")["info"]
    distances = {int(row["step"]): float(row["distance"]) for row in curve}
    assert header["steps"] == max(step for step in distances if distances[step] <= min(distances.values()) + 0.006)
    assert header["distance"] == pytest.approx(distances[header["steps"]], rel=1e-4)
    report = json.loads((folder / "report.json").read_text())
    assert report["sides"][0]["distance"] == pytest.approx(header["distance"])
    places = {f"{name} images": str(tmp_path / f"flat_{name}") for name in ("clean", "noisy")}
    assert report["facts"] == places
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png") == 16
    assert "calibrate: true" in page
    # The same bits where nothing is measured.
    plain = train(options("plain", report=False))
    assert not (tmp_path / "plain" / "best.safetensors").exists()
    ours, theirs = (checkpoints.load(path).state_dict() for path in (final, plain))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_resumed_run_has_the_same_curve_and_best_weights(
    options: Callable[..., TrainDeFlowOptions], tmp_path: Path
) -> None:
    train(options("whole"))
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5  # before the sixth step, where the last checkpoint is the fifth's

    train(options("parts"), stop=stop)
    train(options("parts", resume="auto"))
    assert (tmp_path / "whole" / "distance.csv").read_text() == (tmp_path / "parts" / "distance.csv").read_text()
    whole, parts = (checkpoints.load(tmp_path / name / "best.safetensors").state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


@pytest.mark.usefixtures("few_tiles")
def test_a_curve_of_weights_without_their_correction_begins_anew(
    options: Callable[..., TrainDeFlowOptions], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint of before distances were those of corrected copies: it does not say what they are of."""
    changes: dict[str, Any] = {"calibrate": True, "max_steps": 4, "checkpoint_every": 2, "sample_every": 1}
    asked = iter(range(99))
    train(options("run", **changes), stop=lambda: next(asked) >= 2)
    path = tmp_path / "run" / "checkpoints" / "step_00000002.pt"
    state = torch.load(path, weights_only=False)
    state["best"].pop("measured", None)
    state["best"]["curve"][-1]["distance"] = 1e-6
    torch.save(state, path)
    with caplog.at_level("WARNING", "synthpipe.training"):
        train(options("run", resume="auto", **changes))
    assert (
        "are of weights as they were trained, or corrected (the checkpoint does not say), from here on of "
        in caplog.text
    )
    points = rows(tmp_path / "run")
    assert points
    assert all(int(row["step"]) > 2 for row in points)
    assert checkpoints.read_header(tmp_path / "run" / "best.safetensors")["info"]["steps"] > 2


def test_a_finished_run_that_is_started_again_writes_the_same(
    options: Callable[..., TrainDeFlowOptions], tmp_path: Path
) -> None:
    """No step between two checkpoints is left: losses and the last point are those of before."""
    changes = {"max_steps": 5, "checkpoint_every": 5, "log_every": 2}
    train(options("run", **changes))
    names = ("final.safetensors", "best.safetensors", "distance.csv", "report.json")
    before = [(tmp_path / "run" / name).read_bytes() for name in names]
    assert checkpoints.read_header(tmp_path / "run" / names[0])["info"]["figures"]["loss"] > 0
    train(options("run", resume="auto", **changes))
    assert [(tmp_path / "run" / name).read_bytes() for name in names] == before


def test_the_last_step_is_a_point_of_the_curve_whatever_sample_every_is(
    options: Callable[..., TrainDeFlowOptions], tmp_path: Path
) -> None:
    train(options("run", max_steps=5))
    assert [int(row["step"]) for row in rows(tmp_path / "run")] == [2, 4, 5]


@pytest.fixture
def moved_from_first(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The distance from the weights of the first measurement in place of the measure."""
    first: list[dict[str, Tensor]] = []

    def judge(self: DeFlowObjective, model: DeFlow, data: Any) -> dict[str, float]:
        now = {name: value.detach().clone() for name, value in model.named_parameters()}
        first.append(now)
        return {"distance": sum(float((value - first[0][name]).abs().sum()) for name, value in now.items())}

    monkeypatch.setattr(DeFlowObjective, "judge", judge)
    monkeypatch.setattr(DeFlowObjective, "pages", lambda *_: {})
    return first


@pytest.mark.usefixtures("moved_from_first")
def test_the_header_of_the_best_weights_tells_their_own_loss(
    options: Callable[..., TrainDeFlowOptions], tmp_path: Path
) -> None:
    """Against the losses of the log, a line for each step."""
    train(options("lines", log_every=1))
    log = (tmp_path / "lines" / "log.txt").read_text()
    losses = [float(found) for found in re.findall(r"step \d+: loss ([^,]+),", log)]
    assert len(set(losses)) == 6

    def loss_of(run: str, name: str) -> tuple[int, float]:
        info = checkpoints.read_header(tmp_path / run / name)["info"]
        return info["steps"], info["figures"]["loss"]

    assert loss_of("lines", "best.safetensors") == (2, pytest.approx(losses[1], rel=1e-4))
    assert loss_of("lines", "final.safetensors") == (6, pytest.approx(losses[5], rel=1e-4))
    # No line of the log before the last step: means since the first; stopped behind a line and gone on with.
    train(options("mean", log_every=100))
    assert loss_of("mean", "best.safetensors") == (2, pytest.approx(sum(losses[:2]) / 2, rel=1e-4))
    assert loss_of("mean", "final.safetensors") == (6, pytest.approx(sum(losses) / 6, rel=1e-4))
    asked: list[int] = []
    train(options("parts", log_every=4), stop=lambda: asked.append(1) or len(asked) > 5)  # type: ignore[func-returns-value]
    assert loss_of("parts", "final.safetensors") == (5, pytest.approx(losses[4], rel=1e-4))
    train(options("parts", log_every=4, resume="auto"))
    assert loss_of("parts", "best.safetensors") == (2, pytest.approx(sum(losses[:2]) / 2, rel=1e-4))
    assert loss_of("parts", "final.safetensors") == (6, pytest.approx(losses[5], rel=1e-4))


def test_images_without_a_flat_area_are_told_before_the_first_step(
    options: Callable[..., TrainDeFlowOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rough = write(tmp_path / "rough", list(torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))))
    black = write(tmp_path / "black", [torch.zeros(3, 64, 64)] * 4)
    known = options("run").data.model_dump(mode="json")
    changes = {"calibrate": True, "data": known | {"clean": {"folder": rough}}}
    with pytest.raises(TrainingError, match="none of 128 clean crops of 16 pixels has a flat area; set it to false"):
        train(options("run", **changes))
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    with pytest.raises(TrainingError, match="none of 4 noisy images of about one level has a flat area"):
        train(options("other", calibrate=True, data=known | {"noisy": {"folder": black}}))
    # Should it fail at the end all the same, what was trained is there.
    plain = train(options("plain", data=changes["data"]))
    monkeypatch.setattr("synthpipe.training.deflow.check_flat_areas", lambda _: None)
    with pytest.raises(TrainingError, match="none of 128 clean crops"):
        train(options("late", **changes))
    assert not (tmp_path / "late" / "final.safetensors").exists()
    kept, wanted = (checkpoints.load(path) for path in (tmp_path / "late" / "unfinished.safetensors", plain))
    theirs = wanted.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in kept.state_dict().items())
    assert "unfinished.safetensors" in (tmp_path / "late" / "log.txt").read_text()


@pytest.mark.parametrize("corrected", [False, True])
def test_weights_that_were_better_before_the_last_step_are_kept(
    corrected: bool,
    options: Callable[..., TrainDeFlowOptions],
    tmp_path: Path,
    moved_from_first: list[dict[str, Tensor]],
) -> None:
    final = train(options("moved", calibrate=corrected))
    assert [float(row["distance"]) > 0 for row in rows(tmp_path / "moved")] == [False, True, True]
    best_path = tmp_path / "moved" / "best.safetensors"
    best = checkpoints.read_header(best_path)["info"]
    assert ("calibration" in best) == corrected
    assert (best["steps"], best["distance"]) == (2, 0)
    # The best weights are finished as those of the last step are, though they were kept before that.
    assert [("correction" in checkpoints.load(path).config) for path in (best_path, final)] == [corrected] * 2
    kept = dict(checkpoints.load(best_path).named_parameters())
    assert all(torch.equal(value, kept[name]) for name, value in moved_from_first[0].items())
    assert any(not torch.equal(value, kept[name]) for name, value in checkpoints.load(final).named_parameters())


@pytest.mark.parametrize(
    ("curve", "kept"),
    [
        ((0.121, 0.1215, 0.130), 4),  # as near as the measurement tells: the later one
        ((0.15, 0.29, 0.51), 2),  # strength runs away: the early one
    ],
)
def test_of_weights_that_the_distance_cannot_tell_apart_the_last_are_kept(
    curve: tuple[float, ...],
    kept: int,
    options: Callable[..., TrainDeFlowOptions],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = iter((*curve, curve[-1], curve[kept // 2 - 1]))  # the last two when finished
    monkeypatch.setattr(DeFlowObjective, "judge", lambda *_: {"distance": next(measured)})
    monkeypatch.setattr(DeFlowObjective, "pages", lambda *_: {})
    train(options("run", checkpoint_every=1, keep_checkpoints=9))
    best = checkpoints.read_header(tmp_path / "run" / "best.safetensors")["info"]
    assert (best["steps"], best["distance"]) == (kept, curve[kept // 2 - 1])
    averaged = read_checkpoint(tmp_path / "run" / "checkpoints" / f"step_{kept:08d}.pt")["averaged"]
    weights = checkpoints.load(tmp_path / "run" / "best.safetensors").state_dict()
    assert all(torch.equal(value, averaged[f"module.{name}"]) for name, value in weights.items())


@pytest.mark.parametrize(
    ("curve", "kept"),
    [
        ((0.130, 0.121, 0.126), 3),
        ((0.121, 0.126, 0.131), 2),  # each alike with the one before, the last not with the least
        ((0.15, 0.51, 0.153), 3),
        ((0.15, 0.15), 2),
    ],
)
def test_alike_is_what_is_within_the_error_of_the_least(curve: tuple[float, ...], kept: int) -> None:
    best, model = BestWeights(alike=0.006), torch.nn.Linear(1, 1)
    for step, distance in enumerate(curve, 1):
        best.add(step, {"distance": distance}, model, {})
    assert best.step == kept


def test_draws_are_alike_and_a_few_per_cent_of_strength_are_not(options: Callable[..., TrainDeFlowOptions]) -> None:
    """Squares without texture are told 4% weak: noise 5% and 10% stronger, both more than what the pile is told."""
    from synthpipe.training.data.flat_judge import ALIKE

    data = UnpairedData(options("judge").data, seed=0)
    real, clean = FlatJudge(data)._real, flat_images(12, 5)
    data.close()
    assert real is not None

    def distance(draw: int, factor: float) -> float:
        made = figures_of_pairs(zip(clean, with_noise(clean, NOISE, draw, factor), strict=True))
        found = None if made is None else compare(made, real)
        assert found is not None
        return found.distance

    near, far = (torch.tensor([distance(draw, factor) for draw in range(20, 26)]) for factor in (1.05, 1.1))
    assert 2**0.5 * near.std() < 1.5 * ALIKE
    assert far.mean() - near.mean() == pytest.approx(0.05, abs=0.01)
    assert float(far.mean() - near.mean()) > 5 * ALIKE


@pytest.fixture
def few_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer for the correction, and small ones."""
    for name, value in {"CANDIDATES": 6, "TILES": 4, "TILE": 64, "SIDE": 3}.items():
        monkeypatch.setattr(flat_calibration, name, value)


@pytest.mark.usefixtures("few_tiles")
def test_with_calibrate_the_curve_is_of_weights_as_they_will_be_used(
    options: Callable[..., TrainDeFlowOptions], tmp_path: Path
) -> None:
    """Each step of an uncorrected run, corrected by hand; what training does to the weights is the same."""
    plain = options("plain", max_steps=4, checkpoint_every=2, keep_checkpoints=9)
    train(plain)
    final = train(options("corrected", max_steps=4, calibrate=True))
    data = UnpairedData(plain.data, plain.seed)
    curve = rows(tmp_path / "corrected")
    for row, before in zip(curve, rows(tmp_path / "plain"), strict=True):
        state = read_checkpoint(tmp_path / "plain" / "checkpoints" / f"step_{int(row['step']):08d}.pt")["averaged"]
        model = checkpoints.load(tmp_path / "plain" / "final.safetensors", kind="deflow")
        names = {name.removeprefix("module."): value for name, value in state.items() if name.startswith("module.")}
        model.load_state_dict(names)
        FlatCalibration(data)(model)  # type: ignore[arg-type]
        found = FlatJudge(data).compare(model.eval())  # type: ignore[arg-type]
        assert found is not None
        assert float(row["distance"]) == pytest.approx(found.distance, rel=1e-3)
        assert float(row["distance"]) < 0.5 * float(before["distance"])
    data.close()
    header = checkpoints.read_header(tmp_path / "corrected" / "best.safetensors")["info"]
    assert {"step": str(header["steps"]), "distance": f"{header['distance']:.6g}"}.items() <= curve[-1].items()
    ours, theirs = (checkpoints.load(path).state_dict() for path in (final, tmp_path / "plain" / "final.safetensors"))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.usefixtures("few_tiles")
def test_weights_that_cannot_be_corrected_are_no_point_of_the_curve(
    options: Callable[..., TrainDeFlowOptions], caplog: pytest.LogCaptureFixture
) -> None:
    run = options("run", max_steps=1, report=False)
    model = checkpoints.load(train(run), kind="deflow").eval()
    objective = DeFlowObjective(model, calibrate=True, report=True)  # type: ignore[arg-type]
    data = UnpairedData(run.data, run.seed)
    assert objective.judge(model, data) is not None  # type: ignore[arg-type]
    assert model.correction is None
    with torch.no_grad():
        for value in model.parameters():
            value.fill_(float("nan"))
    with caplog.at_level("WARNING", "synthpipe.training"):
        assert objective.judge(model, data) is None  # type: ignore[arg-type]
    assert "cannot be calibrated" in caplog.text
    data.close()


def test_a_correction_that_fails_ends_no_training_before_the_weights_are_kept(
    options: Callable[..., TrainDeFlowOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried for each point of the curve; at the end its error is told, and what was trained is there."""

    def fails(images: Iterable[Tensor]) -> None:
        raise ShapeError("measure_flat_noise: no flat area")

    monkeypatch.setattr(flat_calibration, "measure_flat_noise", fails)
    with pytest.raises(ShapeError, match="no flat area"):
        train(options("failed", calibrate=True, max_steps=1))
    assert (tmp_path / "failed" / "unfinished.safetensors").exists()
    assert (tmp_path / "failed" / "log.txt").read_text().count("cannot be calibrated: measure_flat_noise") == 1


def test_the_judge_measures_what_a_model_adds(options: Callable[..., TrainDeFlowOptions]) -> None:
    """In place of a flow one that adds the pile's own noise, and one of half of it."""

    class Adds(FlatJudge):
        factor = 1.0

        def _made(self, model: Any) -> list[tuple[Tensor, Tensor]]:
            clean = list(self._tiles)  # type: ignore[arg-type]
            return list(zip(clean, with_noise(clean, NOISE, 9, self.factor), strict=True))

    data = UnpairedData(options("judge").data, seed=0)
    judge = Adds(data)
    good = judge.compare(None)  # type: ignore[arg-type]
    judge.factor = 0.5
    half = judge.compare(None)  # type: ignore[arg-type]
    data.close()
    assert good is not None
    assert half is not None
    assert good.distance < 0.12
    assert half.summary()["sigma_ratio"] == pytest.approx(0.5, abs=0.05)
    assert half.distance > 0.6


def test_levels_are_not_taken_for_brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of one brightness each, white noise of exactly the level that is asked for; the pile has it everywhere."""
    low, high = 2 / 255, 6 / 255

    class Follows:
        def __init__(self, model: Any) -> None:
            pass

        def degrade_with(self, x: Tensor, noise: Any, level: Tensor) -> Tensor:
            draws = torch.Generator().manual_seed(int(1e4 * float(x.mean())))
            return x + level[:, None, None, None] * torch.randn(x.shape, generator=draws)

    monkeypatch.setattr("synthpipe.training.data.flat_judge.FrozenDeFlow", Follows)
    model = torch.nn.Linear(1, 1)
    model.pile = PileLevels()
    model.pile.see([low, high])
    brightness = (torch.arange(1, 7) + 0.5) / 8
    stripes = brightness.repeat_interleave(64).expand(3, 256, -1)
    draws = torch.Generator().manual_seed(0)
    pile = [stripes + level * torch.randn(stripes.shape, generator=draws) for level in (low, high) for _ in range(2)]
    judge = FlatJudge(None)  # type: ignore[arg-type]
    judge._real = figures_of_images(pile)
    judge._tiles = brightness[:, None, None, None].expand(-1, 3, 96, 96).contiguous()
    found = judge.compare(model)  # type: ignore[arg-type]
    assert found is not None
    assert found.log_strength == pytest.approx(0, abs=0.05)
    seen = [ratio for ratio in found.log_brightness if ratio is not None]
    assert len(seen) == 6
    assert max(map(abs, seen)) < 0.08


def test_damaged_best_weights_are_refused(options: Callable[..., TrainDeFlowOptions], tmp_path: Path) -> None:
    train(options("run"))
    path = tmp_path / "run" / "checkpoints" / "step_00000006.pt"
    state = torch.load(path, weights_only=True)
    assert read_checkpoint(path)["best"]["step"] in (2, 4, 6)
    known = state["best"]
    for wrong in (
        {"curve": 3},
        {**known, "step": -1},
        {**known, "curve": [{"distance": "x"}]},
        {**known, "info": {"steps": "x"}},
        {**known, "info": {"figures": {"loss": [1]}}},
    ):
        torch.save({**state, "best": wrong}, path)
        with pytest.raises(TrainingError, match="best: expected a curve"):
            read_checkpoint(path)
    torch.save({**state, "figures": {"loss": "x"}}, path)
    with pytest.raises(TrainingError, match="figures: expected names with numbers"):
        read_checkpoint(path)
    torch.save({name: value for name, value in state.items() if name not in ("best", "figures")}, path)
    assert not {"best", "figures"} & read_checkpoint(path).keys()  # a run of an older version


def test_best_weights_are_those_of_the_least_distance() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    best = BestWeights()
    for step, distance in ((10, 0.5), (20, 0.3), (30, 0.4)):
        torch.nn.init.constant_(model.weight, step)
        about = {"steps": step, "figures": {"loss": step / 100}}
        assert best.add(step, {"distance": distance}, model, about) == (step != 30)
    kept = best.earlier_than(30, torch.nn.Linear(1, 1, bias=False))
    assert kept is not None
    assert kept.state_dict()["weight"].tolist() == [[20.0]]
    assert best.earlier_than(20, torch.nn.Linear(1, 1, bias=False)) is None
    assert best.table().splitlines() == ["step,distance", "10,0.5", "20,0.3", "30,0.4"]
    again = BestWeights()
    again.load_state_dict(best.state_dict())
    assert (again.step, again.table()) == (20, best.table())
    assert again.info == {"steps": 20, "figures": {"loss": 0.2}}
    assert (again.knows(30), again.knows(25)) == (True, False)
    assert not again.add(40, {"distance": 0.31}, model, {})
    older = {name: value for name, value in best.state_dict().items() if name not in ("info", "measured")}
    again.load_state_dict(older)
    assert again.info == {"steps": 20, "figures": {}}
