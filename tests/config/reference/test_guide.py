"""recipes/guides/options.md and its schemas are what the code makes, and read well."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from synthpipe.config.reference.guide import WRITE_COMMAND, guide_files, write_guide
from synthpipe.config.reference.topics import TOPICS

GUIDES = Path(__file__).parents[3] / "recipes" / "guides"


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return guide_files()


@pytest.fixture(scope="module")
def guide(files: dict[str, str]) -> str:
    return files["options.md"]


@pytest.mark.parametrize("name", ["options.md", "schema/stream.json", "schema/train.json", "schema/basicsr.json"])
def test_the_files_of_the_repository_are_up_to_date(name: str, files: dict[str, str]) -> None:
    path = GUIDES / name
    stored, made = path.read_text(encoding="utf-8") if path.is_file() else "null", files[name]
    # JSON by value: versions of pydantic differ in whether a bound is 0 or 0.0.
    same = json.loads(stored) == json.loads(made) if name.endswith(".json") else stored == made
    assert same, f"{path} is not what the schemas say now; run: {WRITE_COMMAND}"


def test_writing_gives_these_files(files: dict[str, str], tmp_path: Path) -> None:
    assert sorted(files) == ["options.md", "schema/basicsr.json", "schema/stream.json", "schema/train.json"]
    folder = tmp_path / "new"
    written = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in write_guide(folder)}
    assert written == files


def test_every_link_within_the_guide_leads_somewhere(guide: str) -> None:
    headings = [line.lstrip("#").strip() for line in guide.splitlines() if line.startswith("#")]
    # As GitHub names headings: small letters, punctuation dropped, blanks to hyphens.
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = set(re.findall(r"\]\(#([^)]+)\)", guide))
    assert {name.replace(".", "") for name in TOPICS} <= links
    assert links <= anchors


def test_tables_have_four_columns_all_the_way(guide: str) -> None:
    rows = [line for line in guide.splitlines() if line.startswith("|")]
    assert len(rows) > 300
    for row in rows:
        assert len(re.split(r"(?<!\\)\|", row)) == 6, row


def test_what_is_written_once_is_linked(guide: str) -> None:
    assert guide.count("standard deviation along the wide axis") == 1
    assert "[degrade](#degrade) block by type (deflow, " in guide
    # What all kinds of training have stands in their common chapter alone.
    assert guide.count("| `max_steps` |") == 1
    assert guide.count("| `open_shards` |") == 1


def test_the_commands_that_it_names_exist(guide: str) -> None:
    from synthpipe.cli import main

    for name in re.findall(r"`synthpipe (\w+) --help`", guide):
        with pytest.raises(SystemExit) as end:
            main([name, "--help"])
        assert end.value.code == 0
