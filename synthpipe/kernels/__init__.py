"""Learned blur: kernels of a degraded pile relative to a clean one, estimated without pairs."""

from synthpipe.kernels.bank import KernelBank

__all__ = ["KernelBank"]
