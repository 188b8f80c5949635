"""DeFlow on one device: a degrade in bfloat16 autocast against float32, or a training step of one preset and another.

    python tools/bench/deflow.py degrade --preset small --tiles 16 --size 160
    python tools/bench/deflow.py train --preset aim --peer ntire --batch 8 --size 160 --device cuda

Weights are random: time does not depend on them.  The ratio is ours / peer: below 1, ours is faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from report import bench_parser, paired_seconds, print_result

from synthpipe.config.deflow import PRESETS, DeFlowModelOptions
from synthpipe.flows import DeFlow


def build(preset: str, device: torch.device) -> DeFlow:
    """A flow of random weights."""
    model = DeFlow(**DeFlowModelOptions.model_validate({"preset": preset}).arguments())
    model.mark_initialized()
    return model.to(device)


def degrade_call(model: DeFlow, x: torch.Tensor, reduced: bool) -> Callable[[], object]:
    """Degrading tiles ``(B, 3, H, W)`` in [0, 1], in bfloat16 where ``reduced``."""

    def call() -> object:
        """Once."""
        generators = [torch.Generator().manual_seed(i) for i in range(len(x))]
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=reduced):
            return model.degrade(x, generators)

    return call


def train_call(model: DeFlow, batch: int, size: int, device: torch.device) -> Callable[[], object]:
    """Training steps on a batch of noise, half of it in either domain."""
    x = torch.rand(batch, 3, size, size, device=device)
    domain = torch.arange(batch, device=device) % 2
    optimizer = torch.optim.Adam(model.parameters(), 1e-5)

    def call() -> object:
        """Likelihood, gradient and update."""
        loss = model.bits_per_dim(model.nll(x, domain), x.shape).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        return optimizer.step()

    return call


def main() -> None:
    """Measure, print."""
    parser = bench_parser(__doc__)
    parser.add_argument("what", choices=["degrade", "train"])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small")
    parser.add_argument("--peer", choices=sorted(PRESETS), default="small", help="train: the preset to compare with")
    parser.add_argument("--tiles", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device(args.device)
    model = build(args.preset, device)
    if args.what == "degrade":
        x = torch.rand(args.tiles, 3, args.size, args.size, device=device)
        ours, peer = degrade_call(model, x, True), degrade_call(model, x, False)
        labels: dict[str, Any] = {"compared": "bfloat16 autocast / float32", "preset": args.preset, "tiles": args.tiles}
    else:
        other = build(args.peer, device)
        ours, peer = (train_call(m, args.batch, args.size, device) for m in (model, other))
        labels = {"compared": f"{args.preset} / {args.peer}", "batch": args.batch}
    seconds = paired_seconds(ours, peer, device, args.rounds)
    print_result(f"deflow_{args.what}", *seconds, "seconds", device, save=args.save, size=args.size, **labels)


if __name__ == "__main__":
    main()
