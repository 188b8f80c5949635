"""Shards behind HTTP and S3: the same bits as from the disk, whatever the server can do, and counted errors."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from synthpipe.errors import ShardError
from synthpipe.files import byte_source
from synthpipe.files.byte_source import Spool
from synthpipe.pipeline.build import build_stream
from synthpipe.pipeline.source import TileReader
from synthpipe.shards.shard_index import INDEX_NAME, ShardIndex, ShardInfo
from synthpipe.transforms.batch import Batch
from tests.pipeline.test_source import keys_of, settings_for
from tests.stream_corpus import NoisyHalf, noise_image, png, small_options, take, write_corpus, write_tar

COUNTS = [4, 1, 6]


class Plain(SimpleHTTPRequestHandler):
    """A server without Range support that counts requests by path."""

    requests: Counter[str]

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.requests[self.path] += 1
        super().do_GET()


class Ranged(Plain):
    """A server that serves parts of files."""

    def do_GET(self) -> None:
        self.requests[self.path] += 1
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data, wanted = path.read_bytes(), self.headers.get("Range")
        first, last = 0, len(data) - 1
        if wanted:
            begin, end = wanted.removeprefix("bytes=").split("-")
            first, last = int(begin), min(int(end), last) if end else last
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[first : last + 1])


class Breaking(Plain):
    """Breaks off in the middle of each tar, the first ``faults`` times that it is asked for."""

    faults = 1

    def copyfile(self, source: Any, outputfile: Any) -> None:
        data = source.read()
        if self.path.endswith(".tar") and self.requests[self.path] <= self.faults:
            outputfile.write(data[: int(len(data) * 0.7)])
            self.close_connection = True
            return
        outputfile.write(data)


class AlwaysBreaking(Breaking):
    """Never gets through."""

    faults = 1_000_000


class Overloaded(Plain):
    """Answers 503 to the first request for each tar."""

    def do_GET(self) -> None:
        if self.path.endswith(".tar") and not self.requests[self.path]:
            self.requests[self.path] += 1
            self.send_error(503)
            return
        super().do_GET()


@contextmanager
def serve(handler: type[Plain], folder: Path) -> Iterator[tuple[str, Counter[str]]]:
    """The URL of a running server, and its requests by path."""
    requests: Counter[str] = Counter()
    bound = type("Bound", (handler,), {"requests": requests})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(bound, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_source, "_FIRST_PAUSE", 0.01)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with shards and an index."""
    folder = tmp_path / "corpus"
    shards = write_corpus(folder, COUNTS)
    infos = [
        ShardInfo(Path(url).name, count, Path(url).stat().st_size) for url, count in zip(shards, COUNTS, strict=True)
    ]
    (folder / INDEX_NAME).write_text(ShardIndex(tuple(infos)).to_json())
    return folder


def batches_of(shards: Any, count: int = 12, **changes: Any) -> list[Batch]:
    options = {**small_options([]), "shards": shards, **changes}
    with build_stream(options, degrade=NoisyHalf()) as stream:
        batches = take(stream, count)
        assert set(stream.counts()) == {"used"}
        return batches


def same_pixels(left: list[Batch], right: list[Batch]) -> bool:
    return all(
        torch.equal(a["lq"], b["lq"]) and torch.equal(a["gt"], b["gt"]) for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("handler", [Plain, Ranged, Breaking, Overloaded])
def test_http_gives_what_the_disk_gives(corpus: Path, handler: type[Plain]) -> None:
    local = batches_of(str(corpus))
    with serve(handler, corpus) as (url, _):
        remote = batches_of(url + "/s-{0..2}.tar")
        assert remote[0]["gt_path"][0].startswith(url)
    assert same_pixels(local, remote)


def test_a_folder_behind_http_is_known_by_its_index(corpus: Path) -> None:
    with serve(Plain, corpus) as (url, _):
        assert same_pixels(batches_of(str(corpus)), batches_of(url))


def test_workers_read_over_http(corpus: Path) -> None:
    with serve(Plain, corpus) as (url, _):
        assert same_pixels(batches_of(str(corpus), workers=2), batches_of(url + "/s-{0..2}.tar", workers=2))


def test_a_shard_is_fetched_once_per_epoch(corpus: Path) -> None:
    with serve(Ranged, corpus) as (url, requests):
        options = {**small_options([]), "shards": url + "/s-{0..2}.tar", "epochs": 1, "drop_last": False}
        with build_stream(options, degrade=NoisyHalf()) as stream:
            assert len(list(stream)) == 6
    assert {path: number for path, number in requests.items() if path.endswith(".tar")} == {
        f"/s-{shard}.tar": 1 for shard in range(3)
    }


def test_without_an_index_shards_are_counted_by_reading_them(corpus: Path) -> None:
    (corpus / INDEX_NAME).unlink()
    local = batches_of(str(corpus))
    with serve(Plain, corpus) as (url, requests):
        assert same_pixels(local, batches_of(url + "/s-{0..2}.tar"))
        assert requests["/s-0.tar"] >= 2


def test_resume_over_http_is_exact(corpus: Path) -> None:
    with serve(Breaking, corpus) as (url, _):
        options = {**small_options([]), "shards": url + "/s-{0..2}.tar", "workers": 1}
        with build_stream(options, degrade=NoisyHalf()) as stream:
            take(stream, 4)
            state = stream.state_dict()
            batches = take(stream, 5)
        with build_stream(options, degrade=NoisyHalf()) as stream:
            stream.load_state_dict(state)
            assert same_pixels(take(stream, 5), batches)


def finite_run(shards: str) -> tuple[set[str], dict[str, int]]:
    options = {**small_options([]), "shards": shards, "epochs": 1, "drop_last": False, "max_bad_fraction": 1}
    with build_stream(options, degrade=NoisyHalf()) as stream:
        keys = {Path(path).stem for batch in stream for path in batch["gt_path"]}
        return keys, stream.counts()


def test_of_a_transfer_that_never_gets_through_the_good_samples_are_kept(tmp_path: Path) -> None:
    # files of 270 kB: the HTTP client throws away up to 128 kB that it holds when a connection breaks
    write_corpus(tmp_path, [4], 300, 300)
    index = ShardIndex((ShardInfo("s-0.tar", 4, (tmp_path / "s-0.tar").stat().st_size),))
    (tmp_path / INDEX_NAME).write_text(index.to_json())
    with serve(AlwaysBreaking, tmp_path) as (url, _):
        keys, counts = finite_run(url)
    # 70% of the shard is two images and most of the third
    assert keys == {"0_000", "0_001"}
    assert counts == {"used": 2, "truncated_shard": 2}


def test_shards_that_the_server_does_not_have_are_counted(corpus: Path) -> None:
    (corpus / "s-2.tar").unlink()
    with serve(Plain, corpus) as (url, requests):
        keys, counts = finite_run(url + "/s-{0..2}.tar")
        # gone is gone: asked once
        assert requests["/s-2.tar"] == 1
    assert {key[0] for key in keys} == {"0", "1"}
    assert counts == {"used": 5, "missing_shard": 6}


def test_equal_file_names_in_two_places_are_two_shards(corpus: Path) -> None:
    # webdataset's cache takes the one for the other
    (corpus / "other").mkdir()
    write_tar(corpus / "other" / "s-0.tar", [("other.png", png(noise_image(77)))])
    with serve(Plain, corpus) as (url, _):
        options = {**small_options([]), "shards": [f"{url}/s-0.tar", f"{url}/other/s-0.tar"]}
        with build_stream({**options, "epochs": 1, "drop_last": False}, degrade=NoisyHalf()) as stream:
            paths = {path for batch in stream for path in batch["gt_path"]}
    assert paths == {*(f"{url}/s-0.tar/0_00{i}.png" for i in range(4)), f"{url}/other/s-0.tar/other.png"}


def test_a_server_that_is_down(corpus: Path) -> None:
    with serve(Plain, corpus) as (url, _):
        pass
    with pytest.raises(ShardError, match="no samples in 3 shards"):
        build_stream({**small_options([]), "shards": url + "/s-{0..2}.tar"}, degrade=NoisyHalf())


@pytest.mark.parametrize("resumed", [False, True])
def test_closing_a_stream_without_workers_ends_its_transfers(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    spools: list[Spool] = []

    class Watched(Spool):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            spools.append(self)

    monkeypatch.setattr(byte_source, "Spool", Watched)
    with serve(Plain, corpus) as (url, _):
        options = {**small_options([]), "shards": url + "/s-{0..2}.tar"}
        with build_stream(options, degrade=NoisyHalf()) as stream:
            take(stream, 2)
            if resumed:
                stream.load_state_dict(stream.state_dict())
                take(stream, 1)
            assert not all(spool._file.closed for spool in spools)
        assert all(spool._file.closed and not spool._thread.is_alive() for spool in spools)


def test_spools_are_released_with_their_shards(corpus: Path) -> None:
    with serve(Plain, corpus) as (url, _):
        urls = [f"{url}/s-{shard}.tar" for shard in range(3)]
        reader = TileReader(settings_for(urls, COUNTS, open_shards=1, shuffle_buffer=0, tiles_per_batch=1), 0, 1, 0, 1)
        records = []
        for record in reader:
            records.append(record)
            assert len(reader._readers) <= 2
    assert len(keys_of(records)) == sum(COUNTS)
    # By name: other tests of the same process leave threads of their libraries.
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("spool ")]


# S3


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of a bucket on a local S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        filesystem = fsspec.filesystem("s3", skip_instance_cache=True)
        filesystem.mkdir("corpus-bucket")
        yield "s3://corpus-bucket"
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


@pytest.mark.parametrize("workers", [0, 1])
def test_s3_gives_what_the_disk_gives(corpus: Path, s3: str, workers: int) -> None:
    filesystem = fsspec.filesystem("s3", skip_instance_cache=True)
    for path in corpus.iterdir():
        filesystem.put_file(str(path), f"{s3}/{workers}/{path.name}")
    local = batches_of(str(corpus), workers=workers)
    assert same_pixels(local, batches_of(f"{s3}/{workers}/s-{{0..2}}.tar", workers=workers))
    filesystem.rm(f"{s3}/{workers}/s-1.tar")
    assert finite_run(f"{s3}/{workers}/s-{{0..2}}.tar")[1] == {"used": 10, "missing_shard": 1}


# The spool itself


class Slow(io.BytesIO):
    """Hands out one block for each permit."""

    def __init__(self, data: bytes, block: int) -> None:
        super().__init__(data)
        self.permits = threading.Semaphore(0)
        self.asked: list[int] = []
        self._block = block

    def read(self, size: int | None = -1) -> bytes:
        self.asked.append(size or -1)
        self.permits.acquire()
        return super().read(self._block)


def opener_of(*streams: io.BytesIO) -> Callable[[], io.BytesIO]:
    return iter(streams).__next__


def test_what_has_arrived_is_read_before_the_rest(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40
    stream = Slow(data, 1000)
    spool = Spool(opener_of(stream), "x", str(tmp_path))
    stream.permits.release()
    assert spool.read_at(200, 700) == data[200:900]
    # nobody asks the network for a whole shard at once
    assert max(stream.asked) <= 4 << 20
    for _ in range(20):
        stream.permits.release()
    assert spool.read_at(9_000, 5_000) == data[9_000:]
    spool.close()
    # the copy has no name that could be left behind
    assert list(tmp_path.iterdir()) == []


def test_closing_stops_a_transfer(tmp_path: Path) -> None:
    stream = Slow(bytes(10_000), 10)
    spool = Spool(opener_of(stream), "x", str(tmp_path))
    stream.permits.release(3)
    spool.read_at(0, 20)
    closing = threading.Thread(target=spool.close)
    closing.start()
    stream.permits.release(1)
    closing.join(10)
    assert not closing.is_alive()


class Broken(io.BytesIO):
    """Fails after its content."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if not data:
            raise ConnectionResetError("peer is gone")
        return data


def test_a_broken_transfer_is_tried_again_and_then_given_up() -> None:
    whole = bytes(range(200))
    spool = Spool(opener_of(Broken(whole[:50]), Broken(whole[:30]), io.BytesIO(whole)), "x")
    assert spool.read_at(0, 300) == whole
    spool.close()
    spool = Spool(opener_of(*(Broken(whole[:20]) for _ in range(3))), "x")
    assert spool.read_at(10, 100) == whole[10:20]
    spool.close()
    spool = Spool(opener_of(*(Broken() for _ in range(3))), "x")
    with pytest.raises(ConnectionResetError, match="peer is gone"):
        spool.read_at(0, 10)
    spool.close()
