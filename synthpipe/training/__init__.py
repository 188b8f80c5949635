"""Training: one loop (``loop.py``), one small file per objective, one source of unpaired batches."""

from synthpipe.training.build import train

__all__ = ["train"]
