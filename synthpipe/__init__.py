"""synthpipe: learned degradations as a streaming transform for super-resolution training."""

from synthpipe._version import __version__

__all__ = ["__version__"]
