"""The `shard` command as a user meets it."""

from __future__ import annotations

import argparse
import io
import runpy
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from synthpipe.cli import main, shard
from synthpipe.errors import OptionError, ShardError
from synthpipe.shards.shard_index import read_index


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="synthpipe")
    shard.add_parser(parser.add_subparsers())
    return shard.run(parser.parse_args(["shard", *arguments]))


def usage_error(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number in range(5):
        Image.new("RGB", (8 + number, 8), (number, 2, 3)).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "in" / "bad.jpg").write_text("no image")
    (tmp_path / "in" / "notes.txt").write_text("hello")
    return tmp_path / "in"


def test_what_a_user_sees(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(str(folder), str(out), "--workers", "1", "--max-samples", "2", "--prefix", "hr") == 0
    said = capsys.readouterr()
    assert "5 of 6 images in 3 shards, 0.0 MB" in said.out
    assert f"left out: 1 unreadable; see {out}/report.json" in said.out
    assert "passed over: 1 .txt" in said.err
    assert "%|" not in said.err  # no bar in a log file
    assert [entry.name for entry in read_index(out).shards] == ["hr-000000.tar", "hr-000001.tar", "hr-000002.tar"]


def test_options_arrive(folder: Path, tmp_path: Path) -> None:
    run(str(folder), str(tmp_path / "size"), "--workers", "1", "--min-size", "8", "--sorted", "--reencode", "png")
    assert read_index(tmp_path / "size").samples == 5
    run(str(folder), str(tmp_path / "bytes"), "--workers", "1", "--max-bytes", "1K", "--seed", "3")
    largest = (folder / "4.png").stat().st_size
    assert len(read_index(tmp_path / "bytes").shards) >= 5 * largest // 1100


def test_several_folders(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (8, 8)).save(other / "0.png")
    assert run(str(folder), str(other), str(tmp_path / "out"), "--workers", "1") == 0
    assert read_index(tmp_path / "out").samples == 6


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("--help")
    assert caught.value.code == 0
    assert "synthpipe shard photos/" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["in"], "required: OUT_DIR"),
        (["in", "out", "--max-bytes", "many"], "expected bytes such as 500000, 512M or 1G, got 'many'"),
        (["in", "out", "--seed", "1", "--sorted"], "not allowed with"),
        (["in", "out", "--reencode", "jpg"], "invalid choice"),
    ],
)
def test_usage(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in usage_error(arguments, capsys)


@pytest.mark.parametrize(
    ("extra", "said"),
    [(["--workers", "0"], "workers"), (["--max-samples", "0"], "max_samples"), (["--prefix", "a/b"], "prefix")],
)
def test_values_out_of_range(extra: list[str], said: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=f"synthpipe shard: option '{said}'"):
        run(str(folder), str(tmp_path / "out"), *extra)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="expected an existing folder"):
        run(str(tmp_path / "nowhere"), str(tmp_path / "out"))


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ShardError, match="no images in"):
        run(str(tmp_path / "in"), str(tmp_path / "out"))


@pytest.mark.parametrize(("text", "expected"), [("7", 7), ("2k", 2048), ("512M", 512 << 20), ("1GiB", 1 << 30)])
def test_sizes(text: str, expected: int) -> None:
    assert shard._size(text) == expected


def test_progress_bar_on_a_terminal(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert run(str(folder), str(tmp_path / "out"), "--workers", "1") == 0
    assert "6/6" in terminal.getvalue()


def test_exit_codes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert main(["shard", str(tmp_path / "nowhere"), out]) == 2
    assert "synthpipe shard: input" in capsys.readouterr().err
    assert main(["shard", str(folder), out, "--workers", "1"]) == 0
    assert main(["shard", str(folder), out, "--workers", "1", "--min-size", "9"]) == 1
    assert "begun with other options: min_size was 0, is 9" in capsys.readouterr().err


def test_script_is_the_command(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).parents[2] / "tools" / "shard_dataset.py"
    monkeypatch.setattr("sys.argv", [str(script), str(folder), str(tmp_path / "out"), "--workers", "1"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(script), run_name="__main__")
    assert caught.value.code == 0
    assert read_index(tmp_path / "out").samples == 5
