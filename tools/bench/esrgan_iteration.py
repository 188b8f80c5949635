"""A BasicSR ESRGAN iteration fed by the stream, against the same iteration on a constant batch.

    python tools/bench/esrgan_iteration.py --shards runs/demo/shards
    python tools/bench/esrgan_iteration.py --shards /data/hr --recipe recipes/esrgan_x4/train_no_vgg.yml --device cuda

The ratio is ours / peer: 1.0 would mean that learned degradation costs nothing.
"""

from __future__ import annotations

import argparse
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


def open_stream(opt: dict[str, Any], args: argparse.Namespace) -> Stream:
    """The stream that an option file's training block asks for."""
    train = opt["datasets"]["train"]
    return build_stream(
        {
            "shards": args.shards,
            "gt_size": train["gt_size"],
            "scale": opt["scale"],
            "batch_size": train["batch_size_per_gpu"],
            "workers": args.workers,
            "degrade": {"type": "deflow", "weights": args.weights},
        },
        device=args.device,
    )


def main() -> None:
    """Measure, print."""
    parser = bench_parser(__doc__)
    parser.add_argument("--shards", required=True, help="shards of clean images")
    parser.add_argument("--recipe", default="recipes/demo/esrgan.yml", help="BasicSR option file: networks and sizes")
    parser.add_argument("--weights", default="deflow_small")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device(args.device)
    model, opt = build_esrgan(args.recipe, device)
    with open_stream(opt, args) as stream:
        constant = next(stream)
        calls = iteration(model, lambda: next(stream)), iteration(model, lambda: constant)
        # Enough rounds to pass through whole blocks of the pool, which is filled ahead at an even pace.
        ours, peer = paired_seconds(*calls, device, args.rounds, warmup=3)
    print_result(
        "esrgan_iteration",
        ours,
        peer,
        "seconds",
        device,
        save=args.save,
        recipe=args.recipe,
        batch=len(constant["lq"]),
        gt_size=constant["gt"].shape[-1],
        workers=args.workers,
    )


if __name__ == "__main__":
    main()
