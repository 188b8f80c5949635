"""The gradient as one CUDA graph: what is captured asks for nothing; the rest, with a stand-in for the graph."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from synthpipe import checkpoints
from synthpipe.config.deflow import TrainDeFlowOptions
from synthpipe.config.reader import parse_options
from synthpipe.flows import DeFlow, Glow
from synthpipe.flows.deflow_official import AIM_STATISTICS
from synthpipe.training import loop
from synthpipe.training.base import Objective, step_seeds
from synthpipe.training.deflow import DeFlowObjective, build_run
from synthpipe.training.glow import GlowObjective
from synthpipe.training.loop import Trainer
from synthpipe.training.step.captured import CapturedGradient, Gradient
from synthpipe.transforms.batch import Batch
from tests.capturable import RefuseHost

SIZES: dict[str, Any] = {"levels": 2, "steps": 2, "transition_steps": 1, "hidden": 8}
SMALL = {"type": "small", "features": 4, "depth": 1}
RRDB = {"type": "rrdb", "features": 4, "growth": 2, "blocks": 2, "taps": [0, 1]}
DEFLOWS: dict[str, dict[str, Any]] = {
    "full": {"encoder": RRDB, "normalization": {**AIM_STATISTICS, "clamp": True}},
    "diagonal": {"encoder": SMALL, "covariance": "diagonal", "unconditional": True},
    "colour": {"encoder": SMALL, "covariance": "colour", "coupling": "additive", "whiten": True},
}
GLOWS: dict[str, dict[str, Any]] = {
    "learned": {},
    "tails": {"priors": "tails", "logit": True, "smoothing": 0.01},
    "standard, grey": {"priors": "standard", "channels": 1},
}


def deflow(checkpointing: bool = False, **changes: Any) -> DeFlowObjective:
    torch.manual_seed(0)
    model = DeFlow(**{**SIZES, **changes})
    model.checkpoint_activations(checkpointing)
    return DeFlowObjective(model).train()  # type: ignore[return-value]


def glow(checkpointing: bool = False, **changes: Any) -> GlowObjective:
    torch.manual_seed(0)
    model = Glow(**{"levels": 2, "steps": 2, "hidden": 8, "window": 16, **changes})
    model.checkpoint_activations(checkpointing)
    return GlowObjective(model).train()  # type: ignore[return-value]


def batch(count: int = 4, side: int = 16, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return {"x": x, "domain": torch.arange(count) % 2, "slot": list(range(count)), "key": ["k"] * count}


def started(objective: Objective[Any]) -> Objective[Any]:
    objective.initialize(batch(), step_seeds(0, 0, range(4)))
    return objective


OBJECTIVES: dict[str, Callable[[bool], Objective[Any]]] = {
    **{f"deflow {name}": lambda on, changes=changes: deflow(on, **changes) for name, changes in DEFLOWS.items()},
    **{f"glow {name}": lambda on, changes=changes: glow(on, **changes) for name, changes in GLOWS.items()},
}


@pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("reduced", [False, True], ids=["float32", "bf16"])
def test_loss_and_gradient_ask_the_device_for_nothing(
    make: Callable[[bool], Objective[Any]], checkpointing: bool, reduced: bool
) -> None:
    objective, data, seeds = started(make(checkpointing)), batch(), step_seeds(0, 1, range(4))
    assert objective.capturable
    objective(data, seeds)[0].backward()  # ActNorms look once at whether they are initialised
    with RefuseHost():
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            loss, numbers = objective(data, seeds)
        loss.backward()
    assert loss.isfinite()
    assert all(isinstance(value, Tensor) and value.isfinite() for value in numbers.values())


@pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradient_need_no_values_at_all(
    make: Callable[[bool], Objective[Any]], checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the device without values, where a question of any kind, or a tensor of the host, is an error."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())  # it does not know this device
    objective, data = started(make(checkpointing)), batch()
    objective(data, step_seeds(0, 1, range(4)))
    objective.to("meta")
    on_meta = {name: data[name].to("meta") for name in ("x", "domain")}
    seeds = step_seeds(0, 1, range(4)).to("meta")
    with RefuseHost():
        objective(on_meta, seeds)[0].backward()
    assert all(p.grad is not None and p.grad.is_meta for p in objective.parameters())


def test_what_looks_at_values_is_refused() -> None:
    model, x, domain = started(deflow(**DEFLOWS["full"])).model, torch.zeros(1, 3, 16, 16), torch.tensor([0])
    with RefuseHost(), pytest.raises(AssertionError, match="asks the device for a value"):
        model.nll(x, domain)


class StandIn(CapturedGradient):
    """As a graph: what is recorded writes to the memory of its first results, whatever parameters hold."""

    replays = 0

    def _aside(self, function: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        return function()

    def _capture(self, function: Callable[[], dict[str, Tensor]]) -> Callable[[], None]:
        self._numbers = function()
        memory = [parameter.grad for parameter in self._parameters]

        def replay() -> None:
            self.replays += 1
            held = [parameter.grad for parameter in self._parameters]
            for name, value in function().items():
                self._numbers[name].copy_(value)
            for parameter, into, now in zip(self._parameters, memory, held, strict=True):
                if into is not None and parameter.grad is not None:
                    into.copy_(parameter.grad)
                parameter.grad = now

        return replay


def plain(objective: Objective[Any]) -> Gradient:
    def gradient(data: Batch, seeds: Tensor) -> dict[str, Tensor]:
        objective.zero_grad(set_to_none=True)
        loss, numbers = objective(data, seeds)
        loss.backward()
        return {"loss": loss.detach(), **numbers}

    return gradient


def left_by(
    gradient: Gradient, objective: Objective[Any], data: Batch, step: int
) -> tuple[dict[str, float], list[Tensor]]:
    """Numbers and gradients after one call."""
    numbers = gradient(data, step_seeds(0, step, data["slot"]))
    found = {name: float(value) for name, value in numbers.items()}
    return found, [p.grad.clone() for p in objective.parameters() if p.grad is not None]


def test_replays_and_other_shapes_give_the_plain_gradient(caplog: pytest.LogCaptureFixture) -> None:
    objective = started(deflow(**DEFLOWS["colour"]))
    simple = plain(objective)
    captured = StandIn(simple, list(objective.parameters()), torch.device("cpu"))
    batches = [batch(seed=1), batch(seed=2), batch(2, seed=3), batch(seed=4), batch(side=24, seed=5), batch(seed=6)]
    with caplog.at_level(logging.INFO):
        found = [left_by(captured, objective, data, step) for step, data in enumerate(batches)]
    wanted = [left_by(simple, objective, data, step) for step, data in enumerate(batches)]
    for (numbers, gradients), (expected, expected_gradients) in zip(found, wanted, strict=True):
        assert numbers == expected
        assert all(torch.equal(a, b) for a, b in zip(gradients, expected_gradients, strict=True))
    assert captured.replays == 5  # one of them before the first, with other seeds
    assert caplog.text.count("one CUDA graph") == 1


def test_what_cannot_be_captured_goes_on_as_plain_code(caplog: pytest.LogCaptureFixture) -> None:
    class Refused(StandIn):
        def _capture(self, function: Callable[[], dict[str, Tensor]]) -> Callable[[], None]:
            function()
            raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")

    objective = started(deflow(**DEFLOWS["full"]))
    simple = plain(objective)
    captured = Refused(simple, list(objective.parameters()), torch.device("cpu"))
    found = [left_by(captured, objective, batch(seed=step), step) for step in range(2)]
    wanted = [left_by(simple, objective, batch(seed=step), step) for step in range(2)]
    assert [numbers for numbers, _ in found] == [numbers for numbers, _ in wanted]
    assert (
        caplog.text.count("could not be captured and runs as plain code: RuntimeError: CUDA error: operation not") == 1
    )


@pytest.mark.parametrize(
    ("name", "said"), [("seeds", "noise does not follow the seeds"), ("x", "loss and gradient norm were")]
)
def test_a_replay_that_does_not_read_its_inputs_is_noticed(
    name: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    objective = started(deflow(**DEFLOWS["full"]))
    simple = plain(objective)
    kept: list[dict[str, Tensor]] = []

    def frozen(data: Batch, seeds: Tensor) -> dict[str, Tensor]:
        inputs = {"x": data["x"], "domain": data["domain"], "seeds": seeds}
        if len(kept) < 3:  # both calls before capture, and the capture
            kept.append({key: value.clone() for key, value in inputs.items()})
        inputs[name] = kept[-1][name]
        return simple(inputs, inputs["seeds"])

    captured = StandIn(frozen, list(objective.parameters()), torch.device("cpu"))
    left_by(captured, objective, batch(), 5)
    assert captured.replays == 2
    assert f"runs as plain code: {'its ' if name == 'seeds' else ''}{said}" in caplog.text
    left_by(captured, objective, batch(), 6)
    assert captured.replays == 2


def trained(options: TrainDeFlowOptions) -> dict[str, Tensor]:
    Trainer(options, *build_run(options)).run()
    return checkpoints.load(Path(options.run_dir) / "final.safetensors").state_dict()


def test_a_run_with_a_stand_in_for_the_graph_has_the_bits_of_one_without(
    run_data: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def options(name: str) -> TrainDeFlowOptions:
        return parse_options(run_data(run_dir=str(tmp_path / name), clip_norm=1.0), TrainDeFlowOptions)

    wanted = trained(options("plain"))
    made: list[StandIn] = []

    def way(self: Trainer) -> Gradient:
        made.append(StandIn(self._plain_gradient, list(self.objective.parameters()), self.fabric.device))
        return made[-1]

    monkeypatch.setattr(Trainer, "_gradient_way", way)
    found = trained(options("stand_in"))
    assert made[0].replays == 7
    assert all(torch.equal(value, found[name]) for name, value in wanted.items())


def test_no_step_asks_the_device_for_anything(
    run_data: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradient, clipping, Adam, average and the count of bad steps; seeds are made on the host."""
    options = parse_options(run_data(clip_norm=1.0, optimizer={"kind": "adamw", "lr": 1e-3}), TrainDeFlowOptions)
    seeds = {step: step_seeds(options.seed, step, range(4)) for step in range(6)}
    monkeypatch.setattr(loop, "step_seeds", lambda seed, step, slots: seeds[step])
    step, watched = Trainer._one_step, []

    def one_step(self: Trainer, data: Batch) -> dict[str, Tensor]:
        if self.step == 0:  # makes the moments
            return step(self, data)
        watched.append(self.step)
        with RefuseHost():
            return step(self, data)

    monkeypatch.setattr(Trainer, "_one_step", one_step)
    trained(options)
    assert watched == [1, 2, 3, 4, 5]


@pytest.mark.gpu
class TestOnCuda:
    @pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)
    @pytest.mark.parametrize("checkpointing", [False, True])
    def test_the_graph_gives_the_plain_gradient(
        self, make: Callable[[bool], Objective[Any]], checkpointing: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        objective = started(make(checkpointing)).cuda()
        simple = plain(objective)
        captured = CapturedGradient(simple, list(objective.parameters()), torch.device("cuda"))
        batches = [{**data, "x": data["x"].cuda(), "domain": data["domain"].cuda()} for data in map(_seeded, range(4))]
        with caplog.at_level(logging.INFO):
            found = [left_by(captured, objective, data, step) for step, data in enumerate(batches)]
        assert "the training step is one CUDA graph" in caplog.text
        wanted = [left_by(simple, objective, data, step) for step, data in enumerate(batches)]
        for (numbers, gradients), (expected, expected_gradients) in zip(found, wanted, strict=True):
            assert numbers == pytest.approx(expected, rel=1e-4)
            for ours, theirs in zip(gradients, expected_gradients, strict=True):
                assert_close(ours, theirs, rtol=1e-2, atol=1e-4 * float(theirs.abs().max()) + 1e-7)

    @pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
    def test_a_captured_run_ends_where_a_plain_one_does(
        self, precision: str, run_data: Callable[..., dict[str, Any]], tmp_path: Path
    ) -> None:
        weights, losses = [], []
        for capture in ("auto", "never"):
            changes = {"capture": capture, "device": "cuda", "precision": precision, "run_dir": str(tmp_path / capture)}
            state = trained(parse_options(run_data(**changes), TrainDeFlowOptions))
            weights.append(torch.cat([value.flatten() for value in state.values() if value.is_floating_point()]))
            header = checkpoints.read_header(tmp_path / capture / "final.safetensors")
            losses.append(header["info"]["figures"]["loss"])
            log = (tmp_path / capture / "log.txt").read_text()
            assert ("the training step is one CUDA graph" in log) == (capture == "auto")
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
        # Six steps of Adam at 1e-3 each: where a gradient is rounding alone, its sign is, too.
        assert float(((weights[0] - weights[1]).abs() > 1e-4).float().mean()) < 0.05


def _seeded(seed: int) -> Batch:
    return batch(seed=seed)
