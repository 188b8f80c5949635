"""Weights as safetensors with a JSON header that says what they are.

Header keys: ``kind``, ``config`` (constructor arguments), ``synthpipe`` (version), ``size_multiple``, and free
``info`` (training data and its terms, figures measured).
"""

from __future__ import annotations

import hashlib
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialize
from torch import Tensor, nn

from synthpipe import weights_file
from synthpipe._version import __version__
from synthpipe.errors import CheckpointError, SynthPipeError, shortened
from synthpipe.model_limits import BuildBudget, require_plain_settings
from synthpipe.registry import build_model, kind_of

__all__ = ["fingerprint", "fingerprint_of", "load", "read_header", "resolve", "save", "shipped"]

#: Tensors that do not fit which a message names.
_MOST_TOLD = 4


def save(path: str | Path, model: nn.Module, info: dict[str, Any] | None = None, *, half: bool = False) -> Path:
    """Write ``model`` (which carries ``config`` and ``size_multiple``) to ``path``, atomically.

    Args:
        path: the ``.safetensors`` file to write.
        model: a registered model.
        info: anything JSON can hold that belongs on the model card: data, terms, figures.
        half: store large parameters in half precision (:func:`synthpipe.weights_file.halved`), for a file of half the
            size; buffers, which hold what was measured, lose nothing.  :func:`load` gives float32 all the same, of
            the rounded numbers, whose :func:`fingerprint` is another than the model's own.

    Raises:
        CheckpointError: the model is not a registered kind.
    """
    header = {
        "kind": kind_of(model),
        "config": model.config,
        "synthpipe": __version__,
        "size_multiple": model.size_multiple,
        "info": info or {},
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if half:
        tensors = weights_file.halved(tensors, exact={name for name, _ in model.named_buffers()})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(
        f".synthpipe-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}-{os.getpid()}.tmp"
    )
    # Through write_bytes, which respects the umask; save_file would leave the file readable by its owner alone.
    temporary.write_bytes(serialize(tensors, metadata=weights_file.write_header(header)))
    temporary.replace(path)
    return path


def resolve(path: str | Path) -> Path:
    """A file as it is, or the name of weights shipped with the package (``"deflow_small"``).

    Raises:
        CheckpointError: neither exists; names the shipped weights.
    """
    if Path(path).is_file():
        return Path(path)
    names = shipped()
    if str(path) in names:
        return names[str(path)]
    raise CheckpointError(
        f"no weights at {str(path)!r}: expected a .safetensors file or one of the shipped {sorted(names)}"
    )


def shipped() -> dict[str, Path]:
    """The weights that ship with the package, by name."""
    folder = Path(str(resources.files("synthpipe"))) / "weights"
    return {file.stem: file for file in folder.glob("*.safetensors")}


def read_header(path: str | Path) -> dict[str, Any]:
    """The header of a file that :func:`save` wrote.

    Raises:
        CheckpointError: no such file, not safetensors, or not written by synthpipe.
    """
    return weights_file.read_header(resolve(path))


def load(path: str | Path, kind: str | None = None) -> nn.Module:
    """Rebuild the model that a file holds, in eval mode, on the CPU.

    Args:
        path: a file, or the name of shipped weights.
        kind: refuse any other kind.

    Raises:
        CheckpointError: missing, damaged, of another kind, of another version, or with other tensors than
            its configuration says.

    >>> from synthpipe import checkpoints
    >>> flow = checkpoints.load("deflow_small", kind="deflow")
    >>> type(flow).__name__, flow.training
    ('DeFlow', False)
    >>> checkpoints.load("map_small", kind="deflow")
    Traceback (most recent call last):
    synthpipe.errors.CheckpointError: ...map_small.safetensors: holds a 'map_denoiser' model, expected 'deflow'
    """
    path = resolve(path)
    header, tensors = weights_file.read_weights(path)
    if kind is not None and header["kind"] != kind:
        raise CheckpointError(f"{path}: holds a {header['kind']!r} model, expected {kind!r}")
    try:
        require_plain_settings(header["config"])
        with BuildBudget([value.numel() for value in tensors.values()]):
            model = build_model(header["kind"], header["config"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except SynthPipeError as error:
        raise CheckpointError(
            f"{path}: no model has the configuration in the header: {shortened(str(error))}"
        ) from error
    try:
        _fill(model.state_dict(), tensors)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path}: tensors do not fit the configuration in the header: {shortened(str(error))}"
        ) from error
    return model.eval()


@torch.no_grad()
def _fill(expected: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    """Put the numbers into a new model, where names, shapes and kinds of number are the model's."""
    wrong = [f"{name} is missing" for name in expected.keys() - tensors.keys()]
    wrong += [f"{name} is unknown" for name in tensors.keys() - expected.keys()]
    for name in expected.keys() & tensors.keys():
        ours, theirs = expected[name], tensors[name]
        if ours.shape != theirs.shape or ours.is_floating_point() != theirs.is_floating_point():
            wrong.append(f"{name} is {_described(theirs)}, expected {_described(ours)}")
    if wrong:
        more = f" and {len(wrong) - _MOST_TOLD} more" if len(wrong) > _MOST_TOLD else ""
        raise CheckpointError(shortened("; ".join(sorted(wrong)[:_MOST_TOLD])) + more)
    for name, value in expected.items():
        value.copy_(tensors[name])


def _described(value: Tensor) -> str:
    return f"{tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"


def fingerprint(path: str | Path) -> str:
    """32 hex digits of what a file's model computes: its configuration and its numbers.

    The same wherever the file lies, whatever its name, its model card and the version that wrote it.  Draws nothing
    from the global generator: a network that the caller builds next starts as it would without this.

    Args:
        path: a file, or the name of shipped weights.

    Raises:
        CheckpointError: as :func:`load`.
    """
    # Models draw first weights when they are built, here for nothing.
    with torch.random.fork_rng(devices=[]):
        model = load(path)
    return fingerprint_of(model)


def fingerprint_of(model: nn.Module) -> str:
    """What :func:`fingerprint` gives for the file that ``model`` would be saved to, in whole precision.

    A model whose ``config`` says more than what it computes has an ``identity`` beside it.
    """
    described = getattr(model, "identity", model.config)
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        # Through bytes, because NumPy has no bfloat16.
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
