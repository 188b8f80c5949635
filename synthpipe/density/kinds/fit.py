"""Fitting a :class:`~synthpipe.density.kinds.scorer.KindScorer`: the network on tiles, then calibration on images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synthpipe.density.kinds.scorer import KindScorer
from synthpipe.density.scorer import QUANTILE_TILES
from synthpipe.errors import TrainingError

__all__ = ["calibrate_pooling", "fit_network"]

_BATCH = 1024
_RATE, _DECAY = 3e-3, 3e-2
#: Chance that a statistic is not seen in a step: no kind may hang on one alone.
_DROPPED = 0.05
#: Strengths that are told apart, in units of what must just be seen, and how much that counts beside being there.
_DOUBLINGS, _ORDER_SHARE = (2.0, 4.0, 8.0, 16.0), 0.5
_RIDGE = 1e-3
_MAX_ITERATIONS = 200
#: Of what is around: below it (single tiles do not differ) nothing is learned.
_LEAST_SPREAD = 1e-3


def fit_network(
    scorer: KindScorer,
    features: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    epochs: int = 40,
    strengths: Tensor | None = None,
) -> list[float]:
    """Fit standardisation and network in place; each kind counts alike, there and not there.

    That a kind is there says nothing of how strong it is, so logits of strong and of very strong degradation would come
    in any order.  Where strengths are known, the same logit, less a step for each doubling, is fitted to "twice as
    strong as must be seen", "four times", ... (proportional odds; McCullagh 1980), and ranks by strength.

    Args:
        scorer: whose ``center``, ``spread`` and ``layers`` are set.
        features: ``(N, F)`` of tiles, in the order of the scorer's.
        labels: ``(N, kinds)``: 1 there, 0 not, below 0 unknown.
        generator: of first weights, order and dropping.
        epochs: passes over the tiles.
        strengths: ``(N, kinds)``, how many times stronger each kind is than what must just be seen; 0: unknown.

    Returns:
        The mean loss of each pass, nats.

    Raises:
        TrainingError: statistics that are not finite, or a kind without examples of both sides.
    """
    if not bool(torch.isfinite(features).all()):
        raise TrainingError("kinds: a statistic is not finite on some tile; the images hold NaN")
    weight = _balanced(labels, scorer.kinds)
    scorer.center.copy_(features.mean(0))
    scorer.spread.copy_(features.std(0).clamp_min(1e-3))
    _first_weights(scorer, generator)
    scorer.requires_grad_(True)
    order_of = _Order(labels, strengths) if strengths is not None else None
    groups: list[dict[str, Any]] = [{"params": [*scorer.parameters()]}]
    groups += [{"params": [order_of.steps], "weight_decay": 0.0}] if order_of else []
    optimizer = torch.optim.AdamW(groups, lr=_RATE, weight_decay=_DECAY)
    steps = epochs * (len(features) // _BATCH + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    losses = []
    for _ in range(epochs):
        total = 0.0
        order = torch.randperm(len(features), generator=generator)
        for few in torch.chunk(order, len(features) // _BATCH + 1):
            shown = features[few]
            hidden = torch.rand(shown.shape, generator=generator) < _DROPPED
            with torch.enable_grad():
                logits = scorer.logits(torch.where(hidden, scorer.center, shown))
                each = nn.functional.binary_cross_entropy_with_logits(
                    logits, labels[few].clamp_min(0).float(), reduction="none"
                )
                loss = (each * weight[few]).sum() / weight[few].sum()
                if order_of:
                    loss = loss + _ORDER_SHARE * order_of.loss(logits, weight, few)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(few)
        losses.append(total / len(features))
    scorer.requires_grad_(False)
    return losses


class _Order:
    """The loss that ranks logits by strength where strengths are known; labels and strengths ``(N, kinds)``."""

    def __init__(self, labels: Tensor, strengths: Tensor) -> None:
        known = (strengths > 0) & (labels == 1)
        self._counts = (known | (labels == 0)) & known.any(0)
        self._stronger = strengths[..., None] > strengths.new_tensor(_DOUBLINGS)  # (N, kinds, steps)
        self.steps = torch.ones(labels.shape[1], len(_DOUBLINGS)).requires_grad_()

    def loss(self, logits: Tensor, weight: Tensor, few: Tensor) -> Tensor:
        """Of the tiles at ``few``, nats."""
        lowered = logits[..., None] - nn.functional.softplus(self.steps).cumsum(1)
        each = nn.functional.binary_cross_entropy_with_logits(lowered, self._stronger[few].float(), reduction="none")
        counts = weight[few] * self._counts[few]
        return (each.mean(2) * counts).sum() / weight[few].sum()


def calibrate_pooling(scorer: KindScorer, tiles: Sequence[Tensor], labels: Tensor, generator: torch.Generator) -> None:
    """Set ``pooling``, and ``around`` of a scorer with context, so that images' probabilities are true at even odds.

    Args:
        scorer: with a fitted network; changed in place.
        tiles: of each image, the logits of its tiles ``(k, kinds)``; images that the network was not fitted on.
        labels: ``(images, kinds)`` as of :func:`fit_network`.
        generator: chooses tiles.
    """
    for place, count in enumerate(QUANTILE_TILES):
        sets, owners = _sets(tiles, count, generator)
        known = labels[owners]
        if place and not _both_sides(known):
            # No images of so many tiles: what holds for fewer is the best guess.
            scorer.pooling[place], scorer.around[place] = scorer.pooling[place - 1], scorer.around[place - 1]
            continue
        weight = _balanced(known, scorer.kinds)
        pooled = torch.stack([KindScorer.pooled(few) for few in sets])
        around = torch.stack([KindScorer.surroundings(few) for few in sets]) if scorer.context else None
        for kind, name in enumerate(scorer.kinds):
            use = known[:, kind] >= 0
            scorer.pooling[place, kind], scorer.around[place, kind] = _logistic(
                pooled[use, kind],
                around[use, kind] if around is not None and name in scorer.context else None,
                known[use, kind].float(),
                weight[use, kind],
                single=count == 1,
            )


def _both_sides(labels: Tensor) -> bool:
    """Whether there are examples with and without each kind, ``(N, kinds)``."""
    return bool(((labels == 0).any(0) & (labels == 1).any(0)).all())


def _sets(tiles: Sequence[Tensor], count: int, generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
    """Sets of ``count`` tiles of one image each, ``(count, kinds)``, and whose they are."""
    chosen: list[Tensor] = []
    owners: list[int] = []
    for owner, logits in enumerate(tiles):
        shuffled = logits[torch.randperm(len(logits), generator=generator)]
        if len(shuffled) < count // 2:
            continue
        sets = max(min(len(shuffled) // count, 4), 1)
        chosen += shuffled[: sets * count].chunk(sets)
        owners += [owner] * sets
    return chosen, torch.tensor(owners, dtype=torch.long)


def _logistic(
    x: Tensor, around: Tensor | None, there: Tensor, weight: Tensor, single: bool
) -> tuple[Tensor, Tensor | float]:
    """Weights of mean, least, most and 1, ``(4,)``; those of a single tile, where all are alike, on the mean.  And of
    what is around, ``(C,)``; without it 0.

    No weight of a kind's own logit is negative: a tile that looks worse makes no image better.
    """
    own = x.double()
    if single:
        own = own * own.new_tensor([1.0, 0.0, 0.0])
    beside = own.new_zeros(len(own), 0) if around is None else around.double()
    center = beside.mean(0)
    spread = (beside - center).square().mean(0).sqrt().clamp_min(_LEAST_SPREAD)
    beside = (beside - center) / spread
    share = (weight / weight.sum()).double()
    first = own.new_tensor([0.8, 0.3, 0.3, 0.0])  # roots, and the constant
    values = torch.cat([first, own.new_zeros(beside.shape[1])]).requires_grad_()
    optimizer: torch.optim.Optimizer = torch.optim.LBFGS(
        [values], max_iter=_MAX_ITERATIONS, line_search_fn="strong_wolfe", tolerance_grad=1e-8
    )

    def closure() -> float:
        """The loss at the present values, with its gradient."""
        optimizer.zero_grad()
        logit = own @ values[:3].square() + values[3] + beside @ values[4:]
        losses = nn.functional.binary_cross_entropy_with_logits(logit, there.double(), reduction="none")
        loss = (share * losses).sum() + 0.5 * _RIDGE * values.square().sum()
        torch.autograd.backward(loss)
        return float(loss.detach())

    with torch.enable_grad():
        final = optimizer.step(closure)
    if not math.isfinite(final):
        raise TrainingError("kinds: the calibration did not converge; give more images")
    found = values.detach()
    of_others = found[4:] / spread
    constant = found[3] - (of_others * center).sum()
    pooling = torch.cat([found[:3].square(), constant[None]]).float()
    return pooling, 0.0 if around is None else of_others.float()


def _balanced(labels: Tensor, kinds: Sequence[str]) -> Tensor:
    """Weights ``(N, kinds)``: half of each kind's for where it is, half for where it is not, none for unknown."""
    weight = torch.zeros(labels.shape)
    for kind, name in enumerate(kinds):
        for side in (0, 1):
            members = labels[:, kind] == side
            if not members.any():
                raise TrainingError(
                    f"kinds: no mixture {'with' if side else 'without'} {name!r} among those of one share of the "
                    "images; give more images, or more mixtures of each (--mixtures)"
                )
            weight[members, kind] = 0.5 / members.float().mean()
    return weight


def _first_weights(scorer: KindScorer, generator: torch.Generator) -> None:
    with torch.no_grad():
        for layer in scorer.layers:
            assert isinstance(layer, nn.Linear)
            bound = 1 / math.sqrt(layer.in_features)
            layer.weight.copy_((2 * torch.rand(layer.weight.shape, generator=generator) - 1) * bound * math.sqrt(3))
            layer.bias.zero_()
