"""``synthpipe import-deflow``: published DeFlow weights to synthpipe's own format."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthpipe.cli.command import add_command
from synthpipe.cli.places import local_path
from synthpipe.errors import CheckpointError, SynthPipeError, excerpt, shortened

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["add_parser", "run"]

_TERMS = (
    "Weights of DeFlow (Wolf et al., CVPR 2021, github.com/volflow/DeFlow), or trained with its code. Its conditional "
    "flow modules are CC BY-NC-SA 4.0, academic use only; ask the authors before any other use of their weights."
)


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "import-deflow",
        help="convert official DeFlow weights (.pth) to .safetensors",
        description="Convert official DeFlow weights (a plain state_dict) to synthpipe's format. "
        "Only tensors are read: a file that holds other objects is refused, nothing in it is executed.",
        example="synthpipe import-deflow DeFlow-AIM-RWSR-100k.pth deflow_aim.safetensors --config aim",
    )
    parser.add_argument("source", type=local_path, metavar="IN.pth", help="the official state_dict")
    parser.add_argument("target", type=local_path, metavar="OUT.safetensors", help="the file to write")
    parser.add_argument(
        "--config", required=True, choices=("aim", "ntire", "dped"), help="published configuration of the weights"
    )
    parser.add_argument(
        "--taps",
        type=int,
        nargs="+",
        metavar="BLOCK",
        help="blocks whose features are used, for weights of your own size (published: 1 8 15 22)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Read, map, check against the model, write, and say what came."""
    from synthpipe import checkpoints
    from synthpipe.files.whole_file import check_file_is_writable
    from synthpipe.flows.deflow import DeFlow
    from synthpipe.flows.deflow_official import from_official
    from synthpipe.model_limits import BuildBudget
    from synthpipe.registry import build_model

    check_file_is_writable(args.target)
    try:
        config, state = from_official(_read(args.source), args.config, args.taps)
        with BuildBudget([value.numel() for value in state.values()]):
            model = build_model("deflow", config)
    except SynthPipeError as error:
        raise CheckpointError(_with_file(args.source, error)) from error
    assert isinstance(model, DeFlow)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{args.source}: tensors do not fit each other: {shortened(str(error))}") from error
    digest = hashlib.sha256(args.source.read_bytes()).hexdigest()
    info = {
        "source": args.source.name,
        "source_sha256": digest,
        "configuration": args.config,
        "training_data": "unknown to this file; the published weights: AIM-RWSR, NTIRE-RWSR or DPED-RWSR",
        "terms": _TERMS,
    }
    checkpoints.save(args.target, model, info)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{args.target}: DeFlow {args.config}, scale {config['scale']}, {parameters:,} parameters")
    if max(model.shift_norms().values()) == 0:
        print(
            "note: the covariance in these weights is 0, so images get variety only from the 5-bit dequantisation "
            "noise, which stays on (quant: 32, dequantize_output: true)"
        )
    return 0


def _with_file(path: Path, error: Exception) -> str:
    return str(error) if str(error).startswith(str(path)) else f"{path}: {error}"


def _read(path: Path) -> dict[str, Tensor]:
    """A plain state_dict, read without executing anything that the file holds."""
    import torch

    from synthpipe.torch_file import read_torch_file, require_plain_tensor

    try:
        loaded = read_torch_file(path)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}. If you trust the file, save model.state_dict() alone with torch.save and import that"
        ) from error
    if not isinstance(loaded, Mapping) or not loaded or not all(torch.is_tensor(value) for value in loaded.values()):
        held = f"keys {excerpt(list(loaded)[:5])}" if isinstance(loaded, Mapping) else type(loaded).__name__
        raise CheckpointError(f"{path}: expected a plain state_dict (names to tensors), got {held}")
    return {name: require_plain_tensor(value, f"{path}: {excerpt(name)}") for name, value in loaded.items()}
