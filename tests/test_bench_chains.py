"""The benchmark of chains runs, and says of everything what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.basicsr_runs import require_basicsr

require_basicsr()

ROOT = Path(__file__).parent.parent


def test_everything_is_measured() -> None:
    command = [sys.executable, "tools/bench/chains.py", "--side", "96", "--batch", "2", "--rounds", "1", "--tile", "48"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    result = json.loads(found.stdout)
    assert (result["name"], result["unit"]) == ("chains", "patches/s")
    assert result["ours"] > 0 < result["peer"]
    details = result["details"]
    assert set(details["stages"]) == {"halo", "blur", "resize", "noise, gaussian", "noise, poisson", "jpeg"}
    stream = details["stream"]
    assert all(stream[name] > 0 for name in ("stream", "chain", "decoding", "stream_over_chain"))
    for row in (details["without_sharpening"], *details["stages"].values()):
        assert row["ours"] > 0 < row["peer"]
        assert row["ratio"] > 0
    alone = details["alone"]
    assert {"blur", "resize", "noise", "halo", "jpeg", "deflow", "quantise"} <= set(alone)
    assert all(value > 0 if isinstance(value, float) else "pip install" in value for value in alone.values())
