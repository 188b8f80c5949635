"""The contract of a chain's stages: one operation on images, with settings that each sample draws for itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from synthpipe import philox
from synthpipe.seeds import stream_number
from synthpipe.transforms.chains import host_fields
from synthpipe.transforms.chains.canvas import Canvas

__all__ = ["Context", "Extent", "Params", "Size", "Stage"]

#: What a stage drew: by name ``(B, ...)``; names and values are what ``synthpipe explain`` prints.
Params = Mapping[str, Tensor]


class Size(NamedTuple):
    """Pixels."""

    height: int
    width: int


class Extent(NamedTuple):
    """Smallest and largest size that images can have at a place in a chain."""

    least: Size
    most: Size


@dataclass(frozen=True)
class Context:
    """What a stage knows of its images beside their pixels.

    Args:
        lr: the size that images leave the chain with.
        seeds: ``(B,)`` int64, on the device of the images.
        place: of the stage in its chain: no two share random numbers.
        by_host: images go through one by one on the CPU, where NumPy makes numbers of each pixel faster.
    """

    lr: Size
    seeds: Tensor
    place: str
    by_host: bool = False

    def normals(self, channels: int, height: int, width: int, purpose: int = 0) -> Tensor:
        """Standard normal numbers ``(B, channels, height, width)`` float32.

        Each is a function of seed, place in the chain, ``purpose``, channel, row and column: a larger field holds a
        smaller one in its top left, so that a sample's noise does not depend on the canvas it lies on.
        """
        fields = host_fields.normal_fields if self.by_host else philox.normal_fields
        return fields(self.seeds, stream_number(self.place, purpose), channels, height, width)

    def uniforms(self, channels: int, height: int, width: int, purpose: int = 0) -> Tensor:
        """From the uniform law on [0, 1), as :meth:`normals`."""
        fields = host_fields.uniform_fields if self.by_host else philox.uniform_fields
        return fields(self.seeds, stream_number(self.place, purpose), channels, height, width)


class Stage(nn.Module, ABC):
    """One operation of a chain.

    A stage MUST

    * draw all settings in :meth:`draw`, from the numbers it is given, and all that it draws for each pixel from the
      context; a sample's result depends on no other sample;
    * give the same image from :meth:`on_canvas` and from :meth:`on_image`, within 2 of 255 (a codec's rounding), and
      leave what lies beyond an image finite where the image is;
    * keep to the contract of :class:`synthpipe.transforms.DeviceTransform` in :meth:`draw` and :meth:`on_canvas` where
      it is :attr:`capturable`: it asks the device for no value, makes no tensor of the host's data (constants are
      buffers), and edits no tensor that it was given;
    * say what it does to places: with :attr:`aligned`, content stays where it was, to 1/100 of a pixel of ``gt``.
    """

    #: Numbers from the uniform law on [0, 1) that :meth:`draw` takes for each sample.
    numbers: int = 0
    #: Whether :meth:`on_canvas` is tensor operations alone.
    capturable: bool = True
    #: Whether content keeps its place.
    aligned: bool = True
    #: Whether :meth:`on_image` leaves the interpreter free for long, so that it is worth a thread.
    threaded: ClassVar[bool] = False
    #: By setting: what its whole numbers, from 0, stand for; for people who read what was drawn.
    words: ClassVar[Mapping[str, Sequence[str]]] = {}

    def draw(self, u: Tensor) -> Params:
        """Settings of each sample.

        Args:
            u: ``(B, numbers)`` float64 in [0, 1).

        Returns:
            By name, ``(B, ...)``; empty by default.
        """
        return {}

    def unused(self, drawn: Mapping[str, Any]) -> Collection[str]:
        """Names of settings that have no part in what a sample gets; people who read what was drawn are spared them.

        Args:
            drawn: of one sample, by name, with :attr:`words` in the place of their numbers.
        """
        return ()

    @abstractmethod
    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """The operation on a batch, on any device."""

    def on_image(self, x: Tensor, params: Params, context: Context) -> Tensor:
        """The operation on one image; here the host may be asked.  By default :meth:`on_canvas`.

        Args:
            x: ``(1, C, h, w)`` float32, on any device.
            params: of this sample, ``(1, ...)``, on the CPU.
            context: of this sample.
        """
        settings = {name: value.to(x.device) for name, value in params.items()}
        return self.on_canvas(Canvas(x), settings, context).pixels

    def extent(self, before: Extent, lr: Size) -> Extent:
        """Sizes behind the stage, from those before it.

        Raises:
            OptionError: images that it cannot take.
        """
        return before
