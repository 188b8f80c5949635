"""From spectra of two piles to the response of a blur: what content alone would do is taken into account.

An image's spectrum is that of its content times the response.  Contents of the two piles are taken for draws of one
law, whose spread the clean pile tells: the steepness of spectra differs from image to image (it is about a power of
the frequency), and each ring beside it.  The more images, the less of it is left in the difference of the piles' means.
The logarithm of the response is the most probable one under a Gaussian process (:mod:`response_prior`).

Legend: N, M images; K rings, the nodes of a response.
"""

from __future__ import annotations

import torch
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.kernels.response_prior import nodes, response_prior

__all__ = ["LEAST_IMAGES", "spectral_response"]

#: Images that a pile needs.
LEAST_IMAGES = 3
#: The smooth remainder of the prior, and how far it hangs together.
_SMOOTH, _REACH = 0.6, 0.08
#: Error of a ring's difference that no number of images mends, and how little is known of the common scale.
_FLOOR, _SCALE = 0.02, 1.0
#: Standard deviations from the median at which an image's ring is cut, and how many median deviations are one.
_FAR, _NORMAL = 2.0, 1.4826
#: Where the steepness of a spectrum turns, cycles per pixel.
_PIVOT = 0.1


def spectral_response(degraded: Tensor, clean: Tensor, sharpening: float = 0.0) -> Tensor:
    """The response, ``(K,)`` float64, above 0, and 1 at the frequency 0.

    Args:
        degraded: ``(N, K)`` of each degraded image, from :func:`synthpipe.kernels.spectra.log_amplitudes`.
        clean: ``(M, K)`` of each clean image.
        sharpening: of the prior, see :func:`response_prior`.

    Raises:
        ShapeError: fewer than :data:`LEAST_IMAGES` of one.
    """
    for name, images in (("degraded", degraded), ("clean", clean)):
        if len(images) < LEAST_IMAGES:
            raise ShapeError(
                f"spectral_response: {name}: expected at least {LEAST_IMAGES} images with detail, got {len(images)}; "
                "give more images"
            )
    measured = _mean(degraded.double()) - _mean(clean.double())
    errors = _content(clean.double()) * (1 / len(degraded) + 1 / len(clean)) + _SCALE
    errors = errors + _FLOOR**2 * torch.eye(len(errors), dtype=torch.float64)
    prior = response_prior(_SMOOTH, _REACH, sharpening)
    # The ring 0 is what a window's mean left: nothing.
    gain = torch.linalg.solve(prior[1:, 1:] + errors, prior[1:]).T
    response: Tensor = (gain @ measured[1:]).exp()
    return response


def _mean(images: Tensor) -> Tensor:
    """``(K,)``: logarithm of the mean of the amplitudes, each image relative to a band of its own.

    In each ring an image counts as at most so far from the median: the bars of one fence have a ring of their own.
    """
    median = images.median(0).values
    far = _FAR * _NORMAL * (images - median).abs().median(0).values
    cut: Tensor = torch.maximum(torch.minimum(images, median + far), median - far)
    return cut.exp().mean(0).log()


def _content(clean: Tensor) -> Tensor:
    """``(K - 1, K - 1)``: covariance of one image's logarithms from the content's law, of the rings from 1 on."""
    steepness = (nodes()[1:] / _PIVOT).log()
    deviations = clean[:, 1:] - clean[:, 1:].mean(0)
    basis = torch.stack([torch.ones_like(steepness), steepness], 1)
    # Not the default driver, whose last bits differ from call to call.
    found = torch.linalg.lstsq(basis, deviations.T, driver="gelsd").solution  # (2, M)
    rest = deviations - (basis @ found).T
    covariance: Tensor = found[1].var(correction=1) * steepness[:, None] * steepness
    return covariance + torch.diag(rest.var(0, correction=1))
