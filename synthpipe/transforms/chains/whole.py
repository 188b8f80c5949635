"""A degradation of its own, reduction included, as one way of a choice."""

from __future__ import annotations

from torch import Tensor, nn

from synthpipe.errors import OptionError
from synthpipe.transforms.base import DeviceTransform
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.stage import Context, Extent, Params, Size, Stage

__all__ = ["WholeDegradation"]


class WholeDegradation(Stage):
    """``lq`` of a transform that is a function of ``gt`` and ``seed`` alone.

    Args:
        transform: makes one ``lq`` of each ``gt``.
        scale: height of ``gt`` over height of ``lq``.
    """

    def __init__(self, transform: DeviceTransform, scale: int) -> None:
        super().__init__()
        self.transform = transform
        self.scale = scale

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """On images of the size of ``gt``, which :meth:`extent` has made sure of."""
        made = self.transform.compute({"gt": canvas.pixels, "seed": context.seeds})
        return Canvas(made["lq"])

    def extent(self, before: Extent, lr: Size) -> Extent:
        """LR; raises :class:`OptionError` for images of another size than ``gt``."""
        gt = Size(lr.height * self.scale, lr.width * self.scale)
        if before != Extent(gt, gt):
            raise OptionError(
                f"degrade: {type(self.transform).__name__} as a block of its own reduces the image, which must still "
                f"have the size of gt, {tuple(gt)}, there; it has {tuple(before.least)} to {tuple(before.most)}.  "
                "Write it as a list of stages to use it at the size at hand"
            )
        return Extent(lr, lr)

    def _apply(self, fn: object, recurse: bool = True) -> WholeDegradation:
        """Moves the transform along, which need be no module."""
        if not isinstance(self.transform, nn.Module):
            probe = fn(Tensor([0.0]))  # type: ignore[operator]
            self.transform.to(probe.device)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
