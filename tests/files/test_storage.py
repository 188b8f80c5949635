"""Names of places, and checksums, on this machine and behind URLs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import fsspec
import pytest

from synthpipe.errors import ShardError
from synthpipe.files.storage import OutputFolder, absolute_url, sha256_of


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("a/b", "{here}/a/b"),
        ("./a/../b", "{here}/b"),
        ("/a/b/", "/a/b"),
        ("file:///a/b", "/a/b"),
        ("s3://bucket/a/../b", "s3://bucket/a/../b"),
        ("memory://a", "memory://a"),
    ],
)
def test_absolute_url(url: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_url(url) == expected.format(here=tmp_path)


@pytest.mark.parametrize("size", [0, 5, (1 << 20) + 1])
def test_sha256(size: int, tmp_path: Path) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    (tmp_path / "x").write_bytes(data)
    fsspec.filesystem("memory").pipe_file("/sums/x", data)
    try:
        for folder in (str(tmp_path), "memory://sums"):
            assert sha256_of(f"{folder}/x") == OutputFolder(folder).sha256("x") == hashlib.sha256(data).hexdigest()
    finally:
        fsspec.filesystem("memory").rm("/sums", recursive=True)


def test_sha256_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"cannot open .*absent"):
        sha256_of(str(tmp_path / "absent"))
