"""A chain of degradations as a batched transform."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from synthpipe.errors import OptionError, ShapeError
from synthpipe.images import check_images
from synthpipe.philox import uniforms_of
from synthpipe.seeds import stream_number
from synthpipe.transforms.base import BatchTransform, DeviceTransform
from synthpipe.transforms.batch import Batch
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.choice import Choice, Sometimes
from synthpipe.transforms.chains.node import Draws, Item, Node, Trace
from synthpipe.transforms.chains.schedule import Schedule
from synthpipe.transforms.chains.stage import Context, Extent, Size

__all__ = ["Chain", "DeviceChain", "HostChain", "make_chain"]

_MOST_THREADS = 8
#: Bytes at multiples of which torch begins tensors.
_ALIGNMENT = 64


class Chain(BatchTransform):
    """Adds ``lq``: ``gt`` through all places of a chain.

    Shapes: ``gt`` ``(B, 3, H, W)`` in [0, 1] -> ``lq`` ``(B, 3, H / scale, W / scale)``; ``seed`` ``(B,)`` int64, and
    ``seen`` ``(B,)`` int64 where a schedule changes with the samples that the stream has read.
    """

    salt = "chain"

    def __init__(self, node: Node, scale: int) -> None:
        self.node = node
        self.scale = scale
        self.needs_seen = any(isinstance(module, Schedule) and module.changes for module in node.modules())
        self._choices = tuple(module for module in node.modules() if isinstance(module, Choice | Sometimes))
        self.has_choices = any(isinstance(module, Choice) for module in self._choices)

    def check(self, batch: Batch) -> None:
        """Refuse what the chain cannot work on; raises :class:`ShapeError`."""
        check_images(batch["gt"], "Chain: gt")
        if len(batch["seed"]) != len(batch["gt"]):
            raise ShapeError(f"Chain: {len(batch['gt'])} images but {len(batch['seed'])} seeds")

    def check_tiles(self, height: int, width: int) -> None:
        """Refuse tiles of a size that a stage cannot take, and a chain that ends with another size than LR.

        Raises:
            OptionError: says which stage, and what to change.
            ShapeError: sides that ``scale`` does not divide.
        """
        size = Size(height, width)
        lr = self._lr(size)
        end = self.node.extent(Extent(size, size), lr)
        if end != Extent(lr, lr):
            raise OptionError(
                f"degrade: the last stage leaves images of {tuple(end.least)} to {tuple(end.most)} pixels of a tile of "
                f"{tuple(size)}; at scale {self.scale} they must have {tuple(lr)}: put {{type: resize, to: lr}} among "
                "the stages"
            )

    def ways(self, seed: Tensor, seen: Tensor) -> Counter[str]:
        """How many samples each way of each choice takes, by ``place/name``; ways that none takes count 0."""
        numbers = self._numbers({node.place: 1 for node in self._choices}, seed)
        draws = {node.place: node.draw_own(numbers, seen.double()) for node in self._choices}
        return Counter(self.node.ways(draws, torch.ones(len(seed), dtype=torch.bool)))

    def draws(self, batch: Batch) -> Draws:
        """Settings by place of each sample, on the device of ``seed``."""
        seeds = batch["seed"]
        if self.needs_seen and "seen" not in batch:
            raise ShapeError("Chain: a schedule needs 'seen', the samples read before each; the batch has none")
        seen = batch["seen"].to(seeds.device) if "seen" in batch else torch.zeros_like(seeds)
        return self.node.draw(self._numbers(self.node.streams(), seeds), seen.double())

    def degrade_each(self, batch: Batch, draws: Draws, trace: Trace | None = None) -> Tensor:
        """``lq``, image by image; ``draws`` are on the CPU."""
        gt = batch["gt"]
        lr, seeds = self._lr(Size(*gt.shape[2:])), batch["seed"].to(gt.device)
        items = []
        for row in range(len(gt)):
            own = {place: {k: v[row : row + 1] for k, v in params.items()} for place, params in draws.items()}
            context = Context(lr, seeds[row : row + 1], "", by_host=gt.device.type == "cpu")
            items.append(Item(row, _aligned(gt[row : row + 1]), own, context, trace))
        with _threads(self.node) as threads:
            self.node.on_items(items, threads)
        return torch.cat([self._checked(item.x, lr) for item in items]) if items else gt.new_empty(0, 3, *lr)

    def to(self, device: torch.device | str) -> Chain:
        """Move the constants and weights of all stages."""
        self.node.to(device)
        return self

    def _numbers(self, counts: Mapping[str, int], seeds: Tensor) -> dict[str, Tensor]:
        """``(B, count)`` float64 in [0, 1) for each place."""
        streams = {place: stream_number(f"{self.salt}/{place}", 0) for place in counts}
        drawn = uniforms_of(seeds, {streams[place]: count for place, count in counts.items()})
        return {place: drawn[stream] for place, stream in streams.items()}

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
        """What each place draws: where its constants are, and handed to the CPU, for it is the host that goes by it."""
        drawn = self.draws({**batch, "seed": batch["seed"].to(batch["gt"].device)})
        return {"draws": {place: {k: v.cpu() for k, v in params.items()} for place, params in drawn.items()}}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        """Check, and add ``lq``."""
        self.check(batch)
        return {**batch, "lq": self.degrade_each(batch, params["draws"])}


def make_chain(node: Node, scale: int) -> DeviceChain | HostChain:
    """The transform for a chain: one for a CUDA graph where it can be."""
    return DeviceChain(node, scale) if node.capturable else HostChain(node, scale)


def _aligned(x: Tensor) -> Tensor:
    """The same numbers where a tensor of its own would lie: sums of products round by an image's place in memory."""
    return x if x.data_ptr() % _ALIGNMENT == 0 else x.clone()


@contextmanager
def _threads(node: Node) -> Iterator[Executor | None]:
    """Threads for the stages that are worth them; None where no stage is."""
    count = min(_MOST_THREADS, os.cpu_count() or 1)
    if count == 1 or not any(step.stage.threaded for step in node.steps()):
        yield None
        return
    with ThreadPoolExecutor(count, "synthpipe-codec") as executor:
        yield executor
