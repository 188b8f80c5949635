"""How readers start: the method chosen, the same batches by each, and what a user is told whose script has no guard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing.util import Finalize
from pathlib import Path

import pytest
import torch

from synthpipe.errors import StreamError
from synthpipe.pipeline.build import build_stream
from synthpipe.pipeline.reader_start import dead_reader, reader_start_method
from tests.pipeline.test_stream_filter import write_scores
from tests.stream_corpus import NoisyHalf, same_batches, small_options, take, write_corpus

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("given", "device", "used", "expected"),
    [
        (None, "cpu", False, None),
        (None, "cuda", False, "forkserver"),
        (None, "cuda:1", True, "forkserver"),
        (None, "cpu", True, "forkserver"),  # a stream on the CPU for a model on a GPU
        ("fork", "cuda", True, "fork"),
        ("spawn", "cpu", False, "spawn"),
    ],
)
def test_no_reader_is_a_copy_of_a_process_with_cuda(
    given: str | None, device: str, used: bool, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
    assert reader_start_method(given, torch.device(device)) == expected


def test_without_a_server_readers_are_spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    assert reader_start_method(None, torch.device("cuda")) == "spawn"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_all_that_readers_need_reaches_them(method: str, tmp_path: Path) -> None:
    """A table of scores, a spool folder, several crops: the settings travel as a pickle and mean the same there."""
    shards = write_corpus(tmp_path, [7, 6])
    keys = [f"{shard}_{number:03d}" for shard, count in enumerate((7, 6)) for number in range(count)]
    table = write_scores(tmp_path / "scores.parquet", {key: float(place) for place, key in enumerate(keys)})
    options = small_options(
        shards,
        workers=2,
        filter={"scores": table, "max_logit": 6.5},
        spool_dir=str(tmp_path),
        crops_per_image=2,
        epochs=2,
        drop_last=False,
    )
    with build_stream(options, degrade=NoisyHalf()) as stream:
        expected, counts = list(stream), stream.counts()
    assert counts["filtered"] == 12  # 6 of 13, twice
    with build_stream({**options, "start_method": method}, degrade=NoisyHalf()) as stream:
        first = take(stream, 3)
        state = stream.state_dict()
    with build_stream({**options, "start_method": method}, degrade=NoisyHalf()) as stream:
        stream.load_state_dict(state)
        assert same_batches(first + list(stream), expected)
        assert stream.counts() == counts


def run_script(tmp_path: Path, text: str, *arguments: str) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(text)
    command = [sys.executable, str(script), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # Its input stays open, so that a script that reads it waits; what a test inherits may be at its end already.
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_without_a_guard_is_told_so(method: str, tmp_path: Path) -> None:
    options = small_options(write_corpus(tmp_path, [5]), scale=1, workers=1, start_method=method)
    text = f"from synthpipe.pipeline import build_stream\nnext(build_stream({options!r}))\n"
    _, errors = run_script(tmp_path, text).communicate(timeout=120)
    last = errors.strip().splitlines()[-1]
    assert last.startswith("synthpipe.errors.StreamError: a reader process ended while it started")
    assert f"start_method '{method}'" in last
    assert 'if __name__ == "__main__":' in last


def test_forked_readers_import_no_script() -> None:
    assert isinstance(dead_reader(EOFError(), None), StreamError)
    assert "__main__" not in str(dead_reader(EOFError(), None))
    assert "__main__" not in str(dead_reader(EOFError(), "fork"))


KILLED = """
import json, multiprocessing, sys
from synthpipe.pipeline import build_stream
if __name__ == "__main__":
    stream = build_stream(json.loads(sys.argv[1]))
    next(stream)
    print(json.dumps([child.pid for child in multiprocessing.active_children()]), flush=True)
    sys.stdin.read()
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_readers_from_the_server_end_with_a_killed_trainer(tmp_path: Path) -> None:
    options = small_options(write_corpus(tmp_path, [5, 5]), scale=1, workers=2, start_method="forkserver")
    run = run_script(tmp_path, KILLED, json.dumps(options))
    assert run.stdout is not None
    readers = json.loads(run.stdout.readline())
    assert len(readers) == 2
    assert all(alive(pid) for pid in readers)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    end = time.monotonic() + 30  # they look every five seconds
    while any(alive(pid) for pid in readers):
        assert time.monotonic() < end, "a reader outlived its trainer"
        time.sleep(0.2)


def _killed_at_exit(worker: int) -> None:
    Finalize(None, os.kill, args=(os.getpid(), signal.SIGKILL), exitpriority=100)


def test_a_reader_that_dies_while_it_is_stopped_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("synthpipe.pipeline.nodes.prepare_reader", _killed_at_exit)
    options = small_options(write_corpus(tmp_path, [7, 6]), workers=2, start_method="fork")
    with build_stream(options, degrade=NoisyHalf()) as stream:
        batches = take(stream, 2)
    assert "a reader died while it was being stopped" in caplog.text
    monkeypatch.undo()
    with build_stream(options, degrade=NoisyHalf()) as stream:
        assert same_batches(take(stream, 2), batches)
