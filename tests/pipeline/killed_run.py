"""A run that writes down each batch and its state, to be killed: ``killed_run.py FOLDER OPTIONS.json BATCHES``.

``FOLDER/log`` gets one line per batch (number and hash), ``FOLDER/state.pt`` the state after every third.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from synthpipe.pipeline import build_stream
from tests.stream_corpus import NoisyHalf

ROOT = Path(__file__).parent.parent.parent


def main(folder: Path, options: dict[str, object], batches: int) -> None:
    state_file, done = folder / "state.pt", 0
    degrade = None if "degrade" in options else NoisyHalf()
    with build_stream(options, degrade=degrade) as stream, (folder / "log").open("a") as log:
        if state_file.exists():
            saved = torch.load(state_file, weights_only=True)
            stream.load_state_dict(saved["stream"])
            done = saved["done"]
        for number in range(done, batches):
            batch = next(stream)
            digest = hashlib.sha256(batch["lq"].numpy().tobytes() + batch["gt"].numpy().tobytes())
            digest.update(repr((batch["gt_path"], stream.counts(), stream.ways())).encode())
            log.write(f"{number} {digest.hexdigest()}\n")
            log.flush()
            if number % 3 == 2:
                torch.save({"stream": stream.state_dict(), "done": number + 1}, folder / "state.tmp")
                os.replace(folder / "state.tmp", state_file)


def run_and_kill(folder: Path, options: Path, batches: int, kill_at: int) -> None:
    """Run this script and kill it with SIGKILL once its log has ``kill_at`` lines."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = [sys.executable, __file__, str(folder), str(options), str(batches)]
    log = folder / "log"
    with subprocess.Popen(script, env=environment, start_new_session=True) as process:
        while process.poll() is None:
            if log.exists() and log.read_text().count("\n") >= kill_at:
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.002)
        assert process.returncode == -signal.SIGKILL


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), int(sys.argv[3]))
