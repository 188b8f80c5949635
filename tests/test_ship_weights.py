"""``tools/ship_weights.py``: half the bytes, the card's words in the header, and an error that is measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image

from synthpipe import checkpoints
from tests.stream_corpus import noise_image


def test_weights_are_halved_described_and_measured(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(2):
        Image.fromarray(noise_image(number)).resize((240, 200)).save(photos / f"{number}.png")
    (tmp_path / "card.yml").write_text("terms: none\nnoisy: a camera\n")
    target = tmp_path / "small.safetensors"
    command = [sys.executable, "tools/ship_weights.py", "deflow_small", target, "--photos", photos]
    done = subprocess.run(
        [*map(str, command), "--info", str(tmp_path / "card.yml")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr
    whole, stored = checkpoints.load("deflow_small"), checkpoints.load(target)
    info = checkpoints.read_header(target)["info"]
    assert (info["terms"], info["noisy"]) == ("none", "a camera")
    assert info["steps"] == checkpoints.read_header("deflow_small")["info"]["steps"]  # what the training left, stays
    x = torch.rand(1, 3, 64, 64)
    made = [flow.degrade(x, [torch.Generator().manual_seed(1)]) for flow in (whole, stored)]
    assert info["stored"]["precision"] == "half"
    assert 0 < info["stored"]["rms_255"] < info["stored"]["most_255"] < 1
    assert float((made[1] - made[0]).abs().max()) * 255 < 1
    assert checkpoints.fingerprint(target) in done.stdout
