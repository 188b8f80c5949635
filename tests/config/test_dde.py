"""Options of ``kind: dde``: what is refused, and what the error says."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from synthpipe.config.calibration import CalibrationOptions
from synthpipe.config.dde import DDEDataOptions, DDEModelOptions, Family, TrainDDEOptions
from synthpipe.config.reader import parse_options
from synthpipe.density import DDE
from synthpipe.errors import OptionError
from synthpipe.transforms.corruptions import FAMILIES

CLEAN = {"folder": "photos"}


def data(**changes: Any) -> DDEDataOptions:
    return parse_options({"clean": CLEAN, **changes}, DDEDataOptions)


def corruption(name: str) -> dict[str, str]:
    return {"name": name, "type": "corruption", "family": "jpeg"}


def test_every_corruption_can_be_asked_for() -> None:
    assert get_args(Family) == FAMILIES
    assert CalibrationOptions().families == FAMILIES


def test_domains_are_named_in_order_and_reach_the_model() -> None:
    options = data(degraded=[corruption("b"), corruption("a")], batch_size=6)
    assert options.domains == ("clean", "b", "a")
    model = DDE(**DDEModelOptions(width=4, depth=2).arguments(options.domains))
    assert model.domains == ("clean", "b", "a")
    assert model.config["sigma_range"] == [0.01, 0.25]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"degraded": [corruption("clean")]}, r"\('clean' is taken\), got \['clean'\] twice"),
        ({"degraded": [corruption("a"), corruption("a")]}, r"got \['a'\] twice"),
        ({"degraded": [corruption("No name")]}, r"'degraded\.0\.name'.*pattern"),
        ({"degraded": [{"name": "a", "type": "corruption", "family": "rain"}]}, "'jpeg', 'blur'.*got 'rain'"),
        ({"degraded": [{"name": "a", "type": "corruption", "family": []}]}, "at least 1 item"),
        ({"degraded": [{"name": "a", "type": "corruptions", "family": "jpeg"}]}, "'corruption', 'images', 'degrade'"),
        ({"degraded": [{"name": "a", "type": "images"}]}, "exactly one of 'folder' and 'shards'"),
        ({"degraded": [corruption("a")], "batch_size": 6}, r"multiple of 4 \(2 domains, 2 crops.*got 6"),
        ({"crop": 65}, "'crop' of at most 'context', 64, got 65"),
        ({"contxt": 64}, "unknown option 'contxt'; did you mean 'context'?"),
    ],
)
def test_refused_data(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        data(**changes)


def test_refused_noise_levels() -> None:
    with pytest.raises(OptionError, match="0 < low < high in 'sigma_range'"):
        parse_options({"sigma_range": [0.2, 0.2]}, DDEModelOptions)


def test_half_precision_floats_are_refused() -> None:
    run = {"kind": "dde", "run_dir": "x", "data": {"clean": CLEAN}}
    with pytest.raises(OptionError, match=r"expected precision 32 or bf16-mixed, got 16-mixed"):
        parse_options({**run, "precision": "16-mixed"}, TrainDDEOptions)
    assert parse_options({**run, "precision": "bf16-mixed"}, TrainDDEOptions).precision == "bf16-mixed"
