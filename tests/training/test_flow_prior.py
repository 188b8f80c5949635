"""Training under a density: maximum a posteriori in closed form, what is done to gradients, runs that resume."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from synthpipe import checkpoints
from synthpipe.config.flow_prior import TrainFlowPriorOptions
from synthpipe.config.noise import GaussianTrainingNoise
from synthpipe.config.reader import parse_options
from synthpipe.denoisers import FlowPriorDenoiser
from synthpipe.errors import CheckpointError, OptionError
from synthpipe.flows import Glow
from synthpipe.training import train
from synthpipe.training.base import step_generators, step_seeds
from synthpipe.training.flow_prior import FlowPriorObjective, build_objective, limit_pull, soft_clamp
from synthpipe.transforms.batch import Batch
from tests.contracts import perturbed

EXACT = {"type": "exact"}
SIGMA = 0.06


class GaussianPrior(nn.Module):
    """``N(mean, precision^-1)`` over crops, precision over pixels; log-likelihood up to a constant."""

    channels = 1

    def __init__(self, precision: Tensor, mean: float = 0.45) -> None:
        super().__init__()
        self.window, self.mean = math.isqrt(len(precision)), mean
        self.precision = nn.Parameter(precision)

    def log_prob(self, x: Tensor, generator: Any) -> Tensor:
        flat = (x - self.mean).flatten(1)
        return -0.5 * ((flat @ self.precision) * flat).sum(1)


class Table(nn.Module):
    """A denoiser whose output is whatever its parameter holds."""

    channels = 1

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.output


def smooth_precision(side: int) -> Tensor:
    """Of a stationary field on a torus: 1 / variance 0.04 at least, neighbours alike."""
    eye, step = torch.eye(side), torch.roll(torch.eye(side), 1, 0)
    line = 2 * eye - step - step.T
    return 25 * torch.eye(side**2) + 150 * (torch.kron(line, eye) + torch.kron(eye, line))


def options_of(**changes: Any) -> TrainFlowPriorOptions:
    base: dict[str, Any] = {
        "kind": "flow_prior",
        "run_dir": "unused",
        "prior": "unused",
        "model": {"channels": 1, "width": 4, "depth": 2},
        "data": {"images": {"folder": "unused"}, "crop": 8},
        "noise_model": SIGMA,
        "correlation": "white",
        "weight": EXACT,
    }
    return parse_options(base | changes, TrainFlowPriorOptions)


def batch_of(count: int, side: int) -> Batch:
    x = torch.randint(60, 180, (count, 1, side, side), dtype=torch.uint8).expand(-1, 3, -1, -1)
    return {"x": x, "slot": list(range(count)), "key": ["k"] * count}


def gradient(output: Tensor, prior: nn.Module, batch: Batch, **changes: Any) -> Tensor:
    """Of the loss in each value of the denoiser's output."""
    objective = FlowPriorObjective(FlowPriorDenoiser(1, 4, 2), prior, options_of(**changes))
    objective.model = Table(output)
    loss, _ = objective(batch, step_seeds(0, 0, batch["slot"]))
    loss.backward()
    assert objective.model.output.grad is not None
    return objective.model.output.grad


def test_the_exact_weight_has_its_minimum_at_the_wiener_filter() -> None:
    batch, precision = batch_of(3, 8), smooth_precision(8)
    y = (batch["x"][:, :1] / 255).flatten(1)
    # argmin |D - y|^2 / (2 s^2) + (D - m)' A (D - m) / 2, solved in closed form
    best = torch.linalg.solve(
        torch.eye(64) / SIGMA**2 + precision, (y / SIGMA**2 + precision @ torch.full((64,), 0.45)).T
    )
    best = best.T.reshape(3, 1, 8, 8)
    prior = GaussianPrior(precision)
    at_noisy = gradient(y.view(3, 1, 8, 8), prior, batch).abs().max()
    assert float(gradient(best, prior, batch).abs().max()) < 1e-4 * float(at_noisy)
    half = {"type": "fixed", "kappa": 0.5}
    assert float(gradient(best, prior, batch, weight=half).abs().max()) > 0.1 * float(at_noisy)


def test_a_network_learns_the_wiener_filter_from_noisy_images_alone() -> None:
    torch.manual_seed(0)
    variance, s, mean = 0.02, 0.1, 0.45  # of the prior: pixels independent
    prior = GaussianPrior(torch.eye(64) / variance, mean)
    # One level, one channel and pixels that are independent make a 3x3 net learn y -> (v y + s^2 m) / (v + s^2).
    objective = FlowPriorObjective(FlowPriorDenoiser(1, 16, 2), prior, options_of(noise_model=s))
    adam = torch.optim.Adam(objective.model.parameters(), 8e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(adam, 1, 0.02, 250)
    for step in range(250):
        batch = batch_of(32, 8)
        loss, _ = objective(batch, step_seeds(0, step, batch["slot"]))
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    y = batch_of(64, 8)["x"][:, :1] / 255
    with torch.no_grad():
        error = objective.model(y, torch.full((64,), s)) - (variance * y + s**2 * mean) / (variance + s**2)
    step = (y - mean).std() * s**2 / (variance + s**2)  # how far the filter moves a pixel
    assert float(error[..., 1:-1, 1:-1].square().mean().sqrt()) < 0.2 * float(step)


def test_images_of_other_levels_find_their_own_minimum() -> None:
    batch, precision = batch_of(4, 8), 40 * torch.eye(64)
    levels = {"type": "signal_dependent", "a": [0, 0], "b": [0.001, 0.01]}
    options = options_of(noise_model="known", correlation=None, data=dict(options_of().data.model_dump(), noise=levels))
    objective = FlowPriorObjective(FlowPriorDenoiser(1, 4, 2), GaussianPrior(precision), options)
    noisy, _, truth = objective._noisy(batch, step_generators(0, 0, batch["slot"]))
    b = truth["b"][:, None, None, None]
    objective.model = Table((noisy / b + 40 * 0.45) / (1 / b + 40))
    loss, _ = objective(batch, step_seeds(0, 0, batch["slot"]))
    loss.backward()
    assert float(objective.model.output.grad.abs().max()) < 1e-4


def test_the_weight_means_the_same_for_any_crop() -> None:
    torch.manual_seed(0)
    small, large = (Glow(channels=1, levels=2, steps=2, hidden=8, window=window) for window in (8, 16))
    small.mark_initialized()
    perturbed(small).float()
    large.load_state_dict(small.state_dict())
    batch = batch_of(4, 32)
    ratios = []
    for prior in (small, large):
        output = batch["x"][:, :1] / 255 * 0.8 + 0.1
        size = {"data": {"images": {"folder": "unused"}, "crop": 32}}
        data = gradient(output, prior, batch, weight={"type": "fixed", "kappa": 0}, **size)
        both = gradient(output, prior, batch, **size)
        ratios.append(float((both - data).norm() / data.norm()))
    assert ratios[0] == pytest.approx(ratios[1], rel=0.1)


def test_windows_move_within_larger_crops_and_both_terms_see_the_same_pixels() -> None:
    batch, precision = batch_of(40, 12), 40 * torch.eye(64)
    y = batch["x"][:, :1] / 255
    crop = {"data": {"images": {"folder": "unused"}, "crop": 12}}
    touched = gradient(y - 0.01, GaussianPrior(precision), batch, **crop)[:, 0] != 0
    assert bool((touched.flatten(1).sum(1) == 64).all())
    corners = {tuple(image.nonzero()[0].tolist()) for image in touched}
    assert len(corners) > 12
    assert max(map(max, corners)) == 4
    best = (y / SIGMA**2 + 40 * 0.45) / (1 / SIGMA**2 + 40)
    assert float(gradient(best, GaussianPrior(precision), batch, **crop).abs().max()) < 1e-5


def test_the_plain_term_is_the_likelihood_of_noise_that_grows_with_brightness() -> None:
    options = options_of(noise_model={"a": 0.02, "b": 0.001}, weight={"type": "fixed", "kappa": 0})
    batch = batch_of(2, 8)
    noisy = batch["x"][:, :1] / 255
    outputs = [noisy.clone(), (noisy + 0.05 * torch.rand_like(noisy)).clamp(0, 1)]
    losses, truths = [], []
    for output in outputs:
        objective = FlowPriorObjective(FlowPriorDenoiser(1, 4, 2), GaussianPrior(torch.eye(64)), options)
        objective.model = Table(output)
        # The loss is weighted by the level, a function of the noisy image alone.
        level = (0.02 * noisy.mean((1, 2, 3)) + 0.001).sqrt()
        losses.append(float(objective(batch, step_seeds(0, 0, [0, 1]))[0].detach()))
        law = torch.distributions.Normal(output, (0.02 * output + 0.001).sqrt())
        truths.append(float((-2 * law.log_prob(noisy).mean((1, 2, 3)) * level * 255).mean()))
    assert losses[1] - losses[0] == pytest.approx(truths[1] - truths[0], rel=1e-4)


@pytest.mark.parametrize("noise", ["white", "binomial", "signal_dependent"])
def test_steins_term_is_the_squared_error_without_the_clean_image(noise: str) -> None:
    kinds = {
        "white": {"type": "gaussian", "sigma": [SIGMA, SIGMA]},
        "binomial": {"type": "gaussian", "sigma": [SIGMA, SIGMA], "binomial": 1},
        "signal_dependent": {"type": "signal_dependent", "a": [0.004, 0.004], "b": [0.002, 0.002]},
    }
    options = options_of(
        noise_model="known",
        correlation=None,
        data={"images": {"folder": "unused"}, "crop": 64, "noise": kinds[noise]},
        data_term={"type": "stein"},
        weight={"type": "fixed", "kappa": 0},
    )
    torch.manual_seed(1)
    model = FlowPriorDenoiser(1, 8, 3)
    with torch.no_grad():  # the variance is taken at the output's brightness, which must be about right
        model.net.out.bias.zero_()
    objective = FlowPriorObjective(model, GaussianPrior(torch.eye(64)), options)
    grey = torch.randint(60, 180, (64, 1, 8, 8)).repeat_interleave(8, 2).repeat_interleave(8, 3).to(torch.uint8)
    batch = {"x": grey.expand(-1, 3, -1, -1), "slot": list(range(64)), "key": ["k"] * 64}
    with torch.no_grad():
        loss, _ = objective(batch, step_seeds(0, 0, batch["slot"]))
        noisy, clean, truth = objective._noisy(batch, step_generators(0, 0, batch["slot"]))
        output = model(noisy, truth["sigma"])
    error = (output - clean).square().mean((1, 2, 3)) / truth["sigma"].square()
    told = loss - (truth["sigma"] * 255).mean()  # the estimate without its constant -1
    due = (error * truth["sigma"] * 255).mean()
    naive = (noisy - output).square().mean() / truth["sigma"].square().mean()
    assert float(told) == pytest.approx(float(due), rel=0.03)
    assert abs(float(naive) - float(error.mean())) > 0.1  # the residual alone says something else


def test_the_blurred_term_leaves_fine_detail_to_the_prior() -> None:
    batch = batch_of(2, 16)
    y = batch["x"][:, :1] / 255
    fine = 0.02 * (-1.0) ** torch.arange(16)
    flat, chess = (y - 0.02), (y - fine * fine[:, None] / 0.02)
    crop = {"data": {"images": {"folder": "unused"}, "crop": 16}, "weight": {"type": "fixed", "kappa": 0}}
    prior = GaussianPrior(torch.eye(256))
    blur = {"data_term": {"type": "blur", "std": 1.0}}
    assert float(gradient(flat, prior, batch, **crop, **blur).norm()) == pytest.approx(
        float(gradient(flat, prior, batch, **crop).norm()), rel=0.1
    )
    far = gradient(chess, prior, batch, **crop, **blur).norm() / gradient(chess, prior, batch, **crop).norm()
    assert float(far) < 0.01  # exp(-pi^2) at the Nyquist frequency of both axes, squared


def test_values_beyond_the_range_bend_and_are_fined() -> None:
    x = torch.linspace(-1, 2, 301)
    y = soft_clamp(x)
    assert_close(y[100:201], x[100:201])
    assert float(y.detach().min()) >= -0.03
    assert float(y.detach().max()) <= 1.03
    assert bool((y.diff() >= 0).all())
    batch = batch_of(1, 8)
    kappa0 = {"type": "fixed", "kappa": 0}
    far = gradient(torch.full((1, 1, 8, 8), 1.2), GaussianPrior(torch.eye(64)), batch, weight=kappa0)
    near = gradient(torch.full((1, 1, 8, 8), 1.0), GaussianPrior(torch.eye(64)), batch, weight=kappa0)
    extra = 255 / SIGMA * 2 * (0.2 + 0.2) / 64  # level * 255 * d/dD [(D - y)^2 + (D - 1)^2] / s^2 / 64
    assert_close(far - near, torch.full_like(far, extra), rtol=1e-3, atol=0)


def test_the_pull_of_the_prior_is_cut_image_by_image() -> None:
    x = torch.zeros(2, 1, 4, 4, requires_grad=True)
    (limit_pull(x, 0.5) * torch.tensor([3.0, 0.2])[:, None, None, None]).sum().backward()
    assert x.grad is not None
    assert_close(x.grad[:, 0, 0, 0], torch.tensor([0.5, 0.2]))
    batch, prior = batch_of(3, 8), GaussianPrior(1e4 * torch.eye(64))
    y = batch["x"][:, :1] / 255
    pull = gradient(y, prior, batch, max_pull=2.0)
    # Twice the gradient that mean((D - y)^2) / s^2 has at a residual of size s, times s * 255 and over three images.
    due = 2 * (2 / (SIGMA * 64)) * SIGMA * 255 / 3
    assert_close(pull.flatten(1).square().mean(1).sqrt(), torch.full((3,), due), rtol=1e-3, atol=0)


def test_the_prior_warms_up_and_is_frozen() -> None:
    prior = GaussianPrior(1e3 * torch.eye(64))
    objective = FlowPriorObjective(FlowPriorDenoiser(1, 4, 2), prior, options_of(prior_warmup=4))
    objective.train()
    batch = batch_of(2, 8)
    kappas = []
    for step in range(6):
        loss, numbers = objective(batch, step_seeds(0, step, batch["slot"]))
        loss.backward()
        kappas.append(float(numbers["kappa"]))
    assert kappas == [0.25, 0.5, 0.75, 1, 1, 1]
    assert prior.precision.grad is None
    assert not prior.training
    assert {name for name in objective.companions() if name.startswith("prior.")} == {"prior.precision"}


@pytest.fixture
def run(tiny_run: dict[str, Any], photos: dict[str, str], tmp_path: Path) -> Callable[..., TrainFlowPriorOptions]:
    """``run(**changes)``: options of a tiny run, with a prior on disk."""
    flow = Glow(channels=1, levels=2, steps=1, hidden=4, window=8)
    flow.mark_initialized()
    prior = checkpoints.save(tmp_path / "prior.safetensors", flow)

    def make(**changes: Any) -> TrainFlowPriorOptions:
        base = {
            "kind": "flow_prior",
            "prior": str(prior),
            "model": {"channels": 1, "width": 4, "depth": 2},
            "data": {"images": {"folder": photos["noisy"]}, "crop": 20, "batch_size": 4, "workers": 0},
            "noise_model": "estimated",
            "weight": {"type": "automatic", "knots": [0.02, 0.1]},
            "prior_warmup": 4,
        }
        return parse_options(tiny_run | base | changes, TrainFlowPriorOptions)

    return make


def test_a_run_on_noisy_files_leaves_a_denoiser_and_resumes_bit_for_bit(
    run: Callable[..., TrainFlowPriorOptions], tmp_path: Path
) -> None:
    whole = checkpoints.load(train(run()), kind="flow_prior")
    assert isinstance(whole, FlowPriorDenoiser)
    steps = iter(range(1, 100))
    half = run(run_dir=str(tmp_path / "half"))
    train(half, stop=lambda: next(steps) == 4)
    resumed = checkpoints.load(train(half.model_copy(update={"resume": "auto"})))
    for ours, theirs in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    numbers = checkpoints.read_header(tmp_path / "run" / "final.safetensors")["info"]["figures"]
    assert numbers["kappa"] != pytest.approx(1)  # it has moved from its start
    assert "psnr" not in numbers  # nothing is known of the clean images
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 2


def test_the_correlation_of_noise_is_measured_before_the_first_step(
    run: Callable[..., TrainFlowPriorOptions],
) -> None:
    noise = GaussianTrainingNoise(sigma=(0.1, 0.1), binomial=1)
    data = run().data.model_copy(update={"noise": noise}).model_dump()
    objective = build_objective(run(noise_model=0.1, correlation="measured", data=data))
    padded = torch.zeros(32, 32)
    padded[:11, :11] = objective.kernel
    found = torch.fft.ifft2(torch.fft.fft2(padded).abs().square()).real
    assert float(found[0, 1]) == pytest.approx(4 / 6, abs=0.1)  # (1 4 6 4 1) / 6
    assert float(found[0, 2]) == pytest.approx(1 / 6, abs=0.1)


def test_what_does_not_fit_is_refused(run: Callable[..., TrainFlowPriorOptions], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="channels: expected 1, as the prior has, got 3"):
        train(run(model={"channels": 3, "width": 4, "depth": 2}))
    images = {"images": run().data.images.model_dump(), "batch_size": 4}
    with pytest.raises(OptionError, match="crop: expected at least 16"):
        train(run(data={**images, "crop": 8}, prior=str(large_prior(tmp_path))))
    with pytest.raises(CheckpointError, match="expected 'glow'"):
        train(run(prior="scorer_small"))
    with pytest.raises(OptionError, match=r"needs data\.noise"):
        run(noise_model="known")
    with pytest.raises(OptionError, match=r"needs data\.noise"):
        run(correlation="known")
    with pytest.raises(OptionError, match="impulse"):
        run(data={**images, "noise": {"type": "impulse", "alpha": [0.1, 0.1]}})
    with pytest.raises(OptionError, match="ascending"):
        run(weight={"type": "automatic", "knots": [0.1, 0.02]})


def large_prior(folder: Path) -> Path:
    flow = Glow(channels=1, levels=1, steps=1, hidden=4, window=16)
    flow.mark_initialized()
    return checkpoints.save(folder / "large.safetensors", flow)
