"""The degradation model of BSRGAN: blur, reduction, noise and JPEG in an order that each sample draws.

Zhang, Liang, Van Gool and Timofte, "Designing a Practical Degradation Model for Deep Blind Image Super-Resolution",
ICCV 2021, section 3, at the paper's two scales: ``bsrgan`` has the values of scale 4 and is meant for it, ``bsrgan-x2``
those of scale 2.  Where the paper leaves a law open, the authors' code decides: the lengths of an anisotropic kernel's
axes are eigenvalues of its covariance; a reduction by ``s / a`` draws ``s / a`` uniformly; bilinear and bicubic
reductions are OpenCV's, not antialiased.

* Blur: a round Gaussian and an anisotropic one, of sizes 7, 9, ..., 21, each always.
* Reduction, each of four ways alike: bilinear; bicubic; down and up, to between half and ``s`` times the LR size and
  later to LR; nearest after a Gaussian that is moved so that nothing shifts.  That last one is written here as a
  Gaussian and bilinear sampling: moving the kernel by linear interpolation and taking each s-th pixel is the same sum.
  At scale 4 one image of four is halved before all else, and goes on as at scale 2.
* Noise: Gaussian of 1/255, 2/255, ..., 25/255, always: of each channel alone, grey, or of a drawn covariance
  (0.4, 0.4, 0.2).
* JPEG of quality 30 to 95: with probability 0.75 within the drawn order, and always as the last of all.

Left out: the noise of a camera (probability 0.25 there), which takes the image back to raw data by measured colour
matrices and tone curves and develops it again; no stage here does that.  ``{type: noise,
kinds: {poisson_gaussian: 1}}`` in the list is raw noise without development.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["bsrgan_chain"]

_Stage = dict[str, Any]

#: By scale: the highest standard deviation of round kernels, and the highest eigenvalue of the others' covariances.
_BLUR = {2: (2.4, 6.0), 4: (2.8, 8.0)}
_LOWEST_EIGENVALUE = 0.5
_BOTH = {"bilinear": 1, "bicubic": 1}
#: Places of the two parts of a reduction among the shuffled ones.
_DOWN, _TO_LR = 2, 3


def bsrgan_chain(scale: int = 4) -> list[_Stage]:
    """The stages at scale 2 or 4, as they stand in an option file."""
    jpeg: _Stage = {"type": "jpeg", "quality": [30, 95]}
    if scale == 2:
        return [_shuffled(2, jpeg), jpeg]
    halved = [
        {
            "type": "choice",
            "of": [
                {"name": "opencv", "chain": [_halving(antialias=False)]},
                {"name": "antialiased", "chain": [_halving(antialias=True)]},
            ],
        },
        _shuffled(2, jpeg),
    ]
    ways = [
        {"weight": 0.75, "name": "at_once", "chain": [_shuffled(4, jpeg)]},
        {"weight": 0.25, "name": "halved", "chain": halved},
    ]
    return [{"type": "choice", "of": ways}, jpeg]


def _halving(antialias: bool) -> _Stage:
    filters = {"bicubic": 1} if antialias else _BOTH
    return {"type": "resize", "factor": 0.5, "filter": filters, "antialias": antialias}


def _shuffled(scale: int, jpeg: _Stage) -> _Stage:
    widest, eigenvalue = _BLUR[scale]
    axes = [math.sqrt(_LOWEST_EIGENVALUE), math.sqrt(eigenvalue)]
    stages: list[_Stage] = [
        {"type": "blur", "kinds": {"isotropic": 1}, "size": [7, 21], "sigma": [0.1, widest]},
        {"type": "blur", "kinds": {"anisotropic": 1}, "size": [7, 21], "sigma": axes, "sigma_law": "variance"},
        _down(scale),
        {"type": "resize", "to": "lr", "filter": _BOTH, "antialias": False},
        {
            "type": "noise",
            "kinds": {"gaussian": 1},
            "channels": {"independent": 0.4, "grey": 0.4, "covariance": 0.2},
            "sigma": [1 / 255, 25 / 255],
            "sigma_step": 1 / 255,
        },
        {**jpeg, "probability": 0.75},
    ]
    return {"type": "shuffle", "of": stages, "in_order": [_DOWN, _TO_LR]}


def _down(scale: int) -> _Stage:
    """What comes before the resize to LR: nothing in half of the samples, which is that resize alone."""
    to_lr: _Stage = {"type": "resize", "to": "lr", "antialias": False}
    detour = {**to_lr, "factor": [0.5, scale], "law": "inverse", "filter": _BOTH}
    nearest = [
        {"type": "blur", "kinds": {"isotropic": 1}, "size": 21, "sigma": [0.1, 0.6 * scale]},
        {**to_lr, "filter": "bilinear"},
    ]
    ways = [
        {"weight": 0.5, "name": "direct", "chain": []},
        {"weight": 0.25, "name": "down_up", "chain": [detour]},
        {"weight": 0.25, "name": "nearest", "chain": nearest},
    ]
    return {"type": "choice", "of": ways}
