"""The reading side of a stream against a plain webdataset pipeline: images per second from shards to batches.

    python tools/bench/stream.py --workers 2 --images 400
    python tools/bench/stream.py --workers 0 --reference /path/to/another/checkout

Both read the same shards with the same decoder, cut one random tile from each image, and yield uint8 batches of equal
size; the peer has no state, no counts and no per-sample seeds.  Both run on without a restart between rounds.  The
ratio is ours / peer: above 1, ours is faster.  With ``--reference`` the peer is the stream of another checkout, each of
the two in a process of its own, and the rates are per second of the processor where there are no workers.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset as wds
from checkout import ROOT, SERVE, checkout_processes, package_place
from PIL import Image
from report import bench_parser, print_result

from synthpipe.files.decode import decode_image
from synthpipe.pipeline.nodes import TileLoader
from synthpipe.pipeline.source import SourceSettings, TileSource

#: Above any log-odds: a filter judges all tiles and keeps them.
EVERYTHING = 1e9


def write_shards(
    folder: Path, shards: int, images: int, side: int, suffix: str, different: int | None = None
) -> list[str]:
    """Images of smoothed noise, as hard to decode as photographs; ``different`` of them (default all), in turn."""
    rng = np.random.default_rng(0)
    files = [smoothed_noise(rng, side, suffix) for _ in range(min(different or shards * images, shards * images))]
    urls = []
    for shard in range(shards):
        urls.append(str(folder / f"s-{shard:03d}.tar"))
        with tarfile.open(urls[-1], "w") as tar:
            for number in range(images):
                data = files[(shard * images + number) % len(files)]
                info = tarfile.TarInfo(f"{shard:03d}_{number:04d}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return urls


def smoothed_noise(rng: np.random.Generator, side: int, suffix: str) -> bytes:
    """One image as a file, ``"png"`` or ``"jpg"``."""
    coarse = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(np.int16)
    noisy = np.clip(pixels + rng.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "PNG" if suffix == "png" else "JPEG", quality=95)
    return buffer.getvalue()


def ours(urls: list[str], images: int, args: argparse.Namespace) -> Iterator[Any]:
    """Endless batches ``(B, 3, tile, tile)`` uint8 from shards of ``images`` images each."""
    settings = SourceSettings(
        urls=tuple(urls),
        counts=(images,) * len(urls),
        seed=0,
        tile=args.tile,
        tiles_per_batch=args.batch,
        crops_per_image=1,
        hflip=True,
        rotate=True,
        open_shards=8,
        shuffle_buffer=1000,
        alpha="white",
        spool_dir=None,
        rank=0,
        world_size=1,
    )
    loader = TileLoader(
        partial(TileSource, settings),
        first_epoch=0,
        epochs=None,
        go_on=False,
        workers=args.workers,
        start_method=None,
        pin_memory=False,
    )
    loader.reset()
    while True:
        yield next(loader)["tile"]


def peer_sample(sample: dict[str, Any], suffix: str, tile: int) -> np.ndarray:
    """``(3, tile, tile)`` uint8, cut, flipped and turned at random."""
    image = decode_image(sample[suffix], sample["__key__"]).pixels
    top, left = random.randrange(image.shape[0] - tile + 1), random.randrange(image.shape[1] - tile + 1)
    image = image[top : top + tile, left : left + tile]
    if random.random() < 0.5:
        image = image[:, ::-1]
    return np.ascontiguousarray(np.rot90(image, random.randrange(4)).transpose(2, 0, 1))


def peer_batch(samples: list[np.ndarray]) -> torch.Tensor:
    """``(B, 3, tile, tile)`` uint8."""
    return torch.from_numpy(np.stack(samples))


def peer(urls: list[str], args: argparse.Namespace) -> Iterator[Any]:
    """The same batches from webdataset's own parts."""
    dataset = wds.DataPipeline(
        wds.ResampledShards(urls, seed=0, deterministic=True),
        wds.split_by_worker,
        wds.tarfile_to_samples(),
        wds.shuffle(1000, seed=0),
        wds.map(partial(peer_sample, suffix=args.format, tile=args.tile)),
        wds.batched(args.batch, collation_fn=peer_batch),
    )
    return iter(wds.WebLoader(dataset, batch_size=None, num_workers=args.workers))


def rate(batches: Iterator[Any], images: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Images per second over the next ``images``."""
    start, seen = clock(), 0
    while seen < images:
        seen += len(next(batches))
    return seen / (clock() - start)


def serve() -> None:
    """Answer the lines ``where``, ``open JSON`` (what to read, and how) and ``rate IMAGES``."""
    torch.set_num_threads(1)
    batches: Iterator[Any] = iter(())
    clock = time.process_time
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        answer: Any = None
        if word == "where":
            answer = package_place()
        elif word == "open":
            wanted = json.loads(rest)
            clock = time.perf_counter if wanted["workers"] else time.process_time
            batches = ours(wanted["urls"], wanted["per_shard"], argparse.Namespace(**wanted))
        else:
            answer = rate(batches, int(rest), clock)
        print(json.dumps(answer), flush=True)


def against_checkout(urls: list[str], args: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Rates of this checkout and of another, in turn."""
    names = ("per_shard", "tile", "batch", "workers")
    wanted = {"urls": urls} | {name: getattr(args, name) for name in names}
    rates: tuple[list[float], list[float]] = ([], [])
    with checkout_processes([ROOT, args.reference.resolve()], __file__) as children:
        for child in children:
            child.ask(f"open {json.dumps(wanted)}")
        for index in range(1 + args.rounds):
            # Each goes first in every other round: what runs second finds the machine otherwise.
            pairs = list(zip(children, rates, strict=True))
            for child, into in pairs[:: 1 if index % 2 else -1]:
                value = float(child.ask(f"rate {args.images}"))
                if index:
                    into.append(value)
    return rates


def against_webdataset(urls: list[str], args: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Rates of this checkout and of webdataset's own parts, in turn."""
    streams = ours(urls, args.per_shard, args), peer(urls, args)
    rates: tuple[list[float], list[float]] = ([], [])
    for index in range(1 + args.rounds):
        for batches, into in zip(streams, rates, strict=True):
            # both have processes that work ahead: let the other's finish what they are at
            value = rate(batches, args.images)
            if index:
                into.append(value)
    return rates


def main() -> None:
    """Measure, print."""
    if SERVE in sys.argv:
        serve()
        return
    parser = bench_parser(__doc__)
    parser.add_argument("--reference", type=Path, help="another checkout of synthpipe")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=400, help="images in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--per-shard", type=int, default=40)
    parser.add_argument("--side", type=int, default=480, help="side of the images")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--format", choices=["png", "jpg"], default="png")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        urls = write_shards(Path(folder), args.shards, args.per_shard, args.side, args.format)
        rates = against_webdataset(urls, args) if args.reference is None else against_checkout(urls, args)
    details = {key: value for key, value in vars(args).items() if key not in ("rounds", "save", "reference")}
    print_result(
        "stream_read" if args.reference is None else "stream_read_reference",
        *rates,
        "images/s",
        torch.device("cpu"),
        save=args.save,
        compared=f"webdataset {wds.__version__}" if args.reference is None else f"the checkout {args.reference}",
        **details,
    )


if __name__ == "__main__":
    main()
