"""The commands of a guide, as blocks: found in the Markdown, moved to a folder of small data, and shortened.

A comment on the line before a block says what is special about it:

* ``<!-- guides: skip, REASON -->``  it cannot run here; the reason is part of the report;
* ``<!-- guides: file NAME -->``     it is the file NAME, which later blocks use;
* ``<!-- guides: into NAME -->``     it is a part of the option file NAME: of one in the repository, or of one of
  :data:`BASES`.

Nothing here runs anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

__all__ = ["BASES", "Block", "at_workplace", "find_blocks", "merged", "shortened"]

#: Languages that run; ``text`` is shown and not run, and any other is a mistake.
_RUNNING = ("bash", "python", "yaml")
_SHOWN = ("text",)

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})\s*(?P<language>\S*)")
_DIRECTIVE = re.compile(r"^ *<!-- *guides: *(?P<verb>skip|file|into)[, ] *(?P<rest>.*\S) *-->$")
_MENTION = re.compile(r"<!-- *guides")

#: What every training of a guide gets, so that it takes seconds.
_TRAINING = ("max_steps=2", "log_every=1", "sample_every=2", "checkpoint_every=1")
#: What a training of one recipe gets besides: networks of published sizes become small ones.
_RECIPES: dict[str, tuple[str, ...]] = {
    "recipes/deflow_aim/train.yml": (
        "data.crop=32",
        "data.batch_size=4",
        "data.cache_mb=64",
        "model.hidden=8",
        "model.steps=1",
        "model.transition_steps=1",
        "model.encoder={type: small, features: 8}",
    ),
    "recipes/dde_generator/eight_gaussians.yml": ("generator.start=1",),
}
#: What a training in BasicSR gets, by BasicSR's own ``--force_yml``.
_BASICSR = ("train:total_iter=2", "val:val_freq=2", "logger:save_checkpoint_freq=1", "logger:print_freq=1")

_BASICSR_BASE: dict[str, Any] = {
    "name": "guide",
    "model_type": "ESRGANModel",
    "scale": 4,
    "num_gpu": "auto",
    "manual_seed": 0,
    # `pool`: the first batch waits until it is full.
    "datasets": {
        "train": {"pool": 16},
        "val": {
            "name": "my_val",
            "type": "PairedImageDataset",
            "dataroot_gt": "/data/my_val/gt",
            "dataroot_lq": "/data/my_val/lq",
            "io_backend": {"type": "disk"},
        },
    },
    "network_g": {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "num_grow_ch": 4},
    "network_d": {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 8},
    "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
    "train": {
        "ema_decay": 0.9,
        "optim_g": {"type": "Adam", "lr": 1e-4},
        "optim_d": {"type": "Adam", "lr": 1e-4},
        "scheduler": {"type": "MultiStepLR", "milestones": [1000], "gamma": 0.5},
        "total_iter": 1000,
        "warmup_iter": -1,
        "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        "gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.005},
        "net_d_iters": 1,
        "net_d_init_iters": 0,
    },
    "val": {"val_freq": 1000, "save_img": False, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4}}},
    "logger": {"print_freq": 100, "save_checkpoint_freq": 1000, "use_tb_logger": False, "wandb": {"project": None}},
}

#: "Everything else in the file stays as it is": the rest of option files of which a guide shows a part.
BASES: dict[str, dict[str, Any]] = {
    "my_esrgan.yml": _BASICSR_BASE,
    "my_gt.yml": {**_BASICSR_BASE, "name": "guide_gt", "datasets": {}},
    "stream.yml": {"shards": "/data/hr", "gt_size": 128, "pool": 16, "degrade": {"type": "classical"}},
}


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Args:
        line: number of its first line of code in the file, from 1.
        language: ``bash``, ``python`` or ``yaml``.
        text: the code, without the indentation of the fence.
        verb: ``run``, or what the comment before it says: ``skip``, ``file``, ``into``.
        rest: the reason of ``skip``, or a file name.
    """

    line: int
    language: str
    text: str
    verb: str = "run"
    rest: str = ""

    @property
    def title(self) -> str:
        """Its first line that says something."""
        lines = [line.strip() for line in self.text.splitlines()]
        return next((line for line in lines if line and not line.startswith("#")), lines[0] if lines else "")


def find_blocks(markdown: str, name: str) -> list[Block]:
    """The blocks of a guide that run or are skipped, in order.

    Raises:
        ValueError: a block without a language, a YAML block that belongs to no file, a comment that cannot be read or
            that stands before no block; with ``name`` and the line.
    """
    found = []
    pending: re.Match[str] | None = None
    for number, line, fenced in _lines_and_fences(markdown, name):
        if fenced is None:
            if pending is not None:
                raise ValueError(f"{name}:{number}: expected a block right after the comment {pending.group().strip()}")
            pending = _DIRECTIVE.match(line)
            if pending is None and _MENTION.search(line):
                raise ValueError(f"{name}:{number}: expected 'guides: skip|file|into ...', got {line.strip()!r}")
            continue
        block = _block(number, line, fenced, pending, name)
        pending = None
        if block is not None:
            found.append(block)
    return found


def _lines_and_fences(markdown: str, name: str) -> Iterator[tuple[int, str, str | None]]:
    """``(number, line, None)`` of lines outside, and of each fence the line that opens it, with the code inside."""
    lines = markdown.splitlines()
    at = 0
    while at < len(lines):
        opening = _FENCE.match(lines[at])
        if opening is None:
            yield at + 1, lines[at], None
            at += 1
            continue
        indent, fence = opening["indent"], opening["fence"]
        end = next((k for k in range(at + 1, len(lines)) if lines[k].strip() == fence), None)
        if end is None:
            raise ValueError(f"{name}:{at + 1}: this block has no end")
        code = "".join(line.removeprefix(indent) + "\n" for line in lines[at + 1 : end])
        yield at + 1, lines[at], code
        at = end + 1


def _block(number: int, line: str, code: str, directive: re.Match[str] | None, name: str) -> Block | None:
    opening = _FENCE.match(line)
    language = opening["language"] if opening else ""
    if language in _SHOWN and directive is None:
        return None
    if language not in _RUNNING:
        raise ValueError(f"{name}:{number}: expected one of {_RUNNING + _SHOWN} after the fence, got {language!r}")
    verb, rest = (directive["verb"], directive["rest"]) if directive else ("run", "")
    if language == "yaml" and verb == "run":
        raise ValueError(f"{name}:{number}: a YAML block needs a comment 'guides: file NAME' or 'guides: into NAME'")
    if verb == "into" and language != "yaml":
        raise ValueError(f"{name}:{number}: 'guides: into' is for YAML, got {language}")
    return Block(number + 1, language, code, verb, rest)


def at_workplace(text: str, workplace: str) -> str:
    """The examples' ``/data/...`` and ``~/`` as folders of ``workplace``."""
    return re.sub(r"(?<![\w./~:])(/data(?![\w.-])|~(?=/))", rf"{workplace}\1", text).replace(
        f"{workplace}~", f"{workplace}/home"
    )


def merged(base: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """Option files, one laid on the other: groups go into each other, a group with another ``type`` replaces."""
    result = dict(base)
    for key, value in part.items():
        old = result.get(key)
        same = isinstance(old, Mapping) and isinstance(value, Mapping) and old.get("type") in (None, value.get("type"))
        result[key] = merged(old, value) if same and isinstance(old, Mapping) else value
    return result


def shortened(command: Sequence[str]) -> list[str]:
    """A command as it runs here: a training takes two steps, in at most two processes; others are as they are.

    But few pictures need more mixtures of each, or some kind of degradation is in none of them.

    Args:
        command: program and arguments, such as ``["synthpipe", "train", "x.yml", "run_dir=a", "--resume"]``.
    """
    words = [re.sub(r"^--nproc_per_node=\d+$", "--nproc_per_node=2", word) for word in command]
    if "-opt" in words:
        return [*words, "--force_yml", *_BASICSR]
    if words[:3] == ["synthpipe", "calibrate", "scorer_kinds"]:
        return [*words, "--mixtures", "48"]
    for at, (program, verb) in enumerate(pairwise(words)):
        if program == "synthpipe" and verb == "train" and at + 2 < len(words):
            end = at + 3
            while end < len(words) and not words[end].startswith("-"):
                end += 1
            return [*words[:end], *_TRAINING, *_RECIPES.get(words[at + 2], ()), *words[end:]]
    return words
