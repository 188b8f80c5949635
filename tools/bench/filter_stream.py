"""What the filter stage costs a stream that degrades with DeFlow: the same stream with and without it, in turn.

    python tools/bench/filter_stream.py --shards /data/hr
    python tools/bench/filter_stream.py --device cuda --tiles-per-batch 32

Both streams cut the same tiles from the same shards (made of smoothed noise, unless given).  The filter keeps all, so
that both degrade the same tiles and only judging them is extra.  ``ours`` is patches per second with the filter,
``peer`` without; the ratio is above 0.9 where the filter costs less than 10 %.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from report import bench_parser, paired_seconds, print_result
from stream import EVERYTHING, write_shards

from synthpipe.pipeline import Stream, build_stream


def main() -> None:
    """Measure, print."""
    args = parse_arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    # Workers overlap in wall time; without them, processor time leaves out what else the machine is doing.
    clock = time.process_time if device.type == "cpu" and not args.workers else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        shards = args.shards or write_shards(Path(folder), 2, 16, args.side, "jpg")
        with open_stream(shards, args, judged=True) as ours, open_stream(shards, args, judged=False) as peer:
            # as many batches as make whole batches of tiles, so that each round does the same work
            seconds = paired_seconds(
                pull(ours, args.batches), pull(peer, args.batches), device, args.rounds, warmup=1, clock=clock
            )
            counts = ours.counts()
    ours_rate, peer_rate = ([args.batches * args.batch / value for value in values] for values in seconds)
    print_result(
        "filter_stream",
        ours_rate,
        peer_rate,
        "patches/s",
        device,
        save=args.save,
        compared="the same stream without a filter",
        counts=counts,
        clock=clock.__name__,
        **{key: str(value) for key, value in vars(args).items() if key not in ("rounds", "device", "save")},
    )


def open_stream(shards: list[str] | str, args: argparse.Namespace, *, judged: bool) -> Stream:
    """The stream; whole tiles are emitted in order, without the pool's work ahead."""
    options = {
        "shards": shards,
        "gt_size": args.gt_size,
        "scale": args.scale,
        "tile": args.tile,
        "tiles_per_batch": args.tiles_per_batch,
        "batch_size": args.batch,
        "patches_per_tile": args.batch // args.tiles_per_batch,
        "pool": 0,
        "prefetch": 0,
        "workers": args.workers,
        "degrade": {"type": "deflow", "weights": args.degrade},
    }
    if judged:
        options["filter"] = {"weights": args.weights, "max_logit": EVERYTHING, "tiles": args.tiles}
    return build_stream(options, device=args.device)


def pull(stream: Stream, batches: int) -> Callable[[], object]:
    """Take some batches."""
    return lambda: [next(stream) for _ in range(batches)]


def parse_arguments() -> argparse.Namespace:
    """Options of the command."""
    parser = bench_parser(__doc__)
    parser.add_argument("--shards", help="shards of clean images; made for the run by default")
    parser.add_argument("--side", type=int, default=768, help="of the images that are made")
    parser.add_argument("--weights", default="scorer_small", help="the scorer")
    parser.add_argument("--degrade", default="deflow_small", help="DeFlow weights")
    parser.add_argument("--tiles", type=int, default=4, help="places looked at in each tile, at most")
    parser.add_argument("--gt-size", type=int, default=128)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--tile", type=int, default=160, help="side of the LR tiles")
    parser.add_argument("--tiles-per-batch", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16, help="patches; a multiple of tiles-per-batch")
    parser.add_argument("--batches", type=int, default=1, help="in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch; 0 leaves them as they are")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
