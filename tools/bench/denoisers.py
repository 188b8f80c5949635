"""Blind-spot networks and restoration by denoisers, in one run of at most 20 minutes on one CPU core.

    python tools/bench/denoisers.py
    python tools/bench/denoisers.py --steps 0                  # costs of the networks and restoration, no training
    python tools/bench/denoisers.py --full --device cuda       # training at full width

``ours`` and ``peer`` are processor seconds of our blind-spot network and of four rotated U-Nets for one image of
256x256 pixels.  The details hold two parts: ``networks`` (see ``denoiser_networks.py``) and ``restoration`` (see
``restoration.py``, which also runs by itself).
"""

from __future__ import annotations

import argparse
from typing import Any

import denoiser_networks
import restoration
import torch
from report import bench_parser, print_result

#: What ``--full`` sets: a training that a GPU does in some minutes for each network.
FULL = {"factor": 1, "crop": 256, "batch": 4, "steps": 20_000, "seconds": 600, "lr": 3e-4, "ema": 0.999, "images": 24}


def main() -> None:
    """Measure, print."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    networks = denoiser_networks.measure(args)
    details: dict[str, Any] = {"networks": networks}
    if args.restoration:
        details["restoration"] = restoration.measure(restoration.parse_arguments(["--device", args.device]))
    ours, peer = (networks["networks"][name] for name in (denoiser_networks.OURS, denoiser_networks.PEER))
    print_result(
        "denoisers",
        ours["times_image"],
        peer["times_image"],
        f"s per {denoiser_networks.SIDE}x{denoiser_networks.SIDE} image",
        torch.device(args.device),
        save=args.save,
        compared="four rotated half-plane U-Nets (Laine et al. 2019)",
        **details,
    )


def parse_arguments() -> argparse.Namespace:
    """Options of the command; ``--full`` gives way to what is stated."""
    parser = bench_parser(__doc__)
    denoiser_networks.add_arguments(parser)
    parser.add_argument("--full", action="store_true", help="train at full width: for a GPU")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--restoration", action=argparse.BooleanOptionalAction, default=True)
    if parser.parse_known_args()[0].full:
        parser.set_defaults(**FULL)
    return parser.parse_args()


if __name__ == "__main__":
    main()
