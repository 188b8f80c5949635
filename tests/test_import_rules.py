"""Imports point to a lower rank only, and third-party packages stay where they belong (style guide, section 4)."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "synthpipe"

RANKS = {
    "_version": 0,
    "errors": 0,
    "seeds": 0.1,
    "philox": 0.1,
    "small_systems": 0.1,
    "device": 0.1,
    "json_text": 0.1,
    "torch_file": 0.1,
    "array_file": 0.1,
    "model_limits": 0.1,
    "images": 0.1,
    "pixel_limit": 0.1,
    "noise_statistics": 0.1,
    "noise_fit": 0.2,
    "flat_noise": 0.2,
    "flows": 1,
    "denoisers": 1,
    "density": 1,
    "kernels": 1,
    "config": 2,
    "registry": 3,
    "weights_file": 3,
    "checkpoints": 4,
    "files": 5,
    "noise_report": 5.5,
    "transforms": 6,
    "shards": 7,
    "corpus": 8,
    "pipeline": 9,
    "training": 10,
    "preview": 10,
    "filter_report": 10,
    "basicsr_plugin": 11,
    "cli": 12,
    "__main__": 13,
}

ANYWHERE = {"torch", "numpy"}
ALLOWED = {
    "config": {"pydantic", "yaml"},
    "checkpoints": {"safetensors"},
    "weights_file": {"safetensors"},
    "files": {"PIL", "av", "fsspec", "imagecodecs", "pillow_heif"},
    "shards": {"webdataset", "ray"},
    "corpus": {"pyarrow"},
    "pipeline": {"torchdata"},
    "preview": {"PIL"},
    "training": {"lightning_fabric", "lightning", "tqdm", "basicsr"},
    "basicsr_plugin": {"basicsr", "torchvision", "yaml"},
    "cli": {"tqdm"},
}


def imports_of(path: Path) -> list[tuple[int, str]]:
    """(line, dotted module) of every import in a file, those inside functions included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            # `from synthpipe import x` imports the module x
            if node.module == "synthpipe":
                found += [(node.lineno, f"synthpipe.{alias.name}") for alias in node.names]
            else:
                found.append((node.lineno, node.module or ""))
    return found


def unit_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def violations() -> list[str]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        unit = unit_of(path)
        if unit == "__init__":
            continue
        for line, module in imports_of(path):
            head, _, rest = module.partition(".")
            where = f"{path.relative_to(PACKAGE.parent)}:{line}"
            if head == "synthpipe":
                target = rest.split(".")[0]
                if target != unit and not RANKS[target] < RANKS[unit]:
                    found.append(f"{where}: {unit} (rank {RANKS[unit]}) imports {target} (rank {RANKS[target]})")
            elif head not in sys.stdlib_module_names | ANYWHERE | ALLOWED.get(unit, set()):
                found.append(f"{where}: {unit} may not import {head}")
    return found


def test_every_unit_has_a_rank() -> None:
    units = {unit_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert units <= set(RANKS)


def test_imports_point_down() -> None:
    assert violations() == []


def test_basicsr_stays_out_of_the_core() -> None:
    users = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        for _, module in imports_of(path)
        if module.split(".")[0] in ("basicsr", "torchvision")
    }
    assert users <= {"basicsr_plugin", "training"}
