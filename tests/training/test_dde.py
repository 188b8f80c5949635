"""The objective of the image density: what J and the logged numbers are, that it trains, and that it resumes."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.config.dde import TrainDDEOptions
from synthpipe.config.reader import parse_options
from synthpipe.config.training import write_options
from synthpipe.density import DDE, dde_loss
from synthpipe.training import train
from synthpipe.training.base import step_generators, step_seeds
from synthpipe.training.dde import DDEObjective
from synthpipe.transforms.batch import Batch

ROOT = Path(__file__).resolve().parents[2]
LEVELS = (0.02, 0.2)


class Recorder(DDE):
    """A density that remembers what it was shown, and is constant: J is the mean square of the noise."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.shown: list[tuple[Tensor, Tensor, Tensor]] = []

    def log_density(self, y: Tensor, sigma: Tensor, domain: Tensor | None = None) -> Tensor:
        assert domain is not None
        self.shown.append((y.detach(), sigma, domain))
        return 0 * super().log_density(y, sigma, domain)


def batch_of(x: Tensor, domains: list[int]) -> Batch:
    return {"x": x, "domain": torch.tensor(domains), "slot": list(range(len(x))), "key": ["k"] * len(x)}


def flat(count: int, level: int = 100, side: int = 16) -> Tensor:
    return torch.full((count, 3, side, side), level, dtype=torch.uint8)


def recorder(domains: tuple[str, ...] = ("clean", "bad"), channels: int = 1) -> Recorder:
    return Recorder(channels=channels, width=2, depth=2, outputs=1, domains=domains, sigma_range=LEVELS)


def test_a_constant_density_has_the_noise_for_its_loss_and_gains_nothing() -> None:
    model = recorder()
    objective = DDEObjective(model, {}, crop=16, crops_per_context=2)
    batch = batch_of(flat(40), [0] * 20 + [1] * 20)
    loss, numbers = objective(batch, step_seeds(0, 0, batch["slot"]))
    ((y, sigma, domain),) = model.shown
    noise = (y - 100 / 255) / sigma[:, None, None, None]
    squares = noise.square().mean((1, 2, 3))
    assert float(loss.detach()) == pytest.approx(float(squares.mean()), rel=1e-4)
    # Mean of 80 * 256 squares of standard normal numbers: standard deviation sqrt(2 / 20480) = 0.0099.
    assert float(loss.detach()) == pytest.approx(1, abs=0.05)
    assert domain.tolist() == [0] * 40 + [1] * 40
    for name, place in (("J_clean", 0), ("J_bad", 1)):
        assert float(numbers[name]) == pytest.approx(float(squares[domain == place].mean()), rel=1e-4)
    said = objective.numbers()
    for band, (low, high) in {"low": (0.02, 0.0431), "mid": (0.0431, 0.0928), "high": (0.0928, 0.2)}.items():
        within = (sigma > low) & (sigma <= high)
        assert said[f"J_{band}"] == pytest.approx(float(squares[within].mean()), rel=1e-3)
        assert said[f"gain_db_{band}"] == pytest.approx(0, abs=1e-4)
    assert objective.numbers() == said
    objective.forget_numbers()
    assert objective.numbers() == {}


def test_noise_levels_are_log_uniform_and_each_crops_own() -> None:
    model = recorder(("clean",))
    objective = DDEObjective(model, {}, crop=8, crops_per_context=4)
    for step in range(4):
        batch = batch_of(flat(50, side=8), [0] * 50)
        objective(batch, step_seeds(1, step, batch["slot"]))
    sigma = torch.cat([shown[1] for shown in model.shown])
    place = (sigma / LEVELS[0]).log() / math.log(LEVELS[1] / LEVELS[0])
    assert len(set(sigma.tolist())) > 790
    # Kolmogorov-Smirnov against the uniform law, 800 draws: 1.95 / sqrt(800) is its 0.1 % point.
    ordered, steps = place.sort().values, torch.arange(1, 801) / 800
    assert float((ordered - steps).abs().max()) < 1.95 / math.sqrt(800)


def test_crops_lie_anywhere_in_what_was_degraded() -> None:
    """A JPEG's grid begins at a corner of the degraded context; crops must meet every phase of it."""
    position = torch.arange(32.0)

    def grid(x: Tensor, generators: object) -> Tensor:
        return ((position[:, None] % 8 * 8 + position % 8) / 255).expand_as(x)

    objective = DDEObjective(recorder(channels=3), {1: grid}, crop=16, crops_per_context=3)
    corners: set[int] = set()
    for step in range(24):
        batch = batch_of(flat(6, side=32), [0, 0, 0, 1, 1, 1])
        crops, domain = objective.crops(batch, step_generators(2, step, batch["slot"]))
        assert crops.shape == (18, 3, 16, 16)
        assert torch.equal(crops[domain == 0], torch.full((9, 3, 16, 16), 100 / 255))
        corners |= {round(255 * float(crop[0, 0, 0])) for crop in crops[domain == 1]}
    assert len(corners) > 55  # of 64 phases, from 216 crops


def test_a_crop_depends_on_its_slot_alone() -> None:
    objective = DDEObjective(recorder(), {}, crop=8, crops_per_context=2)
    x = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8)
    whole = batch_of(x, [0, 0, 0, 1, 1, 1])
    part = {**batch_of(x[[4, 1]], [1, 0]), "slot": [4, 1]}
    everything, _ = objective.crops(whole, step_generators(0, 9, whole["slot"]))
    some, _ = objective.crops(part, step_generators(0, 9, part["slot"]))
    assert torch.equal(some, everything[[8, 9, 2, 3]])


def test_data_is_never_made_in_half_precision() -> None:
    seen = []

    def degrade(x: Tensor, generators: object) -> Tensor:
        seen.append((x.dtype, torch.nn.functional.conv2d(x, torch.ones(3, 3, 1, 1)).dtype))
        return x

    objective = DDEObjective(recorder(), {1: degrade}, crop=16, crops_per_context=1)
    batch = batch_of(flat(2), [0, 1])
    with torch.autocast("cpu", torch.bfloat16):
        objective(batch, step_seeds(0, 0, batch["slot"]))
    assert seen == [(torch.float32, torch.float32)]


def test_weights_lie_channels_last_and_keep_their_values() -> None:
    torch.manual_seed(1)
    model = DDE(channels=1, width=4, depth=3, outputs=2, domains=("clean",))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    objective = DDEObjective(model, {}, crop=8, crops_per_context=1)
    after = objective.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert after["convs.1.weight"].is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def run_dde(tiny_run: dict[str, Any], photos: dict[str, str]) -> Callable[..., TrainDDEOptions]:
    """``run_dde(**changes)``: the options of a tiny run on drawn pictures."""

    def make(**changes: Any) -> TrainDDEOptions:
        base: dict[str, Any] = {
            "kind": "dde",
            **tiny_run,
            "clip_norm": 1.0,
            "optimizer": {"lr": 1e-2, "betas": [0.9, 0.99]},
            "model": {"width": 4, "depth": 2, "outputs": 8, "sigma_range": LEVELS},
            "data": {
                "clean": {"folder": photos["clean"]},
                "degraded": [
                    {"name": "noise", "type": "corruption", "family": "noise"},
                    {"name": "own", "type": "images", "folder": photos["noisy"]},
                ],
                "context": 32,
                "crop": 16,
                "batch_size": 12,
            },
        }
        return parse_options(base | changes, TrainDDEOptions)

    return make


def test_interrupted_and_resumed_equals_left_alone(run_dde: Callable[..., TrainDDEOptions], tmp_path: Path) -> None:
    train(run_dde(run_dir=str(tmp_path / "whole")))
    asked: list[None] = []

    def stop() -> bool:
        asked.append(None)
        return len(asked) > 3

    train(run_dde(run_dir=str(tmp_path / "broken")), stop=stop)
    train(run_dde(run_dir=str(tmp_path / "broken"), resume="auto"))
    assert "step 3 of 6" in (tmp_path / "broken" / "log.txt").read_text()
    states = [
        torch.load(tmp_path / name / "checkpoints" / "step_00000006.pt", weights_only=True)
        for name in ("whole", "broken")
    ]
    for part in ("model", "averaged"):
        assert all(torch.equal(value, states[1][part][name]) for name, value in states[0][part].items())
    first, second = (checkpoints.load(tmp_path / name / "final.safetensors") for name in ("whole", "broken"))
    assert isinstance(first, DDE)
    assert first.domains == ("clean", "noise", "own")
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    assert (tmp_path / "whole" / "samples" / "step_00000003.png").is_file()


def test_training_learns_to_denoise(run_dde: Callable[..., TrainDDEOptions], tmp_path: Path) -> None:
    """Acceptance check 2: J falls below 1, and a denoised point moves toward the data."""
    path = train(run_dde(max_steps=120, log_every=60, sample_every=500, checkpoint_every=500, ema_decay=0.9))
    figures = checkpoints.read_header(path)["info"]["figures"]
    assert figures["J_clean"] < 0.35  # the pictures are smooth
    assert 0 < figures["J_own"] < 0.35
    assert figures["J_noise"] > figures["J_clean"]
    assert figures["gain_db_low"] > 3
    model = checkpoints.load(path, kind="dde")
    assert isinstance(model, DDE)
    ramp = torch.linspace(0.3, 0.7, 32).expand(8, 1, 32, 32)  # unseen
    noise = torch.randn(ramp.shape, generator=torch.Generator().manual_seed(0))
    sigma = torch.full((8,), 0.1)
    denoised = model.denoise(ramp + 0.1 * noise, sigma)
    assert float((denoised - ramp).square().mean()) < 0.3 * 0.1**2
    # A constant S has J = 1; the loss of the trained one is the denoising error over sigma^2.
    j = dde_loss(model, ramp, sigma, noise).detach()
    torch.testing.assert_close(j, (denoised - ramp).square().mean((1, 2, 3)) / 0.1**2, rtol=1e-3, atol=0)


def test_checkpoints_take_nothing_from_the_log(run_dde: Callable[..., TrainDDEOptions], tmp_path: Path) -> None:
    """J by noise levels is of all steps since the line before, also where a checkpoint was written between them."""
    lines = []
    for every in (3, 50):
        name = f"every{every}"
        train(run_dde(run_dir=str(tmp_path / name), max_steps=4, log_every=4, checkpoint_every=every, sample_every=9))
        log = (tmp_path / name / "log.txt").read_text()
        (line,) = re.findall(r"step 4: .*J_low (\S+).* J_mid (\S+).* J_high (\S+)", log)
        lines.append(line)
    assert lines[0] == lines[1]


@pytest.mark.slow  # torchrun and two processes that import everything
def test_two_processes_share_the_batch_of_one(run_dde: Callable[..., TrainDDEOptions], tmp_path: Path) -> None:
    """The gradient inside the loss must not disturb the averaging of gradients between processes."""
    shared = {"max_steps": 3, "sample_every": 9}
    write_options(tmp_path / "two.yml", run_dde(run_dir=str(tmp_path / "two"), **shared))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launcher, "-m", "synthpipe", "train", str(tmp_path / "two.yml")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    train(run_dde(run_dir=str(tmp_path / "one"), **shared))
    one, two = (checkpoints.load(tmp_path / name / "final.safetensors").state_dict() for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_pictures_show_each_domain_with_noise_and_denoised(run_dde: Callable[..., TrainDDEOptions]) -> None:
    model = recorder(("clean", "black"))
    objective = DDEObjective(model, {1: lambda x, generators: 0 * x}, crop=8, crops_per_context=1)
    picture = objective.pictures(model, batch_of(flat(4, 204), [0, 0, 1, 1]), seed=3)
    assert picture.shape == (3, 4 * 16, 3 * 16)
    assert float(picture.min()) >= 0
    assert float(picture.max()) <= 1
    assert torch.equal(picture[:, :32, :16], torch.full((3, 32, 16), 0.8))
    assert float(picture[:, 32:, :16].max()) == 0
    noise = picture[0, :32, 16:32] - 0.8
    assert float(noise.std()) == pytest.approx(math.sqrt(LEVELS[0] * LEVELS[1]), rel=0.1)
