"""How reader processes start, so that none inherits CUDA.

A forked copy of a process that has used CUDA dies as soon as it lets go of a CUDA object, used or not.  Readers are
therefore forked from a server, a small process of ``multiprocessing`` that has imported what readers need and has never
touched a device.
"""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver

import torch

from synthpipe.errors import StreamError
from synthpipe.shards.parent_watch import end_with_parent

__all__ = ["dead_reader", "prepare_reader", "reader_start_method"]

#: What the server imports once, instead of every reader for itself: torch, the decoders, the reader.
_PRELOADED = ["synthpipe.pipeline.nodes"]
_PYTHONS_OWN = ["__main__"]


def reader_start_method(given: str | None, device: torch.device) -> str | None:
    """The start method for readers: as given, else one without CUDA where CUDA is in use, else None, the platform's.

    Args:
        given: ``"fork"``, ``"spawn"``, ``"forkserver"``, or None to choose.
        device: of the stream.  A process that has used CUDA elsewhere is no better to copy than one that will.
    """
    method = given
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if given is None and (device.type != "cpu" or used):
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    if method == "forkserver":
        _preload()
    return method


def prepare_reader(_number: int) -> None:
    """Called in each reader: one that a server forked must look after its end itself.

    The loader's workers end when the process above them changes.  That is the server, which lives as long as its
    readers do: after a kill of the training run they would keep each other alive for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():
        end_with_parent()


def dead_reader(error: Exception, start_method: str | None) -> StreamError:
    """What to tell a user whose readers ended while they started.

    Args:
        error: what the loader said of it.
        start_method: how the readers were started.
    """
    message = f"a reader process ended while it started ({type(error).__name__}: {error})"
    if start_method in ("spawn", "forkserver"):
        default = ", the default with a CUDA device," if start_method == "forkserver" else ""
        message += (
            f"; with start_method '{start_method}'{default} each reader imports the script that was started, which "
            'must therefore begin its work below a line `if __name__ == "__main__":`; put one there, or set workers: 0'
        )
    return StreamError(message)


def _preload() -> None:
    """Let a server that is yet to start import what readers need; one that runs is not changed.

    The list belongs to the whole process, so one that the caller has set stays.  Python's own names the script; what
    that may do with CUDA when it is imported has no place in a server.
    """
    server = getattr(forkserver, "_forkserver", None)
    if getattr(server, "_preload_modules", _PYTHONS_OWN) == _PYTHONS_OWN:
        multiprocessing.set_forkserver_preload(_PRELOADED)
