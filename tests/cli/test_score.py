"""The `score` command as a user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthpipe.cli import main
from tests.scored_corpus import rows_of, shard_photos, write_photos, write_weights
from tests.stream_corpus import write_tar


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def shards(tmp_path: Path) -> str:
    return shard_photos(write_photos(tmp_path / "photos"), tmp_path / "hr")


def test_what_a_user_sees(weights: str, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(Path(shards).parent / "more.tar", [("bad.png", b"x")])
    out = str(tmp_path / "hr.parquet")
    command = ["score", weights, shards, str(tmp_path / "more.tar"), out, "--workers", "1"]
    assert main([*command, "--cache", str(tmp_path / "cache"), "--tiles", "2"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"{out}: 8 of 9 images scored, in 4 parts",
        "without a score: 1 unreadable; see the column `error` of the table",
        "cache: 0 found, 9 computed",
    ]
    assert "%|" not in said.err  # no bar in a log file
    assert max(row["tiles"] for row in rows_of(out) if row["tiles"]) == 2
    assert main([*command, "--tiles", "2"]) == 0
    assert "from an earlier run: 4 parts" in capsys.readouterr().out


def test_nothing_scored(weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = str(write_tar(tmp_path / "s.tar", [("bad.png", b"x")]))
    assert main(["score", weights, shard, str(tmp_path / "x.parquet"), "--workers", "1"]) == 1
    assert "no image could be scored" in capsys.readouterr().err
    assert len(rows_of(tmp_path / "x.parquet")) == 1


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["score", "--help"])
    assert caught.value.code == 0
    assert "synthpipe score scorer_kinds /data/hr hr.parquet" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["score", "filter --reject 0.5", "denoise"])
@pytest.mark.parametrize("workers", ["0", "-1", "many"])
def test_no_workers_at_all(command: str, workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "W", "S", "x.parquet", f"--workers={workers}"])
    assert caught.value.code == 2
    assert f"argument --workers: expected a whole number from 1 on, got '{workers}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["W", "S", "out.csv"], 2, "option 'output'"),
        (["W", "S", "x.parquet", "--tiles", "0"], 2, "option 'tiles'"),
        (["W", "S", "x.parquet", "--cache", "s3://x/y"], 2, "'cache' to be a folder on this machine"),
        (["W", "pipe:cat x", "x.parquet"], 2, "runs a shell command"),
        (["W", "nowhere.tar", "x.parquet"], 1, "no such shard"),
        (["absent", "S", "x.parquet"], 1, "no weights at 'absent'"),
    ],
)
def test_exit_codes(
    arguments: list[str],
    code: int,
    said: str,
    weights: str,
    shards: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [{"W": weights, "S": shards}.get(argument, argument) for argument in arguments]
    assert main(["score", *given, "--workers", "1"]) == code
    assert said in capsys.readouterr().err


def test_an_engine_that_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["score", "w", "s", "x.parquet", "--engine", "spark"])
    assert caught.value.code == 2
    assert "invalid choice: 'spark'" in capsys.readouterr().err
