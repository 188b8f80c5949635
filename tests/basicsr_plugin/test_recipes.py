"""Recipes are option files that BasicSR and the plug-in take: keys, types and arguments, without building anything."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from synthpipe.basicsr_plugin.command_line import parse_command_line
from synthpipe.config.basicsr import FeedDataOptions, parse_dataset_options
from synthpipe.config.reader import parse_options
from synthpipe.errors import OptionError
from tests.basicsr_runs import require_basicsr

require_basicsr()

from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY, Registry  # noqa: E402

from synthpipe.basicsr_plugin.checks import check_options  # noqa: E402
from synthpipe.basicsr_plugin.option_file import read_option_file  # noqa: E402

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def basicsr_recipes() -> list[Path]:
    return [path for path in sorted(RECIPES.rglob("*.yml")) if "model_type" in yaml.safe_load(path.read_text())]


def check_arguments(registry: Registry, options: dict[str, Any], take_as_dict: bool = False) -> None:
    given = dict(options)
    built = registry.get(given.pop("type"))
    if not take_as_dict:
        inspect.signature(built).bind(**given)


def test_there_are_recipes() -> None:
    assert {path.parent.name for path in basicsr_recipes()} >= {"demo", "esrgan_x4", "srresnet_x4"}


@pytest.mark.parametrize("path", basicsr_recipes(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_checks_at_the_start_find_nothing_but_absent_data(path: Path) -> None:
    command = parse_command_line(["-opt", str(path)])
    try:
        check_options(read_option_file(command), command)
    except OptionError as error:
        found = [line for line in str(error).splitlines() if "no file at" not in line and "no folder at" not in line]
        assert [line for line in found if "CUDA" not in line] == []


@pytest.mark.parametrize("path", basicsr_recipes(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipe(path: Path) -> None:
    opt = yaml.safe_load(path.read_text())
    assert opt["model_type"] in MODEL_REGISTRY
    assert (path.parent / "README.md").is_file()
    for key, value in opt.items():
        if key.startswith("network_"):
            check_arguments(ARCH_REGISTRY, value)
    for key, value in opt["train"].items():
        if key.endswith("_opt"):
            check_arguments(LOSS_REGISTRY, value)
    train = parse_dataset_options({**opt["datasets"]["train"], "phase": "train", "scale": opt["scale"]})
    assert train.scale == opt["scale"]
    assert opt["datasets"]["train"]["batch_size_per_gpu"] == train.batch_size
    check_arguments(DATASET_REGISTRY, opt["datasets"]["val"], take_as_dict=True)
    if opt["model_type"].startswith("SynthPipe"):
        parse_options({key: opt[key] for key in ("degrade", "gt_size", "scale") if key in opt}, FeedDataOptions)
    if opt.get("network_d", {}).get("type") == "VGGStyleDiscriminator":
        assert opt["network_d"]["input_size"] == train.gt_size
