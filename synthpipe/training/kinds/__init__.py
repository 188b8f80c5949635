"""Fitting a scorer that tells kinds of degradation apart, on mixtures of them."""

from synthpipe.training.kinds.calibrate import fit_kinds
from synthpipe.training.kinds.mixtures import Mixture, draw_mixture

__all__ = ["Mixture", "draw_mixture", "fit_kinds"]
