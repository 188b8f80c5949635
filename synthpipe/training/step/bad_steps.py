"""Steps whose loss or gradient is not finite: counted, told of, and too many in a row end the run."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from synthpipe.errors import TrainingError, counted

__all__ = ["BadSteps", "is_bad"]

logger = logging.getLogger("synthpipe.training")


def is_bad(loss: Tensor, norm: Tensor) -> Tensor:
    """1 where the loss or the gradient's norm, both scalars, is not finite, else 0; float32, on their device."""
    return 1 - (torch.isfinite(loss) & torch.isfinite(norm)).float()


class BadSteps:
    """Looks at each step when the next one has been given to the device, so that the device never waits.

    Args:
        most: in a row that are allowed.
    """

    def __init__(self, most: int) -> None:
        self.in_a_row = 0
        self.in_all = 0
        self._most = most
        self._pending: tuple[int, Tensor, torch.cuda.Event | None] | None = None

    def add(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Look at the step before, then keep loss and gradient norm of the ``step``-th, scalars, for later.

        Raises:
            TrainingError: as :meth:`settle`.
        """
        self.settle()
        values, event = torch.stack([loss.detach().float(), norm.detach().float()]), None
        if values.is_cuda:
            host = torch.empty(2, pin_memory=True)
            host.copy_(values, non_blocking=True)
            values, event = host, torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._pending = (step, values, event)

    def settle(self) -> None:
        """Look at the last step: before a line in the log, a checkpoint, the end.

        Raises:
            TrainingError: too many in a row.
        """
        if self._pending is None:
            return
        (step, values, event), self._pending = self._pending, None
        if event is not None:
            event.synchronize()
        loss, norm = values.tolist()
        if math.isfinite(loss) and math.isfinite(norm):
            self.in_a_row = 0
            return
        self.in_a_row += 1
        self.in_all += 1
        logger.warning("step %d skipped: loss %g, gradient norm %g", step, loss, norm)
        if self.in_a_row > self._most:
            raise TrainingError(
                f"{counted(self.in_a_row, 'step')} in a row gave a loss or gradient that is not finite, at most "
                f"max_bad_steps={self._most} are allowed (step {step}, loss {loss:g}, gradient norm {norm:g}); "
                "lower optimizer.lr, set clip_norm, or raise the model's scale_eps"
            )
