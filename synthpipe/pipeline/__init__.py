"""Batches on the device from shards: the stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synthpipe.pipeline.build import build_stream
    from synthpipe.pipeline.stream import Stream

__all__ = ["Stream", "build_stream"]


def __getattr__(name: str) -> Any:
    # On first use, so that the processes which only write shards need not load torch.
    if name == "build_stream":
        from synthpipe.pipeline.build import build_stream

        return build_stream
    if name == "Stream":
        from synthpipe.pipeline.stream import Stream

        return Stream
    raise AttributeError(f"module 'synthpipe.pipeline' has no attribute {name!r}; known: {', '.join(__all__)}")
