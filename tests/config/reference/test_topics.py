"""The option reference has every option, and its examples are read by the schemas that they show."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter

import synthpipe.config
from synthpipe.config.basicsr import FeedDataOptions, parse_dataset_options
from synthpipe.config.chain import StageOption, as_degrade
from synthpipe.config.degrade import DegradeOptions
from synthpipe.config.degrade_file import DegradeFileOptions
from synthpipe.config.noise import TrainingNoise
from synthpipe.config.presets import PRESETS
from synthpipe.config.reader import Options, parse_options
from synthpipe.config.reference.blocks import Option, blocks_at, option_blocks
from synthpipe.config.reference.examples import EXAMPLES
from synthpipe.config.reference.json_schema import json_schema
from synthpipe.config.reference.topics import SHARED, TOPICS, topic_blocks
from synthpipe.config.run import DomainOptions, RunFolderOptions, RunOptions
from synthpipe.config.stream import StreamOptions
from synthpipe.config.training import SCHEMAS, read_train_options
from synthpipe.config.yaml_text import parse_yaml

#: What else may stand in its place.
SHORT_FORMS = f", or list, or one of {', '.join(sorted(PRESETS))}, or" if PRESETS else ", list or"
#: The values of ``type`` of a degradation.
DEGRADATIONS = [schema.model_fields["type"].default for schema in get_args(get_args(DegradeOptions)[0])]


def options_of(topic: str) -> dict[str, Option]:
    return {option.name: option for block in topic_blocks(topic) for option in block.options}


def schemas_in(annotation: Any, around: tuple[Any, ...] = ()) -> Iterator[type[BaseModel]]:
    """The models within an annotation and within their fields; one within itself once."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in around:
        yield annotation
        for field in annotation.model_fields.values():
            yield from schemas_in(field.annotation, (*around, annotation))
    for argument in getattr(annotation, "__args__", ()):
        yield from schemas_in(argument, around)


def all_schemas() -> set[type[Options]]:
    for module in pkgutil.walk_packages(synthpipe.config.__path__, "synthpipe.config."):
        importlib.import_module(module.name)

    def below(schema: type[Options]) -> Iterator[type[Options]]:
        for child in schema.__subclasses__():
            yield child
            yield from below(child)

    return {schema for schema in below(Options) if schema.__module__.startswith("synthpipe.")}


def test_every_schema_of_the_package_belongs_to_a_topic() -> None:
    shown = set()
    for topic in TOPICS.values():
        schema = topic.schema()
        shown |= {schema.get("title"), *schema.get("$defs", ())}
    # Bases of others, which no file is read with.
    bases = {s.__name__ for s in all_schemas() if s.__subclasses__()}
    assert {schema.__name__ for schema in all_schemas()} - shown - bases == set()


@pytest.mark.parametrize("topic", [topic for topic in TOPICS if topic not in ("basicsr", "train")])
def test_every_field_of_a_topic_is_shown_with_its_own_description(topic: str) -> None:
    meanings: dict[str, set[str]] = {}
    for block in topic_blocks(topic):
        for option in block.options:
            meanings.setdefault(option.name.rsplit(".", 1)[-1], set()).add(option.meaning)
    title = TOPICS[topic].schema().get("title")
    names = {"degrade": DegradeOptions, "stages": StageOption, "noise": TrainingNoise}
    top = names.get(topic) or next(schema for schema in all_schemas() if schema.__name__ == title)
    seen = list(schemas_in(top))
    assert seen
    for schema in seen:
        for name, field in schema.model_fields.items():
            assert field.description in meanings[name], f"{schema.__name__}.{name}"


def test_the_block_of_basicsr_has_the_streams_options_by_its_own_names() -> None:
    stream, block = options_of("stream"), options_of("basicsr")
    assert set(stream) - set(block) == {"batch_size"}
    assert block["batch_size_per_gpu"].meaning == stream["batch_size"].meaning
    assert block["batch_size_per_gpu"].default == "required"
    assert {"use_hflip", "use_rot", "virtual_length", "num_worker_per_gpu"} <= set(block)


def test_what_all_kinds_of_training_have_is_their_common_part() -> None:
    common = options_of("train")
    for topic in TOPICS:
        if topic.startswith("train."):
            own = options_of(topic)
            steps = issubclass(SCHEMAS[topic.removeprefix("train.")], RunOptions)
            shared = (common.keys() if steps else RunFolderOptions.model_fields.keys()) - {"kind"}
            assert {name: own[name] for name in shared} == {name: common[name] for name in shared}
            assert steps or not own.keys() & (RunOptions.model_fields.keys() - RunFolderOptions.model_fields.keys())
            assert own["kind"].type == topic.removeprefix("train.")
            assert own["kind"].default == "required"


@pytest.mark.parametrize(
    ("topic", "name", "type_", "default"),
    [
        ("stream", "shards", "shards or list of shards", "required"),
        ("stream", "gt_size", "integer from 8 to 4096", "required"),
        ("stream", "tile", "integer from 8 to 2048 or null", "null"),
        ("stream", "degrade", f"block by type ({', '.join(DEGRADATIONS)}){SHORT_FORMS} null", "null"),
        ("stream", "degrade.blur.sigma", "list of 2 numbers > 0 and <= 8", "required"),
        ("stream", "degrade.jpeg_quality", "list of 2 integers from 1 to 100 or null", "null"),
        ("stream", "denoise.sigma", "auto, number from 0 to 1 or null", "null"),
        ("stream", "start_method", "one of fork, spawn, forkserver, or null", "null"),
        ("train.deflow", "precision", "one of 32, bf16-mixed, 16-mixed", "32"),
        ("train.deflow", "model.encoder", "block by type (rrdb, small)", "rrdb"),
        ("train.deflow", "data", "block", "required"),
        ("train.deflow", "model", "block", ""),
        ("train.deflow", "seed", "integer >= 0 and < 2^63", "10"),
        ("train.dde", "data.degraded", "list of blocks by type (corruption, images, degrade)", "[]"),
        ("train.dde", "data.degraded[].degrade.blur.ratio", "list of 2 numbers > 0 and <= 1", "[1, 1]"),
        ("train.dde_generator", "sigma", "number > 0 or list of 2 numbers > 0", "required"),
        ("train.map_denoiser", "model.sigma_range", "list of 2 numbers", "[0.00784314, 0.196078]"),
        (
            "train.flow_prior",
            "noise_model",
            "one of known, estimated, estimated_line, or number > 0 and <= 1, or block",
            "known",
        ),
        ("stages", "probability", "number, or list of pairs [integer >= 0, number >= 0]", "1"),
        ("stages", "of[].weight", "number, or list of pairs [integer >= 0, number >= 0]", "1"),
        ("degrade", "noise.covariance", "list of 3 lists of 3 numbers or null", "null"),
        ("calibrate", "families", "list, each one of jpeg, blur, upscale, noise, screen, page", None),
        ("shard", "inputs", "non-empty list of shards or folders", "required"),
        ("shard", "reencode", "png or null", "null"),
        ("shard", "prefix", "text matching `^[A-Za-z0-9][A-Za-z0-9_-]*$`", "shard"),
        ("score", "allow_pipe", "true or false", "false"),
    ],
)
def test_types_and_defaults_are_in_words_of_yaml(topic: str, name: str, type_: str, default: str | None) -> None:
    option = options_of(topic)[name]
    assert option.type == type_
    assert default is None or option.default == default


def test_a_default_that_a_block_sets_for_its_parts_is_shown() -> None:
    from pydantic import Field

    class Inner(Options):
        """Inner."""

        width: int = Field(3, description="w")

    class Outer(Options):
        """Outer."""

        inner: Inner = Field(Inner(width=7), description="i")

    blocks = option_blocks(json_schema(Outer))
    assert [(o.name, o.default) for block in blocks for o in block.options] == [("inner", ""), ("inner.width", "7")]


@pytest.mark.parametrize("topic", SHARED)
def test_shared_blocks_are_described_once(topic: str) -> None:
    users = [name for name in TOPICS if any(o.see == topic for b in topic_blocks(name, link=True) for o in b.options)]
    assert users
    for name in users:
        place = next(o.name for b in topic_blocks(name, link=True) for o in b.options if o.see == topic)
        assert len(blocks_at(topic_blocks(name, link=True), place)) == 1
        assert len(blocks_at(topic_blocks(name), place)) > 1


def example_cases() -> list[tuple[str, str]]:
    return [(topic, text) for topic, texts in EXAMPLES.items() for text in texts]


def read_example(topic: str, text: str, folder: Path) -> Any:
    """Read an example with what reads the file that it is from."""
    data = parse_yaml(text, "example")
    blocks: Mapping[str, tuple[str, Any]] = {
        "degrade": ("degrade", DegradeOptions),
        "stages": ("degrade", DegradeOptions),
        "noise": ("noise", TrainingNoise),
        "images": ("clean", DomainOptions),
    }
    if topic in blocks:
        key, schema = blocks[topic]
        assert list(data) == [key]
        return TypeAdapter(schema).validate_python(data[key])
    schemas = {"stream": StreamOptions, "basicsr_model": FeedDataOptions, "degrade_file": DegradeFileOptions}
    if topic == "basicsr":
        return parse_dataset_options({"phase": "train", "scale": data["scale"], **data["datasets"]["train"]})
    if topic.startswith("train."):
        path = folder / "options.yml"
        path.write_text(text)
        options = read_train_options(path)
        assert f"train.{options.kind}" == topic
        return options
    return parse_options(data, schemas[topic])


@pytest.mark.parametrize(("topic", "text"), example_cases())
def test_examples_are_read(topic: str, text: str, tmp_path: Path) -> None:
    assert read_example(topic, text, tmp_path) is not None


@pytest.mark.parametrize("schema", get_args(get_args(StageOption)[0]), ids=lambda schema: schema.types()[0])
def test_every_stage_has_an_example_that_holds_it(schema: Any) -> None:
    name = schema.types()[0]
    assert schema.examples
    for text in schema.examples:
        assert f"type: {name}" in text


def test_every_file_and_block_has_an_example() -> None:
    assert set(EXAMPLES) == {name for name, topic in TOPICS.items() if not topic.command and name != "train"}
    assert all(EXAMPLES.values()), [name for name, texts in EXAMPLES.items() if not texts]


def test_blur_jpeg_and_noise_of_degrade_have_examples() -> None:
    seen = [as_degrade(parse_yaml(text, "example")["degrade"]) for text in EXAMPLES["degrade"]]
    for key in ("blur", "noise", "jpeg_quality"):
        assert any(set(block) == {"type", key} for block in seen), f"{key} alone"
    assert {block["noise"]["type"] for block in seen if "noise" in block} == {"gaussian", "poisson_gaussian"}
    assert {block["type"] for block in seen} == set(DEGRADATIONS)
