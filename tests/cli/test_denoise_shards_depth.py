"""``synthpipe denoise`` of shards keeps what each image was: grey, alpha, 16 bits, EXIF; the rest is counted."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from synthpipe.cli import main
from tests.files.icc_bytes import ADOBE_RGB, rgb_profile
from tests.files.image_bytes import png
from tests.files.library_images import samples, saved, tiff
from tests.stream_corpus import write_tar

GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6


def members(folder: Path) -> dict[str, bytes]:
    (shard,) = folder.glob("*.tar")
    with tarfile.open(shard) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def read(data: bytes) -> np.ndarray:
    """``(H, W, C)`` at the file's own depth, by libpng."""
    array = imagecodecs.png_decode(data)
    return array if array.ndim == 3 else array[..., None]


KINDS = {
    "grey": ("png", samples((20, 24, 1)), GREY),
    "grey_alpha": ("png", samples((20, 24, 2)), GREY_ALPHA),
    "alpha": ("png", samples((20, 24, 4)), RGBA),
    "deep": ("png", samples((20, 24, 3), np.uint16), RGB),
    "deep_alpha": ("png", samples((20, 24, 4), np.uint16), RGBA),
}
STACK = samples((3, 20, 24, 3), np.uint16)
SENSOR = samples((20, 24, 1), np.uint16) >> 4


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    files = [(f"{name}.{suffix}", png(values, kind)) for name, (suffix, values, kind) in KINDS.items()]
    profile = b"x\0\0" + zlib.compress(rgb_profile(ADOBE_RGB, 563 / 256))
    files += [
        ("photo.webp", saved(Image.fromarray(samples((20, 24, 3))), format="WEBP", lossless=True, exif=exif)),
        ("sensor.tif", tiff(SENSOR[..., 0])),
        ("stack.tif", tiff(STACK, photometric="rgb")),
        ("wide.png", png(samples((20, 24, 3)), RGB, chunks=((b"iCCP", profile),))),
    ]
    (tmp_path / "hr").mkdir()
    write_tar(tmp_path / "hr" / "a.tar", files)
    return tmp_path / "hr"


def denoise(shards: Path, target: Path, *options: str) -> int:
    """Nothing is as noisy as that, so that each image is left as it is."""
    words = ["denoise", "blind_spot_small", str(shards), str(target), "--min-sigma", "1", "--workers", "1"]
    return main([*words, *options])


def test_images_stay_what_they_were(shards: Path, tmp_path: Path) -> None:
    assert denoise(shards, tmp_path / "out") == 0
    found = members(tmp_path / "out")
    assert len(found) == len(KINDS) + 4
    for name, (_, values, _) in KINDS.items():
        result = read(found[f"{name}.png"])
        assert result.dtype == values.dtype
        np.testing.assert_array_equal(result, values)
    np.testing.assert_array_equal(read(found["sensor.png"]), SENSOR)
    np.testing.assert_array_equal(read(found["stack.png"]), STACK[0])
    with Image.open(io.BytesIO(found["photo.png"])) as image:
        assert image.getexif()[0x010F] == "Maker"


def test_what_is_given_up_is_counted(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert denoise(shards, tmp_path / "out") == 0
    said = capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["given_up"] == {"converted_profile": 1, "further_pages": 2, "narrow_range": 1}
    assert report["examples"] == {
        "converted_profile": ["wide.png"],
        "further_pages": ["stack.tif"],
        "narrow_range": ["sensor.tif"],
    }
    assert "given up: 1 converted_profile, 2 further_pages, 1 narrow_range\n" in said
    # A second run finds everything done and says the same.
    assert denoise(shards, tmp_path / "out") == 0
    assert capsys.readouterr().err == said


def test_plain_images_have_no_such_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hr").mkdir()
    write_tar(tmp_path / "hr" / "a.tar", [("a.png", png(samples((20, 24, 3)), RGB))])
    assert denoise(tmp_path / "hr", tmp_path / "out") == 0
    assert "given up" not in capsys.readouterr().err
    assert "given_up" not in (tmp_path / "out" / "report.json").read_text()


def test_how_images_are_read(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert denoise(shards, tmp_path / "out", "--pages", "refuse", "--range", "1023") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    reasons = {image["image"]: image["reason"] for image in report["broken"]}
    deep = {"deep.png", "deep_alpha.png", "sensor.tif", "stack.tif"}
    assert reasons == dict.fromkeys(deep, "out_of_range")
    assert denoise(shards, tmp_path / "two", "--pages", "refuse") == 0
    report = json.loads((tmp_path / "two" / "report.json").read_text())
    assert [(image["image"], image["reason"]) for image in report["broken"]] == [("stack.tif", "pages")]
    capsys.readouterr()
    assert denoise(shards, tmp_path / "two") == 1
    assert "refuse_pages" in capsys.readouterr().err
    assert denoise(shards, tmp_path / "three", "--pages", "all") == 2
    assert "--pages all: a sample of a shard is one image" in capsys.readouterr().err
    assert denoise(shards, tmp_path / "four", "--max-pixels", str(20 * 24 - 1)) == 1
    assert "bomb" in capsys.readouterr().err


def test_the_note_beside_a_deep_image_tells_of_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tif").write_bytes(tiff(samples((20, 24, 3), np.uint16), photometric="rgb"))
    assert main(["shard", str(tmp_path / "in"), str(tmp_path / "hr"), "--workers", "1"]) == 0
    assert denoise(tmp_path / "hr", tmp_path / "out") == 0
    found = members(tmp_path / "out")
    (note,) = (json.loads(data) for name, data in found.items() if name.endswith("json"))
    (image,) = (data for name, data in found.items() if name.endswith("png"))
    assert (note["width"], note["height"], note["format"], note["bytes"]) == (24, 20, "png", len(image))
    assert note["sha256"] == hashlib.sha256(image).hexdigest()
    np.testing.assert_array_equal(read(image), samples((20, 24, 3), np.uint16))


def test_a_folder_that_a_version_without_colours_began_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    write_tar(tmp_path / "in" / "a.tar", [("a.png", png(samples((20, 24, 3)), RGB))])
    command = ["denoise", "blind_spot_small", str(tmp_path / "in" / "a.tar"), str(tmp_path / "out"), "--workers=1"]
    assert main(command) == 0
    plan = tmp_path / "out" / "_state" / "plan.json"
    text = json.loads(plan.read_text())
    # What commit 433fa2b wrote.
    del text["edit"]["denoise"]["colors"]
    plan.write_text(json.dumps(text))
    assert main(command) == 1
    assert "denoise.colors was None, is 'srgb'" in capsys.readouterr().err
