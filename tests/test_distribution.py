"""What a package index shows of the wheel, and what the wheel holds besides modules."""

from __future__ import annotations

import configparser
import email
import email.message
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, so that no build folder is left in the checkout, with the setuptools that is installed."""
    source = tmp_path_factory.mktemp("source")
    # README.md for the day when the description is a file again: the test then finds its links.
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "synthpipe", source / "synthpipe", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    command = [sys.executable, "-W", "ignore", "-c", code, str(source)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return zipfile.ZipFile(next(source.glob("*.whl")))


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


def relative_targets(markdown: str) -> list[str]:
    """Targets of links and pictures, in Markdown or HTML, that lead nowhere outside the repository."""
    inline = re.findall(r"\]\(\s*<?([^)\s>]+)", markdown)
    reference = re.findall(r"^\s*\[[^\]]+\]:\s*(\S+)", markdown, re.MULTILINE)
    html = re.findall(r"(?:src|href)\s*=\s*[\"']?([^\"'\s>]+)", markdown)
    return [target for target in inline + reference + html if not re.match(r"(https?:|mailto:)", target)]


def test_relative_targets_are_found() -> None:
    text = "[a](recipes/a.md) ![b](b.png) [c](https://c.org) <img src='d.png'>\n[e]: e.md\n[f](#part)"
    assert relative_targets(text) == ["recipes/a.md", "b.png", "#part", "e.md", "d.png"]


def test_the_description_has_no_relative_link_or_picture(metadata: email.message.Message) -> None:
    description = metadata.get_payload()
    assert isinstance(description, str)
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "two piles of images" in description
    assert "\n\n- DeFlow" in description  # a list of its own, not a part of the sentence before it
    assert relative_targets(description) == []


def test_package_data_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    inside = {name for name in wheel.namelist() if name.startswith("synthpipe/")}
    expected = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.py", "py.typed", "weights/*.safetensors", "weights/*.md", "flat_noise/*.npz")
        for path in (ROOT / "synthpipe").rglob(pattern)
    }
    assert expected <= inside
    assert any(name.endswith("/LICENSE") for name in wheel.namelist())


def test_extras_have_names_that_every_pip_finds(metadata: email.message.Message) -> None:
    """Setuptools writes normalised names; pip before 23.3, which Python 3.11 brings, takes names as they are typed."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    extras = set(setup["options.extras_require"])
    assert extras == set(metadata.get_all("Provides-Extra", []))
    for path in [*ROOT.glob("synthpipe/**/*.py"), *ROOT.glob("recipes/guides/*.md"), *ROOT.glob("tools/*.sh")]:
        text = path.read_text(encoding="utf-8")
        named = re.findall(r"(?:synthpipe|-e \"\.)\[([a-z0-9_,-]+)\]", text)
        assert {extra for names in named for extra in names.split(",")} <= extras, path
