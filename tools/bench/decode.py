"""What decoding costs, by kind of PNG, against plain RGB of the same size; and against another checkout.

    python tools/bench/decode.py --data ../shared/data/clean_train
    python tools/bench/decode.py --data ../shared/data/clean_train --reference /path/to/another/checkout

Every kind is decoded in turn, ``--rounds`` times, by a process that does nothing else; with ``--reference`` a process
of that checkout decodes each file right after ours.  Peak memory is what the kernel saw above what was held before, in
a fresh process for each kind.  Without ``--reference``, ``ours`` is RGBA and ``peer`` plain RGB; with it, both are
plain RGB, here and there.  The details hold all kinds, in seconds of the clock and of the processor, with the medians
of the paired ratios to plain RGB and to the reference.  Pictures are tiled to the size; without ``--data``, smoothed
noise stands in.
"""

from __future__ import annotations

import json
import statistics
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from checkout import ROOT, SERVE, checkout_processes, package_place
from numpy.typing import NDArray
from PIL import Image

PLAIN, ALPHA = "rgb", "rgba"
#: Adobe RGB (1998), section 4.3, adapted to D50: columns of red, green and blue.
_ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))


def main() -> None:
    """Measure, print."""
    if SERVE in sys.argv:
        serve()
        return
    from report import bench_parser, print_result

    parser = bench_parser(__doc__)
    parser.add_argument("--side", type=int, default=2000, help="of the pictures, pixels")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--data", type=Path, help="folder of pictures")
    parser.add_argument("--reference", type=Path, help="another checkout of synthpipe")
    args = parser.parse_args()
    checkouts = [ROOT, *([args.reference.resolve()] if args.reference else [])]
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), picture(args.data, args.side))
        times = [{kind: Times() for kind in files} for _ in checkouts]
        measure(checkouts, files, args.rounds, times)
        memory = [{kind: peak_memory(checkout, path) for kind, path in files.items()} for checkout in checkouts]
    ours, peer = (times[0][ALPHA], times[0][PLAIN]) if len(checkouts) == 1 else (times[0][PLAIN], times[1][PLAIN])
    print_result(
        "decode" if args.reference is None else "decode_reference",
        ours.clock,
        peer.clock,
        "s",
        _cpu(),
        save=args.save,
        compared="RGBA with plain RGB" if len(checkouts) == 1 else f"plain RGB with {args.reference}",
        side=args.side,
        rounds=args.rounds,
        data=str(args.data),
        kinds={kind: row_of(kind, times, memory) for kind in files},
    )


class Times:
    """Seconds of each round, by the clock and of the processor."""

    def __init__(self) -> None:
        self.clock: list[float] = []
        self.processor: list[float] = []


def measure(
    checkouts: list[Path], files: Mapping[str, Path], rounds: int, times: list[dict[str, Times]], warmup: int = 1
) -> None:
    """Each kind in turn, each checkout right after the other."""
    with checkout_processes(checkouts, __file__) as children:
        for number in range(warmup + rounds):
            for kind, path in files.items():
                for child, into in zip(children, times, strict=True):
                    found = child.ask(f"time {path}")
                    if number >= warmup:
                        into[kind].clock.append(found["clock"])
                        into[kind].processor.append(found["processor"])


def peak_memory(checkout: Path, path: Path) -> int:
    """Bytes that decoding one file takes beyond what the process held before, its result included."""
    with checkout_processes([checkout], __file__) as (child,):
        return int(child.ask(f"memory {path}")["bytes"])


def row_of(kind: str, times: list[dict[str, Times]], memory: list[dict[str, int]]) -> dict[str, Any]:
    """What is said of one kind."""
    here, plain = times[0][kind], times[0][PLAIN]
    row: dict[str, Any] = {
        "seconds": _median(here.clock),
        "processor_seconds": _median(here.processor),
        "times_plain": _ratio(here.clock, plain.clock),
        "processor_times_plain": _ratio(here.processor, plain.processor),
        "megabytes": round(memory[0][kind] / 1e6, 1),
        "memory_times_plain": _times(memory[0][kind], memory[0][PLAIN]),
    }
    if len(times) > 1:
        there = times[1][kind]
        row |= {
            "reference_seconds": _median(there.clock),
            "times_reference": _ratio(here.clock, there.clock),
            "processor_times_reference": _ratio(here.processor, there.processor),
            "reference_megabytes": round(memory[1][kind] / 1e6, 1),
        }
    return row


def _times(ours: int, plain: int) -> float | None:
    """None where plain RGB is so small that no page was added for it."""
    if ours == plain:
        return 1.0
    return round(ours / plain, 2) if plain else None


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 4)


def _ratio(ours: list[float], peer: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(ours, peer, strict=True)), 3)


def serve() -> None:
    """Answer each line of the input: ``where``, ``time FILE`` or ``memory FILE``."""
    from synthpipe.files.decode import decode_image, encode_png

    warnings.simplefilter("ignore")
    # Libraries are loaded and what they set up is there before anything is measured.
    decode_image(encode_png(np.zeros((8, 8, 3), np.uint8)), "warm-up")
    for line in sys.stdin:
        word, _, place = line.strip().partition(" ")
        if word == "where":
            answer: Any = package_place()
        else:
            data = Path(place).read_bytes()
            before = _reset_peak() if word == "memory" else 0
            clock, processor = time.perf_counter(), time.process_time()
            decoded = decode_image(data, place)
            answer = {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}
            if word == "memory":
                answer["bytes"] = _status("VmHWM") - before
            del decoded
        print(json.dumps(answer), flush=True)


def _reset_peak() -> int:
    """Let the kernel count the peak anew (Linux, proc(5)); gives what is held now, bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def picture(data: Path | None, side: int) -> NDArray[np.uint8]:
    """``(side, side, 3)`` uint8: pictures side by side, or smoothed noise."""
    if data is None:
        rng = np.random.default_rng(0)
        coarse = Image.fromarray(rng.integers(0, 256, (side // 8 + 1, side // 8 + 1, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.int16)
        return np.clip(smooth + rng.normal(0, 3, smooth.shape), 0, 255).astype(np.uint8)
    out = np.zeros((side, side, 3), np.uint8)
    paths = sorted(path for path in data.iterdir() if path.suffix.lower() in (".png", ".jpg"))
    if not paths:
        raise SystemExit(f"--data {data}: expected .png or .jpg files, found none")
    top, number = 0, 0
    while top < side:
        left, height = 0, side
        while left < side:
            with Image.open(paths[number % len(paths)]) as image:
                tile = np.asarray(image.convert("RGB"))[: side - top, : side - left]
            out[top : top + len(tile), left : left + tile.shape[1]] = tile
            left, height, number = left + tile.shape[1], min(height, len(tile)), number + 1
        top += height
    return out


def write_files(folder: Path, rgb: NDArray[np.uint8]) -> dict[str, Path]:
    """A PNG of each kind; alpha is soft at the edges of a disc, 16 bits have noise in the lower 8."""
    side = len(rgb)
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    alpha = np.clip((0.45 - np.hypot(x, y)) * 2000, 0, 255).astype(np.uint8)[..., None]
    grey = rgb.mean(2, keepdims=True).round().astype(np.uint8)
    low = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint16)
    rgb16, alpha16 = rgb.astype(np.uint16) * 256 + low, alpha.astype(np.uint16) * 257
    arrays: dict[str, NDArray[Any]] = {
        PLAIN: rgb,
        ALPHA: np.concatenate([rgb, alpha], 2),
        "grey_alpha": np.concatenate([grey, alpha], 2),
        "rgb16": rgb16,
        "rgba16": np.concatenate([rgb16, alpha16], 2),
    }
    paths = {kind: folder / f"{kind}.png" for kind in (*arrays, "adobe_rgb")}
    for kind, array in arrays.items():
        if array.dtype == np.uint8:
            Image.fromarray(array).save(paths[kind], compress_level=6)
        else:  # which Pillow does not write
            paths[kind].write_bytes(imagecodecs.png_encode(np.ascontiguousarray(array), level=6))
    Image.fromarray(rgb).save(paths["adobe_rgb"], compress_level=6, icc_profile=adobe_rgb_profile())
    return paths


def adobe_rgb_profile() -> bytes:
    """A matrix and an exponent of 563/256 (ICC.1:2001-04)."""
    values = {b"wtpt": (0.9642, 1.0, 0.8249), **dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), _ADOBE_RGB, strict=True))}
    text = b"Adobe RGB (1998)\0"
    tags = {
        b"desc": b"desc" + struct.pack(">4xI", len(text)) + text + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\0",
        **{tag: b"XYZ " + bytes(4) + b"".join(map(_fixed, columns)) for tag, columns in values.items()},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv" + struct.pack(">4xIH", 1, 563)),
    }
    place = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4xI4s4s4s12x4s28x", place + len(body), 0x02100000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    head += b"".join(map(_fixed, values[b"wtpt"]))
    return head.ljust(128, b"\0") + table + body


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _cpu() -> Any:
    import torch

    return torch.device("cpu")


if __name__ == "__main__":
    main()
