"""A scorer that tells kinds of degradation apart: noise, blur, compression, enlargement, patterns, graphics."""

from synthpipe.density.kinds.scorer import KINDS, KindScorer, probability_column

__all__ = ["KINDS", "KindScorer", "probability_column"]
