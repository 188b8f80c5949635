"""A chain of degradations as a batched transform."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.images import check_images
from synthpipe.philox import uniforms_of
from synthpipe.seeds import stream_number
from synthpipe.transforms.base import BatchTransform, DeviceTransform
from synthpipe.transforms.batch import Batch
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.node import Draws, Item, Node
from synthpipe.transforms.chains.stage import Context, Extent, Params, Size

__all__ = ["Chain", "DeviceChain", "HostChain", "make_chain"]

_MOST_THREADS = 8

#: Told of each stage that was applied: row of the sample, place of the stage, settings, image ``(1, 3, h, w)``.
Trace = Callable[[int, str, Params, Tensor], None]


class Chain(BatchTransform):
    """Adds ``lq``: ``gt`` through all places of a chain.

    Shapes: ``gt`` ``(B, 3, H, W)`` in [0, 1] -> ``lq`` ``(B, 3, H / scale, W / scale)``; ``seed`` ``(B,)`` int64, and
    ``seen`` ``(B,)`` int64 where a schedule changes with the samples that the stream has read.
    """

    salt = "chain"

    def __init__(self, node: Node, scale: int) -> None:
        self.node = node
        self.scale = scale

    @property
    def needs_seen(self) -> bool:
        """Whether draws change with the samples seen."""
        return any(changes_with_seen(module) for module in self.node.modules())

    def check(self, batch: Batch) -> None:
        """Refuse what the chain cannot work on; raises :class:`ShapeError`."""
        check_images(batch["gt"], "Chain: gt")
        if len(batch["seed"]) != len(batch["gt"]):
            raise ShapeError(f"Chain: {len(batch['gt'])} images but {len(batch['seed'])} seeds")

    def check_size(self, size: Size) -> None:
        """Refuse tiles of a size that a stage cannot take.

        Raises:
            OptionError: says which stage, and what to change.
            ShapeError: sides that ``scale`` does not divide.
        """
        self.node.extent(Extent(size, size), self._lr(size))

    def draws(self, batch: Batch) -> Draws:
        """Settings by place of each sample, on the device of ``seed``."""
        seeds = batch["seed"]
        streams = {place: stream_number(f"{self.salt}/{place}", 0) for place in self.node.streams()}
        counts = {streams[place]: count for place, count in self.node.streams().items()}
        drawn = uniforms_of(seeds, counts)
        if self.needs_seen and "seen" not in batch:
            raise ShapeError("Chain: a schedule needs 'seen', the samples read before each; the batch has none")
        seen = batch["seen"].to(seeds.device) if "seen" in batch else torch.zeros_like(seeds)
        return self.node.draw({place: drawn[stream] for place, stream in streams.items()}, seen.double())

    def degrade_each(self, batch: Batch, draws: Draws, trace: Trace | None = None) -> Tensor:
        """``lq``, image by image; ``draws`` are on the CPU."""
        gt = batch["gt"]
        lr, seeds = self._lr(Size(*gt.shape[2:])), batch["seed"].to(gt.device)
        items = []
        for row in range(len(gt)):
            own = {place: {k: v[row : row + 1] for k, v in params.items()} for place, params in draws.items()}
            context = Context(lr, seeds[row : row + 1], "")
            items.append(Item(row, gt[row : row + 1], own, context, trace))
        with _threads(self.node) as threads:
            self.node.on_items(items, threads)
        return torch.cat([self._checked(item.x, lr) for item in items]) if items else gt.new_empty(0, 3, *lr)

    def to(self, device: torch.device | str) -> Chain:
        """Move the constants and weights of all stages."""
        self.node.to(device)
        return self

    def _lr(self, size: Size) -> Size:
        if size.height % self.scale or size.width % self.scale:
            raise ShapeError(
                f"Chain: gt of {size.height}x{size.width}: sides must be multiples of the scale {self.scale}"
            )
        return Size(size.height // self.scale, size.width // self.scale)

    @staticmethod
    def _checked(x: Tensor, lr: Size) -> Tensor:
        if tuple(x.shape[2:]) != lr:
            raise ShapeError(f"Chain: the last stage gave {tuple(x.shape[2:])}, expected the LR size {tuple(lr)}")
        return x


class DeviceChain(Chain, DeviceTransform):
    """A chain of tensor operations alone.

    Args:
        node: all of it.
        scale: height of ``gt`` over height of ``lq``.
        canvas: whether a batch goes through at once, as it does on an accelerator; None: as the device is.
    """

    def __init__(self, node: Node, scale: int, canvas: bool | None = None) -> None:
        super().__init__(node, scale)
        self._canvas = canvas

    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add ``lq``."""
        on_canvas = batch["gt"].device.type != "cpu" if self._canvas is None else self._canvas
        if not on_canvas:
            return {**batch, "lq": self.degrade_each(batch, self.draws(batch))}
        gt = batch["gt"]
        lr = self._lr(Size(*gt.shape[2:]))
        result = self.node.on_canvas(Canvas(gt), self.draws(batch), Context(lr, batch["seed"], ""))
        return {**batch, "lq": self._checked(result.pixels, lr)}


class HostChain(Chain):
    """A chain with a stage that needs the host (a codec), or in an order of each sample's own: image by image."""

    def sample_params(self, batch: Batch) -> dict[str, Any]:
        """What each place draws, on the CPU: it is the host that goes by it."""
        seen = {"seen": batch["seen"].cpu()} if "seen" in batch else {}
        return {"draws": self.draws({"seed": batch["seed"].cpu(), **seen})}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        """Check, and add ``lq``."""
        self.check(batch)
        return {**batch, "lq": self.degrade_each(batch, params["draws"])}


def make_chain(node: Node, scale: int) -> DeviceChain | HostChain:
    """The transform for a chain: one for a CUDA graph where it can be."""
    return DeviceChain(node, scale) if node.capturable else HostChain(node, scale)


def changes_with_seen(module: object) -> bool:
    """Whether this is a schedule with more than one value."""
    return bool(getattr(module, "changes", False))


@contextmanager
def _threads(node: Node) -> Iterator[Executor | None]:
    """Threads for the stages that are worth them; None where no stage is."""
    count = min(_MOST_THREADS, os.cpu_count() or 1)
    if count == 1 or not any(step.stage.threaded for step in node.steps()):
        yield None
        return
    with ThreadPoolExecutor(count, "synthpipe-codec") as executor:
        yield executor
