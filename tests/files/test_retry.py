"""Small files and parts of files behind HTTP: asked for again as shards are; what is not there is told at once."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from synthpipe.errors import ShardError
from synthpipe.files import retry, storage
from synthpipe.files.retry import ATTEMPTS, RetryingReader, retried
from synthpipe.files.storage import file_stamp, open_url, read_optional, sha256_of
from synthpipe.pipeline.stream_corpus import read_corpus
from synthpipe.shards.shard_names import build_index, expand_urls
from tests.pipeline.test_stream_remote import Plain, Ranged, serve
from tests.stream_corpus import write_corpus


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.01)


class Failing(Ranged):
    """Answers ``status`` to the first ``faults`` requests for each path."""

    status, faults = 500, 1

    def _faulty(self) -> bool:
        key = f"faults {self.path}"
        self.requests[key] += 1
        if self.requests[key] > self.faults:
            return False
        self.send_error(self.status)
        return True

    def do_GET(self) -> None:  # noqa: N802
        if not self._faulty():
            super().do_GET()

    def do_HEAD(self) -> None:  # noqa: N802
        if not self._faulty():
            super().do_HEAD()


class Torn(Plain):
    """Breaks off in the middle of its first answer for each path."""

    def copyfile(self, source: object, outputfile: object) -> None:
        assert isinstance(source, io.BufferedReader)
        data = source.read()
        torn = self.requests[self.path] == 1
        outputfile.write(data[: len(data) // 2] if torn else data)  # type: ignore[attr-defined]
        self.close_connection = torn


class Endless(Plain):
    """A file without an end."""

    def do_GET(self) -> None:  # noqa: N802
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(1 << 16))
        except OSError:
            self.close_connection = True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_corpus(tmp_path, [3])
    entry = f'{{"name":"s-0.tar","samples":3,"bytes":{(tmp_path / "s-0.tar").stat().st_size}}}'
    text = f'{{"format":"synthpipe-shards","version":1,"samples":3,"shards":[{entry}]}}'
    (tmp_path / "index.json").write_text(text)
    (tmp_path / "big.bin").write_bytes(bytes(range(256)) * 40_000)
    return tmp_path


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_an_index_is_asked_for_again(status: int, folder: Path) -> None:
    with serve(type("Some", (Failing,), {"status": status, "faults": ATTEMPTS - 1}), folder) as (url, requests):
        assert expand_urls(url) == [f"{url}/s-0.tar"]
        assert requests["faults /index.json"] == ATTEMPTS


def test_a_whole_corpus_is_known_by_it(folder: Path) -> None:
    with serve(Failing, folder) as (url, _):
        assert read_corpus(url).counts == (3,)


def test_no_more_attempts_than_shards_have(folder: Path) -> None:
    with (
        serve(type("Some", (Failing,), {"faults": 100}), folder) as (url, requests),
        pytest.raises(ShardError, match=r"cannot read 'http.*index\.json': .*500"),
    ):
        expand_urls(url)
    assert requests["faults /index.json"] == ATTEMPTS


@pytest.mark.parametrize(("status", "said"), [(401, "401"), (403, "403"), (400, "400")])
def test_an_answer_that_stays_is_not_asked_for_again(status: int, said: str, folder: Path) -> None:
    with (
        serve(type("Some", (Failing,), {"status": status}), folder) as (url, requests),
        pytest.raises(ShardError, match=said),
    ):
        read_optional(f"{url}/index.json")
    assert requests["faults /index.json"] == 1


@pytest.mark.parametrize("status", [404, None])
def test_what_is_not_there_is_not_there_at_once(status: int | None, folder: Path) -> None:
    handler = Plain if status is None else type("Some", (Failing,), {"status": status})
    with serve(handler, folder) as (url, requests):
        assert read_optional(f"{url}/absent.json" if status is None else f"{url}/index.json") is None
        assert requests.total() == 1


def test_an_answer_that_breaks_off(folder: Path) -> None:
    with serve(Torn, folder) as (url, requests):
        assert read_optional(f"{url}/big.bin") == (folder / "big.bin").read_bytes()
        assert requests["/big.bin"] == 2


def test_a_file_without_end(folder: Path) -> None:
    with serve(Endless, folder) as (url, _), pytest.raises(ShardError, match="more than 100000 bytes"):
        read_optional(f"{url}/index.json", 100_000)


class TestParts:
    """Through :func:`open_url`: tables of scores, checksums, scans."""

    @pytest.mark.parametrize("faults", [1, ATTEMPTS - 1])
    def test_a_checksum(self, faults: int, folder: Path) -> None:
        with serve(type("Some", (Failing,), {"faults": faults}), folder) as (url, _):
            assert sha256_of(f"{url}/big.bin") == sha256_of(str(folder / "big.bin"))

    def test_a_scan(self, folder: Path) -> None:
        with serve(Failing, folder) as (url, _):
            assert build_index(f"{url}/s-0.tar").samples == 3

    def test_a_stamp(self, folder: Path) -> None:
        with serve(Failing, folder) as (url, _):
            assert file_stamp(f"{url}/big.bin")

    def test_in_any_order(self, folder: Path) -> None:
        whole = (folder / "big.bin").read_bytes()
        with serve(Failing, folder) as (url, _), open_url(f"{url}/big.bin") as file:
            assert file.seek(-100, 2) == len(whole) - 100
            assert file.read() == whole[-100:]
            assert file.seek(5) == 5
            assert file.read(10) == whole[5:15]
            assert file.seek(10, 1) == file.tell() == 25
            assert file.read(7_000_000) == whole[25 : 25 + 7_000_000]

    def test_a_part_that_fails_at_last(self) -> None:
        class Broken(io.BytesIO):
            tries = 0

            def read(self, size: int | None = -1) -> bytes:
                Broken.tries += 1
                raise ArithmeticError("no answer")

        with RetryingReader(Broken(b"x" * 10), "http://h/x") as file, pytest.raises(OSError, match="no answer"):
            file.read(5)
        assert Broken.tries == ATTEMPTS


@pytest.mark.parametrize("error", [FileNotFoundError(), PermissionError(), ValueError()])
def test_errors_that_stay(error: Exception) -> None:
    calls: Iterator[Exception] = iter([error])

    def call() -> None:
        raise next(calls)

    with pytest.raises(type(error)):
        retried(call, "x")


def test_local_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "retried", lambda *_: pytest.fail("a local file was asked for again"))
    assert read_optional(str(tmp_path / "absent")) is None
    (tmp_path / "x").write_bytes(b"1")
    assert read_optional(str(tmp_path / "x")) == b"1"
    with open_url(str(tmp_path / "x")) as file:
        assert file.read() == b"1"
