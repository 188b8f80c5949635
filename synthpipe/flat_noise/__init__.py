"""The noise of photographs without references, from their flat areas."""

from synthpipe.flat_noise.estimate import NoiseEstimate, estimate_noise
from synthpipe.flat_noise.measure import LAGS, NODES, FlatNoise, measure_flat_noise, noise_level

__all__ = ["LAGS", "NODES", "FlatNoise", "NoiseEstimate", "estimate_noise", "measure_flat_noise", "noise_level"]
