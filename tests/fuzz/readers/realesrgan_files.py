"""``synthpipe import-realesrgan``: option files of BasicSR."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import yaml

from synthpipe.basicsr_plugin.command_line import CommandLine
from synthpipe.basicsr_plugin.option_file import read_option_file
from synthpipe.config.import_realesrgan import option_file_text, translate
from tests.basicsr_draws import DATASET_OPTIONS, MODEL_OPTIONS
from tests.fuzz.reader import Reader
from tests.fuzz.readers.options import TOKENS

_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 3, 1e9, 0.5, "", "x", "1e-4", [], {}, [1], [2, 1], [0.5, 2], [1, 2, 3], [0, 0, 0], ["iso"]),
    *({"type": "lmdb"}, [[1]], {"a": [1, {"b": 2}]}, float("nan"), float("inf")),
)


def prepare(folder: Path) -> Reader:
    """The published settings, for both models."""
    path = folder / "options.yml"
    train = {
        "name": "t",
        "type": "RealESRGANDataset",
        "dataroot_gt": "hr",
        "meta_info": "m.txt",
        **DATASET_OPTIONS,
        "io_backend": {"type": "disk"},
        "batch_size_per_gpu": 4,
        "num_worker_per_gpu": 2,
        "use_shuffle": True,
        "prefetch_mode": None,
        "pin_memory": True,
        "dataset_enlarge_ratio": 1,
    }
    model = {"model_type": "RealESRGANModel", "queue_size": 180, **MODEL_OPTIONS, "datasets": {"train": train}}
    seeds = [model, {**model, "model_type": "RealESRNetModel", "gt_usm": True}]

    def read(data: bytes) -> None:
        path.write_bytes(data)
        text = option_file_text(translate(read_option_file(CommandLine(str(path))), str(path)), path.name)
        assert yaml.safe_load(text)["datasets"]["train"]["type"] == "SynthPipeDataset"

    return Reader([yaml.safe_dump(seed).encode() for seed in seeds], read, TOKENS, _mutated)


def _mutated(data: bytes, rng: Random) -> bytes:
    """Some values replaced or left out."""
    options = yaml.safe_load(data)
    for _ in range(rng.randint(1, 3)):
        block = options["datasets"]["train"] if rng.random() < 0.5 else options
        if not isinstance(block, dict):
            break
        key = rng.choice([key for key in block if key != "datasets"] + ["extra"])
        if rng.random() < 0.2:
            block.pop(key, None)
        else:
            block[key] = rng.choice(_VALUES)
    return yaml.safe_dump(options).encode()
