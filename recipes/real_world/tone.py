#!/usr/bin/env python3
"""What of the tone in which RealSR's pairs differ could be known: by other pairs, by the piles, or by nobody.

    python recipes/real_world/tone.py --data ../shared/data

Of the pairs that choose.  The lowest frequencies of "small photograph minus the large one, reduced" are those of the
measure ``tone`` (half of a wave at 0.02 cycles per HR pixel).  First their share of the bicubic enlargement's squared
error; then how much of them is left when they are explained by

* ``own ...``: numbers of this very pair (an offset; offset and gain of each channel; a matrix of colours), which
  nothing could have told before the large photograph was seen;
* ``others' gain``, ``others' filter``: a gain, or weights of four bands of the small photograph, fitted to the other
  pairs of the camera: what training on real pairs could carry over.

Then means and contrasts: how far the two sides are apart, and how well a pile of the camera tells its own.
"""

from __future__ import annotations

import argparse
import math
import statistics
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from measures import lowest, tone_sigma
from networks import enhance
from scenes import TESTS, Pair, columns_of, piles_by_camera
from torch import Tensor

from synthpipe.images import downscale_bicubic, to_float

_SCALE, _BORDER = 4, 4
#: Standard deviation of the Gaussian that parts the lowest frequencies, LR pixels, ...
_LOW = tone_sigma() / _SCALE
#: ... and those of the Gaussians between which the bands of the filter lie.
_BANDS = (1.0, 2.0, 4.0, 8.0, 16.0)


class Sides(NamedTuple):
    """Of a pair, all float: the small photograph, its lowest frequencies, and those that the large one lacks."""

    small: Tensor  # (3, h, w), as the next two
    low: Tensor
    rest: Tensor
    large: Tensor  # (3, h, w): reduced
    error: float  # mean square of the bicubic enlargement's
    bands: Tensor  # (4, 3, h, w)


def sides_of(pair: Pair) -> Sides:
    """See :class:`Sides`."""
    small, reference = (to_float(x) for x in pair)
    large = downscale_bicubic(reference[None], _SCALE)[0]
    inside = slice(_BORDER, -_BORDER)
    error = (enhance(None, pair[0], _SCALE) - reference)[:, inside, inside].square().mean()
    blurred = [lowest(small, sigma) for sigma in _BANDS]
    bands = torch.stack([lowest(a - b, _LOW) for a, b in pairwise(blurred)])
    return Sides(small, lowest(small, _LOW), lowest(small - large, _LOW), large, float(error), bands)


def left(own: Sides, others: list[Sides]) -> dict[str, float]:
    """Shares of the lowest frequencies' squared difference that each explanation leaves."""
    one = torch.ones_like(own.low[:1])
    by_channel = {
        "own offset": lambda channel: one,
        "own offset and gain": lambda channel: torch.cat([one, own.low[channel : channel + 1]]),
        "own matrix of colours": lambda channel: torch.cat([one, own.low]),
    }
    whole = float(own.rest.square().mean())
    shares = {}
    for name, basis in by_channel.items():
        errors = [own.rest[channel] - _fitted(basis(channel), own.rest[channel]) for channel in range(3)]
        shares[name] = float(torch.stack(errors).square().mean()) / whole
    for name, parts in (("others' gain", _without_mean), ("others' filter", lambda sides: sides.bands)):
        known = torch.cat([parts(sides).flatten(1) for sides in others], 1)
        wanted = torch.cat([sides.rest.flatten() for sides in others])
        weights = torch.linalg.lstsq(known.T, wanted[:, None], driver="gelsd").solution[:, 0]
        error = own.rest - torch.einsum("b,bchw->chw", weights, parts(own))
        shares[name] = float(error.square().mean()) / whole
    return shares


def _without_mean(sides: Sides) -> Tensor:
    return (sides.low - sides.small.mean((1, 2), keepdim=True))[None]


def _fitted(basis: Tensor, wanted: Tensor) -> Tensor:
    """The combination of ``(B, h, w)`` that is nearest to ``(h, w)``."""
    known = basis.flatten(1).T
    solution = torch.linalg.lstsq(known, wanted.flatten()[:, None], driver="gelsd").solution
    return (known @ solution).reshape(wanted.shape)


def shifts(pairs: list[Sides], pile: list[Tensor]) -> str:
    """Mean and spread over scenes of mean (of 255) and logarithm of contrast, small against large; and of piles."""
    mean = torch.stack([255 * (x.small.mean((1, 2)) - x.large.mean((1, 2))) for x in pairs])
    contrast = torch.stack([(_contrast(x.low) / _contrast(lowest(x.large, _LOW))).log() for x in pairs])
    own_mean = torch.stack([255 * x.mean((1, 2)) for x in pile]).std(0) / math.sqrt(len(pile))
    own_contrast = torch.stack([_contrast(lowest(x, _LOW)).log() for x in pile]).std(0) / math.sqrt(len(pile))
    texts = []
    for name, shift, error in (("mean", mean, own_mean), ("log of contrast", contrast, own_contrast)):
        cells = ((shift.mean(0), "pairs differ by"), (shift.std(0), "between scenes +-"), (error, "a pile tells it +-"))
        texts.append(f"{name}: " + "; ".join(f"{text} {_numbers(values)}" for values, text in cells))
    return "\n  ".join(texts)


def _contrast(image: Tensor) -> Tensor:
    return image.flatten(1).std(1)


def _numbers(values: Tensor) -> str:
    return ", ".join(f"{value:.2f}" for value in values.tolist())


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="What of the tone of real pairs could be known.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    data = parser.parse_args().data
    test = TESTS["real_x4_realsr"]
    columns = columns_of(test, data, 0, 1)
    for camera, frames in piles_by_camera(test, data).items():
        pairs = [sides_of(pair) for pair in columns[f"choose_{camera}"]]
        low = [float(x.rest.square().mean()) / x.error for x in pairs]
        gained = statistics.fmean(-10 * math.log10(1 - share) for share in low)
        print(f"{camera}, {len(pairs)} pairs: {statistics.fmean(low):.3f} of the squared error, {gained:.2f} dB; left:")
        rows = [left(x, [y for y in pairs if y is not x]) for x in pairs]
        for name in rows[0]:
            print(f"  {name}: {statistics.fmean(row[name] for row in rows):.2f}")
        print(" ", shifts(pairs, [to_float(x) for x in frames]), flush=True)


if __name__ == "__main__":
    main()
