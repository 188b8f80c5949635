"""What a chain does to one sample, place by place, for people to read and to look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from synthpipe.transforms.batch import Batch
from synthpipe.transforms.chains.chain import Chain
from synthpipe.transforms.chains.choice import CHOSEN, Choice, Shuffle, Sometimes
from synthpipe.transforms.chains.node import APPLIED, Draws, Node, Row, Step
from synthpipe.transforms.chains.stage import Params, Size, Stage

__all__ = ["PlaceNote", "Way", "degrade_traced", "forced", "readable", "ways_of"]

#: Numbers of a setting that are read one by one.
_MOST_NUMBERS = 16


@dataclass(frozen=True)
class PlaceNote:
    """A place of a chain and what one sample drew there.

    Args:
        place: its name; of a choice and a shuffled row, too.
        applied: whether the sample goes through it.
        settings: numbers, words, or lists of them, by name; empty where it is not applied.
        image: behind the place ``(1, 3, h, w)``; None where nothing was done to one.
    """

    place: str
    applied: bool
    settings: dict[str, Any]
    image: Tensor | None = None

    @property
    def size(self) -> Size | None:
        """Of the image."""
        return None if self.image is None else Size(*self.image.shape[2:])


@dataclass(frozen=True)
class Way:
    """A way of a chain's choice, ``choice/mild``, and what to draw for it."""

    name: str
    chosen: dict[str, int]
    applied: tuple[str, ...] = ()


def degrade_traced(chain: Chain, batch: Batch) -> tuple[Tensor, list[PlaceNote]]:
    """``lq`` ``(1, 3, h, w)`` of one sample, as the chain makes it image by image, and what it went through, in order.

    Places that the sample's choices lead past are not among the notes.

    Args:
        chain: on the device of ``gt``.
        batch: ``gt`` ``(1, 3, H, W)``, ``seed`` ``(1,)`` int64 and, where a schedule needs it, ``seen``.
    """
    draws = chain.draws({key: value.cpu() for key, value in batch.items() if key in ("seed", "seen")})
    made: dict[str, Tensor] = {}

    def trace(row: int, place: str, params: Params, image: Tensor) -> None:
        """Keep what each stage made."""
        made[place] = image

    lq = chain.degrade_each(batch, draws, trace)
    return lq, list(_notes(chain.node, draws, made))


def readable(stage: Stage, params: Params, row: int = 0) -> dict[str, Any]:
    """What one sample drew and uses, as Python's numbers and words; arrays of many numbers as their shape."""
    drawn = {name: _plain(stage, name, value[row]) for name, value in params.items() if name != APPLIED}
    unused = stage.unused(drawn)
    return {name: value for name, value in drawn.items() if name not in unused}


def ways_of(node: Node) -> list[Way]:
    """All ways of the choices at and below a place; choices within a way go as drawn.

    Those of choices that stand side by side come one after the other: the others go as drawn.
    """
    match node:
        case Choice():
            return [Way(f"{node.place}/{name}", {node.place: number}) for number, name in enumerate(node.names)]
        case Sometimes():
            return [Way(way.name, way.chosen, (node.place, *way.applied)) for way in ways_of(node.node)]
        case Row() | Shuffle():
            return [way for child in node.nodes if isinstance(child, Node) for way in ways_of(child)]
        case _:
            return []


def forced(draws: Draws, way: Way) -> Draws:
    """The draws of samples that all go this way; all else is as they drew it."""
    changed = {place: dict(params) for place, params in draws.items()}
    for place, number in way.chosen.items():
        changed[place][CHOSEN] = changed[place][CHOSEN].new_full(changed[place][CHOSEN].shape, number)
    for place in way.applied:
        changed[place][APPLIED] = changed[place][APPLIED].new_full(changed[place][APPLIED].shape, True)
    return changed


def _notes(node: Node, draws: Draws, made: dict[str, Tensor]) -> Iterator[PlaceNote]:
    match node:
        case Step():
            params = draws[node.place]
            if APPLIED in params and not bool(params[APPLIED][0]):
                yield PlaceNote(node.place, False, {})
            else:
                yield PlaceNote(node.place, True, readable(node.stage, params), made.get(node.place))
        case Sometimes():
            if bool(draws[node.place][APPLIED][0]):
                yield from _notes(node.node, draws, made)
            else:
                yield PlaceNote(node.place.removesuffix("?"), False, {})
        case Choice():
            number = int(draws[node.place][CHOSEN][0])
            yield PlaceNote(node.place, True, {"way": node.names[number]})
            yield from _children([node.rows[number]], draws, made)
        case Shuffle():
            order = draws[node.place]["order"][0].tolist()
            yield PlaceNote(node.place, True, {"order": order})
            yield from _children([node.nodes[number] for number in order], draws, made)
        case Row():
            yield from _children(list(node.nodes), draws, made)


def _children(nodes: list[Any], draws: Draws, made: dict[str, Tensor]) -> Iterator[PlaceNote]:
    for node in nodes:
        yield from _notes(node, draws, made)


def _plain(stage: Stage, name: str, value: Tensor) -> Any:
    if value.numel() > _MOST_NUMBERS:
        return f"{' x '.join(map(str, value.shape))} numbers"
    plain = value.tolist()
    words = stage.words.get(name)
    return words[plain] if words is not None and isinstance(plain, int) else plain
