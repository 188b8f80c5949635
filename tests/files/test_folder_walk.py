"""The one walk through image folders: its order, what it follows, what it passes over and how that is said."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from synthpipe.errors import ShardError
from synthpipe.files.folder_walk import expected_images, passed_over_text, walk_image_folders
from synthpipe.files.image_files import list_images
from synthpipe.files.image_formats import EXTRAS, IMAGE_FORMATS, IMAGE_SUFFIXES, has_image_suffix
from synthpipe.files.source_files import SourceFolders
from synthpipe.shards import tar_walk
from tests.files.file_tree import make

#: Nested, of mixed case, composed and decomposed letters, names that sort around "/".  The two orders below are what
#: commit 433fa2b gave, which had one walk for each: shards and training runs begun with it go on.
NAMES = ["b.png", "B.PNG", "a-b.png", "a.png", "a/x.png", "a/b/1.JPG", "a b/z.webp", "a.b/y.tiff", "Z/10.png"]
NAMES += ["Z/2.png", "Z/02.tif", "é.png", "e\u0301.png", "写真/あ.jpeg", "a.jpg", "a.jpg.png", "å/k.png", "_x.png"]
NAMES += ["~t.png", "a/X.PNG", "x.png/in.png", "Z/2.jpg", "100%.png"]
BY_PATH = """100%.png B.PNG Z/02.tif Z/10.png Z/2.jpg Z/2.png _x.png a~b/z.webp a-b.png a.b/y.tiff a.jpg a.jpg.png a.png
a/X.PNG a/b/1.JPG a/x.png b.png e\u0301.png x.png/in.png ~t.png å/k.png é.png 写真/あ.jpeg"""
BY_FOLDER = """100%.png B.PNG _x.png a.jpg a.png a-b.png a.jpg.png b.png e\u0301.png ~t.png é.png Z/02.tif Z/10.png
Z/2.jpg Z/2.png a/X.PNG a/x.png a/b/1.JPG a~b/z.webp a.b/y.tiff x.png/in.png å/k.png 写真/あ.jpeg"""


def below(folder: Path, passed_over: Counter[str] | None = None) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in list_images(folder, passed_over)]


def sources(folder: Path) -> list[str]:
    return [file.source for file in SourceFolders([str(folder)])]


def written(names: str) -> list[str]:
    return [name.replace("a~b", "a b") for name in names.split()]


def test_the_orders_are_those_of_earlier_versions(tmp_path: Path) -> None:
    make(tmp_path, *NAMES)
    assert below(tmp_path) == written(BY_PATH) == sorted(NAMES)
    assert sources(tmp_path) == written(BY_FOLDER)


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    make(tmp_path / "store" / "b", "2.png", "deep/3.png")
    make(tmp_path / "in", "1.png")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "store" / "b")
    (tmp_path / "in" / "file.png").symlink_to(tmp_path / "store" / "b" / "2.png")
    expected = ["1.png", "file.png", "linked/2.png", "linked/deep/3.png"]
    assert below(tmp_path / "in") == sources(tmp_path / "in") == expected
    assert list_images(tmp_path / "in")[2] == tmp_path / "in" / "linked" / "2.png"


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    passed_over: Counter[str] = Counter()
    assert below(tmp_path, passed_over) == ["a/1.png", "a/to_b/2.png", "b/2.png", "b/to_a/1.png"]
    assert passed_over == {"(circular link)": 4}


def test_what_is_passed_over_is_counted_by_reason(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.exr", "c.EXR", "README", "._a.png", ".thumbnails/x.png", "sub/e.jxl")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "unmounted").symlink_to("/nowhere/photos")
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "itself.png").symlink_to("itself.png")
    (tmp_path / "below_a_file").symlink_to(tmp_path / "a.png" / "x")
    (tmp_path / "loop").symlink_to(tmp_path)
    passed_over: Counter[str] = Counter({".exr": 1})
    assert below(tmp_path, passed_over) == ["a.png"]
    reasons = {"(hidden)": 2, "(not a regular file)": 1, "(dangling link)": 5, "(circular link)": 1, "(no suffix)": 1}
    assert passed_over == reasons | {".exr": 3, ".jxl": 1}
    folders = SourceFolders([str(tmp_path)])
    assert [file.source for file in folders] == ["a.png"]
    assert folders.ignored == reasons | {".exr": 2, ".jxl": 1}


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, type[OSError], int], None]]:
    """Makes `os.NAME` fail for paths that hold "closed", as a disk would; tests may run as root, who may read all."""

    def fail(name: str, error: type[OSError], number: int) -> None:
        real = getattr(os, name)

        def replaced(path: Any, *rest: Any, **more: Any) -> Any:
            if "closed" in os.fspath(path):
                raise error(number, os.strerror(number))
            return real(path, *rest, **more)

        monkeypatch.setattr(os, name, replaced)

    return fail


def test_folders_that_may_not_be_read_are_counted_and_named(
    tmp_path: Path, failing: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, "a.png", "closed/b.png", "z/c.png")
    failing("scandir", PermissionError, 13)
    passed_over: Counter[str] = Counter()
    assert below(tmp_path, passed_over) == ["a.png", "z/c.png"]
    assert passed_over == {"(unreadable folder)": 1}
    assert f"cannot list the folder '{tmp_path}/closed': Permission denied" in caplog.text
    assert sources(tmp_path) == ["a.png", "z/c.png"]


def test_files_that_may_not_be_looked_at_are_counted(tmp_path: Path, failing: Callable[..., None]) -> None:
    make(tmp_path, "a.png", "b_closed.png")
    failing("stat", PermissionError, 13)
    passed_over: Counter[str] = Counter()
    assert below(tmp_path, passed_over) == ["a.png"]
    assert passed_over == {"(unreadable)": 1}


@pytest.mark.parametrize(("name", "message"), [("scandir", "cannot list the folder"), ("stat", "cannot look at")])
def test_a_failing_disk_stops_the_walk(tmp_path: Path, failing: Callable[..., None], name: str, message: str) -> None:
    make(tmp_path, "a.png", "b/closed.png" if name == "stat" else "closed/b.png")
    failing(name, OSError, 5)
    with pytest.raises(ShardError, match=f"{message} .*closed.*Input/output error; .* would be lost"):
        list_images(tmp_path)
    with pytest.raises(ShardError, match=message):
        sources(tmp_path)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    make(tmp_path, b"caf\xe9/\xff.png", b"\xe9.b\xff")
    passed_over: Counter[str] = Counter()
    (found,) = list_images(tmp_path, passed_over)
    assert os.fsencode(found.relative_to(tmp_path)) == b"caf\xe9/\xff.png"
    assert found.read_bytes() == b"x"
    assert passed_over_text(passed_over) == r"1 '.b\udcff'"


def test_one_image_is_its_own_list(tmp_path: Path) -> None:
    make(tmp_path, "a.bmp")
    assert list_images(tmp_path / "a.bmp") == [tmp_path / "a.bmp"]


def test_only_one_folder_is_held(tmp_path: Path) -> None:
    make(tmp_path, *(f"{folder}/{number}.png" for folder in "abc" for number in range(4)))
    walk = walk_image_folders(tmp_path, Counter())
    assert next(walk)[1:] == ("", [])
    assert next(walk)[1:] == ("a/", ["0.png", "1.png", "2.png", "3.png"])
    make(tmp_path, "b/new.png")  # not yet listed
    assert next(walk).names[-1] == "new.png"


def test_messages_name_the_most_frequent_kinds() -> None:
    counts = Counter({".bmp": 12, "(hidden)": 1, ".avif": 12}) + Counter({f".{n:03d}": 1 for n in range(100)})
    first = "12 .avif, 12 .bmp, 1 (hidden), 1 .000, 1 .001, 1 .002, 1 .003, 1 .004"
    assert passed_over_text(counts) == f"{first}, 95 of other kinds"
    assert expected_images(Counter()) == f"expected files ending in {', '.join(IMAGE_SUFFIXES)}, found nothing"


def test_suffixes_are_those_of_the_formats_by_pillow() -> None:
    known = Image.registered_extensions()
    ours = {suffix: name for name, suffixes in IMAGE_FORMATS.items() for suffix in suffixes}
    assert set(ours) == set(IMAGE_SUFFIXES)
    assert {suffix: name for suffix, name in ours.items() if name not in EXTRAS} == {
        suffix: known[suffix] for suffix in IMAGE_SUFFIXES if ours[suffix] not in EXTRAS
    }
    # A sample that holds its image twice is read by the first: new suffixes may only follow these.
    assert tar_walk.IMAGE_SUFFIXES[:6] == ("png", "jpg", "jpeg", "webp", "tif", "tiff")
    assert all(map(has_image_suffix, ("a.PNG", "b.c.Jpeg")))
    assert not any(map(has_image_suffix, ("png", ".png", "a.png ", "a.png.txt")))


def test_sockets_and_devices_are_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has at most 107 bytes
    Path("in").mkdir()
    Path("in/a.png").touch()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("in/b.png")
    Path("in/c.png").symlink_to("/dev/null")
    Path("in/d.png").symlink_to("d.png")
    passed_over: Counter[str] = Counter()
    assert list_images("in", passed_over) == [Path("in/a.png")]
    assert passed_over == Counter({"(not a regular file)": 2, "(dangling link)": 1})
    assert [file.source for file in SourceFolders(["in"])] == ["a.png"]
