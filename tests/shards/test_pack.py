"""Writing shards: what is in them, read by webdataset; and that no kill, order or worker count changes a byte."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import webdataset
from PIL import Image

from synthpipe.config.shard import ShardOptions
from synthpipe.errors import OptionError, ShardError
from synthpipe.files import storage
from synthpipe.shards import engine, shard_writer
from synthpipe.shards import pack as shards
from synthpipe.shards.pack import ShardReport, write_shards
from synthpipe.shards.shard_index import read_index
from synthpipe.shards.shard_names import build_index, expand_urls
from tests.files.image_bytes import png
from tests.stream_corpus import samples_by_webdataset

ROOT = Path(__file__).parents[2]


def picture(seed: int, height: int = 8, width: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(seed: int, fmt: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(seed)).save(buffer, format=fmt)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """13 images in two folders, one of them broken, and a file that is no image."""
    root = tmp_path / "photos"
    (root / "more").mkdir(parents=True)
    for number in range(9):
        (root / f"{number}.png").write_bytes(encoded(number, "PNG"))
    for number, (fmt, suffix) in enumerate([("JPEG", "jpg"), ("WEBP", "webp"), ("TIFF", "tif")]):
        (root / "more" / f"{number}.{suffix}").write_bytes(encoded(20 + number, fmt))
    (root / "more" / "cut.png").write_bytes(encoded(40, "PNG")[:-60])
    (root / "notes.txt").write_text("not an image")
    return root


def write(folder: Path, out: Path | str, **options: Any) -> ShardReport:
    on_progress = options.pop("on_progress", None)
    settings = {"inputs": (str(folder),), "output": str(out), "max_samples": 4} | options
    return write_shards(ShardOptions(**settings), on_progress)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class TestContents:
    def test_webdataset_reads_every_image_once_with_its_own_bytes(self, folder: Path, tmp_path: Path) -> None:
        report = write(folder, tmp_path / "out")
        samples = samples_by_webdataset(expand_urls(tmp_path / "out"))
        sources = {json.loads(sample["json"])["source"]: sample for sample in samples}
        images = {str(p.relative_to(folder)): p for p in folder.rglob("*.*") if p.stem not in ("cut", "notes")}
        assert len(samples) == report.index.samples == 12
        assert sources.keys() == images.keys()
        for source, sample in sources.items():
            assert sample["__key__"] == source.rsplit(".", 1)[0]
            suffix = {"tif": "tiff"}.get(images[source].suffix[1:], images[source].suffix[1:])
            assert sample[suffix] == images[source].read_bytes()

    def test_json_beside_each_image(self, folder: Path, tmp_path: Path) -> None:
        write(folder, tmp_path / "out")
        for sample in samples_by_webdataset(expand_urls(tmp_path / "out")):
            about = json.loads(sample["json"])
            data = (folder / about["source"]).read_bytes()
            assert about == {
                "source": about["source"],
                "width": 12,
                "height": 8,
                "format": Image.open(io.BytesIO(data)).format.lower(),  # type: ignore[union-attr]
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }

    def test_index(self, folder: Path, tmp_path: Path) -> None:
        report = write(folder, tmp_path / "out")
        index = read_index(tmp_path / "out")
        assert index == report.index
        counted = build_index(str(tmp_path / "out" / "*.tar"))
        assert [(s.samples, s.bytes) for s in counted.shards] == [(s.samples, s.bytes) for s in index.shards]
        for shard, url in zip(index.shards, index.urls(), strict=True):
            assert hashlib.sha256(Path(url).read_bytes()).hexdigest() == shard.sha256

    def test_orientation_counts_in_the_size(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(picture(0)).save(tmp_path / "in" / "turned.jpg", exif=exif)
        write(tmp_path / "in", tmp_path / "out")
        about = json.loads(samples_by_webdataset(expand_urls(tmp_path / "out"))[0]["json"])
        assert (about["width"], about["height"]) == (8, 12)

    def test_difficult_names_all_come_back(self, tmp_path: Path) -> None:
        names = [
            "a.png",
            "a.jpg",
            "v1.2/x.y.png",
            "__MACOSX__/m.png",
            "写真/été.png",
            "p/" + "long" * 50 + ".png",
            "%.png",
        ]
        for number, name in enumerate(names):
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(number, "PNG"))
        write(tmp_path / "in", tmp_path / "out", max_samples=3)
        samples = samples_by_webdataset(expand_urls(tmp_path / "out"))
        assert sorted(json.loads(sample["json"])["source"] for sample in samples) == sorted(names)
        assert len({sample["__key__"] for sample in samples}) == len(names)
        for sample in samples:  # also a.jpg, which holds a PNG: the bytes decide
            assert sample["png"] == (tmp_path / "in" / json.loads(sample["json"])["source"]).read_bytes()

    def test_reencode(self, folder: Path, tmp_path: Path) -> None:
        (folder / "deep.png").write_bytes(png(np.full((8, 12, 3), 257 * 77 + 100, np.uint16), 2))
        write(folder, tmp_path / "out", reencode="png")
        samples = {json.loads(s["json"])["source"]: s for s in samples_by_webdataset(expand_urls(tmp_path / "out"))}
        assert len(samples) == 13
        for source, sample in samples.items():
            stored = np.array(Image.open(io.BytesIO(sample["png"])))
            assert json.loads(sample["json"])["format"] == "png"
            if source == "deep.png":
                assert (stored == 77).all()
            else:
                np.testing.assert_array_equal(stored, np.array(Image.open(folder / source)))

    def test_min_size(self, folder: Path, tmp_path: Path) -> None:
        (folder / "large.png").write_bytes(png(picture(0, 16, 16), 2))
        report = write(folder, tmp_path / "out", min_size=16)
        assert report.index.samples == 1
        assert report.left_out == {"too_small": 12, "truncated": 1}

    def test_one_image_is_held_at_a_time(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        held: list[int] = []

        class Watched(webdataset.TarWriter):
            def write(self, obj: dict[str, Any]) -> int:
                held.append(len(self.tarstream.members))
                return super().write(obj)

        monkeypatch.setattr(shard_writer, "TarWriter", Watched)
        write(folder, tmp_path / "out", max_samples=100)
        assert held == [0] * 12  # webdataset alone would keep two headers a sample


class TestPlan:
    def sources(self, out: Path) -> list[list[str]]:
        return [[json.loads(s["json"])["source"] for s in samples_by_webdataset([url])] for url in expand_urls(out)]

    def test_limits(self, folder: Path, tmp_path: Path) -> None:
        (folder / "more" / "cut.png").unlink()
        write(folder, tmp_path / "count", max_samples=5)
        assert [len(shard) for shard in self.sources(tmp_path / "count")] == [5, 5, 2]
        limit = 2 * len(encoded(0, "PNG")) + 10
        write(folder, tmp_path / "bytes", max_bytes=limit)
        for shard in self.sources(tmp_path / "bytes"):
            total = sum((folder / source).stat().st_size for source in shard)
            assert total <= limit or len(shard) == 1
        write(folder, tmp_path / "tiny", max_bytes=1)
        assert [len(shard) for shard in self.sources(tmp_path / "tiny")] == [1] * 12

    def test_order(self, folder: Path, tmp_path: Path) -> None:
        write(folder, tmp_path / "sorted", seed=None)
        flat = [source for shard in self.sources(tmp_path / "sorted") for source in shard]
        assert flat == [f"{n}.png" for n in range(9)] + ["more/0.jpg", "more/1.webp", "more/2.tif"]
        orders = []
        for seed in (0, 1):
            write(folder, tmp_path / f"seed{seed}", seed=seed)
            orders.append([source for shard in self.sources(tmp_path / f"seed{seed}") for source in shard])
        assert sorted(orders[0]) == sorted(orders[1]) == sorted(flat)
        assert len({tuple(order) for order in (*orders, flat)}) == 3

    def test_bytes_depend_on_content_alone(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copytree(folder, tmp_path / "elsewhere" / "other_name")
        write(folder, tmp_path / "one")
        monkeypatch.setattr("time.time", lambda: 12345.0)
        monkeypatch.setenv("LC_ALL", "C")
        write(tmp_path / "elsewhere" / "other_name", tmp_path / "two")
        assert everything(tmp_path / "one") == everything(tmp_path / "two")


class TestBrokenImages:
    def test_report(self, folder: Path, tmp_path: Path) -> None:
        (folder / "text.jpg").write_text("no image")
        report = write(folder, tmp_path / "out", alpha="refuse")
        assert report.left_out == {"truncated": 1, "unreadable": 1}
        assert report.ignored == {".txt": 1}
        told = json.loads((tmp_path / "out" / "report.json").read_text())
        assert (told["images"], told["written"]) == (14, 12)
        assert {(entry["source"], entry["reason"]) for entry in told["broken"]} == {
            ("more/cut.png", "truncated"),
            ("text.jpg", "unreadable"),
        }
        assert all(entry["source"] in entry["message"] for entry in told["broken"])

    def test_shard_without_usable_images_is_left_out(self, folder: Path, tmp_path: Path) -> None:
        report = write(folder, tmp_path / "out", max_samples=1, seed=None)
        assert report.empty_shards == ("shard-000012.tar",)
        assert len(report.index.shards) == len(list((tmp_path / "out").glob("*.tar"))) == 12
        assert write(folder, tmp_path / "out", max_samples=1, seed=None) == report

    def test_nothing_usable(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.png").write_text("no image")
        with pytest.raises(ShardError, match=r"none of 1 image could be used \(1 unreadable\)"):
            write(tmp_path / "in", tmp_path / "out")
        assert len(json.loads((tmp_path / "out" / "report.json").read_text())["broken"]) == 1
        assert not (tmp_path / "out" / "index.json").exists()

    def test_no_images(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.exr").write_text("x")
        with pytest.raises(ShardError, match=r"no images in .*found 1 \.exr$"):
            write(tmp_path / "in", tmp_path / "out")


def run_and_die(run: Callable[[], Any]) -> None:
    """Run in a forked process that ends in a real SIGKILL."""
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, "was not killed"


def die_at(number: int, function: Callable[..., Any], after: bool = False) -> Callable[..., Any]:
    """``function`` that kills the process at its ``number``-th call, before or after doing its work."""
    calls = iter(range(number))

    def deadly(*args: Any, **kwargs: Any) -> Any:
        last = next(calls, None) is None
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return deadly


class TestKill:
    @pytest.fixture
    def never_killed(self, folder: Path, tmp_path: Path) -> dict[str, bytes]:
        write(folder, tmp_path / "whole")
        return everything(tmp_path / "whole")

    def test_while_an_image_is_read(
        self, folder: Path, tmp_path: Path, never_killed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(13):
            out = tmp_path / f"out{number}"
            with monkeypatch.context() as patch:
                patch.setattr(shard_writer, "decode_image", die_at(number, shard_writer.decode_image))
                run_and_die(lambda out=out: write(folder, out))
            done = list(out.glob("*.tar"))
            assert len(done) == number // 4
            assert not (out / "index.json").exists()
            with pytest.raises(ShardError, match="has not finished here"):
                expand_urls(out)
            write(folder, out)
            assert everything(out) == never_killed

    @pytest.mark.parametrize("after", [False, True])
    def test_at_every_rename(
        self,
        folder: Path,
        tmp_path: Path,
        never_killed: dict[str, bytes],
        monkeypatch: pytest.MonkeyPatch,
        after: bool,
    ) -> None:
        renames = 1 + 2 * 4 + 2  # the plan; each shard and its state; report and index
        for number in range(renames):
            out = tmp_path / f"out{number}"
            with monkeypatch.context() as patch:
                patch.setattr(storage.os, "replace", die_at(number, os.replace, after))
                run_and_die(lambda out=out: write(folder, out))
            write(folder, out)
            assert everything(out) == never_killed

    def test_with_workers(self, folder: Path, tmp_path: Path, never_killed: dict[str, bytes]) -> None:
        """The main process is killed among its workers, when two of four shards are done."""
        script = tmp_path / "script.py"
        script.write_text(
            "import os, signal, sys\n"
            "from synthpipe.config.shard import ShardOptions\n"
            "from synthpipe.shards.pack import write_shards\n"
            "def die(done, total):\n"
            "    if done >= 8:\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "if __name__ == '__main__':\n"
            "    write_shards(ShardOptions(inputs=(sys.argv[1],), output=sys.argv[2], max_samples=4, workers=2), die)\n"
        )
        out = tmp_path / "killed"
        command = [sys.executable, str(script), str(folder), str(out)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        # The workers hold the other end of the pipe: this returns only when none of them has outlived its parent.
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
        assert len(list(out.glob("*.tar"))) >= 2
        assert not (out / "index.json").exists()
        write(folder, out)
        assert everything(out) == never_killed


class TestResume:
    def test_finished_shards_are_not_made_again(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = write(folder, tmp_path / "out")
        monkeypatch.setattr(shard_writer, "decode_image", lambda *a, **k: pytest.fail("decoded again"))
        assert write(folder, tmp_path / "out") == first

    @pytest.mark.parametrize("verify", ["sha256", "size"])
    def test_damaged_and_missing_shards_are_made_again(self, folder: Path, tmp_path: Path, verify: str) -> None:
        out = tmp_path / "out"
        write(folder, out)
        whole = everything(out)
        damaged = bytearray(whole["shard-000001.tar"])
        if verify == "sha256":
            damaged[700] ^= 1
        else:
            del damaged[-512:]
        (out / "shard-000001.tar").write_bytes(damaged)
        (out / "shard-000002.tar").unlink()
        (out / "_state" / "shard-000000.tar.json").write_text('{"name": ')
        write(folder, out, verify=verify)
        assert everything(out) == whole

    @pytest.mark.parametrize(
        ("option", "value", "said"),
        [
            ("max_samples", 5, "max_samples was 4, is 5"),
            ("seed", None, "seed was 0, is None"),
            ("prefix", "hr", "prefix"),
        ],
    )
    def test_other_options(self, folder: Path, tmp_path: Path, option: str, value: Any, said: str) -> None:
        write(folder, tmp_path / "out")
        with pytest.raises(ShardError, match=said):
            write(folder, tmp_path / "out", **{option: value})

    def test_workers_and_verify_may_change(self, folder: Path, tmp_path: Path) -> None:
        assert write(folder, tmp_path / "out") == write(folder, tmp_path / "out", verify="size")

    @pytest.mark.parametrize("change", ["added", "removed", "edited", "renamed"])
    def test_changed_input(self, folder: Path, tmp_path: Path, change: str) -> None:
        write(folder, tmp_path / "out")
        if change == "added":
            (folder / "new.png").write_bytes(encoded(0, "PNG"))
        elif change == "removed":
            (folder / "3.png").unlink()
        elif change == "renamed":
            (folder / "3.png").rename(folder / "33.png")
        else:
            before = (folder / "3.png").stat()
            os.utime(folder / "3.png", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        with pytest.raises(ShardError, match="the input has changed since the run began: 13 images then") as error:
            write(folder, tmp_path / "out")
        now = {"added": "then, 14 now", "removed": "then, 12 now"}.get(
            change, "then and now, but other names, sizes or times"
        )
        assert now in str(error.value)

    @pytest.mark.parametrize("change", ["vanished", "edited"])
    def test_input_that_changes_under_way(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
    ) -> None:
        make_plan = shards.make_plan

        def plan_then_change(*args: Any) -> Any:
            plan = make_plan(*args)
            if change == "vanished":
                (folder / "5.png").unlink()
            else:
                (folder / "5.png").write_bytes(b"other")
            return plan

        monkeypatch.setattr(shards, "make_plan", plan_then_change)
        with pytest.raises(ShardError, match=r"5\.png: has (vanished|changed) since the run began"):
            write(folder, tmp_path / "out")

    def test_damaged_plan(self, folder: Path, tmp_path: Path) -> None:
        write(folder, tmp_path / "out")
        (tmp_path / "out" / "_state" / "plan.json").write_text("{")
        with pytest.raises(ShardError, match="damaged plan"):
            write(folder, tmp_path / "out")


class TestOutput:
    def test_foreign_shards_are_left_alone(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "shard-000000.tar").write_bytes(b"precious")
        with pytest.raises(ShardError, match=r"already holds 'shard-000000\.tar' of another origin"):
            write(folder, tmp_path / "out")
        assert (tmp_path / "out" / "shard-000000.tar").read_bytes() == b"precious"

    def test_two_runs_at_once(self, folder: Path, tmp_path: Path) -> None:
        def again(done: int, total: int) -> None:
            with pytest.raises(ShardError, match="another run is writing here"):
                write(folder, tmp_path / "out")

        assert write(folder, tmp_path / "out", on_progress=again).index.samples == 12

    def test_progress_counts_images(self, folder: Path, tmp_path: Path) -> None:
        seen: list[tuple[int, int]] = []
        write(folder, tmp_path / "out", on_progress=lambda done, total: seen.append((done, total)))
        assert seen == [(0, 13), (4, 13), (8, 13), (12, 13), (13, 13)]

    @pytest.mark.parametrize("output", ["http://host/x", "nosuch://bucket/x"])
    def test_urls_that_cannot_be_written(self, folder: Path, output: str) -> None:
        with pytest.raises(ShardError, match="cannot"):
            write(folder, output)

    def test_unwritable_folder(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(ShardError, match="cannot make the output folder"):
            write(folder, tmp_path / "file" / "out")

    def test_missing_input(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="expected an existing folder"):
            write(tmp_path / "nowhere", tmp_path / "out")

    def test_fsspec_url(self, folder: Path, tmp_path: Path) -> None:
        write(folder, tmp_path / "out")
        local = everything(tmp_path / "out")
        report = write(folder, "memory://bucket/hr")
        filesystem = fsspec.filesystem("memory")
        remote = {name.removeprefix("/bucket/hr/"): filesystem.cat_file(name) for name in filesystem.find("/bucket/hr")}
        assert remote == {name: data for name, data in local.items() if name != "_state/lock"}
        assert read_index("memory://bucket/hr") == report.index
        filesystem.rm("/bucket/hr/shard-000001.tar")
        filesystem.rm("/bucket/hr/index.json")
        assert write(folder, "memory://bucket/hr") == report
        assert filesystem.cat_file("/bucket/hr/shard-000001.tar") == local["shard-000001.tar"]
        filesystem.rm("/bucket", recursive=True)

    def test_s3(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        moto_server = pytest.importorskip("moto.server")
        pytest.importorskip("s3fs")
        for name, value in (("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_REGION", "us-east-1")):
            monkeypatch.setenv(name, value)
        server = moto_server.ThreadedMotoServer(port=0, verbose=False)
        server.start()
        try:
            host, port = server.get_host_and_port()
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
            fsspec.filesystem("s3").mkdir("corpus")
            report = write(folder, "s3://corpus/hr")
            assert read_index("s3://corpus/hr") == report.index
            write(folder, tmp_path / "out")
            with fsspec.open("s3://corpus/hr/shard-000002.tar", "rb") as remote:
                assert remote.read() == (tmp_path / "out" / "shard-000002.tar").read_bytes()
            fsspec.filesystem("s3").rm("s3://corpus/hr/shard-000000.tar")
            assert write(folder, "s3://corpus/hr") == report
            assert build_index("s3://corpus/hr/*.tar").samples == 12
        finally:
            # fsspec keeps clients by their arguments, which the server's address is not among
            fsspec.get_filesystem_class("s3").clear_instance_cache()
            server.stop()


class TestWorkers:
    """With forked workers, which start at once; spawned ones, as in earnest, are in `TestKill.test_with_workers`."""

    @pytest.fixture(autouse=True)
    def _forked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fork = multiprocessing.get_context("fork")
        monkeypatch.setattr(engine.multiprocessing, "get_context", lambda name: fork)

    @pytest.mark.parametrize("workers", [2, 3, 50])
    def test_their_number_changes_nothing(self, folder: Path, tmp_path: Path, workers: int) -> None:
        assert write(folder, tmp_path / "out", workers=workers, max_samples=2).left_out == {"truncated": 1}
        write(folder, tmp_path / "one", workers=1, max_samples=2)
        assert everything(tmp_path / "out") == everything(tmp_path / "one")

    def test_an_error_in_one_reaches_the_caller(self, folder: Path, tmp_path: Path) -> None:
        def change(done: int, total: int) -> None:
            (folder / "5.png").write_bytes(b"other")

        with pytest.raises(ShardError, match=r"5\.png: has changed since the run began"):
            write(folder, tmp_path / "out", workers=2, on_progress=change)

    def test_one_that_dies_is_told(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shards, "write_shard", die)
        with pytest.raises(ShardError, match=r"worker processes died 3 times .* run again"):
            write(folder, tmp_path / "out", workers=2)


def die(job: object) -> None:
    os._exit(9)
