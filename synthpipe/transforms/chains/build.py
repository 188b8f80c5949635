"""Options of chains -> their places and stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import assert_never

import torch
from torch import nn

from synthpipe import checkpoints
from synthpipe.config.chain import (
    BranchOptions,
    ChainOptions,
    ChoiceOptions,
    LeafStageOption,
    ShuffleOptions,
    StageOption,
)
from synthpipe.config.classical import ClassicalDegradeOptions
from synthpipe.config.stages.blur import BlurStageOptions
from synthpipe.config.stages.channel_shift import ChannelShiftStageOptions
from synthpipe.config.stages.deflow import DeFlowDegradeOptions, DeFlowStageOptions
from synthpipe.config.stages.denoise import DenoiseStageOptions
from synthpipe.config.stages.dither import DitherStageOptions
from synthpipe.config.stages.halo import HaloStageOptions
from synthpipe.config.stages.interlace import InterlaceStageOptions
from synthpipe.config.stages.jpeg import JpegStageOptions
from synthpipe.config.stages.kernels import KernelsStageOptions
from synthpipe.config.stages.levels import LevelsStageOptions
from synthpipe.config.stages.noise import NoiseStageOptions, SensorStageOptions
from synthpipe.config.stages.pixelate import PixelateStageOptions
from synthpipe.config.stages.quantise import QuantiseStageOptions
from synthpipe.config.stages.resize import ResizeStageOptions
from synthpipe.config.stages.saturation import SaturationStageOptions
from synthpipe.config.stages.screentone import ScreentoneStageOptions
from synthpipe.config.stages.video import VideoStageOptions
from synthpipe.config.stages.webp import WebpStageOptions
from synthpipe.errors import OptionError
from synthpipe.transforms.base import DeviceTransform
from synthpipe.transforms.chains.choice import Choice, Shuffle, Sometimes
from synthpipe.transforms.chains.node import Node, Row, Step
from synthpipe.transforms.chains.schedule import Schedule
from synthpipe.transforms.chains.stage import Stage
from synthpipe.transforms.chains.stages.blur import Blur, read_bank
from synthpipe.transforms.chains.stages.channel_shift import ChannelShift
from synthpipe.transforms.chains.stages.deflow import DeFlowStage
from synthpipe.transforms.chains.stages.denoise import DenoiseStage
from synthpipe.transforms.chains.stages.dither import Dither
from synthpipe.transforms.chains.stages.halo import Halo
from synthpipe.transforms.chains.stages.interlace import Interlace
from synthpipe.transforms.chains.stages.jpeg import Jpeg
from synthpipe.transforms.chains.stages.kernels import KernelsStage
from synthpipe.transforms.chains.stages.levels import Levels
from synthpipe.transforms.chains.stages.noise import Noise
from synthpipe.transforms.chains.stages.pixelate import Pixelate
from synthpipe.transforms.chains.stages.quantise import Quantise
from synthpipe.transforms.chains.stages.resize import Resize
from synthpipe.transforms.chains.stages.saturation import Saturation
from synthpipe.transforms.chains.stages.screentone import Screentone
from synthpipe.transforms.chains.stages.sensor import SensorNoise
from synthpipe.transforms.chains.stages.video import Video
from synthpipe.transforms.chains.stages.webp import Webp
from synthpipe.transforms.chains.whole import WholeDegradation
from synthpipe.transforms.classical import ClassicalDegrade
from synthpipe.transforms.deflow import DeFlowDegrade
from synthpipe.transforms.denoise import load_denoiser

__all__ = ["build_node", "build_row", "build_stage", "build_whole"]


def build_row(options: Sequence[StageOption], prefix: str, scale: int) -> Row:
    """The places of a chain; each is named by its type, and by its number among those of one type."""
    met: Counter[str] = Counter()
    nodes = []
    for stage in options:
        met[stage.type] += 1
        number = f" {met[stage.type]}" if met[stage.type] > 1 else ""
        nodes.append(build_node(stage, f"{prefix}{stage.type}{number}", scale))
    return Row(nodes)


def build_node(options: StageOption, place: str, scale: int) -> Node:
    """One place; ``place`` is its name.

    Raises:
        CheckpointError: weights that are missing, damaged or of another kind.
        OptionError: what a stage cannot do here.
    """
    match options:
        case ChoiceOptions():
            names = options.names
            rows = [_branch(b, f"{place}/{name}/", scale) for name, b in zip(names, options.of, strict=True)]
            node: Node = Choice(rows, [Schedule(branch.weight) for branch in options.of], place, names)
        case ShuffleOptions():
            node = Shuffle(build_row(options.of, f"{place}/", scale).places(), place, options.in_order)
        case _:
            return Step(build_stage(options), place, Schedule(options.probability))
    sometimes = Schedule(options.probability)
    return node if sometimes.always_one else Sometimes(node, place, sometimes)


def build_stage(options: LeafStageOption) -> Stage:
    """The operation of one place, on the CPU."""
    match options:
        case DenoiseStageOptions():
            return DenoiseStage(options, None if options.weights is None else load_denoiser(options.weights))
        case InterlaceStageOptions():
            return Interlace(options)
        case PixelateStageOptions():
            return Pixelate(options)
        case HaloStageOptions():
            return Halo(options)
        case BlurStageOptions():
            return Blur(options, read_bank(options.bank) if options.bank is not None else None)
        case DeFlowStageOptions():
            model, dtype = _deflow(options)
            return DeFlowStage(model, options.strength, dtype, options.level)
        case KernelsStageOptions():
            bank = checkpoints.load(options.weights, kind="kernels")
            return KernelsStage(bank, options.strength, options.sharpening, options.chroma)
        case SensorStageOptions():
            return SensorNoise(options)
        case NoiseStageOptions():
            return Noise(options)
        case JpegStageOptions():
            return Jpeg(options)
        case QuantiseStageOptions():
            return Quantise(options)
        case ResizeStageOptions():
            return Resize(options)
        case ScreentoneStageOptions():
            return Screentone(options)
        case DitherStageOptions():
            return Dither(options)
        case SaturationStageOptions():
            return Saturation(options)
        case LevelsStageOptions():
            return Levels(options)
        case ChannelShiftStageOptions():
            return ChannelShift(options)
        case VideoStageOptions():
            return Video(options)
        case WebpStageOptions():
            return Webp(options)
        case _:
            assert_never(options)


def build_whole(options: DeFlowDegradeOptions | ClassicalDegradeOptions, scale: int) -> DeviceTransform:
    """A degradation that is no chain, the reduction by ``scale`` included; on the CPU.

    Raises:
        CheckpointError: weights that are missing, damaged or of another kind.
    """
    match options:
        case DeFlowDegradeOptions():
            model, dtype = _deflow(options)
            return DeFlowDegrade(model, scale, options.strength, options.samples, dtype, options.level)
        case ClassicalDegradeOptions():
            return ClassicalDegrade(options, scale)
        case _:
            assert_never(options)


def _branch(options: BranchOptions, prefix: str, scale: int) -> Row:
    match options.chain:
        case ChainOptions():
            return build_row(options.chain.stages, prefix, scale)
        case whole:
            transform = build_whole(whole, scale)
            if transform.samples > 1:
                raise OptionError(f"{prefix}deflow: samples is for `deflow` as the only degradation; leave it out")
            return Row([Step(WholeDegradation(transform, scale), f"{prefix}{whole.type}", Schedule([(0, 1.0)]))])


def _deflow(options: DeFlowDegradeOptions | DeFlowStageOptions) -> tuple[nn.Module, torch.dtype | None]:
    """The model, and the dtype of what depends on its condition alone."""
    model = checkpoints.load(options.weights, kind="deflow")
    if options.level is not None and getattr(model, "pile", None) is None:
        raise OptionError(f"level: the weights {options.weights!r} know no noise level; leave level out")
    return model, torch.bfloat16 if options.precision == "bf16" else None
