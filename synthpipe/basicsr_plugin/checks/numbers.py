"""Numbers, and what only looks like one: YAML reads ``1e-4`` as text, and BasicSR finds out late or never.

``lr: 1e-4`` ends in a TypeError of the optimizer; ``milestones: [5e3]`` is never reached and says nothing.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

__all__ = ["Rule", "check_numbers"]


class Rule(NamedTuple):
    """What stands at a place: ``kind`` in words, bounds for numbers, and whether it is a list of them."""

    kind: str
    low: float = -math.inf
    high: float = math.inf
    many: bool = False


_INTEGER, _WHOLE, _NUMBER, _SWITCH = "an integer", "a whole number", "a number", "true or false"

#: What BasicSR 1.4.2 computes with, by path; the first that matches counts.  Where it compares or divides alone, a
#: whole number may be written 5.0e+5.
_RULES = {
    "scale": Rule(_INTEGER, 1),
    "manual_seed": Rule(_INTEGER, 0, 2**32 - 1),
    "gt_size": Rule(_INTEGER, 1),
    "queue_size": Rule(_INTEGER, 1),
    "datasets.*.batch_size_per_gpu": Rule(_INTEGER, 1),
    "datasets.*.num_worker_per_gpu": Rule(_INTEGER, 0),
    "datasets.*.num_prefetch_queue": Rule(_INTEGER, 1),
    "datasets.*.dataset_enlarge_ratio": Rule(_INTEGER, 1),
    "datasets.*.gt_size": Rule(_INTEGER, 1),
    "datasets.*.use_hflip": Rule(_SWITCH),
    "datasets.*.use_rot": Rule(_SWITCH),
    "datasets.*.use_shuffle": Rule(_SWITCH),
    "datasets.*.pin_memory": Rule(_SWITCH),
    "datasets.*.persistent_workers": Rule(_SWITCH),
    "train.total_iter": Rule(_WHOLE, 1),
    "train.warmup_iter": Rule(_WHOLE, -1),
    "train.net_d_iters": Rule(_WHOLE, 1),
    "train.net_d_init_iters": Rule(_WHOLE, 0),
    "train.ema_decay": Rule(_NUMBER, 0, 1),
    "train.optim_*.lr": Rule(_NUMBER, 0),
    "train.optim_*.weight_decay": Rule(_NUMBER, 0),
    "train.optim_*.eps": Rule(_NUMBER, 0),
    "train.optim_*.betas": Rule(_NUMBER, 0, 1, many=True),
    "train.optim_*.amsgrad": Rule(_SWITCH),
    "train.scheduler.milestones": Rule(_WHOLE, 0, many=True),
    "train.scheduler.periods": Rule(_WHOLE, 1, many=True),
    "train.scheduler.restarts": Rule(_WHOLE, 0, many=True),
    "train.scheduler.restart_weights": Rule(_NUMBER, many=True),
    "train.scheduler.gamma": Rule(_NUMBER),
    "train.scheduler.eta_min": Rule(_NUMBER, 0),
    "train.*_opt.layer_weights.*": Rule(_NUMBER),
    "train.*_opt.loss_weight": Rule(_NUMBER),
    "train.*_opt.perceptual_weight": Rule(_NUMBER),
    "train.*_opt.style_weight": Rule(_NUMBER),
    "train.*_opt.*_label_val": Rule(_NUMBER),
    "val.val_freq": Rule(_WHOLE, 1),
    "val.save_img": Rule(_SWITCH),
    "val.pbar": Rule(_SWITCH),
    "val.metrics.*.crop_border": Rule(_INTEGER, 0),
    "val.metrics.*.test_y_channel": Rule(_SWITCH),
    "logger.print_freq": Rule(_WHOLE, 1),
    "logger.save_checkpoint_freq": Rule(_WHOLE, 1),
    "logger.use_tb_logger": Rule(_SWITCH),
    "path.strict_load_*": Rule(_SWITCH),
    "find_unused_parameters": Rule(_SWITCH),
    "high_order_degradation": Rule(_SWITCH),
    "*_gt_usm": Rule(_SWITCH),
}
#: These may be left empty.
_OPTIONAL = ("manual_seed", "gt_size", "datasets.*.num_worker_per_gpu", "datasets.*.persistent_workers")
#: Texts that may look like numbers.
_TEXTS = (
    *("name", "*.name", "*.type", "model_type", "path.*", "*path", "*.dataroot*", "*.meta_info*", "*.filename_tmpl"),
    *("*.shards", "*.weights", "*.scores", "*.suffix", "logger.wandb.*", "dist_params.*"),
)
_NUMBER_TEXT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_GROUPED = re.compile(r"[-+]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?")
#: What YAML would have read as a number, had it no quotes.
_QUOTED = re.compile(r"[-+]?([0-9]+|[0-9]*\.[0-9]+|[0-9]+\.[0-9]*([eE][-+][0-9]+)?)")


def check_numbers(
    options: Mapping[str, Any], overridden: frozenset[str] = frozenset(), more: Mapping[str, Rule] | None = None
) -> tuple[list[str], dict[str, Any]]:
    """One line for each value that is no number where one is meant, and the options with what was meant.

    Args:
        options: a whole option file.
        overridden: paths that ``--force_yml`` set: there, numbers are written in another way.
        more: rules for single paths, such as what the defaults of a network's arguments say.
    """
    found = []
    repaired = copy.deepcopy(dict(options))
    for keys, value in _values(options):
        path = ".".join(map(str, keys))
        problems, meant = _check(path, value, _rule_of(path, more or {}), path in overridden)
        if problems:
            found += problems
            _set(repaired, keys, meant)
    return found, repaired


def _values(block: Mapping[str, Any], keys: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """(keys on the way, value) of all that is no block, and of blocks where a number is meant."""
    for key, value in block.items():
        place = (*keys, key)
        if isinstance(value, Mapping) and _rule_of(".".join(map(str, place)), {}) is None:
            yield from _values(value, place)
        else:
            yield place, value


def _check(path: str, value: Any, rule: Rule | None, forced: bool) -> tuple[list[str], Any]:
    if isinstance(value, list):
        if rule is not None and not rule.many:
            return [_expected(path, value, rule)], _placeholder(rule)
        checked = [_check_one(f"{path}[{place}]", item, path, rule, forced) for place, item in enumerate(value)]
        return [problem for problems, _ in checked for problem in problems], [meant for _, meant in checked]
    if rule is not None and rule.many:
        return [f"{path}: expected a list of numbers, got {value!r}; write [{value!r}]"], [_placeholder(rule)]
    return _check_one(path, value, path, rule, forced)


def _check_one(where: str, value: Any, path: str, rule: Rule | None, forced: bool) -> tuple[list[str], Any]:
    number = _to_number(value) if isinstance(value, str) and not _matches(path, _TEXTS) else None
    if number is not None and (rule is None or rule.kind != _SWITCH):
        assert isinstance(value, str)
        if rule is None and _QUOTED.fullmatch(value):
            return [], value  # in quotes, and nobody says that it is a number
        said = _cure(number, path, forced and where == path)
        return [f"{where}: {value!r} is text, not a number, to {_reader(forced)}; {said}"], number
    if rule is None:
        return [], value
    return ([], value) if _accepts(rule, value, path) else ([_expected(where, value, rule)], _placeholder(rule))


def _accepts(rule: Rule, value: Any, path: str) -> bool:
    if value is None:  # BasicSR asks of a switch only whether it is true
        return rule.kind == _SWITCH or _matches(path, _OPTIONAL)
    if rule.kind == _SWITCH or isinstance(value, bool):
        return isinstance(value, bool) and rule.kind == _SWITCH
    if not isinstance(value, int | float) or not rule.low <= value <= rule.high:
        return False
    return isinstance(value, int) or (rule.kind == _WHOLE and value.is_integer()) or rule.kind == _NUMBER


def _expected(where: str, value: Any, rule: Rule) -> str:
    bounds = [f"at least {rule.low:g}"] if rule.low > -math.inf else []
    bounds += [f"at most {rule.high:.10g}"] if rule.high < math.inf else []
    kind = ", ".join([rule.kind, " and ".join(bounds)] if bounds else [rule.kind])
    got = "nothing" if value is None else repr(value)
    cure = "; leave the key out for its default" if value is None else ""
    if isinstance(value, str) and rule.kind == _SWITCH:
        cure = f"; any text counts as true, {value!r} as well"
    return f"{where}: expected {kind}, got {got}{cure}"


def _to_number(text: str) -> int | float | None:
    cleaned = text.strip().replace("_", "").replace(" ", "")
    cleaned = cleaned.replace(",", "") if _GROUPED.fullmatch(cleaned) else cleaned.replace(",", ".")
    if not _NUMBER_TEXT.fullmatch(cleaned):
        return None
    number = float(cleaned)
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def _reader(forced: bool) -> str:
    return "--force_yml" if forced else "YAML"


def _cure(number: int | float, path: str, forced: bool) -> str:
    """How to write it, in the file or on the command line; BasicSR reads digits and one point there, and no sign."""
    if isinstance(number, float) and not math.isfinite(number):
        return "write a finite number"
    if forced:
        plain = format(Decimal(repr(number)), "f")
        return f"write {path.replace('.', ':')}={plain if number >= 0 else f'!!float{plain}'}"
    if isinstance(number, int) or 0.01 <= abs(number) < 1e6:
        return f"write {number!r}, without quotes"
    mantissa, exponent = f"{number:.15e}".split("e")
    mantissa = mantissa.rstrip("0")
    return f"write {mantissa}{'0' if mantissa.endswith('.') else ''}e{int(exponent):+d}, with a point and a sign"


def _rule_of(path: str, more: Mapping[str, Rule]) -> Rule | None:
    for pattern, rule in _RULES.items():
        if fnmatchcase(path, pattern):
            return rule
    return more.get(path)


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _placeholder(rule: Rule) -> Any:
    """A value that the other checks can go on with."""
    return rule.kind == _SWITCH or int(max(rule.low, 1) if rule.low > -math.inf else 1)


def _set(options: dict[str, Any], keys: tuple[Any, ...], value: Any) -> None:
    block: Any = options
    for key in keys[:-1]:
        block = block[key]
    block[keys[-1]] = value
