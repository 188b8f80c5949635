"""Places in a chain: a stage with its probability, stages in a row, a choice between rows, a shuffled row.

Images go through in one of two ways.  As *items*, each image for itself, at its own size: the host knows what each
sample drew and computes no more than that.  On a *canvas*, all of a batch at once in tensor operations alone, so that a
CUDA graph can hold them: what some of the samples drew is computed for all and selected.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.schedule import Schedule
from synthpipe.transforms.chains.stage import Context, Extent, Params, Size, Stage

__all__ = ["APPLIED", "Draws", "Item", "Node", "Row", "Step", "Trace", "union"]

#: What each place of a chain drew, by its name.
Draws = Mapping[str, Params]

#: Told of each stage that was applied: row of the sample, place of the stage, settings, image ``(1, 3, h, w)``.
Trace = Callable[[int, str, Params, Tensor], None]

#: Name of the setting that says whether a stage is applied; only where its probability is below 1.
APPLIED = "applied"


@dataclass
class Item:
    """One image on its way.

    Args:
        row: of the sample in its batch.
        x: ``(1, C, h, w)``.
        draws: of this sample, on the CPU.
        context: of this sample; ``place`` is each stage's own.
        trace: told of each stage that was applied, and what it made; None: nobody.
    """

    row: int
    x: Tensor
    draws: Draws
    context: Context
    trace: Trace | None = None


class Node(nn.Module, ABC):
    """A place in a chain."""

    @abstractmethod
    def streams(self) -> dict[str, int]:
        """How many uniform numbers each place takes, by its name."""

    @abstractmethod
    def draw(self, numbers: Mapping[str, Tensor], seen: Tensor) -> Draws:
        """Settings by place.

        Args:
            numbers: ``(B, count)`` float64 by place.
            seen: ``(B,)`` float64, the samples that the stream had read before each.
        """

    @abstractmethod
    def on_items(self, items: Sequence[Item], threads: Executor | None) -> None:
        """Replace ``x`` of each item."""

    @abstractmethod
    def on_canvas(self, canvas: Canvas, draws: Draws, context: Context) -> Canvas:
        """All images of a batch; only where :attr:`capturable`."""

    @abstractmethod
    def extent(self, before: Extent, lr: Size) -> Extent:
        """As :meth:`Stage.extent`."""

    @abstractmethod
    def ways(self, draws: Draws, reached: Tensor) -> dict[str, int]:
        """How many samples take each way of the choices at and below this place.

        Args:
            draws: of the choices at least.
            reached: ``(B,)`` bool: which samples come here.
        """

    @abstractmethod
    def steps(self) -> Iterable[Step]:
        """All steps at and below this place."""

    @property
    @abstractmethod
    def capturable(self) -> bool:
        """Whether :meth:`on_canvas` works, in tensor operations alone."""


class Step(Node):
    """A stage, applied to each sample with its probability.

    Args:
        stage: the operation.
        place: its name in the chain.
        probability: of being applied.
    """

    def __init__(self, stage: Stage, place: str, probability: Schedule) -> None:
        super().__init__()
        self.stage = stage
        self.place = place
        self.probability = probability

    @property
    def capturable(self) -> bool:
        """As the stage."""
        return self.stage.capturable

    def streams(self) -> dict[str, int]:
        """The first number decides whether the stage is applied, whatever the probability."""
        return {self.place: 1 + self.stage.numbers}

    def draw(self, numbers: Mapping[str, Tensor], seen: Tensor) -> Draws:
        """Of the stage, and whether it is applied."""
        u = numbers[self.place]
        params = dict(self.stage.draw(u[:, 1:]))
        if not self.probability.always_one:
            params[APPLIED] = u[:, 0] < self.probability(seen)
        return {self.place: params}

    def on_items(self, items: Sequence[Item], threads: Executor | None) -> None:
        """Those whose draw says so; in threads where the stage is worth it."""
        chosen = [item for item in items if self._applies(item)]
        spread = threads is not None and self.stage.threaded and len(chosen) > 1
        made = threads.map(self._made, chosen) if spread and threads is not None else map(self._made, chosen)
        for item, x in zip(chosen, made, strict=True):
            item.x = x
            if item.trace is not None:
                item.trace(item.row, self.place, item.draws[self.place], x)

    def on_canvas(self, canvas: Canvas, draws: Draws, context: Context) -> Canvas:
        """All samples; those whose draw says so keep the result."""
        params = draws[self.place]
        applied = params.get(APPLIED)
        after = self.stage.on_canvas(canvas, params, replace(context, place=self.place))
        return after if applied is None else after.where(applied, canvas)

    def extent(self, before: Extent, lr: Size) -> Extent:
        """Of both, where the stage may be left out."""
        after = self.stage.extent(before, lr)
        return after if self.probability.always_one else union([before, after])

    def ways(self, draws: Draws, reached: Tensor) -> dict[str, int]:
        """None."""
        return {}

    def steps(self) -> Iterable[Step]:
        """Itself."""
        return [self]

    def _applies(self, item: Item) -> bool:
        applied = item.draws[self.place].get(APPLIED)
        return applied is None or bool(applied)

    def _made(self, item: Item) -> Tensor:
        # Gradient mode is each thread's own.
        with torch.no_grad():
            return self.stage.on_image(item.x, item.draws[self.place], replace(item.context, place=self.place))


class Row(Node):
    """One place after the other."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        super().__init__()
        self.nodes = nn.ModuleList(nodes)

    @property
    def capturable(self) -> bool:
        """Where all are."""
        return all(node.capturable for node in self._all())

    def streams(self) -> dict[str, int]:
        """Of all."""
        return {place: count for node in self._all() for place, count in node.streams().items()}

    def draw(self, numbers: Mapping[str, Tensor], seen: Tensor) -> Draws:
        """Of all."""
        return {place: params for node in self._all() for place, params in node.draw(numbers, seen).items()}

    def on_items(self, items: Sequence[Item], threads: Executor | None) -> None:
        """All items through one place, then through the next."""
        for node in self._all():
            node.on_items(items, threads)

    def on_canvas(self, canvas: Canvas, draws: Draws, context: Context) -> Canvas:
        """Through all."""
        for node in self._all():
            canvas = node.on_canvas(canvas, draws, context)
        return canvas

    def extent(self, before: Extent, lr: Size) -> Extent:
        """Behind the last."""
        for node in self._all():
            before = node.extent(before, lr)
        return before

    def ways(self, draws: Draws, reached: Tensor) -> dict[str, int]:
        """Of all."""
        return {way: count for node in self._all() for way, count in node.ways(draws, reached).items()}

    def steps(self) -> Iterable[Step]:
        """Of all, in order."""
        return [step for node in self._all() for step in node.steps()]

    def places(self) -> list[Node]:
        """What stands in the row."""
        return self._all()

    def _all(self) -> list[Node]:
        return [node for node in self.nodes if isinstance(node, Node)]


def union(extents: Sequence[Extent]) -> Extent:
    """What holds all of them."""
    least = Size(min(e.least.height for e in extents), min(e.least.width for e in extents))
    return Extent(least, Size(max(e.most.height for e in extents), max(e.most.width for e in extents)))
