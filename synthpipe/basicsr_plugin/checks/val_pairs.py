"""Validation sets: whether BasicSR finds pairs in them, and reads in both images of a pair what was meant.

BasicSR pairs by name within one folder, looks at sizes when it validates for the first time, and reads with OpenCV,
which drops transparency and colour profiles without a word.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from synthpipe.basicsr_plugin.checks.lookup import block_at, value_at
from synthpipe.basicsr_plugin.checks.sizes import lq_multiple
from synthpipe.basicsr_plugin.checks.types import registered
from synthpipe.basicsr_plugin.checks.val_image import AsRead, read_as_basicsr
from synthpipe.errors import ImageError, counted

__all__ = ["MOST_PAIRS", "Findings", "check_val_pairs"]

#: Pairs of one set whose files are opened; of more, as many that lie evenly among them.
MOST_PAIRS = 500
#: Examples that a message names.
_NAMED = 3
_MOST_BELOW = 1000
_CURE = "`synthpipe degrade WEIGHTS IN OUT --pairs` writes OUT/gt and OUT/lq that fit"
_PAIRED = ("PairedImageDataset", "RealESRGANPairedDataset")
#: Metrics that compare with gt.
_COMPARING = ("psnr", "ssim")
#: The least side, in pixels, that a metric of BasicSR's is a number for, what it crops left out.
_LEAST_SIDE = {"psnr": 1, "ssim": 11, "niqe": 96}


class Findings(NamedTuple):
    """``problems`` refuse the run; ``notes`` go to its log."""

    problems: list[str]
    notes: list[str]


class _Needs(NamedTuple):
    """What a run asks of the images of a validation set."""

    scale: int
    #: Whether BasicSR leaves a gt as it is that is larger than ``scale`` times its lq.
    exact: bool
    #: Sides of lq have to be a multiple of it.
    multiple: int
    #: The least side of gt, and the metric that asks for it.
    side: int
    metric: str


def check_val_pairs(options: Mapping[str, Any]) -> Findings:
    """Look through every validation set that reads pairs of images."""
    found = Findings([], [])
    for phase, block in block_at(options, "datasets").items():
        if str(phase).split("_")[0] != "val" or not isinstance(block, Mapping):
            continue
        where = f"datasets.{phase}"
        if block.get("type") == "SingleImageDataset":
            found.problems.extend(_check_single(where, options))
        elif block.get("type") in _PAIRED:
            _check_set(where, {**block, "phase": "val", "scale": options.get("scale")}, options, found)
    return found


def _check_single(where: str, options: Mapping[str, Any]) -> Iterator[str]:
    metrics = block_at(options, "val.metrics").values()
    names = [str(metric.get("type")) for metric in metrics if isinstance(metric, Mapping)]
    if comparing := [name for name in names if any(word in name for word in _COMPARING)]:
        yield (
            f"{where}.type: SingleImageDataset gives no gt, and val.metrics has {', '.join(comparing)}, which compare "
            "with it; take PairedImageDataset"
        )


def _check_set(where: str, block: dict[str, Any], options: Mapping[str, Any], found: Findings) -> None:
    if missing := [key for key in ("dataroot_gt", "dataroot_lq", "io_backend") if block.get(key) is None]:
        found.problems.append(f"{where}: {', '.join(missing)}: {block['type']} needs it, and it is not given")
        return
    for key in ("dataroot_gt", "dataroot_lq"):
        block[key] = os.path.expanduser(str(block[key]))
    roots = [key for key in ("dataroot_gt", "dataroot_lq") if not os.path.isdir(block[key])]
    for key in roots:
        expanded = "; BasicSR expands ~, and no variables" if "$" in block[key] else ""
        found.problems.append(f"{where}.{key}: no folder at {block[key]!r}{expanded}")
    if roots:
        return
    if problem := _wrong_template(block.get("filename_tmpl", "{}")):
        found.problems.append(f"{where}.filename_tmpl: {problem}")
        return
    problems, pairs = _pairs(where, block)
    found.problems.extend(problems)
    if problems or not isinstance(block["scale"], int):
        return
    found.notes.extend(_passed_over_below(where, block))
    side, metric = _least_side(options)
    needs = _Needs(block["scale"], block["type"] != _PAIRED[0], lq_multiple(options), side, metric)
    inside = Findings([], [])
    if _backend(block) == "lmdb":
        found.problems.extend(_few(where, list(_check_lmdb(block["dataroot_gt"], block["dataroot_lq"], needs))))
        return
    for gt, lq in _spread(pairs, MOST_PAIRS):
        _check_pair(gt, lq, needs, inside)
    found.problems.extend(_few(where, inside.problems))
    found.notes.extend(_few(where, inside.notes))
    if len(pairs) > MOST_PAIRS:
        found.notes.append(f"{where}: of {len(pairs)} pairs, {MOST_PAIRS} were looked into")


def _least_side(options: Mapping[str, Any]) -> tuple[int, str]:
    sides = [(0, "")]
    for name, metric in block_at(options, "val.metrics").items():
        kind = str(value_at({"metric": metric}, "metric.type")).removeprefix("calculate_")
        border = value_at({"metric": metric}, "metric.crop_border")
        if kind in _LEAST_SIDE and isinstance(border, int):
            sides.append((_LEAST_SIDE[kind] + 2 * border, f"val.metrics.{name} with crop_border {border}"))
    return max(sides)


def _backend(block: Mapping[str, Any]) -> str:
    backend = block["io_backend"]
    return str(backend.get("type")) if isinstance(backend, Mapping) else str(backend)


def _pairs(where: str, block: dict[str, Any]) -> tuple[list[str], list[tuple[str, str]]]:
    """(gt, lq) as BasicSR's own class pairs them, or why it does not."""
    from basicsr.utils.registry import DATASET_REGISTRY

    kind = _backend(block)
    if kind not in ("disk", "lmdb"):
        return [f"{where}.io_backend.type: expected disk or lmdb, got {kind!r}; write io_backend: {{type: disk}}"], []
    try:
        paths = registered(DATASET_REGISTRY, block["type"])(copy.deepcopy(block)).paths
    except OSError as error:
        return [f"{where}: cannot read {str(error.filename)!r}: {error.strerror or error}"], []
    # BasicSR asserts, and splits lines where it expects a comma.
    except (AssertionError, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        said = list(_why_unpaired(where, block)) if _reads_folders(block) else []
        return said or [f"{where}: BasicSR finds no pairs: {error}; {_CURE}"], []
    if not paths:
        return list(_why_unpaired(where, block)) or [f"{where}: 0 pairs in it; {_CURE}"], []
    pairs = [(str(each["gt_path"]), str(each["lq_path"])) for each in paths]
    if kind == "disk":
        absent = [path for pair in pairs for path in pair if not os.path.isfile(path)]
        if absent:
            names = f"{counted(len(absent), 'file')} that cannot be found, such as {absent[0]!r}"
            return [f"{where}: its list names {names}"], []
    return [], pairs


def _reads_folders(block: Mapping[str, Any]) -> bool:
    return _backend(block) == "disk" and not block.get("meta_info_file") and not block.get("meta_info")


def _passed_over_below(where: str, block: Mapping[str, Any]) -> Iterator[str]:
    """Files that a set with pairs at its top has in folders below."""
    for key in ("dataroot_gt", "dataroot_lq") if _reads_folders(block) else ():
        if below := _files_below(block[key]):
            yield (
                f"{where}.{key}: no part of the validation: {counted(below, 'file')} in folders below {block[key]!r}, "
                f"for BasicSR does not look there; {_CURE}, flat"
            )


def _why_unpaired(where: str, block: Mapping[str, Any]) -> Iterator[str]:
    """What stands in the way of pairs by name."""
    gt, lq = (_files(block[key]) for key in ("dataroot_gt", "dataroot_lq"))
    for key, names in (("dataroot_gt", gt), ("dataroot_lq", lq)):
        below = _files_below(block[key])
        if not names and below:
            yield (
                f"{where}.{key}: 0 images at the top of {block[key]!r} and {below} in folders below, where BasicSR "
                f"does not look; {_CURE}, flat"
            )
        elif not names:
            yield f"{where}.{key}: {block[key]!r} is empty, so validation would have 0 pairs; {_CURE}"
    if not gt or not lq:
        return
    template = str(block.get("filename_tmpl", "{}"))
    wanted = {_named(template, name): name for name in gt}
    alone, extra = sorted(set(wanted) - set(lq)), sorted(set(lq) - set(wanted))
    by_stem = {Path(name).stem: name for name in extra}
    suffixes = [(wanted[name], by_stem[Path(name).stem]) for name in alone if Path(name).stem in by_stem]
    if suffixes:
        yield (
            f"{where}: BasicSR wants the same suffix in both folders, not so in {counted(len(suffixes), 'pair')}, "
            f"such as {suffixes[0][0]!r} and {suffixes[0][1]!r}; {_CURE}, all PNG"
        )
    else:
        beside = f" (filename_tmpl is {template!r})" if template != "{}" else ""
        for names, here, there in ((alone, "gt", "lq"), (extra, "lq", "gt")):
            if names:
                yield f"{where}: {counted(len(names), 'image')} of {here} without a partner in {there}{beside}: " + (
                    f"{_some(wanted.get(name, name) if here == 'gt' else name for name in names)}; {_CURE}"
                )


def _wrong_template(template: Any) -> str | None:
    try:
        named = template.format("1"), template.format("2")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        named = "", ""
    if not isinstance(template, str) or named[0] == named[1]:
        return f"expected a text with {{}} where the name of gt goes, such as '{{}}x4', got {template!r}"
    return None


def _named(template: str, name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return f"{template.format(stem)}{suffix}"


def _files(folder: str) -> list[str]:
    """What BasicSR lists: files at the top that are not hidden, whatever they hold."""
    return [entry.name for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.is_file()]


def _files_below(folder: str) -> int:
    """Files in folders below, counted as far as ``_MOST_BELOW``."""
    count = 0
    for number, (place, _, files) in enumerate(os.walk(folder)):
        count += len(files) if place != folder else 0
        if count > _MOST_BELOW or number > _MOST_BELOW:
            break
    return count


def _check_pair(gt: str, lq: str, needs: _Needs, found: Findings) -> None:
    read: list[AsRead] = []
    for path in (gt, lq):
        try:
            read.append(read_as_basicsr(path))
        except ImageError as error:
            found.problems.append(f"{error}; BasicSR takes every file of the folder")
            return
    found.problems.extend(_wrong_sizes(gt, lq, read[0].size, read[1].size, needs))
    differing = set(read[0].changed) ^ set(read[1].changed)
    for path, image in zip((gt, lq), read, strict=True):
        for reason, text in image.changed.items():
            said = f"{path!r}: {text}"
            if reason in differing:
                found.problems.append(f"{said}, and {'lq' if path == gt else 'gt'} was read otherwise; {_CURE}")
            else:
                found.notes.append(f"{said}, in gt and lq alike")
        found.notes.extend(f"{path!r}: {text}" for text in image.rounded)


def _wrong_sizes(gt: str, lq: str, high: tuple[int, int], low: tuple[int, int], needs: _Needs) -> Iterator[str]:
    """``high`` and ``low`` as (height, width)."""
    expected = low[0] * needs.scale, low[1] * needs.scale
    over = high[0] - expected[0], high[1] - expected[1]
    # BasicSR crops what a gt has more than whole blocks.
    if min(over) < 0 or max(over) > (0 if needs.exact else needs.scale - 1):
        yield (
            f"{gt!r} is {high[1]}x{high[0]} and {lq!r} {low[1]}x{low[0]}: at scale {needs.scale} expected "
            f"{expected[1]}x{expected[0]}; {_CURE}"
        )
    elif min(expected) < needs.side:
        yield f"{gt!r} is {high[1]}x{high[0]}: {needs.metric} takes at least {needs.side} pixels a side"
    if any(side % needs.multiple for side in low):
        yield f"{lq!r} is {low[1]}x{low[0]}: network_g takes sides of a multiple of {needs.multiple}"


def _check_lmdb(gt: str, lq: str, needs: _Needs) -> Iterator[str]:
    """BasicSR writes the size of each image into ``meta_info.txt``: ``name.png (480,480,3) 1``."""
    if importlib.util.find_spec("lmdb") is None:
        yield "io_backend.type: lmdb is not installed; pip install lmdb"
    for root in (gt, lq):
        if not (Path(root) / "data.mdb").is_file():
            yield f"{root!r} has no data.mdb, so it is no LMDB folder"
    sizes = [dict(_listed_sizes(Path(root) / "meta_info.txt")) for root in (gt, lq)]
    for key in sizes[0].keys() & sizes[1].keys():
        yield from _wrong_sizes(f"{gt}: {key}", f"{lq}: {key}", sizes[0][key], sizes[1][key], needs)


def _listed_sizes(path: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        if found := re.match(r"([^.]*)\S*\s+\((\d{1,9}),\s*(\d{1,9})[,)]", line):
            yield found[1], (int(found[2]), int(found[3]))


def _few(where: str, problems: Sequence[str]) -> Iterator[str]:
    yield from (f"{where}: {problem}" for problem in problems[:_NAMED])
    if len(problems) > _NAMED:
        yield f"{where}: and {len(problems) - _NAMED} more of its images"


def _some(names: Iterable[str]) -> str:
    shown = [repr(name) for name in names]
    return ", ".join(shown[:_NAMED]) + (", ..." if len(shown) > _NAMED else "")


def _spread(pairs: Sequence[tuple[str, str]], most: int) -> list[tuple[str, str]]:
    if len(pairs) <= most:
        return list(pairs)
    return [pairs[place * len(pairs) // most] for place in range(most)]
