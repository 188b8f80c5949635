"""The stage of a stream against an earlier version: Python calls for each batch, and patches a second.

    git worktree add ../before b88faae && python tools/bench/stage.py --reference ../before
    python tools/bench/stage.py --reference ../before --only bicubic deflow_small --rounds 3

Both checkouts run the same streams over the same shards, each in a process of its own, in turn.  For each stream, a
pair of ours and the reference's:

* ``calls``: Python functions called in the thread that takes batches, for each emitted batch, all of them;
* ``calls_outside``: without those inside the captured function: on a CUDA device that is one launch, here an empty
  function stands in its place.  Null for a version that captures nothing, whose calls are made on every device;
* ``patches_per_second``: of the processor, one thread, reading included (no readers in processes of their own).

``ours`` and ``peer`` are ``calls_outside`` here and all calls there, of ``deflow_small`` (of the first stream, if that
is left out): a trainer and the stage share one interpreter, so that a tenth of the calls is a tenth of the disturbance.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from checkout import ROOT, SERVE, checkout_processes, package_place
from report import bench_parser, print_result
from stream import EVERYTHING, write_shards

from synthpipe.pipeline import build_stream

DEFLOW = {"type": "deflow", "weights": "deflow_small"}
#: What differs between the streams.
STREAMS: dict[str, dict[str, Any]] = {
    "clean": {},
    "bicubic": {"degrade": {"type": "classical"}},
    "deflow_small": {"degrade": DEFLOW},
    "filter, deflow_small": {"degrade": DEFLOW, "filter": {"weights": "scorer_small", "max_logit": EVERYTHING}},
    "blind_spot_small, deflow_small": {"degrade": DEFLOW, "denoise": {"weights": "blind_spot_small", "sigma": "auto"}},
    "flow_prior_small, deflow_small": {"degrade": DEFLOW, "denoise": {"weights": "flow_prior_small"}},
}


def count_calls(options: dict[str, Any], batches: int) -> float:
    """Python functions called in this thread for each batch, from the second block of the pool on."""
    counted = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal counted
        counted += event == "call"

    with build_stream(options) as stream:
        for _ in range(9):
            next(stream)
        sys.setprofile(count)
        try:
            for _ in range(batches):
                next(stream)
        finally:
            sys.setprofile(None)
    return counted / batches


@contextmanager
def graphs_that_do_nothing() -> Iterator[bool]:
    """Stages are captured, and replays leave the numbers of the first call; false where there is no such thing."""
    try:
        from synthpipe.pipeline import build, device_stage
        from synthpipe.transforms.captured import CapturedFunction, Recording
    except ImportError:
        yield False
        return

    def record(function: Callable[..., Any], inputs: Any) -> Recording:
        """The first call's numbers, for ever."""
        return Recording(_nothing, function(*inputs))

    def stage(device: torch.device, steps: Any, cut: Any, rows: int, **_: Any) -> Any:
        """A captured one, where all of it can be."""
        capture = (lambda function, rows: CapturedFunction(function, rows, record=record)) if steps.capturable else None
        return device_stage.DeviceStage(device, steps, cut, rows, capture)

    with mock.patch.object(build, "DeviceStage", stage):
        yield True


def _nothing() -> None:
    pass


def measure(what: str, options: dict[str, Any], batches: int) -> float | None:
    """One figure; None where a version has no such thing."""
    if what == "calls":
        return count_calls(options, batches)
    if what == "calls_outside":
        with graphs_that_do_nothing() as there:
            return count_calls(options, batches) if there else None
    with build_stream({**options, "workers": 0}) as stream:
        next(stream)
        begun, patches = time.process_time(), 0
        for _ in range(batches):
            patches += len(next(stream)["gt"])
        return patches / (time.process_time() - begun)


def serve() -> None:
    """Answer the lines ``where`` and JSON of :func:`measure`'s arguments."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        answer = package_place() if line.strip() == "where" else measure(**json.loads(line))
        print(json.dumps(answer), flush=True)


def compare(children: list[Any], name: str, base: dict[str, Any], rounds: int) -> dict[str, Any]:
    """The figures of one stream, and pairs of what :func:`print_result` shows."""
    options = {**base, **STREAMS[name]}
    ours, theirs = children
    row: dict[str, Any] = {}
    for what in ("calls", "calls_outside"):
        row[what] = [child.ask(json.dumps({"what": what, "options": options, "batches": 16})) for child in children]
    rates: tuple[list[float], list[float]] = ([], [])
    for index in range(rounds):
        # Each goes first in every other round: what runs second finds the machine otherwise.
        for child, into in list(zip((ours, theirs), rates, strict=True))[:: 1 if index % 2 else -1]:
            into.append(child.ask(json.dumps({"what": "rate", "options": options, "batches": 8})))
    row["patches_per_second"] = [statistics.median(rate) for rate in rates]
    row["rate_ratio"] = statistics.median(a / b for a, b in zip(*rates, strict=True))
    return row


def main() -> None:
    """Measure, print."""
    if SERVE in sys.argv:
        serve()
        return
    parser = bench_parser(__doc__)
    parser.add_argument("--reference", type=Path, required=True, help="another checkout of synthpipe")
    streams = list(STREAMS)
    only = f"these of {streams} (default: all)"
    parser.add_argument("--only", nargs="+", choices=streams, metavar="STREAM", default=streams, help=only)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="readers while calls are counted")
    parser.add_argument("--gt-size", type=int, default=128)
    parser.add_argument("--tile", type=int, default=160, help="side of the LR tiles")
    args = parser.parse_args()
    table = {}
    with tempfile.TemporaryDirectory() as folder:
        shards = write_shards(Path(folder), 4, 32, 4 * args.tile + 72, "jpg", different=8)
        base = {"shards": shards, "gt_size": args.gt_size, "workers": args.workers, "tile": args.tile}
        with checkout_processes([ROOT, args.reference.resolve()], __file__) as children:
            for name in args.only:
                table[name] = compare(children, name, base, args.rounds)
                print(f"{name}: {table[name]}", file=sys.stderr, flush=True)
    shown = table.get("deflow_small") or next(iter(table.values()))
    print_result(
        "stage",
        [shown["calls_outside"][0]],
        [shown["calls"][1]],
        "Python calls/batch",
        torch.device("cpu"),
        save=args.save,
        compared=f"the checkout {args.reference}",
        streams=table,
        **{key: value for key, value in vars(args).items() if key not in ("save", "reference", "only")},
    )


if __name__ == "__main__":
    main()
