"""Kind -> model class: the only list of what a checkpoint can hold."""

from __future__ import annotations

from typing import Any

from torch import nn

from synthpipe.denoisers.blind_spot import BlindSpotDenoiser
from synthpipe.denoisers.flow_prior import FlowPriorDenoiser
from synthpipe.denoisers.map_denoiser import MapDenoiser
from synthpipe.denoisers.plain import PlainDenoiser
from synthpipe.density.dde import DDE
from synthpipe.density.dde_generator import DDEGenerator
from synthpipe.density.kinds.scorer import KindScorer
from synthpipe.density.scorer import DensityScorer
from synthpipe.density.vector import VectorDDE
from synthpipe.errors import CheckpointError, SynthPipeError, excerpt, shortened
from synthpipe.flows.deflow import DeFlow
from synthpipe.flows.glow import Glow
from synthpipe.kernels.bank import KernelBank

__all__ = ["build_model", "kind_of"]

_KINDS: dict[str, type[nn.Module]] = {
    "deflow": DeFlow,
    "dde": DDE,
    "dde_vector": VectorDDE,
    "dde_generator": DDEGenerator,
    "density_scorer": DensityScorer,
    "kind_scorer": KindScorer,
    "plain_denoiser": PlainDenoiser,
    "blind_spot": BlindSpotDenoiser,
    "map_denoiser": MapDenoiser,
    "flow_prior": FlowPriorDenoiser,
    "glow": Glow,
    "kernels": KernelBank,
}


def build_model(kind: str, config: dict[str, Any]) -> nn.Module:
    """Construct the model of ``kind`` with the keyword arguments ``config``.

    Raises:
        CheckpointError: unknown kind, or arguments that this version's class does not take.
    """
    if not isinstance(kind, str) or kind not in _KINDS:
        raise CheckpointError(f"unknown model kind {excerpt(kind)}; this version knows {sorted(_KINDS)}")
    try:
        return _KINDS[kind](**config)
    except SynthPipeError:
        raise
    except Exception as error:  # a constructor may stumble in any way over what another program wrote
        raise CheckpointError(
            f"model kind {kind!r} does not take this configuration ({type(error).__name__}: {shortened(str(error))}); "
            "the weights come from another version of synthpipe, or the file is damaged"
        ) from error


def kind_of(model: nn.Module) -> str:
    """The kind under which ``model`` is saved.

    Raises:
        CheckpointError: the class is not registered.
    """
    for kind, cls in _KINDS.items():
        if type(model) is cls:
            return kind
    raise CheckpointError(f"{type(model).__name__} is not a registered model; known: {sorted(_KINDS)}")
