"""A folder that is written to is noticed where it is read, by whatever links."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from synthpipe.errors import OptionError
from synthpipe.files.folder_walk import walk_image_folders
from synthpipe.files.image_files import list_images
from synthpipe.files.output_place import OutputPlace, local_output
from synthpipe.files.source_files import SourceFolders


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """``photos/{a.png,sub/b.png}``, and ``photos/linked`` that leads to ``store/``."""
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    (tmp_path / "store" / "deep").mkdir(parents=True)
    for name in ("photos/a.png", "photos/sub/b.png", "store/deep/c.png"):
        (tmp_path / name).touch()
    (tmp_path / "photos" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "alias").symlink_to(tmp_path / "photos")
    return tmp_path / "photos"


def _walk(photos: Path, output: OutputPlace) -> tuple[list[str], Counter[str]]:
    passed_over: Counter[str] = Counter()
    found = [folder.below + name for folder in walk_image_folders(photos, passed_over, output) for name in folder.names]
    return sorted(found), passed_over


@pytest.mark.parametrize(
    "output",
    [
        "photos",
        "photos/out",
        "photos/not/there/yet",
        "photos/sub",
        "alias",
        "alias/out",
        "store",  # inside through the link
        "store/deep/out",
        "photos/linked/deep",
        "out/../photos/x",
    ],
)
def test_an_output_inside_the_input_is_refused(photos: Path, output: str) -> None:
    place = OutputPlace(photos.parent / output)
    with pytest.raises(OptionError, match=r"which is read.*name a folder beside it"):
        _walk(photos, place)
    with pytest.raises(OptionError, match="which is read"):
        list_images(photos, None, place)
    with pytest.raises(OptionError, match="which is read"):
        list(SourceFolders([str(photos)], place))
    assert not (photos / "out").exists()


@pytest.mark.parametrize("output", ["photos2", "out/photos", "elsewhere", "photos/../photos.out", "."])
def test_an_output_beside_or_around_the_input_is_not(photos: Path, output: str) -> None:
    found, _ = _walk(photos, OutputPlace(photos.parent / output))
    assert found == ["a.png", "linked/deep/c.png", "sub/b.png"]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("photos", ["a.png", "linked/deep/c.png", "sub/b.png"]),
        ("photos/sub", ["a.png", "linked/deep/c.png"]),
        ("store/deep", ["a.png", "sub/b.png"]),
        ("photos/out", ["a.png", "linked/deep/c.png", "sub/b.png"]),
    ],
)
def test_in_place_what_lies_in_the_output_is_left_out(photos: Path, output: str, expected: list[str]) -> None:
    found, passed_over = _walk(photos, OutputPlace(photos.parent / output, in_place=True))
    assert found == expected
    assert passed_over == (Counter() if len(expected) == 3 else Counter({"(output folder)": 1}))


def test_a_remote_output_is_no_place_here() -> None:
    assert local_output("s3://bucket/out") is None
    found = local_output("file:///data/out")
    assert found is not None
    assert found.path == Path("/data/out")
