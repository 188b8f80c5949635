"""The stream on the device: patches a second, what feeds a trainer's iteration, and how long readers take to start."""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from esrgan_iteration import build_esrgan
from esrgan_iteration import iteration as iteration_call
from gpu_measure import Bench, allow_tf32
from reference_esrgan import ReferenceRealEsrgan
from report import synchronise
from stream import EVERYTHING

from synthpipe.config.degrade import DeFlowDegradeOptions
from synthpipe.pipeline import Stream, build_stream
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.batch import Batch
from synthpipe.transforms.build import build_degrade

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "esrgan_x4" / "train_no_vgg.yml"
CLASSICAL = {"type": "classical"}
DEFLOW = {"type": "deflow", "weights": "deflow_small"}
#: What feeds a trainer: bicubic pairs, DeFlow in one captured graph, and the same functions one after the other.
FEEDS: dict[str, dict[str, str] | str | None] = {
    "none": None,
    "bicubic": CLASSICAL,
    "deflow_small": DEFLOW,
    "deflow_small uncaptured": "uncaptured",
    "deflow_small compiled": "compiled",
    "real-esrgan": "real-esrgan",
}
#: What feeds a trainer as BasicSR does it: clean patches, degraded by the operations of its ``feed_data``.
FEED_DATA = "real-esrgan in feed_data"
#: What stands before the degradation.
STAGES: dict[str, dict[str, Any]] = {
    "none": {},
    "filter": {"filter": {"max_logit": EVERYTHING}},
    "denoise blind_spot_small": {"denoise": {"weights": "blind_spot_small", "sigma": "auto"}},
    "denoise flow_prior_small": {"denoise": {"weights": "flow_prior_small", "sigma": "auto"}},
}


def options(bench: Bench, **changes: Any) -> dict[str, Any]:
    """Options of a stream as the ESRGAN recipe has it, smaller if quick."""
    small = {"gt_size": 32, "batch_size": 2, "tile": 24, "tiles_per_batch": 2, "pool": 2} if bench.quick else {}
    usual = {"shards": bench.shards(), "gt_size": 128, "scale": 4, "batch_size": 16, "workers": workers(bench)}
    return {**usual, **small, **changes}


def open_stream(bench: Bench, degrade: dict[str, str] | str | None, **changes: Any) -> Stream:
    """A stream with one of :data:`FEEDS`' degradations."""
    if degrade == "uncaptured":
        built = build_degrade(DeFlowDegradeOptions.model_validate(DEFLOW), options(bench, **changes)["scale"])
        return build_stream(options(bench, **changes), device=bench.device, degrade=Uncaptured(built))
    if degrade == "compiled":
        # Nothing is captured on a CPU, and so nothing compiled.
        degrade, changes = DEFLOW, {**changes, "compile": bench.device.type == "cuda"}
    return build_stream(options(bench, degrade=degrade, **changes), device=bench.device)


class Uncaptured(BatchTransform):
    """A transform that does not say that it could be captured."""

    def __init__(self, transform: BatchTransform) -> None:
        self.transform = transform

    def sample_params(self, batch: Batch) -> dict[str, Any]:
        """The transform's."""
        return self.transform.sample_params(batch)

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        """The transform's."""
        return self.transform.apply(batch, params)

    def to(self, device: torch.device | str) -> Uncaptured:
        """Move the transform."""
        self.transform.to(device)
        return self


def workers(bench: Bench) -> int:
    """Readers: the recipe's."""
    return 1 if bench.quick else 8


def stream(bench: Bench) -> None:
    """Patches a second by degradation and readers."""
    for count in (1,) if bench.quick else (2, 12):
        for name, degrade in FEEDS.items():
            labels = {"what": "stream", "degrade": name, "workers": count}
            with bench.part(**labels), open_stream(bench, degrade, workers=count) as it:
                bench.say(**labels, **patches_per_second(bench, it))


def stages(bench: Bench) -> None:
    """Patches a second with what may stand before ``deflow_small``."""
    for name, changes in STAGES.items():
        labels = {"what": "stages", "before": name, "degrade": "deflow_small", "workers": workers(bench)}
        with bench.part(**labels), open_stream(bench, DEFLOW, **changes) as it:
            bench.say(**labels, **patches_per_second(bench, it))


def patches_per_second(bench: Bench, source: Stream) -> dict[str, Any]:
    """Over some seconds, from the second block of the pool on."""
    for _ in range(1 if bench.quick else 16):
        next(source)
    seconds = 0.2 if bench.quick else 2.5
    synchronise(bench.device)
    begun, patches = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        patches += len(next(source)["gt"])
    synchronise(bench.device)
    return {"patches_per_s": round(patches / (time.perf_counter() - begun), 1), "patches": patches}


def iteration(bench: Bench) -> None:
    """An ESRGAN iteration fed by a constant batch, by streams and by BasicSR's own degradation, in turn by blocks."""
    model, _ = build_esrgan(str(RECIPE), bench.device, tiny=bench.quick)
    allow_tf32(True)
    with contextlib.ExitStack() as opened:
        feeds: dict[str, Callable[[], Any]] = {}
        for name, degrade in FEEDS.items():
            if degrade is not None:
                feeds[name] = opened.enter_context(open_stream(bench, degrade)).__next__
        clean = {"gt_size": 96} if bench.quick else {}  # its reflected borders want 10 pixels of lq and more
        feeds[FEED_DATA] = degraded_by_basicsr(bench, opened.enter_context(open_stream(bench, None, **clean)))
        constant = feeds["bicubic"]()
        feeds = {"constant": lambda: constant, **feeds}
        waits = dict.fromkeys(feeds, 0.0)
        calls = {name: iteration_call(model, _timed(feed, waits, name)) for name, feed in feeds.items()}
        # Two pools of batches in a block: a pool is filled ahead at an even pace.
        length, rounds = (1, 1) if bench.quick else (20, 5)
        blocks: dict[str, list[float]] = {name: [] for name in feeds}
        for number in range(1 + rounds):
            for name, call in calls.items():
                waits[name] *= number > 1
                synchronise(bench.device)
                begun = time.perf_counter()
                for _ in range(length):
                    call()
                synchronise(bench.device)
                if number:
                    blocks[name].append((time.perf_counter() - begun) / length)
        for name in ("bicubic", "deflow_small", "real-esrgan"):
            picture(bench, name, calls[name], statistics.median(blocks[name]))
    for name, found in blocks.items():
        ratios = {
            peer: round(statistics.median(a / b for a, b in zip(found, blocks[peer], strict=True)), 4)
            for peer in ("constant", "bicubic")
        }
        bench.say(
            what="iteration",
            fed=name,
            s=round(statistics.median(found), 5),
            spread=[round(min(found), 5), round(max(found), 5)],
            ratio_to_constant=ratios["constant"],
            ratio_to_bicubic=ratios["bicubic"],
            wait_share=round(waits[name] / (sum(found) * length), 4),
            iterations_in_a_block=length,
            blocks=len(found),
            workers=workers(bench),
            batch=len(constant["gt"]),
            gt_size=constant["gt"].shape[-1],
        )


def degraded_by_basicsr(bench: Bench, clean: Stream) -> Callable[[], dict[str, Any]]:
    """Batches whose ``lq`` BasicSR's own functions make on the device, of patches without the margin it gives them."""
    reference = ReferenceRealEsrgan(0, device=bench.device)

    def call() -> dict[str, Any]:
        """The next batch."""
        batch = next(clean)
        with torch.no_grad():
            return {**batch, "lq": reference.degrade(batch["gt"].to(bench.device))}

    return call


def picture(bench: Bench, name: str, call: Callable[[], object], seconds: float) -> None:
    """A profile of about one second of iterations: a trace for a browser, and what the device was busy with."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if bench.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    count = 1 if bench.quick else max(round(1 / seconds), 1)
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(count):
            call()
        synchronise(bench.device)
    profile.export_chrome_trace(str(bench.folder / f"{name}.trace.json.gz"))
    kernels = [event for event in profile.key_averages() if event.self_device_time_total > 0]
    kernels.sort(key=lambda event: -event.self_device_time_total)
    bench.say(
        what="picture",
        fed=name,
        iterations=count,
        launches=sum(event.count for event in kernels),
        busy_s=round(sum(event.self_device_time_total for event in kernels) / 1e6, 5),
        longest={event.key[:80]: round(event.self_device_time_total / 1e6, 5) for event in kernels[:8]},
    )


def _timed(feed: Callable[[], Any], waits: dict[str, float], name: str) -> Callable[[], Any]:
    def call() -> Any:
        begun = time.perf_counter()
        batch = feed()
        waits[name] += time.perf_counter() - begun
        return batch

    return call


def start(bench: Bench) -> None:
    """Seconds to the first batch, twice: the server of ``forkserver`` is there for the second.

    Readers alone first, before this process has used CUDA, for ``fork`` must not be tried after; then the whole stream
    on the device, by its default.
    """
    count = workers(bench)
    for method in ("fork", "forkserver", "spawn"):
        if method not in multiprocessing.get_all_start_methods():
            continue
        for time_number in (1, 2):
            labels = {"what": "start", "method": method, "workers": count, "time": time_number, "device": "cpu"}
            with bench.part(**labels):
                read = options(bench, scale=1, tile=None, start_method=method)
                bench.say(**labels, **_first_batch(read, "cpu"))
    for time_number in (1, 2):
        labels = {"what": "start", "method": "default", "workers": count, "time": time_number}
        with bench.part(**labels):
            bench.say(**labels, device=bench.device.type, **_first_batch(options(bench, degrade=DEFLOW), bench.device))


def _first_batch(given: dict[str, Any], device: Any) -> dict[str, float]:
    begun = time.perf_counter()
    with build_stream(given, device=device) as source:
        next(source)
        took = time.perf_counter() - begun
        begun = time.perf_counter()
    return {"s": round(took, 3), "close_s": round(time.perf_counter() - begun, 3)}
