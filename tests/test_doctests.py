"""The examples of docstrings run, each as a user would type it: in an empty namespace, beside `photos` and `shards`."""

from __future__ import annotations

import ast
import doctest
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synthpipe.cli import main

ROOT = Path(__file__).parent.parent

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples() -> dict[str, doctest.DocTest]:
    """By module and name.  Read from the source, so that nothing is imported that no example imports."""
    parser, found = doctest.DocTestParser(), {}
    for path in sorted((ROOT / "synthpipe").rglob("*.py")):
        source = path.read_text()
        if ">>>" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            text = ast.get_docstring(node)
            if text is not None and ">>>" in text:
                where = str(path.relative_to(ROOT))
                name = f"{where}:{getattr(node, 'name', 'module')}"
                found[name] = parser.get_doctest(text, {}, name, where, node.body[0].lineno - 1)
    return found


EXAMPLES = examples()
#: Where a user looks first.
EXPECTED = {
    "synthpipe/checkpoints.py:load",
    "synthpipe/config/reader.py:parse_options",
    "synthpipe/denoisers/base.py:denoise",
    "synthpipe/denoisers/plug_and_play.py:restore",
    "synthpipe/flows/deflow.py:degrade",
    "synthpipe/images.py:downscale_bicubic",
    "synthpipe/pipeline/build.py:build_stream",
    "synthpipe/transforms/classical.py:ClassicalDegrade",
    "synthpipe/transforms/deflow.py:DeFlowDegrade",
    "synthpipe/transforms/denoise.py:Denoise",
    "synthpipe/transforms/density.py:score_image",
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos` of 160x192 pixels, and their `shards`."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "photos").mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (160, 192, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"photos/{number}.png")
    assert main(["shard", str(folder / "photos"), str(folder / "shards"), "--workers", "1"]) == 0
    return folder


def test_examples_stand_where_a_user_looks() -> None:
    assert set(EXAMPLES) >= EXPECTED


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_example(name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    torch.manual_seed(0)
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(EXAMPLES[name], out=report.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(report)
