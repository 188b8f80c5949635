"""Training a Glow: what the loss is, that it falls to what the data allow, exact resume, pictures and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from synthpipe import checkpoints
from synthpipe.config.glow import TrainGlowOptions
from synthpipe.config.reader import parse_options
from synthpipe.config.training import read_train_options, write_options
from synthpipe.errors import OptionError
from synthpipe.flows import Glow
from synthpipe.training import train
from synthpipe.training.base import noise_of, step_seeds
from synthpipe.training.glow import GlowObjective, build_objective

TINY: dict[str, Any] = {"channels": 1, "levels": 2, "steps": 1, "hidden": 4, "window": 8}


@pytest.fixture
def run_glow(tiny_run: dict[str, Any], photos: dict[str, str]) -> Callable[..., TrainGlowOptions]:
    """``run_glow(**changes)``: the options of a tiny run on drawn pictures."""

    def make(**changes: Any) -> TrainGlowOptions:
        base: dict[str, Any] = {
            "kind": "glow",
            **tiny_run,
            "optimizer": {"lr": 1e-2},
            "model": TINY,
            "data": {"images": {"folder": photos["clean"]}, "crop": 8, "batch_size": 4},
        }
        return parse_options(base | changes, TrainGlowOptions)

    return make


def batch(count: int, side: int = 8, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return {"x": x, "key": ["k"] * count, "slot": list(range(count))}


def objective(**changes: Any) -> GlowObjective:
    made = GlowObjective(Glow(**{**TINY, **changes}))
    made.initialize(batch(64), step_seeds(0, 0, range(64)))
    return made


def test_the_loss_is_bits_per_dimension_and_nats_are_logged() -> None:
    made = objective(channels=3)
    data = batch(6)
    loss, numbers = made(data, step_seeds(0, 1, data["slot"]))
    model = made.model
    assert isinstance(model, Glow)
    likelihood = model.log_prob(data["x"] / 255, noise_of(step_seeds(0, 1, data["slot"]), data["x"].device))
    assert float(numbers["nll"]) == pytest.approx(-float(likelihood.detach().mean()), rel=1e-5)
    assert float(loss.detach()) == pytest.approx(float(numbers["nll"]) / (192 * math.log(2)), rel=1e-5)
    # Levels drawn evenly cost 8 bits each; a normal law of their variance costs log2(pi e / 6) / 2 = 0.25 more.
    assert float(loss.detach()) == pytest.approx(8.25, abs=0.1)


def test_a_crops_noise_is_its_slots_alone() -> None:
    made, data = objective(), batch(6)
    part = {"x": data["x"][[4]], "key": ["k"], "slot": [4]}
    shares = [float(made({**part, "x": data["x"][[4]]}, step_seeds(0, 1, [4]))[0].detach()) for _ in range(2)]
    other = float(made(part, step_seeds(0, 1, [3]))[0].detach())
    assert shares[0] == shares[1] != other


def test_training_reaches_the_entropy_of_the_data(tmp_path: Path, run_glow: Callable[..., TrainGlowOptions]) -> None:
    """Flat crops with normal noise of 12 grey levels: log2(12 sqrt(2 pi e)) = 5.63 bits, and the level of each crop."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "noise"
    folder.mkdir()
    for number in range(6):
        grey = np.clip(128 + 12 * rng.standard_normal((96, 96)), 0, 255).round().astype(np.uint8)
        Image.fromarray(grey).convert("RGB").save(folder / f"{number}.png")
    data = {"images": {"folder": str(folder)}, "crop": 8, "batch_size": 32, "workers": 0}
    options = run_glow(max_steps=40, log_every=10, sample_every=500, checkpoint_every=500, ema_decay=0.8, data=data)
    figures = checkpoints.read_header(train(options))["info"]["figures"]
    entropy = math.log2(12 * math.sqrt(2 * math.pi * math.e))
    assert figures["bits_per_dim"] == pytest.approx(entropy, abs=0.04)
    assert figures["bits_per_dim"] > entropy - 0.02  # no code is shorter


def test_interrupted_and_resumed_equals_left_alone(run_glow: Callable[..., TrainGlowOptions], tmp_path: Path) -> None:
    train(run_glow(run_dir=str(tmp_path / "whole")))
    asked: list[None] = []

    def stop() -> bool:
        asked.append(None)
        return len(asked) > 3

    train(run_glow(run_dir=str(tmp_path / "broken")), stop=stop)
    train(run_glow(run_dir=str(tmp_path / "broken"), resume="auto"))
    first, second = (checkpoints.load(tmp_path / name / "final.safetensors", "glow") for name in ("whole", "broken"))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    assert (tmp_path / "whole" / "samples" / "step_00000003.png").is_file()


def test_half_precision_trains(run_glow: Callable[..., TrainGlowOptions]) -> None:
    model = {**TINY, "logit": True, "priors": "tails", "smoothing": 0.01}
    bits = []
    for precision in ("32", "bf16-mixed"):
        options = run_glow(model=model, precision=precision, run_dir=f"{run_glow().run_dir}_{precision}")
        header = checkpoints.read_header(train(options))
        assert header["info"]["skipped_steps"] == 0
        bits.append(header["info"]["figures"]["bits_per_dim"])
    assert bits[0] != bits[1]
    assert bits[1] == pytest.approx(bits[0], abs=0.05)


def test_pictures_show_images_beside_samples() -> None:
    for channels in (1, 3):
        made, data = objective(channels=channels), batch(3)
        picture = made.pictures(made.model.eval(), data, seed=1)
        assert picture.shape == (3, 3 * 8, 5 * 8)
        assert 0 <= float(picture.min()) < float(picture.max()) <= 1
    assert torch.equal(picture[:, 8:16, :8], data["x"][1] / 255)
    again = made.pictures(made.model.eval(), data, seed=1)
    assert torch.equal(again, picture)


def test_options_write_and_read_back(run_glow: Callable[..., TrainGlowOptions], tmp_path: Path) -> None:
    options = run_glow(model={**TINY, "preset": "reference", "steps": 2})
    write_options(tmp_path / "o.yml", options)
    assert read_train_options(tmp_path / "o.yml") == options
    model = build_objective(options).model
    assert isinstance(model, Glow)
    assert (model.config["logit"], model.config["priors"], model.config["steps"]) == (True, "standard", 2)


def test_crops_that_are_no_windows_are_refused(run_glow: Callable[..., TrainGlowOptions]) -> None:
    with pytest.raises(OptionError, match=r"data.crop to be model.window, 16, got 8"):
        run_glow(model={**TINY, "window": 16})
