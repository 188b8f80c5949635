"""Training MAP denoisers: levels and inputs, both priors, what may be combined, and that it resumes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from synthpipe import checkpoints
from synthpipe.config.dde import TrainDDEOptions
from synthpipe.config.map_denoiser import TrainMapDenoiserOptions
from synthpipe.config.plain_denoiser import TrainPlainDenoiserOptions
from synthpipe.config.reader import parse_options
from synthpipe.config.training import read_train_options
from synthpipe.denoisers import MapDenoiser, PlainDenoiser
from synthpipe.denoisers.map_denoiser import dde_map_objective
from synthpipe.density import DDE, dde_loss
from synthpipe.errors import CheckpointError, OptionError
from synthpipe.training import train
from synthpipe.training.base import step_seeds
from synthpipe.training.map_denoiser import AutoencoderPrior, DensityPrior, MapDenoiserObjective, build_objective
from synthpipe.transforms.batch import Batch

RECIPES = Path(__file__).parents[2] / "recipes"
SIZE = {"channels": 1, "width": 4, "depth": 3}
LEVELS = (0.02, 0.2)


def small_density(**changes: Any) -> DDE:
    return DDE(**{"channels": 1, "width": 4, "depth": 2, "outputs": 2, "sigma_range": LEVELS, **changes})


def batch_of(x: Tensor) -> Batch:
    return {"x": x, "slot": list(range(len(x))), "key": ["k"] * len(x)}


class Recorder(AutoencoderPrior):
    """An autoencoder that remembers what the loss was given."""

    def loss(self, d: Tensor, v: Tensor, sigma: Tensor, s: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.given = {"d": d.detach(), "v": v, "sigma": sigma, "s": s, "noise": noise}
        return super().loss(d, v, sigma, s, noise)


def objective_of(input_noise: float, **changes: Any) -> tuple[MapDenoiserObjective, Recorder]:
    model = MapDenoiser(**{**SIZE, "sigma_range": LEVELS, **changes})
    recorder = Recorder(PlainDenoiser(**SIZE), trained=True)
    return MapDenoiserObjective(model, recorder, input_noise, level_power=1.0), recorder


def test_levels_are_log_uniform_and_inputs_carry_their_noise() -> None:
    objective, recorder = objective_of(input_noise=1.5, smoothing=0.25)
    batch = batch_of(torch.full((400, 3, 16, 16), 100, dtype=torch.uint8))
    objective(batch, step_seeds(0, 0, batch["slot"]))
    sigma, s = recorder.given["sigma"], recorder.given["s"]
    assert_close(s, 0.25 * sigma)
    place = ((sigma / LEVELS[0]).log() / math.log(LEVELS[1] / LEVELS[0])).sort().values
    # Kolmogorov-Smirnov against the uniform law, 400 draws: 1.95 / sqrt(400) is its 0.1 % point.
    assert float((place - torch.arange(1, 401) / 400).abs().max()) < 1.95 / 20
    strength = (recorder.given["v"] - 100 / 255).flatten(1).std(1) / sigma  # uniform in [0, 1.5], 5 % of sampling error
    assert float(strength.min()) < 0.05
    assert 1.3 < float(strength.max()) < 1.75
    assert float(strength.mean()) == pytest.approx(0.75, abs=0.08)
    assert abs(float(torch.corrcoef(torch.stack([strength, sigma.log()]))[0, 1])) < 0.2
    assert float(recorder.given["noise"].std()) == pytest.approx(1, abs=0.02)


def test_clean_inputs_as_in_the_paper() -> None:
    objective, recorder = objective_of(input_noise=0)
    batch = batch_of(torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8))
    objective(batch, step_seeds(0, 0, batch["slot"]))
    grey = (batch["x"] / 255 * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    assert_close(recorder.given["v"], grey)


def test_the_loss_is_the_weighted_sum_of_the_model_and_its_companion() -> None:
    objective, recorder = objective_of(input_noise=1.0)
    batch = batch_of(torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8))
    loss, numbers = objective(batch, step_seeds(0, 0, batch["slot"]))
    given = recorder.given
    with torch.no_grad():
        s = given["s"][:, None, None, None]
        r = recorder.denoiser(given["d"] + s * given["noise"], given["s"])
    prior = (given["d"] - r).square().mean((1, 2, 3)) * (given["sigma"] / given["s"]).square()
    own = float(numbers["mse_prior"]) / 255**2
    step = (given["d"] - given["v"]).square().mean((1, 2, 3))
    # Level weights are around the middle of the range, sqrt(0.02 * 0.2).
    weight = 0.0632456 / given["sigma"]
    rest = float(loss.detach()) / 255**2 - float((weight * (prior + step)).mean())
    assert float(weight.min()) * own <= rest + 1e-6
    assert rest - 1e-6 <= float(weight.max()) * own
    assert float(numbers["step"]) == pytest.approx(float((step.sqrt() / given["sigma"]).mean()), rel=1e-4)


def test_the_models_loss_trains_the_model_alone_and_the_companions_its_own() -> None:
    objective, recorder = objective_of(input_noise=1.0)
    x = torch.rand(2, 1, 8, 8)
    sigma = torch.tensor([0.05, 0.1])
    noise = torch.randn(x.shape)
    d = objective.model(x, sigma)
    recorder.loss(d, x, sigma, 0.5 * sigma, noise)[0].sum().backward()
    assert all(parameter.grad is None for parameter in recorder.parameters())
    assert all(parameter.grad is not None for parameter in objective.model.parameters())
    objective.zero_grad()
    recorder.own_loss(x, sigma, noise).sum().backward()
    assert all(parameter.grad is None for parameter in objective.model.parameters())
    trained = {id(p) for group in objective.parameter_groups(read_adam()) for p in group["params"]}
    assert trained == {id(parameter) for parameter in objective.parameters()}
    frozen = AutoencoderPrior(PlainDenoiser(**SIZE), trained=False)
    alone = MapDenoiserObjective(MapDenoiser(**SIZE), frozen, 1.0, 1.0)
    trained = {id(p) for group in alone.parameter_groups(read_adam()) for p in group["params"]}
    assert trained == {id(parameter) for parameter in alone.model.parameters()}


def read_adam() -> Any:
    return read_train_options(RECIPES / "map_grey" / "train.yml").optimizer


def test_the_gradient_through_the_density_is_that_of_the_objective() -> None:
    """In float64 against differences, through the model and the density's own gradient of a gradient."""
    torch.manual_seed(1)
    density = small_density().double()
    for parameter in density.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    prior = DensityPrior(density)
    v, noise = torch.rand(1, 1, 5, 5, dtype=torch.float64), torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    sigma = torch.tensor([0.1], dtype=torch.float64)

    def loss(d: Tensor) -> Tensor:
        return prior.loss(d, v, sigma, 0.5 * sigma, noise)[0]

    d = (v + 0.05).requires_grad_(True)
    assert torch.autograd.gradcheck(loss, d)
    assert torch.autograd.gradgradcheck(loss, d)
    (gradient,) = torch.autograd.grad(loss(d).sum(), d)
    score = density.score(d, 0.5 * sigma)
    # 2 sigma^2 / 25 values * ((d - v) / sigma^2 - score)
    assert_close(gradient, 2 / 25 * ((d - v) - sigma**2 * score).detach())
    assert all(parameter.grad is None for parameter in density.parameters())


def ramps(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Smooth pictures ``(count, 1, side, side)``: a slope of a random direction and a step."""
    place = torch.linspace(-1, 1, side)
    a, b, edge = torch.rand(3, count, 1, 1, generator=generator)
    picture = 0.5 + 0.3 * (a - 0.5) * place[:, None] + 0.3 * (b - 0.5) * place + 0.2 * (place > edge - 0.5)
    return picture[:, None]


def test_the_objective_is_lower_than_at_the_input_and_at_the_least_squares_estimate() -> None:
    """Acceptance check 5, in the small: a density and its MAP denoiser, patches that neither saw."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    density = small_density(width=8, depth=3, outputs=8)
    optimizer = torch.optim.Adam(density.parameters(), 0.02)
    level = torch.full((8,), 0.1)
    for _ in range(120):
        x = ramps(8, 16, generator)
        optimizer.zero_grad()
        dde_loss(density, x, level, torch.randn(x.shape, generator=generator)).mean().backward()
        optimizer.step()
    model = MapDenoiser(1, 12, 4, LEVELS, smoothing=1.0)
    prior = DensityPrior(density)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(200):
        x = ramps(8, 16, generator)
        v = x + 0.1 * torch.randn(x.shape, generator=generator)
        optimizer.zero_grad()
        (100 * prior.loss(model(v, level), v, level, level, v)[0]).mean().backward()
        optimizer.step()
    v = ramps(60, 16, generator)
    v = v + 0.1 * torch.randn(v.shape, generator=generator)
    level = torch.full((60,), 0.1)

    def value(candidate: Tensor) -> Tensor:
        return dde_map_objective(candidate, density.log_density(candidate, level), v, level).detach()

    at_d = value(model(v, level))
    assert float((at_d < value(v)).float().mean()) >= 0.95
    assert float((at_d < value(density.denoise(v, level))).float().mean()) >= 0.95


@pytest.fixture
def run_map(tiny_run: dict[str, Any], photos: dict[str, str]) -> Callable[..., TrainMapDenoiserOptions]:
    """``run_map(**changes)``: the options of a tiny run on drawn pictures."""

    def make(**changes: Any) -> TrainMapDenoiserOptions:
        base: dict[str, Any] = {
            "kind": "map_denoiser",
            **tiny_run,
            "optimizer": {"lr": 1e-3},
            "model": {**SIZE, "sigma_range": LEVELS},
            "data": {"images": {"folder": photos["clean"]}, "crop": 16, "batch_size": 4},
        }
        return parse_options(base | changes, TrainMapDenoiserOptions)

    return make


def test_interrupted_and_resumed_equals_left_alone(
    run_map: Callable[..., TrainMapDenoiserOptions], tmp_path: Path
) -> None:
    """With a companion, whose weights and moments must come back too."""
    train(run_map(run_dir=str(tmp_path / "whole")))
    asked: list[None] = []

    def stop() -> bool:
        asked.append(None)
        return len(asked) > 3

    train(run_map(run_dir=str(tmp_path / "broken")), stop=stop)
    train(run_map(run_dir=str(tmp_path / "broken"), resume="auto"))
    states = [
        torch.load(tmp_path / name / "checkpoints" / "step_00000006.pt", weights_only=True)
        for name in ("whole", "broken")
    ]
    for part in ("model", "averaged", "companions"):
        assert states[0][part]
        assert all(torch.equal(value, states[1][part][name]) for name, value in states[0][part].items())
    final = checkpoints.load(tmp_path / "whole" / "final.safetensors", kind="map_denoiser")
    assert isinstance(final, MapDenoiser)
    assert final.sigma_range == LEVELS
    assert not any("prior" in name for name in final.state_dict())
    assert (tmp_path / "whole" / "samples" / "step_00000003.png").is_file()


def saved(path: Path, model: torch.nn.Module) -> str:
    return str(checkpoints.save(path, model))


def test_a_frozen_teacher_stays_and_the_model_starts_from_it(
    run_map: Callable[..., TrainMapDenoiserOptions], tmp_path: Path
) -> None:
    teacher = PlainDenoiser(**SIZE)
    path = saved(tmp_path / "teacher.safetensors", teacher)
    options = run_map(prior={"type": "dae", "teacher": path, "train": False}, start_from=path)
    x, sigma = torch.rand(2, 1, 9, 9), torch.tensor([0.05, 0.1])
    assert torch.equal(build_objective(options).model(x, sigma), teacher(x, sigma))
    train(options)
    state = torch.load(Path(options.run_dir) / "checkpoints" / "step_00000006.pt", weights_only=True)
    for name, value in teacher.state_dict().items():
        assert torch.equal(state["companions"][f"prior.denoiser.{name}"], value)
        assert not torch.equal(state["model"][name], value)


def test_training_with_a_density_lowers_the_objective(
    run_map: Callable[..., TrainMapDenoiserOptions], tmp_path: Path
) -> None:
    path = saved(tmp_path / "density.safetensors", small_density(sigma_range=(0.01, 0.2)))
    quiet = {"log_every": 30, "sample_every": 99, "checkpoint_every": 99, "optimizer": {"lr": 1e-2}}
    # As initialised, the density is a high-pass residual: the objective asks for smoother images than the noisy ones.
    weights = train(run_map(prior={"type": "dde", "weights": path}, max_steps=60, **quiet))
    assert checkpoints.read_header(weights)["info"]["figures"]["map_gain"] > 0.02


def test_priors_that_do_not_fit_are_refused(run_map: Callable[..., TrainMapDenoiserOptions], tmp_path: Path) -> None:
    colour = saved(tmp_path / "c.safetensors", PlainDenoiser(3, 4, 3))
    wide = saved(tmp_path / "w.safetensors", PlainDenoiser(1, 8, 3))
    blind = saved(tmp_path / "b.safetensors", PlainDenoiser(**SIZE, level=False))
    narrow = saved(tmp_path / "n.safetensors", small_density())
    rgb = saved(tmp_path / "rgb.safetensors", small_density(channels=3, sigma_range=(0.01, 0.2)))
    for prior, words in (
        ({"type": "dae", "teacher": colour}, r"a denoiser of 3 channels, expected model.channels, 1"),
        ({"type": "dae", "teacher": blind}, "not told the level"),
        ({"type": "dde", "weights": narrow}, "levels 0.02 to 0.2, expected it to cover 0.01 to 0.1"),
        ({"type": "dde", "weights": rgb}, r"a density of 3 channels"),
    ):
        with pytest.raises(OptionError, match=words):
            build_objective(run_map(prior=prior))
    for start in (wide, blind, colour):
        with pytest.raises(OptionError, match=r"start_from.*expected one of the model's {'channels': 1, 'width': 4"):
            build_objective(run_map(start_from=start))
    with pytest.raises(CheckpointError, match="holds a 'plain_denoiser' model, expected 'dde'"):
        build_objective(run_map(prior={"type": "dde", "weights": colour}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prior": {"type": "dae", "train": False}}, "expected 'teacher'"),
        ({"model": {"sigma_range": [0.1, 0.1]}}, "low < high"),
        ({"model": {"level_map": False}}, "low = high where 'level_map' is false"),
        ({"model": {"level_map": False, "sigma_range": [0.1, 0.1]}, "start_from": "t"}, "model.level_map: true"),
        ({"init_weights": "a", "start_from": "b"}, "at most one of"),
        ({"prior": {"type": "dde", "wieghts": "x"}}, "weights"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    run_map: Callable[..., TrainMapDenoiserOptions], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(OptionError, match=words):
        run_map(**changes)


@pytest.mark.parametrize("name", ["map_grey", "map_small"])
def test_option_files_are_read(name: str) -> None:
    options = read_train_options(RECIPES / name / "train.yml")
    assert isinstance(options, TrainMapDenoiserOptions)
    size = {name: options.model.arguments()[name] for name in ("channels", "width", "depth")}
    for file in ("teacher.yml", "prior.yml") if name == "map_small" else ("teacher.yml",):
        least_squares = read_train_options(RECIPES / name / file)
        assert isinstance(least_squares, TrainPlainDenoiserOptions)
        assert least_squares.model.arguments().items() >= size.items()


def test_the_recipe_with_a_density_fits_together() -> None:
    options = read_train_options(RECIPES / "map_small" / "train_density.yml")
    density = read_train_options(RECIPES / "map_small" / "density.yml")
    assert isinstance(options, TrainMapDenoiserOptions)
    assert isinstance(density, TrainDDEOptions)
    low, high = (options.model.smoothing * level for level in options.model.sigma_range)
    assert density.model.sigma_range[0] <= low < high <= density.model.sigma_range[1]
    assert density.model.channels == options.model.channels


def test_the_authors_size_is_an_option_file() -> None:
    options = read_train_options(RECIPES / "map_grey" / "reference.yml")
    assert isinstance(options, TrainMapDenoiserOptions)
    model = MapDenoiser(**options.model.arguments())
    assert sum(parameter.numel() for parameter in model.parameters()) == 556_483
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert shapes == {name: value.shape for name, value in MapDenoiser.reference(3).state_dict().items()}
