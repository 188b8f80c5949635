"""A short run's losses are those of an earlier version, to the last digits: a guard against changes that nobody meant.

``tests/golden/basicsr_losses_463c3b7.json`` says by which commit, versions and command its numbers were made.  That
version drew noise from a generator for each sample; here its draws are put in the place of those from seeds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from synthpipe.seeds import generator_for
from synthpipe.transforms import classical, deflow
from tests.basicsr_runs import options, require_basicsr, run_entry

require_basicsr()

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "basicsr_losses_463c3b7.json"


class DrawsOfBefore:
    """What commit 463c3b7 drew for a batch of samples, one after the other from their generators."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.generators: list[torch.Generator] = []

    def __call__(self, seeds: torch.Tensor, salt: str, sample: int = 0) -> DrawsOfBefore:
        # A flow asks twice for one batch, and its draws go on.
        if seeds.tolist() != self.seeds:
            self.seeds = seeds.tolist()
            self.generators = [generator_for(seed, salt) for seed in self.seeds]
        return self

    def normal(self, like: torch.Tensor, purpose: int) -> torch.Tensor:
        return torch.stack([torch.randn(like.shape[1:], generator=generator) for generator in self.generators])

    def uniform(self, like: torch.Tensor, purpose: int) -> torch.Tensor:
        rows = [torch.rand(like.shape[1:], generator=one, dtype=torch.float64) for one in self.generators]
        return torch.stack(rows)


def run_options(folder: Path, model: str) -> dict[str, Any]:
    """Ten iterations: a classical degradation for SRModel, the shipped DeFlow with two readers for ESRGANModel."""
    if model == "SRModel":
        return options(folder, iterations=10, save_every=5)
    more = {"degrade": {"type": "deflow", "weights": "deflow_small"}, "workers": 2, "pool": 8, "gt_size": 64}
    return options(folder, gan=True, iterations=10, save_every=5, **more)


def losses(monkeypatch: pytest.MonkeyPatch, folder: Path, model: str) -> list[dict[str, float]]:
    """The loss terms of each iteration of a run through our entry."""
    from basicsr.models.base_model import BaseModel

    kept: list[dict[str, float]] = []
    reduce = BaseModel.reduce_loss_dict

    def reduce_and_keep(self: Any, terms: Any) -> Any:
        log = reduce(self, terms)
        kept.append({name: float(value) for name, value in log.items()})
        return log

    monkeypatch.setattr(BaseModel, "reduce_loss_dict", reduce_and_keep)
    assert run_entry(monkeypatch, folder, run_options(folder, model)) == 0
    return kept


@pytest.mark.parametrize("model", ["SRModel", "ESRGANModel"])
def test_losses_are_those_of_the_version_before(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = json.loads(GOLDEN.read_text())["losses"][model]
    for transform in (classical, deflow):
        monkeypatch.setattr(transform, "SeededNoise", DrawsOfBefore())
    found = losses(monkeypatch, tmp_path, model)
    assert len(found) == len(expected) == 10
    for iteration, (ours, theirs) in enumerate(zip(found, expected, strict=True), 1):
        # Other processors and versions of PyTorch sum in another order.
        assert ours == pytest.approx(theirs, rel=1e-4), iteration
