"""Places in a chain where samples go different ways: a choice between rows, and a row in a shuffled order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor

import torch
from torch import Tensor, nn

from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.node import APPLIED, Draws, Item, Node, Row, Step, union
from synthpipe.transforms.chains.schedule import Schedule
from synthpipe.transforms.chains.stage import Context, Extent, Params, Size

__all__ = ["CHOSEN", "Choice", "Shuffle", "Sometimes"]

#: What a choice drew.
CHOSEN = "chosen"


class Choice(Node):
    """Each sample goes through one of several rows.

    Args:
        rows: may be empty rows, which leave an image as it is.
        weights: how often each is taken, in proportion to their sum; never all 0.
        place: its name in the chain.
        names: of the rows; None: 1, 2, ...
    """

    def __init__(
        self, rows: Sequence[Row], weights: Sequence[Schedule], place: str, names: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.names = tuple(names) if names else tuple(str(number + 1) for number in range(len(rows)))
        self.rows = nn.ModuleList(rows)
        self.weights = nn.ModuleList(weights)
        self.place = place

    @property
    def capturable(self) -> bool:
        """Where all rows are."""
        return all(row.capturable for row in self._rows())

    def streams(self) -> dict[str, int]:
        """One number for the choice, and those of all rows."""
        below = {place: count for row in self._rows() for place, count in row.streams().items()}
        return {self.place: 1, **below}

    def draw(self, numbers: Mapping[str, Tensor], seen: Tensor) -> Draws:
        """Its own, and what all rows draw, taken or not."""
        below = {place: params for row in self._rows() for place, params in row.draw(numbers, seen).items()}
        return {self.place: self.draw_own(numbers, seen), **below}

    def draw_own(self, numbers: Mapping[str, Tensor], seen: Tensor) -> Params:
        """``chosen``, the number of the row."""
        weights = torch.stack([weight(seen) for weight in self.weights])  # (rows, B)
        edges = weights.cumsum(0) / weights.sum(0)
        # The last edge is 1 up to rounding, and rows of weight 0 behind it are never reached.
        chosen = (numbers[self.place][:, 0] >= edges).sum(0)
        possible = torch.where(weights > 0, torch.arange(len(weights), device=seen.device)[:, None], 0)
        return {CHOSEN: torch.minimum(chosen, possible.amax(0))}

    def ways(self, draws: Draws, reached: Tensor) -> dict[str, int]:
        """Its own, each before those below it."""
        counts = {}
        for number, (row, name) in enumerate(zip(self._rows(), self.names, strict=True)):
            here = reached & (draws[self.place][CHOSEN] == number)
            counts.update({f"{self.place}/{name}": int(here.sum()), **row.ways(draws, here)})
        return counts

    def on_items(self, items: Sequence[Item], threads: Executor | None) -> None:
        """Each through its own row."""
        chosen = [int(item.draws[self.place][CHOSEN]) for item in items]
        for number, row in enumerate(self._rows()):
            row.on_items([item for item, choice in zip(items, chosen, strict=True) if choice == number], threads)

    def on_canvas(self, canvas: Canvas, draws: Draws, context: Context) -> Canvas:
        """All through all rows."""
        chosen = draws[self.place][CHOSEN]
        first, *others = self._rows()
        result = first.on_canvas(canvas, draws, context)
        for number, row in enumerate(others, 1):
            result = row.on_canvas(canvas, draws, context).where(chosen == number, result)
        return result

    def extent(self, before: Extent, lr: Size) -> Extent:
        """Of all rows."""
        return union([row.extent(before, lr) for row in self._rows()])

    def steps(self) -> Iterable[Step]:
        """Of all rows."""
        return [step for row in self._rows() for step in row.steps()]

    def _rows(self) -> list[Row]:
        return [row for row in self.rows if isinstance(row, Row)]


class Shuffle(Node):
    """Places that each sample goes through in an order of its own; image by image alone.

    Args:
        nodes: the places.
        place: its name in the chain.
        in_order: numbers of places that keep this order among themselves.
    """

    def __init__(self, nodes: Sequence[Node], place: str, in_order: Sequence[int] = ()) -> None:
        super().__init__()
        self.nodes = nn.ModuleList(nodes)
        self.place = place
        self.in_order = tuple(in_order)

    @property
    def capturable(self) -> bool:
        """Never: on a canvas each place would have to be computed at each position."""
        return False

    def streams(self) -> dict[str, int]:
        """A number for each place, which sorts them, and their own."""
        below = {place: count for node in self._all() for place, count in node.streams().items()}
        return {self.place: len(self.nodes), **below}

    def draw(self, numbers: Mapping[str, Tensor], seen: Tensor) -> Draws:
        """``order`` ``(B, places)``: which place comes first, second, and so on."""
        keys = numbers[self.place].clone()
        if self.in_order:
            kept = list(self.in_order)
            keys[:, kept] = keys[:, kept].sort(1).values
        drawn = {self.place: {"order": keys.argsort(1)}}
        below = {place: params for node in self._all() for place, params in node.draw(numbers, seen).items()}
        return {**drawn, **below}

    def on_items(self, items: Sequence[Item], threads: Executor | None) -> None:
        """Items at the same position that go through the same place go together."""
        nodes = self._all()
        orders = [item.draws[self.place]["order"][0].tolist() for item in items]
        for position in range(len(nodes)):
            for number, node in enumerate(nodes):
                node.on_items([i for i, o in zip(items, orders, strict=True) if o[position] == number], threads)

    def on_canvas(self, canvas: Canvas, draws: Draws, context: Context) -> Canvas:
        """Not possible."""
        raise NotImplementedError("a shuffled row works image by image")

    def extent(self, before: Extent, lr: Size) -> Extent:
        """Of all orders: behind each set of places, whatever the order in it."""
        nodes = self._all()
        behind: dict[frozenset[int], set[Extent]] = {frozenset(): {before}}
        for _ in nodes:
            longer: dict[frozenset[int], set[Extent]] = {}
            for passed, extents in behind.items():
                for number in set(range(len(nodes))) - passed:
                    if self._may_follow(number, passed):
                        made = {nodes[number].extent(extent, lr) for extent in extents}
                        longer.setdefault(passed | {number}, set()).update(made)
            behind = longer
        return union([extent for extents in behind.values() for extent in extents])

    def ways(self, draws: Draws, reached: Tensor) -> dict[str, int]:
        """Of all places."""
        return {way: count for node in self._all() for way, count in node.ways(draws, reached).items()}

    def steps(self) -> Iterable[Step]:
        """Of all places."""
        return [step for node in self._all() for step in node.steps()]

    def _may_follow(self, number: int, passed: frozenset[int]) -> bool:
        """Whether a place can come next: of those in order, all before it have been passed."""
        return number not in self.in_order or passed.issuperset(self.in_order[: self.in_order.index(number)])

    def _all(self) -> list[Node]:
        return [node for node in self.nodes if isinstance(node, Node)]


class Sometimes(Node):
    """A choice or a shuffled row that is gone through with a probability.

    Args:
        node: what may be gone through.
        place: its name in the chain.
        probability: of going through it.
    """

    def __init__(self, node: Node, place: str, probability: Schedule) -> None:
        super().__init__()
        self.node = node
        self.place = f"{place}?"
        self.probability = probability

    @property
    def capturable(self) -> bool:
        """As what may be gone through."""
        return self.node.capturable

    def streams(self) -> dict[str, int]:
        """One number more."""
        return {self.place: 1, **self.node.streams()}

    def draw(self, numbers: Mapping[str, Tensor], seen: Tensor) -> Draws:
        """Whether it is gone through, and what is drawn there."""
        return {self.place: self.draw_own(numbers, seen), **self.node.draw(numbers, seen)}

    def draw_own(self, numbers: Mapping[str, Tensor], seen: Tensor) -> Params:
        """Whether it is gone through."""
        return {APPLIED: numbers[self.place][:, 0] < self.probability(seen)}

    def ways(self, draws: Draws, reached: Tensor) -> dict[str, int]:
        """Of those that go through it."""
        return self.node.ways(draws, reached & draws[self.place][APPLIED])

    def on_items(self, items: Sequence[Item], threads: Executor | None) -> None:
        """Those whose draw says so."""
        self.node.on_items([item for item in items if bool(item.draws[self.place][APPLIED])], threads)

    def on_canvas(self, canvas: Canvas, draws: Draws, context: Context) -> Canvas:
        """All; those whose draw says so keep the result."""
        return self.node.on_canvas(canvas, draws, context).where(draws[self.place][APPLIED], canvas)

    def extent(self, before: Extent, lr: Size) -> Extent:
        """Of both."""
        return union([self.node.extent(before, lr), before])

    def steps(self) -> Iterable[Step]:
        """Of what may be gone through."""
        return self.node.steps()
