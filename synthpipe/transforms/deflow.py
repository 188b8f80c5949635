"""A trained DeFlow as a batched degradation: high-resolution tile -> bicubic reduction -> flow -> low-quality tile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from synthpipe.errors import ShapeError
from synthpipe.flows.deflow import DeFlow
from synthpipe.flows.draws import SeededNoise
from synthpipe.flows.frozen import FrozenDeFlow
from synthpipe.flows.pile_levels import AskedLevel
from synthpipe.images import check_images, downscale_bicubic, quantize_8bit
from synthpipe.transforms.base import DeviceTransform
from synthpipe.transforms.batch import Batch, repeated

__all__ = ["DeFlowDegrade"]

# What numbers are for, beside those of the flow, which have a salt of their own.
_STRENGTH = 0


class DeFlowDegrade(DeviceTransform):
    """Adds ``lq``: the reduced ``gt`` as the noisy domain would have shown it.

    The reduced tile is rounded to 8 bits before it meets the flow, as all images were that the flow was trained on.
    ``lq`` leaves unrounded and may leave [0, 1] slightly; the stream quantises it.  A tile that the flow turns into NaN
    leaves as it is, for the stream to drop and count, so that it takes no other tile with it.

    Args:
        model: a trained DeFlow (``checkpoints.load(path, kind="deflow")``); it is frozen as it is now
            (:class:`synthpipe.flows.FrozenDeFlow`).
        scale: height of ``gt`` over height of ``lq``; 1 degrades at full size (a denoiser's pairs).
        strength: see :meth:`synthpipe.flows.DeFlow.degrade`; ``(low, high)`` draws one for each tile, uniformly.
        level: of the noise in units of sigma of 255, ``(low, high)`` or ``"pile"``, for weights that know levels: see
            :class:`synthpipe.flows.AskedLevel`.
        samples: degradations of each tile, which share its features and latents.  Above 1 the batch that comes out has
            so many rows for each that came in, one after the other.
        condition_dtype: see :class:`synthpipe.flows.FrozenDeFlow`; ``torch.bfloat16`` is faster and slightly another
            degradation.

    Raises:
        ShapeError: ``model`` is no DeFlow, or is untrained, or ``scale``, ``strength``, ``samples`` or ``level`` is out
            of range.

    >>> import torch
    >>> from synthpipe import checkpoints
    >>> from synthpipe.transforms import DeFlowDegrade
    >>> degrade = DeFlowDegrade(checkpoints.load("deflow_small"), scale=4)
    >>> batch = degrade({"gt": torch.rand(2, 3, 128, 160), "seed": torch.tensor([5, 6])})
    >>> batch["lq"].shape
    torch.Size([2, 3, 32, 40])
    """

    salt = "deflow"

    def __init__(
        self,
        model: nn.Module,
        scale: int,
        strength: float | Sequence[float] = 1.0,
        samples: int = 1,
        condition_dtype: torch.dtype | None = None,
        level: float | Sequence[float] | Literal["pile"] | None = None,
    ) -> None:
        if not isinstance(model, DeFlow):
            raise ShapeError(f"DeFlowDegrade: expected a DeFlow, got {type(model).__name__}")
        if not model.initialized:
            raise ShapeError("DeFlowDegrade: the DeFlow was never trained; load weights with checkpoints.load")
        if scale < 1 or samples < 1:
            raise ShapeError(f"DeFlowDegrade: scale and samples must be at least 1, got {scale} and {samples}")
        limits = tuple(strength) if isinstance(strength, tuple | list) else (strength, strength)
        numbers = len(limits) == 2 and all(isinstance(limit, int | float) for limit in limits)
        if not numbers or not 0 <= limits[0] <= limits[1] < math.inf:
            raise ShapeError(f"DeFlowDegrade: strength must be at least 0, or (low, high), got {strength!r}")
        self.frozen = FrozenDeFlow(model, condition_dtype)
        #: Which levels are asked for.
        self.asked = AskedLevel(self.frozen, level)
        self.scale = scale
        self.strength = strength
        self._limits: tuple[float, float] = limits[0], limits[1]
        self.samples = samples

    def check(self, batch: Batch) -> None:
        """Refuse ``gt`` that is no finite RGB batch, and a wrong number of seeds; raises :class:`ShapeError`."""
        check_images(batch["gt"], "DeFlowDegrade")
        if len(batch["seed"]) != len(batch["gt"]):
            raise ShapeError(f"DeFlowDegrade: {len(batch['gt'])} images but {len(batch['seed'])} seeds")

    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add ``lq`` ``(B, 3, H / scale, W / scale)`` float32; with ``samples``, repeat all else to match.

        Raises:
            ShapeError: sides of ``gt`` that ``scale`` does not divide.
        """
        gt, seeds = batch["gt"], batch["seed"]
        clean = quantize_8bit(downscale_bicubic(gt, self.scale))
        numbers = range(self.samples)
        noises = [SeededNoise(seeds, self.salt, number) for number in numbers]
        strengths = [self._strength(seeds, number) for number in numbers]
        lq = self.frozen.degrade_samples(clean, noises, strengths, [self._drawn(seeds, number) for number in numbers])
        return {**{key: repeated(value, self.samples) for key, value in batch.items()}, "lq": lq}

    def to(self, device: torch.device | str) -> DeFlowDegrade:
        """Move the flow."""
        self.frozen.to(device)
        return self

    def strengths(self, seeds: Tensor) -> list[list[float]]:
        """What each of the seeds ``(B,)`` draws for each of its :attr:`samples` degradations."""
        drawn = [torch.as_tensor(self._strength(seeds, number)).expand(len(seeds)) for number in range(self.samples)]
        rows: list[list[float]] = torch.stack(drawn, 1).tolist()
        return rows

    def levels(self, seeds: Tensor) -> list[list[float]] | None:
        """As :meth:`strengths`, the level in units of sigma of 255; None where the weights know none."""
        if not self.asked.drawn:
            return None
        drawn = [self._drawn(seeds.to(self._device), number) for number in range(self.samples)]
        rows: list[list[float]] = (255 * torch.stack([level for level in drawn if level is not None], 1)).tolist()
        return rows

    @property
    def _device(self) -> torch.device:
        return self.frozen.split.weight.device

    def _drawn(self, seeds: Tensor, sample: int) -> Tensor | None:
        if not self.asked.drawn:
            return None
        like = torch.empty(len(seeds), 1, device=seeds.device)
        return self.asked.draw(SeededNoise(seeds, f"{self.salt} level", sample).uniform(like, _STRENGTH)[:, 0])

    def _strength(self, seeds: Tensor, sample: int) -> float | Tensor:
        low, high = self._limits
        if low == high:
            return low
        like = torch.empty(len(seeds), 1, device=seeds.device)
        uniform = SeededNoise(seeds, f"{self.salt} strength", sample).uniform(like, _STRENGTH)[:, 0]
        return low + (high - low) * uniform
