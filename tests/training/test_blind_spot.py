"""The objective of the blind-spot denoiser: its loss by hand, that it learns, that levels and holes are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.config.blind_spot import TrainBlindSpotOptions
from synthpipe.config.noise import GaussianTrainingNoise
from synthpipe.config.reader import parse_options
from synthpipe.denoisers.blind_spot import BlindSpotDenoiser
from synthpipe.errors import OptionError
from synthpipe.training import train
from synthpipe.training.base import step_seeds
from synthpipe.training.blind_spot import BlindSpotObjective, build_objective
from synthpipe.transforms.batch import Batch

SIGMA = 25 / 255
NOISE = GaussianTrainingNoise(sigma=(SIGMA, SIGMA))
NET = {"type": "dilated", "depth": 3, "width": 8, "hole_width": 6, "head": [12]}


def batch_of(x: Tensor) -> Batch:
    return {"x": x, "key": ["k"] * len(x), "slot": list(range(len(x)))}


def constant_model(spread: float, **settings: Any) -> BlindSpotDenoiser:
    """Predicts grey 0.5 with a standard deviation of ``spread`` everywhere."""
    model = BlindSpotDenoiser(**{"channels": 1, "net": NET, **settings})
    for parameter in model.net.parameters():
        torch.nn.init.zeros_(parameter)
    last = model.net.head[-1]  # type: ignore[index, union-attr]
    last.bias.data = torch.tensor([0.0, spread - 0.1])  # a network of zeros stands for 0.1  # type: ignore[union-attr]
    return model


def flat(count: int, side: int = 48) -> Batch:
    return batch_of(torch.full((count, 3, side, side), 128, dtype=torch.uint8))


def loss_of(objective: BlindSpotObjective, batch: Batch) -> float:
    return float(objective(batch, step_seeds(0, 0, batch["slot"]))[0].detach())


def normal_nll(spread: float, actual: float) -> float:
    """Mean of minus the log-density of N(m, spread^2) where the truth is N(m, actual^2), nats."""
    return 0.5 * (actual / spread) ** 2 + float(torch.tensor(spread * (2 * torch.pi) ** 0.5).log())


@pytest.mark.parametrize(("level", "extra"), [("known", SIGMA**2), ("total", 1 / (12 * 255**2))])
def test_the_loss_is_that_of_the_noisy_pixel(level: str, extra: float) -> None:
    objective = BlindSpotObjective(constant_model(0.05, level=level), NOISE)
    expected = normal_nll((0.05**2 + extra) ** 0.5, SIGMA)
    # 36864 squares of a normal number; grey 128 is 0.002 off 0.5.
    assert loss_of(objective, flat(16)) == pytest.approx(expected, abs=5 * (0.5 / 36864) ** 0.5 * (SIGMA / 0.05) ** 2)


def test_a_learned_level_is_rewarded_and_has_its_own_speed() -> None:
    model = constant_model(0.05, level="learned")
    objective = BlindSpotObjective(model, NOISE)
    start = float(F.softplus(torch.tensor(-4.0))) + 1e-3
    batch = flat(16)
    mu, factor = model.predict(torch.full((1, 1, 8, 8), 0.5))
    assert float(model.total(mu, factor)[0, 0, 0, 0, 0].detach()) == pytest.approx(0.05**2 + start**2, rel=1e-5)
    expected = normal_nll((0.05**2 + start**2) ** 0.5, SIGMA) - 0.1 * start
    assert loss_of(objective, batch) == pytest.approx(expected, abs=0.1)
    given = parse_options(
        {"kind": "blind_spot", "run_dir": "r", "data": {"images": {"folder": "f"}, "noise": NOISE.model_dump()}},
        TrainBlindSpotOptions,
    )
    groups = objective.parameter_groups(given.optimizer)
    assert groups[1]["lr"] == pytest.approx(30 * groups[0]["lr"])
    assert groups[1]["params"] == [model.raw_level]
    objective(batch, step_seeds(0, 0, batch["slot"]))[0].backward()
    assert model.raw_level is not None
    assert model.raw_level.grad is not None
    assert float(model.raw_level.grad) < 0  # more noise explains it better


def test_a_frame_does_not_count() -> None:
    """A bright frame of 2 pixels, within reach of nothing: the loss of the inside alone."""
    x = torch.full((2, 3, 20, 20), 128, dtype=torch.uint8)
    x[..., :2, :] = x[..., -2:, :] = x[..., :, :2] = x[..., :, -2:] = 255
    framed = BlindSpotObjective(constant_model(0.1, level="total"), None, frame=2)
    whole = BlindSpotObjective(constant_model(0.1, level="total"), None)
    plain = flat(2, 16)
    assert loss_of(framed, batch_of(x)) == pytest.approx(loss_of(whole, plain), abs=1e-6)
    assert loss_of(whole, batch_of(x)) > loss_of(framed, batch_of(x)) + 0.1


@pytest.fixture
def options(tiny_run: dict[str, Any], photos: dict[str, str]) -> Callable[..., TrainBlindSpotOptions]:
    """``options(**changes)`` of a tiny run on the clean folder."""

    def make(**changes: Any) -> TrainBlindSpotOptions:
        base = {
            "kind": "blind_spot",
            **tiny_run,
            "ema_decay": 0.9,
            "optimizer": {"lr": 1e-2},
            "model": {"channels": 1, "net": NET},
            "data": {"images": {"folder": photos["clean"]}, "noise": NOISE.model_dump(), "crop": 24, "batch_size": 8},
        }
        return parse_options(base | changes, TrainBlindSpotOptions)

    return make


def gain(model: BlindSpotDenoiser, sigma: Tensor | None) -> float:
    """dB, on a smooth picture of the kind that the tiny runs train on."""
    generator = torch.Generator().manual_seed(7)
    clean = F.interpolate(torch.rand(1, 1, 5, 5, generator=generator), size=(64, 64), mode="bicubic").clamp(0, 1)
    noisy = clean + SIGMA * torch.randn(clean.shape, generator=generator)
    before, after = ((x - clean).square().mean() for x in (noisy, model.denoise(noisy, sigma)))
    return float(10 * (before / after).log10())


@pytest.mark.parametrize("level", ["known", "total"])
def test_a_short_training_on_noisy_images_alone_denoises(
    level: str, options: Callable[..., TrainBlindSpotOptions]
) -> None:
    often = {"log_every": 75, "sample_every": 100, "checkpoint_every": 100}
    given = options(model={"channels": 1, "net": NET, "level": level}, max_steps=150, **often)
    model = checkpoints.load(train(given), kind="blind_spot")
    assert isinstance(model, BlindSpotDenoiser)
    assert gain(model, torch.tensor([SIGMA])) > 5
    if level == "total":
        assert gain(model, None) > 4.5


def test_a_run_resumes_exactly(options: Callable[..., TrainBlindSpotOptions], tmp_path: Path) -> None:
    asked = iter(range(100))
    changes: dict[str, Any] = {"hole": "auto", "model": {"channels": 1, "net": NET, "level": "learned"}}
    whole = train(options(run_dir=str(tmp_path / "whole"), **changes))
    train(options(run_dir=str(tmp_path / "cut"), **changes), stop=lambda: next(asked) >= 3)
    cut = train(options(run_dir=str(tmp_path / "cut"), resume="auto", **changes))
    left, right = (checkpoints.load(path) for path in (whole, cut))
    assert left.config == right.config
    assert all(torch.equal(value, right.state_dict()[name]) for name, value in left.state_dict().items())


@pytest.mark.parametrize(("binomial", "due"), [(0, 0), (1, 2)])
def test_the_hole_is_as_wide_as_the_noise_is_correlated(
    binomial: int, due: int, options: Callable[..., TrainBlindSpotOptions]
) -> None:
    """Noise behind the 3x3 binomial kernel is correlated over two pixels in rows and columns."""
    data = options().data
    noise = GaussianTrainingNoise(sigma=(SIGMA, SIGMA), binomial=binomial)
    changes = {"hole": "auto", "data": data.model_copy(update={"noise": noise}).model_dump()}
    objective = build_objective(options(**changes))
    assert int(objective.hole) == due
    assert objective.model.hole == due
    smaller = build_objective(options(**changes, inference_hole=1))
    assert (int(smaller.hole), smaller.model.hole) == (due, 1)


def test_noisy_files_are_learnt_from_as_they_are(
    options: Callable[..., TrainBlindSpotOptions], photos: dict[str, str]
) -> None:
    data = {"images": {"folder": photos["noisy"]}, "crop": 16, "batch_size": 2}
    given = options(data=data, model={"net": NET, "level": "total", "noise": "signal_dependent"}, hole="auto", frame=2)
    assert train(given).is_file()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"noise": "poisson"}}, "model.noise is 'poisson', but data.noise is 'gaussian'"),
        ({"model": {"noise": "impulse", "level": "total"}}, "impulse noise adds no variance"),
        ({"frame": 12}, "a frame of 12 leaves nothing of crops of 24"),
        ({"data": {"images": {"folder": "x"}}}, "'known' needs data.noise"),
        ({"hole": -1}, "hole"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    changes: dict[str, Any], words: str, options: Callable[..., TrainBlindSpotOptions]
) -> None:
    with pytest.raises(OptionError, match=words):
        options(**changes)
