"""The checkpoints of a training run: read without executing anything, and checked before any of it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synthpipe.errors import CheckpointError, TrainingError, counted, excerpt, shortened
from synthpipe.torch_file import read_torch_file, require_plain_tensor

__all__ = [
    "checkpoint_name",
    "checkpoints_in",
    "read_checkpoint",
    "refused",
    "require_optimizer",
    "require_schedule",
    "step_of",
]

_NAME = re.compile(r"step_([0-9]{8,15})\.pt")
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "step": int,
    "options": Mapping,
    "world_size": int,
    "model": Mapping,
    "companions": Mapping,
    "averaged": Mapping,
    "optimizer": Mapping,
    "schedule": Mapping,
    "scaler": Mapping,
    "bad_steps": (list, tuple),
    "processes": (list, tuple),
    "best": Mapping,
    "figures": Mapping,
}
#: Of a schedule, in some versions of torch alone.
_CHANGING = frozenset({"verbose", "_is_initial", "_get_lr_called_within_step"})
#: What checkpoints of the first versions lack.
_LATER = frozenset({"companions", "best", "figures"})
_KINDS: dict[Any, str] = {int: "a whole number from 0", Mapping: "names with values", (list, tuple): "a list"}
_REMEDY = "delete it to go on from the one before"


def checkpoint_name(step: int) -> str:
    """Of the checkpoint after ``step`` steps."""
    return f"step_{step:08d}.pt"


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint."""
    found = _NAME.fullmatch(path.name)
    assert found is not None, "checkpoints_in lists no other names"
    return int(found[1])


def checkpoints_in(folder: Path) -> list[Path]:
    """Checkpoints by their names, oldest first."""
    return sorted((path for path in folder.glob("step_*.pt") if _NAME.fullmatch(path.name)), key=step_of)


def refused(path: Path, problem: object) -> TrainingError:
    """What is wrong with a checkpoint, and what to do."""
    return TrainingError(f"{path}: not a readable checkpoint ({problem}); {_REMEDY}")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """All fields of a checkpoint, on the CPU, of their types; tensors of weights are finite.

    Raises:
        TrainingError: torn, no checkpoint of ours, of a newer version, or with weights that are not finite.
    """
    try:
        state = read_torch_file(path)
    except CheckpointError as error:
        raise refused(path, str(error).removeprefix(f"{path}: ")) from error
    if not isinstance(state, dict):
        raise refused(path, f"expected the fields of a checkpoint, got {type(state).__name__}")
    missing = [name for name in _FIELDS if name not in state and name not in _LATER]
    unknown = [name for name in state if name not in _FIELDS]
    if missing:
        raise refused(path, f"it lacks {', '.join(missing)}")
    if unknown:
        raise refused(path, f"unknown fields {excerpt(unknown)}; a newer version of synthpipe may have written it")
    for name, value in state.items():
        kind = _FIELDS[name]
        if not isinstance(value, kind) or (isinstance(value, int) and (isinstance(value, bool) or value < 0)):
            raise refused(path, f"{name}: expected {_KINDS[kind]}, got {excerpt(value)}")
    _require_consistent(path, state)
    return state


def _require_consistent(path: Path, state: Mapping[str, Any]) -> None:
    if state["step"] != step_of(path):
        raise refused(path, f"it is of step {state['step']}")
    bad = state["bad_steps"]
    if len(bad) != 2 or any(type(count) is not int or count < 0 for count in bad):
        raise refused(path, f"bad_steps: expected two numbers from 0, got {excerpt(bad)}")
    if len(state["processes"]) != state["world_size"]:
        raise refused(path, f"states of {counted(len(state['processes']), 'process')}, expected {state['world_size']}")
    for process in state["processes"]:
        if not isinstance(process, dict) or set(process) != {"data", "rng"} or not isinstance(process["data"], Mapping):
            raise refused(path, "processes: expected the states of data and generator, got something else")
        generator, now = process["rng"], torch.get_rng_state()
        if not isinstance(generator, Tensor) or (generator.shape, generator.dtype) != (now.shape, now.dtype):
            raise refused(path, f"rng: expected {len(now)} bytes, got {_described(generator)}")
    if not _are_numbers(state.get("figures", {})):
        raise refused(path, f"figures: expected names with numbers, got {excerpt(state['figures'])}")
    _require_best(path, state.get("best", {}))
    for part in ("model", "companions", "averaged"):
        for name, value in state.get(part, {}).items():
            _require_weights(path, f"{part}.{shortened(str(name))}", value)


def _require_best(path: Path, best: Mapping[str, Any]) -> None:
    """Weights by names, their step, and a list of points, each of names with numbers."""
    if not best:
        return
    curve, step, weights = (best.get(name) for name in ("curve", "step", "weights"))
    points = isinstance(curve, (list, tuple)) and all(
        isinstance(point, dict) and _are_numbers(point) for point in curve
    )
    info = best.get("info", {})
    told = isinstance(info, Mapping) and all(_are_numbers({n: v}) or _are_numbers(v) for n, v in info.items())
    told = told and isinstance(best.get("measured", ""), str)
    if not points or type(step) is not int or step < 0 or not isinstance(weights, Mapping) or not told:
        raise refused(path, "best: expected a curve of numbers, a step and weights, got something else")
    for name, value in weights.items():
        _require_weights(path, f"best.{shortened(str(name))}", value)


def _are_numbers(values: Any) -> bool:
    """Whether it is names with numbers."""
    return isinstance(values, Mapping) and all(
        isinstance(name, str) and type(value) in (int, float) for name, value in values.items()
    )


def _require_weights(path: Path, name: str, value: Any) -> None:
    try:
        tensor = require_plain_tensor(value, name)
    except CheckpointError as error:
        raise refused(path, error) from error
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise refused(path, f"{name} holds NaN or infinity")


def require_optimizer(path: Path, saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Refuse a state that :meth:`torch.optim.Optimizer.load_state_dict` would take and stumble over at the first step.

    Raises:
        TrainingError: other groups, settings of other types, or moments of other shapes than the parameters.
    """
    groups, now = saved.get("param_groups"), optimizer.state_dict()["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(now):
        raise refused(path, f"optimizer: expected {counted(len(now), 'group')}, got {excerpt(groups)}")
    for group, ours in zip(groups, now, strict=True):
        if not isinstance(group, dict) or group.get("params") != ours["params"]:
            raise refused(path, "optimizer: its groups hold other parameters")
        for name in group.keys() & ours.keys():
            if name != "params" and not _alike(group[name], ours[name]):
                raise refused(path, f"optimizer: {name} is {excerpt(group[name])}, expected such as {ours[name]!r}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = saved.get("state")
    if not isinstance(states, dict):
        raise refused(path, f"optimizer: expected the moments of {len(parameters)} parameters, got {excerpt(states)}")
    for number, moments in states.items():
        if type(number) is not int or not 0 <= number < len(parameters) or not isinstance(moments, dict):
            raise refused(
                path, f"optimizer: state of parameter {excerpt(number)}, expected one below {len(parameters)}"
            )
        for name, value in moments.items():
            _require_weights(path, f"optimizer.{number}.{shortened(str(name))}", value)
            if value.shape not in (parameters[number].shape, torch.Size([])):
                raise refused(
                    path,
                    f"optimizer: {name} of parameter {number} is {_described(value)}, expected the shape "
                    f"{tuple(parameters[number].shape)}",
                )


def require_schedule(path: Path, saved: Mapping[str, Any], now: Mapping[str, Any], step: int) -> None:
    """Refuse the state of another schedule; torch would take any names over.

    Raises:
        TrainingError: other names or types, or a place that is not ``step``.
    """
    wrong = [name for name in saved.keys() ^ now.keys() if name not in _CHANGING]
    wrong += [name for name in saved.keys() & now.keys() if not _alike(saved[name], now[name])]
    if wrong or saved.get("last_epoch") != step:
        place = excerpt(saved.get("last_epoch"))
        raise refused(
            path, f"schedule: expected that of step {step}, got that of {place}; {excerpt(sorted(wrong))} differ"
        )


def _alike(saved: Any, ours: Any) -> bool:
    """Whether a setting has the type that it has now; learning rates change on the way."""
    if isinstance(ours, tuple | list):
        same = isinstance(saved, tuple | list) and len(saved) == len(ours)
        return same and all(_alike(a, b) for a, b in zip(saved, ours, strict=True))
    if isinstance(ours, float):
        return isinstance(saved, float | int) and not isinstance(saved, bool) and abs(saved) < float("inf")
    return type(saved) is type(ours) or saved is None or ours is None


def _described(value: Any) -> str:
    return f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
