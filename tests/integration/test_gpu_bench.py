"""``tools/bench/gpu.py``: what becomes of steps that end well, fail, and take too long; two real ones on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parent.parent.parent / "tools" / "bench"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    sys.path.insert(0, str(BENCH))
    try:
        import gpu

        return gpu
    finally:
        sys.path.remove(str(BENCH))
        for name in ("report", "gpu"):
            sys.modules.pop(name, None)


def script(text: str) -> list[str]:
    """A step that gets ``--rows FILE --folder FOLDER``; ``say`` writes a row."""
    head = "import json, subprocess, sys, time\nrows = open(sys.argv[2], 'w')\n"
    say = "def say(**row): rows.write(json.dumps(row) + '\\n'); rows.flush()\n"
    return [sys.executable, "-c", head + say + text]


def test_a_step_that_ends_well(bench: ModuleType, tmp_path: Path) -> None:
    step, rows = bench.run_step("x", script("say(s=1.5); say(s=2)"), 60, tmp_path)
    assert (step["name"], step["state"], step["limit_s"]) == ("x", "done", 60)
    assert "output" not in step
    assert rows == [{"step": "x", "s": 1.5}, {"step": "x", "s": 2}]


def test_a_step_that_fails_keeps_its_rows_and_says_why(bench: ModuleType, tmp_path: Path) -> None:
    step, rows = bench.run_step("x", script("say(s=1)\nraise MemoryError('none left')"), 60, tmp_path)
    assert step["state"] == "failed"
    assert step["output"].endswith("MemoryError: none left\n")
    assert rows == [{"step": "x", "s": 1}]


def runs(pid: int) -> bool:
    """Whether a process is there that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_step_that_takes_too_long_is_stopped_with_its_children(bench: ModuleType, tmp_path: Path) -> None:
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    text = f"say(pid={child}.pid)\nrows.write('{{\"half'); rows.flush()\nprint('waiting', flush=True)\ntime.sleep(600)"
    begun = time.monotonic()
    step, rows = bench.run_step("x", script(text), 8, tmp_path)
    assert 8 <= time.monotonic() - begun < 60
    assert (step["state"], step["output"]) == ("stopped", "waiting\n")
    (row,) = rows  # the torn one is left out
    # On a busy machine the system takes a moment to end what was killed.
    deadline = time.monotonic() + 30
    while runs(row["pid"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_step_without_time_is_not_begun(bench: ModuleType, tmp_path: Path) -> None:
    step, rows = bench.run_step("x", script("say(s=1)"), 5, tmp_path)
    assert (step["state"], rows) == ("not begun", [])


@pytest.mark.slow
def test_real_steps_on_the_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(BENCH / "gpu.py"), "--device", "cpu", "--quick", "--out", str(out)]
    subprocess.run([*command, "--only", "degrade", "graph_aim"], check=True, timeout=300)
    found = json.loads(out.read_text())
    assert [(step["name"], step["state"]) for step in found["steps"]] == [("degrade", "done"), ("graph_aim", "done")]
    assert set(found["versions"]) == {"python", "torch", "numpy", "synthpipe"}
    assert found["machine"]["device"]
    assert found["date"]
    assert found["quick"] is True
    degraded = [row for row in found["rows"] if row["step"] == "degrade"]
    assert [(row["who"], row["tiles"], row["mode"]) for row in degraded] == [
        (who, 1, mode) for who in ("plain", "frozen") for mode in ("fp32", "tf32", "bf16")
    ]
    for row in degraded:
        assert row["spread"][0] <= row["s"] <= row["spread"][1]
        assert row["tiles_per_s"] == pytest.approx(1 / row["s"], rel=0.1, abs=0.06)


def test_every_step_is_there(bench: ModuleType) -> None:
    sys.path.insert(0, str(BENCH))
    try:
        from importlib import import_module

        steps = import_module("gpu_step").STEPS
        assert set(steps) == set(bench.STEPS)
        for module, name in steps.values():
            assert f"def {name}(bench: Bench) -> None:" in (BENCH / f"{module}.py").read_text()
    finally:
        sys.path.remove(str(BENCH))
        for name in ("gpu_step", "gpu_measure", "report", "stream"):
            sys.modules.pop(name, None)
