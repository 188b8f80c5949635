"""What a run needs around its networks: devices, log, validation, checkpoints, and its own name."""

from __future__ import annotations

import importlib.util
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from synthpipe.basicsr_plugin.checks.lookup import block_at, nearest, value_at
from synthpipe.basicsr_plugin.command_line import CommandLine
from synthpipe.errors import CheckpointError, excerpt

__all__ = ["check_name_and_blocks", "check_resume", "check_run", "missing_networks"]

_BLOCKS = ("datasets", "path", "train", "logger")
_NEEDED = ("train.total_iter", "logger.print_freq", "logger.save_checkpoint_freq", "logger.use_tb_logger", "num_gpu")


def check_name_and_blocks(options: Mapping[str, Any]) -> Iterator[str]:
    """What is needed before anything else can be looked at."""
    name = options.get("name")
    if not isinstance(name, str) or not name.strip():
        got = "nothing" if name is None else f"{name!r}; put it in quotes, or let it begin with a letter"
        yield f"name: expected a text, by which the run's folder is called, got {got}"
    for block in _BLOCKS:
        if not isinstance(options.get(block), Mapping):
            near = nearest(block, set(map(str, options)) - set(_BLOCKS), cutoff=0.75)
            hint = f"; {near}" if near.startswith("did") else ""
            yield f"{block}: expected a block of options, got {options.get(block)!r}{hint}"
    for phase, block in block_at(options, "datasets").items():
        if not isinstance(block, Mapping):
            yield f"datasets.{phase}: expected a block of options, got {block!r}; remove the key if there is none"
        elif str(phase) != "train" and str(phase).split("_")[0] != "val":
            yield (
                f"datasets.{phase}: BasicSR's training knows 'train', 'val', and 'val_1', 'val_2', ... and no other; "
                f"{nearest(str(phase), ('train', 'val'))}"
            )
    if isinstance(options.get("datasets"), Mapping) and "train" not in options["datasets"]:
        yield "datasets.train: required and not given"


def check_run(options: Mapping[str, Any], command: CommandLine) -> Iterator[str]:
    """One line for each reason why the run would stop at its first log line, checkpoint or validation."""
    for path in _NEEDED:
        if value_at(options, path) is None:
            parent, _, key = path.rpartition(".")
            near = nearest(key, map(str, block_at(options, parent) if parent else options), cutoff=0.75)
            hint = f"; {near}" if near.startswith("did") else ""
            yield f"{path}: required and not given{hint}"
    yield from _check_devices(options, command)
    yield from _check_log(options)
    yield from _check_validation(options)


def _check_devices(options: Mapping[str, Any], command: CommandLine) -> Iterator[str]:
    wanted, there = options.get("num_gpu"), torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted is None or wanted == "auto":
        return
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 0:
        yield f"num_gpu: expected 'auto' or a number of GPUs, 0 for the CPU, got {wanted!r}"
    elif wanted and not there:
        yield f"num_gpu: {wanted}, and PyTorch {torch.__version__} sees no CUDA device here; set num_gpu: 0 or auto"
    elif wanted > there and command.launcher == "none":
        yield (
            f"num_gpu: {wanted}, and this machine has {there}: BasicSR would give them {wanted} times the batch; set "
            "num_gpu: auto"
        )


def _check_log(options: Mapping[str, Any]) -> Iterator[str]:
    project = value_at(options, "logger.wandb.project")
    if project is not None and not value_at(options, "logger.use_tb_logger"):
        yield "logger.use_tb_logger: wandb reads TensorBoard's log; set use_tb_logger: true, or wandb: ~"
    for used, module in ((project is not None, "wandb"), (value_at(options, "logger.use_tb_logger"), "tensorboard")):
        if used and "debug" not in str(options.get("name")) and importlib.util.find_spec(module) is None:
            key = "logger.wandb" if module == "wandb" else "logger.use_tb_logger"
            yield f"{key}: {module} is not installed; pip install {module}, or switch it off"


def _check_validation(options: Mapping[str, Any]) -> Iterator[str]:
    sets = [phase for phase in block_at(options, "datasets") if str(phase).split("_")[0] == "val"]
    block = options.get("val")
    if sets and block is None:
        yield (
            f"val: not given, so BasicSR would never validate on datasets.{sets[0]}; add for example val: {{val_freq: "
            f"5000, save_img: false, metrics: {{psnr: {{type: calculate_psnr, crop_border: 4}}}}}}, or remove "
            f"datasets.{sets[0]}"
        )
    if block is None:
        return
    if not isinstance(block, Mapping):
        yield f"val: expected a block of options, got {block!r}"
        return
    if not sets:
        yield (
            "datasets.val: not given, so `val` would validate on nothing; add a PairedImageDataset of frozen pairs "
            "(`synthpipe degrade WEIGHTS IN OUT --pairs` makes them), or remove `val`"
        )
    for key in ("val_freq", "save_img"):
        if block.get(key) is None:
            near = nearest(key, map(str, block), cutoff=0.75)
            yield f"val.{key}: required and not given{f'; {near}' if near.startswith('did') else ''}"
    if sets and not block.get("metrics") and not block.get("save_img"):
        yield "val.metrics: neither metrics nor save_img, so a validation would leave nothing; give one of them"


def check_resume(options: Mapping[str, Any], command: CommandLine) -> Iterator[str]:
    """One line for each contradiction in what the run goes on from, and for files that are not there."""
    given = value_at(options, "path.resume_state")
    states = Path("experiments") / str(_run_name(options, command)) / "training_states"
    resumable = command.auto_resume and any(file.stem.isdigit() for file in states.glob("*.state"))
    if command.restart_stream and not (command.auto_resume or given):
        yield "--restart_stream: goes with --auto_resume or path.resume_state, and neither is given"
    if command.auto_resume and given and not resumable:
        yield (
            f"path.resume_state: with --auto_resume BasicSR looks in {str(states)!r} alone, where no checkpoint is, "
            f"and would begin at 0 without {str(given)!r}; leave out --auto_resume, or the key"
        )
    # os.path, as BasicSR: a name that no file can have is no file, and ~nobody stays as it is.
    if given and not command.auto_resume and not os.path.isfile(os.path.expanduser(str(given))):
        yield f"path.resume_state: no file at {str(given)!r}; it names an {{iter}}.state of training_states"
    if not given and not resumable:
        yield from missing_networks(options)


def _run_name(options: Mapping[str, Any], command: CommandLine) -> str:
    name = str(options.get("name"))
    return f"debug_{name}" if command.debug and not name.startswith("debug") else name


def missing_networks(options: Mapping[str, Any]) -> Iterator[str]:
    """One line for each network that ``path`` names and that is not there or holds something else."""
    for key, path in block_at(options, "path").items():
        if not str(key).startswith("pretrain_network") or path is None:
            continue
        place = os.path.expanduser(str(path))
        if not os.path.isfile(place):
            kind = "a folder" if os.path.isdir(place) else "no file"
            variables = ", where variables are not expanded" if "$" in place else ""
            yield (
                f"path.{key}: {kind} at {excerpt(str(path))}{variables}; give a .pth file, or ~ to begin with random "
                "weights"
            )
            continue
        yield from _check_network_file(options, str(key), place)


def _check_network_file(options: Mapping[str, Any], key: str, place: str) -> Iterator[str]:
    """BasicSR takes one entry of the file and fails with its name alone where it is not there."""
    label = key.removeprefix("pretrain_network_")
    wanted = block_at(options, "path").get(f"param_key_{label}", "params")
    try:
        content = _load(place)
    except CheckpointError as error:
        yield f"path.{key}: {error}"
        return
    if wanted is None:
        return
    entries = list(content) if isinstance(content, Mapping) else []
    if wanted not in entries and "params" not in entries:
        kept = [str(entry) for entry in entries if isinstance(content[entry], Mapping)]
        value = f"one of {', '.join(kept)}" if kept else "~, which takes its top level"
        yield f"path.{key}: {place!r} has no entry {wanted!r}; set path.param_key_{label} to {value}"


def _load(place: str) -> Any:
    """The file's content; tensors of today's format are mapped, not read."""
    try:
        return torch.load(place, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(place))
    except Exception as error:  # torch.load has no one exception for a file that is not its own
        said = (str(error).splitlines() or [""])[0][:120]
        raise CheckpointError(f"{place!r} is no file that PyTorch reads ({type(error).__name__}: {said})") from error
