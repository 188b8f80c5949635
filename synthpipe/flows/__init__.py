"""Normalizing flows: layers, conditioning networks, domain shifts, and the models made of them."""

from synthpipe.flows.deflow import CLEAN, NOISY, DeFlow, bits_per_dim
from synthpipe.flows.frozen import FrozenDeFlow
from synthpipe.flows.glow import Glow

__all__ = ["CLEAN", "NOISY", "DeFlow", "FrozenDeFlow", "Glow", "bits_per_dim"]
