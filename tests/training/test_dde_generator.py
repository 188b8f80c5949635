"""Training a generator: whose turn it is, what is learned, exact resume, what a run leaves behind and refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from synthpipe import checkpoints
from synthpipe.config.dde_generator import GeneratorOptions, TrainDDEGeneratorOptions
from synthpipe.config.reader import parse_options
from synthpipe.config.training import read_train_options
from synthpipe.density import DensityEstimator
from synthpipe.density.dde import DDE
from synthpipe.density.dde_generator import DDEGenerator
from synthpipe.density.vector import VectorDDE
from synthpipe.errors import OptionError, TrainingError
from synthpipe.training import train
from synthpipe.training.base import step_seeds
from synthpipe.training.data.generator_data import BLOCK, build_source, sample_shape
from synthpipe.training.dde_generator import DDEGeneratorObjective, build_objective

ROOT = Path(__file__).resolve().parents[2]


class Line(nn.Module):
    """``x = a z + b``: a generator whose law is known."""

    shape, latent_size = (1,), 1

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.tensor(-0.4))

    def forward(self, z: Tensor) -> Tensor:
        return self.a * z + self.b


class Gaussian(DensityEstimator):
    """The exact smoothed density of N(mean, variance)."""

    def __init__(self, mean: float, variance: float) -> None:
        super().__init__()
        self.config = {"sigma_range": [0.1, 2.0]}
        self.mean, self.variance = nn.Parameter(torch.tensor(mean)), variance

    def log_density(self, y: Tensor, sigma: Tensor, domain: Tensor | None = None) -> Tensor:
        return -(y - self.mean).square().sum(1) / (2 * (self.variance + sigma**2))


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., TrainDDEGeneratorOptions]:
    """``options(**changes)``: a tiny run on points."""

    def make(**changes: Any) -> TrainDDEGeneratorOptions:
        base: dict[str, Any] = {
            "kind": "dde_generator",
            "run_dir": str(tmp_path / "run"),
            "device": "cpu",
            "max_steps": 8,
            "log_every": 4,
            "sample_every": 4,
            "sample_images": 2,
            "checkpoint_every": 3,
            "data": {"type": "points", "name": "rings", "batch_size": 16},
            "density": {"type": "vector", "width": 8, "depth": 1},
            "generator": {"latent": 2, "width": 8, "depth": 1, "start": 2, "every": 2},
            "sigma": [0.2, 1.0],
            "optimizer": {"lr": 1e-2},
        }
        return parse_options(base | changes, TrainDDEGeneratorOptions)

    return make


@pytest.fixture
def image_options(
    options: Callable[..., TrainDDEGeneratorOptions], photos: dict[str, str]
) -> Callable[..., TrainDDEGeneratorOptions]:
    """``image_options(**changes)``: a tiny run on grey crops from a folder."""

    def make(**changes: Any) -> TrainDDEGeneratorOptions:
        base = {
            "data": {
                "type": "images",
                "source": {"folder": photos["clean"]},
                "crop": 12,
                "channels": 1,
                "batch_size": 3,
            },
            "density": {"type": "pyramid", "width": 4, "levels": 2},
            "generator": {"latent": 3, "width": 4, "depth": 1, "start": 2, "every": 2},
        }
        return options(**(base | changes))

    return make


def objective_of_lines(**changes: Any) -> DDEGeneratorObjective:
    settings = GeneratorOptions(**({"start": 0, "every": 1} | changes))
    return DDEGeneratorObjective(Line(), Gaussian(1.0, 0.3), Gaussian(-0.4, 0.49), (0.5, 0.5), settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("power", [0, 1, 2])
def test_the_generators_gradient_is_that_of_the_weighted_divergence(power: int) -> None:
    objective = objective_of_lines(level_power=power)
    x = torch.zeros(400_000, 1)
    loss, numbers = objective({"x": x, "step": 0}, step_seeds(0, 0, range(4)))
    loss.backward()
    model = objective.model
    assert isinstance(model, Line)
    # KL(N(b, a^2 + s^2) || N(1, 0.3 + s^2)) at a = 0.7, b = -0.4, s = 0.5, differentiated by hand.
    by_a = 0.7 / 0.55 - 0.7 / 0.74
    by_b = (-0.4 - 1) / 0.55
    assert model.a.grad is not None
    assert model.b.grad is not None
    assert float(model.a.grad) == pytest.approx(0.5**power * by_a, rel=0.03)
    assert float(model.b.grad) == pytest.approx(0.5**power * by_b, rel=0.01)
    # The value of the loss is the two estimators' alone.
    assert float(loss.detach()) == pytest.approx(float(numbers["j_data"] + numbers["j_samples"]), rel=1e-6)


def test_the_generator_rests_before_its_start_and_between_its_turns() -> None:
    objective = objective_of_lines(start=3, every=2)
    turns = []
    for step in range(8):
        objective.zero_grad(set_to_none=True)
        loss, _ = objective({"x": torch.randn(8, 1), "step": step}, step_seeds(0, step, [0]))
        loss.backward()
        turns.append(all(p.grad is not None for p in objective.model.parameters()))
        assert objective.data_density.mean.grad is not None  # type: ignore[union-attr]
        assert objective.sample_density.mean.grad is not None  # type: ignore[union-attr]
    assert turns == [False, False, False, True, False, True, False, True]


def test_a_resting_generator_is_not_moved_by_the_optimizer(options: Callable[..., TrainDDEGeneratorOptions]) -> None:
    settings = options(max_steps=3, generator={"latent": 2, "width": 8, "depth": 1, "start": 3})
    torch.manual_seed(settings.seed)
    fresh = build_objective(settings).model.state_dict()
    trained = checkpoints.load(train(settings)).state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in fresh.items())


def test_a_gaussian_is_learned(options: Callable[..., TrainDDEGeneratorOptions], tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(4096, 2)) * [0.6, 0.3] + [1.0, -0.5]
    np.save(tmp_path / "points.npy", points.astype(np.float32))
    settings = options(
        data={"type": "array", "file": str(tmp_path / "points.npy"), "batch_size": 128},
        density={"type": "vector", "width": 24, "depth": 2, "spread": 1.0},
        generator={"latent": 2, "width": 16, "depth": 1, "spread": 1.0, "lr": 1e-3, "start": 50, "every": 1},
        optimizer={"lr": 1e-2, "betas": [0.9, 0.99]},
        schedule={"kind": "cosine"},
        ema_decay=0.98,
        max_steps=480,
        log_every=240,
        sample_every=480,
        checkpoint_every=480,
    )
    model = checkpoints.load(train(settings))
    x = model.sample(20_000, torch.Generator().manual_seed(0))  # type: ignore[operator]
    assert x.mean(0).tolist() == pytest.approx([1.0, -0.5], abs=0.06)
    assert x.std(0).tolist() == pytest.approx([0.6, 0.3], abs=0.06)
    log = [line for line in (tmp_path / "run" / "log.txt").read_text().splitlines() if "gap" in line]
    assert float(log[-1].split("gap ")[1].split(",")[0]) < 0.04


@pytest.mark.parametrize("kind", ["points", "images"])
def test_stopped_and_resumed_equals_uninterrupted(
    kind: str,
    options: Callable[..., TrainDDEGeneratorOptions],
    image_options: Callable[..., TrainDDEGeneratorOptions],
    tmp_path: Path,
) -> None:
    make = options if kind == "points" else image_options
    train(make(run_dir=str(tmp_path / "whole")))
    asked: list[int] = []
    train(make(run_dir=str(tmp_path / "cut")), stop=lambda: asked.append(1) or len(asked) > 5)  # type: ignore[func-returns-value]
    assert "5 of 8 steps done" in (tmp_path / "cut" / "log.txt").read_text()
    train(make(run_dir=str(tmp_path / "cut"), resume="auto"))
    states = [
        torch.load(tmp_path / name / "checkpoints" / "step_00000008.pt", weights_only=True) for name in ("whole", "cut")
    ]
    for part in ("model", "averaged", "companions"):
        assert states[0][part].keys() == states[1][part].keys()
        assert all(torch.equal(value, states[1][part][name]) for name, value in states[0][part].items())
    moments = [state["optimizer"]["state"] for state in states]
    assert moments[0].keys() == moments[1].keys()
    assert all(torch.equal(moments[0][key]["exp_avg"], moments[1][key]["exp_avg"]) for key in moments[0])
    # Both estimators are kept, and were trained apart.
    kept = states[0]["companions"]
    data, samples = ({n.split(".", 1)[1]: v for n, v in kept.items() if n.startswith(p)} for p in ("data_", "sample_"))
    assert data.keys() == samples.keys()
    assert any(not torch.equal(value, samples[name]) for name, value in data.items())


@pytest.mark.parametrize("kind", ["points", "images"])
def test_a_run_leaves_the_generator_and_pictures(
    kind: str,
    options: Callable[..., TrainDDEGeneratorOptions],
    image_options: Callable[..., TrainDDEGeneratorOptions],
    tmp_path: Path,
) -> None:
    from PIL import Image

    path = train((options if kind == "points" else image_options)())
    header = checkpoints.read_header(path)
    assert header["kind"] == "dde_generator"
    assert not {"data_density", "sample_density"} & {name.split(".")[0] for name in checkpoints.load(path).state_dict()}
    assert {"j_data", "j_samples", "gap", "slope_data", "slope_samples"} <= header["info"]["figures"].keys()
    picture = np.asarray(Image.open(tmp_path / "run" / "samples" / "step_00000008.png"))
    # Two densities of 160 cells with a line between; two crops of 12, enlarged by 6, over two samples.
    assert picture.shape == {"points": (160, 322, 3), "images": (2 * 72, 2 * 72, 3)}[kind]
    assert len(np.unique(picture)) > 3


def test_what_is_drawn_for_a_picture_moves_nothing(image_options: Callable[..., TrainDDEGeneratorOptions]) -> None:
    source = build_source(image_options().data, seed=1)
    before = source.state_dict()
    first = source.example(2)
    again = source.example(2)
    assert first is not None
    assert again is not None
    assert torch.equal(first["x"], again["x"])
    assert source.state_dict() == before
    source.close()


def test_colour_and_grey_crops(image_options: Callable[..., TrainDDEGeneratorOptions]) -> None:
    objective = build_objective(image_options())
    red = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    red[:, 0] = 255
    grey = objective._as_floats(red)
    assert grey.shape == (1, 1, 12, 12)
    # Rec. 601.
    assert float(grey.mean()) == pytest.approx(0.299, abs=1e-6)
    colour = image_options().data.model_copy(update={"channels": 3})
    assert sample_shape(colour) == (3, 12, 12)


def test_points_are_a_function_of_seed_and_step_and_share_generators_by_blocks(
    options: Callable[..., TrainDDEGeneratorOptions],
) -> None:
    data = options(data={"type": "points", "name": "rings", "batch_size": BLOCK + 1}).data
    first, again, other = (build_source(data, seed=seed) for seed in (3, 3, 4))
    batch = first.next_batch()
    assert batch["slot"] == [0, 1]
    assert torch.equal(batch["x"], again.next_batch()["x"])
    assert not torch.equal(batch["x"], first.next_batch()["x"])
    assert not torch.equal(batch["x"], other.next_batch()["x"])


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (np.zeros((5, 3), np.float64), (3,)),
        (np.full((5, 8, 9), 255, np.uint8), (1, 8, 9)),
        (np.ones((5, 3, 8, 8), np.float32), (3, 8, 8)),
    ],
)
def test_arrays_of_points_and_images(
    array: np.ndarray, shape: tuple[int, ...], options: Callable[..., TrainDDEGeneratorOptions], tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", array)
    density = {"type": "vector"} if len(shape) == 1 else {"type": "local", "width": 4, "depth": 2}
    settings = options(data={"type": "array", "file": str(tmp_path / "a.npy"), "batch_size": 4}, density=density)
    assert sample_shape(settings.data) == shape
    batch = build_source(settings.data, 0).next_batch()
    assert batch["x"].shape == (4, *shape)
    assert float(batch["x"].max()) == (0.0 if len(shape) == 1 else 1.0)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3), np.int32), "got int32"),
        (np.zeros((2, 3), np.uint16), "expected floating point or uint8, got uint16"),
        (np.zeros(3), r"got float64 \(3,\)"),
        (np.full((2, 8, 8), 1.5), r"must be in \[0, 1\], got 1.5 to 1.5"),
        (np.full((2, 2), np.nan), "expected finite values"),
        (np.zeros((0, 2)), "expected finite values"),
    ],
)
def test_arrays_that_cannot_be_used(
    array: np.ndarray, message: str, options: Callable[..., TrainDDEGeneratorOptions], tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(OptionError, match=rf"data.file .*a.npy.*{message}"):
        sample_shape(options(data={"type": "array", "file": str(tmp_path / "a.npy")}).data)


def test_a_file_that_is_no_array(options: Callable[..., TrainDDEGeneratorOptions], tmp_path: Path) -> None:
    for name, content in (("none.npy", None), ("text.npy", b"hello")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(OptionError, match=rf"{name}.*expected a NumPy file"):
            train(options(data={"type": "array", "file": str(tmp_path / name)}))


def test_a_resumed_run_needs_the_same_array(options: Callable[..., TrainDDEGeneratorOptions], tmp_path: Path) -> None:
    data = {"type": "array", "file": str(tmp_path / "a.npy"), "batch_size": 4}
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(9, 2)))
    train(options(data=data))
    np.save(tmp_path / "a.npy", np.random.default_rng(1).normal(size=(9, 2)))
    with pytest.raises(TrainingError, match=r"a.npy' does not hold what the run .*put it back"):
        train(options(data=data, resume="auto"))


def test_a_given_density_is_fixed(options: Callable[..., TrainDDEGeneratorOptions], tmp_path: Path) -> None:
    # exp(-|y|^2 / (2 v)) with v = 2 spread^2 + sigma^2 is exact for Gaussian data of variance 2 spread^2.
    density = VectorDDE(2, 4, 1, spread=1.0, sigma_range=(0.2, 1.0))
    nn.init.zeros_(density.head.weight)
    path = checkpoints.save(tmp_path / "d.safetensors", density)
    np.save(tmp_path / "a.npy", 2**0.5 * np.random.default_rng(0).normal(size=(4096, 2)))
    data = {"type": "array", "file": str(tmp_path / "a.npy"), "batch_size": 1024}
    settings = options(data=data, density={"type": "weights", "path": str(path)})
    train(settings)
    kept = torch.load(tmp_path / "run" / "checkpoints" / "step_00000008.pt", weights_only=True)["companions"]
    for name, value in density.state_dict().items():
        assert torch.equal(kept[f"data_density.{name}"], value)
    assert not torch.equal(kept["sample_density.head.weight"], density.head.weight)
    # The same weights on narrower data: the score is 2 / 0.05 times too weak at small levels.
    np.save(tmp_path / "a.npy", 0.05 * np.random.default_rng(0).normal(size=(4096, 2)))
    with pytest.raises(TrainingError, match=r"density.path has slope .* expected about 1"):
        train(settings.model_copy(update={"run_dir": str(tmp_path / "other")}))


def test_given_weights_that_do_not_fit(
    options: Callable[..., TrainDDEGeneratorOptions],
    image_options: Callable[..., TrainDDEGeneratorOptions],
    tmp_path: Path,
) -> None:
    generator = checkpoints.save(tmp_path / "g.safetensors", DDEGenerator([2], "residual", 2, 4, 1))
    with pytest.raises(OptionError, match=r"expected a density, got a DDEGenerator"):
        build_objective(options(density={"type": "weights", "path": str(generator)}))
    cube = checkpoints.save(tmp_path / "d.safetensors", VectorDDE(3, 4, 1))
    with pytest.raises(OptionError, match=r"expected {'dim': 2}, got a density of {'dim': 3"):
        build_objective(options(density={"type": "weights", "path": str(cube)}))
    other = checkpoints.save(tmp_path / "s.safetensors", VectorDDE(2, 4, 1, sigma_range=(0.5, 0.5)))
    with pytest.raises(OptionError, match=r"trained at noise levels \[0.2, 1.0\].*are of \[0.5, 0.5\]"):
        build_objective(options(density={"type": "weights", "path": str(other)}))
    colour = checkpoints.save(tmp_path / "c.safetensors", DDE(3, 4, 2, sigma_range=(0.2, 1.0)))
    with pytest.raises(OptionError, match=r"expected {'channels': 1}"):
        build_objective(image_options(density={"type": "weights", "path": str(colour)}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": 0}, "0 < low <= high in 'sigma'"),
        ({"sigma": [0.5, 0.2]}, "0 < low <= high in 'sigma'"),
        ({"precision": "bf16-mixed"}, "expected precision 32"),
        ({"density": {"type": "local"}, "sigma": 0.2}, r"range \[low, high\] in 'sigma'"),
        ({"density": {"type": "vector", "widht": 3}}, "did you mean 'width'"),
        ({"data": {"type": "pionts"}}, "'points', 'array', 'images'"),
    ],
)
def test_options_that_are_refused(
    changes: dict[str, Any], message: str, options: Callable[..., TrainDDEGeneratorOptions]
) -> None:
    with pytest.raises(OptionError, match=message):
        options(**changes)


def test_a_single_level_is_a_range_of_one(options: Callable[..., TrainDDEGeneratorOptions]) -> None:
    assert options(sigma=0.2).sigma == (0.2, 0.2)
    train(options(sigma=0.2, max_steps=4))


def test_parts_that_do_not_fit_together(
    options: Callable[..., TrainDDEGeneratorOptions], image_options: Callable[..., TrainDDEGeneratorOptions]
) -> None:
    with pytest.raises(OptionError, match=r"samples of shape \[2\], which need one of .*got 'pyramid'"):
        build_objective(options(density={"type": "pyramid"}))
    with pytest.raises(OptionError, match=r"samples of shape \[1, 12, 12\], .*got 'vector'"):
        build_objective(image_options(density={"type": "vector"}))
    with pytest.raises(OptionError, match=r"make no run: DDEGenerator: expected"):
        build_objective(options(generator={"network": "conv"}))
    with pytest.raises(OptionError, match=r"unknown point set 'squares'"):
        train(options(data={"type": "points", "name": "squares"}))
    with pytest.raises(OptionError, match=r"trains in one process, got 2"):
        build_source(options().data, 0, world_size=2)


@pytest.mark.parametrize("name", ["eight_gaussians", "two_spirals"])
def test_recipes_build(name: str, tmp_path: Path) -> None:
    path = ROOT / "recipes" / "dde_generator" / f"{name}.yml"
    settings = read_train_options(path, [f"run_dir={tmp_path / name}"])
    assert isinstance(settings, TrainDDEGeneratorOptions)
    assert build_objective(settings).model.shape == (2,)


def test_other_objectives_have_no_companions(run_data: Callable[..., dict[str, Any]]) -> None:
    from synthpipe.config.deflow import TrainDeFlowOptions

    settings = parse_options(run_data(max_steps=1, schedule={"milestones": []}), TrainDeFlowOptions)
    train(settings)
    state = torch.load(Path(settings.run_dir) / "checkpoints" / "step_00000001.pt", weights_only=True)
    assert state["companions"] == {}
    # A checkpoint of a version that did not write them is resumed all the same.
    del state["companions"]
    torch.save(state, Path(settings.run_dir) / "checkpoints" / "step_00000001.pt")
    train(settings.model_copy(update={"resume": "auto"}))
