"""Device, precision and processes of a run."""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any

import torch

from synthpipe.config.run import RunOptions
from synthpipe.errors import TrainingError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["start_fabric"]


def start_fabric(options: RunOptions) -> Fabric:
    """Device, precision and processes; under torchrun one process per rank.

    Raises:
        TrainingError: the `train` extra is not installed, no CUDA device, or float16 asked for on the CPU.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise TrainingError(
            f"training needs Lightning Fabric, which is not installed ({error}); run: pip install 'synthpipe[train]'"
        ) from error
    has_cuda = torch.cuda.is_available()
    if options.device == "cuda" and not has_cuda:
        raise TrainingError("device: cuda was asked for, but torch finds no CUDA device; set device: auto or cpu")
    accelerator = "cuda" if has_cuda and options.device != "cpu" else "cpu"
    if accelerator == "cpu" and options.precision == "16-mixed":
        raise TrainingError("precision: 16-mixed needs a CUDA device; on the CPU use 32 or bf16-mixed")
    local, world = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), int(os.environ.get("WORLD_SIZE", 1))
    fabric = Fabric(
        accelerator=accelerator,
        devices=local,
        num_nodes=max(world // local, 1),
        precision=options.precision if options.precision != "32" else "32-true",
        strategy=DDPStrategy(**_no_buffer_exchange()) if world > 1 else "auto",
    )
    fabric.launch()
    return fabric


def _no_buffer_exchange() -> dict[str, Any]:
    """Buffers (permutations, flags) are equal from the start and never change; newer torch renamed the argument."""
    known = inspect.signature(torch.nn.parallel.DistributedDataParallel).parameters
    return {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
