"""What an option file says of pairs: those of streams, and those of BasicSR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthpipe.config.basicsr import FeedDataOptions, parse_dataset_options
from synthpipe.config.degrade import DegradeOptions
from synthpipe.config.degrade_file import DegradeFileOptions
from synthpipe.config.reader import parse_options
from synthpipe.config.stream import StreamOptions
from synthpipe.errors import OptionError

__all__ = ["degrade_options", "pair_options", "preview_options"]

_FEED_DATA = ("scale", "degrade")


def preview_options(data: Mapping[str, Any], source: str) -> StreamOptions:
    """Stream options from a stream option file, or from the ``datasets.train`` block of a BasicSR option file.

    What a model degrades in ``feed_data`` counts as the stream's own degradation.

    Raises:
        OptionError: unknown or wrong options, or no degradation among them.
    """
    return _with_degrade(_stream_options(data, source, _FEED_DATA), source, "preview")


def pair_options(data: Mapping[str, Any], source: str) -> tuple[StreamOptions, DegradeOptions | None]:
    """As :func:`preview_options`, but where a model degrades in ``feed_data`` the stream has no degradation.

    Returns:
        The stream's options, and what the model does to its images; None: the stream degrades by itself.

    Raises:
        OptionError: unknown or wrong options, or no degradation among them.
    """
    options = _stream_options(data, source, ("scale",))
    if options.degrade is not None or "datasets" not in data or data.get("degrade") is None:
        return _with_degrade(options, source, "explain"), None
    given = {name: data[name] for name in _FEED_DATA if name in data}
    of_model = parse_options({"scale": options.scale, **given}, FeedDataOptions, source=source)
    return options, of_model.degrade


def degrade_options(data: Mapping[str, Any], source: str) -> DegradeFileOptions:
    """Degradation and scale of a stream option file, of a BasicSR option file, or of a file that has no more.

    Raises:
        OptionError: unknown or wrong options, or no degradation among them.
    """
    block = data.get("datasets")
    if block is None and not {"shards", "gt_size"} & data.keys():
        return parse_options(data, DegradeFileOptions, source=source)
    if isinstance(block, Mapping) and _is_others(block.get("train")) and data.get("degrade") is not None:
        # What a model degrades in feed_data comes from any data set.
        given = {name: data[name] for name in _FEED_DATA if name in data}
        return parse_options(given, DegradeFileOptions, source=source)
    options = _with_degrade(_stream_options(data, source, _FEED_DATA), source, "apply")
    assert options.degrade is not None
    return DegradeFileOptions.model_construct(degrade=options.degrade, scale=options.scale)


def _is_others(block: Any) -> bool:
    """Whether it is a data set that is not ours."""
    return isinstance(block, Mapping) and block.get("type", "SynthPipeDataset") != "SynthPipeDataset"


def _stream_options(data: Mapping[str, Any], source: str, shared: tuple[str, ...]) -> StreamOptions:
    """``shared`` names keys at the top of a BasicSR option file that count for the block, too."""
    if "datasets" not in data:
        return parse_options(data, StreamOptions, source=source)
    block = (data["datasets"] or {}).get("train")
    if not isinstance(block, Mapping):
        raise OptionError(f"{source}: a BasicSR option file needs a block datasets.train, got {block!r}")
    if block.get("type", "SynthPipeDataset") != "SynthPipeDataset":
        raise OptionError(f"{source}: datasets.train: expected type: SynthPipeDataset, got {block['type']!r}")
    # BasicSR copies these into the block, and the models that degrade in feed_data have theirs on top.
    given = {key: data[key] for key in shared if key in data and key not in block}
    return parse_dataset_options({"phase": "train", **given, **block})


def _with_degrade(options: StreamOptions, source: str, verb: str) -> StreamOptions:
    if options.degrade is None:
        raise OptionError(f"{source}: nothing to {verb} without `degrade`; give it, such as {{type: deflow, ...}}")
    return options
