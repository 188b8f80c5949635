"""Tars of others as input of `synthpipe shard`: every image a sample under a safe key, with what belongs to it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synthpipe.config.shard import ShardOptions
from synthpipe.errors import OptionError, ShardError
from synthpipe.pipeline.build import build_stream
from synthpipe.shards.image_sources import ImageSources
from synthpipe.shards.pack import ShardReport, write_shards
from synthpipe.shards.tar_images import TarImage, tar_images
from tests.shards.tar_bytes import END, member, pax_record
from tests.stream_corpus import noise_image, png, samples_by_webdataset, write_tar


def keys_of(path: Path, *names: str) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Key and suffixes beside it of each image of a tar with these members, and what was passed over."""
    write_tar(path / "x.tar", [(name, b"x") for name in names])
    return listed(path / "x.tar")


def listed(tar: Path) -> tuple[dict[str, list[str]], dict[str, int]]:
    passed_over: Counter[str] = Counter()
    found = list(tar_images(str(tar), "x", "", passed_over))
    assert len({image.key for image in found}) == len(found)
    return {image.key: [suffix for suffix, _, _ in image.beside] for image in found}, dict(passed_over)


class TestKeys:
    @pytest.mark.parametrize(
        ("names", "expected", "passed_over"),
        [
            (["clip.000.png", "clip.001.png"], {"clip%2E000": [], "clip%2E001": []}, {}),
            (["a.png", "a.json", "a.cls", "b.png"], {"a": ["cls", "json"], "b": []}, {}),
            (["clip.0.png", "clip.0.txt", "clip.1.png", "clip.1.txt"], {"clip%2E0": ["txt"], "clip%2E1": ["txt"]}, {}),
            (["clip.0.png", "clip.1.png", "clip.cls"], {"clip%2E0": [], "clip%2E1": []}, {".cls": 1}),
            (["a.png", "a.1.png", "a.1.txt", "a.txt"], {"a": ["txt"], "a%2E1": ["txt"]}, {}),
            # One photograph beside another, and masks beside photographs.
            (["john.png", "john.smith.png"], {"john": [], "john%2Esmith": []}, {}),
            (["a.jpg", "a.mask.png", "b.jpg", "b.mask.png"], {"a": ["mask.png"], "b": ["mask.png"]}, {}),
            (["c.0.jpg", "c.0.m.png", "c.1.jpg", "c.1.m.png"], {"c%2E0": ["m.png"], "c%2E1": ["m.png"]}, {}),
            (["a.jpg", "a.mask.png", "a.mask.txt", "b.jpg", "b.mask.png"],
             {"a": ["mask.png", "mask.txt"], "b": ["mask.png"]}, {}),
            (["a.png", "a.jpg", "b.png"], {"a%png": [], "a%jpg": [], "b": []}, {}),
            (["a.png", "a.jpg", "b.png", "b.jpg"], {"a": ["jpg"], "b": ["jpg"]}, {}),
            # Names as they are found.
            (["./d.x/a.png", "./d.x/a.json"], {"d%2Ex/a": ["json"]}, {}),
            (["__train__/a.png", "__b.png"], {"%5F_train__/a": [], "%5F_b": []}, {}),
            (["d/a?.PNG", "d/a?.JSON", "50%.png"], {"d/a%3F": ["json"], "50%25": []}, {}),
            ([".x.png", "d/._a.png", "d/a.png"], {"d/a": []}, {"(hidden)": 2}),
            (["a.png", "b.png", "a.png"], {"a": [], "b": []}, {"(duplicate name)": 1}),
            (["a.png", "b.png", "a.txt"], {"a": [], "b": []}, {".txt": 1}),
            (["README", "x.md", "a.png", "../b.png"], {"a": []}, {"(no suffix)": 1, ".md": 1, "(unsafe name)": 1}),
            (["a.png", "a.", "a.x y", "a.é"], {"a": []}, {"(no suffix)": 1, ".x y": 1, ".é": 1}),
        ],
    )  # fmt: skip
    def test_of_names(
        self, names: list[str], expected: dict[str, list[str]], passed_over: dict[str, int], tmp_path: Path
    ) -> None:
        found, other = keys_of(tmp_path, *names)
        other = {reason if reason != "." else "(no suffix)": count for reason, count in other.items()}
        assert (found, other) == (expected, passed_over)

    def test_not_utf8(self, tmp_path: Path) -> None:
        (tmp_path / "x.tar").write_bytes(member(b"caf\xe9.1.png", b"x") + END)
        assert listed(tmp_path / "x.tar") == ({"caf%ED%B3%A9%2E1": []}, {})

    def test_links_and_damage(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = tmp_path / "x.tar"
        lost = os.urandom(600)
        parts = [member("a.png", b"x"), member("l.png", b"", kind=b"1"), member("s.png", b"", kind=b"2"), lost]
        path.write_bytes(b"".join(parts))
        assert listed(path) == ({"a": []}, {"(link)": 2, "(damaged tar)": 1})
        assert f"what lies in its last {len(lost)} bytes is lost" in caplog.text

    def test_long_names(self, tmp_path: Path) -> None:
        header = member("p", pax_record(b"path", b"x." * 3000 + b"png"), kind=b"x")
        (tmp_path / "x.tar").write_bytes(header + member("y", b"1") + member("a.png", b"x") + END)
        assert listed(tmp_path / "x.tar") == ({"a": []}, {"(too long name)": 1})

    def test_many_of_one_stem(self, tmp_path: Path) -> None:
        names = [f"clip.{number}.png" for number in range(3000)]
        found, _ = keys_of(tmp_path, *names)
        assert len(found) == 3000


def pack(out: Path, *inputs: Path | str, **options: Any) -> ShardReport:
    return write_shards(ShardOptions(inputs=tuple(map(str, inputs)), output=str(out), **options))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def samples(folder: Path) -> dict[str, dict[str, bytes]]:
    found = samples_by_webdataset(sorted(folder.glob("*.tar")))
    return {sample["__key__"]: {k: v for k, v in sample.items() if not k.startswith("__")} for sample in found}


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A tar of a clip with texts and two other pictures."""
    members = []
    for number in range(6):
        members += [(f"clip.{number:03d}.png", png(noise_image(number))), (f"clip.{number:03d}.txt", b"%d" % number)]
    members += [("z.png", png(noise_image(10))), ("z.json", b'{"caption": "a", "width": 1}'), ("z.cls", b"7")]
    members += [("y.png", png(noise_image(11))), ("y.json", b"[1, 2]")]
    return write_tar(tmp_path / "clips.tar", members)


def test_every_image_comes_out_with_its_files(clips: Path, tmp_path: Path) -> None:
    report = pack(tmp_path / "out", clips)
    assert (report.images, report.index.samples, report.left_out, report.ignored) == (8, 8, {}, {})
    found = samples(tmp_path / "out")
    assert set(found) == {f"clip%2E{number:03d}" for number in range(6)} | {"y", "z"}
    for number in range(6):
        sample = found[f"clip%2E{number:03d}"]
        assert sample["png"] == png(noise_image(number))
        assert sample["txt"] == b"%d" % number
        assert json.loads(sample["json"])["source"] == f"clips.tar/clip.{number:03d}.png"
    about = json.loads(found["z"]["json"])
    assert (about["caption"], about["width"], about["sha256"]) == (
        "a",
        72,
        hashlib.sha256(found["z"]["png"]).hexdigest(),
    )
    assert found["z"]["cls"] == b"7"
    assert found["y"]["json"] == b"[1, 2]"
    options = {"shards": str(tmp_path / "out"), "gt_size": 32, "batch_size": 1, "epochs": 1, "pool": 0}
    with build_stream(options) as stream:
        assert len(list(stream)) == 8
        assert stream.counts() == {"used": 8}


def test_the_same_bytes_by_any_number_of_workers_and_after_a_stop(clips: Path, tmp_path: Path) -> None:
    pack(tmp_path / "a", clips, max_samples=2)
    pack(tmp_path / "b", clips, max_samples=2, workers=2)
    first = everything(tmp_path / "a")
    assert everything(tmp_path / "b") == first
    for name in ("index.json", "shard-000001.tar", "_state/shard-000001.tar.json"):
        (tmp_path / "b" / name).unlink()
    pack(tmp_path / "b", clips, max_samples=2)
    assert everything(tmp_path / "b") == first


def test_a_tar_that_changes(clips: Path, tmp_path: Path) -> None:
    pack(tmp_path / "out", clips, max_samples=2)
    os.utime(clips, (1, 1))
    with pytest.raises(ShardError, match="the input has changed since the run began"):
        pack(tmp_path / "out", clips, max_samples=2)


def test_shards_of_ours_keep_where_their_images_came_from(tmp_path: Path) -> None:
    photos = tmp_path / "photos" / "city"
    photos.mkdir(parents=True)
    for number in range(5):
        (photos / f"p.{number}.png").write_bytes(png(noise_image(number)))
    pack(tmp_path / "one", tmp_path / "photos", max_samples=2)
    pack(tmp_path / "two", tmp_path / "one", max_samples=10)
    found = samples(tmp_path / "two")
    assert len(found) == 5
    assert {json.loads(sample["json"])["source"] for sample in found.values()} == {f"city/p.{n}.png" for n in range(5)}
    assert {key.split("/")[0] for key in found} == {"shard-000000", "shard-000001", "shard-000002"}


def test_folders_and_tars_together(clips: Path, tmp_path: Path) -> None:
    photos = tmp_path / "clips"
    photos.mkdir()
    (photos / "a.png").write_bytes(png(noise_image(1)))
    (photos / "inner.tar").write_bytes(b"passed over")
    found = samples_after(tmp_path, photos, clips)
    assert sorted(key.split("/")[0] for key in found) == ["clips"] + ["clips~2"] * 8
    assert "clips/a" in found
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["ignored_files"] == {".tar": 1}


def samples_after(tmp_path: Path, *inputs: Path | str) -> dict[str, dict[str, bytes]]:
    pack(tmp_path / "out", *inputs)
    return samples(tmp_path / "out")


@pytest.mark.parametrize("way", ["*.tar", "{a,b}.tar", "index.json", "", "file://"])
def test_ways_to_name_tars(way: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in "ab":
        write_tar(folder / f"{name}.tar", [("x.1.png", png(noise_image(ord(name))))])
    sizes = {name: (folder / f"{name}.tar").stat().st_size for name in "ab"}
    shards = [{"name": f"{name}.tar", "samples": 1, "bytes": size} for name, size in sizes.items()]
    index = {"format": "synthpipe-shards", "version": 1, "samples": 2, "shards": shards}
    (folder / "index.json").write_text(json.dumps(index))
    place = f"file://{folder}/*.tar" if way == "file://" else f"{folder}/{way}".rstrip("/")
    assert set(samples_after(tmp_path, place)) == {"a/x%2E1", "b/x%2E1"}


class TestRefused:
    def test_compressed(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
            tar.addfile(tarfile.TarInfo("a.png"), io.BytesIO(b""))
        with pytest.raises(ShardError, match=r"x\.tar\.gz: compressed tars .* unpack it"):
            ImageSources([str(tmp_path / "x.tar.gz")])

    @pytest.mark.parametrize("place", ["s3://bucket/x.tar", "http://h/{0..9}.tar", "s3://bucket/folder"])
    def test_remote(self, place: str) -> None:
        with pytest.raises(OptionError, match="copy them to this machine first"):
            ImageSources([place])

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match=r"x\.tar': expected a tar on this machine, found no such file"):
            ImageSources([str(tmp_path / "x.tar")])
        with pytest.raises(OptionError, match="expected an existing folder on this machine"):
            ImageSources([str(tmp_path / "absent")])

    def test_a_picture(self, tmp_path: Path) -> None:
        (tmp_path / "x.png").write_bytes(png(noise_image(0)))
        with pytest.raises(OptionError, match=r"x\.png': expected a folder of images, a tar"):
            ImageSources([str(tmp_path / "x.png")])

    def test_twice(self, clips: Path) -> None:
        with pytest.raises(OptionError, match="same file"):
            ImageSources([str(clips), f"{clips.parent}/./clips.tar"])

    def test_no_image(self, tmp_path: Path) -> None:
        tar = write_tar(tmp_path / "x.tar", [("a.txt", b"x")])
        with pytest.raises(ShardError, match=r"no images in .*x\.tar: .*1 \.txt"):
            pack(tmp_path / "out", tar)


def test_a_folder_of_images_with_shards_is_one_of_images(tmp_path: Path) -> None:
    """Also where a run of before has left an index among them."""
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(png(noise_image(1)))
    pack(tmp_path / "shards", photos)
    for name in ("index.json", "shard-000000.tar"):
        (photos / name).write_bytes((tmp_path / "shards" / name).read_bytes())
    report = pack(tmp_path / "out", photos)
    assert (report.images, report.ignored) == (1, {".json": 1, ".tar": 1})


def test_images_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(buffer, "JPEG")
    members = [("a.png", buffer.getvalue()), ("a.txt", b""), ("b.png", b"no image"), ("c.png", png(noise_image(1)))]
    report = pack(tmp_path / "out", write_tar(tmp_path / "x.tar", members))
    assert (report.images, report.index.samples, report.left_out) == (3, 2, {"unreadable": 1})
    assert samples(tmp_path / "out")["a"]["jpg"] == buffer.getvalue()


def test_a_clash_of_suffixes_is_counted(tmp_path: Path) -> None:
    """By its bytes the image is a JPEG, and there is another JPEG that belongs to it."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(buffer, "JPEG")
    members = [(f"{name}.{suffix}", buffer.getvalue()) for name in "ab" for suffix in ("png", "jpg")]
    with pytest.raises(ShardError, match="none of 2 images could be used"):
        pack(tmp_path / "out", write_tar(tmp_path / "x.tar", members))
    assert json.loads((tmp_path / "out" / "report.json").read_text())["left_out"] == {"duplicate_key": 2}


def test_the_plan_holds_what_is_needed(clips: Path) -> None:
    sources: Sequence[Any] = list(ImageSources([str(clips)]))
    assert all(isinstance(image, TarImage) for image in sources)
    with clips.open("rb") as file:
        for image in sources[:6]:
            file.seek(image.offset)
            assert file.read(4) == b"\x89PNG"
