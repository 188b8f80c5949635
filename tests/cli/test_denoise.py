"""``synthpipe denoise`` on folders and on shards, end to end through ``cli.main``."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from synthpipe import checkpoints
from synthpipe.cli import main
from synthpipe.denoisers.plain import PlainDenoiser
from synthpipe.files import storage
from synthpipe.pipeline.build import build_stream
from synthpipe.shards import engine
from synthpipe.shards.shard_index import read_index
from synthpipe.shards.shard_names import build_index, expand_urls
from synthpipe.shards.tar_sink import TarSink
from synthpipe.transforms.denoise import Denoise
from tests.scored_corpus import encoded, everything, photo, shard_photos, write_photos
from tests.shards.test_pack import die_at, run_and_die
from tests.stream_corpus import png, write_tar
from tests.transforms.test_denoise import tiny_plain

SIGMA = 0.1


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(checkpoints.save(tmp_path_factory.mktemp("weights") / "tiny.safetensors", tiny_plain()))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Eight pictures in three shards, PNG and JPEG by turns, as `synthpipe shard` packs them."""
    photos = write_photos(tmp_path_factory.mktemp("photos"), 8)
    return shard_photos(photos, tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def cleaned(shards: str, weights: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run that nothing disturbed leaves."""
    out = tmp_path_factory.mktemp("cleaned") / "out"
    assert denoise(weights, shards, out) == 0
    return out


def denoise(*argv: Any) -> int:
    return main(["denoise", *map(str, argv), "--sigma", str(SIGMA), "--workers", "1"])


def expected(pixels: np.ndarray, **options: Any) -> np.ndarray:
    """By the transform; its own tests say what it must give."""
    x = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
    y = Denoise(tiny_plain(), SIGMA, **options).clean(x)
    return (y[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def pixels_of(data: bytes | Path) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data) if isinstance(data, bytes) else data).convert("RGB"))


def members(path: Path | str) -> list[tuple[str, bytes]]:
    """By the standard library."""
    with tarfile.open(path) as tar:
        return [(m.name, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]


class TestFolders:
    def test_every_image_is_denoised_under_its_name(
        self, weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        save(tmp_path / "in" / "a.png", photo(0, 37, 50))
        save(tmp_path / "in" / "deep" / "b.png", photo(1, 90, 70))
        (tmp_path / "in" / "notes.txt").write_text("no image")
        assert denoise(weights, tmp_path / "in", tmp_path / "out", "--tile", 64) == 0
        found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
        assert found == ["a.png", "deep/b.png"]
        for name, pixels in (("a.png", photo(0, 37, 50)), ("deep/b.png", photo(1, 90, 70))):
            result = pixels_of(tmp_path / "out" / name)
            np.testing.assert_array_equal(result, expected(pixels, tile=64))
            assert np.abs(result.astype(int) - pixels).mean() > 1
        assert "2 of 2 images denoised" in capsys.readouterr().out

    def test_options_reach_the_transform(self, weights: str, tmp_path: Path) -> None:
        save(tmp_path / "a.png", photo(3, 40, 40))
        options = ["--min-sigma", 0.01, "--strength", 0.5, "--max-sigma", 0.2]
        assert denoise(weights, tmp_path / "a.png", tmp_path / "out", *options) == 0
        np.testing.assert_array_equal(
            pixels_of(tmp_path / "out" / "a.png"), expected(photo(3, 40, 40), min_sigma=0.01, strength=0.5)
        )
        assert denoise(weights, tmp_path / "a.png", tmp_path / "untouched", "--min-sigma", 1) == 0
        np.testing.assert_array_equal(pixels_of(tmp_path / "untouched" / "a.png"), photo(3, 40, 40))

    def test_broken_images_are_skipped_and_listed(
        self, weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        save(tmp_path / "in" / "good.png", photo(0))
        (tmp_path / "in" / "cut.png").write_bytes(encoded(1)[:200])
        assert denoise(weights, tmp_path / "in", tmp_path / "out") == 0
        captured = capsys.readouterr()
        assert "1 of 2 images denoised; skipped: 1 truncated" in captured.out
        assert "cut.png" in captured.err
        (tmp_path / "in" / "good.png").unlink()
        assert denoise(weights, tmp_path / "in", tmp_path / "other") == 1

    def test_a_network_that_gives_nan_is_no_result(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        model = PlainDenoiser(width=4, depth=2)
        for parameter in model.parameters():
            torch.nn.init.constant_(parameter, 1e30)  # a product of two is too large for float32
        bad = checkpoints.save(tmp_path / "bad.safetensors", model)
        save(tmp_path / "in" / "a.png", photo(0))
        assert denoise(bad, tmp_path / "in", tmp_path / "out") == 1
        assert "skipped: 1 not_finite" in capsys.readouterr().out


class TestShards:
    def test_the_same_samples_in_the_same_order_with_denoised_images(self, shards: str, cleaned: Path) -> None:
        index = read_index(cleaned)
        before = read_index(shards)
        assert [(shard.name, shard.samples) for shard in index.shards] == [
            (shard.name, shard.samples) for shard in before.shards
        ]
        for old_url, new_url in zip(before.urls(), index.urls(), strict=True):
            old, new = members(old_url), members(new_url)
            assert [name.rpartition(".")[0] for name, _ in new] == [name.rpartition(".")[0] for name, _ in old]
            for (old_name, old_data), (new_name, new_data) in zip(old, new, strict=True):
                if old_name.endswith("json"):
                    assert new_name == old_name
                    continue
                assert new_name == f"{old_name.rpartition('.')[0]}.png"
                np.testing.assert_array_equal(pixels_of(new_data), expected(pixels_of(old_data)))

    def test_the_note_beside_an_image_tells_of_the_new_file(self, shards: str, cleaned: Path) -> None:
        for old_url, new_url in zip(read_index(shards).urls(), read_index(cleaned).urls(), strict=True):
            notes = {name: json.loads(data) for name, data in members(old_url) if name.endswith("json")}
            images = {name: data for name, data in members(new_url) if name.endswith("png")}
            for name, data in members(new_url):
                if name.endswith("json"):
                    image = images[name.replace(".json", ".png")]
                    now = {"format": "png", "bytes": len(image), "sha256": hashlib.sha256(image).hexdigest()}
                    assert json.loads(data) == {**notes[name], **now}

    def test_the_index_is_what_a_scan_finds(self, cleaned: Path) -> None:
        found = build_index([str(cleaned / shard.name) for shard in read_index(cleaned).shards])
        assert [(s.samples, s.bytes) for s in found.shards] == [
            (s.samples, s.bytes) for s in read_index(cleaned).shards
        ]
        for shard in read_index(cleaned).shards:
            assert hashlib.sha256((cleaned / shard.name).read_bytes()).hexdigest() == shard.sha256

    def test_a_stream_of_them_is_the_denoised_stream(self, tmp_path: Path, weights: str) -> None:
        """Denoised on disk or on the way: the same bits, where a tile is a whole image."""
        shard = write_tar(tmp_path / "s.tar", [(f"{n}.png", png(photo(n, 24, 24))) for n in range(5)])
        assert denoise(weights, shard, tmp_path / "out") == 0
        runs = []
        for source, rule in ((str(tmp_path / "out"), None), (str(shard), {"weights": weights, "sigma": SIGMA})):
            rule = rule and rule | {"border": 0}
            options = {"shards": source, "gt_size": 24, "scale": 1, "epochs": 1, "drop_last": False, "denoise": rule}
            options |= {"hflip": False, "rotate": False}
            with build_stream(options) as stream:
                runs.append({key: x for b in stream for key, x in zip(b["key"], b["gt"], strict=True)})
        assert runs[0].keys() == runs[1].keys()
        assert len(runs[0]) == 5
        differing = torch.stack([(runs[0][key] - runs[1][key]).abs() for key in runs[0]])
        assert differing.max() < 1.01 / 255
        assert (differing > 0).float().mean() < 0.001

    @pytest.fixture
    def odd_shard(self, tmp_path: Path) -> Path:
        """Two good samples, a cut image, one without image, and members that are none of our business."""
        return write_tar(
            tmp_path / "odd.tar",
            [
                ("x/a.JPG", encoded(0, "JPEG")),
                ("x/a.json", b'{"caption": "a"}'),
                ("x/a.seg.png", b"a mask"),
                ("b.png", encoded(1)[:200]),
                ("b.txt", b"broken"),
                ("c.txt", b"no image"),
                ("d.cls", b"7"),
                ("d.webp", encoded(2, "WEBP")),
                ("d" * 150 + ".png", encoded(3)),
            ],
        )

    def test_other_members_stay_and_broken_samples_go(
        self, odd_shard: Path, weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert denoise(weights, odd_shard, tmp_path / "out") == 0
        found = members(tmp_path / "out" / "odd.tar")
        assert [name for name, _ in found] == [
            "x/a.png", "x/a.json", "x/a.seg.png", "d.cls", "d.png", "d" * 150 + ".png",
        ]  # fmt: skip
        assert [data for name, data in found if name[-3:] in ("son", "cls")] == [b'{"caption": "a"}', b"7"]
        assert dict(found)["x/a.seg.png"] == b"a mask"
        np.testing.assert_array_equal(pixels_of(dict(found)["d.png"]), expected(pixels_of(encoded(2, "WEBP"))))
        out = capsys.readouterr().out
        assert "3 of 5 images denoised, in 1 shard" in out
        assert "skipped: 1 missing_image, 1 truncated; see " in out
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert [(row["image"], row["reason"]) for row in report["broken"]] == [
            ("b.png", "truncated"),
            ("c", "missing_image"),
        ]
        assert read_index(tmp_path / "out").samples == 3

    def test_broken_samples_are_copied_on_request(self, odd_shard: Path, weights: str, tmp_path: Path) -> None:
        assert denoise(weights, odd_shard, tmp_path / "out", "--broken", "copy") == 0
        found = dict(members(tmp_path / "out" / "odd.tar"))
        assert found["b.png"] == encoded(1)[:200]
        assert found["b.txt"] == b"broken"
        assert read_index(tmp_path / "out").samples == 4

    def test_nothing_usable_is_a_failure(
        self, weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shard = write_tar(tmp_path / "s.tar", [("a.png", b"no image")])
        assert denoise(weights, shard, tmp_path / "out") == 1
        assert "none of 1 image could be used (1 unreadable)" in capsys.readouterr().err
        assert not (tmp_path / "out" / "index.json").exists()


class TestInterruptions:
    @pytest.mark.parametrize("after", [False, True])
    def test_at_every_rename(
        self, shards: str, weights: str, cleaned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
    ) -> None:
        renames = 1 + 2 * 3 + 2  # plan; three shards with their states; report and index
        for number in range(renames):
            out = tmp_path / str(number)
            with monkeypatch.context() as patch:
                patch.setattr(storage.os, "replace", die_at(number, os.replace, after))
                run_and_die(lambda out=out: denoise(weights, shards, out))
            if number < renames - 1:
                assert not (out / "index.json").exists()
            assert denoise(weights, shards, out) == 0
            assert everything(out) == everything(cleaned)

    def test_in_the_middle_of_a_shard(
        self, shards: str, weights: str, cleaned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(TarSink, "add", die_at(4, TarSink.add))
            run_and_die(lambda: denoise(weights, shards, tmp_path / "out"))
        denoise(weights, shards, tmp_path / "out")
        assert everything(tmp_path / "out") == everything(cleaned)

    def test_finished_shards_are_kept_unless_they_or_their_source_changed(
        self, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in "ab":
            write_tar(tmp_path / f"{name}.tar", [(f"{name}{n}.png", encoded(n)) for n in range(2)])
        source, out = str(tmp_path / "{a,b}.tar"), tmp_path / "out"
        assert denoise(weights, source, out) == 0
        whole = everything(out)
        with monkeypatch.context() as patch:
            patch.setattr(TarSink, "add", lambda *args: pytest.fail("written again"))
            assert denoise(weights, source, out) == 0
        damaged = bytearray((out / "a.tar").read_bytes())
        damaged[700] ^= 1
        (out / "a.tar").write_bytes(damaged)
        assert denoise(weights, source, out) == 0
        assert everything(out) == whole
        write_tar(tmp_path / "b.tar", [("b9.png", encoded(9))])
        assert denoise(weights, source, out) == 0
        assert [name for name, _ in members(out / "b.tar")] == ["b9.png"]
        assert everything(out)["a.tar"] == whole["a.tar"]

    def test_workers_change_nothing(
        self, shards: str, weights: str, cleaned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fork = multiprocessing.get_context("fork")
        monkeypatch.setattr(engine.multiprocessing, "get_context", lambda name: fork)
        argv = ["denoise", weights, shards, str(tmp_path / "out"), "--sigma", str(SIGMA), "--workers", "2"]
        assert main(argv) == 0
        assert everything(tmp_path / "out") == everything(cleaned)


class TestUsage:
    def test_another_run_in_the_same_folder_is_refused(
        self, shards: str, weights: str, cleaned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        kept = everything(cleaned)
        other = checkpoints.save(tmp_path / "tiny.safetensors", tiny_plain(seed=1))
        for argv in (
            (other, shards, cleaned),
            (weights, shards, cleaned, "--strength", "0.5"),
            (weights, shards, cleaned, "--broken", "copy"),
            (weights, expand_urls(shards)[0], cleaned),
        ):
            assert denoise(*argv) == 1
            assert "begun with other options: " in capsys.readouterr().err
        assert denoise(weights, shards, shards) == 2
        assert "which is read" in capsys.readouterr().err
        assert everything(cleaned) == kept

    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            (["--sigma", "25"], "expected auto, or a level from 0 to 1"),
            (["--hole", "1"], "is no blind-spot network"),
            (["--tile", "64", "--overlap", "32"], "4 times the overlap"),
            (["--device", "gpu9"], "--device: 'gpu9'"),
        ],
    )
    def test_bad_arguments(
        self, weights: str, tmp_path: Path, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        save(tmp_path / "in" / "a.png", photo(0))
        assert main(["denoise", weights, str(tmp_path / "in"), str(tmp_path / "out"), *argv]) == 2
        assert message in capsys.readouterr().err

    def test_what_is_not_there(self, weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert denoise(weights, tmp_path / "nowhere", tmp_path / "out") == 1
        said = capsys.readouterr().err
        assert "expected a folder of images, one image, or shards (tars, their folder or index), found no" in said
        assert str(tmp_path / "nowhere") in said
        save(tmp_path / "in" / "a.png", photo(0))
        assert denoise("deflow_small", tmp_path / "in", tmp_path / "out") == 1
        assert "expected a denoiser" in capsys.readouterr().err
        save(tmp_path / "more" / "b.png", photo(1))
        assert denoise(weights, tmp_path / "in", tmp_path / "more", tmp_path / "out") == 2
        assert "one folder of images at a time" in capsys.readouterr().err
        assert denoise(weights, tmp_path / "in" / "a.png", tmp_path / "more" / "b.png", tmp_path / "out") == 2
        assert "or one image, got 2" in capsys.readouterr().err

    def test_one_file_is_told_by_its_bytes_as_by_degrade(
        self, weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        save(tmp_path / "a.png", photo(0))
        (tmp_path / "a.png").rename(tmp_path / "a")
        assert denoise(weights, tmp_path / "a", tmp_path / "out") == 0
        with Image.open(tmp_path / "out" / "a.png") as image:
            assert image.size == photo(0).shape[1::-1]
        (tmp_path / "text").write_text("no image")
        capsys.readouterr()
        assert denoise(weights, tmp_path / "text", tmp_path / "out") == 1
        assert "no image below" in capsys.readouterr().err

    def test_help_has_an_example(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["denoise", "--help"])
        assert ended.value.code == 0
        assert "example:\n  synthpipe denoise " in capsys.readouterr().out
