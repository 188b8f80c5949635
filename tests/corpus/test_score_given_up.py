"""What scored images held and the scorer did not see: in the table, the parts, the cache and the printed end."""

from __future__ import annotations

import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageCms

from synthpipe.cli import main
from synthpipe.config.score import CorpusFilterOptions
from synthpipe.corpus.filter import filter_corpus
from synthpipe.corpus.score_cache import CachedScore, ScoreCache
from tests.file_corpus.colour_math import ADOBE
from tests.file_corpus.icc import rgb_profile
from tests.lossy_images import Lossy, lossy_images, saved, sum_of, write_images
from tests.scored_corpus import rows_of, score, shard_photos, write_weights
from tests.stream_corpus import noise_image, png, write_tar

IMAGES = lossy_images()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(write_images(tmp_path / "images", IMAGES))


def lost(path: Path) -> dict[str, str | None]:
    return {row["path"]: row["given_up"] for row in rows_of(path)}


EXPECTED = {name: " ".join(sorted(image.given_up)) or None for name, image in IMAGES.items()}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_folder(weights: str, folder: str, tmp_path: Path, workers: int) -> None:
    report = score(weights, folder, tmp_path / "t.parquet", workers=workers)
    assert lost(tmp_path / "t.parquet") == EXPECTED
    assert report.given_up == sum_of(IMAGES.values())
    assert report.examples["further_pages"] == ["stack.tif"]
    assert report.examples["converted_profile"] == ["camera.jpg", "camera.tif"]


def test_shards_and_a_second_run_say_the_same(weights: str, folder: str, tmp_path: Path) -> None:
    shards = shard_photos(Path(folder), tmp_path / "shards")
    first = score(weights, shards, tmp_path / "t.parquet")
    again = score(weights, shards, tmp_path / "t.parquet")
    assert again.reused_units == first.units == 3
    assert (again.given_up, again.examples) == (first.given_up, first.examples)
    assert first.given_up == sum_of(IMAGES.values())


def test_the_command_prints_it(weights: str, folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", weights, folder, str(tmp_path / "t.parquet"), "--tiles", "1", "--workers", "1"]) == 0
    said = capsys.readouterr().err
    counts = ", ".join(f"{count} {reason}" for reason, count in sum_of(IMAGES.values()).items())
    assert f"given up: {counts}\n" in said
    assert "  flattened_alpha: transparency composited on white; palette.png, sprite.webp\n" in said


def test_an_image_without_a_score_has_an_error_and_nothing_given_up(weights: str, tmp_path: Path) -> None:
    small = Lossy(lossy_images(8, 8)["grey.jpg"].data, {})
    folder = write_images(tmp_path / "images", {"small.jpg": small, "plain.png": IMAGES["plain.png"]})
    report = score(weights, str(folder), tmp_path / "t.parquet")
    assert (report.errors, report.given_up) == ({"too_small": 1}, {})
    assert lost(tmp_path / "t.parquet") == {"plain.png": None, "small.jpg": None}


def test_the_cache_keeps_it(weights: str, folder: str, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    first = score(weights, folder, tmp_path / "a.parquet", cache=cache)
    second = score(weights, folder, tmp_path / "b.parquet", cache=cache)
    assert (first.misses, second.hits, second.misses) == (len(IMAGES), len(IMAGES), 0)
    assert second.given_up == first.given_up
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_an_entry_of_an_earlier_cache_is_read(tmp_path: Path) -> None:
    cache = ScoreCache(str(tmp_path), "x")
    cache.put({"ab" * 32: CachedScore(3, 4, (1.5,), 2, None)})
    with sqlite3.connect(cache.path) as connection:
        connection.execute("UPDATE scores SET score = ?", (json.dumps([3, 4, [1.5], 2, None]),))
    connection.close()
    assert cache.get("ab" * 32) == CachedScore(3, 4, (1.5,), 2, None, {})


def rewrite(path: Path, columns: set[str] = frozenset(), keys: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """A table as a version wrote it that had neither these columns nor these facts."""
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"synthpipe"])
    kept = {name: value for name, value in about.items() if name not in keys}
    table = table.drop_columns(list(columns)).replace_schema_metadata({b"synthpipe": json.dumps(kept)})
    pq.write_table(table, path)


def test_parts_of_a_version_that_ignored_profiles_are_scored_again(weights: str, folder: str, tmp_path: Path) -> None:
    score(weights, folder, tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    (part,) = (tmp_path / "t.parts").glob("*.parquet")
    rewrite(part, {"given_up"}, {"colors"})
    report = score(weights, folder, tmp_path / "t.parquet")
    assert report.reused_units == 0
    assert (tmp_path / "t.parquet").read_bytes() == whole


def test_a_table_of_an_earlier_version_is_filtered_by(weights: str, folder: str, tmp_path: Path) -> None:
    shards = shard_photos(Path(folder), tmp_path / "shards")
    score(weights, shards, tmp_path / "t.parquet")
    rewrite(tmp_path / "t.parquet", {"given_up"}, {"colors"})
    places: dict[str, Any] = {"source": (shards,), "scores": str(tmp_path / "t.parquet")}
    filter_corpus(CorpusFilterOptions(**places, output=str(tmp_path / "kept"), max_logit=1e9))
    assert len(list((tmp_path / "kept").glob("*.tar"))) == 3


def test_scores_go_by_the_colours_that_a_profile_means(weights: str, tmp_path: Path) -> None:
    """The same picture, once converted by LittleCMS beforehand: one score, but for rounding."""
    picture = Image.fromarray(noise_image(4)).resize((72, 60), Image.Resampling.BICUBIC)
    tagged = saved(picture, "PNG", icc_profile=rgb_profile(ADOBE))
    source = ImageCms.ImageCmsProfile(io.BytesIO(rgb_profile(ADOBE)))
    converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"))
    assert converted is not None
    images = {"tagged.png": tagged, "converted.png": saved(converted, "PNG"), "untagged.png": saved(picture, "PNG")}
    tar = write_tar(tmp_path / "a.tar", list(images.items()))
    score(weights, str(tar), tmp_path / "t.parquet", tiles=16)
    found = {row["path"]: row["degraded_logit"] for row in rows_of(tmp_path / "t.parquet")}
    assert found["tagged.png"] == pytest.approx(found["converted.png"], abs=0.02)
    assert found["tagged.png"] != pytest.approx(found["untagged.png"], abs=0.02)


def test_max_pixels_and_that_it_is_no_other_runs_part_or_cache(weights: str, tmp_path: Path) -> None:
    images = {"a.png": Lossy(png(noise_image(0, 60, 72)), {}), "b.png": Lossy(png(noise_image(1, 61, 72)), {})}
    folder, cache = str(write_images(tmp_path / "images", images)), str(tmp_path / "cache")
    limited = score(weights, folder, tmp_path / "t.parquet", max_pixels=60 * 72, cache=cache)
    assert limited.errors == {"bomb": 1}
    report = score(weights, folder, tmp_path / "t.parquet", cache=cache)
    assert (report.errors, report.reused_units, report.hits) == ({}, 0, 0)
