"""Makes BasicSR 1.4.2 importable and usable with today's PyTorch.  Call :func:`prepare` before importing basicsr.

Three things stand in the way (versions checked: torch 2.13, torchvision 0.28 and 0.29, BasicSR 1.4.2):

* PyPI's torchvision is a CUDA build.  On a CPU-only torch its compiled operators do not load, and the import ends with
  ``operator torchvision::nms does not exist``, although BasicSR uses none of them.
* ``basicsr.data.degradations`` imports ``torchvision.transforms.functional_tensor``, which torchvision 0.17 removed.
* Resuming, distributed start and the DDP wrapper ask for a CUDA device that a CPU machine has not got.

The first two are mended by :func:`prepare`; the third by :func:`cpu_distributed`, which only our entry point uses.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import nn

from synthpipe.errors import OptionError, SynthPipeError

__all__ = ["cpu_distributed", "patched", "prepare"]

_MISSING_OPERATOR = re.compile(r"operator torchvision::(\w+) does not exist")
_SCHEMA = "{}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_STAND_IN = "torchvision.transforms.functional_tensor"
_MOST_OPERATORS = 16


def prepare() -> None:
    """Make ``import basicsr`` work; safe to call again.

    Raises:
        SynthPipeError: torchvision or BasicSR is not installed, or torchvision cannot be imported for another reason
            than the ones that this module knows.
    """
    _import_torchvision()
    if _STAND_IN not in sys.modules:
        sys.modules[_STAND_IN] = _functional_tensor()
    try:
        import_module("basicsr.version")
    except ModuleNotFoundError as error:
        raise SynthPipeError(
            f"BasicSR cannot be imported ({error}); run `bash tools/setup.sh`, or `pip install "
            "synthpipe[basicsr-headless]` and then `pip install --no-deps --no-build-isolation basicsr==1.4.2`"
        ) from error


def _import_torchvision() -> None:
    """Import torchvision, declaring each operator it misses by name; none of them is ever called by BasicSR."""
    declared = []
    for _ in range(_MOST_OPERATORS):
        try:
            module = import_module("torchvision")
        except ModuleNotFoundError as error:
            raise SynthPipeError(
                f"torchvision, which BasicSR needs, cannot be imported ({error}); install the one that belongs to "
                f"torch {torch.__version__}: pip install 'synthpipe[basicsr-headless]'"
            ) from error
        except RuntimeError as error:
            missing = _MISSING_OPERATOR.search(str(error))
            if missing is None:
                raise
            library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            library.define(_SCHEMA.format(missing[1]))  # type: ignore[no-untyped-call]
            declared.append(library)
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]
        else:
            # A declaration lives as long as its library object, so that object lives as long as the module.
            if declared:
                module.synthpipe_declared_operators = declared  # type: ignore[attr-defined]
            return
    raise SynthPipeError(
        f"torchvision still misses operators after {_MOST_OPERATORS} were declared; install the torchvision that "
        f"belongs to torch {torch.__version__}"
    )


def _functional_tensor() -> ModuleType:
    module = ModuleType(_STAND_IN, "Stand-in for the module that torchvision 0.17 removed; BasicSR needs one function.")
    module.rgb_to_grayscale = import_module("torchvision.transforms.functional").rgb_to_grayscale  # type: ignore[attr-defined]
    return module


@contextmanager
def patched(owner: Any, **replacements: Any) -> Iterator[None]:
    """Replace attributes of a module or class for the duration of the block."""
    originals = {name: getattr(owner, name) for name in replacements}
    for name, value in replacements.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in originals.items():
            setattr(owner, name, value)


@contextmanager
def cpu_distributed() -> Iterator[None]:
    """Let ``--launcher pytorch`` work without CUDA: gloo instead of nccl, DDP without device numbers.

    Does nothing where CUDA is available.
    """
    if torch.cuda.is_available():
        yield
        return
    options = import_module("basicsr.utils.options")
    base_model = import_module("basicsr.models.base_model")
    wrap = base_model.DistributedDataParallel

    class CpuDistributedDataParallel(wrap):  # type: ignore[misc, valid-type]
        """Takes BasicSR's call and drops the device numbers."""

        def __init__(self, module: nn.Module, device_ids: Any = None, **options: Any) -> None:
            super().__init__(module, **options)

    def init_gloo(launcher: str, **_: Any) -> None:
        """Stands in for BasicSR's ``init_dist``, which wants CUDA; raises OptionError for another launcher."""
        if launcher != "pytorch":
            raise OptionError(f"--launcher {launcher}: without CUDA expected 'pytorch', under torchrun")
        torch.distributed.init_process_group("gloo")

    with (
        patched(options, init_dist=init_gloo),
        patched(base_model, DistributedDataParallel=CpuDistributedDataParallel),
        patched(torch.cuda, current_device=lambda: 0),
    ):
        yield
