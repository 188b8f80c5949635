"""Grids of thresholds for dithering, each a tile that repeats."""

from __future__ import annotations

import numpy as np

__all__ = ["bayer_thresholds", "blue_noise_thresholds"]


def bayer_thresholds(side: int) -> np.ndarray:
    """``(side, side)`` float64 in (0, 1), each of ``(k + 1/2) / side^2`` once; ``side`` is a power of 2.

    Bayer 1973, "An optimum method for two-level rendition of continuous-tone pictures".
    """
    ranks = np.zeros((1, 1))
    while len(ranks) < side:
        ranks = np.block([[4 * ranks, 4 * ranks + 2], [4 * ranks + 3, 4 * ranks + 1]])
    return (ranks + 0.5) / side**2


def blue_noise_thresholds(side: int, sigma: float = 1.5) -> np.ndarray:
    """``(side, side)`` float64 in (0, 1), each of ``(k + 1/2) / side^2`` once, neighbours as different as can be.

    By void and cluster (Ulichney 1993, "The void-and-cluster method for dither array generation"): points are taken one
    after the other, each in the largest void between those before.  Always the same grid.

    Args:
        side: of the grid, at least 16.
        sigma: width of the Gaussian by which voids are judged, in pixels.
    """
    place = np.minimum(np.arange(side), side - np.arange(side))
    line = np.exp(-0.5 * (place / sigma) ** 2)
    bump = line[:, None] * line

    def around(point: int) -> np.ndarray:
        """What one point adds everywhere."""
        return np.roll(bump, divmod(point, side), (0, 1))

    taken = np.zeros(side * side, dtype=bool)
    taken[np.random.default_rng(0).choice(side * side, side * side // 10, replace=False)] = True
    energy = np.asarray(sum(around(int(point)) for point in np.flatnonzero(taken)))

    def tightest() -> int:
        """Where taken points stand closest."""
        return int(np.where(taken, energy.ravel(), -np.inf).argmax())

    def largest_void() -> int:
        """Where taken points are farthest."""
        return int(np.where(taken, np.inf, energy.ravel()).argmin())

    def move(point: int, sign: int) -> None:
        """Take a point, or give it back."""
        nonlocal energy
        taken[point] = sign > 0
        energy = energy + sign * around(point)

    # The first points are spread evenly: the tightest goes into the largest void, until it is the one that came.
    while True:
        crowded = tightest()
        move(crowded, -1)
        void = largest_void()
        move(void, 1)
        if void == crowded:
            break
    ranks = np.zeros(side * side)
    first, spread, spread_energy = int(taken.sum()), taken.copy(), energy
    for rank in reversed(range(first)):
        point = tightest()
        ranks[point] = rank
        move(point, -1)
    taken[:], energy = spread, spread_energy
    for rank in range(first, side * side):
        point = largest_void()
        ranks[point] = rank
        move(point, 1)
    return ((ranks + 0.5) / side**2).reshape(side, side)
