"""Denoisers that are learnt without clean/noisy pairs, and what is made with them."""

from synthpipe.denoisers.base import Denoiser
from synthpipe.denoisers.blind_spot import BlindSpotDenoiser
from synthpipe.denoisers.flow_prior import FlowPriorDenoiser
from synthpipe.denoisers.map_denoiser import MapDenoiser
from synthpipe.denoisers.plain import PlainDenoiser
from synthpipe.denoisers.plug_and_play import Problem, restore

__all__ = ["BlindSpotDenoiser", "Denoiser", "FlowPriorDenoiser", "MapDenoiser", "PlainDenoiser", "Problem", "restore"]
