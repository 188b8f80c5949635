"""Arguments that are places: every command expands and refuses them alike."""

from __future__ import annotations

import argparse
import os
from importlib import import_module
from pathlib import Path

import pytest

from synthpipe import cli
from synthpipe.cli.places import local_path, place

#: Arguments with a free text that is no place, by their names in all commands.
_OTHER_TEXTS = {
    "by",
    "device",
    "families",
    "ignore",
    "key",  # of `synthpipe explain`: the name of a sample
    "name",  # of `synthpipe options`
    "overrides",  # values go through the schema
    "prefix",
    "sigma",  # of `restore`: auto or a number
}


def _arguments() -> list[tuple[str, argparse.Action]]:
    found = []
    for name in cli._COMMANDS:
        subparsers = argparse.ArgumentParser().add_subparsers()
        parser = import_module(f"synthpipe.cli.{name}").add_parser(subparsers)
        found += [(name, action) for action in parser._actions if action.nargs != 0 and action.choices is None]
    return found


def test_every_argument_that_is_a_place_is_of_the_type_for_it() -> None:
    assert len(_arguments()) > 60
    for command, action in _arguments():
        assert action.type is not Path, (command, action.dest)
        if action.type is None:
            assert action.dest in _OTHER_TEXTS, f"{command} {action.dest}: give it a type of cli/places.py"
    places = {(command, action.dest) for command, action in _arguments() if action.type in (place, local_path)}
    assert len(places) == 43


def _words(command: str, bad: str) -> list[list[str]]:
    """Command lines with ``bad`` for each place of a command in turn, and for the others places that are not there."""
    lines = []
    actions = [action for name, action in _arguments() if name == command]
    for at in [action for action in actions if action.type in (place, local_path)]:
        words = [command.replace("_", "-")]
        for action in actions:
            value = bad if action is at else "nowhere"
            if not action.option_strings:
                words.append(value)
            elif action is at:
                if isinstance(action.nargs, int):
                    words[1:1] = [action.option_strings[-1], *["nowhere"] * (action.nargs - 1), value]
                else:
                    words.insert(1, f"{action.option_strings[-1]}={value}")
        lines.append(words)
    return lines


@pytest.mark.parametrize("command", cli._COMMANDS)
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("~nobody9/x", "no user 'nobody9'"),
        ("$UNSET_9/x", "UNSET_9 is not set"),
        ("pipe", "'pipe' is a named pipe"),
    ],
)
def test_each_place_of_each_command_refuses_what_it_cannot_expand(
    command: str,
    bad: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    required = {"restore": ["--task", "denoise"], "import_deflow": ["--config", "aim"], "filter": ["--reject", "0.1"]}
    lines = _words(command, bad)
    assert lines
    for words in lines:
        with pytest.raises(SystemExit) as caught:
            cli.main([*words, *required.get(command, [])])
        assert caught.value.code == 2
        assert said in capsys.readouterr().err
    assert os.listdir() == ["pipe"]


def test_arguments_expand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NIGHT", "night")
    assert place("~/$NIGHT") == f"{tmp_path}/night"
    assert local_path("~/${NIGHT}s") == tmp_path / "nights"
    assert local_path("file://~/x") == tmp_path / "x"
    with pytest.raises(argparse.ArgumentTypeError, match="expected a path on this machine, got the URL 's3://b/x'"):
        local_path("s3://b/x")
