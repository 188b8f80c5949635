"""Transforms that break the contract: refused in words, or of no effect, and the same step by step and as one graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from synthpipe.config.degrade import ClassicalDegradeOptions
from synthpipe.errors import OptionError, ShapeError
from synthpipe.pipeline.device_stage import DeviceStage, StageSteps
from synthpipe.pipeline.source import FILTERED
from synthpipe.pipeline.tally import Tally
from synthpipe.transforms.base import BatchTransform, DeviceTransform
from synthpipe.transforms.classical import ClassicalDegrade
from tests.pipeline.test_device_stage import CPU, CUT, ROWS, TWICE, patches_of, pool_of, record, recorded

BICUBIC = ClassicalDegrade(ClassicalDegradeOptions(), 2)
CAPTURES = pytest.mark.parametrize("capture", [None, recorded], ids=["step by step", "one graph"])


class Changed(DeviceTransform):
    """``change`` of what ``inner`` computes."""

    def __init__(self, change: Any, inner: DeviceTransform | None = None, samples: int = 1) -> None:
        self.change, self.inner, self.samples = change, inner, samples

    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        made = dict(batch) if self.inner is None else self.inner.compute(batch)
        return {**made, **self.change(made)}


def run(steps: StageSteps, capture: Any, cut: Any = CUT) -> tuple[dict[str, Any], Tally]:
    tally = Tally(1000, 0.9)
    return patches_of(DeviceStage(CPU, steps, cut, ROWS, capture)(record(1, ROWS, 48, cut), tally), tally), tally


KEEPS = {
    "a number": lambda made: {"keep": (made["seed"] % 2).float()},
    "a byte": lambda made: {"keep": (made["seed"] % 2).to(torch.uint8)},
    "too short": lambda made: {"keep": made["seed"][1:] > 0},
    "a column": lambda made: {"keep": made["seed"][:, None] > 0},
}


@CAPTURES
@pytest.mark.parametrize("mistake", KEEPS)
@pytest.mark.parametrize("place", ["transforms", "degrade"])
def test_keep_is_one_bool_for_each_sample(capture: Any, mistake: str, place: str) -> None:
    steps = (
        StageSteps(transforms=[Changed(KEEPS[mistake])], degrade=BICUBIC)
        if place == "transforms"
        else StageSteps(degrade=Changed(KEEPS[mistake], BICUBIC))
    )
    with pytest.raises(ShapeError, match=r"Changed: keep must be 4 bools"):
        run(steps, capture)


ROWS_LOST = {
    "gt is shorter": lambda made: {"gt": made["gt"][1:]},
    "gt is longer": lambda made: {"gt": made["gt"].repeat(2, 1, 1, 1)},
    "seeds are shorter": lambda made: {"seed": made["seed"][1:]},
}


@CAPTURES
@pytest.mark.parametrize("mistake", ROWS_LOST)
def test_compute_gives_as_many_samples_as_it_got(capture: Any, mistake: str) -> None:
    with pytest.raises(ShapeError, match=r"Changed: .* must have 4 rows"):
        run(StageSteps(transforms=[Changed(ROWS_LOST[mistake])], degrade=BICUBIC), capture)


DEGRADED = {
    "lq is longer": (lambda made: {"lq": made["lq"].repeat(2, 1, 1, 1)}, r"lq must have 4 rows"),
    "lq is shorter": (lambda made: {"lq": made["lq"][:1]}, r"lq must have 4 rows"),
    "lq is of another scale": (lambda made: {"lq": made["lq"][..., ::2, ::2]}, r"scale differs"),
}


@CAPTURES
@pytest.mark.parametrize("mistake", DEGRADED)
def test_pairs_that_do_not_fit_are_refused(capture: Any, mistake: str) -> None:
    change, expected = DEGRADED[mistake]
    with pytest.raises(ShapeError, match=expected):
        run(StageSteps(degrade=Changed(change, BICUBIC)), capture)


@CAPTURES
def test_samples_that_are_promised_and_do_not_come_are_refused(capture: Any) -> None:
    with pytest.raises(ShapeError, match=r"must have 8 rows"):
        run(StageSteps(degrade=Changed(lambda made: {}, BICUBIC, samples=2)), capture, TWICE)


@CAPTURES
def test_what_a_degradation_drops_is_lost_and_counted(capture: Any) -> None:
    drop = Changed(lambda made: {"keep": made["seed"] != 2}, BICUBIC)
    found, tally = run(StageSteps(degrade=drop), capture)
    assert found["gt_path"] == [f"k{seed}.png" for seed in (1, 3, 4) for _ in range(2)]
    assert tally.counts()[FILTERED] == 1


@CAPTURES
def test_a_degradation_sees_what_transforms_added(capture: Any) -> None:
    add = Changed(lambda made: {"darker": made["seed"].float()})
    use = Changed(lambda made: {"lq": made["lq"] * 0 + made["darker"][:, None, None, None] / 255}, BICUBIC)
    found, _ = run(StageSteps(transforms=[add], degrade=use), capture)
    assert (found["lq"][:, 0, 0, 0] * 255).round().tolist() == [1, 1, 2, 2, 3, 3, 4, 4]


def test_only_a_degradation_makes_several_of_one() -> None:
    with pytest.raises(OptionError, match="Changed: samples is 2"):
        StageSteps(transforms=[Changed(lambda made: {}, samples=2)], degrade=BICUBIC)


class Forgetful(BatchTransform):
    """A user's: drops every second sample of the keys that it knows, and hands on the rest as it was."""

    def sample_params(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {}

    def apply(self, batch: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        known = ("gt", "key", "seed", "gt_path")
        return {**batch, **{key: batch[key][1::2] for key in known}}


def test_a_transform_that_drops_rows_of_the_keys_that_it_knows_leaves_places_to_their_tiles() -> None:
    found, tally = run(StageSteps(transforms=[Forgetful()], degrade=BICUBIC), None)
    every, _ = run(StageSteps(degrade=BICUBIC), None)
    places = [place for place, path in enumerate(every["gt_path"]) if path in ("k2.png", "k4.png")]
    assert found["gt_path"] == [every["gt_path"][place] for place in places]
    assert torch.equal(found["gt"], every["gt"][places])
    assert tally.counts()[FILTERED] == 2


class Alone(BatchTransform):
    """A user's that cannot do with no samples at all."""

    def sample_params(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"most": batch["gt"].flatten().max()}

    def apply(self, batch: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "gt": batch["gt"] / params["most"]}


class Twofold(BatchTransform):
    """Gives more than it gets."""

    def sample_params(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {}

    def apply(self, batch: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        return {
            key: value * 2 if isinstance(value, list) else torch.cat([value, value]) for key, value in batch.items()
        }


class Longer(BatchTransform):
    """``gt`` alone grows."""

    def sample_params(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {}

    def apply(self, batch: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "gt": torch.cat([batch["gt"], batch["gt"]])}


def test_where_nothing_is_left_no_transform_is_asked() -> None:
    drop = Changed(lambda made: {"keep": made["seed"] < 0})
    for cut, degrade in ((CUT, BICUBIC), (None, None)):
        found, tally = run(StageSteps(transforms=[drop, Alone()], degrade=degrade), None, cut)
        assert not found
        assert tally.counts()[FILTERED] == ROWS


@pytest.mark.parametrize("transform", [Twofold(), Longer()])
def test_ordinary_transforms_give_no_more_than_they_got(transform: BatchTransform) -> None:
    with pytest.raises(ShapeError, match=type(transform).__name__):
        run(StageSteps(transforms=[transform], degrade=BICUBIC), None)


class Doubles(BatchTransform):
    """An ordinary degradation of float64, with two samples of each."""

    samples = 2

    def sample_params(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {}

    def apply(self, batch: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        gt = batch["gt"].repeat_interleave(2, 0)
        lists = {key: [item for item in batch[key] for _ in range(2)] for key in ("key", "gt_path")}
        return {"gt": gt, "lq": gt[..., ::2, ::2].double(), "seed": batch["seed"].repeat_interleave(2), **lists}


def test_ordinary_degradations_may_make_several_of_one_in_any_precision() -> None:
    found, _ = run(StageSteps(degrade=Doubles()), None, TWICE)
    assert found["lq"].dtype == found["gt"].dtype == torch.float32
    assert found["lq"].shape == (4 * ROWS, 3, 8, 8)
    assert torch.equal(found["lq"], found["gt"][..., ::2, ::2])
    assert found["gt_path"] == [f"k{seed}.png" for seed in range(1, 5) for _ in range(4)]


class Halves(BatchTransform):
    """Tiles of odd seeds lose half of their width; of others ``gt`` comes in float64."""

    def __init__(self, change: Any) -> None:
        self.change = change

    def sample_params(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {}

    def apply(self, batch: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "gt": self.change(batch["gt"], int(batch["seed"][0]))}


def test_patches_of_another_size_than_those_before_are_refused() -> None:
    one_column = Halves(lambda gt, first: gt[..., :1] if first >= ROWS else gt)
    with pytest.raises(ShapeError, match=r"gt: patches of \(3, 30, 1\) torch.float32 after some of \(3, 30, 30\)"):
        list(pool_of(StageSteps(transforms=[one_column]), None, 30, 7, None, 5))


def test_clean_patches_are_float32_whatever_a_transform_gives() -> None:
    double = Halves(lambda gt, first: gt.double() if first >= ROWS else gt)
    items = list(pool_of(StageSteps(transforms=[double]), None, 30, 7, None, 5))
    plain = list(pool_of(StageSteps(), None, 30, 7, None, 5))
    for one, other in zip(items, plain, strict=True):
        assert torch.equal(one["batch"]["gt"], other["batch"]["gt"])
    with pytest.raises(ShapeError, match=r"Halves: gt must be floating-point in \[0, 1\], got torch.uint8"):
        list(pool_of(StageSteps(transforms=[Halves(lambda gt, first: (gt * 255).byte())]), None, 30, 7, None, 5))


def test_memory_follows_what_is_kept_and_not_what_came() -> None:
    """A filter that drops nine of ten, whose decisions come late."""
    keep = Changed(lambda made: {"keep": made["seed"] % 10 == 3})
    steps = StageSteps(judges=[keep], degrade=BICUBIC)
    pools = [pool_of(steps, CUT, 48, 30, capture, 101) for capture in (None, recorded)]
    plain, late = map(list, pools)
    assert [item["batch"]["gt_path"] for item in late] == [item["batch"]["gt_path"] for item in plain]
    for one, other in zip(late, plain, strict=True):
        assert torch.equal(one["batch"]["lq"], other["batch"]["lq"])
    for pool in pools:
        # a block of 30, one more round of as many that are not settled, and room for 30
        assert all(len(held) <= 30 + 30 + 2 * ROWS + 30 for memory in pool._memory for held in memory._tensors.values())


class OneOfTwo(DeviceTransform):
    """Two samples of each, of which ``lost`` (by 2 * seed + number) are dropped or come to NaN."""

    samples = 2

    def __init__(self, lost: Sequence[int], how: str) -> None:
        self.lost, self.how = lost, how

    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        rows = {key: value.repeat_interleave(2, 0) for key, value in batch.items()}
        number = 2 * rows["seed"] + torch.arange(len(rows["seed"])) % 2
        lost = torch.stack([number == each for each in self.lost]).any(0)
        lq = rows["gt"][..., ::2, ::2]
        if self.how == "keep":
            return {**rows, "lq": lq, "keep": ~lost}
        return {**rows, "lq": torch.where(lost[:, None, None, None], torch.nan, lq)}


@CAPTURES
@pytest.mark.parametrize("how", ["keep", "nan"])
def test_a_sample_has_its_own_places_whichever_others_are_lost(capture: Any, how: str) -> None:
    lost = [2, 5, 8, 9]  # of seeds 1 and 4 the first, of 2 and 4 the second
    every, _ = run(StageSteps(degrade=OneOfTwo([-1], how)), None, TWICE)
    found, tally = run(StageSteps(degrade=OneOfTwo(lost, how)), capture, TWICE)
    places = [2 * row + each for row in range(8) if row + 2 not in lost for each in range(2)]
    assert torch.equal(found["gt"], every["gt"][places])
    assert torch.equal(found["lq"], every["lq"][places])
    assert tally.counts()[FILTERED if how == "keep" else "not_finite"] == 4
