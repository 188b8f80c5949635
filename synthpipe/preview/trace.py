"""Degradations of every kind, watched while they work on one tile."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from synthpipe.images import downscale_bicubic, quantize_8bit
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.batch import Batch
from synthpipe.transforms.chains.chain import Chain
from synthpipe.transforms.chains.explained import PlaceNote, degrade_traced
from synthpipe.transforms.chains.whole import WholeDegradation
from synthpipe.transforms.classical import ClassicalDegrade
from synthpipe.transforms.deflow import DeFlowDegrade

__all__ = ["trace_degradation"]

#: Steps of the hand-made degradation, and what each draws: names here and there.
_CLASSICAL: dict[str, tuple[tuple[str, str], ...]] = {
    "reduced": (),
    "blur": (("sigma", "blur_sigma"), ("ratio", "blur_ratio"), ("angle", "blur_angle")),
    "noise": (("sigma", "noise_sigma"),),
    "jpeg": (("quality", "quality"),),
}


def trace_degradation(degrade: BatchTransform, batch: Batch) -> tuple[Tensor, list[PlaceNote]]:
    """``lq`` ``(samples, 3, h, w)`` of one tile, and what it goes through on the way there.

    Args:
        degrade: of any kind that an option file can name; of others there are no notes.
        batch: ``gt`` ``(1, 3, H, W)`` on the device of ``degrade``, ``seed`` and ``seen`` ``(1,)`` int64.
    """
    match degrade:
        case Chain():
            return _chain(degrade, batch)
        case ClassicalDegrade():
            return _classical(degrade, batch)
        case DeFlowDegrade():
            return _deflow(degrade, batch)
        case _:
            return degrade(batch)["lq"], []


def _chain(degrade: Chain, batch: Batch) -> tuple[Tensor, list[PlaceNote]]:
    """Ways that are whole degradations show what is in them."""
    lq, notes = degrade_traced(degrade, batch)
    wholes = {s.place: s.stage.transform for s in degrade.node.steps() if isinstance(s.stage, WholeDegradation)}
    before, found = batch["gt"], []
    for note in notes:
        if note.place in wholes and note.applied:
            _, inside = trace_degradation(wholes[note.place], {**batch, "gt": before})
            found += [replace(part, place=f"{note.place}/{part.place}") for part in inside]
        else:
            found.append(note)
        before = before if note.image is None else note.image
    return lq, found


def _classical(degrade: ClassicalDegrade, batch: Batch) -> tuple[Tensor, list[PlaceNote]]:
    params = degrade.sample_params(batch)
    made = degrade.steps(batch["gt"], params)
    notes = [
        PlaceNote(step, True, {own: params[name].item() for own, name in _CLASSICAL[step] if name in params}, image)
        for step, image in made.items()
    ]
    return list(made.values())[-1], notes


def _deflow(degrade: DeFlowDegrade, batch: Batch) -> tuple[Tensor, list[PlaceNote]]:
    lq = degrade.compute({"gt": batch["gt"], "seed": batch["seed"].to(batch["gt"].device)})["lq"]
    reduced = quantize_8bit(downscale_bicubic(batch["gt"], degrade.scale))
    notes = [PlaceNote("reduced", True, {}, reduced)]
    levels = degrade.levels(batch["seed"])
    for number, strength in enumerate(degrade.strengths(batch["seed"])[0]):
        name = f"deflow {number + 1}" if degrade.samples > 1 else "deflow"
        drawn = {"strength": strength} if levels is None else {"strength": strength, "level": levels[0][number]}
        notes.append(PlaceNote(name, True, drawn, lq[number : number + 1]))
    return lq, notes
