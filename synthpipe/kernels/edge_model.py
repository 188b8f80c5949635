"""From powers across edges to a blur's response: the window's leakage undone, under a prior of smooth responses.

A Gaussian window of standard deviation s mixes frequencies within 1 / (2 pi s) = 0.045 cycles per pixel, and a step's
spectrum falls as 1 / f, so that the plain ratio of windowed spectra is off by up to 0.1.  A step, blurred by the
response H and windowed, has at f the odd part

    S(f) = sum over x of w(x) sin(2 pi f x) integral over g of H(g) sin(2 pi g x) / g,

which is linear in H.  The logarithm of H is found by Gauss-Newton steps as the most probable one under a Gaussian
process with H(0) = 1; the scale of the measured ratio is unknown, because powers are relative to a band.

Legend: F measured frequencies, K nodes of the response, G places of the integral.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from synthpipe.kernels.edges import FREQUENCIES, windows
from synthpipe.kernels.response_prior import NODES, nodes, response_prior

__all__ = ["ResponseModel"]

_PLACES = 128
#: The smooth remainder of the prior, and how far it hangs together.
_SMOOTH, _REACH = 0.4, 0.12
#: Error of a measured ratio, relative and absolute, and how little is known of the ratios' common scale.
_ERROR, _FLOOR, _SCALE = 0.04, 0.015, 1.0
_ROUNDS = 12


class ResponseModel:
    """Steps behind a window, and the prior; see above.

    Args:
        sharpening: of the prior, see :func:`response_prior`.
    """

    def __init__(self, sharpening: float = 0.0) -> None:
        frequency = torch.tensor(FREQUENCIES, dtype=torch.float64)
        node = nodes()
        place = (torch.arange(_PLACES, dtype=torch.float64) + 0.5) / (2 * _PLACES)
        window = windows(frequency)
        reach = window.shape[1] // 2
        x = torch.arange(-reach, reach + 1, dtype=torch.float64)
        step = (2 * math.pi * place[:, None] * x).sin() / place[:, None]  # (G, 2 R + 1)
        nearness = (1 - (place[:, None] - node).abs() * (2 * (NODES - 1))).clamp(min=0)  # (G, K)
        self._spectra = window @ step.T @ nearness  # (F, K): of a step, by the response at each node
        self._prior = response_prior(_SMOOTH, _REACH, sharpening)

    def solve(self, ratio: Tensor) -> Tensor:
        """The response of a blur, ``(K,)`` float64, above 0, and 1 at the frequency 0.

        Args:
            ratio: ``(F,)``, above 0: amplitudes across blurred edges over those across sharp ones, up to a factor.
        """
        measured = ratio.double().log()
        errors = torch.diag(_ERROR**2 + (_FLOOR / ratio.double()).square()) + _SCALE**2
        sharp = self._spectra.sum(1)
        log_response = torch.zeros(NODES, dtype=torch.float64)
        for _ in range(_ROUNDS):
            response = log_response.exp()
            spectrum = self._spectra @ response
            slope = self._spectra * response / spectrum[:, None]  # (F, K): of log |S| by log H
            rest = measured - (spectrum / sharp).abs().log() + slope @ log_response
            gain = torch.linalg.solve(slope @ self._prior @ slope.T + errors, slope @ self._prior)
            log_response = gain.T @ rest
        return log_response.exp()
