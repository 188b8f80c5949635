"""The DeFlow objective: what the loss is, in numbers; where its randomness comes from; groups and pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from synthpipe.config.run import OptimizerOptions
from synthpipe.errors import TrainingError
from synthpipe.flows.deflow import DeFlow
from synthpipe.flows.draws import Noise
from synthpipe.seeds import generator_for, sample_seed
from synthpipe.training.base import generators_of, noise_of, step_generators, step_seeds
from synthpipe.training.deflow import DeFlowObjective

MODEL: dict[str, Any] = {
    "levels": 2,
    "steps": 1,
    "transition_steps": 1,
    "hidden": 4,
    "encoder": {"type": "small", "features": 4},
}


class WhiteGaussian(nn.Module):
    """Pixels N(mean, std^2) at 256 levels, without dequantisation: the likelihood is known in closed form."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.log_std = nn.Parameter(torch.tensor(mean)), nn.Parameter(torch.tensor(math.log(std)))

    def nll(self, x: Tensor, domain: Tensor, noise: Noise, check_values: bool = True) -> Tensor:
        u = (x + (noise.uniform(x, 0) - 0.5) / 256 - self.mean) / self.log_std.exp()
        return (0.5 * u.square() + self.log_std + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)

    def bits_per_dim(self, nll: Tensor, shape: Sequence[int]) -> Tensor:
        return (nll / math.prod(shape[1:]) + math.log(256)) / math.log(2)


def batch(count: int = 4, side: int = 16, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    half = count // 2
    return {
        "x": torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator),
        "domain": torch.tensor([0] * half + [1] * half),
        "slot": list(range(count)),
    }


def test_uniform_pixels_cost_eight_bits_and_a_gaussian_its_cross_entropy() -> None:
    data = batch(count=8, side=64)
    loss, numbers = DeFlowObjective(WhiteGaussian(0.5, 0.4))(data, step_seeds(0, 0, data["slot"]))
    loss = loss.detach()
    # E[-log2 N(x; 0.5, 0.4^2) / 256] for x uniform on about [0, 1]: variance (256 / 255)^2 / 12.
    expected = (0.5 * (256 / 255) ** 2 / 12 / 0.16 + math.log(0.4) + 0.5 * math.log(2 * math.pi)) / math.log(2) + 8
    assert float(loss) == pytest.approx(expected, abs=0.01)
    assert set(numbers) == {"bpd_clean", "bpd_noisy"}
    assert float(loss) == pytest.approx((float(numbers["bpd_clean"]) + float(numbers["bpd_noisy"])) / 2, rel=1e-5)
    assert not any(value.requires_grad for value in numbers.values())


def test_domains_are_reported_apart() -> None:
    data = batch()
    data["x"][:2] = 128
    data["x"][2:] = 0
    _, numbers = DeFlowObjective(WhiteGaussian(128 / 255, 0.05))(data, step_seeds(0, 0, data["slot"]))
    # Black is 128 / 255 away: 0.5 * (0.502 / 0.05)^2 nats more per value.
    gap = float(numbers["bpd_noisy"] - numbers["bpd_clean"])
    assert gap == pytest.approx(0.5 * (128 / 255 / 0.05) ** 2 / math.log(2), rel=0.01)


def test_randomness_is_a_function_of_seed_step_and_slot() -> None:
    def draws(seed: int, step: int, slots: list[int]) -> list[float]:
        seeds = step_seeds(seed, step, slots)
        on_device = noise_of(seeds, torch.device("cpu")).uniform(torch.empty(len(slots), 1), 0)
        return [*on_device[:, 0].tolist(), *(float(torch.rand((), generator=g)) for g in generators_of(seeds))]

    assert sorted(draws(1, 2, [0, 1, 2, 3])) == sorted(draws(1, 2, [0, 1]) + draws(1, 2, [2, 3]))
    assert len({*draws(1, 2, [0, 1]), *draws(1, 3, [0, 1]), *draws(2, 2, [0, 1])}) == 12


def test_generators_are_those_of_every_version() -> None:
    """By the hashes that the module of seeds describes: a denoiser's training draws what it always drew."""
    seed = sample_seed(1, 2, "slot3")
    assert step_seeds(1, 2, [3]).tolist() == [seed]
    wanted = torch.rand(4, generator=generator_for(seed, "train"))
    assert torch.equal(torch.rand(4, generator=step_generators(1, 2, [3])[0]), wanted)


def test_loss_and_gradient_of_deflow_do_not_depend_on_the_split_over_processes() -> None:
    torch.manual_seed(3)
    objective = DeFlowObjective(DeFlow(**MODEL))
    data = batch()
    objective.initialize(data, step_seeds(0, 0, data["slot"]))

    def gradient(part: dict[str, Any]) -> Tensor:
        objective.zero_grad()
        objective(part, step_seeds(0, 5, part["slot"]))[0].backward()
        return torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None])

    whole = gradient(data)
    halves = [
        {"x": data["x"][pick], "domain": data["domain"][pick], "slot": [data["slot"][i] for i in pick]}
        for pick in ([0, 2], [1, 3])
    ]
    mean = (gradient(halves[0]) + gradient(halves[1])) / 2
    torch.testing.assert_close(mean, whole, rtol=1e-3, atol=1e-5)
    assert float((gradient(halves[0]) - whole).abs().max()) > 1e-3


def test_initialize_whitens_once_and_only_once() -> None:
    torch.manual_seed(0)
    objective = DeFlowObjective(DeFlow(**MODEL))
    data, other = batch(), batch(seed=9)
    objective.initialize(data, step_seeds(0, 0, data["slot"]))
    first = {name: value.clone() for name, value in objective.state_dict().items()}
    objective.initialize(other, step_seeds(0, 0, other["slot"]))
    assert all(torch.equal(value, first[name]) for name, value in objective.state_dict().items())


def test_encoder_gets_its_own_rate() -> None:
    objective = DeFlowObjective(DeFlow(**MODEL))
    groups = objective.parameter_groups(OptimizerOptions(lr=1e-3, encoder_lr=1e-5))
    encoder = {id(p) for p in objective.model.encoder.parameters()}  # type: ignore[union-attr, operator]
    assert [group["lr"] for group in groups] == [1e-3, 1e-5]
    assert {id(p) for p in groups[1]["params"]} == encoder
    assert len(groups[0]["params"]) + len(groups[1]["params"]) == len(list(objective.model.parameters()))
    assert len(objective.parameter_groups(OptimizerOptions())) == 1
    with pytest.raises(TrainingError, match="WhiteGaussian has no module 'encoder'"):
        DeFlowObjective(WhiteGaussian(0.0, 1.0)).parameter_groups(OptimizerOptions(encoder_lr=1.0))


def test_numbers_are_the_norms_that_the_model_offers() -> None:
    norms = DeFlowObjective(DeFlow(**MODEL)).numbers()
    assert norms == {"shift_split": pytest.approx(1, abs=0.01), "shift_top": pytest.approx(1, abs=0.01)}
    assert DeFlowObjective(WhiteGaussian(0.0, 1.0)).numbers() == {}


def test_pictures_show_clean_degraded_and_noisy_side_by_side() -> None:
    class Darker(nn.Module):
        def degrade(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
            assert len(generators) == len(x)
            return x - 0.25

    model = Darker()
    data = batch(count=4, side=8)
    picture = DeFlowObjective(model).pictures(model, data, seed=0)
    assert picture.shape == (3, 2 * 8 + 2, 3 * 8 + 4)
    x = data["x"].float() / 255
    torch.testing.assert_close(picture[:, 10:, :8], x[1])
    torch.testing.assert_close(picture[:, 10:, 10:18], (x[1] - 0.25).clamp(0, 1))
    torch.testing.assert_close(picture[:, 10:, 20:], x[3])
    assert bool((picture[:, 8:10] == 1).all())
