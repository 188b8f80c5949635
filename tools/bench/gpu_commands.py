"""Whole commands on the device: the ``gpu`` tests, and folders of images through ``synthpipe``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from gpu_measure import Bench
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def tests(bench: Bench) -> None:
    """One row for each test marked ``gpu``; without a CUDA device they are skipped, and the rows say so."""
    report = bench.folder / "tests.xml"
    files = sorted(str(path) for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in path.read_text())
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
        *files,
    ]
    ended = subprocess.run(command, cwd=ROOT, env=_environment(), check=False)
    for case in ElementTree.parse(report).iter("testcase"):
        found = [child for child in case if child.tag in ("failure", "error", "skipped")]
        message = {"message": (found[0].get("message") or "")[:500]} if found else {}
        bench.say(
            what="test",
            name=f"{case.get('classname')}::{case.get('name')}",
            outcome=found[0].tag if found else "passed",
            s=float(case.get("time", 0)),
            **message,
        )
    bench.failures += ended.returncode != 0


def folder(bench: Bench) -> None:
    """Seconds of a command over a folder, its start included, and of one image, which is nearly all start."""
    images = sorted(bench.photographs().iterdir())
    with Image.open(images[0]) as image:
        megapixels = image.width * image.height / 1e6
    one = bench.folder / "one"
    one.mkdir(exist_ok=True)
    (one / images[0].name).write_bytes(images[0].read_bytes())
    for name, weights in (("degrade", "deflow_small"), ("denoise", "blind_spot_small")):
        with bench.part(what="folder", command=name):
            seconds = {}
            for source in (one, bench.photographs()):
                target = bench.folder / f"{name}_{source.name}"
                command = [sys.executable, "-m", "synthpipe", name, weights, str(source), str(target)]
                begun = time.perf_counter()
                subprocess.run([*command, "--device", str(bench.device)], cwd=ROOT, env=_environment(), check=True)
                seconds[source.name] = time.perf_counter() - begun
            more = len(images) - 1
            bench.say(
                what="folder",
                command=name,
                images=len(images),
                megapixels_each=round(megapixels, 3),
                s=round(seconds["photographs"], 2),
                one_image_s=round(seconds["one"], 2),
                megapixels_per_s=round(more * megapixels / max(seconds["photographs"] - seconds["one"], 1e-3), 2),
            )


def _environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
