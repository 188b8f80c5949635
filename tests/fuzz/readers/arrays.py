"""``.npy`` files: samples to train on, and kernels to deblur with."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from synthpipe.cli.restore import _read_kernel
from synthpipe.errors import OptionError
from synthpipe.training.data.generator_data import read_array
from tests.fuzz.reader import Reader

TOKENS = (
    b"'descr': '<f8'",
    b"'fortran_order': True",
    b"(1000000000000,)",
    b"(-1, 2)",
    b"'|O'",
    b"((((((((",
    b"\x93NUMPY",
)


def prepare(folder: Path) -> Reader:
    """Small arrays of several types and orders."""
    path = folder / "a.npy"
    arrays = [
        *(np.ones((4, 2), np.float32), np.zeros((2, 3, 4, 4), np.uint8), np.ones((1, 4, 4)), np.full((5, 5), 0.04)),
        *(np.asfortranarray(np.full((3, 3), 1 / 9)), np.zeros(3, np.int64), np.zeros((2, 2), np.complex64)),
    ]
    seeds = []
    for array in arrays:
        buffer = io.BytesIO()
        np.save(buffer, array)
        seeds.append(buffer.getvalue())

    def read(data: bytes) -> None:
        path.write_bytes(data)
        refused = None
        for reader in (read_array, _read_kernel):
            try:
                reader(str(path))
            except OptionError as error:
                refused = error
        if refused is not None:
            raise refused

    return Reader(seeds, read, TOKENS)
