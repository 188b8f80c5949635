"""BasicSR's log says at each checkpoint what the stream used, skipped and gave up."""

from __future__ import annotations

import logging
import tarfile
from pathlib import Path

import pytest

from tests.basicsr_runs import options, require_basicsr, run_entry
from tests.lossy_images import lossy_images

require_basicsr()


def test_the_log_of_a_run_counts_what_its_images_gave_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opt = options(tmp_path, iterations=4, save_every=4)
    images = lossy_images(96, 96)
    grey, camera = images["grey.jpg"].data, images["camera.jpg"].data
    for path in (tmp_path / "shards").glob("*.tar"):
        with tarfile.open(path, "w") as tar:
            for number, data in enumerate((grey, camera)):
                member = tmp_path / f"{number}.jpg"
                member.write_bytes(data)
                tar.add(member, f"{path.stem}_{number}.jpg")
    assert run_entry(monkeypatch, tmp_path, opt) == 0
    (log,) = (tmp_path / "experiments" / "run").glob("train_run_*.log")
    lines = [line for line in log.read_text().splitlines() if "images used, skipped: none, given up: " in line]
    assert lines
    assert all(f"{reason} " in line for line in lines for reason in ("grey_to_rgb", "converted_profile"))
    # Which ones, from the readers' own log.
    assert "given up (grey_to_rgb): " in log.read_text()
    assert "clean-000.tar/clean-000_0.jpg: one grey channel" in log.read_text()
    assert logging.getLogger("synthpipe").handlers == []
