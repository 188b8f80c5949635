"""The `filter` command as a user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthpipe.cli import main
from synthpipe.shards.shard_index import read_index
from tests.scored_corpus import score, shard_photos, write_photos, write_weights


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Eight pictures in three shards, and their scores."""
    place = tmp_path_factory.mktemp("scored")
    shards = shard_photos(write_photos(place / "photos"), place / "hr")
    score(write_weights(place / "tiny.safetensors"), shards, place / "hr.parquet")
    return shards, str(place / "hr.parquet")


def test_what_a_user_sees(scored: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert main(["filter", *scored, out, "--reject", "0.25", "--workers", "1"]) == 0
    said = capsys.readouterr()
    index = read_index(out)
    assert said.out.splitlines() == [
        "6 of 8 images kept, 2 rejected by degraded_logit",
        f"6 samples in {len(index.shards)} shards, {index.bytes / 1e6:.1f} MB",
        f"{out}/report.html",
    ]
    assert "%|" not in said.err
    assert index.samples == 6
    assert "6 of 8 images kept" in (tmp_path / "out" / "report.html").read_text()


def test_nothing_kept(scored: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["filter", *scored, str(out), "--max-logit", "-1000000", "--workers", "1"]) == 1
    assert "nothing was kept" in capsys.readouterr().err
    assert (out / "report.html").exists()
    assert not (out / "index.json").exists()


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["filter", "--help"])
    assert caught.value.code == 0
    assert "synthpipe filter /data/hr hr.parquet /data/hr_kept --reject 0.2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("extra", "code", "said"),
    [
        (["--reject", "1.5"], 2, "option 'reject'"),
        (["--reject", "0.5", "--by", "beauty"], 2, "no column 'beauty'"),
        (["--max-logit", "0", "--per-source"], 2, "'per_source' needs 'reject'"),
    ],
)
def test_exit_codes(
    extra: list[str], code: int, said: str, scored: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["filter", *scored, str(tmp_path / "out"), *extra, "--workers", "1"]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("rule", [[], ["--reject", "0.5", "--max-logit", "1"]])
def test_one_rule(rule: list[str], scored: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["filter", *scored, "out", *rule])
    assert caught.value.code == 2
    assert "--max-logit" in capsys.readouterr().err
