"""The stage on the device: what it does as one function is what it does step by step, and what is lost is counted."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torchdata.nodes import BaseNode

from synthpipe.config.degrade import ClassicalDegradeOptions
from synthpipe.errors import OptionError, StreamError
from synthpipe.pipeline.device_stage import DeviceStage, StageSteps
from synthpipe.pipeline.pair import PatchCut
from synthpipe.pipeline.patches import Patches
from synthpipe.pipeline.pool import PatchPool
from synthpipe.pipeline.source import USED, Record
from synthpipe.pipeline.tally import FILTERED, Tally
from synthpipe.transforms.base import BatchTransform, DeviceTransform
from synthpipe.transforms.captured import CapturedFunction
from synthpipe.transforms.classical import ClassicalDegrade
from synthpipe.transforms.deflow import DeFlowDegrade
from tests.capturable import RefuseHost
from tests.recorded import record_on_cpu
from tests.transforms.test_deflow import tiny_deflow

CPU = torch.device("cpu")
ROWS = 4


class Spoil(DeviceTransform):
    """NaN in place of a tensor for every ``every``-th seed."""

    def __init__(self, every: int, key: str = "gt") -> None:
        self.every, self.key = every, key

    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        bad = (batch["seed"] % self.every == 0)[:, None, None, None]
        return {**batch, self.key: torch.where(bad, torch.nan, batch[self.key])}


class SpoiledDegrade(ClassicalDegrade):
    """``lq`` of every third seed is lost."""

    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return Spoil(3, "lq").compute(super().compute(batch))


class Middle(DeviceTransform):
    """A denoiser's place: a little darker, and NaN for every seventh seed."""

    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return Spoil(7).compute({**batch, "gt": 0.9 * batch["gt"]})


class Keep(DeviceTransform):
    """Drops every ``every``-th seed."""

    def __init__(self, every: int) -> None:
        self.every = every

    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**batch, "keep": batch["seed"] % self.every != 0}


def recorded(function: Callable[..., tuple[Tensor, ...]], rows: int) -> CapturedFunction:
    return CapturedFunction(function, rows, record=record_on_cpu)


def record(first: int, count: int, side: int, cut: PatchCut | None) -> Record:
    seeds = list(range(first, first + count))
    generator = torch.Generator().manual_seed(first)
    tiles = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    corners = {} if cut is None else {"corner": cut.corners(seeds)}
    names = [f"k{seed}" for seed in seeds]
    reader = {"source": 0, "reader": 0, "epoch": 0, "counts": {USED: first + count}, "given_up": {}, "example": ""}
    paths = [f"{name}.png" for name in names]
    return {"tile": tiles, "key": names, "path": paths, "seed": np.array(seeds), **corners, **reader}


def patches_of(made: Patches, tally: Tally) -> dict[str, Any]:
    """Those that are used, with their names."""
    rows = range(len(made) // made.per_row) if made.fates is None else made.fates.settle(tally)
    places = [row * made.per_row + number for row in rows for number in range(made.per_row)]
    found: dict[str, Any] = {key: value[places].clone() for key, value in made.tensors.items()}
    return found | {key: [values[place // made.per_row] for place in places] for key, values in made.lists.items()}


CLASSICAL = ClassicalDegradeOptions.model_validate(
    {"type": "classical", "blur": {"sigma": [0.5, 1.0]}, "noise": {"type": "gaussian", "sigma": [0.01, 0.1]}}
)
CUT = PatchCut(tile=24, lq_size=8, scale=2, margin=2, count=2)
TWICE = PatchCut(tile=24, lq_size=8, scale=2, margin=2, count=2, samples=2)
STEPS: dict[str, tuple[StageSteps, PatchCut | None, int]] = {
    "bicubic": (StageSteps(degrade=ClassicalDegrade(ClassicalDegradeOptions(), 2)), CUT, 48),
    "classical": (StageSteps(degrade=ClassicalDegrade(CLASSICAL, 2)), CUT, 48),
    "deflow": (StageSteps(degrade=DeFlowDegrade(tiny_deflow(), 2)), CUT, 48),
    "two samples": (StageSteps(degrade=DeFlowDegrade(tiny_deflow(), 2, (0.5, 1.0), samples=2)), TWICE, 48),
    "nan in the degradation": (StageSteps(degrade=SpoiledDegrade(ClassicalDegradeOptions(), 2)), CUT, 48),
    "all of it": (
        StageSteps(Middle(), 3, [Keep(5), Spoil(4)], [Keep(6)], SpoiledDegrade(CLASSICAL, 2)), CUT, 54,
    ),
    "no degradation": (StageSteps(Middle(), 3, [Keep(5)], [Keep(6)], None), None, 30),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_as_one_function_it_gives_what_it_gives_step_by_step(name: str) -> None:
    steps, cut, side = STEPS[name]
    stages = DeviceStage(CPU, steps, cut, ROWS), DeviceStage(CPU, steps, cut, ROWS, recorded)
    tallies = Tally(1000, 0.9), Tally(1000, 0.9)
    # the last one is short, and is filled up where the stage is captured
    for first, count in ((1, ROWS), (5, ROWS), (9, ROWS), (13, ROWS), (17, 1), (18, 3)):
        given = record(first, count, side, cut)
        plain, captured = (patches_of(stage(given, tally), tally) for stage, tally in zip(stages, tallies, strict=True))
        if not plain:
            assert not any(len(value) for value in captured.values())
            continue
        assert plain.keys() == captured.keys()
        for key, value in plain.items():
            if isinstance(value, Tensor):
                # Convolutions of another number of rows may sum in another order, which rounding to 8 bits enlarges.
                torch.testing.assert_close(captured[key], value, atol=1.01 / 255 if key == "lq" else 0, rtol=0)
                assert (captured[key] != value).double().mean() < 1e-3
            else:
                assert captured[key] == value
    assert tallies[0].counts() == tallies[1].counts()
    assert tallies[0].state_dict() == tallies[1].state_dict()


@pytest.mark.parametrize("name", STEPS)
def test_as_one_function_it_can_be_a_graph(name: str) -> None:
    steps, cut, side = STEPS[name]
    given = record(1, ROWS, side, cut)
    inputs = [given["tile"], *(torch.from_numpy(given[key]) for key in ("seed", "corner") if key in given)]
    stage = DeviceStage(CPU, steps, cut, ROWS)
    with torch.no_grad(), RefuseHost():
        here = stage.compute(*inputs)
    # On a device without numbers all constants have moved, and nothing asks for a value.
    there = DeviceStage(torch.device("meta"), copy.deepcopy(steps), cut, ROWS)
    inputs = [value.to("meta") for value in inputs]
    # Autocast knows no such device.
    with torch.no_grad(), RefuseHost(), mock.patch("torch.autocast", return_value=contextlib.nullcontext()):
        elsewhere = there.compute(*inputs)
    assert [(value.shape, value.dtype) for value in elsewhere] == [(value.shape, value.dtype) for value in here]


def test_what_is_lost_is_counted_by_its_reason() -> None:
    steps, cut, side = STEPS["all of it"]
    for capture in (None, recorded):
        stage, tally = DeviceStage(CPU, steps, cut, ROWS, capture), Tally(1000, 0.9)
        names = []
        for first in range(0, 60, ROWS):
            names += patches_of(stage(record(first, ROWS, side, cut), tally), tally).get("gt_path", [])
        seeds = range(60)
        denoised = [seed for seed in seeds if seed % 7]
        kept = [seed for seed in denoised if seed % 5]
        finite = [seed for seed in kept if seed % 4]
        judged = [seed for seed in finite if seed % 6]
        left = [seed for seed in judged if seed % 3]
        assert names == [f"k{seed}.png" for seed in left for _ in range(2)]
        lost = len(seeds) - len(denoised) + len(kept) - len(finite) + len(judged) - len(left)
        filtered = len(denoised) - len(kept) + len(finite) - len(judged)
        assert tally.counts() == {USED: 0, FILTERED: filtered, "not_finite": lost}


class Records(BaseNode[Record]):
    """Records of ``ROWS`` tiles, numbered upwards; the last has one."""

    def __init__(self, records: int, side: int, cut: PatchCut | None) -> None:
        super().__init__()
        self.records, self.side, self.cut = records, side, cut

    def reset(self, initial_state: dict[str, Any] | None = None) -> None:
        super().reset(initial_state)
        self.at = 0 if initial_state is None else initial_state["at"]

    def get_state(self) -> dict[str, Any]:
        return {"at": self.at}

    def next(self) -> Record:
        if self.at == self.records:
            raise StopIteration
        self.at += 1
        last = self.at == self.records
        return record((self.at - 1) * ROWS, 1 if last else ROWS, self.side, self.cut)


def pool_of(steps: StageSteps, cut: PatchCut | None, side: int, pool: int, capture: Any, records: int) -> PatchPool:
    stage = DeviceStage(CPU, steps, cut, ROWS, capture)
    return PatchPool(
        Records(records, side, cut), stage, lambda state: Tally(1000, 0.9, state),
        batch_size=5, pool=pool, seed=3, drop_last=False,
    )  # fmt: skip


@pytest.mark.parametrize("pool", [0, 7, 30])
def test_fates_that_are_known_late_change_nothing_of_the_stream(pool: int) -> None:
    steps, cut, side = STEPS["all of it"]
    plain, late = (pool_of(steps, cut, side, pool, capture, 31) for capture in (None, recorded))
    expected = list(plain)
    states, items = [late.state_dict()], []
    for item in late:
        items.append(item)
        states.append(late.state_dict())
    assert [item["batch"]["gt_path"] for item in items] == [item["batch"]["gt_path"] for item in expected]
    assert [item["counts"] for item in items] == [item["counts"] for item in expected]
    assert late.tally.counts() == plain.tally.counts()
    for one, other in zip(items, expected, strict=True):
        assert torch.equal(one["batch"]["gt"], other["batch"]["gt"])
    for place in (0, 3, len(items) // 2, len(items) - 1):
        resumed = pool_of(steps, cut, side, pool, recorded, 31)
        resumed.reset(states[place])
        rest = list(resumed)
        assert [item["batch"]["gt_path"] for item in rest] == [item["batch"]["gt_path"] for item in items[place:]]
        assert [item["counts"] for item in rest] == [item["counts"] for item in items[place:]]
        assert all(torch.equal(a["batch"]["lq"], b["batch"]["lq"]) for a, b in zip(rest, items[place:], strict=True))


def test_a_stream_that_loses_all_on_the_device_ends_with_the_reason() -> None:
    steps = StageSteps(degrade=SpoiledAlways(ClassicalDegradeOptions(), 2))
    for capture in (None, recorded):
        with pytest.raises(StreamError, match=r"too many bad samples: 9\d+ of"):
            list(pool_of(steps, CUT, 48, 40, capture, 1000))


class SpoiledAlways(ClassicalDegrade):
    """Nothing comes out."""

    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return Spoil(1, "lq").compute(super().compute(batch))


class Own(BatchTransform):
    """A user's transform, which keeps what it knows of and cuts the tiles smaller."""

    def sample_params(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {}

    def apply(self, batch: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        return {"gt": batch["gt"][..., 4:-4, :], **{key: batch[key] for key in ("key", "seed", "gt_path")}}


def test_a_transform_may_change_the_size_of_tiles_and_forget_what_it_does_not_know() -> None:
    steps = StageSteps(transforms=[Own()], degrade=ClassicalDegrade(ClassicalDegradeOptions(), 2))
    tally = Tally(1000, 0.9)
    found = patches_of(DeviceStage(CPU, steps, CUT, ROWS)(record(1, ROWS, 48, CUT), tally), tally)
    assert found["lq"].shape == (2 * ROWS, 3, 8, 8)
    assert found["gt"].shape == (2 * ROWS, 3, 16, 16)
    again = patches_of(DeviceStage(CPU, steps, CUT, 1)(record(1, 1, 48, CUT), tally), tally)
    assert again["gt_path"] == found["gt_path"][:2]


def test_only_what_is_tensors_alone_can_be_captured() -> None:
    class Ordinary(BatchTransform):
        def sample_params(self, batch: dict[str, Any]) -> dict[str, Any]:
            return {}

        def apply(self, batch: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
            return batch

    degrade = ClassicalDegrade(ClassicalDegradeOptions(), 2)
    assert StageSteps(Middle(), 3, [Keep(5)], [Keep(6)], degrade).capturable
    for steps in (
        StageSteps(Ordinary(), degrade=degrade),
        StageSteps(transforms=[Ordinary()], degrade=degrade),
        StageSteps(judges=[Ordinary()], degrade=degrade),
        StageSteps(degrade=Ordinary()),
    ):
        assert not steps.capturable


def test_what_is_compiled_is_the_captured_function(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def compile(function: Callable[..., Any], *, dynamic: bool) -> Callable[..., Any]:
        compiled.append((function, dynamic))
        return function

    monkeypatch.setattr(torch, "compile", compile)
    steps, cut, side = STEPS["bicubic"]
    stage = DeviceStage(CPU, steps, cut, ROWS, recorded, compile=True)
    assert compiled == [(stage.compute, False)]
    assert len(stage(record(1, ROWS, side, cut), Tally(1000, 0.9))) == ROWS * cut.count
    with pytest.raises(OptionError, match="compile: needs a CUDA device; leave it out"):
        DeviceStage(CPU, steps, cut, ROWS, compile=True)


@pytest.mark.gpu
def test_on_the_gpu_a_compiled_stage_gives_what_the_cpu_gives() -> None:
    steps, cut, side = STEPS["deflow"]
    tally = Tally(1000, 0.9)
    given = record(1, ROWS, side, cut)
    plain = patches_of(DeviceStage(CPU, steps, cut, ROWS)(given, tally), tally)
    compiled = DeviceStage(torch.device("cuda"), steps, cut, ROWS, compile=True)
    found = patches_of(compiled(given, tally), tally)
    assert torch.equal(found["gt"].cpu(), plain["gt"])
    assert (found["lq"].cpu() - plain["lq"]).abs().max() < 2.01 / 255


@pytest.mark.gpu
@pytest.mark.parametrize("name", STEPS)
def test_on_the_gpu_one_graph_one_graph_gives_what_the_cpu_gives(name: str) -> None:
    steps, cut, side = STEPS[name]
    on_cpu = DeviceStage(CPU, steps, cut, ROWS)
    tallies = Tally(1000, 0.9), Tally(1000, 0.9)
    given = [record(first, count, side, cut) for first, count in ((1, ROWS), (5, ROWS), (9, 2))]
    expected = [patches_of(on_cpu(each, tallies[0]), tallies[0]) for each in given]
    on_gpu = DeviceStage(torch.device("cuda"), steps, cut, ROWS)
    assert on_gpu._whole is not None
    for each, plain in zip(given, expected, strict=True):
        captured = patches_of(on_gpu(each, tallies[1]), tallies[1])
        for key, value in plain.items():
            if isinstance(value, Tensor):
                assert (captured[key].cpu() - value).abs().max() < 2.01 / 255
                assert (captured[key].cpu() != value).double().mean() < 0.01
            else:
                assert captured[key] == value
    assert tallies[0].counts() == tallies[1].counts()
