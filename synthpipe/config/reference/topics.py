"""The option reference: each name of ``synthpipe options``, the schema that it stands for, and examples."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial, reduce
from typing import Annotated, Any

from pydantic import Field

from synthpipe.config.basicsr import FeedDataOptions
from synthpipe.config.calibration import CalibrationOptions, KindCalibrationOptions
from synthpipe.config.chain import StageOption
from synthpipe.config.degrade import DegradeOptions
from synthpipe.config.degrade_file import DegradeFileOptions
from synthpipe.config.denoise import DenoiseOptions
from synthpipe.config.noise import TrainingNoise
from synthpipe.config.reference.basicsr_file import dataset_schema, file_schema
from synthpipe.config.reference.blocks import Block, option_blocks, references
from synthpipe.config.reference.json_schema import DIALECT, json_schema, plain_text
from synthpipe.config.run import DomainOptions, RunOptions
from synthpipe.config.score import CorpusFilterOptions, ScoreOptions
from synthpipe.config.shard import ShardOptions
from synthpipe.config.stream import StreamOptions
from synthpipe.config.training import SCHEMAS as TRAINING

__all__ = ["EDITOR_TOPICS", "SHARED", "TOPICS", "Topic", "editor_schema", "topic_blocks"]

Node = dict[str, Any]


@dataclass(frozen=True)
class Topic:
    """One name of the reference.

    Args:
        what: what it is, one line.
        schema: makes its JSON schema.
        file: makes the JSON schema of the file that it stands in, where that is another.
        like: the topic that has most of its options.
        command: whether the options are given as flags of the command of this name, or of what it has before a dot.
    """

    what: str
    schema: Callable[[], Node]
    file: Callable[[], Node] | None = None
    like: str = ""
    command: bool = False


def _of(schema: Any) -> Callable[[], Node]:
    return partial(json_schema, schema)


def _command(schema: Any, what: str) -> Topic:
    return Topic(what, _of(schema), command=True)


def _kind(kind: str) -> Topic:
    """The option file of one kind of training; it has to name its kind."""

    def schema() -> Node:
        """That of the kind, with the key ``kind`` required."""
        made = json_schema(TRAINING[kind])
        return {**made, "required": ["kind", *made.get("required", ())]}

    what = plain_text(TRAINING[kind].__doc__ or "").split("\n")[0]
    return Topic(what.removeprefix(f"`kind: {kind}`: ").removesuffix("."), schema, like="train")


def _any_training() -> Node:
    made = json_schema(RunOptions)
    made["properties"]["kind"] = {"enum": list(TRAINING), "description": "what is trained"}
    return made


def _training_file() -> Node:
    return json_schema(Annotated[reduce(operator.or_, TRAINING.values()), Field(discriminator="kind")])


#: The only list of names.
TOPICS: Mapping[str, Topic] = {
    "stream": Topic("a stream: the file of `synthpipe preview`, the argument of `build_stream`", _of(StreamOptions)),
    "basicsr": Topic(
        "the block `datasets.train` of a BasicSR option file, with `type: SynthPipeDataset`",
        dataset_schema,
        file=file_schema,
        like="stream",
    ),
    "basicsr_model": Topic(
        "our keys at the top of a BasicSR option file, with `model_type: SynthPipe...Model`", _of(FeedDataOptions)
    ),
    "degrade_file": Topic("the file of `synthpipe degrade`, in place of weights", _of(DegradeFileOptions)),
    "degrade": Topic("the block `degrade`: what makes low-quality images of clean ones", _of(DegradeOptions)),
    "stages": Topic("the stages of a chain, the list that `degrade` may be", _of(StageOption)),
    "train": Topic(
        "the file of `synthpipe train`: what all kinds have (`kernels`: its first three)",
        _any_training,
        file=_training_file,
    ),
    **{f"train.{kind}": _kind(kind) for kind in TRAINING},
    "images": Topic("blocks of a training such as `data.clean`: where images come from", _of(DomainOptions)),
    "noise": Topic("the block `data.noise` of a training: noise that is added to images", _of(TrainingNoise)),
    "shard": _command(ShardOptions, "`synthpipe shard`: image folders to shards"),
    "score": _command(ScoreOptions, "`synthpipe score`: how degraded each image of a corpus is"),
    "filter": _command(
        CorpusFilterOptions,
        "`synthpipe filter`: what is worth keeping of a scored corpus (a stream's: `stream.filter`)",
    ),
    "calibrate": _command(CalibrationOptions, "`synthpipe calibrate`: a scorer for images of your own"),
    "calibrate.kinds": _command(KindCalibrationOptions, "`synthpipe calibrate` of a scorer that tells kinds apart"),
    "denoise": _command(DenoiseOptions, "`synthpipe denoise`: images without noise (a stream's: `stream.denoise`)"),
}

#: Topics that are blocks of others.
SHARED = ("degrade", "stages", "images", "noise")
#: Topics whose files people write in editors.
EDITOR_TOPICS = ("stream", "basicsr", "train")


def topic_blocks(name: str, link: bool = False) -> list[Block]:
    """The options of the topic ``name``, block by block; with ``link``, blocks that are topics are named alone."""
    shared = {known: topic for known, topic in _shared_blocks().items() if topic != name} if link else {}
    return option_blocks(TOPICS[name].schema(), shared)


@cache
def _shared_blocks() -> dict[frozenset[str], str]:
    return {references(TOPICS[topic].schema()): topic for topic in SHARED}


def editor_schema(name: str) -> Node:
    """The JSON schema of the file, or of the block, that the topic ``name`` is about."""
    topic = TOPICS[name]
    return {"$schema": DIALECT, **(topic.file or topic.schema)(), "title": f"synthpipe {name}"}
