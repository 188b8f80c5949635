"""Clean pictures as other cameras and programs leave them: crisper, or a little softer, than those of the fit.

Fine texture of a picture that was reduced or sharpened has as much power as weak noise.  A fit that has only seen
originals of one crispness takes it for noise, so some copies begin with another one.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from synthpipe.seeds import generator_for
from synthpipe.training.kinds.traces import Draw, convolved, eight_bits, gaussian, resized, sharpened

__all__ = ["Original", "draw_original"]

#: Shares of originals that are reduced, (of these) sharpened as well, only sharpened, enlarged; the rest is blurred.
_REDUCED, _REDUCED_AND_SHARPENED, _SHARPENED, _ENLARGED = 0.4, 0.1, 0.38, 0.12
_REDUCTIONS, _ENLARGEMENTS = (1.2, 2.2), (1.05, 1.3)
#: Standard deviations in pixels and amounts of the unsharp mask, and of the blur; neither calls for a label.
_MASK_SIGMAS, _MASK_AMOUNTS, _BLURS = (0.5, 1.5), (0.25, 1.6), (0.3, 0.6)
_LEAST_SIDE = 100


class Original(NamedTuple):
    """A clean picture ``(3, h, w)`` float32 in [0, 1], and whether it is softer than what it was made of."""

    image: Tensor
    soft: bool


def draw_original(image: Tensor, seed: int) -> Original:
    """Make a clean picture crisper, or more seldom softer.

    Args:
        image: ``(3, H, W)`` float32 in [0, 1], clean.
        seed: of all draws.
    """
    draw, x = Draw(generator_for(seed, "crisp")), image[None]
    which = draw.uniform()
    height, width = image.shape[1:]
    if which < _REDUCED:
        factor = min(draw.uniform(*_REDUCTIONS), min(height, width) / _LEAST_SIDE)
        x = resized(x, (round(height / factor), round(width / factor))) if factor > 1 else x
    if which < _REDUCED_AND_SHARPENED or _REDUCED <= which < _REDUCED + _SHARPENED:
        x = sharpened(x, draw.uniform(*_MASK_SIGMAS), draw.log_uniform(*_MASK_AMOUNTS))
    soft = which >= _REDUCED + _SHARPENED
    if soft and which < _REDUCED + _SHARPENED + _ENLARGED:
        factor = draw.uniform(*_ENLARGEMENTS)
        x = resized(x, (round(height * factor), round(width * factor)))
    elif soft:
        x = convolved(x, gaussian(draw.uniform(*_BLURS)))
    return Original(eight_bits(x)[0], soft)
