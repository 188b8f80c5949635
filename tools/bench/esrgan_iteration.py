"""A BasicSR ESRGAN iteration fed by a degrading stream, against the same iteration fed by a bicubic one.

    python tools/bench/esrgan_iteration.py --shards runs/demo/shards --block 4 --rounds 3
    python tools/bench/esrgan_iteration.py --shards /data/hr --recipe recipes/esrgan_x4/train_no_vgg.yml --device cuda
    python tools/bench/esrgan_iteration.py --shards /data/hr --degrade real-esrgan

The two take turns by blocks of iterations, because machines drift; each pair of blocks gives a ratio.  The ratio is
ours / peer: 1.0 means that the degradation costs nothing.  ``details`` has the iteration on one constant batch,
too.  ``tools/bench/stage.py`` counts what the stream's thread does for a batch.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
import yaml
from report import bench_parser, paired_seconds, print_result

from synthpipe.basicsr_plugin import register
from synthpipe.pipeline import Stream, build_stream


def build_esrgan(recipe: str, device: torch.device, tiny: bool = False) -> Any:
    """BasicSR's model of an option file and the options, without its folders and pretrained networks.

    ``tiny``: narrow networks, to try the code and not to measure.
    """
    register()
    from basicsr.models import build_model

    with open(recipe, encoding="utf-8") as file:
        opt = yaml.safe_load(file)
    opt.update(is_train=True, dist=False, rank=0, world_size=1, num_gpu=1 if device.type == "cuda" else 0)
    opt["path"] = {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None}
    if tiny:
        opt["network_g"].update(num_feat=8, num_block=1, num_grow_ch=4)
        opt["network_d"].update(num_feat=4)
    return build_model(opt), opt


def iteration(model: Any, next_batch: Callable[[], dict[str, Any]]) -> Callable[[], object]:
    """Training ``model`` on batch after batch."""
    count = 0

    def call() -> object:
        """One iteration, as BasicSR's trainer makes it."""
        nonlocal count
        count += 1
        model.feed_data(next_batch())
        return model.optimize_parameters(count)

    return call


def open_stream(opt: dict[str, Any], args: argparse.Namespace, degrade: Any) -> Stream:
    """The stream that an option file's training block asks for, with this degradation."""
    train = opt["datasets"]["train"]
    return build_stream(
        {
            "shards": args.shards,
            "gt_size": train["gt_size"],
            "scale": opt["scale"],
            "batch_size": train["batch_size_per_gpu"],
            "workers": args.workers,
            "degrade": degrade,
        },
        device=args.device,
    )


def repeated(call: Callable[[], object], times: int) -> Callable[[], object]:
    """A block of calls."""
    return lambda: [call() for _ in range(times)]


def main() -> None:
    """Measure, print."""
    parser = bench_parser(__doc__)
    parser.add_argument("--shards", required=True, help="shards of clean images")
    parser.add_argument("--recipe", default="recipes/demo/esrgan.yml", help="BasicSR option file: networks and sizes")
    parser.add_argument("--weights", default="deflow_small", help="of the learned degradation")
    parser.add_argument("--degrade", help="another degradation: a preset's name, or a block or list as YAML")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--block", type=int, default=20, help="iterations in a block")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of blocks")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device(args.device)
    model, opt = build_esrgan(args.recipe, device)
    degrade = yaml.safe_load(args.degrade) if args.degrade else {"type": "deflow", "weights": args.weights}
    with open_stream(opt, args, degrade) as stream, open_stream(opt, args, {"type": "classical"}) as bicubic:
        constant = next(bicubic)
        next(stream)
        feeds: list[Callable[[], Any]] = [lambda: next(stream), lambda: next(bicubic), lambda: constant]
        blocks = [repeated(iteration(model, feed), args.block) for feed in feeds]
        ours, peer = paired_seconds(blocks[0], blocks[1], device, args.rounds, warmup=1)
        _, alone = paired_seconds(blocks[1], blocks[2], device, args.rounds, warmup=0)
    print_result(
        "esrgan_iteration",
        [seconds / args.block for seconds in ours],
        [seconds / args.block for seconds in peer],
        "seconds",
        device,
        save=args.save,
        compared="the iteration fed by a bicubic stream",
        constant=statistics.median(alone) / args.block,
        recipe=args.recipe,
        degrade=degrade,
        batch=len(constant["lq"]),
        gt_size=constant["gt"].shape[-1],
        workers=args.workers,
        block=args.block,
    )


if __name__ == "__main__":
    main()
