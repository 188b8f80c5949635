"""Denoising density estimators: the density of images and points, and what follows from it."""

from synthpipe.density.base import DensityEstimator, dde_loss
from synthpipe.density.dde import DDE
from synthpipe.density.dde_generator import DDEGenerator
from synthpipe.density.kinds import KindScorer
from synthpipe.density.scorer import DensityScorer
from synthpipe.density.vector import VectorDDE

__all__ = ["DDE", "DDEGenerator", "DensityEstimator", "DensityScorer", "KindScorer", "VectorDDE", "dde_loss"]
