"""The frozen DeFlow against the plain one, and against the authors' code: the same weights and tiles, in one run.

    python tools/bench/generator.py --preset small --rounds 15 --processor-time
    python tools/bench/generator.py --preset aim --rounds 3 --processor-time
    python tools/bench/generator.py --preset aim --tiles 16 --device cuda
    python tools/bench/generator.py --preset aim --reference ~/DeFlow --reference-config codes/confs/DeFlow-AIM-RWSR.yml

Weights are random; time does not depend on them.  ``ours`` is the frozen runtime in float32, ``peer`` the plain model.
``details.ways`` has the median seconds of every way, its ratio to the plain model (plain / way, round by round: above 1
is faster) and its largest difference from the plain model's images on the [0, 1] scale, where both draw the same:

* ``plain``: one generator per image on the host;
* ``frozen``: the same draws; ``frozen bf16``: what depends on the features alone in bfloat16;
* ``further``: one more draw of tiles that are encoded already;
* ``seeded``, ``seeded bf16``: noise from seeds, on the device; ``captured``, ``captured bf16``: that as one CUDA graph;
* ``reference``: the network of a checkout of the authors' code (``reference_deflow.py``), the same draws.

``details`` also says by how much a further draw is cheaper than the first one, plain and frozen, and what noise from
seeds costs (seeded / frozen).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from reference_deflow import ReferenceDeFlow
from report import bench_parser, print_result, synchronise
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


def seeded_generators(count: int) -> list[torch.Generator]:
    """Fresh ones, so that every call draws the same."""
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def ways(model: DeFlow, x: Tensor) -> dict[str, Call]:
    """Every way to degrade ``x``, the plain one first."""
    frozen, half = FrozenDeFlow(model), FrozenDeFlow(model, torch.bfloat16)
    seeds = torch.arange(len(x), device=x.device)

    generators = partial(seeded_generators, len(x))
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


def interleaved_seconds(
    calls: Mapping[str, Call], device: torch.device, rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each call in each round, one after the other, so that a drift of the machine's speed meets all."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(1 + rounds):  # the first warms up
        for name, call in calls.items():
            synchronise(device)
            start = clock()
            call()
            synchronise(device)
            if index:
                times[name].append(clock() - start)
    return times


def ratio(times: Mapping[str, list[float]], slow: str, fast: str) -> float:
    """By how much one way is cheaper than another: the median over rounds."""
    return statistics.median(b / a for a, b in zip(times[fast], times[slow], strict=True))


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
    parser.add_argument("--reference", type=Path, help="a checkout of the authors' code, volflow/DeFlow")
    parser.add_argument("--reference-config", type=Path, help="its YAML configuration, of the preset's size")
    args = parser.parse_args()
    if (args.reference is None) != (args.reference_config is None):
        parser.error("--reference and --reference-config belong together")
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    x = torch.rand(args.tiles, 3, args.size, args.size, generator=torch.Generator().manual_seed(0)).to(device)
    model = build(args.preset, device)
    calls = ways(model, x)
    if args.reference is not None:
        reference = ReferenceDeFlow(args.reference, args.reference_config, model)
        calls["reference"] = lambda: reference.degrade(x, seeded_generators(len(x)))
    clock = time.process_time if args.processor_time else time.perf_counter
    times = interleaved_seconds(calls, device, args.rounds, clock)
    same_draws = calls["plain"]()
    table = {
        name: {
            "seconds": statistics.median(times[name]),
            "ratio": ratio(times, "plain", name),
            "largest_difference": float((calls[name]() - same_draws).abs().max())
            if name.startswith(("frozen", "reference"))
            else None,
        }
        for name in calls
    }
    print_result(
        f"generator_{args.preset}",
        times["frozen"],
        times["plain"],
        "seconds",
        device,
        save=args.save,
        compared="plain",
        preset=args.preset,
        tiles=args.tiles,
        size=args.size,
        rounds=args.rounds,
        clock="processor" if args.processor_time else "wall",
        ways=table,
        further_draw_cheaper_than={name: ratio(times, name, "further") for name in ("plain", "frozen")},
        noise_from_seeds_costs=1 / ratio(times, "frozen", "seeded"),
    )


if __name__ == "__main__":
    main()
