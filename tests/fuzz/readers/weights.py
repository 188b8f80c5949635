"""Weights: safetensors whose header says what to build, one small file of each kind of model."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from random import Random
from typing import Any

import torch

from synthpipe import checkpoints
from synthpipe.registry import build_model
from tests.fuzz.mutation import mutated_tree
from tests.fuzz.reader import Reader
from tests.tiny_scorer import tiny_scorer

SMALL: tuple[tuple[str, dict[str, Any]], ...] = (
    ("deflow", {"levels": 2, "steps": 1, "hidden": 4, "encoder": {"type": "small", "features": 4, "depth": 0}}),
    (
        "deflow",
        {
            "levels": 2,
            "steps": 1,
            "hidden": 4,
            "covariance": "colour",
            "coupling": "additive",
            "encoder": {"type": "rrdb", "features": 4, "growth": 2, "blocks": 2, "taps": [0, 1]},
        },
    ),
    ("glow", {"levels": 2, "steps": 1, "hidden": 4, "window": 8, "priors": "tails"}),
    ("kernels", {"number": 2, "side": 3}),
    ("map_denoiser", {"width": 4, "depth": 2}),
    ("map_denoiser", {"width": 4, "depth": 2, "level_map": False, "sigma_range": [0.1, 0.1]}),
    ("plain_denoiser", {"width": 4, "depth": 2}),
    ("flow_prior", {"width": 4, "depth": 2}),
    ("blind_spot", {"net": {"type": "dilated", "depth": 2, "width": 4, "hole_width": 2, "head": [4]}}),
    ("blind_spot", {"net": {"type": "rotated", "width": 4, "levels": 1, "head_widths": [4]}}),
    ("blind_spot", {"net": {"type": "sweeps", "deep": [4, 4], "up": [4], "full": 4, "thin": 4, "head_widths": [4]}}),
    ("dde", {"width": 4, "depth": 2, "outputs": 2}),
    ("dde_vector", {"width": 4, "depth": 1}),
    ("dde_generator", {"shape": [3, 16, 16], "latent": 4, "width": 4, "depth": 1}),
    ("dde_generator", {"shape": [2], "network": "residual", "latent": 4, "width": 4, "depth": 1}),
    ("dde_generator", {"shape": [1, 4, 4], "network": "dense", "latent": 4, "width": 4, "depth": 1}),
)


def prepare(folder: Path) -> Reader:
    """Changes of bytes, of the format's header, and of ours within it."""
    path = folder / "w.safetensors"
    torch.manual_seed(0)
    models = [build_model(kind, config) for kind, config in SMALL] + [tiny_scorer()]
    seeds = [checkpoints.save(path, model).read_bytes() for model in models]

    def read(data: bytes) -> None:
        path.write_bytes(data)
        checkpoints.read_header(path)
        checkpoints.fingerprint(path)

    return Reader(seeds, read, (b"__metadata__", b"F64", b"BOOL", b"data_offsets", b"[0,0]", b"65536"), _mutate)


def _mutate(data: bytes, rng: Random) -> bytes:
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    if rng.random() < 0.2:
        header = mutated_tree(header, rng)
    else:
        ours = json.loads(header["__metadata__"]["synthpipe"])
        part = rng.random()
        if part < 0.85:
            ours["config"] = mutated_tree(ours["config"], rng)
        else:
            ours = mutated_tree(ours, rng)
        header["__metadata__"]["synthpipe"] = _json(ours)
    text = _json(header).encode("utf-8", "replace")
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _json(value: Any) -> str:
    try:
        return json.dumps(value, skipkeys=True, default=repr)
    except (ValueError, RecursionError):  # numbers of hundreds of digits
        return "{}"
