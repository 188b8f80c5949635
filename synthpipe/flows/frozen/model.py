"""A DeFlow for use alone: the same maps as the trained model's, several times faster (design decision 8).

Everything that only training needs is gone, everything that depends on the condition alone is computed once for both
directions; :mod:`synthpipe.flows.frozen.steps` has the transformations.  The numbers are those of the plain model but
for float32 rounding (1e-4 on the [0, 1] scale; tests/flows/frozen/test_model.py).

Legend: B batch, H, W image size.  Images are RGB on the [0, 1] scale.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.errors import ShapeError
from synthpipe.flows.deflow import CLEAN, CONDITION, DEQUANTIZATION, LEVEL, NOISY, SPLIT, TOP, DeFlow
from synthpipe.flows.draws import Generators, Noise, SeededNoise, as_noise
from synthpipe.flows.encoder import resized_colour
from synthpipe.flows.frozen.encoder import freeze_encoder
from synthpipe.flows.frozen.first_convs import MapPart, conv_layout
from synthpipe.flows.frozen.steps import FrozenLevel, FrozenSplit, LevelCondition
from synthpipe.flows.pile_levels import level_in_use, log_level_in_use
from synthpipe.flows.prior import DiagonalShift, DomainShift
from synthpipe.images import check_images, downscale_bicubic, pad_to_multiple, quantize_8bit

__all__ = ["EncodedImages", "FrozenDeFlow"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class EncodedImages:
    """Latents and condition of images: all that a degradation needs but the shift.  Many may be drawn from one."""

    latents: list[Tensor]
    levels: list[LevelCondition]
    #: Features of the first and the last level, where the latents are.
    maps: tuple[list[MapPart], list[MapPart]]
    #: Standard deviations of the shift where it has one for each channel and follows no level: the same for all draws.
    spreads: tuple[Tensor | None, Tensor | None]
    #: The images themselves, for a correction.
    images: Tensor
    domain: int
    height: int
    width: int


def _in_use(
    method: Callable[Concatenate[FrozenDeFlow, _Arguments], _Result],
) -> Callable[Concatenate[FrozenDeFlow, _Arguments], _Result]:
    """Without gradients, and without autocast: the precision is what the constructor was told."""

    @functools.wraps(method)
    def call(self: FrozenDeFlow, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        """The method."""
        with torch.no_grad(), torch.autocast(self.split.weight.device.type, enabled=False):
            return method(self, *args, **kwargs)

    return call


class FrozenDeFlow(nn.Module):
    """The inference runtime of a trained DeFlow; later changes of ``model`` do not reach it.

    It moves between devices and types as any module does.  What it computes with is made of the model's weights and not
    all in ``state_dict``: save the model, and freeze it again.

    On a processor, float32 weights of wide networks are kept by the tile as well, four times as large: ``aim`` takes
    1 GB beside the 0.25 GB of the model.  A GPU keeps the weights alone.

    Args:
        model: initialised.
        condition_dtype: of the part that depends on the features alone, encoder included; by default the model's own.
            ``torch.bfloat16`` is faster on processors that have it.  It changes the degradation slightly and the round
            trip not at all, because both directions use the same numbers.

    Raises:
        ShapeError: a model that was never trained.
    """

    def __init__(self, model: DeFlow, condition_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if not model.initialized:
            raise ShapeError("FrozenDeFlow: the DeFlow was never trained; load weights with checkpoints.load")
        self.config = model.config
        self.scale, self.size_multiple = model.scale, model.size_multiple
        self.with_colour = model.with_colour
        condition_dtype = condition_dtype or next(model.parameters()).dtype
        self.encoder = freeze_encoder(copy.deepcopy(model.encoder).to(condition_dtype))
        sizes = model.encoder.part_sizes()
        if self.with_colour:
            sizes = [[(3, 1), *parts] for parts in sizes]
        self.levels = nn.ModuleList(
            FrozenLevel(level, parts, condition_dtype)  # type: ignore[arg-type]
            for level, parts in zip(model.levels, sizes, strict=True)
        )
        self.split = FrozenSplit(model.split)
        self.shifts = copy.deepcopy(model.shifts)
        self.normalization = copy.deepcopy(model.normalization)
        self.pile, self.correction = copy.deepcopy(model.pile), copy.deepcopy(model.correction)
        self.eval().requires_grad_(False)

    @_in_use
    def degrade(
        self,
        x: Tensor,
        generators: Generators | Noise,
        strength: float | Tensor = 1.0,
        refuse_nonfinite: bool = True,
        level: float | Tensor | None = None,
    ) -> Tensor:
        """Clean images to noisy ones of the same content; the same images as :meth:`DeFlow.degrade` from equal seeds.

        Args:
            x: ``(B, 3, H, W)`` in [0, 1], any size: padded by mirroring to ``size_multiple`` and cut back.
            generators: one per image, one for all, or noise of any origin.
            strength: latents move by ``strength * u``; one number, or ``(B,)``.
            refuse_nonfinite: raise where an image comes out with NaN or infinity.
            level: of the noise on the [0, 1] scale, one or ``(B,)``, for a model with ``level``; None: drawn for each
                image from those of the pile.

        Returns:
            ``(B, 3, H, W)``, not clipped.

        Raises:
            ShapeError: wrong shape or NaN, coming in or going out; a ``level`` for a model without.
        """
        check_images(x, "FrozenDeFlow.degrade")
        y = self.degrade_with(x, as_noise(generators), strength, level)
        return self._checked(y, "FrozenDeFlow.degrade") if refuse_nonfinite else y

    @_in_use
    def degrade_with(
        self, x: Tensor, noise: Noise, strength: float | Tensor = 1.0, level: float | Tensor | None = None
    ) -> Tensor:
        """As :meth:`degrade`, with noise of any origin and without a question to the device: it can be captured.

        NaN that comes in goes out.
        """
        return self.degrade_samples(x, [noise], [strength], [level])

    @_in_use
    def clean(
        self,
        y: Tensor,
        generators: Generators | Noise,
        temperature: float = 1.0,
        level: float | Tensor | None = None,
    ) -> Tensor:
        """Noisy images to clean ones, as :meth:`DeFlow.clean`.

        Raises:
            ShapeError: wrong shape or NaN, coming in or going out.
        """
        check_images(y, "FrozenDeFlow.clean")
        noise = as_noise(generators)
        log_level = log_level_in_use(self.pile, level, y, noise, LEVEL)
        encoded = self.encode(y, NOISY, noise)

        moved = []
        for z, shift, maps, purpose in zip(encoded.latents, self._shifts(), encoded.maps, (SPLIT, TOP), strict=True):
            eps = temperature * noise.normal(shift.draws_like(z), purpose)
            moved.append(shift.remove(z, eps, _whole(maps, z.dtype), log_level))
        return self._checked(self._decode(encoded, moved), "FrozenDeFlow.clean")

    @_in_use
    def encode(self, x: Tensor, domain: int, noise: Noise) -> EncodedImages:
        """Everything that does not depend on the shift: several degradations of the same images share it.

        Args:
            x: ``(B, 3, H, W)`` in [0, 1], finite, any size.
            domain: of the images, 0 clean or 1 noisy.
            noise: of the condition, and for dequantisation where the configuration keeps that.
        """
        height, width = x.shape[2:]
        padded = pad_to_multiple(x, self.size_multiple)
        lr = quantize_8bit(downscale_bicubic(padded, self.scale))
        if self.config["dequantize_output"]:
            padded = padded + (noise.uniform(padded, DEQUANTIZATION) - 0.5) / self.config["quant"]
        if self.normalization is not None:
            source = torch.full((len(x),), domain, device=x.device)
            padded = self.normalization.normalize(padded, source)[0]
            lr = self.normalization.normalize_condition(lr, source)
        lr = lr + self.config["condition_noise"] * noise.normal(lr, CONDITION)
        maps = self._features(lr, padded.shape[2:])
        levels = [level.condition(parts) for level, parts in zip(self._levels(), maps, strict=True)]
        latents = self._latents(padded, levels)
        of_latents = maps[0], maps[-1]
        spreads: tuple[Tensor | None, Tensor | None] = (None, None)
        if self.pile is None:
            spreads = self._spread(0, maps[0], x.dtype), self._spread(1, maps[-1], x.dtype)
        return EncodedImages(latents, levels, of_latents, spreads, x, domain, height, width)

    @_in_use
    def degrade_encoded(
        self,
        encoded: EncodedImages,
        noise: Noise,
        strength: float | Tensor = 1.0,
        level: float | Tensor | None = None,
    ) -> Tensor:
        """One draw of the degradation of images that :meth:`encode` has seen; the rest as :meth:`degrade`."""
        if isinstance(strength, Tensor):
            strength = strength.to(encoded.latents[0])[:, None, None, None]
        log_level = log_level_in_use(self.pile, level, encoded.images, noise, LEVEL)
        spreads = encoded.spreads
        if log_level is not None:
            first, last = encoded.maps
            dtype = encoded.images.dtype
            spreads = self._spread(0, first, dtype, log_level), self._spread(1, last, dtype, log_level)

        moved = []
        for z, shift, spread, purpose in zip(encoded.latents, self._shifts(), spreads, (SPLIT, TOP), strict=True):
            eps = noise.normal(z, purpose)
            u = shift.shift(eps, z) if spread is None else eps * spread + shift.mean
            moved.append(z + strength * u)
        y = self._decode(encoded, moved)
        return y if self.correction is None else self.correction(encoded.images, y, log_level)

    @_in_use
    def degrade_samples(
        self,
        x: Tensor,
        noises: Sequence[Noise],
        strengths: Sequence[float | Tensor] | float | Tensor = 1.0,
        levels: Sequence[float | Tensor | None] | None = None,
    ) -> Tensor:
        """Several degradations of each image, which share everything but the shift; each further one is a decode.

        Args:
            x: as of :meth:`degrade_with`.
            noises: one for each sample.  Condition and dequantisation are drawn from the first, so that the first
                sample is what :meth:`degrade_with` gives for it.
            strengths: as of :meth:`degrade`, one for all samples or a list with one for each.
            levels: as of :meth:`degrade`, one for each sample.

        Returns:
            ``(B * samples, 3, H, W)``, those of one image together.
        """
        if not len(x):  # a filter dropped the whole batch
            return x.clone()
        if isinstance(strengths, float | int | Tensor):
            strengths = [strengths] * len(noises)
        shapes = self._drawn_shapes(x)
        of_latents = {purpose: shape for purpose, shape in shapes.items() if purpose != CONDITION}
        noises = [_ahead(noise, of_latents if place else shapes, x.dtype) for place, noise in enumerate(noises)]
        asked = [None] * len(noises) if levels is None else levels
        # Before the condition, as the plain model does.
        levels = [level_in_use(self.pile, level, x, noise, LEVEL) for level, noise in zip(asked, noises, strict=True)]
        encoded = self.encode(x, CLEAN, noises[0])
        samples = [self.degrade_encoded(encoded, *drawn) for drawn in zip(noises, strengths, levels, strict=True)]
        return samples[0] if len(samples) == 1 else torch.stack(samples, 1).flatten(0, 1)

    def _drawn_shapes(self, x: Tensor) -> dict[int, tuple[int, int, int]]:
        """What is drawn for each image of a degradation, by purpose."""
        height, width = (side + -side % self.size_multiple for side in x.shape[2:])
        split, top = (len(shift.mean) for shift in self._shifts())
        reduction = 2 ** len(self.levels)
        return {
            CONDITION: (3, height // self.scale, width // self.scale),
            SPLIT: (split, height // 2, width // 2),
            TOP: (top, height // reduction, width // reduction),
        }

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        *_, error_msgs = args
        error_msgs.append(f"{prefix or 'a '}FrozenDeFlow takes no weights: load them into a DeFlow, and freeze that")

    def _spread(
        self, place: int, maps: Sequence[MapPart], dtype: torch.dtype, log_level: Tensor | None = None
    ) -> Tensor | None:
        """Standard deviations of the shift of one latent; None where it has a full covariance."""
        shift = self._shifts()[place]
        # They follow the colour at most, and that is the first map.
        if not isinstance(shift, DiagonalShift):
            return None
        return shift.variance(maps[0][0].to(dtype), dtype, log_level).sqrt()

    def _features(self, lr: Tensor, size: Sequence[int]) -> list[list[MapPart]]:
        """The maps of each level, the reduced image's colour first where scales follow it."""
        lr = torch.zeros_like(lr) if self.config["unconditional"] else lr
        maps = self.encoder.parts(lr.to(self._levels()[0].condition_dtype, memory_format=conv_layout(lr)))
        if not self.with_colour:
            return maps
        sides = [[side >> level for side in size] for level in range(1, len(maps) + 1)]
        return [[(resized_colour(lr, side), 1), *parts] for side, parts in zip(sides, maps, strict=True)]

    def _latents(self, x: Tensor, levels: Sequence[LevelCondition]) -> list[Tensor]:
        first, *others = zip(self._levels(), levels, strict=True)
        x, split = self.split.encode(first[0].encode(x, first[1]))
        for level, condition in others:
            x = level.encode(x, condition)
        return [split, x]

    def _decode(self, encoded: EncodedImages, latents: Sequence[Tensor]) -> Tensor:
        split, x = latents
        first, *others = zip(self._levels(), encoded.levels, strict=True)
        for level, condition in reversed(others):
            x = level.decode(x, condition)
        y = first[0].decode(self.split.decode(x, split), first[1])
        if self.normalization is not None:
            y = self.normalization.undo(y, torch.full((len(y),), 1 - encoded.domain, device=y.device))
        return y[..., : encoded.height, : encoded.width]

    def _shifts(self) -> list[DomainShift]:
        return list(self.shifts)  # type: ignore[arg-type]

    def _levels(self) -> list[FrozenLevel]:
        return list(self.levels)  # type: ignore[arg-type]

    def _checked(self, x: Tensor, name: str) -> Tensor:
        if not bool(torch.isfinite(x).all()):
            raise ShapeError(
                f"{name}: the flow gave NaN or infinity; the weights amplify this input too much (scale_eps "
                f"{self.config['scale_eps']} bounds it), or they are damaged"
            )
        return x


def _whole(maps: Sequence[MapPart], dtype: torch.dtype) -> Tensor:
    """All maps of a level at its size."""
    parts = [
        map_.to(dtype) if factor == 1 else F.interpolate(map_.to(dtype), scale_factor=float(factor), mode="nearest")
        for map_, factor in maps
    ]
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def _ahead(noise: Noise, shapes: Mapping[int, Sequence[int]], dtype: torch.dtype) -> Noise:
    """All numbers at once where they are functions of seeds: a third of the operations."""
    return noise.ahead(shapes, dtype) if isinstance(noise, SeededNoise) else noise
