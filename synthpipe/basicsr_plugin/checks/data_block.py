"""The block ``datasets.train``: what our data set takes, and what BasicSR does around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from synthpipe.basicsr_plugin.checks.lookup import block_at, value_at
from synthpipe.basicsr_plugin.checks.models import gives_stream
from synthpipe.basicsr_plugin.checks.types import model_class
from synthpipe.config.basicsr import FeedDataOptions, parse_dataset_options
from synthpipe.config.reader import parse_options
from synthpipe.errors import OptionError

__all__ = ["check_data"]

_PREFETCH = (None, "cpu", "cuda")


def check_data(options: Mapping[str, Any]) -> Iterator[str]:
    """One line for each option of a data set that cannot be used, or that would be passed over."""
    for phase, block in block_at(options, "datasets").items():
        if isinstance(block, Mapping):
            yield from _check_any(options, str(phase), block)
    yield from _check_prefetch(options)
    if gives_stream(options):
        yield from _parse(options, "train")
        yield from _check_left(block_at(options, "datasets.train"))
        yield from _check_compile(options)
    if getattr(model_class(options), "__module__", "").startswith("synthpipe."):
        given = {key: options[key] for key in ("degrade", "gt_size", "scale") if options.get(key) is not None}
        yield from _lines(lambda: parse_options(given, FeedDataOptions, source="top level"))


def _check_any(options: Mapping[str, Any], phase: str, block: Mapping[str, Any]) -> Iterator[str]:
    if block.get("name") is None:
        yield f"datasets.{phase}.name: required and not given"
    if phase != "train" and block.get("type") == "SynthPipeDataset":
        yield from _parse(options, phase)
    if phase != "train" and block.get("persistent_workers"):
        yield f"datasets.{phase}.persistent_workers: BasicSR validates without worker processes; remove the key"
    if phase == "train":
        needed = ["batch_size_per_gpu"] + ([] if gives_stream(options) else ["num_worker_per_gpu"])
        for key in needed:
            if block.get(key) is None:
                yield f"datasets.train.{key}: required and not given"


def _check_prefetch(options: Mapping[str, Any]) -> Iterator[str]:
    mode = value_at(options, "datasets.train.prefetch_mode")
    if mode not in _PREFETCH:
        yield f"datasets.train.prefetch_mode: expected cpu, cuda or nothing, got {mode!r}"
    elif mode == "cuda" and (not torch.cuda.is_available() or options.get("num_gpu") == 0):
        why = "num_gpu is 0" if torch.cuda.is_available() else "this machine has no CUDA device"
        yield f"datasets.train.prefetch_mode: 'cuda' needs a GPU, and {why}; remove the key, a stream prefetches itself"
    elif mode == "cuda" and value_at(options, "datasets.train.pin_memory") is not True:
        yield "datasets.train.pin_memory: BasicSR demands true with prefetch_mode: cuda; or remove prefetch_mode"


def _parse(options: Mapping[str, Any], phase: str) -> Iterator[str]:
    kind, scale = phase.split("_")[0], options.get("scale")
    block = {**block_at(options, f"datasets.{phase}"), "phase": kind, **({} if scale is None else {"scale": scale})}
    yield from _lines(lambda: parse_dataset_options(block))


def _check_left(block: Mapping[str, Any]) -> Iterator[str]:
    """What other data sets read and a stream does in its own way."""
    if block.get("use_shuffle") is False:
        yield "datasets.train.use_shuffle: a stream always shuffles; remove the key (see shuffle_buffer)"
    backend = value_at(block, "io_backend.type")
    if backend not in (None, "disk"):
        yield f"datasets.train.io_backend: a stream reads `shards`, and no {backend!r}; remove the key"


def _check_compile(options: Mapping[str, Any]) -> Iterator[str]:
    """``torch.compile`` of the stage, where the stage is not on CUDA."""
    block = block_at(options, "datasets.train")
    if block.get("compile") is not True:
        return
    device, cuda = block.get("device"), torch.cuda.is_available()
    if not cuda or device == "cpu" or (device is None and options.get("num_gpu") == 0):
        why = "this machine has no CUDA device" if not cuda else "device is cpu" if device else "num_gpu is 0"
        yield f"datasets.train.compile: needs a GPU, and {why}; remove the key"


def _lines(check: Any) -> Iterator[str]:
    try:
        check()
    except OptionError as error:
        yield from str(error).splitlines()
