"""Names that BasicSR looks up in its registries, and the arguments that it hands to what it finds there.

A misspelt name is a KeyError of the registry today, a misspelt argument a TypeError of a constructor, and both come
after data sets, or after the first network.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from synthpipe.basicsr_plugin.checks.lookup import block_at, nearest, value_at
from synthpipe.basicsr_plugin.checks.numbers import Rule

__all__ = ["argument_rules", "check_types", "model_class", "registered"]

_SUFFIX = "_basicsr"  # BasicSR registers some of its names with it, and finds them without


class _Named(NamedTuple):
    """A block with ``type`` in it."""

    path: str
    block: Mapping[str, Any]
    registry: Any
    #: Arguments that BasicSR adds itself.
    added: tuple[str, ...] = ()


def registered(registry: Any, name: Any) -> Any:
    """What BasicSR's registry has under ``name``, or None."""
    names = registry.keys()
    found = next((key for key in (name, f"{name}{_SUFFIX}") if isinstance(name, str) and key in names), None)
    return None if found is None else registry.get(found)


def model_class(options: Mapping[str, Any]) -> Any:
    """The class of ``model_type``, or None where it names none."""
    from basicsr.utils.registry import MODEL_REGISTRY

    return registered(MODEL_REGISTRY, options.get("model_type"))


def check_types(options: Mapping[str, Any]) -> Iterator[str]:
    """One line for each unknown name, and for each argument that what it names does not take or misses."""
    from basicsr.utils.registry import MODEL_REGISTRY

    yield from _check_name("model_type", options.get("model_type"), MODEL_REGISTRY)
    for place in _datasets(options):
        yield from _check_name(f"{place.path}.type", place.block.get("type"), place.registry)
    for place in _called(options):
        yield from _check_name(f"{place.path}.type", place.block.get("type"), place.registry)
        if place.path.startswith("val.") and str(place.block.get("type")).endswith("_pt"):
            yield (
                f"{place.path}.type: {place.block['type']} works on tensors, and BasicSR's validation gives arrays; "
                f"take {str(place.block['type']).removesuffix('_pt')}"
            )
        built = registered(place.registry, place.block.get("type"))
        if built is not None:
            yield from _check_arguments(place.path, place.block, built, place.added)
    yield from _check_optimizers(options)
    yield from _check_scheduler(options)


def argument_rules(options: Mapping[str, Any]) -> dict[str, Rule]:
    """What the defaults of networks' and losses' arguments say of their kind, by path."""
    rules = {}
    for place in _called(options):
        built = registered(place.registry, place.block.get("type"))
        for name, parameter in _parameters(built).items() if built is not None else ():
            default = parameter.default
            if isinstance(default, bool):
                rules[f"{place.path}.{name}"] = Rule("true or false")
            elif isinstance(default, int | float):
                rules[f"{place.path}.{name}"] = Rule("a number")
    return rules


def _datasets(options: Mapping[str, Any]) -> Iterator[_Named]:
    from basicsr.utils.registry import DATASET_REGISTRY

    for phase in block_at(options, "datasets"):
        yield _Named(f"datasets.{phase}", block_at(options, f"datasets.{phase}"), DATASET_REGISTRY)


def _called(options: Mapping[str, Any]) -> Iterator[_Named]:
    """Blocks whose keys BasicSR hands to a class or a function."""
    # BasicSR fills a registry when the folder with its classes is imported.
    import basicsr.archs
    import basicsr.losses
    import basicsr.metrics  # noqa: F401
    from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY

    for key, block in options.items():
        if str(key).startswith("network_") and isinstance(block, Mapping):
            yield _Named(str(key), block, ARCH_REGISTRY)
    for key, block in block_at(options, "train").items():
        if str(key).endswith("_opt") and isinstance(block, Mapping) and block:
            yield _Named(f"train.{key}", block, LOSS_REGISTRY)
    for key, block in block_at(options, "val.metrics").items():
        if isinstance(block, Mapping):
            added = ("img",) if str(block.get("type")).endswith("niqe") else ("img", "img2")
            yield _Named(f"val.metrics.{key}", block, METRIC_REGISTRY, added)


def _check_name(path: str, name: Any, registry: Any) -> Iterator[str]:
    if name is None:
        yield f"{path}: required and not given"
    elif registered(registry, name) is None:
        known = [str(key).removesuffix(_SUFFIX) for key, _ in registry]
        yield f"{path}: BasicSR knows no {registry._name} {name!r}; {nearest(name, known)}"


def _parameters(built: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(built).parameters


def _check_arguments(
    path: str, block: Mapping[str, Any], built: Callable[..., Any], added: tuple[str, ...]
) -> Iterator[str]:
    name, parameters = built.__name__, _parameters(built)
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    takes = [
        key
        for key, parameter in parameters.items()
        if key not in added and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    for key in block:
        if key != "type" and key not in takes and not free:
            yield f"{path}.{key}: {name} takes no such argument; {nearest(key, takes, 'it takes', cutoff=0.7)}"
    for key in takes:
        if key not in block and parameters[key].default is inspect.Parameter.empty:
            yield f"{path}.{key}: {name} needs it, and it is not given"


def _check_optimizers(options: Mapping[str, Any]) -> Iterator[str]:
    import torch
    from basicsr.models.base_model import BaseModel

    model = model_class(options)
    if model is None or getattr(model, "get_optimizer", None) is not BaseModel.get_optimizer:
        return
    # 1.4.2 knows Adam alone; the version on GitHub, of the same number, some more.
    named = re.findall(r"'(\w+)'", inspect.getsource(model.get_optimizer))
    known = [name for name in named if hasattr(torch.optim, name)]
    for key, block in block_at(options, "train").items():
        if not (str(key).startswith("optim_") and isinstance(block, Mapping)):
            continue
        path, name = f"train.{key}", block.get("type")
        if name is None:
            yield f"{path}.type: required and not given; BasicSR knows {', '.join(known)}"
        elif name not in known:
            yield f"{path}.type: BasicSR knows no optimizer {name!r}; it knows {', '.join(known)}"
        else:
            yield from _check_arguments(path, block, getattr(torch.optim, name), ("params",))
            if "lr" not in block:
                yield f"{path}.lr: BasicSR needs it, and it is not given"


def _check_scheduler(options: Mapping[str, Any]) -> Iterator[str]:
    from basicsr.models import lr_scheduler
    from basicsr.models.base_model import BaseModel

    model, block = model_class(options), block_at(options, "train.scheduler")
    if not block or model is None or getattr(model, "setup_schedulers", None) is not BaseModel.setup_schedulers:
        return
    known = {
        "MultiStepLR": lr_scheduler.MultiStepRestartLR,
        "MultiStepRestartLR": lr_scheduler.MultiStepRestartLR,
        "CosineAnnealingRestartLR": lr_scheduler.CosineAnnealingRestartLR,
    }
    name = str(block.get("type"))
    if name not in known:
        yield f"train.scheduler.type: BasicSR knows no scheduler {block.get('type')!r}; {nearest(name, known)}"
        return
    yield from _check_arguments("train.scheduler", block, known[name], ("optimizer",))
    yield from _check_periods(options, block)


def _check_periods(options: Mapping[str, Any], block: Mapping[str, Any]) -> Iterator[str]:
    periods, total = block.get("periods"), value_at(options, "train.total_iter")
    for key, length in (("periods", len(periods or ())), ("restarts", len(block.get("restarts") or (0,)))):
        weights = block.get("restart_weights", (1,))
        if key in block and isinstance(weights, list | tuple) and len(weights) != length:
            yield (
                f"train.scheduler.{key}: as many as restart_weights are expected, got {length} and {len(weights)}; "
                "give each its weight"
            )
    if isinstance(periods, list) and isinstance(total, int | float) and sum(periods) < total - 1:
        yield (
            f"train.scheduler.periods: they end after {sum(periods):g} iterations and train.total_iter is {total:g}, "
            "where BasicSR stops with an error; make their sum at least total_iter"
        )
