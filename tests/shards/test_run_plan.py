"""What a run was begun with: written once, compared ever after, with every difference in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from synthpipe.errors import ShardError
from synthpipe.files.storage import OutputFolder
from synthpipe.shards.run_plan import InputChecksum, RunPlan, differences, open_run

OPTIONS: dict[str, Any] = {"size": 3, "name": "a", "inner": {"x": 0.5, "y": None}, "shards": ["a.tar", "b.tar"]}


def plan(options: dict[str, Any] | None = None, **checksums: str) -> RunPlan:
    values = {"table": "t0", "files": "f0"} | checksums
    return RunPlan(
        "a-plan",
        1,
        "rule",
        OPTIONS | (options or {}),
        {
            "table": InputChecksum(values["table"], lambda before: "other scores"),
            "files": InputChecksum(values["files"], lambda before: f"{before['count']} files then", with_options=True),
        },
        {"count": 7},
    )


def begin(plan: RunPlan, folder: Path, **options: Any) -> None:
    output = OutputFolder(str(folder))
    with open_run(output) as scratch:
        plan.begin(output, scratch, **options)


def test_the_file_is_json_sorted_by_name(tmp_path: Path) -> None:
    begin(plan(), tmp_path)
    text = (tmp_path / "_state" / "plan.json").read_text()
    values = {"format": "a-plan", "version": 1, "rule": OPTIONS, "table": "t0", "files": "f0", "count": 7}
    assert text == json.dumps(values, sort_keys=True, indent=1) + "\n"


def test_the_same_plan_goes_on_and_leaves_the_file_alone(tmp_path: Path) -> None:
    begin(plan(), tmp_path)
    (tmp_path / "x.tar").touch()
    before = (tmp_path / "_state" / "plan.json").stat()
    begin(plan({"shards": ("a.tar", "b.tar")}), tmp_path)
    assert (tmp_path / "_state" / "plan.json").stat() == before


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (plan({"size": 4}), ": begun with other options: size was 3, is 4; go on with the options and the input of"),
        (plan({"size": 4, "name": "b"}), "options: name was 'a', is 'b'; size was 3, is 4; go on"),
        (plan({"inner": {"x": 1, "z": 2}}), "options: inner.x was 0.5, is 1; inner.z was None, is 2; go on"),
        (
            plan({"shards": ["a.tar", "c.tar", "d.tar"]}),
            "shards had 2 entries, has 3; number 1 was 'b.tar', is 'c.tar'",
        ),
        (plan({"shards": ["a.tar"]}), "shards had 2 entries, has 1; number 1 was 'b.tar', is missing"),
        (plan(table="t1"), ": other scores; go on"),
        (plan(files="f1"), ": 7 files then; go on"),
        (plan(files="f1", table="t1"), ": other scores; 7 files then; go on"),
        (plan({"size": 4}, table="t1"), "size was 3, is 4; other scores; go on"),
        (plan({"size": 4}, files="f1"), "options: size was 3, is 4; go on"),
    ],
)
def test_every_difference_is_named(other: RunPlan, said: str, tmp_path: Path) -> None:
    begin(plan(), tmp_path)
    with pytest.raises(ShardError) as caught:
        begin(other, tmp_path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert str(caught.value).endswith("that run, or name another output folder, or empty this one")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"format": "b-plan", "version": 1}',
            "begun by another command or version.*'a-plan' version 1, found 'b-plan'",
        ),
        ('{"format": "a-plan", "version": 2}', "begun by another command or version.*found 'a-plan' version 2"),
        ('{"format": "a-plan", "version": 1}', "damaged plan"),
        ('{"format": "a-plan", "version": 1, "rule": [1]}', "damaged plan"),
        (plan().to_json().replace('"table"', '"tab"'), "damaged plan"),
        ("[]", "damaged plan"),
        ("3", "damaged plan"),
        ("{", "damaged plan"),
        ("[" * 100_000, "damaged plan"),
        ("\xff", "damaged plan"),
    ],
)
def test_plans_of_others_and_damaged_ones(text: str, said: str, tmp_path: Path) -> None:
    begin(plan(), tmp_path)
    (tmp_path / "_state" / "plan.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ShardError, match=f"(?s){said}.*name another output folder, or empty this one"):
        begin(plan(), tmp_path)


@pytest.mark.parametrize("name", ["x.tar", "index.json", "kept.txt"])
def test_what_another_left_is_not_touched(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(ShardError, match=f"already holds '{name}' of another origin; name an empty folder"):
        begin(plan(), tmp_path, foreign=["kept.txt"])
    assert (tmp_path / name).read_bytes() == b"precious"
    assert not (tmp_path / "_state" / "plan.json").exists()


def test_a_second_run_is_kept_out(tmp_path: Path) -> None:
    output = OutputFolder(str(tmp_path))
    with open_run(output), pytest.raises(ShardError, match="another run is writing here"), open_run(output):
        pass
    with open_run(output) as scratch:
        assert scratch.is_dir()


def test_differences_of_the_same() -> None:
    assert differences(OPTIONS, json.loads(json.dumps(OPTIONS))) == []
