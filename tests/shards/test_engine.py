"""Jobs on one process, on several, and what happens when they fail or die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from synthpipe.errors import OptionError, ShardError
from synthpipe.shards import engine
from synthpipe.shards.engine import default_workers, run_jobs
from tests.shards.engine_jobs import Number, die_always, die_once, double, fail_first, refuse


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_FIRST_PAUSE", 0.0)


def numbers(count: int, folder: Path | str = "") -> list[Number]:
    return [Number(value, str(folder)) for value in range(count)]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once(workers: int) -> None:
    assert sorted(run_jobs(double, numbers(7), workers=workers)) == [0, 2, 4, 6, 8, 10, 12]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be forbidden on this system")
def test_default_workers_are_the_cores_that_may_be_used() -> None:
    allowed = os.sched_getaffinity(0)
    assert default_workers() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert default_workers() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(("devices", "workers"), [(0, 1), (1, 1), (3, 3)])
def test_default_workers_with_cuda(devices: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: devices)
    assert default_workers(cuda=True) == workers


def test_no_jobs() -> None:
    assert list(run_jobs(double, [], workers=2)) == []


def test_jobs_are_made_as_they_are_needed() -> None:
    made: list[int] = []

    def jobs() -> Iterator[Number]:
        for value in range(50):
            made.append(value)
            yield Number(value)

    results = run_jobs(double, jobs(), workers=2)
    next(results)
    assert len(made) <= 5
    assert len(list(results)) == 49


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_ends_the_run(workers: int) -> None:
    with pytest.raises(OptionError, match="three is refused"):
        list(run_jobs(refuse, numbers(6), workers=workers))


def test_a_disk_that_answers_at_last(tmp_path: Path) -> None:
    assert list(run_jobs(fail_first, [Number(2, str(tmp_path))])) == [2]


def test_a_disk_that_never_answers(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="cannot write"):
        list(run_jobs(fail_first, [Number(9, str(tmp_path))]))
    assert (tmp_path / "tries").read_bytes() == b"..."


def test_errors_that_stay_are_not_tried_again() -> None:
    tries: list[int] = []

    def missing(job: Number) -> int:
        tries.append(job.value)
        raise FileNotFoundError(2, "no such file", "x.tar")

    with pytest.raises(ShardError, match=r"number 0: FileNotFoundError.*x\.tar"):
        list(run_jobs(missing, numbers(1)))
    assert tries == [0]


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    assert sorted(run_jobs(die_once, numbers(6, tmp_path), workers=2)) == [0, 2, 4, 6, 8, 10]
    assert (tmp_path / "died").exists()


def test_workers_that_keep_dying() -> None:
    with pytest.raises(ShardError, match=r"died 3 times in a row .* while at number 0.* fewer than 2 workers"):
        list(run_jobs(die_always, numbers(3), workers=2))


def test_no_worker_outlives_the_run(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal\n"
        "from synthpipe.shards.engine import default_workers, run_jobs\n"
        "from tests.shards.engine_jobs import Number, double\n"
        "if __name__ == '__main__':\n"
        "    for result in run_jobs(double, [Number(value) for value in range(9)], workers=2):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment)
    # The workers hold the other end of the pipe: this returns only when none of them is left.
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL


def test_ray_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="pip install 'synthpipe[ray]'")

    def fail(**options: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with pytest.raises(ShardError, match=r"Ray did not start \(RuntimeError: no room\)"):
        list(run_jobs(double, numbers(1), engine="ray"))


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"pip install 'synthpipe\[ray\]'"):
        list(run_jobs(double, numbers(1), engine="ray"))


def test_each_worker_has_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert engine._device_names() == ["3", "5"]
