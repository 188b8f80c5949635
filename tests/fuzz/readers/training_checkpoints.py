"""Checkpoints of a training run, up to the point where it goes on."""

from __future__ import annotations

import io
import shutil
import warnings
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image

from synthpipe.config.deflow import TrainDeFlowOptions
from synthpipe.config.reader import parse_options
from synthpipe.training import train
from tests.fuzz.mutation import ODD, mutated_tree
from tests.fuzz.reader import Reader
from tests.fuzz.readers.official_weights import TENSORS, torch_bytes

MODEL = {"levels": 2, "steps": 1, "transition_steps": 1, "hidden": 4, "encoder": {"type": "small", "features": 4}}


def prepare(folder: Path) -> Reader:
    """A run of two steps is resumed at its end."""
    warnings.simplefilter("ignore")
    for number, domain in enumerate(("clean", "noisy")):
        (folder / domain).mkdir()
        pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / domain / "0.png")
    data = {domain: {"folder": str(folder / domain)} for domain in ("clean", "noisy")}
    given = {
        "run_dir": str(folder / "run"),
        "device": "cpu",
        "max_steps": 2,
        "sample_every": 100,
        "model": MODEL,
        "data": {**data, "crop": 16, "batch_size": 2, "workers": 0},
    }
    train(parse_options(given, TrainDeFlowOptions))
    checkpoints = folder / "run" / "checkpoints"
    seeds = [(checkpoints / "step_00000002.pt").read_bytes()]

    def read(data: bytes) -> None:
        shutil.rmtree(checkpoints)
        checkpoints.mkdir()
        (checkpoints / "step_00000002.pt").write_bytes(data)
        shutil.rmtree(folder / "run" / "tb", ignore_errors=True)
        train(parse_options({**given, "resume": "auto"}, TrainDeFlowOptions))

    return Reader(seeds, read, (b"PK\x03\x04", b"data.pkl", b"\x80\x02", b"ctorch\nFloatStorage\n"), _mutate)


def _mutate(data: bytes, rng: Random) -> bytes:
    state = torch.load(io.BytesIO(data), weights_only=True)
    return torch_bytes(mutated_tree(state, rng, (*ODD, *TENSORS)))
