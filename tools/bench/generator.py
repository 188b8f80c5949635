"""The frozen DeFlow against the plain one: the same weights, seeds and tiles, in one run.

    python tools/bench/generator.py --preset small --rounds 5
    python tools/bench/generator.py --preset aim --rounds 3 --processor-time
    python tools/bench/generator.py --preset aim --tiles 16 --device cuda

Weights are random; time does not depend on them.  ``ours`` is the frozen runtime in float32, ``peer`` the plain model;
``details.ways`` has the median seconds of every way, its ratio to the plain model (plain / way: above 1 is faster) and
its largest difference from the plain model's images on the [0, 1] scale:

* ``plain``: the model as it is trained, with one generator per image on the host;
* ``frozen``: the same draws; ``frozen bf16``: what depends on the features alone in bfloat16;
* ``further``: one more draw of tiles that are encoded already;
* ``seeded``, ``seeded bf16``: noise from seeds, on the device; ``captured``, ``captured bf16``: that as one CUDA graph.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from report import bench_parser, paired_seconds, print_result
from torch import Tensor

from synthpipe.config.deflow import PRESETS, DeFlowModelOptions
from synthpipe.flows import DeFlow
from synthpipe.flows.deflow import CLEAN
from synthpipe.flows.draws import GeneratorNoise, SeededNoise
from synthpipe.flows.frozen import FrozenDeFlow
from synthpipe.transforms.captured import CapturedFunction

Call = Callable[[], Tensor]


def build(preset: str, device: torch.device) -> DeFlow:
    """A model of that size, initialised from noise, its zero convolutions moved so far that the flow stays tame."""
    torch.manual_seed(0)
    model = DeFlow(**DeFlowModelOptions.model_validate({"preset": preset}).arguments()).train()
    model.initialize(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "out.conv" in name or name.startswith("split"):
                parameter.add_(0.002 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False).to(device)


def ways(model: DeFlow, x: Tensor) -> dict[str, Call]:
    """Every way to degrade ``x``, the plain one first."""
    frozen, half = FrozenDeFlow(model), FrozenDeFlow(model, torch.bfloat16)
    seeds = torch.arange(len(x), device=x.device)

    def generators() -> list[torch.Generator]:
        """Fresh ones, so that every call draws the same."""
        return [torch.Generator().manual_seed(seed) for seed in range(len(x))]

    encoded = frozen.encode(x, CLEAN, GeneratorNoise(generators()))
    calls: dict[str, Call] = {
        "plain": lambda: model.degrade(x, generators(), refuse_nonfinite=False),
        "frozen": lambda: frozen.degrade(x, generators(), refuse_nonfinite=False),
        "frozen bf16": lambda: half.degrade(x, generators(), refuse_nonfinite=False),
        "further": lambda: frozen.degrade_encoded(encoded, GeneratorNoise(generators())),
        "seeded": lambda: frozen.degrade_with(x, SeededNoise(seeds)),
        "seeded bf16": lambda: half.degrade_with(x, SeededNoise(seeds)),
    }
    if x.is_cuda:
        captured = CapturedFunction(lambda x, seeds: (frozen.degrade_with(x, SeededNoise(seeds)),))
        captured_half = CapturedFunction(lambda x, seeds: (half.degrade_with(x, SeededNoise(seeds)),))
        calls["captured"] = lambda: captured(x, seeds)[0]
        calls["captured bf16"] = lambda: captured_half(x, seeds)[0]
    return calls


def main() -> None:
    """Measure, print."""
    parser = bench_parser(__doc__)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small")
    parser.add_argument("--tiles", type=int, default=1)
    parser.add_argument("--size", type=int, default=160, help="side of the tiles in pixels, at the reduced size")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of the processor")
    parser.add_argument("--processor-time", action="store_true", help="on a busy machine: what one core takes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    x = torch.rand(args.tiles, 3, args.size, args.size, generator=torch.Generator().manual_seed(0)).to(device)
    calls = ways(build(args.preset, device), x)
    clock = time.process_time if args.processor_time else time.perf_counter
    plain = calls["plain"]
    reference = plain()
    table = {}
    pairs: dict[str, tuple[list[float], list[float]]] = {}
    for name, call in calls.items():
        if name == "plain":
            continue
        pairs[name] = paired_seconds(call, plain, device, args.rounds, clock=clock)
        mine, theirs = pairs[name]
        table[name] = {
            "seconds": statistics.median(mine),
            "ratio": statistics.median(b / a for a, b in zip(mine, theirs, strict=True)),
            "largest_difference": None
            if "seeded" in name or "captured" in name
            else float((call() - reference).abs().max()),
        }
    table["further"]["largest_difference"] = None
    print_result(
        "generator",
        *pairs["frozen"],
        "seconds",
        device,
        save=args.save,
        compared="plain",
        preset=args.preset,
        tiles=args.tiles,
        size=args.size,
        clock="processor" if args.processor_time else "wall",
        ways=table,
    )


if __name__ == "__main__":
    main()
