"""The JSON schemas for editors accept what reading accepts and refuse what it refuses, by jsonschema's judgement."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from synthpipe.config.basicsr import FeedDataOptions, parse_dataset_options
from synthpipe.config.reader import parse_options
from synthpipe.config.reference.examples import EXAMPLES
from synthpipe.config.reference.topics import TOPICS, editor_schema
from synthpipe.config.stream import StreamOptions
from synthpipe.config.training import SCHEMAS
from synthpipe.config.yaml_text import parse_yaml
from synthpipe.errors import OptionError

RECIPES = Path(__file__).parents[3] / "recipes"


class Loader(yaml.SafeLoader):
    """As editors read YAML 1.2, where ``1e-3`` is a number."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def validator(topic: str) -> Draft202012Validator:
    return Draft202012Validator(editor_schema(topic))


def read_stream(data: dict[str, Any]) -> None:
    parse_options(data, StreamOptions)


def read_train(data: dict[str, Any]) -> None:
    if data.get("kind") not in SCHEMAS:
        raise OptionError("kind")
    parse_options(data, SCHEMAS[data["kind"]])


def read_basicsr(data: dict[str, Any]) -> None:
    block = data["datasets"]["train"]
    if missing := {"name", "num_worker_per_gpu", "batch_size_per_gpu"} - set(block):
        raise OptionError(f"BasicSR itself needs {missing}")
    parse_dataset_options({"scale": data["scale"], **block})
    parse_options({key: data[key] for key in FeedDataOptions.model_fields if key in data}, FeedDataOptions)


READERS: dict[str, Callable[[dict[str, Any]], None]] = {
    "stream": read_stream,
    "train": read_train,
    "basicsr": read_basicsr,
}


@pytest.mark.parametrize("topic", TOPICS)
def test_schemas_are_schemas(topic: str) -> None:
    Draft202012Validator.check_schema(editor_schema(topic))


def recipe_files() -> list[Path]:
    files = sorted(RECIPES.glob("*/*.yml"))
    assert len(files) > 30
    return files


@pytest.mark.parametrize("path", recipe_files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_recipes_fit(path: Path) -> None:
    data = yaml.load(path.read_text(), Loader)
    topic = "basicsr" if "datasets" in data else "train" if "kind" in data else "stream"
    assert [error.message for error in validator(topic).iter_errors(data)] == []


def with_change(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of ``data`` with ``value`` at the dotted ``path``; ``...`` removes what is there."""
    changed = copy.deepcopy(data)
    *parents, last = path.split(".")
    place: Any = changed
    for parent in parents:
        place = place.setdefault(parent, {}) if isinstance(place, dict) else place[int(parent)]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return changed


CHANGES: list[tuple[str, str, str, Any, bool]] = [
    ("stream", "stream", "tile", 64, True),
    ("stream", "stream", "tile", None, True),
    ("stream", "stream", "tile", 4, False),
    ("stream", "stream", "tlie", 64, False),
    ("stream", "stream", "shards", ["a", "b"], True),
    ("stream", "stream", "shards", ..., False),
    ("stream", "stream", "degrade", {"weights": "deflow_small"}, False),
    ("stream", "stream", "degrade.strength", 5, False),
    ("stream", "stream", "degrade.strenght", 1, False),
    ("stream", "stream", "degrade.precision", 32, True),
    ("stream", "stream", "degrade.precision", "32", True),
    ("stream", "stream", "degrade.precision", 16, False),
    ("stream", "stream", "degrade", {"type": "classical", "jpeg_quality": [30, 101]}, False),
    ("stream", "stream", "degrade", {"type": "classical", "jpeg_quality": [30]}, False),
    ("stream", "stream", "degrade", {"type": "classical", "blur": {"sigma": [0.5, 1]}}, True),
    ("stream", "stream", "degrade", {"type": "classical", "blur": {"sigma": [0, 1]}}, False),
    ("stream", "stream", "degrade", {"type": "choice", "of": "zoo"}, True),
    ("stream", "stream", "degrade", {"type": "choice", "of": "zo"}, False),
    ("stream", "stream", "degrade", {"type": "choice", "of": ["canon_5d2", {"chain": "bsrgan"}]}, True),
    ("stream", "stream", "degrade", {"type": "choice", "of": ["canon_6d2"]}, False),
    ("stream", "stream", "degrade", {"type": "choice", "of": {"canon_5d2": 2, "bsrgan": [[0, 0], [9, 1]]}}, True),
    ("stream", "stream", "degrade", {"type": "choice", "of": {"canon_6d2": 2}}, False),
    ("stream", "stream", "degrade", {"type": "choice", "of": {"canon_5d2": "often"}}, False),
    ("stream", "stream", "denoise.sigma", "auto", True),
    ("stream", "stream", "denoise.sigma", 0.1, True),
    ("stream", "stream", "denoise.sigma", 25, False),
    ("stream", "stream", "denoise.sigma", "automatic", False),
    ("train", "train.deflow", "kind", "deflw", False),
    ("train", "train.deflow", "kind", ..., False),
    ("train", "train.deflow", "precision", 32, True),
    ("train", "train.deflow", "precision", "bf16-mixed", True),
    ("train", "train.deflow", "precision", 16, False),
    ("train", "train.deflow", "model.encoder", {"type": "small", "features": 8}, True),
    ("train", "train.deflow", "model.encoder", {"type": "small", "blocks": 8}, False),
    ("train", "train.deflow", "data.noisy.folder", ["a", "b"], True),
    ("train", "train.deflow", "data.noisy.foldr", "a", False),
    ("train", "train.deflow", "hole", 3, False),
    ("train", "train.blind_spot", "hole", 3, True),
    ("train", "train.blind_spot", "hole", "automatic", False),
    ("train", "train.dde_generator", "sigma", 0.2, True),
    ("train", "train.dde_generator", "sigma", [0.1, 0.2, 0.3], False),
    ("train", "train.dde_generator", "sigma", 0, False),
    ("train", "train.dde", "data.degraded.0.family", ["jpeg", "blur"], True),
    ("train", "train.dde", "data.degraded.0.family", "jpg", False),
    ("train", "train.dde", "data.degraded.0.name", "JPEG", False),
    ("train", "train.flow_prior", "noise_model", {"a": 0.001, "b": 0.0001}, True),
    ("train", "train.flow_prior", "noise_model", 0.1, True),
    ("train", "train.flow_prior", "noise_model", {"a": 0.001}, False),
    ("basicsr", "basicsr", "datasets.train.tile", 64, True),
    ("basicsr", "basicsr", "datasets.train.tlie", 64, False),
    ("basicsr", "basicsr", "datasets.train.use_hflip", False, True),
    ("basicsr", "basicsr", "datasets.train.batch_size", 4, False),
    ("basicsr", "basicsr", "datasets.train.batch_size_per_gpu", ..., False),
    ("basicsr", "basicsr", "datasets.train.num_worker_per_gpu", 2, False),
    ("basicsr", "basicsr", "datasets.train.pin_memory", True, True),
    ("basicsr", "basicsr", "datasets.train.io_backend", {"type": "disk"}, True),
    ("basicsr", "basicsr", "datasets.val", {"type": "PairedImageDataset", "anything": 1}, True),
    ("basicsr", "basicsr", "network_g", {"type": "RRDBNet"}, True),
    ("basicsr", "basicsr", "gt_size", 0, False),
]


@pytest.mark.parametrize(("topic", "example", "path", "value", "good"), CHANGES)
def test_the_schema_judges_as_reading_does(topic: str, example: str, path: str, value: Any, good: bool) -> None:
    data = with_change(parse_yaml(EXAMPLES[example][0], "example"), path, value)
    if good:
        READERS[topic](data)
    else:
        with pytest.raises(OptionError):
            READERS[topic](data)
    assert validator(topic).is_valid(data) == good


def test_a_block_of_another_data_set_is_none_of_ours() -> None:
    data = {"datasets": {"train": {"type": "PairedImageDataset", "dataroot_gt": "x"}}}
    assert validator("basicsr").is_valid(data)


def test_options_are_explained_at_their_place() -> None:
    schema = editor_schema("stream")
    assert "multiple of scale" in schema["properties"]["gt_size"]["description"]
    assert schema["additionalProperties"] is False
    assert "Gaussian blur" in schema["$defs"]["BlurOptions"]["description"]
    assert "``" not in str(schema)
    assert ":class:" not in str(editor_schema("train"))
