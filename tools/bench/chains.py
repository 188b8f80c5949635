"""Chains of degradations: the preset ``real-esrgan`` against BasicSR's own ``feed_data``, each stage, a stream.

    python tools/bench/chains.py
    python tools/bench/chains.py --side 400 --rounds 7 --save

One thread and processor time, BasicSR's side and ours in turn, so that other work on the machine does not count.

* ``ours`` and ``peer`` are patches of the given side a second through the preset and through BasicSR's operations:
  those of ``RealESRGANModel.feed_data`` in its order, with kernels by ``RealESRGANDataset`` (``reference_esrgan.py``).
  ``without_sharpening`` is the same where neither sharpens the image at first, which is most of BasicSR's time.
* ``stages``: milliseconds an image at that side for each stage of the preset, with settings drawn anew for each image,
  and for the same operation of BasicSR, whose kernels are made beforehand.  ``jpeg`` is against ``DiffJPEG``.
* ``alone``: milliseconds an image for every other stage, with its defaults.
* ``stream``: milliseconds a tile of a stream with a chain of four stages, of that chain alone, and of decoding the JPEG
  that each tile is cut from, which is most of the difference.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
from reference_esrgan import PUBLISHED, ReferenceRealEsrgan
from report import bench_parser, paired_seconds, print_result
from stream import smoothed_noise, write_shards
from torch import Tensor

from synthpipe.config.chain import ChainOptions, StageOption
from synthpipe.config.presets import preset_chain
from synthpipe.config.reader import parse_options
from synthpipe.errors import OptionError
from synthpipe.files.decode import decode_image
from synthpipe.pipeline import build_stream
from synthpipe.transforms.build import build_degrade
from synthpipe.transforms.chains.build import build_stage
from synthpipe.transforms.chains.stage import Context, Size, Stage

CPU = torch.device("cpu")
#: What a stage cannot do without, beside its type.
NEEDED: dict[str, dict[str, Any]] = {
    "deflow": {"weights": "deflow_small"},
    "kernels": {"weights": "kernels_city100"},
    "noise": {"kinds": {"gaussian": 1}},
    "resize": {"to": "lr"},
}
#: No operations of their own.
_PLACES = ("choice", "shuffle")


def main() -> None:
    """Measure, print."""
    args = parse_arguments()
    torch.set_num_threads(1)
    images = pictures(args.batch, args.side)
    ours, peer = preset_rates(images, args.rounds, sharpen=True)
    plain = preset_rates(images, args.rounds, sharpen=False)
    details = {
        "without_sharpening": row_of("patches/s", *plain),
        "stages": {name: row_of("ms/image", *found) for name, found in compared_stages(images, args.rounds).items()},
        "alone": lone_stages(images, args.rounds),
        "stream": stream_overhead(args),
    }
    settings = {key: value for key, value in vars(args).items() if key != "save"}
    print_result(
        "chains",
        ours,
        peer,
        "patches/s",
        CPU,
        save=args.save,
        compared="the operations of BasicSR 1.4.2's RealESRGANModel.feed_data on the CPU",
        settings=settings,
        **details,
    )


def pictures(count: int, side: int) -> Tensor:
    """``(count, 3, side, side)`` in [0, 1], of as much structure as photographs have."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, side // 8 + 2, side // 8 + 2, generator=generator)
    smooth = F.interpolate(coarse, size=(side, side), mode="bicubic")
    return (smooth + 0.02 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)


def row_of(unit: str, ours: list[float], peer: list[float]) -> dict[str, Any]:
    """What is said of one comparison."""
    return {
        "ours": round(statistics.median(ours), 3),
        "peer": round(statistics.median(peer), 3),
        "ratio": round(statistics.median(a / b for a, b in zip(ours, peer, strict=True)), 3),
        "unit": unit,
    }


def preset_rates(images: Tensor, rounds: int, *, sharpen: bool) -> tuple[list[float], list[float]]:
    """Patches a second, ours and BasicSR's; each round has draws of its own."""
    chain = [stage for stage in preset_chain("real-esrgan") if sharpen or stage["type"] != "halo"]
    transform: Any = build_degrade(parse_options({"stages": chain}, ChainOptions), int(PUBLISHED["scale"]))
    reference = ReferenceRealEsrgan(0, sharpen)
    seeds = iter(range(1 << 20))

    def degrade() -> None:
        for _ in range(_BATCHES):
            transform({"gt": images, "seed": torch.tensor([next(seeds) for _ in images])})

    def theirs() -> None:
        for _ in range(_BATCHES):
            reference.degrade(images)

    seconds = paired_seconds(degrade, theirs, CPU, rounds, clock=time.process_time)
    ours, peer = ([_BATCHES * len(images) / value for value in values] for values in seconds)
    return ours, peer


#: Batches in a round: draws make single ones differ much.
_BATCHES = 8


def compared_stages(images: Tensor, rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Milliseconds an image, ours and BasicSR's, of the first order's stages."""
    blocks = {stage["type"]: stage for stage in reversed(preset_chain("real-esrgan"))}
    noise = blocks["noise"]
    pairs: dict[str, tuple[dict[str, Any], Callable[[], object]]] = {
        "halo": (blocks["halo"], peers(images)["halo"]),
        "blur": (blocks["blur"], peers(images)["blur"]),
        "resize": (blocks["resize"], peers(images)["resize"]),
        "noise, gaussian": ({**noise, "kinds": {"gaussian": 1}}, peers(images)["noise, gaussian"]),
        "noise, poisson": ({**noise, "kinds": {"poisson": 1}}, peers(images)["noise, poisson"]),
        "jpeg": (blocks["jpeg"], peers(images)["jpeg"]),
    }
    found = {}
    for name, (block, peer) in pairs.items():
        seconds = paired_seconds(calls(block, images), peer, CPU, rounds, clock=time.process_time)
        ours, theirs = ([1000 * value / len(images) for value in values] for values in seconds)
        found[name] = (ours, theirs)
    return found


def calls(block: dict[str, Any], images: Tensor) -> Callable[[], None]:
    """The stage on each image, with draws of its own."""
    (options,) = parse_options({"stages": [block]}, ChainOptions).stages
    stage: Stage = build_stage(options)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    lr = Size(images.shape[2] // 4, images.shape[3] // 4)

    def call() -> None:
        u = torch.rand(len(images), max(stage.numbers, 1), generator=generator, dtype=torch.float64)
        params = stage.draw(u)
        with torch.no_grad():
            for row in range(len(images)):
                own = {name: value[row : row + 1] for name, value in params.items()}
                stage.on_image(images[row : row + 1], own, Context(lr, torch.tensor([row]), "bench"))

    return call


def peers(images: Tensor) -> dict[str, Callable[[], object]]:
    """The same operations of BasicSR's, with draws by its laws."""
    reference = ReferenceRealEsrgan(0)
    from basicsr.data.degradations import random_add_gaussian_noise_pt, random_add_poisson_noise_pt
    from basicsr.utils.img_process_util import filter2D

    generator = torch.Generator().manual_seed(0)
    kernels = reference.kernels(64 * len(images))["kernel1"]
    starts = iter(range(1 << 20))

    def blur() -> Tensor:
        start = next(starts) % 64 * len(images)
        filtered: Tensor = filter2D(images, kernels[start : start + len(images)])
        return filtered

    def resize() -> None:
        low, high = PUBLISHED["resize_range"]
        for row in range(len(images)):
            u, way, mode = torch.rand(3, generator=generator).tolist()
            up, down, _ = PUBLISHED["resize_prob"]
            factor = 1 + u * (high - 1) if way < up else low + u * (1 - low) if way < up + down else 1
            filters = ("area", "bilinear", "bicubic")
            F.interpolate(images[row : row + 1], scale_factor=factor, mode=filters[int(3 * mode)])

    def jpeg() -> Tensor:
        low, high = PUBLISHED["jpeg_range"]
        with torch.no_grad():
            coded: Tensor = reference.jpeg(images, low + (high - low) * torch.rand(len(images), generator=generator))
        return coded

    grey = PUBLISHED["gray_noise_prob"]
    sigma, scale = PUBLISHED["noise_range"], PUBLISHED["poisson_scale_range"]
    return {
        "halo": lambda: reference.sharpener(images),
        "blur": blur,
        "resize": resize,
        "noise, gaussian": lambda: random_add_gaussian_noise_pt(images, sigma_range=sigma, gray_prob=grey),
        "noise, poisson": lambda: random_add_poisson_noise_pt(images, scale_range=scale, gray_prob=grey),
        "jpeg": jpeg,
    }


def lone_stages(images: Tensor, rounds: int) -> dict[str, float | str]:
    """Milliseconds an image of every kind of stage, with its defaults; or why it cannot run here."""
    found: dict[str, float | str] = {}
    for options in get_args(get_args(StageOption)[0]):
        name = options.model_fields["type"].default
        if name in _PLACES:
            continue
        try:
            call = calls({"type": name, **NEEDED.get(name, {})}, images)
            seconds, _ = paired_seconds(call, lambda: None, CPU, rounds, clock=time.process_time)
        except OptionError as error:
            found[name] = str(error)
            continue
        found[name] = round(1000 * statistics.median(seconds) / len(images), 3)
    return found


def four_stages() -> list[dict[str, Any]]:
    """Blur, the reduction, noise and JPEG, with the settings of ``real-esrgan``'s first order."""
    blocks = {stage["type"]: stage for stage in reversed(preset_chain("real-esrgan"))}
    reduction = {key: value for key, value in blocks["resize"].items() if key not in ("factor", "direction")}
    return [blocks["blur"], {**reduction, "to": "lr"}, blocks["noise"], blocks["jpeg"]]


def stream_overhead(args: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds a tile of a stream, of its chain alone, and of decoding an image for each tile, in turn."""
    tiles, tile, scale = 4, args.tile, 4
    side, chain = tile * scale, four_stages()
    transform: Any = build_degrade(parse_options({"stages": chain}, ChainOptions), scale)
    batch = {"gt": pictures(tiles, side), "seed": torch.arange(tiles)}
    image = smoothed_noise(np.random.default_rng(0), side + _ROOM, "jpg")
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "shards": write_shards(Path(folder), 2, 16, side + _ROOM, "jpg", different=8),
            "degrade": chain,
            "scale": scale,
            "gt_size": 128,
            "tile": tile,
            "tiles_per_batch": tiles,
            "patches_per_tile": 4,
            "batch_size": 16,
            "prefetch": 0,
            "pool": 0,
        }
        with build_stream(options, device="cpu") as stream, build_stream({**options, "workers": 1}) as read_elsewhere:
            calls: dict[str, Callable[[], object]] = {
                "stream": lambda: next(stream),
                "stream_with_a_reader": lambda: next(read_elsewhere),
                "chain": lambda: transform(batch),
                "decoding": lambda: [decode_image(image, "bench") for _ in range(tiles)],
            }
            found: dict[str, list[float]] = {name: [] for name in calls}
            for index in range(_STREAM_WARMUP + 4 * args.rounds):
                for name, call in calls.items():
                    begun = time.process_time()
                    call()
                    if index >= _STREAM_WARMUP:
                        found[name].append(1000 * (time.process_time() - begun) / tiles)
    ratios = [[value / alone for value, alone in zip(values, found["chain"], strict=True)] for values in found.values()]
    over = {name: round(statistics.median(values), 3) for name, values in zip(found, ratios, strict=True)}
    medians: dict[str, Any] = {name: round(statistics.median(values), 3) for name, values in found.items()}
    return medians | {
        "stream_over_chain": over["stream"],
        "stream_over_chain_and_decoding": round(over["stream"] / (1 + over["decoding"]), 3),
        # What the trainer's process pays where a reader process decodes.
        "stream_with_a_reader_over_chain": over["stream_with_a_reader"],
        "unit": "ms/tile",
        "tile": side,
        "decoded": side + _ROOM,
    }


#: By how many pixels an image is larger than the one tile that is cut from it.
_ROOM = 72
#: Rounds that are not counted: a stream opens its shards.
_STREAM_WARMUP = 4


def parse_arguments() -> argparse.Namespace:
    """Options of the command."""
    parser = bench_parser(__doc__)
    parser.add_argument("--side", type=int, default=256, help="of the patches, pixels; a multiple of 4, at least 96")
    parser.add_argument("--batch", type=int, default=4, help="patches degraded at once")
    parser.add_argument("--tile", type=int, default=160, help="LR side of the stream's tiles")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
