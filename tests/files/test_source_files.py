"""Keys of image folders, held against WebDataset's own rules for splitting names."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from synthpipe.errors import OptionError
from synthpipe.files.source_files import SourceFolders
from tests.files.file_tree import make


def keys(*folders: Path) -> dict[str, str]:
    return {file.source: file.key for file in SourceFolders([str(folder) for folder in folders])}


def test_plain_names_stay_readable(tmp_path: Path) -> None:
    make(tmp_path, "b.png", "city/night/IMG 0001.JPG", "città/été-1.webp", "写真.tiff")
    assert keys(tmp_path) == {
        "b.png": "b",
        "写真.tiff": "写真",
        "city/night/IMG 0001.JPG": "city/night/IMG 0001",
        "città/été-1.webp": "città/été-1",
    }


def test_names_that_others_would_misread(tmp_path: Path) -> None:
    make(tmp_path, "v1.2/a.b.png", "100%.png", "__MACOSX__/x.png", "a:b?.png", b"\xff.png", "line\nbreak.png")
    assert sorted(keys(tmp_path).values()) == sorted(
        ["v1%2E2/a%2Eb", "100%25", "%5F_MACOSX__/x", "a%3Ab%3F", "%ED%B3%BF", "line%0Abreak"]
    )


def test_same_stem_in_one_folder(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "a.jpg", "a.JPG", "a.jpg.png", "b.png", "c/a.png")
    assert keys(tmp_path) == {
        "a.JPG": "a%JPG",
        "a.jpg": "a%jpg",
        "a.png": "a%png",
        "a.jpg.png": "a%2Ejpg",
        "b.png": "b",
        "c/a.png": "c/a",
    }


def test_several_inputs_are_kept_apart(tmp_path: Path) -> None:
    first, second = make(tmp_path / "x" / "train", "a.png"), make(tmp_path / "y" / "train", "a.png")
    third = make(tmp_path / "z" / "train~2", "a.png")
    assert keys(first, second, third) == {
        "train/a.png": "train/a",
        "train~2/a.png": "train~2/a",
        "train~2~2/a.png": "train~2~2/a",
    }


def test_order_does_not_depend_on_creation(tmp_path: Path) -> None:
    names = ["b/2.png", "b/10.png", "a.png", "c.png", "B/1.png"]
    make(tmp_path / "one", *names)
    make(tmp_path / "two", *reversed(names))
    assert list(keys(tmp_path / "one")) == list(keys(tmp_path / "two"))
    assert sorted(keys(tmp_path / "one")) == sorted(names)


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "readme.txt", "b.exr", "c.EXR", ".hidden.png", ".git/x.png", "LICENSE")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    folders = SourceFolders([str(tmp_path)])
    assert [file.key for file in folders] == ["a"]
    expected = {".txt": 1, ".exr": 2, "(hidden)": 2, "(no suffix)": 1, "(dangling link)": 1, "(circular link)": 1}
    assert folders.ignored == expected
    assert len(list(folders)) == 1
    assert folders.ignored == expected


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "a.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    assert keys(tmp_path / "in") == {"linked/a.png": "linked/a"}


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("a", "a")])
def test_overlapping_inputs_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    make(tmp_path / "a" / "b", "x.png")
    with pytest.raises(OptionError, match="overlap"):
        SourceFolders([str(tmp_path / name) for name in names])


@pytest.mark.parametrize("name", ["missing", "file.png", "s3://bucket/folder"])
def test_inputs_that_are_no_folders_are_refused(tmp_path: Path, name: str) -> None:
    make(tmp_path, "file.png")
    with pytest.raises(OptionError, match="expected an existing folder"):
        SourceFolders([name if "://" in name else str(tmp_path / name)])


_CHARACTERS = st.characters(exclude_characters="/\0", codec="utf-8")
_PART = st.text(st.sampled_from("a._%~-2EF") | _CHARACTERS, min_size=1, max_size=6).filter(lambda t: t[0] != ".")
_PARTS = st.lists(_PART, min_size=1, max_size=2)
_PATH = st.builds(lambda parts, suffix: "/".join(parts) + suffix, _PARTS, st.sampled_from([".png", ".jpg", ".JPG"]))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(paths=st.lists(_PATH, min_size=1, max_size=8, unique=True))
def test_keys_are_unique_and_webdataset_finds_them_again(paths: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for path in paths:
            below = folder / path
            if below.is_dir() or any(parent.is_file() for parent in below.parents):
                continue
            below.parent.mkdir(parents=True, exist_ok=True)
            below.write_bytes(b"x")
        found = list(SourceFolders([temporary]))
        assert len({file.key for file in found}) == len(found) == sum(p.is_file() for p in folder.rglob("*"))
        for file in found:
            assert base_plus_ext(f"{file.key}.png") == (file.key, "png")
