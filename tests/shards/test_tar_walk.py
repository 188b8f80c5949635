"""The walker of shards: places as tarfile and GNU tar tell them, samples as WebDataset does, any damage noticed."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthpipe.corpus.image_units import ShardUnit
from synthpipe.errors import ImageError, ShardError
from synthpipe.files.byte_source import open_source
from synthpipe.shards.shard_names import build_index
from synthpipe.shards.shard_reader import ShardReader
from synthpipe.shards.tar_header import BLOCK, TarDamage
from synthpipe.shards.tar_walk import IMAGE_SUFFIXES, TarMember, TarSample, walk_members, walk_samples
from tests.stream_corpus import samples_by_webdataset

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def archive(members: Sequence[tuple[str, bytes]], layout: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar by the standard library."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=layout) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def images(count: int) -> list[tuple[str, bytes]]:
    """Members of 700 bytes: a header and two blocks each."""
    return [(f"{number}.png", bytes([number + 1]) * 700) for number in range(count)]


#: Bytes from one header to the next in :func:`images`.
STEP = BLOCK + 2 * BLOCK


def members_of(data: bytes) -> list[TarMember]:
    return list(walk_members(io.BytesIO(data)))


def samples_of(data: bytes) -> list[TarSample]:
    return list(walk_samples(io.BytesIO(data)))


def by_library(data: bytes) -> list[tuple[str, int, int, int]]:
    """Name, first byte of the header, of the contents, and size, of each regular file."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(info.name, info.offset, info.offset_data, info.size) for info in tar if info.isreg()]


def places(members: Sequence[TarMember]) -> list[tuple[str, int, int, int]]:
    return [(member.name, member.begin, member.offset, member.size) for member in members]


class TestPlaces:
    @settings(deadline=None)
    @given(
        names=st.lists(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=300).filter(
                lambda name: not name.endswith("/")
            ),
            max_size=6,
        ),
        sizes=st.lists(st.integers(0, 1500), min_size=6, max_size=6),
        layout=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    )
    def test_as_the_standard_library_finds_them(self, names: list[str], sizes: list[int], layout: int) -> None:
        data = archive([(name, b"x" * size) for name, size in zip(names, sizes, strict=False)], layout)
        expected = [place for place in by_library(data) if not place[0].startswith("__")]
        found = [place for place in places(members_of(data)) if not place[0].startswith("__")]
        assert found == expected

    @pytest.mark.parametrize("layout", FORMATS)
    def test_members_follow_each_other(self, layout: int) -> None:
        long = "folder/" * 15 + "x"
        data = archive([("a.png", b"1"), (f"{long}.png", b"2" * 512), ("写真.png", b""), ("b.png", b"3" * 513)], layout)
        members = members_of(data)
        assert [member.name for member in members] == ["a.png", f"{long}.png", "写真.png", "b.png"]
        assert [member.end for member in members[:-1]] == [member.begin for member in members[1:]]
        assert [data[m.offset : m.offset + m.size] for m in members] == [b"1", b"2" * 512, b"", b"3" * 513]
        assert not any(data[members[-1].end :])

    @pytest.mark.parametrize("layout", ["v7", "oldgnu", "gnu", "ustar", "posix"])
    def test_as_gnu_tar_lists_them(self, layout: str, tmp_path: Path) -> None:
        folder = tmp_path / "in"
        (folder / "sub.d").mkdir(parents=True)
        for number in range(4):
            (folder / "sub.d" / f"{number}.png").write_bytes(bytes(300 * number))
        (folder / "link.png").symlink_to("sub.d/1.png")
        (folder / "hard.png").hardlink_to(folder / "sub.d" / "2.png")
        subprocess.run(
            ["tar", f"--format={layout}", "--sort=name", "-cf", "x.tar", "-C", "in", "."], cwd=tmp_path, check=True
        )
        listed = subprocess.run(
            ["tar", "-tvf", "x.tar", "--block-number"], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.splitlines()
        # block 3: -rw-r--r-- root/root 300 2024-01-01 10:00 ./sub.d/1.png
        rows = [line.split() for line in listed if line.split()[2].startswith("-")]
        expected = [(row[-1], int(row[1].rstrip(":")), int(row[4])) for row in rows]
        data = (tmp_path / "x.tar").read_bytes()
        assert [(m.name, m.offset // BLOCK - 1, m.size) for m in members_of(data)] == expected
        assert places(members_of(data)) == by_library(data)
        assert len(expected) == 4

    @pytest.mark.parametrize("layout", ["--format=gnu", "--format=posix --sparse-version=0.1", "--format=posix"])
    def test_sparse_files_are_passed_by_and_refused(self, layout: str, tmp_path: Path) -> None:
        """Holes make more blocks of map than the header holds; the member behind them is found all the same."""
        with (tmp_path / "a.png").open("wb") as file:
            for number in range(40):
                file.seek(number << 16)
                file.write(b"x" * 4096)
        (tmp_path / "b.png").write_bytes(b"whole")
        command = ["tar", *layout.split(), "-S", "-cf", "x.tar", "a.png", "b.png"]
        subprocess.run(command, cwd=tmp_path, check=True)
        data = (tmp_path / "x.tar").read_bytes()
        first, second = samples_of(data)
        assert (first.key, first.problem, second.key, second.problem) == ("a", "sparse_file", "b", None)
        assert second.image is not None
        assert data[second.image.offset :][:5] == b"whole"
        for reader in all_readers(tmp_path / "x.tar", 2):
            assert reader == [("a.png", "sparse_file"), ("b.png", None)]

    def test_of_an_incremental_archive(self, tmp_path: Path) -> None:
        """GNU tar keeps times where ustar has the folder of a long name, and lists of folders among the files."""
        (tmp_path / "in").mkdir()
        for number in range(3):
            (tmp_path / "in" / f"{number}.png").write_bytes(bytes(700))
        command = ["tar", "--format=gnu", "--listed-incremental=snapshot", "--sort=name", "-cf", "x.tar", "in"]
        subprocess.run(command, cwd=tmp_path, check=True)
        members = members_of((tmp_path / "x.tar").read_bytes())
        assert [(member.name, member.size) for member in members] == [(f"in/{number}.png", 700) for number in range(3)]

    @pytest.mark.parametrize(
        ("kind", "name", "size"),
        [
            (tarfile.LNKTYPE, "link.png", 700),  # some writers tell the size of the file that is linked to
            (tarfile.SYMTYPE, "link.png", 700),
            (tarfile.AREGTYPE, "folder.png/", 0),  # of archives before POSIX
            (tarfile.AREGTYPE, "a.png", 700),
            (tarfile.CONTTYPE, "a.png", 700),
            (tarfile.FIFOTYPE, "a.png", 0),
            (b"V", "label.png", 700),
        ],
    )
    def test_of_kinds_other_than_plain_files(self, kind: bytes, name: str, size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.type = size, kind
        header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
        data = with_sums(bytes(header)) + archive([("next.png", b"x" * 700)])
        if kind in (tarfile.AREGTYPE, tarfile.CONTTYPE, b"V"):
            data = data[:BLOCK] + bytes((size + 511) // 512 * 512) + data[BLOCK:]
        assert places(members_of(data)) == by_library(data)
        assert [member.name for member in members_of(data)][-1] == "next.png"

    def test_sums_of_signed_bytes(self) -> None:
        info = tarfile.TarInfo("été.png")
        header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % (sum(header) - 256 * sum(byte > 127 for byte in header))
        data = bytes(header) + bytes(1024)
        assert places(members_of(data)) == by_library(data) == [("été.png", 0, 512, 0)]

    def test_records_for_all_members(self) -> None:
        """`git archive` begins with one; it is no part of the member behind it."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", pax_headers={"comment": "0123"}) as tar:
            tar.addfile(tarfile.TarInfo("a.png"))
        assert places(members_of(buffer.getvalue())) == by_library(buffer.getvalue()) == [("a.png", 1024, 1536, 0)]

    def test_sizes_that_octal_digits_cannot_hold(self) -> None:
        size = 9 << 30
        for layout in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            info = tarfile.TarInfo("a.png")
            info.size = size
            header = info.tobuf(layout)
            (member,) = list(_until_damage(header))
            assert (member.size, member.offset, member.problem) == (size, len(header), "truncated_shard")

    def test_memory_stays_the_same_whatever_the_number_of_members(self, tmp_path: Path) -> None:
        peaks = []
        for count in (100, 5000):
            path = tmp_path / "x.tar"
            path.write_bytes(archive([(f"{number}.png", b"x") for number in range(count)]))
            with path.open("rb") as file:
                tracemalloc.start()
                assert sum(1 for _ in walk_members(file)) == count
                peaks.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()
        assert peaks[1] < peaks[0] + 20_000


def _until_damage(data: bytes) -> Any:
    with contextlib.suppress(TarDamage):
        yield from walk_members(io.BytesIO(data))


class TestSamples:
    NAMES = (
        "a.png", "a.json", "__meta__/x.png", "__info__", "b.c.PNG", "b.cls", "README", "d/e.jpg", "d/e.f/g.jpg",
        "d/.hidden.png", "x.y/z", "x.y/.png", "k.json", "__k__.png", "写真/été.tiff",
    )  # fmt: skip

    def by_webdataset(self, data: bytes, folder: Path) -> list[tuple[str, dict[str, bytes]]]:
        (folder / "x.tar").write_bytes(data)
        return [
            (sample["__key__"], {name: value for name, value in sample.items() if not name.startswith("__")})
            for sample in samples_by_webdataset([folder / "x.tar"])
        ]

    def test_as_webdataset_groups_them(self, tmp_path: Path) -> None:
        data = archive([(name, name.encode()) for name in self.NAMES])
        found = [
            (s.key, {suffix: data[m.offset : m.offset + m.size] for suffix, m in s.members.items()})
            for s in samples_of(data)
        ]
        assert found == self.by_webdataset(data, tmp_path)

    @settings(deadline=None, max_examples=60)
    @given(names=st.lists(st.text("ab._/", min_size=1, max_size=8), max_size=8))
    def test_names_of_any_form(self, names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
        names = [name for name in names if not name.endswith("/")]
        data = archive([(name, b"") for name in names])
        found = samples_of(data)
        if not any("comes more than once" in sample.detail for sample in found):
            expected = self.by_webdataset(data, tmp_path_factory.mktemp("peer"))
            assert [(s.key, {name for name in s.members if not name.startswith("__")}) for s in found] == [
                (key, set(members)) for key, members in expected
            ]

    @pytest.mark.parametrize(
        ("names", "problems"),
        [
            (["a.png", "a.png"], ["duplicate_key"]),
            (["a.png", "a.PNG", "a.json"], ["duplicate_key"]),
            (["a.png", "b.png", "a.json"], [None, None, "duplicate_key"]),
            (["a.json", "b.seg.png", "c.png"], ["missing_image", "missing_image", None]),
            (["../a.png", "b.png", "b/../c.png"], ["unsafe_name", None, "unsafe_name"]),
            (["a.png", "a.x/../b"], [None]),
        ],
    )
    def test_what_cannot_be_used(self, names: list[str], problems: list[str | None], tmp_path: Path) -> None:
        data = archive([(name, b"x") for name in names])
        assert [sample.problem for sample in samples_of(data)] == problems
        (tmp_path / "x.tar").write_bytes(data)
        for reader in all_readers(tmp_path / "x.tar", len(problems)):
            assert [problem for _, problem in reader] == problems

    def test_of_several_images_the_first_kind_counts(self) -> None:
        for first in IMAGE_SUFFIXES:
            later = IMAGE_SUFFIXES[IMAGE_SUFFIXES.index(first) + 1 :]
            (sample,) = samples_of(archive([(f"a.{suffix}", b"x") for suffix in (*later, first)]))
            assert sample.image is not None
            assert sample.image.name == f"a.{first}"


def all_readers(path: Path, count: int) -> list[list[tuple[str, str | None]]]:
    """(image, problem) of each sample, as the stream's reader finds them and as scoring and filtering do."""
    reader = ShardReader(str(path))
    streamed: list[tuple[str, str | None]] = []
    for number in range(count):
        try:
            streamed.append((reader.read(number)[0].name, None))
        except ImageError as error:
            named = len(streamed) < len(reader._members) and reader._members[number].name
            streamed.append((named or "", error.reason))
    reader.close()
    with ShardUnit("x", str(path)).open() as (_, stored):
        return [streamed, [(image.path, image.problem) for image in stored]]


#: What happens to a tar of six of :func:`images`: the name, the change, the samples that are left whole, and the byte
#: that is named as damaged.
DAMAGES: list[tuple[str, Callable[[bytes], bytes], int, int]] = [
    ("a bit of a header", lambda data: changed(data, 3 * STEP + 10, b"\x01"), 3, 3 * STEP),
    ("a header of noise", lambda data: changed(data, 3 * STEP, b"\xff" * BLOCK), 3, 3 * STEP),
    ("a header of zeros", lambda data: changed(data, 3 * STEP, bytes(BLOCK)), 3, 3 * STEP),
    ("zeros to the end of a page", lambda data: changed(data, 3 * STEP, bytes(4096)), 3, 3 * STEP),
    ("cut in a header", lambda data: data[: 3 * STEP + 100], 3, 3 * STEP),
    ("cut between members", lambda data: data[: 3 * STEP], 3, 3 * STEP),
    ("cut in the padding", lambda data: data[: 3 * STEP - 100], 3, 2 * STEP),
    ("no empty block at the end", lambda data: data[: 6 * STEP], 6, 6 * STEP),
    ("half an empty block at the end", lambda data: data[: 6 * STEP + 256], 6, 6 * STEP),
    ("another archive behind it", lambda data: data + archive([("z.png", b"x")]), 6, 6 * STEP),
    ("the last header", lambda data: changed(data, 5 * STEP, b"!"), 5, 5 * STEP),
    ("behind the end", lambda data: data[:-1] + b"!", 6, 6 * STEP),
    ("space that was never written", lambda data: data[: 4 * STEP] + bytes(2 << 20), 4, 4 * STEP),
    ("a size beyond the file", lambda data: data[: 5 * STEP] + archive([("5.png", b"x" * 5000)])[:BLOCK], 5, 5 * STEP),
    ("a negative size", lambda data: with_size(data, 3, b"\xff" * 12), 3, 3 * STEP),
    ("a size of 96 bits", lambda data: with_size(data, 3, b"\x80" + b"\xff" * 11), 3, 3 * STEP),
    ("a size that is no number", lambda data: with_size(data, 3, b"12345678 9x\0"), 3, 3 * STEP),
]  # fmt: skip


def changed(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def with_size(data: bytes, number: int, size: bytes) -> bytes:
    """A header that says another size under a checksum that fits."""
    header = bytearray(data[number * STEP :][:BLOCK])
    header[124:136], header[148:156] = size, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return changed(data, number * STEP, bytes(header))


class TestDamage:
    @pytest.mark.parametrize(("change", "whole", "byte"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES])
    def test_every_reader_notices_it(
        self, change: Callable[[bytes], bytes], whole: int, byte: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "x.tar"
        path.write_bytes(change(archive(images(6))))
        found = samples_of(path.read_bytes())
        assert [sample.key for sample in found if sample.problem is None] == [str(number) for number in range(whole)]
        assert found[-1].is_damage
        assert f"damaged at byte {byte}: " in found[-1].detail
        cut = [(sample.members["png"].name, "truncated_shard") for sample in found[whole:-1]]
        assert len(cut) <= 1
        expected = [(f"{number}.png", None) for number in range(whole)] + cut + [("", "truncated_shard")]
        assert all_readers(path, len(expected)) == [expected, expected]
        assert f"{path}: damaged at byte {byte}: " in caplog.text
        with pytest.raises(ShardError, match=r"x\.tar: not a readable tar file: "):
            build_index(path)

    @pytest.mark.parametrize(
        "data",
        [b"", b"x", b"no tar at all" * 100, bytes(511), bytes(2 << 20), bytes(1024) + archive(images(1))],
        ids=["empty", "short", "text", "half a block", "zeros without end", "zeros before it"],
    )
    def test_files_that_are_no_tar(self, data: bytes, tmp_path: Path) -> None:
        (tmp_path / "x.tar").write_bytes(data)
        assert all_readers(tmp_path / "x.tar", 1) == [[("", "unreadable_shard")]] * 2
        with pytest.raises(ShardError, match=r"x\.tar: not a readable tar file: damaged at byte 0: "):
            build_index(tmp_path / "x.tar")

    def test_an_archive_of_nothing_is_whole(self, tmp_path: Path) -> None:
        for data in (bytes(512), bytes(1024), archive([]), bytes(1 << 20)):
            assert samples_of(data) == []

    def test_compressed_ones_are_for_the_index_alone(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "x.tar", "w:gz") as tar:
            for name, data in images(3):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        assert build_index(tmp_path / "x.tar").samples == 3
        assert all_readers(tmp_path / "x.tar", 1) == [[("", "unreadable_shard")]] * 2
        data = (tmp_path / "x.tar").read_bytes()
        for damaged in (data[:-20], changed(data, len(data) // 2, b"\xff\0\xff")):
            (tmp_path / "x.tar").write_bytes(damaged)
            with pytest.raises(ShardError, match=r"x\.tar: not a readable tar file"):
                build_index(tmp_path / "x.tar")

    @pytest.mark.parametrize(
        "record", [b"99 path=abc.png\n", b"x6 path=abc.png\n", b"15 path=abc.png\n", b"16 path-abc.png\n"]
    )
    def test_records_that_are_damaged(self, record: bytes) -> None:
        whole = archive([("a.png", b"1"), ("写.png", b"2"), ("c.png", b"3")])
        assert whole.count(b"16 path=\xe5\x86\x99.png\n\0") == 1
        damaged = whole.replace(b"16 path=\xe5\x86\x99.png\n", record)
        assert len(damaged) == len(whole)
        assert [(s.key, s.problem) for s in samples_of(damaged)] == [("a", None), ("", "truncated_shard")]

    @pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_long_names_without_an_end(self, layout: int) -> None:
        """What a header asks for is not taken into memory, and a chain of them ends with the file."""
        name = "n" * 300 + ".png"
        whole = archive([("a.png", b"1"), (name, b"2")], layout)
        second = members_of(whole)[1]
        extension = whole[second.begin : second.offset - BLOCK]
        for rest in (b"", bytes(1024), extension * 2000, extension + extension[:BLOCK]):
            found = samples_of(whole[: second.begin] + extension + rest)
            assert [(s.key, s.problem) for s in found] == [("a", None), ("", "truncated_shard")]
        found = samples_of(whole[: second.begin] + extension + bytes(1024))
        assert "an extended header without the header that it belongs to" in found[-1].detail
        head = bytearray(extension[:BLOCK])
        head[124:136], head[148:156] = b"77777777777\0", b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        damaged = whole[: second.begin] + bytes(head) + bytes(8 << 20)
        tracemalloc.start()
        found = samples_of(damaged)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
        assert "an extended header of 8589934591 bytes" in found[-1].detail

    @settings(deadline=None, max_examples=150)
    @given(data=st.data())
    def test_no_change_of_a_header_goes_unnoticed(self, data: st.DataObject) -> None:
        """A byte of a header is changed: all samples are there under their names, or damage is told of."""
        whole = archive(images(4), data.draw(st.sampled_from(FORMATS)))
        place = data.draw(st.integers(0, 3)) * STEP + data.draw(st.integers(0, BLOCK - 1))
        broken = changed(whole, place, bytes([whole[place] ^ data.draw(st.integers(1, 255))]))
        found = samples_of(broken)
        assert found == samples_of(whole) or found[-1].is_damage

    @settings(deadline=None, max_examples=200)
    @given(data=st.data())
    def test_anything_ends_and_raises_nothing(
        self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        names = ["a.png", "写真.png", "l" * 200 + ".png", "a.json", "b.jpg"]
        broken = bytearray(archive([(name, b"x" * 100) for name in names], data.draw(st.sampled_from(FORMATS[1:]))))
        for _ in range(data.draw(st.integers(1, 5))):
            broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
        cut = bytes(broken[: data.draw(st.integers(0, len(broken)))])
        if data.draw(st.booleans()):
            cut = with_sums(cut)
        found = samples_of(cut)
        assert all(not sample.is_damage for sample in found[:-1])
        path = tmp_path_factory.mktemp("any") / "x.tar"
        path.write_bytes(cut)
        streamed, stored = all_readers(path, len(found))
        assert streamed == stored


def with_sums(data: bytes) -> bytes:
    """Every block that might be a header gets a checksum that fits, so that what it says is believed."""
    blocks = [bytearray(data[place : place + BLOCK]) for place in range(0, len(data), BLOCK)]
    for block in blocks:
        if b"ustar" in block[257:263] and len(block) == BLOCK:
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return b"".join(blocks)


def test_a_shard_under_way_is_read_as_one_that_has_arrived(tmp_path: Path) -> None:
    """Through a pipe, of which neither the end nor the size is known."""
    path = tmp_path / "x.tar"
    for data in (archive(images(6)), archive(images(6))[: 4 * STEP + 700], changed(archive(images(6)), 3 * STEP, b"!")):
        path.write_bytes(data)
        source = open_source(f"pipe:cat '{path}'")
        assert list(walk_samples(source.file())) == samples_of(data)
        source.close()
