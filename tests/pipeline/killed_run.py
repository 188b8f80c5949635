"""A run that writes down each batch and its state, to be killed: ``killed_run.py FOLDER OPTIONS.json BATCHES``.

``FOLDER/log`` gets one line per batch (number and hash), ``FOLDER/state.pt`` the state after every third.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import torch

from synthpipe.pipeline import build_stream
from tests.stream_corpus import NoisyHalf


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


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), int(sys.argv[3]))
