"""DeFlow alone: degrading by every runtime there is, captured, training, and what the profiler counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product
from unittest import mock

import torch
from gpu_measure import MODES, Bench, allow_tf32
from report import synchronise
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from synthpipe.config.deflow import DeFlowModelOptions
from synthpipe.flows import DeFlow
from synthpipe.flows.draws import SeededNoise
from synthpipe.flows.frozen import FrozenDeFlow
from synthpipe.training.deflow import DeFlowObjective
from synthpipe.training.step.captured import CapturedGradient
from synthpipe.transforms.batch import Batch
from synthpipe.transforms.captured import CapturedFunction

#: ``(images, generators) -> degraded images``.
Degrade = Callable[[Tensor, list[torch.Generator]], Tensor]


def plain(model: DeFlow, reduced: bool) -> Degrade:
    """The training module as it is, in autocast if ``reduced``."""

    def run(x: Tensor, generators: list[torch.Generator]) -> Tensor:
        with bfloat16(x.device, reduced):
            return model.degrade(x, generators, refuse_nonfinite=False)

    return run


def frozen(model: DeFlow, reduced: bool) -> Degrade:
    """The runtime for use alone; if ``reduced``, what depends on the features alone in bfloat16."""
    runtime = FrozenDeFlow(model, torch.bfloat16 if reduced else None)
    return lambda x, generators: runtime.degrade(x, generators, refuse_nonfinite=False)


#: Who degrades: every runtime that is measured, by the name in the rows.
RUNTIMES = {"plain": plain, "frozen": frozen}


def capturable_plain(model: DeFlow, reduced: bool) -> Callable[[Tensor], Tensor]:
    """Noise from the device's own generator, nothing kept from call to call."""

    def run(x: Tensor) -> Tensor:
        with bfloat16(x.device, reduced, cache=False):
            return model.degrade(x, None, refuse_nonfinite=False)  # type: ignore[arg-type]

    return run


def capturable_frozen(model: DeFlow, reduced: bool) -> Callable[[Tensor], Tensor]:
    """Noise from the samples' seeds."""
    runtime = FrozenDeFlow(model, torch.bfloat16 if reduced else None)
    return lambda x: runtime.degrade_with(x, SeededNoise(torch.arange(len(x), device=x.device)))


#: The same as functions that can be captured.
CAPTURABLE = {"plain": capturable_plain, "frozen": capturable_frozen}

PRESETS = ("small", "ntire", "aim")


def build(preset: str, device: torch.device) -> DeFlow:
    """Of a preset's size, with random weights: time does not depend on them; ``tiny`` is no preset."""
    torch.manual_seed(0)
    tiny = {"levels": 2, "steps": 1, "hidden": 4, "encoder": {"type": "small", "features": 4, "depth": 1}}
    arguments = tiny if preset == "tiny" else DeFlowModelOptions.model_validate({"preset": preset}).arguments()
    model = DeFlow(**arguments)
    model.mark_initialized()
    return model.to(device)


def sizes(bench: Bench) -> tuple[tuple[str, ...], tuple[int, ...], int]:
    """Presets, tiles in a batch, and their side."""
    return (("tiny",), (1,), 32) if bench.quick else (PRESETS, (1, 16), 160)


def degrade(bench: Bench) -> None:
    """Seconds and peak memory of a batch of tiles."""
    presets, batches, side = sizes(bench)
    for preset in presets:
        model = build(preset, bench.device).eval().requires_grad_(False)
        for who, make in RUNTIMES.items():
            for tiles in batches:
                x = torch.rand(tiles, 3, side, side, device=bench.device)
                for mode, (tf32, reduced) in MODES.items():
                    labels = {"what": "degrade", "who": who, "preset": preset, "tiles": tiles, "mode": mode}
                    with bench.part(**labels):
                        allow_tf32(tf32)
                        call = degrade_call(make(model, reduced), x)
                        found = bench.seconds(call, 5)
                        rate = round(tiles / found["s"], 1)
                        bench.say(**labels, side=side, **found, tiles_per_s=rate, peak_mib=bench.peak_mib(call))
        del model


def train(bench: Bench) -> None:
    """A training step: forward, backward, Adam; plain, with checkpointed activations, and as one CUDA graph."""
    # The step may be stopped by its time limit: what has targets comes first.
    presets, batch, side = (("tiny",), 2, 32) if bench.quick else (("small", "aim", "ntire"), 8, 160)
    ways = ("plain", "checkpointed", "captured") if bench.device.type == "cuda" else ("plain", "checkpointed")
    for preset, who in product(presets, ways):
        model = build(preset, bench.device).train()
        model.checkpoint_activations(who == "checkpointed")
        for mode in ("fp32",) if who == "checkpointed" else MODES:
            tf32, reduced = MODES[mode]
            labels = {"what": "train", "who": who, "preset": preset, "batch": batch, "mode": mode}
            with bench.part(**labels):
                allow_tf32(tf32)
                call = train_call(bench, model, batch, side, reduced, captured=who == "captured")
                found = bench.seconds(call, 5)
                bench.say(**labels, side=side, **found, peak_mib=bench.peak_mib(call))
                del call
        del model


def degrade_call(run: Degrade, x: Tensor) -> Callable[[], object]:
    """One batch with a generator for each tile, as streams had them up to commit b88faae."""
    return lambda: run(x, [torch.Generator().manual_seed(place) for place in range(len(x))])


def train_call(
    bench: Bench, model: DeFlow, batch: int, side: int, reduced: bool = False, captured: bool = False
) -> Callable[[], object]:
    """One step of fused Adam on random images of both domains; ``captured``: its gradient as one CUDA graph."""
    objective, optimizer = DeFlowObjective(model), torch.optim.Adam(model.parameters(), 1e-5, fused=True)
    x = torch.randint(256, (batch, 3, side, side), dtype=torch.uint8, device=bench.device)
    data, seeds = {"x": x, "domain": torch.arange(batch, device=bench.device) % 2}, torch.arange(batch)

    def plain(data: Batch, seeds: Tensor) -> dict[str, Tensor]:
        optimizer.zero_grad(set_to_none=True)
        with bfloat16(x.device, reduced):
            loss, numbers = objective(data, seeds)
        loss.backward()
        return {"loss": loss.detach(), **numbers}

    gradient = CapturedGradient(plain, list(model.parameters()), bench.device) if captured else plain

    def call() -> None:
        gradient(data, seeds)
        optimizer.step()

    return call


def kernels(bench: Bench) -> None:
    """Kernels that one call launches, and seconds that the device works on them."""
    _, batches, side = sizes(bench)
    presets = ("tiny",) if bench.quick else ("small", "aim")
    for preset in presets:
        model = build(preset, bench.device).eval()
        x = torch.rand(batches[-1], 3, side, side, device=bench.device)
        allow_tf32(True)
        for who, make in RUNTIMES.items():
            with bench.part(what="kernels", call="degrade", who=who, preset=preset):
                found = count_kernels(degrade_call(make(model, False), x), bench.device)
                bench.say(what="kernels", call="degrade", who=who, preset=preset, tiles=len(x), **found)
        batch = 2 if bench.quick else 8
        with bench.part(what="kernels", call="train", who="plain", preset=preset):
            found = count_kernels(train_call(bench, model.train(), batch, side), bench.device)
            bench.say(what="kernels", call="train", who="plain", preset=preset, batch=batch, **found)


def count_kernels(call: Callable[[], object], device: torch.device) -> dict[str, float]:
    """By torch's profiler; on the CPU none."""
    call()
    synchronise(device)
    activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiler:
        begun = time.perf_counter()
        call()
        synchronise(device)
        wall = time.perf_counter() - begun
    found = [event for event in profiler.events() or [] if str(event.device_type).endswith("CUDA")]
    busy = sum(event.self_device_time_total for event in found) / 1e6
    return {"kernels": len(found), "busy_s": round(busy, 5), "profiled_wall_s": round(wall, 5)}


def graph_small(bench: Bench) -> None:
    """The small preset in a CUDA graph."""
    graphs(bench, "small")


def graph_ntire(bench: Bench) -> None:
    """NTIRE's size."""
    graphs(bench, "ntire")


def graph_aim(bench: Bench) -> None:
    """AIM's size."""
    graphs(bench, "aim")


def graphs(bench: Bench, preset: str) -> None:
    """Replays of one captured degrade, its noise drawn by the device's own generator: what launches cost.

    Of the published sizes the large batch alone: capturing takes seconds.
    """
    if bench.quick:
        preset = "tiny"
    _, batches, side = sizes(bench)
    batches = batches if preset == "small" else batches[-1:]
    model = build(preset, bench.device).eval().requires_grad_(False)
    for who, make in CAPTURABLE.items():
        for tiles in batches:
            x = torch.rand(tiles, 3, side, side, device=bench.device)
            for mode, (tf32, reduced) in MODES.items():
                labels = {"what": "graph", "who": who, "preset": preset, "tiles": tiles, "mode": mode}
                # Looking at the values of its input asks the device, and cannot be captured.
                with bench.part(**labels), mock.patch("synthpipe.flows.deflow.check_images"):
                    allow_tf32(tf32)
                    found = bench.seconds(captured_call(make(model, reduced), x), 10)
                    bench.say(**labels, side=side, **found, tiles_per_s=round(tiles / found["s"], 1))


def captured_call(run: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    """Replays, of a call that is captured the first time; on the CPU the call itself."""
    captured = CapturedFunction(lambda x: (run(x),))
    return lambda: captured(x)


def bfloat16(device: torch.device, reduced: bool, cache: bool = True) -> torch.autocast:
    """Autocast where ``reduced``; ``cache`` keeps cast weights, which a captured call must not rely on."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=reduced, cache_enabled=cache)
