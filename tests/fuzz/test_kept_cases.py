"""Every reader takes its whole inputs, and says no to damage in its own words; what once failed stays as a test."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.fuzz.campaign import failure_of
from tests.fuzz.reader import Reader, names, prepare

CASES = Path(__file__).parent / "cases"
#: New cases of every reader at each run of the tests, and the seed of those.
FRESH, SEED = 60, 1


@pytest.fixture(scope="module", params=names())
def reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Reader]:
    return request.param, prepare(request.param, tmp_path_factory.mktemp(request.param))


def test_whole_inputs_are_read(reader: tuple[str, Reader]) -> None:
    for data in reader[1].seeds:
        assert failure_of(reader[1], data)[0] is None


def test_cases_that_failed_once(reader: tuple[str, Reader]) -> None:
    name, fuzzed = reader
    for path in sorted((CASES / name).glob("*.bin*")):
        data = path.read_bytes()
        failure, _ = failure_of(fuzzed, gzip.decompress(data) if path.suffix == ".gz" else data)
        assert failure is None, f"{path.name}: {failure.text}"


def test_fresh_damage(reader: tuple[str, Reader]) -> None:
    for number in range(FRESH):
        failure, _ = failure_of(reader[1], reader[1].case(SEED, number))
        assert failure is None, f"case {number}: {failure.text}"
