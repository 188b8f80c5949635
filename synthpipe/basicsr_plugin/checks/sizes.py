"""Scale, patch size and channels: what the data give has to fit the networks."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any

from synthpipe.basicsr_plugin.checks.lookup import block_at, value_at
from synthpipe.basicsr_plugin.checks.models import gives_stream
from synthpipe.basicsr_plugin.checks.types import registered

__all__ = ["check_sizes", "lq_multiple"]

#: BasicSR's names of a network's factor of super-resolution and of its channels.
_SCALES = ("upscale", "scale")
_CHANNELS = ("num_in_ch", "num_out_ch", "in_chans", "in_channels", "out_channels")
#: A U-Net discriminator halves its input this often and adds what it had before.
_UNET_STEP = 8
#: Networks that enlarge by these factors alone, whatever they are asked for.
_FACTORS = {
    "RRDBNet": (1, 2, 4),
    "MSRResNet": (2, 3, 4),
    **dict.fromkeys(("EDSR", "RCAN", "SwinIR/pixelshuffle"), (1, 2, 3, 4, 8, 16)),
    "SwinIR/nearest+conv": (4,),
}
_UPSAMPLERS = ("pixelshuffle", "pixelshuffledirect", "nearest+conv")


def check_sizes(options: Mapping[str, Any]) -> Iterator[str]:
    """One line for each size that does not fit another; only networks of BasicSR's own are judged."""
    yield from _check_scale(options)
    for key in ("network_g", "network_d"):
        yield from _check_channels(options, key)
    if gives_stream(options):
        yield from _check_patches(options)


def lq_multiple(options: Mapping[str, Any]) -> int:
    """Of what the sides of an image have to be a multiple for ``network_g``."""
    name, arguments = _network(options, "network_g")
    # It works on every second or fourth pixel at these scales.
    return {"1": 4, "2": 2}.get(str(arguments["scale"]), 1) if name == "RRDBNet" else 1


def _network(options: Mapping[str, Any], key: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments, defaults filled in, of a network of BasicSR's; empty for any other."""
    from basicsr.utils.registry import ARCH_REGISTRY

    block = block_at(options, key)
    built = registered(ARCH_REGISTRY, block.get("type"))
    if built is None or not built.__module__.startswith("basicsr."):
        return "", {}
    parameters = inspect.signature(built).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    return built.__name__, {**defaults, **block}


def _check_scale(options: Mapping[str, Any]) -> Iterator[str]:
    name, arguments = _network(options, "network_g")
    scale = options.get("scale")
    if scale is None:
        yield "scale: required and not given; the stream and the validation pairs are made by it"
        return
    for key in _SCALES:
        if key in arguments and arguments[key] != scale:
            said = "" if key in block_at(options, "network_g") else ", its default"
            yield f"network_g.{key}: {name} enlarges by {arguments[key]}{said}, and scale is {scale}; make them equal"
    kind = f"{name}/{arguments['upsampler']}" if name == "SwinIR" else name
    if scale not in _FACTORS.get(kind, (scale,)):
        yield f"scale: {kind} enlarges by one of {_FACTORS[kind]}, got {scale}; take one of them, or another network"
    if name == "SwinIR" and scale != 1 and arguments["upsampler"] not in _UPSAMPLERS:
        yield (
            f"network_g.upsampler: SwinIR enlarges by {scale} with one of {', '.join(_UPSAMPLERS)}, got "
            f"{arguments['upsampler']!r}"
        )
    if name == "RIDNet" and scale != 1:
        yield f"network_g.type: RIDNet keeps the size of its input, and scale is {scale}; set scale: 1"


def _check_channels(options: Mapping[str, Any], network: str) -> Iterator[str]:
    name, arguments = _network(options, network)
    judged = _CHANNELS if network == "network_g" else _CHANNELS[:1]
    for key in judged:
        if key in arguments and arguments[key] != 3 and not _one_channel(options):
            yield f"{network}.{key}: {name} works on {arguments[key]} channels, and pictures have 3; write {key}: 3"


def _one_channel(options: Mapping[str, Any]) -> bool:
    """Whether a data set of BasicSR's gives luminance alone."""
    return bool(value_at(options, "datasets.train.color") == "y")


def _check_patches(options: Mapping[str, Any]) -> Iterator[str]:
    # Where the model degrades and cuts, its patches are what the networks see.
    key = "gt_size" if options.get("degrade") and options.get("gt_size") else "datasets.train.gt_size"
    size, scale = value_at(options, key), options.get("scale")
    if not isinstance(size, int) or not isinstance(scale, int):
        return
    name, arguments = _network(options, "network_d")
    if name == "VGGStyleDiscriminator" and arguments["input_size"] != size:
        yield (
            f"network_d.input_size: {name} takes patches of {arguments['input_size']} pixels, and {key} is {size}; "
            + (f"write input_size: {size}" if size in (128, 256) else f"set {key} to 128 or 256 and input_size to it")
        )
    if name == "UNetDiscriminatorSN" and arguments["skip_connection"] and size % _UNET_STEP:
        step = math.lcm(_UNET_STEP, scale)
        yield f"{key}: {name} takes multiples of {_UNET_STEP} pixels, got {size}; set {max(size // step, 1) * step}"
    name, arguments = _network(options, "network_g")
    window = arguments.get("window_size")
    if name == "SwinIR" and isinstance(window, int) and window > 0 and (size // scale) % window:
        yield (
            f"{key}: SwinIR takes lq patches of a multiple of window_size {window}, got {size} / {scale} = "
            f"{size // scale}; set {key} to a multiple of {window * scale}"
        )
    if (size // scale) % lq_multiple(options):
        yield (
            f"{key}: RRDBNet at scale {scale} takes lq patches of a multiple of {lq_multiple(options)}, got "
            f"{size // scale}; set {key} to a multiple of 4"
        )
