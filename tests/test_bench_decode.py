"""The benchmark of decoding runs, measures every kind, and decodes with the checkout that it is told to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_each_kind_is_measured_here_and_in_another_checkout(tmp_path: Path) -> None:
    command = [sys.executable, "tools/bench/decode.py", "--side", "64", "--rounds", "2", "--reference", str(ROOT)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    kinds = json.loads(found.stdout)["details"]["kinds"]
    assert list(kinds) == ["rgb", "rgba", "grey_alpha", "rgb16", "rgba16", "adobe_rgb"]
    assert kinds["rgb"]["times_plain"] == kinds["rgb"]["memory_times_plain"] == 1
    assert all(row["seconds"] > 0 and row["megabytes"] >= 0 and row["times_reference"] > 0 for row in kinds.values())


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "tools/bench/decode.py", "--side", "64", "--reference", str(tmp_path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert found.returncode
    assert "expected a checkout" in found.stderr
