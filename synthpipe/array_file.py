"""NumPy's ``.npy`` files that anyone may have written: the header is compared with the file before memory is taken."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_HEADER_CHARACTERS", "read_npy"]

#: Of the text that says type and shape.
MAX_HEADER_CHARACTERS = 1000


def read_npy(path: str | Path) -> NDArray[Any]:
    """The array in a ``.npy`` file.

    Raises:
        ValueError: no such file, another format (also ``.npz``), Python objects, a header that is not the file's.
        OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(version)
            if read_header is None:
                raise ValueError(f"expected version 1.0 or 2.0 of the format, got {version[0]}.{version[1]}")
            shape, _, dtype = read_header(file, max_header_size=MAX_HEADER_CHARACTERS)
            begin = file.tell()
            size = file.seek(0, 2)
        expected = begin + math.prod(shape) * dtype.itemsize
        if dtype.hasobject or min(shape, default=0) < 0 or expected != size:
            raise ValueError(f"its header says {dtype} {shape}, which is {expected} bytes; the file has {size}")
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        raise
    except Exception as error:  # NumPy reads the header as Python source, which fails in many ways
        raise ValueError(f"damaged ({type(error).__name__}: {str(error)[:200]})") from error
    return array
