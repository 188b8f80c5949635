"""Chains of degradations: stages in a row, choices between rows, shuffled rows."""

from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.chain import Chain, DeviceChain, HostChain, make_chain
from synthpipe.transforms.chains.stage import Context, Extent, Params, Size, Stage

__all__ = ["Canvas", "Chain", "Context", "DeviceChain", "Extent", "HostChain", "Params", "Size", "Stage", "make_chain"]
