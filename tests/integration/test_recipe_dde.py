"""Recipes of densities: their option files are read, and the evaluation measures what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synthpipe.config.dde import TrainDDEOptions
from synthpipe.config.training import read_train_options
from synthpipe.density import DDE

RECIPES = Path(__file__).parents[2] / "recipes"


def evaluation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dde_photos_evaluate", RECIPES / "dde_photos" / "evaluate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["dde_photos", "scorer_small"])
def test_option_files_are_read_and_describe_a_network(name: str) -> None:
    options = read_train_options(RECIPES / name / "train.yml")
    assert isinstance(options, TrainDDEOptions)
    model = DDE(**options.model.arguments(options.data.domains))
    assert sum(parameter.numel() for parameter in model.parameters()) <= 200_000  # acceptance check 11
    low, high = options.model.sigma_range
    assert low <= 0.02
    assert high >= 0.1


class Ideal(DDE):
    """The density of one known picture: its gradient removes half of the noise's amplitude."""

    clean: Tensor

    def log_density(self, y: Tensor, sigma: Tensor, domain: Tensor | None = None) -> Tensor:
        return -0.5 * ((y - self.clean) / (2**0.5 * sigma)).square().flatten(1).sum(1)


def test_the_gain_is_that_of_a_known_density(tmp_path: Path) -> None:
    """A constant density gains nothing; one that halves the noise gains 20 log10(2) dB."""
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    module = evaluation()
    constant = DDE(width=2, depth=2, outputs=1)
    for parameter in constant.parameters():
        torch.nn.init.zeros_(parameter)
    assert module.picture_gains(constant, path, 2, 0) == pytest.approx([0] * 4, abs=1e-4)
    ideal = Ideal(width=2, depth=2, outputs=1)
    ideal.clean = module.middle(ideal, path, 2)
    assert ideal.clean.shape == (1, 1, 20, 30)
    assert module.picture_gains(ideal, path, 2, 0) == pytest.approx([20 * np.log10(2)] * 4, abs=1e-3)
