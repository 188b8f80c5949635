"""BasicSR option files of Real-ESRGAN, which degrade in the model, as files of ours, which degrade in the stream."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from synthpipe.config.basicsr import BASICSR_KEYS, TRANSLATED, DatasetOptions, parse_dataset_options
from synthpipe.config.presets.real_esrgan import OrderSettings, RealEsrganSettings, real_esrgan_chain
from synthpipe.config.reader import parse_options
from synthpipe.errors import OptionError, excerpt

__all__ = ["Translation", "option_file_text", "translate"]

_MODELS = ("RealESRGANModel", "RealESRNetModel")
_DATASET = "RealESRGANDataset"
#: RealESRGANDataset crops and pads to this side, HR pixels.
_CROP = 400
#: LR pixels that a stream drops on each side of a tile.
_MARGIN = 8
#: BasicSR's names of kernels, and ours.
_KERNELS = {
    "iso": "isotropic",
    "aniso": "anisotropic",
    "generalized_iso": "generalized_isotropic",
    "generalized_aniso": "generalized_anisotropic",
    "plateau_iso": "plateau_isotropic",
    "plateau_aniso": "plateau_anisotropic",
}


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"expected [low, high], got {list(value)}")
    return value


def _around_one(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] <= 1 <= value[1]:
        raise ValueError(f"expected [low, high] with 1 between them, got {list(value)}")
    return value


def _some_weight(value: tuple[float, ...]) -> tuple[float, ...]:
    if sum(value) <= 0:
        raise ValueError(f"expected a weight above 0, got {list(value)}")
    return value


_NotNegative = Annotated[float, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Weights = Annotated[tuple[_NotNegative, ...], AfterValidator(_some_weight)]
_ThreeWeights = Annotated[tuple[_NotNegative, _NotNegative, _NotNegative], AfterValidator(_some_weight)]
_Range = Annotated[tuple[_NotNegative, _NotNegative], AfterValidator(_ascending)]
_AroundOne = Annotated[tuple[_NotNegative, _NotNegative], AfterValidator(_around_one)]
_Kernel = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]


class _TheirOptions(BaseModel):
    """Keys of BasicSR's that are read here; others may stand beside them."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _ModelKeys(_TheirOptions):
    """What ``feed_data`` reads of the top level."""

    scale: Annotated[int, Field(ge=1, le=16)]
    gt_size: Annotated[int, Field(ge=8)]
    resize_prob: _ThreeWeights
    resize_range: _AroundOne
    gaussian_noise_prob: _Share
    noise_range: _Range
    poisson_scale_range: _Range
    gray_noise_prob: _Share
    jpeg_range: _Range
    second_blur_prob: _Share
    resize_prob2: _ThreeWeights
    resize_range2: _AroundOne
    gaussian_noise_prob2: _Share
    noise_range2: _Range
    poisson_scale_range2: _Range
    gray_noise_prob2: _Share
    jpeg_range2: _Range


class _DatasetKeys(_TheirOptions):
    """What ``RealESRGANDataset`` reads."""

    dataroot_gt: str
    kernel_list: tuple[_Kernel, ...]
    kernel_prob: _Weights
    sinc_prob: _Share
    blur_sigma: _Range
    betag_range: _AroundOne
    betap_range: _AroundOne
    kernel_list2: tuple[_Kernel, ...]
    kernel_prob2: _Weights
    sinc_prob2: _Share
    blur_sigma2: _Range
    betag_range2: _AroundOne
    betap_range2: _AroundOne
    final_sinc_prob: _Share


#: What the chain takes the place of, in the data set's block.
_LEFT_BEHIND = (*_DatasetKeys.model_fields, "blur_kernel_size", "blur_kernel_size2", "meta_info", "io_backend")
#: On top, what the model reads of pairs, too, stays.
_MODEL_LEFT_BEHIND = (*(set(_ModelKeys.model_fields) - {"scale"}), "queue_size", "gt_usm")


@dataclass(frozen=True)
class Translation:
    """A translated file.

    Args:
        options: all of it.
        commands: what to run before the training.
        notes: what has no equal, one sentence each.
    """

    options: dict[str, Any]
    commands: list[str]
    notes: list[str]


def translate(options: Mapping[str, Any], source: str, shards: str | None = None) -> Translation:
    """An option file that degrades in the stream as the given one does in the model.

    Args:
        options: of BasicSR, with ``model_type`` RealESRGANModel or RealESRNetModel and a RealESRGANDataset.
        source: names the file in errors.
        shards: where the shards will lie; None: beside the images.

    Raises:
        OptionError: another model or data set; a key that is missing or has a value that BasicSR could not draw from.
    """
    block = _training_block(options, source)
    keys = parse_options(options, _ModelKeys, source)
    data = parse_options(block, _DatasetKeys, f"{source}: datasets.train")
    notes: list[str] = []
    chain = real_esrgan_chain(_settings(options, block, keys, data, source, notes))
    place = str(shards) if shards else f"{data.dataroot_gt.rstrip('/')}_shards"
    train = _translated_block(block, keys, chain, place, options.get("queue_size", 180), notes)
    translated: dict[str, Any] = {}
    for key, value in options.items():
        if key not in _MODEL_LEFT_BEHIND:
            translated[key] = {**value, "train": train} if key == "datasets" else value
        if key == "model_type":
            translated["high_order_degradation"] = False
    # Whatever is wrong with the block is told of the file that was given.
    try:
        parse_dataset_options({**train, "phase": "train", "scale": keys.scale})
    except OptionError as error:
        raise OptionError("\n".join(f"{source}: {line}" for line in str(error).splitlines())) from error
    least = train["tile"] * keys.scale
    commands = [f"synthpipe shard {shlex.quote(data.dataroot_gt)} {shlex.quote(place)} --min-size {least}"]
    return Translation(translated, [_printable(line) for line in commands], [_printable(line) for line in notes])


def option_file_text(translation: Translation, source: str) -> str:
    """The file: what to run and what has no equal as comments, then the options."""
    lines = [f"Made of {_printable(source)} by `synthpipe import-realesrgan`.", "", "Run first:"]
    lines += [f"  {command}" for command in translation.commands]
    lines += ["", "What is not as it was:"]
    for note in translation.notes:
        lines += textwrap.wrap(note, 110, initial_indent="- ", subsequent_indent="  ", break_long_words=False)
    comments = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    dumped = yaml.dump(
        translation.options, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=160
    )
    return f"{comments}\n{dumped}"


def _training_block(options: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """The block ``datasets.train``, where it and the model are Real-ESRGAN's."""
    if options.get("model_type") not in _MODELS:
        raise OptionError(
            f"{source}: model_type: expected {' or '.join(_MODELS)}, got {excerpt(options.get('model_type'))}; other "
            "models degrade nothing that could be translated"
        )
    if options.get("high_order_degradation", True) is False:
        raise OptionError(
            f"{source}: high_order_degradation is false: the model trains on pairs that its data set gives, and "
            "degrades nothing"
        )
    datasets = options.get("datasets")
    block = datasets.get("train") if isinstance(datasets, Mapping) else None
    if not isinstance(block, Mapping):
        raise OptionError(f"{source}: datasets.train: expected a block of options, got {excerpt(block)}")
    if block.get("type") != _DATASET:
        raise OptionError(f"{source}: datasets.train.type: expected {_DATASET}, got {excerpt(block.get('type'))}")
    return block


def _settings(
    options: Mapping[str, Any],
    block: Mapping[str, Any],
    keys: _ModelKeys,
    data: _DatasetKeys,
    source: str,
    notes: list[str],
) -> RealEsrganSettings:
    """What the chain is made of."""
    sharpen = True
    if options["model_type"] == "RealESRNetModel":
        sharpen = options.get("gt_usm") is True
        if sharpen:
            notes.append(
                "gt_usm: RealESRNetModel compares with a sharpened gt, and with pairs it sharpens none: lq comes from "
                "the sharpened image as before, gt is the image itself. For sharpened targets, run `synthpipe degrade "
                "sharpen.yml IN OUT` first, with {scale: 1, degrade: [{type: halo}]} in sharpen.yml, make the shards "
                "of OUT, and take {type: halo} out of degrade"
            )
    for key in ("blur_kernel_size", "blur_kernel_size2"):
        if block.get(key, 21) != 21:
            notes.append(f"{key}: BasicSR does not read it; kernels have 7 to 21 pixels")
    first = OrderSettings(
        sigma=data.blur_sigma,
        resize=keys.resize_prob,
        resize_range=keys.resize_range,
        noise_sigma=keys.noise_range,
        poisson_scale=keys.poisson_scale_range,
        kernels=_kernels(data.kernel_list, data.kernel_prob, f"{source}: datasets.train.kernel_prob"),
        sinc=data.sinc_prob,
        beta_generalized=data.betag_range,
        beta_plateau=data.betap_range,
        gaussian=keys.gaussian_noise_prob,
        grey=keys.gray_noise_prob,
        jpeg=keys.jpeg_range,
    )
    second = OrderSettings(
        sigma=data.blur_sigma2,
        resize=keys.resize_prob2,
        resize_range=keys.resize_range2,
        noise_sigma=keys.noise_range2,
        poisson_scale=keys.poisson_scale_range2,
        blur=keys.second_blur_prob,
        kernels=_kernels(data.kernel_list2, data.kernel_prob2, f"{source}: datasets.train.kernel_prob2"),
        sinc=data.sinc_prob2,
        beta_generalized=data.betag_range2,
        beta_plateau=data.betap_range2,
        gaussian=keys.gaussian_noise_prob2,
        grey=keys.gray_noise_prob2,
        jpeg=keys.jpeg_range2,
    )
    return RealEsrganSettings(first, second, data.final_sinc_prob, sharpen)


def _kernels(names: tuple[str, ...], weights: tuple[float, ...], where: str) -> dict[str, float]:
    if len(names) != len(weights):
        raise OptionError(f"{where}: expected a weight for each of the {len(names)} kernels, got {len(weights)}")
    shares = dict.fromkeys(_KERNELS.values(), 0.0)
    for name, weight in zip(names, weights, strict=True):
        shares[_KERNELS[name]] += weight
    return shares


def _translated_block(
    block: Mapping[str, Any],
    keys: _ModelKeys,
    chain: list[dict[str, Any]],
    shards: str,
    queue: Any,
    notes: list[str],
) -> dict[str, Any]:
    """The block of a ``SynthPipeDataset``."""
    known = {*BASICSR_KEYS, *TRANSLATED, *DatasetOptions.model_fields}
    kept = {key: value for key, value in block.items() if key in known and key not in _LEFT_BEHIND}
    unknown = [key for key in block if key not in known and key not in _LEFT_BEHIND]
    made: dict[str, Any] = {"name": kept.pop("name", "train"), "type": "SynthPipeDataset", "shards": shards}
    made["gt_size"] = keys.gt_size
    kept |= {"num_worker_per_gpu": 0, "workers": block.get("num_worker_per_gpu") or 0}
    made |= {key: value for key, value in kept.items() if key not in made}
    least_tile = keys.gt_size // keys.scale + 2 * _MARGIN
    made |= {"tile": max(_CROP // keys.scale, least_tile), "patches_per_tile": 1}
    if isinstance(queue, int) and queue > 0:
        made["pool"] = queue
    made["degrade"] = chain
    notes += _data_notes(block, made, unknown, least_tile)
    return made


def _data_notes(block: Mapping[str, Any], made: dict[str, Any], unknown: list[str], least_tile: int) -> list[str]:
    """What has no equal; drops what a stream refuses."""
    notes = [
        "dataroot_gt, io_backend: a stream reads shards; the command above makes them of the folder's images",
        f"crop_pad_size: RealESRGANDataset degrades crops of {_CROP} pixels and pads smaller images. The stream "
        f"degrades tiles of {made['tile']} LR pixels and drops their border; images with a shorter side are left out "
        f"of the shards by --min-size. A smaller tile lets more of them in, and goes down to {least_tile} here. More "
        "patches_per_tile cost less for each, and share one degradation",
        "queue_size: the stream's pool mixes as many pairs; each sample draws all of its degradation for itself, where "
        "BasicSR shares resize factors, filters, kinds of noise and the last order over a batch",
        "jpeg_range: libjpeg in the place of DiffJPEG, whose pixels differ a little; qualities are whole numbers",
        "virtual_length: an epoch is 100000 samples, and was one pass over the images; it only counts",
    ]
    if "meta_info" in block:
        notes.append("meta_info: the list is not read, all images of the folder are; copy or link those that it names")
    backend = block.get("io_backend")
    if isinstance(backend, Mapping) and backend.get("type") not in (None, "disk"):
        notes.append(f"io_backend: `synthpipe shard` reads folders and tars, no {backend['type']}; unpack it first")
    if block.get("use_rot"):
        notes.append("use_rot: the stream turns by a multiple of 90 degrees; with use_hflip these are the same turns")
    if made["workers"]:
        notes.append(f"num_worker_per_gpu: they are the stream's own workers, {made['workers']} a rank")
    for key, refused, why in (
        ("use_shuffle", False, "a stream always shuffles"),
        ("pin_memory", True, "the stream's batches are on the GPU already"),
        ("prefetch_mode", "cuda", "the stream prefetches itself"),
        ("persistent_workers", True, "the stream's workers stay"),
    ):
        if key in made and made[key] == refused:
            notes.append(f"{key}: {why}; left out")
            del made[key]
    if made.get("dataset_enlarge_ratio", 1) != 1:
        notes.append("dataset_enlarge_ratio: a stream has no end; left out")
        del made["dataset_enlarge_ratio"]
    notes += [f"{key}: no key that RealESRGANDataset or a stream reads; left out" for key in unknown]
    return notes


class _Dumper(yaml.SafeDumper):
    """Writes what stands in two places twice."""

    def ignore_aliases(self, data: Any) -> bool:
        """All."""
        return True


def _printable(text: str) -> str:
    """Names and keys may hold line ends, which would end a comment."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
