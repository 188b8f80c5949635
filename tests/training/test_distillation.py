"""Distillation: the loss in closed form, which pixels count, that the student comes near, and that a run resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.config.distillation import TrainDistillOptions
from synthpipe.config.noise import GaussianTrainingNoise
from synthpipe.config.reader import parse_options
from synthpipe.denoisers import Denoiser, PlainDenoiser
from synthpipe.errors import OptionError
from synthpipe.flows import DeFlow
from synthpipe.training import train
from synthpipe.training.base import step_seeds
from synthpipe.training.distillation import DistillObjective, build_objective
from synthpipe.transforms.batch import Batch

NOISE = GaussianTrainingNoise(sigma=(0.1, 0.1))


class Shrinks(Denoiser):
    """``x - strength * sigma`` everywhere, and half as much again at the border of the image."""

    channels = 3

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.config = {"strength": strength}
        self.strength = torch.nn.Parameter(torch.tensor(strength))

    @property
    def reach(self) -> int:
        return 1

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        border = torch.ones_like(x[:, :1])
        border[..., 1:-1, 1:-1] = 0
        return x - self.strength * sigma[:, None, None, None] * (1 + border / 2)


def identity() -> PlainDenoiser:
    model = PlainDenoiser(width=2, depth=2)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    return model


def batch(count: int = 2, side: int = 16) -> Batch:
    x = torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return {"x": x, "key": ["k"] * count, "slot": list(range(count))}


@pytest.mark.parametrize(("frame", "borders"), [(0, 60 / 256), (1, 0.0), (3, 0.0)])
def test_the_loss_is_the_distance_to_the_teacher(frame: int, borders: float) -> None:
    objective = DistillObjective(identity(), Shrinks(2.0), NOISE, frame=frame)
    loss, numbers = objective(batch(), step_seeds(0, 0, [0, 1]))
    # The student leaves x; the teacher is 2 * 0.1 away, 3 * 0.1 at the 60 border pixels of 16 x 16.
    expected = 255**2 * (0.04 * (1 - borders) + 0.09 * borders)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    assert set(numbers) == {"mse", "psnr", "psnr_teacher"}


def test_images_that_are_noisy_already_take_the_level_that_is_given() -> None:
    objective = DistillObjective(identity(), Shrinks(2.0), None, sigma=0.05, frame=1)
    loss, numbers = objective(batch(), step_seeds(0, 0, [0, 1]))
    assert float(loss.detach()) == pytest.approx(255**2 * 0.1**2, rel=1e-4)
    assert set(numbers) == {"mse"}  # nothing clean to compare with


def test_images_that_are_noisy_already_have_their_level_estimated() -> None:
    generator = torch.Generator().manual_seed(1)
    noisy = (0.5 + 0.08 * torch.randn(2, 3, 64, 64, generator=generator)).mul(255).round().to(torch.uint8)
    objective = DistillObjective(identity(), Shrinks(2.0), None, frame=1)
    loss, _ = objective(batch() | {"x": noisy}, step_seeds(0, 0, [0, 1]))
    assert float(loss.detach()) ** 0.5 / 255 == pytest.approx(2 * 0.08, rel=0.05)


def test_only_the_student_learns() -> None:
    objective = DistillObjective(PlainDenoiser(width=2, depth=2), Shrinks(2.0), NOISE, frame=2).train()
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=3e-2)
    losses = []
    for step in range(40):
        optimizer.zero_grad()
        loss, _ = objective(batch(), step_seeds(0, step, [0, 1]))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])
    assert objective.teacher.strength == 2.0
    assert not objective.teacher.training


def options(tiny_run: dict[str, Any], photos: dict[str, str], teacher: Path, **changes: Any) -> TrainDistillOptions:
    data = {
        "images": {"folder": photos["clean"]},
        "crop": 16,
        "batch_size": 2,
        "noise": {"type": "gaussian", "sigma": [0.1, 0.1]},
    }
    values: dict[str, Any] = {
        "kind": "distill",
        **tiny_run,
        "teacher": str(teacher),
        "frame": 4,
        "model": {"width": 3, "depth": 2},
        "data": data,
    }
    return parse_options(values | changes, TrainDistillOptions, "test")


def test_a_run_resumes_exactly(tmp_path: Path, tiny_run: dict[str, Any], photos: dict[str, str]) -> None:
    teacher = checkpoints.save(tmp_path / "teacher.safetensors", PlainDenoiser(width=4, depth=3))
    whole = checkpoints.load(train(options(tiny_run, photos, teacher)), kind="plain_denoiser")
    parts = tiny_run | {"run_dir": str(tmp_path / "parts")}
    steps = iter(range(100))
    train(options(parts, photos, teacher), stop=lambda: next(steps) >= 3)
    again = options(parts | {"resume": "auto"}, photos, teacher)
    resumed = checkpoints.load(train(again), kind="plain_denoiser")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_what_cannot_teach_is_refused(tmp_path: Path, tiny_run: dict[str, Any], photos: dict[str, str]) -> None:
    grey = checkpoints.save(tmp_path / "grey.safetensors", PlainDenoiser(channels=1, width=2, depth=2))
    with pytest.raises(OptionError, match=r"model.channels: expected 1, as the teacher has, got 3"):
        build_objective(options(tiny_run, photos, grey))
    encoder = {"type": "small", "features": 4, "depth": 0}
    flow = DeFlow(scale=2, levels=2, steps=1, hidden=4, encoder=encoder)
    path = checkpoints.save(tmp_path / "flow.safetensors", flow)
    with pytest.raises(OptionError, match="expected weights of a denoiser, got a DeFlow"):
        build_objective(options(tiny_run, photos, path))


def test_options_that_contradict_are_refused(tiny_run: dict[str, Any], photos: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="a frame of 8 leaves nothing of crops of 16"):
        options(tiny_run, photos, Path("w"), frame=8)
    with pytest.raises(OptionError, match=r"with 'data.noise' the level is known"):
        options(tiny_run, photos, Path("w"), sigma=0.1)
