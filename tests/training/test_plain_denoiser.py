"""The objectives of the plain denoiser: their losses in closed form, that they learn, and that a run resumes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.config.noise import DegradeTrainingNoise, GaussianTrainingNoise
from synthpipe.config.plain_denoiser import TrainPlainDenoiserOptions
from synthpipe.config.reader import parse_options
from synthpipe.denoisers import PlainDenoiser
from synthpipe.errors import OptionError
from synthpipe.images import quantize_8bit, to_float
from synthpipe.training import train
from synthpipe.training.base import step_seeds
from synthpipe.training.plain_denoiser import Noise2VoidObjective, PlainDenoiserObjective, build_objective
from synthpipe.transforms.batch import Batch
from synthpipe.transforms.build import build_degrade

SIGMA = 25 / 255
#: Noise of a law that is known, and JPEG: as a degradation of an option file.
WHITE = {"type": "noise", "kinds": {"gaussian": 1}, "sigma": SIGMA}
DEGRADED = {"type": "degrade", "degrade": [WHITE, {"type": "jpeg", "quality": [60, 90]}]}
NOISE = GaussianTrainingNoise(sigma=(SIGMA, SIGMA))


def identity(level: bool = True) -> PlainDenoiser:
    """A denoiser that takes nothing away."""
    model = PlainDenoiser(width=2, depth=2, level=level)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    return model


def batch_of(x: Tensor) -> Batch:
    return {"x": x, "key": ["k"] * len(x), "slot": list(range(len(x)))}


def flat(count: int, side: int = 64) -> Batch:
    return batch_of(torch.full((count, 3, side, side), 128, dtype=torch.uint8))


def test_the_identity_loses_the_variance_of_the_noise() -> None:
    batch = flat(8)
    loss, numbers = PlainDenoiserObjective(identity(), NOISE)(batch, step_seeds(0, 0, batch["slot"]))
    # Mean of 98304 squares: relative standard deviation sqrt(2 / 98304) = 0.0045.
    assert float(loss.detach()) == pytest.approx(25**2, rel=5 * 0.0045)
    assert numbers["mse"] == loss


def test_at_masked_pixels_of_flat_images_the_identity_loses_it_twice() -> None:
    batch = flat(64)
    objective = Noise2VoidObjective(identity(level=False), NOISE, 0.02)
    loss, numbers = objective(batch, step_seeds(0, 0, batch["slot"]))
    # The pixel and the neighbour in its place have independent noise; about 64 * 84 * 3 squares of their difference.
    assert float(loss.detach()) == pytest.approx(2 * 25**2, rel=5 * (2 / 16000) ** 0.5)
    assert numbers["mse_masked"] == loss


def test_only_masked_pixels_count_and_only_through_their_surroundings() -> None:
    """The gradient of the loss with respect to the network's output is zero at all pixels but the masked ones."""
    model = identity(level=False)
    seen: list[Tensor] = []
    model.register_forward_hook(lambda _, __, output: seen.append(output) or output.retain_grad())
    model.net.out.bias.requires_grad_()
    batch = flat(4, 32)
    loss, _ = Noise2VoidObjective(model, NOISE, 0.01)(batch, step_seeds(0, 0, batch["slot"]))
    loss.backward()
    assert seen[0].grad is not None
    touched = (seen[0].grad != 0).any(1)
    # Cells of 10x10 in 32x32: nine whole ones, and up to seven that stick out.
    assert all(9 <= count <= 16 for count in touched.flatten(1).sum(1).tolist())


@pytest.mark.parametrize("target", ["clean", "noise2void"])
def test_the_loss_is_a_mean_over_images(target: str) -> None:
    torch.manual_seed(0)
    x = torch.randint(0, 256, (4, 3, 21, 21), dtype=torch.uint8)
    model = PlainDenoiser(width=4, depth=3, level=target == "clean")
    objective = PlainDenoiserObjective(model, NOISE) if target == "clean" else Noise2VoidObjective(model, NOISE, 0.02)
    whole = float(objective(batch_of(x), step_seeds(0, 0, range(4)))[0].detach())
    parts = [
        float(objective({"x": x[at : at + 1], "slot": [at]}, step_seeds(0, 0, [at]))[0].detach()) for at in range(4)
    ]
    assert whole == pytest.approx(sum(parts) / 4, rel=1e-5)


@pytest.fixture
def options(tiny_run: dict[str, Any], photos: dict[str, str]) -> Callable[..., TrainPlainDenoiserOptions]:
    """``options(**changes)`` of a tiny run on the clean folder."""

    def make(**changes: Any) -> TrainPlainDenoiserOptions:
        base = {
            "kind": "plain_denoiser",
            **tiny_run,
            "ema_decay": 0.9,
            "optimizer": {"lr": 5e-3},
            "model": {"width": 8, "depth": 3},
            "data": {
                "images": {"folder": photos["clean"]},
                "noise": {"type": "gaussian", "sigma": [SIGMA, SIGMA]},
                "crop": 24,
                "batch_size": 8,
            },
        }
        return parse_options(base | changes, TrainPlainDenoiserOptions)

    return make


@pytest.mark.parametrize(("target", "least"), [("clean", 5.5), ("noise2void", 5.0)])
def test_a_short_training_denoises(
    target: str, least: float, options: Callable[..., TrainPlainDenoiserOptions]
) -> None:
    often = {"log_every": 75, "sample_every": 100, "checkpoint_every": 100}
    path = train(options(target=target, masked=0.05, max_steps=150, **often))
    model = checkpoints.load(path, kind="plain_denoiser")
    assert isinstance(model, PlainDenoiser)
    assert model.config["level"] is (target == "clean")
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(1, 3, 5, 5, generator=generator)
    clean = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic").clamp(0, 1)
    noisy = clean + SIGMA * torch.randn(clean.shape, generator=generator)
    before, after = ((x - clean).square().mean() for x in (noisy, model.denoise(noisy, torch.tensor([SIGMA]))))
    # Smooth pictures of the kind that were trained on; a flat 7x7 window would leave a fiftieth of the noise, 17 dB.
    assert float(10 * (before / after).log10()) > least
    assert (path.parent / "samples").is_dir()


@pytest.mark.parametrize("target", ["clean", "noise2void"])
def test_a_run_resumes_exactly(target: str, options: Callable[..., TrainPlainDenoiserOptions], tmp_path: Path) -> None:
    asked = iter(range(100))
    whole = train(options(target=target, run_dir=str(tmp_path / "whole")))
    train(options(target=target, run_dir=str(tmp_path / "cut")), stop=lambda: next(asked) >= 3)
    cut = train(options(target=target, run_dir=str(tmp_path / "cut"), resume="auto"))
    left, right = (checkpoints.load(path).state_dict() for path in (whole, cut))
    assert all(torch.equal(value, right[name]) for name, value in left.items())


def test_images_that_are_noisy_already_are_learnt_from_as_they_are(
    options: Callable[..., TrainPlainDenoiserOptions], photos: dict[str, str]
) -> None:
    given = options(target="noise2void", data={"images": {"folder": photos["noisy"]}, "crop": 16, "batch_size": 2})
    objective = build_objective(given)
    assert isinstance(objective, Noise2VoidObjective)
    batch = flat(3, 16)
    picture = objective.pictures(objective.model, batch, seed=0)
    assert picture.shape == (3, 3 * 16, 3 * 16)
    torch.testing.assert_close(picture[:, :, :32], torch.full((3, 48, 32), 128 / 255))  # as read, twice
    assert train(given).is_file()


def test_grey_models_see_luma_and_their_pictures_are_grey() -> None:
    model = PlainDenoiser(channels=1, width=4, depth=2)
    objective = PlainDenoiserObjective(model, NOISE)
    batch = batch_of(torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8))
    loss, _ = objective(batch, step_seeds(0, 0, [0, 1]))
    assert loss.isfinite()
    picture = objective.pictures(model, batch, seed=0)
    assert picture.shape == (3, 32, 48)
    assert torch.equal(picture[0], picture[2])


def degrade_noise(block: Any) -> DegradeTrainingNoise:
    return parse_options(block, DegradeTrainingNoise)


def test_a_degradation_makes_the_noisy_side() -> None:
    """The identity loses what the chain did to the same seeds, to the bit; and the law's variance, without JPEG."""
    batch = batch_of(torch.randint(90, 160, (3, 3, 32, 40), dtype=torch.uint8))
    seeds = step_seeds(0, 5, batch["slot"])
    chain = build_degrade(degrade_noise(DEGRADED).degrade, 1)
    clean = to_float(batch["x"])
    noisy = quantize_8bit(chain({"gt": clean, "seed": seeds, "key": batch["key"]})["lq"])
    loss, numbers = PlainDenoiserObjective(identity(), degrade_noise(DEGRADED))(batch, seeds)
    assert float(loss.detach()) == pytest.approx(float((noisy - clean).square().mean() * 255**2), rel=1e-5)
    assert numbers["mse"] == loss
    flat_loss, _ = PlainDenoiserObjective(identity(), degrade_noise({"degrade": [WHITE]}))(
        flat(8), step_seeds(0, 0, range(8))
    )
    assert float(flat_loss.detach()) == pytest.approx(25**2 + 1 / 12, rel=5 * 0.0045)  # rounded to 8 bits


@torch.no_grad()
def test_by_logarithms_each_image_counts_by_its_own_error() -> None:
    batch = flat(4)
    seeds = step_seeds(0, 0, batch["slot"])
    single = [
        float(PlainDenoiserObjective(identity(), NOISE)(batch_of(batch["x"][at : at + 1]), seeds[at : at + 1])[0])
        for at in range(4)
    ]
    loss, numbers = PlainDenoiserObjective(identity(), NOISE, log=True)(batch, seeds)
    expected = sum(math.log(square + 0.25) for square in single) / 4
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert float(numbers["mse"]) == pytest.approx(sum(single) / 4, rel=1e-5)


def test_a_denoiser_of_learned_noise_trains_and_resumes_exactly(
    options: Callable[..., TrainPlainDenoiserOptions], tmp_path: Path, photos: dict[str, str]
) -> None:
    learned = {"type": "degrade", "degrade": {"type": "choice", "of": [{"chain": [WHITE]}, "canon_5d2"]}}
    changes = {
        "level": False,
        "loss": "log_mse",
        "model": {"width": 8, "depth": 2, "scales": 2},
        "data": {"images": {"folder": photos["clean"]}, "noise": learned, "crop": 32, "batch_size": 2},
    }
    asked = iter(range(100))
    whole = train(options(run_dir=str(tmp_path / "whole"), **changes))
    train(options(run_dir=str(tmp_path / "cut"), **changes), stop=lambda: next(asked) >= 3)
    cut = train(options(run_dir=str(tmp_path / "cut"), resume="auto", **changes))
    model = checkpoints.load(whole, kind="plain_denoiser")
    assert model.config == {"channels": 3, "width": 8, "depth": 2, "level": False, "scales": 2}
    left, right = model.state_dict(), checkpoints.load(cut).state_dict()
    assert all(torch.equal(value, right[name]) for name, value in left.items())


def test_what_is_for_clean_targets_alone_is_refused(options: Callable[..., TrainPlainDenoiserOptions]) -> None:
    for changes in ({"loss": "log_mse"}, {"level": False}, {"level_error": 1.2}):
        with pytest.raises(OptionError, match="'loss', 'level' and 'level_error' are for target 'clean'"):
            options(target="noise2void", **changes)


def test_a_level_that_is_told_is_off_by_the_factor_at_most_and_the_noise_stays() -> None:
    told: list[Tensor] = []
    model = identity()
    model.register_forward_pre_hook(lambda _, given: told.append(given[1]))
    batch = flat(64, 16)
    seeds = step_seeds(0, 0, batch["slot"])
    losses = [PlainDenoiserObjective(model, NOISE, level_error=error)(batch, seeds)[0] for error in (1.0, 1.5)]
    assert losses[0] == losses[1]
    assert torch.equal(told[0], torch.full((64,), SIGMA))
    off = (told[1] / SIGMA).log() / math.log(1.5)  # uniform on [-1, 1]
    assert -1 <= float(off.min()) < -0.8
    assert 0.8 < float(off.max()) <= 1
    assert abs(float(off.mean())) < 3 * 0.577 / 8
