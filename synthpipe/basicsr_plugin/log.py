"""What synthpipe's modules log, in the log of a BasicSR run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["OURS", "shown_in_basicsr_log"]

#: The logger above those of all modules.
OURS = "synthpipe"


@contextmanager
def shown_in_basicsr_log(ours: str = OURS, theirs: str = "basicsr") -> Iterator[None]:
    """Give BasicSR's handlers, which have to be there, to our loggers: which images were skipped, damaged shards.

    Readers that are forked inherit them; others keep Python's default, warnings on the error stream.  Ranks after the
    first, whose BasicSR says errors alone, say warnings, too: each of them reads shards of its own.
    """
    logger, source = logging.getLogger(ours), logging.getLogger(theirs)
    before, added = logger.level, [handler for handler in source.handlers if handler not in logger.handlers]
    logger.setLevel(min(source.getEffectiveLevel(), logging.WARNING))
    for handler in added:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in added:
            logger.removeHandler(handler)
        logger.setLevel(before)
