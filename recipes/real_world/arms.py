"""Arms: ``arms/*.yml`` and what their names stand for, made into option files of ordinary streams."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from networks import Size
from scenes import Test

from synthpipe import checkpoints
from synthpipe.config.presets import preset_chain
from synthpipe.errors import SynthPipeError

__all__ = ["NOTHING", "REAL", "Arm", "MissingError", "arm_names", "make_arm", "real_esrgan", "write_stream"]

NOTHING, REAL = "nothing", "real"
HERE = Path(__file__).parent


class MissingError(SynthPipeError):
    """What an arm needs is not there (yet)."""


@dataclass(frozen=True)
class Arm:
    """How one arm of a test makes its pairs.

    Args:
        name: of the arm.
        stream: options of its stream but for the seed; None where it has none (``nothing``, ``real``).
        files: digests of the files that they name, by path.
    """

    name: str
    stream: dict[str, Any] | None
    files: dict[str, str]

    def digest(self, more: Mapping[str, Any]) -> str:
        """Of all that decides the trained network: options with contents in place of paths, and ``more``."""
        options = None if self.stream is None else {k: v for k, v in self.stream.items() if k != "shards"}
        text = json.dumps([options, more], sort_keys=True)
        for path, content in self.files.items():
            text = text.replace(json.dumps(path), json.dumps(content))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def real_esrgan(scale: int) -> list[dict[str, Any]]:
    """The preset without its first stage, which sharpens.

    At scale 1 what it does at the size of ``gt`` is meant for images of four times the side: as it stands it would
    reduce them to a seventh.  There the first blur is at most one pixel wide, and the first size at most 1.3 times off.
    """
    stages = preset_chain("real-esrgan")[1:]
    if scale == 1:
        blur, resize = stages[:2]
        stages[:2] = [{**blur, "sigma": [0.2, 1.0]}, {**resize, "factor": [0.7, 1.3]}]
    return stages


def arm_names(test: Test) -> list[str]:
    """All arms of a test, in the order of the tables."""
    middle = list(_blocks(test))
    return [NOTHING, *middle, *([REAL] if test.ceiling else [])]


def make_arm(test: Test, name: str, shards: Path, size: Size, values: Mapping[str, Callable[[], Any]]) -> Arm:
    """One arm of a test.

    Args:
        test: one of the tests.
        name: one of :func:`arm_names`.
        shards: of the clean photographs.
        size: of tiles and patches.
        values: what the names in brackets stand for: blocks, or paths of files.

    Raises:
        MissingError: a file is not there.
    """
    if name in (NOTHING, REAL):
        return Arm(name, None, {})
    files: dict[str, str] = {}
    degrade = _filled(_blocks(test)[name], values, files)
    shape = size.shapes[test.scale]
    stream = {
        "shards": str(shards),
        "scale": test.scale,
        "gt_size": shape.patch * test.scale,
        "batch_size": size.batch,
        "tile": shape.tile,
        "patches_per_tile": shape.patches_per_tile,
        "pool": shape.pool,
        "workers": 0,
        "degrade": degrade,
    }
    return Arm(name, stream, files)


def write_stream(arm: Arm, path: Path) -> None:
    """The options as a file that ``synthpipe preview`` and every trainer of streams reads."""
    if arm.stream is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(arm.stream, sort_keys=False, default_flow_style=None, width=110))


def _blocks(test: Test) -> dict[str, Any]:
    blocks: dict[str, Any] = yaml.safe_load((HERE / "arms" / f"x{test.scale}.yml").read_text())
    return blocks


def _filled(block: Any, values: Mapping[str, Callable[[], Any]], files: dict[str, str]) -> Any:
    """The block with values in place of names in brackets; notes the files that it names."""
    if isinstance(block, Mapping):
        return {key: _filled(value, values, files) for key, value in block.items()}
    if isinstance(block, list):
        return [_filled(value, values, files) for value in block]
    if not (isinstance(block, str) and block.startswith("<") and block.endswith(">")):
        return block
    name = block[1:-1]
    if name not in values:
        raise MissingError(f"{block} is named nowhere in the weights of settings.yml")
    value = values[name]()
    if isinstance(value, Path):
        files[str(value)] = _content(value)
        return str(value)
    return value


def _content(path: Path) -> str:
    if path.suffix == ".safetensors" or not path.suffix:
        try:
            path = checkpoints.resolve(path)
        except SynthPipeError as error:
            raise MissingError(str(error)) from error
    return hashlib.sha256(path.read_bytes()).hexdigest()
