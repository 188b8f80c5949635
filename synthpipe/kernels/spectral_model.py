"""From spectra of two piles to the response of a blur: what content alone would do is taken into account.

An image's spectrum is that of its content times the response.  Contents of the two piles are taken for draws of one
law, whose spread the clean pile tells: the steepness of spectra differs from image to image (it is about a power of
the frequency), and each ring beside it.  The more images, the less of it is left in the difference of the piles' means.
The logarithm of the response is the most probable one under a Gaussian process (:mod:`response_prior`): under several,
which expect unsharp masks of different amounts, each counted by how probable it makes what was measured.

Legend: N, M images; K rings, the nodes of a response.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
#: Standard deviation of one image's ring beyond what the clean pile tells, at a frequency, falling as 1 / f^2: the
#: photographs of a degraded pile are framed in other ways, which low frequencies show most.
_FRAMING, _FRAMED = 0.2, 0.06
#: Standard deviations from the median at which an image's ring is cut, and how many median deviations are one.
_FAR, _NORMAL = 2.0, 1.4826
#: Where the steepness of a spectrum turns, cycles per pixel.
_PIVOT = 0.1


def spectral_response(degraded: Tensor, clean: Tensor, sharpenings: Sequence[float] = (0.0,)) -> Tensor:
    """The response, ``(K,)`` float64, above 0, and 1 at the frequency 0.

    Args:
        degraded: ``(N, K)`` of each degraded image, from :func:`synthpipe.kernels.spectra.log_amplitudes`.
        clean: ``(M, K)`` of each clean image.
        sharpenings: of each prior, see :func:`response_prior`; at least one.

    Raises:
        ShapeError: fewer than :data:`LEAST_IMAGES` of one; no sharpening, or one that is below 0 or not finite.
    """
    if not sharpenings or not all(0 <= each < math.inf for each in sharpenings):
        raise ShapeError(
            f"spectral_response: sharpenings: expected at least one finite number from 0 on, got {tuple(sharpenings)}"
        )
    for name, images in (("degraded", degraded), ("clean", clean)):
        if len(images) < LEAST_IMAGES:
            raise ShapeError(
                f"spectral_response: {name}: expected at least {LEAST_IMAGES} images with detail, got {len(images)}; "
                "give more images"
            )
    measured = _mean(degraded.double()) - _mean(clean.double())
    framing = torch.diag((_FRAMING * (_FRAMED / nodes()[1:]).square()).square())
    errors = (_content(clean.double()) + framing) * (1 / len(degraded) + 1 / len(clean)) + _SCALE
    errors = errors + _FLOOR**2 * torch.eye(len(errors), dtype=torch.float64)
    # The ring 0 is what a window's mean left: nothing.
    found = [_under(response_prior(_SMOOTH, _REACH, each), errors, measured[1:]) for each in sharpenings]
    shares = torch.stack([evidence for _, evidence in found]).softmax(0)
    logs = torch.stack([log_response for log_response, _ in found])
    response: Tensor = (shares @ logs).exp()
    return response


def _under(prior: Tensor, errors: Tensor, measured: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the logarithms ``(K,)`` under a prior, and the logarithm of the density of what was measured."""
    covariance = prior[1:, 1:] + errors
    explained = torch.linalg.solve(covariance, measured)
    return prior[:, 1:] @ explained, -(measured @ explained + torch.linalg.slogdet(covariance)[1]) / 2


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
