"""The table of odd file against command: in each cell the right pixels, or the counted reason why there are none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest

from tests.file_corpus import MAKE, OddFile, Truth, odd_files
from tests.file_corpus.commands import CROP, Outcome, Runs, read_png

pytestmark = pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning:PIL")  # Pillow's own, about garbage in metadata

#: Shortest side that each command can use; what is smaller is ``too_small``.
SMALLEST = {"stream": CROP, "foreign": CROP, "train": CROP, "score": 16, "filter": 16, "calibrate": 16}
#: Commands that look at names in a folder; the others get the bytes of every file that has an image's name.
WRITING = ("degrade", "denoise", "restore", "denoise_shards")
COMMANDS = ("decode", "original", "shard", "stream", "foreign", *WRITING, "score", "filter", "train", "calibrate")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("odd_files"))


def expected_reason(command: str, file: OddFile) -> str | None:
    """Why the command must not use the file; None where it must."""
    if isinstance(file.truth, str):
        return file.truth
    return "too_small" if min(file.truth.color.shape[:2]) < SMALLEST.get(command, 1) else None


def seen_by(command: str, file: OddFile) -> bool:
    """Whether the file is there at all: the stream reads what `shard` has left in, folders are read by suffix."""
    if command in ("decode", "original"):
        return True
    return file.taken and not (command in ("stream", "denoise_shards") and isinstance(file.truth, str))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_came_to_its_end(command: str, runs: Runs) -> None:
    """With files of every kind in the folder, no traceback and exit code 0."""
    assert runs[command].code == 0


@pytest.mark.parametrize("name", odd_files(), ids=ascii)
def test_every_command(name: str, runs: Runs) -> None:
    """One row of the table; a cell that is wrong is named with what is wrong in it."""
    wrong = {}
    for command in COMMANDS:
        if runs.failed(command):
            continue  # said once, by test_the_command_came_to_its_end
        try:
            check_cell(command, odd_files()[name], runs)
        except AssertionError as error:
            wrong[command] = str(error)
    assert not wrong


def check_cell(command: str, file: OddFile, runs: Runs) -> None:
    """The file was used as it must be, or left out for the right reason."""
    outcome = runs[command].outcomes.get(file.name)
    if not seen_by(command, file):
        assert outcome is None
        return
    reason = expected_reason(command, file)
    if reason is not None:
        # Not every command names what it leaves out; the counts of all are in test_counts.
        assert outcome is None or outcome.reason == reason
        return
    assert isinstance(file.truth, Truth)
    if command != "calibrate":  # which mentions only what it leaves out
        assert outcome is not None, f"{command} lost it without a word"
    if outcome is not None:
        assert outcome.reason is None
        check(command, outcome, file, file.truth)


def check(command: str, outcome: Outcome, file: OddFile, truth: Truth) -> None:
    """What the command shows of its result is what it must be."""
    if outcome.given_up is not None:
        assert outcome.given_up == dict(truth.given_up)
    if outcome.data is not None:
        assert outcome.data == file.data
    if outcome.size is not None:
        assert outcome.size == truth.color.shape[:2]
    if command == "decode":
        assert outcome.pixels is not None
        assert outcome.pixels.dtype == np.uint8
        assert off_by(outcome.pixels, truth.pixels) <= truth.tolerance
    elif outcome.pixels is not None:
        assert outcome.pixels.shape == (CROP, CROP, 3)
        assert is_piece_of(outcome.pixels, truth.pixels, truth.tolerance)
    if outcome.named is not None:
        assert outcome.named == set(truth.given_up)
    if command == "original" or command in WRITING:
        pages = [truth.color, *truth.further_pages]
        if command == "denoise_shards" or truth.preview:
            pages = pages[:1]
        check_written(outcome.written, truth, pages, 0 if command == "original" else 1)


def check_written(files: list[bytes], truth: Truth, pages: list[np.ndarray], step: int) -> None:
    """What came in comes out: kind, depth, alpha, metadata, pages; colours within ``step`` of 255 and the tolerance."""
    assert len(files) == len(pages)
    for data, color in zip(files, pages, strict=True):
        found, alpha, exif = read_png(data)
        assert found.dtype == color.dtype
        wanted = color
        if truth.peak is not None:  # a range that the file states becomes that of PNG
            wanted = np.round(color / truth.peak * 65535).astype(np.uint16)
        # 16 bits are not rounded to 8 on the way: what networks of float32 do to them is far below.
        allowed = truth.tolerance + step if color.dtype == np.uint8 else 257 * truth.tolerance + 16 * step
        seen = np.ones(color.shape[:2], bool) if alpha is None else alpha[..., 0] > 0
        assert off_by(found[seen], wanted[seen]) <= allowed
        if truth.exif:
            assert exif.get(271) == MAKE
            assert exif.get(274, 1) == 1
    found, alpha, _ = read_png(files[0])
    assert (alpha is None) == (truth.alpha is None)
    if truth.alpha is not None:
        np.testing.assert_array_equal(alpha, truth.alpha)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in ("decode", "original")])
def test_counts(command: str, runs: Runs) -> None:
    """The totals that people read are those of the cells."""
    seen = [file for file in odd_files().values() if seen_by(command, file)]
    reasons = Counter(expected_reason(command, file) for file in seen)
    reasons.pop(None)
    run = runs[command]
    assert run.skipped == dict(reasons)
    if run.given_up is not None:
        used = [file.truth for file in seen if expected_reason(command, file) is None]
        given_up = sum((Counter(lost(command, truth)) for truth in used if isinstance(truth, Truth)), Counter[str]())
        assert run.given_up == dict(given_up)


def lost(command: str, truth: Truth) -> Mapping[str, int]:
    """What the command's result does not hold of the file: of a PNG of the same kind less than of 8-bit RGB."""
    if command not in WRITING:
        return truth.given_up
    kept = {"grey_to_rgb", "flattened_alpha", "reduced_depth"}
    if not truth.preview and command != "denoise_shards":
        kept.add("further_pages")
    return {reason: count for reason, count in truth.given_up.items() if reason not in kept}


def test_wrong_suffixes_are_named(runs: Runs) -> None:
    runs["shard"]
    report = json.loads((runs.place / "shards" / "report.json").read_text())
    wrong = {name for name in odd_files() if name.startswith("really_")}
    assert report["wrong_suffix"] == len(wrong) == 4
    assert set(report["examples"]["wrong_suffix"]) == wrong


def off_by(found: np.ndarray, wanted: np.ndarray) -> int:
    """Largest difference; the shapes must be the same."""
    assert found.shape == wanted.shape
    return int(np.abs(found.astype(np.int64) - wanted.astype(np.int64)).max(initial=0))


def is_piece_of(piece: np.ndarray, whole: np.ndarray, tolerance: int) -> bool:
    """Whether ``piece`` lies somewhere in ``whole``, each value within ``tolerance``."""
    height, width = piece.shape[:2]
    rest = whole.astype(np.int64)
    corners = rest[: rest.shape[0] - height + 1, : rest.shape[1] - width + 1]
    likely = (np.abs(corners - piece[0, 0]) <= tolerance).all(2)
    return any(
        np.abs(rest[top : top + height, left : left + width] - piece).max() <= tolerance
        for top, left in np.argwhere(likely).tolist()
    )
