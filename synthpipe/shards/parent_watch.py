"""Worker processes that end with the process that made them, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing import connection

__all__ = ["end_with_parent"]


def end_with_parent() -> None:
    """From now on this worker process ends when the one that started it has ended, a kill included."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        """End this process as soon as the parent has ended."""
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
