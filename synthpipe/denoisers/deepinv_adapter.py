"""Our denoisers and operators inside deepinv (BSD-3): its samplers, unfolded networks, priors and criteria.

deepinv stays optional: it is imported when one of these functions is called.  Its conventions: ``sigma`` may be a
number or a tensor, a data term with ``L2(sigma=...)`` is ``||K x - y||^2 / (2 sigma^2)``, and ``stepsize`` is one over
the penalty rho.  With them, ``deepinv.optim.ADMM`` is our :class:`~synthpipe.denoisers.plug_and_play.Splitting`::

    import deepinv
    method = method_named("map")
    algorithm = deepinv.optim.ADMM(
        data_fidelity=deepinv.optim.L2(sigma=0.01),
        prior=deepinv.optim.PnP(deepinv_denoiser(model)),
        **deepinv_parameters(method, sigma=0.01),
    )
    x = algorithm(y, deepinv_physics(operator))
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from synthpipe.denoisers.base import Denoiser
from synthpipe.denoisers.degradation_operators import DegradationOperator
from synthpipe.denoisers.plug_and_play import Splitting
from synthpipe.errors import OptionError

__all__ = ["deepinv_denoiser", "deepinv_parameters", "deepinv_physics", "import_deepinv"]


def import_deepinv() -> ModuleType:
    """The package.

    Raises:
        OptionError: it is not installed or cannot be imported.
    """
    try:
        return import_module("deepinv")
    # A torchvision built for another torch fails with RuntimeError, a missing system library with OSError.
    except Exception as error:
        raise OptionError(
            f"deepinv cannot be imported ({type(error).__name__}: {error}); run `pip install synthpipe[restoration]`, "
            "with the torchvision that belongs to your torch"
        ) from error


class _DeepinvDenoiser(nn.Module):
    """Takes levels as deepinv gives them."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, sigma: Tensor | float, **_: Any) -> Tensor:
        """``(B, C, H, W)`` with noise of ``sigma``, a number or ``(B,)`` -> the same shape."""
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).flatten().expand(len(x))
        return self.model(x, level)


def deepinv_denoiser(model: Denoiser) -> nn.Module:
    """``model`` as deepinv calls denoisers; differentiable, for images of ``model.channels`` channels."""
    return _DeepinvDenoiser(model)


def deepinv_parameters(method: Splitting, sigma: float) -> dict[str, Any]:
    """Keyword arguments of ``deepinv.optim.ADMM`` and ``HQS`` that make them ``method``.

    ADMM of deepinv does not rescale its dual variable, so that it agrees at one level only.

    Args:
        method: whose levels and penalty are wanted.
        sigma: noise of the observation.

    Raises:
        OptionError: ADMM with levels that differ.
    """
    noise = torch.tensor([sigma], dtype=torch.float64)
    levels, penalty = method.levels(noise)[:, 0], float(method.penalty_at(noise))
    if float(levels.min()) == float(levels.max()):
        level = float(levels[0])
        return {"stepsize": level**2 / penalty, "g_param": level, "max_iter": method.iterations}
    if method.dual:
        raise OptionError(f"{method}: ADMM of deepinv does not rescale its dual variable; expected first equal to last")
    levels = levels.to(torch.get_default_dtype())
    steps = levels.square() / penalty
    return {"stepsize": list(steps), "g_param": list(levels), "max_iter": method.iterations}


def deepinv_physics(operator: DegradationOperator) -> Any:
    """``operator`` as a ``deepinv.physics.LinearPhysics`` with the exact proximal step.

    Raises:
        OptionError: deepinv cannot be imported.
    """
    import_deepinv()
    physics = import_module("deepinv.physics")

    class OperatorPhysics(physics.LinearPhysics):  # type: ignore[name-defined, misc]
        """K, K^T and the data step."""

        def __init__(self) -> None:
            super().__init__()
            self.operator = operator

        def A(self, x: Tensor, **_: Any) -> Tensor:  # noqa: N802
            """K x: ``(B, C, H, W)`` -> ``(B, C, h, w)``."""
            return self.operator(x)

        def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:  # noqa: N802
            """K^T y: ``(B, C, h, w)`` -> ``(B, C, H, W)``."""
            return self.operator.adjoint(y)

        def prox_l2(self, z: Tensor | float | None, y: Tensor, gamma: Tensor | float, **_: Any) -> Tensor:
            """``argmin_x gamma / 2 ||K x - y||^2 + 1 / 2 ||x - z||^2``, ``(B, C, H, W)``."""
            if not isinstance(z, Tensor):
                z = torch.full_like(self.operator.adjoint(y), z or 0.0)
            weight = 1 / torch.as_tensor(gamma, dtype=z.dtype, device=z.device).flatten().expand(len(z))
            return self.operator.data_step(z, y, weight)

    return OperatorPhysics()
