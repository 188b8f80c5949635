"""The averaged weights that were best so far, by a distance that the objective measures, and the curve of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

__all__ = ["BestWeights", "step_to_keep"]

logger = logging.getLogger("synthpipe.training")


class BestWeights:
    """A point for every measurement, and the weights of :func:`step_to_keep`; its state is part of the checkpoints.

    Args:
        measured: names what distances are of; those of a state that names something else are not compared with ours.
        alike: distances that differ by no more are one.
    """

    def __init__(self, measured: str = "", alike: float = 0.0) -> None:
        self._measured, self._alike = measured, alike
        #: Step of the weights that are kept; 0 where there are none.
        self.step = 0
        #: What the header of these weights says of their step.
        self.info: dict[str, Any] = {}
        self._curve: list[dict[str, float]] = []
        self._weights: dict[str, Tensor] = {}

    def add(self, step: int, numbers: Mapping[str, float], model: nn.Module, info: Mapping[str, Any]) -> bool:
        """Note the numbers of ``model`` after ``step`` steps, ``"distance"`` among them; true where it is kept.

        Args:
            step: how many steps its weights have seen.
            numbers: measured of it.
            model: whose weights are kept where they are those to keep.
            info: what the header of its weights is to say of the step; kept with them.
        """
        self._curve.append({"step": step, **numbers})
        if step_to_keep(self._curve, self._alike) != step:
            return False
        self.step, self.info = step, dict(info)
        self._weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        return True

    def knows(self, step: int) -> bool:
        """Whether the curve has a point of that step."""
        return any(point.get("step") == step for point in self._curve)

    def earlier_than(self, step: int, model: nn.Module) -> nn.Module | None:
        """``model`` with the weights that are kept; None where these are of ``step`` itself, or there are none."""
        if not self._weights or self.step >= step:
            return None
        model.load_state_dict(self._weights)
        return model

    def table(self) -> str:
        """The curve as comma-separated values, a line for each measurement."""
        names = list(dict.fromkeys(name for point in self._curve for name in point))
        lines = [",".join(names)]
        lines += [",".join(f"{point[name]:.6g}" if name in point else "" for name in names) for point in self._curve]
        return "\n".join(lines) + "\n"

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with; empty where nothing was measured."""
        if not self._curve:
            return {}
        return {
            "measured": self._measured,
            "curve": [dict(point) for point in self._curve],
            "step": self.step,
            "info": dict(self.info),
            "weights": dict(self._weights),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave; where its distances are of something else, begin anew and say so."""
        if state.get("curve") and state.get("measured", "") != self._measured:
            before = state.get("measured") or "weights as they were trained"
            logger.warning(
                "distance.csv and best.safetensors begin anew: distances up to here are of %s, from here on of %s",
                before if "measured" in state else f"{before}, or corrected (the checkpoint does not say)",
                self._measured or "weights as they are trained",
            )
            return
        self._curve = [dict(point) for point in state.get("curve", ())]
        self.step, self._weights = int(state.get("step", 0)), dict(state.get("weights", {}))
        # A state of an older version knows the step alone.
        self.info = {"steps": self.step, "figures": {}} | dict(state.get("info", {}))


def step_to_keep(curve: Sequence[Mapping[str, float]], alike: float) -> int:
    """Step of the last of the points whose ``"distance"`` is within ``alike`` of the least.

    What chance makes of the measurement is no reason to give up what later steps have learned.
    """
    least = min(point["distance"] for point in curve)
    return max(int(point.get("step", 0)) for point in curve if point["distance"] <= least + alike)
