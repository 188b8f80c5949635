"""JSON schemas of a BasicSR option file: the block of our data set, and the file around it."""

from __future__ import annotations

from typing import Any

from synthpipe.config.basicsr import BASICSR_KEYS, TRANSLATED, DatasetOptions, FeedDataOptions
from synthpipe.config.reference.json_schema import json_schema

__all__ = ["dataset_schema", "file_schema"]

Node = dict[str, Any]

#: What BasicSR fails without, as well as the stream.
_REQUIRED = ["name", "type", "num_worker_per_gpu", "batch_size_per_gpu"]
#: Options that BasicSR's own keys set.
_SET_BY_BASICSR = {
    "scale": "HR side over LR side; BasicSR copies the top level's scale here",
    "seed": "all randomness comes from it; where it is not given, manual_seed of the top level",
}


def dataset_schema() -> Node:
    """The block ``datasets.train`` of ``type: SynthPipeDataset``, by the names that BasicSR has for its options."""
    schema = json_schema(DatasetOptions)
    ours: Node = schema["properties"]
    for name, meaning in _SET_BY_BASICSR.items():
        ours[name] = {**ours[name], "description": meaning}
    theirs = {name: {**ours[own], "description": f"{own}, by BasicSR's name"} for name, own in TRANSLATED.items()}
    theirs["batch_size_per_gpu"] = {key: value for key, value in ours.pop("batch_size").items() if key != "default"}
    schema["properties"] = {**BASICSR_KEYS, **theirs, **ours}
    schema["required"] = [*_REQUIRED, *schema["required"]]
    return schema


def file_schema() -> Node:
    """A whole BasicSR option file: our keys are checked, where our data set and our models are; BasicSR's own pass."""
    block, model = dataset_schema(), json_schema(FeedDataOptions)
    definitions = {**model.pop("$defs"), **block.pop("$defs"), "SynthPipeDataset": block}
    is_ours = {"properties": {"type": {"const": "SynthPipeDataset"}}, "required": ["type"]}
    train = {"if": is_ours, "then": {"$ref": "#/$defs/SynthPipeDataset"}}
    return {
        "$defs": definitions,
        "type": "object",
        "description": "A BasicSR option file with a SynthPipeDataset.",
        "properties": {
            **model["properties"],
            "datasets": {"type": "object", "properties": {"train": {"type": "object", **train}}},
        },
    }
