"""Jobs of one shard each, on processes of this machine or on Ray.

A job is a picklable value with a ``name``; the function that does it writes one file, under its name only when it is
whole, and finds out by itself that an earlier run has done it.  Hence any job may be done again at any time: after an
interruption, after a worker died, or twice at once on a cluster.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal, Protocol, TypeVar, assert_never

from synthpipe.errors import OptionError, ShardError, SynthPipeError
from synthpipe.shards.parent_watch import end_with_parent

__all__ = ["Job", "default_workers", "run_jobs"]

_log = logging.getLogger(__name__)

_ATTEMPTS = 3
_FIRST_PAUSE = 0.5
#: Errors of the system that another attempt does not mend.
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


class Job(Protocol):
    """What a job must have; the rest is between the caller and the function."""

    @property
    def name(self) -> str:
        """What messages call it."""


J = TypeVar("J", bound=Job)
R = TypeVar("R")


def default_workers(*, cuda: bool = False) -> int:
    """How many jobs are at work at once where nobody says: one for each core that this process may use.

    Args:
        cuda: each worker has a CUDA device for itself: one for each device, and one where there is none.
    """
    if cuda:
        import torch

        return max(torch.cuda.device_count(), 1)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    function: Callable[[J], R],
    jobs: Iterable[J],
    *,
    engine: Literal["local", "ray"] = "local",
    workers: int = 1,
    cuda: bool = False,
) -> Iterator[R]:
    """Results in the order in which they are done; a few jobs wait, the rest are not yet made.

    An attempt that fails for a disk or network that does not answer is repeated, as is one whose worker died; any
    other error ends the run.

    Args:
        function: importable by its name in another process.
        jobs: made as they are needed.
        engine: ``"local"``: ``workers`` processes, or this one where there is one worker.  ``"ray"``: tasks on the
            cluster that ``RAY_ADDRESS`` names, or on one of ``workers`` processes that lives as long as the run.
        workers: jobs at work at once.
        cuda: each worker has a CUDA device for itself.

    Raises:
        OptionError: Ray is not installed.
        ShardError: workers keep dying, or Ray does not start.
        SynthPipeError: what ``function`` raises.
    """
    match engine:
        case "ray":
            return _run_ray(function, jobs, workers, cuda)
        case "local" if workers == 1:
            return (_attempt(function, job) for job in jobs)
        case "local":
            return _run_pool(function, jobs, workers, cuda)
        case _:
            assert_never(engine)


def _attempt(function: Callable[[J], R], job: J) -> R:
    """Do a job; where a disk or the network fails, pause and do it again."""
    pause = _FIRST_PAUSE
    for attempt in itertools.count(1):
        try:
            return function(job)
        except (OSError, SynthPipeError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            passing = isinstance(cause, OSError) and not isinstance(cause, _LASTING)
            if passing and attempt < _ATTEMPTS:
                _log.warning("%s: attempt %d of %d failed: %s", job.name, attempt, _ATTEMPTS, error)
                time.sleep(pause)
                pause *= 2
            elif isinstance(error, OSError):
                raise ShardError(f"{job.name}: {type(error).__name__}: {error}") from error
            else:
                raise
    raise AssertionError("unreachable")


def _run_pool(function: Callable[[J], R], jobs: Iterable[J], workers: int, cuda: bool) -> Iterator[R]:
    waiting = iter(jobs)
    deaths = 0
    while True:
        pending: dict[Future[R], J] = {}
        taken: deque[J] = deque()
        # A forked worker would inherit the locks of whatever threads the caller runs.
        context = multiprocessing.get_context("spawn")
        devices = _device_names() if cuda else []
        slots = context.SimpleQueue()
        for worker in range(workers):
            slots.put(devices[worker % len(devices)] if devices else None)
        with ProcessPoolExecutor(workers, context, _prepare_worker, (slots,)) as pool:
            try:
                while True:
                    while len(pending) < 2 * workers and (taken or _take(waiting, taken)):
                        future = pool.submit(_attempt, function, taken[0])
                        pending[future] = taken.popleft()
                    if not pending:
                        return
                    for future in wait(pending, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        del pending[future]
                        deaths = 0
                        yield result
            except BrokenProcessPool as error:
                deaths += 1
                names = ", ".join(job.name for job in pending.values())
                if deaths == _ATTEMPTS:
                    raise ShardError(
                        f"worker processes died {deaths} times in a row (killed by the system for want of memory?), "
                        f"the last time while at {names}; run again to go on, with fewer than {workers} workers"
                    ) from error
                _log.warning("a worker process died while at %s; these are begun again", names)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        waiting = itertools.chain([*pending.values(), *taken], waiting)


def _take(waiting: Iterator[J], taken: deque[J]) -> bool:
    """Move one job over; False where there is none."""
    for job in waiting:
        taken.append(job)
        return True
    return False


def _device_names() -> list[str]:
    """The CUDA devices of this process, as ``CUDA_VISIBLE_DEVICES`` would name them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


def _prepare_worker(slots: Any) -> None:
    """Take a device; end with the parent, however that dies, and end quietly on Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    device = slots.get()
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    end_with_parent()


def _run_ray(function: Callable[[J], R], jobs: Iterable[J], workers: int, cuda: bool) -> Iterator[R]:
    try:
        import ray
    except ImportError as error:
        raise OptionError(
            f"the engine 'ray' is not installed ({error}); pip install 'synthpipe[ray]', or use the engine 'local'"
        ) from error
    ours = not ray.is_initialized()
    if ours:
        _start_ray(ray, workers)
    try:
        # A task whose worker dies is tried again by Ray.
        options = {"num_cpus": 1, "num_gpus": 1 if cuda else 0, "max_retries": _ATTEMPTS - 1}
        task: Any = ray.remote(_attempt).options(**options)
        waiting = iter(jobs)
        pending = [task.remote(function, job) for job in itertools.islice(waiting, 2 * workers)]
        while pending:
            done, pending = ray.wait(pending)
            pending += [task.remote(function, job) for job in itertools.islice(waiting, 1)]
            yield _ray_result(ray, done[0])
    finally:
        if ours:
            ray.shutdown()


def _start_ray(ray: Any, workers: int) -> None:
    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    if not os.environ.get("RAY_ADDRESS"):
        # A cluster of our own, which nobody asked to report its use.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(**options)
    # Ray raises plain exceptions here.
    except Exception as error:
        raise ShardError(
            f"Ray did not start ({type(error).__name__}: {error}); check RAY_ADDRESS, or use the engine 'local'"
        ) from error


def _ray_result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SynthPipeError):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:
        raise ShardError(f"Ray could not do a job ({type(error).__name__}: {error}); run again to go on") from error
