"""The noise levels of the images that a flow was trained on, as quantiles: what a level may be asked for by.

A level is one number for an image, a standard deviation on the [0, 1] scale
(:func:`synthpipe.flat_noise.noise_level`).  Ours, not in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from synthpipe.errors import ShapeError
from synthpipe.flows.draws import Noise

__all__ = ["AskedLevel", "PileLevels", "level_in_use", "log_level_in_use", "log_level_to_train"]


class PileLevels(nn.Module):
    """The distribution of levels, by which they are drawn and from whose median they are counted.

    Args:
        count: of the quantiles, from the lowest level to the highest, equally spaced.
    """

    quantiles: Tensor

    def __init__(self, count: int = 33) -> None:
        super().__init__()
        self.register_buffer("quantiles", torch.zeros(count))

    @property
    def known(self) -> bool:
        """Whether a pile was seen."""
        return bool(self.quantiles[0] > 0)

    @torch.no_grad()
    def see(self, levels: Sequence[float]) -> None:
        """Take the distribution of a pile's levels, one for each image.

        Raises:
            ShapeError: none, or one that is not above 0 and finite.
        """
        wrong = [level for level in levels if not 0 < level < math.inf]
        if wrong or not levels:
            raise ShapeError(f"PileLevels: expected levels above 0, got {wrong[:3] or 'none'}")
        places = torch.linspace(0, 1, len(self.quantiles), dtype=torch.float64)
        # Every image is as likely as the others: no level between those of two images is drawn.
        found = torch.quantile(torch.tensor(levels, dtype=torch.float64), places, interpolation="nearest")
        self.quantiles.copy_(found)

    def draw(self, uniform: Tensor) -> Tensor:
        """Levels ``(B,)`` by numbers ``(B,)`` of the uniform law on [0, 1)."""
        last = len(self.quantiles) - 1
        index = (uniform * (last + 1)).long().clamp(0, last)
        return self.quantiles.to(uniform.dtype).index_select(0, index)

    def log_ratio(self, levels: Tensor) -> Tensor:
        """Log of levels ``(B,)`` over the pile's median: ``(B,)``."""
        median = self.quantiles[len(self.quantiles) // 2].to(levels)
        return (levels / median).log()


class AskedLevel:
    """What a user asks for: one level, a range of levels, or those of the pile.

    Args:
        model: a DeFlow, as it is or frozen.
        level: in units of sigma of 255, one number or ``(low, high)``, which is drawn from log-uniformly; ``"pile"``:
            drawn from the levels of the images that the model was trained on; None: as ``"pile"`` where the model
            knows levels.

    Raises:
        ShapeError: a level for a model that knows none, or one that is not above 0.
    """

    def __init__(self, model: nn.Module, level: float | Sequence[float] | Literal["pile"] | None) -> None:
        pile = getattr(model, "pile", None)
        if pile is None and level is not None:
            raise ShapeError(
                f"level: {level!r} was asked for, but these weights know no noise level; leave level out, or train "
                "with model.level: true"
            )
        self._pile: PileLevels | None = pile
        self._limits: tuple[float, float] | None = None
        #: Draw from the other end: where 0.2 of the levels are below what a number draws, 0.8 are.
        self.opposite = False
        #: Not drawn, but the nearest that can be to this one, on the [0, 1] scale.
        self.near: float | None = None
        if level is None or level == "pile":
            return
        limits = tuple(level) if isinstance(level, tuple | list) else (level, level)
        numbers = len(limits) == 2 and all(isinstance(limit, int | float) for limit in limits)
        if not numbers or not 0 < limits[0] <= limits[1] < math.inf:
            raise ShapeError(f"level: expected a number above 0, (low, high) or 'pile', got {level!r}")
        self._limits = (limits[0] / 255, limits[1] / 255)

    @property
    def drawn(self) -> bool:
        """Whether there are levels at all, which take a number to be drawn."""
        return self._pile is not None

    @property
    def varies(self) -> bool:
        """Whether more than one level can be drawn."""
        if self._pile is None:
            return False
        low, high = self._ends(self._pile)
        return low < high

    def _ends(self, pile: PileLevels) -> tuple[float, float]:
        """The least and the greatest level that can be drawn."""
        return (float(pile.quantiles[0]), float(pile.quantiles[-1])) if self._limits is None else self._limits

    def draw(self, uniform: Tensor) -> Tensor | None:
        """Levels ``(B,)`` on the [0, 1] scale, from numbers ``(B,)`` of the uniform law; None without levels."""
        if self._pile is None:
            return None
        if self.near is not None:
            low, high = self._ends(self._pile)
            return torch.full_like(uniform, min(max(self.near, low), high))
        if self.opposite:
            uniform = 1 - uniform
        if self._limits is None:
            return self._pile.draw(uniform)
        low, high = (math.log(limit) for limit in self._limits)
        return (uniform * (high - low) + low).exp()


def log_level_to_train(pile: PileLevels | None, level: Tensor | None) -> Tensor | None:
    """What the shifts follow, ``(B,)``, from the levels of a batch; None for a model without levels.

    Raises:
        ShapeError: no levels where the model follows them.
    """
    if pile is None:
        return None
    if level is None:
        raise ShapeError("DeFlow: this model follows the noise level; give the level of each image, (B,)")
    return pile.log_ratio(level)


def log_level_in_use(
    pile: PileLevels | None, level: Tensor | float | None, x: Tensor, noise: Noise, purpose: int
) -> Tensor | None:
    """What the shifts follow, ``(B,)``, from the level asked for; arguments and errors as of :func:`level_in_use`."""
    found = level_in_use(pile, level, x, noise, purpose)
    return None if pile is None or found is None else pile.log_ratio(found)


def level_in_use(
    pile: PileLevels | None, level: Tensor | float | None, x: Tensor, noise: Noise, purpose: int
) -> Tensor | None:
    """Levels ``(B,)`` on the [0, 1] scale, as they are asked for or drawn; None for a model without levels.

    Args:
        pile: of the model.
        level: one number, or ``(B,)``, above 0; None: drawn from those of the pile.
        x: the images ``(B, ...)``.
        noise: draws the level where none is asked for.
        purpose: of that draw.

    Raises:
        ShapeError: a level for a model without, one number that is not above 0, or not one for each image.
    """
    if pile is None:
        if level is not None:
            raise ShapeError(
                "DeFlow: a noise level was asked for, but this model knows none; leave level out, or train with "
                "model.level: true"
            )
        return None
    if level is None:
        level = pile.draw(noise.uniform(x.new_empty(len(x), 1), purpose)[:, 0])
    elif not isinstance(level, Tensor):
        if not 0 < level < math.inf:
            raise ShapeError(f"DeFlow: expected a noise level above 0, on the [0, 1] scale, got {level}")
        level = torch.full((len(x),), float(level), dtype=x.dtype, device=x.device)
    elif level.shape != (len(x),):
        raise ShapeError(f"DeFlow: expected one noise level per image, ({len(x)},), got {tuple(level.shape)}")
    return level.to(x)
