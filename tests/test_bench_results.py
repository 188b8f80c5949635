"""Kept results of benchmarks: their names, and that each says where it comes from."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

BENCH = Path(__file__).parent.parent / "tools" / "bench"
KEPT = sorted((BENCH / "results").glob("*.json"))


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.delitem(sys.modules, "report", raising=False)
    return importlib.import_module("report")


def test_there_are_kept_results() -> None:
    assert KEPT


@pytest.mark.parametrize("path", KEPT, ids=[path.stem for path in KEPT])
def test_a_kept_result_says_where_it_comes_from(path: Path) -> None:
    name, date, machine = re.fullmatch(r"([a-z0-9_]+)-(\d{4}-\d{2}-\d{2})-([a-z0-9-]+)", path.stem).groups()  # type: ignore[union-attr]
    result = json.loads(path.read_text())
    assert (result["name"], result["date"]) == (name, date)
    assert {"python", "torch", "numpy", "synthpipe"} <= set(result["versions"])
    assert {"device", "cores", "threads"} <= set(result["machine"])
    assert result["commit"]
    known = f"{result['machine']['device']} {result['machine'].get('cpu', '')}".lower().split()
    assert machine.split("-")[0] in known


def test_a_saved_result_is_the_printed_one(
    report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    cpu = torch.device("cpu")
    report.print_result("sort", [1.0, 2.0, 6.0], [2.0, 2.0, 3.0], "seconds", cpu, save=True, items=9)
    printed = json.loads(capsys.readouterr().out)
    (path,) = (tmp_path / "results").iterdir()
    assert json.loads(path.read_text()) == printed
    assert path.name.startswith(f"sort-{printed['date']}-")
    assert (printed["ours"], printed["peer"], printed["ratio"]) == (2.0, 2.0, 1.0)  # of ratios 0.5, 1, 2
    report.print_result("sort", [1.0], [2.0], "seconds", cpu)
    assert len(list((tmp_path / "results").iterdir())) == 1
    machine = {"device": "NVIDIA H100 80GB HBM3", "cpu": "Some CPU", "cores": 16}
    assert report.result_path("gpu", {"date": "2026-11-26", "machine": machine}).name == (
        "gpu-2026-11-26-nvidia-h100-80gb-hbm3.json"
    )


def test_a_kept_result_makes_no_other_checkout(report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run may keep several: all but the first would say that the code had been changed."""
    bench = tmp_path / "tools" / "bench"
    (bench / "results").mkdir(parents=True)
    for place in (bench / "report.py", bench / "results" / "a.json"):
        place.write_text("1")

    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(report, "__file__", str(bench / "report.py"))
    head = git("rev-parse", "--short", "HEAD")
    (bench / "results" / "a.json").write_text("2")
    assert report._commit() == head
    (bench / "report.py").write_text("2")
    assert report._commit() == f"{head}+"
