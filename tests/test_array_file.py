""".npy files are read where header and file agree."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthpipe.array_file import read_npy
from synthpipe.cli.restore import _read_kernel
from synthpipe.errors import OptionError
from synthpipe.training.data.generator_data import read_array


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<I", len(text)) + text + data


def saved(array: Any, save: Any = np.save) -> bytes:
    buffer = io.BytesIO()
    save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", ">f4", "int16", "bool"])
@pytest.mark.parametrize("shape", [(), (0, 3), (4,), (2, 3, 4)])
def test_arrays_come_back(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    for order in (array, array.copy(order="F")):
        np.save(tmp_path / "a.npy", order)
        found = read_npy(tmp_path / "a.npy")
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00",
        b"PK\x03\x04 torn archive",
        saved(np.zeros(3), np.savez),
        saved(np.array([print], dtype=object), lambda file, array: np.save(file, array, allow_pickle=True)),
        saved(np.zeros(300))[:1000],
        saved(np.zeros(300)) + b"more",
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n", bytes(8)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -8), }\n", bytes(64)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1" + "0" * 5000 + ",), }\n", bytes(8)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2.5,), }\n", bytes(8)),
        npy("{'descr': '<f99', 'fortran_order': False, 'shape': (1,), }\n", bytes(8)),
        npy("(" * 900 + "\n"),
        npy("{'descr': " * 90 + "\n"),
        npy("__import__('os')\n"),
        npy(" " * 200_000 + "\n", version=b"\x02\x00"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }\n", bytes(8), version=b"\x09\x00"),
    ],
)
def test_what_is_no_array_is_refused_where_it_is_read(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"\S"):
        read_npy(path)
    with pytest.raises(OptionError, match=r"a\.npy.*expected a NumPy file"):
        read_array(str(path))
    with pytest.raises(OptionError, match=r"--kernel .*a\.npy"):
        _read_kernel(str(path))


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f4", ">f2", "uint8"])
def test_samples_in_another_order_of_bytes_are_read(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "a.npy", np.array([[1, 2], [3, 4]], dtype))
    scale = 255 if dtype == "uint8" else 1
    assert np.allclose(read_array(str(tmp_path / "a.npy")).numpy() * scale, [[1, 2], [3, 4]])
    np.save(tmp_path / "b.npy", np.zeros((2, 2), np.longdouble))
    with pytest.raises(OptionError, match="expected numbers of at most 64 bits, got float128"):
        read_array(str(tmp_path / "b.npy"))


def test_a_kernel_of_complex_numbers_or_texts_is_refused(tmp_path: Path) -> None:
    for array in (np.ones((3, 3), np.complex64), np.array([["a", "b"]]), np.zeros((3, 3), "datetime64[s]")):
        np.save(tmp_path / "k.npy", array)
        with pytest.raises(OptionError, match="expected an array of real numbers"):
            _read_kernel(str(tmp_path / "k.npy"))
