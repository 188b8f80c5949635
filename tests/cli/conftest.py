"""A small flow for commands that degrade."""

from __future__ import annotations

import pytest
import torch

from synthpipe import checkpoints
from synthpipe.flows.deflow import DeFlow


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained but initialised flow whose shift adds noise of a few grey levels."""
    encoder = {"type": "small", "features": 8, "depth": 1}
    model = DeFlow(scale=4, levels=2, steps=1, transition_steps=0, hidden=8, encoder=encoder, covariance_init=0.1)
    model.initialize(torch.rand(4, 3, 32, 32), torch.tensor([0, 0, 1, 1]), torch.Generator().manual_seed(0))
    return str(checkpoints.save(tmp_path_factory.mktemp("weights") / "flow.safetensors", model, {}))
