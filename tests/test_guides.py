"""README.md, the guides and the recipes' pages, and ``tools/guides.py``, which runs the commands of the first two."""

from __future__ import annotations

import argparse
import configparser
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
import yaml
from PIL import Image

from synthpipe.config.chain import StageOption

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / "tools"
README = ROOT / "README.md"
#: options.md is generated: tests/config/reference holds what it must be, its examples included.
GUIDES = [path for path in sorted((ROOT / "recipes" / "guides").glob("*.md")) if path.name != "options.md"]
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("recipes/*/*.md"), *ROOT.glob("synthpipe/weights/*.md")})

EXAMPLE = """# A guide

Some `text`, and what is not run:

```text
nothing
```

1. In a list:

   ```bash
   synthpipe shard /data/clean /data/hr   # comment
       indented more
   ```

<!-- guides: skip, needs a GPU, a large one -->
```bash
pip install torch
```

<!-- guides: into stream.yml -->
```yaml
gt_size: 64
```

<!-- guides: file my.py -->
````python
text = '''
```
'''
````
"""


@pytest.fixture(scope="module")
def guide_blocks() -> Iterator[ModuleType]:
    yield from _tool("guide_blocks")


@pytest.fixture(scope="module")
def guides() -> Iterator[ModuleType]:
    yield from _tool("guides")


def _tool(name: str) -> Iterator[ModuleType]:
    sys.path.insert(0, str(TOOLS))
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(TOOLS))


class TestBlocks:
    def test_are_found_with_what_the_comment_before_them_says(self, guide_blocks: ModuleType) -> None:
        blocks = guide_blocks.find_blocks(EXAMPLE, "example.md")
        assert [(block.line, block.language, block.verb, block.rest) for block in blocks] == [
            (12, "bash", "run", ""),
            (18, "bash", "skip", "needs a GPU, a large one"),
            (23, "yaml", "into", "stream.yml"),
            (28, "python", "file", "my.py"),
        ]
        assert blocks[0].text == "synthpipe shard /data/clean /data/hr   # comment\n    indented more\n"
        assert blocks[3].text == "text = '''\n```\n'''\n"
        lines = EXAMPLE.splitlines()
        assert all(lines[block.line - 1].strip() == block.text.splitlines()[0] for block in blocks)

    @pytest.mark.parametrize(
        ("markdown", "message"),
        [
            ("```\nls\n```\n", r"g.md:1: expected one of .*'bash'.* got ''"),
            ("```yaml\na: 1\n```\n", r"g.md:1: a YAML block needs"),
            ("<!-- guides: skip -->\n```bash\nls\n```\n", r"g.md:1: expected 'guides: skip"),
            ("<!-- guides: ship, x -->\n", r"g.md:1: expected 'guides: skip"),
            ("<!-- guides: skip, x -->\n\n```bash\nls\n```\n", r"g.md:2: expected a block right after"),
            ("<!-- guides: into a.yml -->\n```bash\nls\n```\n", r"g.md:2: 'guides: into' is for YAML"),
            ("x\n```bash\nls\n", r"g.md:2: this block has no end"),
        ],
    )
    def test_a_mistake_is_named_with_its_line(self, guide_blocks: ModuleType, markdown: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            guide_blocks.find_blocks(markdown, "g.md")

    def test_paths_of_examples_lie_in_the_workplace(self, guide_blocks: ModuleType) -> None:
        text = "synthpipe shard /data/a runs/data/b s3://x/data/c 'x=/data/d' /database /data ~/.cache a~/b"
        assert guide_blocks.at_workplace(text, "/w") == (
            "synthpipe shard /w/data/a runs/data/b s3://x/data/c 'x=/w/data/d' /database /w/data /w/home/.cache a~/b"
        )

    def test_option_files_laid_on_each_other(self, guide_blocks: ModuleType) -> None:
        base = {"a": {"b": 1, "c": 2}, "degrade": {"type": "classical", "blur": 1}, "d": 4}
        part = {"a": {"b": 3}, "degrade": {"type": "deflow"}, "e": {"f": 5}}
        expected = {"a": {"b": 3, "c": 2}, "degrade": {"type": "deflow"}, "d": 4, "e": {"f": 5}}
        assert guide_blocks.merged(base, part) == expected
        assert base["a"] == {"b": 1, "c": 2}

    def test_only_trainings_are_shortened(self, guide_blocks: ModuleType) -> None:
        short = guide_blocks.shortened
        assert short(["synthpipe", "score", "a", "b"]) == ["synthpipe", "score", "a", "b"]
        words = short(["synthpipe", "train", "x.yml", "max_steps=9", "--resume"])
        # The last of two values counts, and positional arguments must stand together.
        assert words.index("max_steps=2") > words.index("max_steps=9")
        assert words[-1] == "--resume"
        words = short(["torchrun", "--nproc_per_node=8", "-m", "synthpipe", "train", "recipes/deflow_aim/train.yml"])
        assert words[1] == "--nproc_per_node=2"
        assert {"data.crop=32", "max_steps=2"} <= set(words)
        words = short(["python", "-m", "synthpipe.basicsr_plugin.train", "-opt", "a.yml", "--auto_resume"])
        assert words[:6] == ["python", "-m", "synthpipe.basicsr_plugin.train", "-opt", "a.yml", "--auto_resume"]
        assert words[6] == "--force_yml"
        assert "train:total_iter=2" in words[7:]


class TestRunning:
    @pytest.fixture
    def folder(self, guides: ModuleType, tmp_path: Path) -> Path:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "a.txt").write_text("found")
        guides.write_programs(tmp_path)
        return tmp_path

    def outcomes(self, guides: ModuleType, folder: Path, markdown: str) -> list[tuple[str, str]]:
        path = folder / "example.md"
        path.write_text(markdown)
        return [(result.outcome, result.said.strip()) for result in guides.run_file(folder, path)]

    def test_blocks_share_a_folder_that_holds_the_data(self, guides: ModuleType, folder: Path) -> None:
        found = self.outcomes(
            guides,
            folder,
            "```bash\ncat /data/a.txt > mine.txt\nls recipes | grep deflow_small\n```\n"
            "```python\nprint(open('mine.txt').read())\n```\n"
            "<!-- guides: file my.py -->\n```python\nprint('mine')\n```\n```bash\npython my.py\n```\n",
        )
        assert found == [
            ("ok", "deflow_small"),
            ("ok", "found"),
            ("ok", "my.py is written; a later block uses it"),
            ("ok", "mine"),
        ]

    def test_the_first_failure_ends_a_file(self, guides: ModuleType, folder: Path) -> None:
        found = self.outcomes(
            guides,
            folder,
            "```bash\necho before; false; echo after\n```\n"
            "<!-- guides: skip, needs a GPU -->\n```bash\nnvidia-smi\n```\n```bash\ntrue\n```\n",
        )
        assert found == [
            ("FAILED", "before"),
            ("skipped", "needs a GPU"),
            ("FAILED", "not run: a block before it failed"),
        ]

    def test_an_option_of_a_guide_that_does_not_exist_fails(self, guides: ModuleType, folder: Path) -> None:
        yaml_block = "<!-- guides: into recipes/dde_generator/digits.yml -->\n```yaml\nsigmaa: 1\n```\n"
        [(outcome, said)] = self.outcomes(guides, folder, yaml_block)
        assert outcome == "FAILED"
        assert "did you mean 'sigma'" in said

    def test_the_command_says_what_failed(
        self, guides: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def without_pictures(folder: Path) -> None:
            (folder / "data").mkdir()
            guides.write_programs(folder)

        monkeypatch.setattr(guides, "prepare", without_pictures)
        good, bad = tmp_path / "good.md", tmp_path / "bad.md"
        good.write_text("```bash\ntrue\n```\n")
        bad.write_text("```bash\necho the reason; exit 3\n```\n")
        assert guides.main([str(good)]) == 0
        assert guides.main([str(good), str(bad)]) == 1
        out = capsys.readouterr().out
        assert "the reason" in out
        assert "1 ok, 0 skipped, 1 FAILED" in out


class TestPages:
    def test_the_front_page_is_short(self) -> None:
        assert len(README.read_text().splitlines()) <= 150

    @pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
    def test_a_guide_is_short(self, path: Path) -> None:
        assert len(path.read_text().splitlines()) <= 200

    @pytest.mark.parametrize("path", [README, *GUIDES], ids=lambda path: path.name)
    def test_every_block_says_how_it_runs(self, guide_blocks: ModuleType, path: Path) -> None:
        blocks = guide_blocks.find_blocks(path.read_text(), path.name)
        for block in blocks:
            known = block.rest in guide_blocks.BASES or (ROOT / block.rest).is_file()
            assert block.verb != "into" or known, f"{path.name}:{block.line}: no option file {block.rest}"

    def test_the_index_names_every_guide(self) -> None:
        index = (ROOT / "recipes" / "guides" / "README.md").read_text()
        assert {path.name for path in GUIDES} - {"README.md"} | {"options.md"} <= set(
            re.findall(r"\]\((\w+\.md)\)", index)
        )

    @pytest.mark.parametrize("path", PAGES, ids=lambda path: "/".join(path.parts[-2:]))
    def test_every_relative_link_leads_somewhere(self, path: Path) -> None:
        text = path.read_text()
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"(https?:|mailto:)", target):
                continue
            name, _, anchor = target.partition("#")
            place = path.parent / name if name else path
            assert place.exists(), f"{path}: {target}"
            assert not anchor or anchor in anchors(place.read_text()), f"{path}: {target}"

    def test_the_figures_of_the_front_page_are_those_of_the_recipes(self) -> None:
        # A row may be of several weights.
        form = r"^\| (`\w+`(?:, `\w+`)*) \|[^|]*\|([^|]*)\| \[[^\]]*\]\(([^)]+)\) \|$"
        rows = re.findall(form, README.read_text(), re.MULTILINE)
        listed = [weights for names, _, _ in rows for weights in re.findall(r"\w+", names)]
        assert sorted(listed) == sorted(path.stem for path in (ROOT / "synthpipe" / "weights").glob("*.md"))
        for name, figure, recipe in rows:
            numbers = re.findall(r"\d+\.\d+", figure)
            assert numbers, name
            text = (ROOT / recipe).read_text()
            assert not [number for number in numbers if number not in text], f"{name}: {figure} is not in {recipe}"

    def test_every_command_is_on_the_front_page(self) -> None:
        table = set(re.findall(r"^\| `synthpipe ([\w-]+)` \|", README.read_text(), re.MULTILINE))
        assert table == set(commands())

    @pytest.mark.parametrize("path", [README, *GUIDES], ids=lambda path: path.name)
    def test_commands_and_flags_named_in_the_text_exist(self, path: Path) -> None:
        known = commands()
        prose = re.sub(r"^ *```.*?^ *```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        spans = re.findall(r"`([^`\n]+)`", prose)
        named = {match[1] for span in spans if (match := re.match(r"synthpipe ([a-z][\w-]*)", span))}
        assert named <= set(known)
        flags = {match for span in spans for match in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)}
        of_others = {
            "--auto_resume",
            "--restart_stream",
            "--force_yml",
            "--no-deps",
            "--no-build-isolation",
            "--help",
            "--keep",
        }
        assert flags <= of_others.union(*known.values())


def anchors(markdown: str) -> set[str]:
    """What GitHub makes of the headings: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ +(.+?) *$", re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> dict[str, set[str]]:
    """The commands of ``synthpipe`` and the flags of each."""
    from synthpipe import cli

    subparsers = argparse.ArgumentParser().add_subparsers()
    for name in cli._COMMANDS:
        importlib.import_module(f"synthpipe.cli.{name}").add_parser(subparsers)
    return {
        name: {flag for action in parser._actions for flag in action.option_strings}
        for name, parser in subparsers.choices.items()
    }


@pytest.mark.parametrize("stage", sorted(name for s in get_args(get_args(StageOption)[0]) for name in s.types()))
def test_every_stage_stands_in_the_guide_and_those_of_images_in_its_picture(stage: str) -> None:
    text = (ROOT / "recipes" / "guides" / "chains.md").read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert any(f"`{stage}`" in row for row in rows)
    gallery = (ROOT / "tools" / "stage_gallery.py").read_text()
    assert stage in ("choice", "shuffle") or f"type: {stage}" in gallery


def test_the_picture_of_stages_is_of_all_that_its_tool_lists() -> None:
    text = (TOOLS / "stage_gallery.py").read_text()
    listed = re.search(r'^STAGES = """(.*?)"""', text, re.DOTALL | re.MULTILINE)
    assert listed
    with Image.open(ROOT / "recipes" / "guides" / "stages.png") as picture:
        assert yaml.safe_load(picture.info["stages"]) == yaml.safe_load(listed[1])


def test_every_extra_stands_in_the_guide_to_installing() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    text = (ROOT / "recipes" / "guides" / "install.md").read_text()
    rows = " ".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    assert [extra for extra in setup["options.extras_require"] if f"`{extra}`" not in rows] == []
