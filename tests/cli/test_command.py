"""What all commands share: help, options from arguments, log lines and progress bars."""

from __future__ import annotations

import argparse
import io
import logging
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from synthpipe.cli import command, main
from synthpipe.config.shard import ShardOptions
from synthpipe.errors import OptionError


@pytest.mark.parametrize("example", ["synthpipe pack in out", "  synthpipe pack in out\n\nOUT may exist.\n"])
def test_help_wraps_what_is_prose_and_keeps_the_example(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    subparsers = argparse.ArgumentParser(prog="synthpipe").add_subparsers()
    parser = command.add_command(subparsers, "pack", help="pack it", description="Pack images. " * 10, example=example)
    text = parser.format_help()
    assert max(map(len, text.splitlines())) <= 40
    assert text.count("Pack images.") + text.count("Pack\nimages.") == 10
    assert text.endswith(example if example.endswith("\n") else f"example: {example}\n")
    assert parser.parse_args([]).command == "pack"


def test_options_are_what_was_given_and_more() -> None:
    args = argparse.Namespace(command="shard", inputs=["a"], output="b", workers=None, prefix="hr", other=3)
    options = command.given_options(args, ShardOptions, inputs=("c",), seed=None)
    assert options == ShardOptions(inputs=("c",), output="b", prefix="hr", seed=None)
    args.max_samples = 0
    with pytest.raises(OptionError, match=r"synthpipe shard: .*max_samples"):
        command.given_options(args, ShardOptions)


@pytest.mark.parametrize("arguments", [("degrade", "deflow_small"), ("denoise", "blind_spot_small")])
def test_a_place_that_cannot_be_written_is_named(
    arguments: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (16, 16), "grey").save(tmp_path / "in" / "a.png")
    (tmp_path / "file").write_text("no folder")
    assert main([*arguments, str(tmp_path / "in"), str(tmp_path / "file" / "out")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"synthpipe {arguments[0]}: cannot read or write '{tmp_path}/file/out': Not a directory"


def test_a_message_names_the_command_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["denoise", "blind_spot_small", "in", "out", "--sigma", "5"]) == 2
    assert capsys.readouterr().err.startswith(
        "synthpipe denoise: option 'sigma': expected auto, or a level from 0 to 1"
    )


def test_log_lines_come_while_inside_alone(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("synthpipe.somewhere")
    with command.log_lines(logging.INFO):
        logger.info("shown")
        logger.debug("too fine")
    with command.log_lines():
        logger.info("not asked for")
        logger.warning("a warning")
    logger.info("outside")
    assert capsys.readouterr().err == "shown\na warning\n"
    assert logging.getLogger("synthpipe").level == logging.NOTSET
    assert not logging.getLogger("synthpipe").handlers


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_for_terminals(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    with command.progress_bar("shard") as show:
        show(0, 4, 0)
        show(3, 4, 70)
    shown = stream.getvalue()
    assert ("3/4" in shown, "70 images" in shown) == (terminal, terminal)


def test_every_command_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    commands = re.findall(r"^    ([a-z]\S*)", capsys.readouterr().out, re.MULTILINE)
    assert {"shard", "train", "degrade", "denoise", "restore", "score", "filter", "import-deflow"} <= set(commands)
    for name in commands:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        text = capsys.readouterr().out
        assert f"synthpipe {name} " in text[text.index("\nexample:") :]
