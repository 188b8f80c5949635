"""The `options` command as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from synthpipe.cli import main
from synthpipe.config.reference.topics import TOPICS


def test_without_a_name_it_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["options"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{out}" for name in TOPICS)


@pytest.mark.parametrize("words", [["train", "deflow"], ["train.deflow"]])
def test_a_kind_of_training_is_named_either_way(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["options", *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith("train.deflow: a conditional flow")
    assert "model.encoder.features" in out
    assert "data.noisy.folder" in out


def test_train_lists_its_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["options", "train"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in TOPICS if name.startswith("train."))
    assert "max_steps" in out


def test_one_option_alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "220")
    assert main(["options", "stream.tile"]) == 0
    out = capsys.readouterr().out
    assert "side of the LR tile" in out
    assert "gt_size" not in out


def test_the_width_of_the_terminal_is_kept(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    main(["options", "filter"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 70


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["strem"], "did you mean 'stream'?"),
        (["train", "deflw"], "did you mean 'train.deflow'?"),
        (["stream.tlie"], "did you mean 'stream.tile'?"),
        (["stream", "degrade", "blurr"], "did you mean 'stream.degrade.blur'?"),
        (["stages.jpg"], "did you mean 'stages.jpeg'?"),
        (["qqqq"], "known names: stream, basicsr,"),
    ],
)
def test_an_unknown_name_is_a_usage_error(words: list[str], near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["options", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert near in captured.err


@pytest.mark.parametrize("name", ["stream", "train", "train.glow", "basicsr", "degrade", "shard"])
def test_the_schema_is_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["options", name, "--json-schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["title"] == f"synthpipe {name}"


def test_the_schema_of_train_has_all_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    main(["options", "train", "--json-schema"])
    schema = json.loads(capsys.readouterr().out)
    kinds = {name.removeprefix("train.") for name in TOPICS if name.startswith("train.")}
    assert set(schema["discriminator"]["mapping"]) == kinds
    assert len(schema["oneOf"]) == len(kinds)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--json-schema"], "expected a NAME"),
        (["stream.degrade", "--json-schema"], "got a part of 'stream': 'degrade'"),
        (["stream", "--write", "x"], "--write writes all names"),
    ],
)
def test_what_does_not_go_together(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["options", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["options", "--write", str(tmp_path)]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in paths] == ["options.md", "stream.json", "basicsr.json", "train.json"]
    assert all(path.stat().st_size > 1000 for path in paths)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["options", "--write", str(tmp_path / "file")]) == 2
    assert f"--write: cannot write {str(tmp_path / 'file')!r}" in capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["options", "--help"])
    assert end.value.code == 0
    assert "synthpipe options train deflow" in capsys.readouterr().out


def test_a_stage_alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "220")
    assert main(["options", "stages.dither"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("type: dither: Few colours")
    assert "palettes.median_cut" in out
    assert "libjpeg" not in out
    assert main(["options", "stages", "webp", "quality"]) == 0
    assert "libwebp's quality" in capsys.readouterr().out
    assert main(["options", "stages.levels"]) == 0  # quantise has an option of this name
    assert "in_black" in capsys.readouterr().out


def test_a_reader_that_goes_away_gets_no_traceback() -> None:
    """As ``synthpipe options stages | head -1``; here it is gone before the first line."""
    command = [sys.executable, "-m", "synthpipe", "options", "stages"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        said = running.stderr.read()
    assert said == ""
    assert running.returncode == 1


def test_other_broken_pipes_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(width: int) -> str:
        raise BrokenPipeError("a worker")

    monkeypatch.setattr("synthpipe.config.reference.terminal.names_page", broken)
    monkeypatch.setattr("synthpipe.cli.options.names_page", broken, raising=False)
    with pytest.raises(BrokenPipeError, match="a worker"):
        main(["options"])
