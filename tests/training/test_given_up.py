"""What images of trainings, calibrations and previews have lost is counted by reason, each image once, and said."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from synthpipe import checkpoints
from synthpipe.cli import main
from synthpipe.config.run import DomainOptions, ReadingOptions
from synthpipe.density import DDE
from synthpipe.training.data.folder_domain import FolderDomain
from synthpipe.training.data.readers import FolderReader, read_domain
from synthpipe.training.evaluate import held_out_likelihood
from tests.lossy_images import Lossy, lossy_images, saved, sum_of, write_images
from tests.stream_corpus import noise_image, png, write_tar

IMAGES = lossy_images()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(write_images(tmp_path / "images", IMAGES))


def domain(folder: str, crop: int = 32, **reading: Any) -> FolderDomain:
    options = DomainOptions(folder=folder, weight="uniform")
    return FolderDomain("clean", options, ReadingOptions(augment="none", **reading), crop, per_step=1, seed=0)


def read_all(source: FolderDomain) -> None:
    seen: set[str] = set()
    step = 0
    while len(seen) < len(source):
        seen.add(source.crop(step, 0)[1])
        step += 1


def test_each_image_of_a_folder_counts_once_however_often_it_is_read(folder: str) -> None:
    source = domain(folder)
    assert source.given_up == {}
    read_all(source)
    for index in range(len(source)):
        source._read(index)
    assert dict(sorted(source.given_up.items())) == sum_of(IMAGES.values())
    assert source.skipped == {}
    reader = FolderReader(source, range(1), 0, 1)
    assert reader.describe()["given_up"] == sum_of(IMAGES.values())


def test_the_first_five_of_a_reason_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_images(tmp_path / "grey", {f"{n}.jpg": IMAGES["grey.jpg"] for n in range(8)})
    with caplog.at_level(logging.INFO):
        read_all(domain(str(folder)))
    lines = [line for line in caplog.messages if "given up" in line]
    assert len(lines) == 5
    assert all(line.startswith(f"clean: given up (grey_to_rgb): {folder}/") for line in lines)


def test_an_image_that_is_skipped_gives_nothing_up(tmp_path: Path) -> None:
    images = {"small.jpg": lossy_images(20, 20)["grey.jpg"], "fine.png": IMAGES["plain.png"]}
    source = domain(str(write_images(tmp_path / "images", images)))
    read_all(source)
    assert (dict(source.skipped), dict(source.given_up)) == ({"too_small": 1}, {})


def test_a_domain_of_shards_counts_too(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", [("0.jpg", IMAGES["grey.jpg"].data)])
    reader = read_domain("clean", DomainOptions(shards=str(shard)), ReadingOptions(workers=0), 32, range(1), 0)
    try:
        reader.next()
        found = reader.describe()
    finally:
        reader.close()
    assert found["given_up"] == {"grey_to_rgb": found["counts"]["used"]}


def test_a_photograph_of_95_megapixels_is_trained_on_as_it_is_packed(tmp_path: Path) -> None:
    """Beside a sibling in another format; both are larger than Pillow's own limit, which warns of 89 million."""
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (10000, 9500), (90, 80, 70)).save(folder / "phone.jpg", quality=60)
    Image.new("L", (9500, 9600), 77).save(folder / "scan.png", compress_level=1)
    source = domain(str(folder))
    assert (len(source), dict(source.skipped)) == (2, {})
    read_all(source)
    assert (dict(source.skipped), dict(source.given_up)) == ({}, {"grey_to_rgb": 1})


def test_max_pixels_of_a_folder_and_of_shards(tmp_path: Path) -> None:
    images = {"a.png": Lossy(png(noise_image(0, 60, 72)), {}), "b.png": Lossy(png(noise_image(1, 61, 72)), {})}
    source = domain(str(write_images(tmp_path / "images", images)), max_pixels=60 * 72)
    assert (len(source), dict(source.skipped)) == (1, {"bomb": 1})
    shard = write_tar(tmp_path / "a.tar", [(name, image.data) for name, image in images.items()])
    reading = ReadingOptions(workers=0, max_pixels=60 * 72)
    reader = read_domain("clean", DomainOptions(shards=str(shard)), reading, 32, range(1), 0)
    try:
        reader.next()
        assert reader.describe()["counts"]["bomb"] >= 1
    finally:
        reader.close()


class Flat:
    """A flow to which everything is equally likely."""

    size_multiple = 8

    def parameters(self) -> Any:
        return iter([torch.zeros(1)])

    def nll(self, x: torch.Tensor, domain: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.zeros(len(x))

    def bits_per_dim(self, nll: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return torch.tensor(8.0)


def test_a_likelihood_says_what_its_images_have_lost(folder: str) -> None:
    found = held_out_likelihood(Flat(), folder, 0)  # type: ignore[arg-type]
    assert (found.images, found.given_up) == (len(IMAGES), sum_of(IMAGES.values()))


@pytest.fixture
def dde(tmp_path: Path) -> str:
    model = DDE(width=2, depth=2, outputs=2, domains=("clean", "noise"))
    return str(checkpoints.save(tmp_path / "dde.safetensors", model, {"terms": "none"}))


def test_calibrate_prints_and_keeps_what_was_given_up(
    dde: str, folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(folder) / "large.png").write_bytes(png(noise_image(0, 80, 80)))
    target = tmp_path / "scorer.safetensors"
    argv = ["--tile", "16", "--levels", "0.05", "--families", "noise"]
    assert main(["calibrate", dde, folder, str(target), *argv, "--max-pixels", "6000"]) == 0
    said = capsys.readouterr()
    assert "skipped: 1 bomb" in said.out
    expected = sum_of(IMAGES.values())
    assert "given up: " + ", ".join(f"{count} {reason}" for reason, count in expected.items()) in said.err
    assert f"calibrate: given up (further_pages): {folder}/stack.tif" in said.err
    info = checkpoints.read_header(target)["info"]["calibration"]
    assert info["given_up"] == expected


def test_a_preview_says_what_stream_and_real_images_have_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8)
    shard = write_tar(tmp_path / "a.tar", [("0.png", saved(grey, "PNG")), ("1.png", saved(grey, "PNG"))])
    real = tmp_path / "real"
    real.mkdir()
    (real / "stack.gif").write_bytes(saved(grey, "GIF", save_all=True, append_images=[Image.fromarray(grey.T)]))
    (real / "grey.png").write_bytes(saved(grey, "PNG"))
    options = {"shards": str(shard), "gt_size": 64, "scale": 2, "degrade": {"type": "classical"}}
    (tmp_path / "stream.yml").write_text(yaml.safe_dump(options))
    argv = [str(tmp_path / "stream.yml"), str(tmp_path / "out"), "--real", str(real), "--rows", "1", "--crop", "32"]
    assert main(["preview", *argv]) == 0
    said = capsys.readouterr().err
    assert "given up: 1 further_pages, " in said
    assert "grey_to_rgb: one grey channel repeated three times" in said
