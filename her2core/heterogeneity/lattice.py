"""Values on a lattice of hexagons: do neighbours resemble each other, and where are the extremes.

Every function takes ``value``, shape ``(m,)``, float64, and ``near``, shape ``(m, 6)``: the rows of the six
neighbours of a hexagon, -1 where there is none (`regions.Hexes.neighbours`). Weights are row-standardised
for Moran's I and Geary's C, binary and with the hexagon itself for Getis-Ord Gi*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from her2core.points.lattice import side_sums

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]

LEVELS = 10
"""Grey levels of the co-occurrence matrix, fixed, so that slides can be compared. Ours."""
MORAN_MOST = 2 / math.sqrt(3)
"""Largest Moran's I either way, of row-standardised weights on any hexagons: of one beside three that have no
other neighbour (ours). Where all have six, I is -0.5 at least and C 1.5 at most; at an edge, in strips and in
crumbs they go further: two hexagons by themselves can have -1 and 2, such stars -1.15 and 2.67."""
DISCOVERY = 0.05
"""False discovery rate of hot and cold hexagons (Benjamini and Hochberg)."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What each hexagon adds to Moran's I and Geary's C, shape ``(m,)``.

    Attributes
    ----------
    product
        Deviation from the mean times the mean deviation of the neighbours.
    difference
        Mean squared difference from the neighbours.
    square
        Squared deviation from the mean.
    """

    product: Reals
    difference: Reals
    square: Reals

    @property
    def moran(self) -> float:
        """Moran's I: 1 where all are as their neighbours, -1/(m - 1) expected by chance; see `MORAN_MOST`."""
        return float(self.product.sum() / self.square.sum())

    @property
    def geary(self) -> float:
        """Geary's C: 1 expected by chance, below 1 where neighbours resemble each other; see `MORAN_MOST`."""
        m = len(self.square)
        return float((m - 1) / (2 * m) * self.difference.sum() / self.square.sum())


def among(near: Ints, kept: NDArray[np.bool_]) -> Ints:
    """Neighbours of the kept hexagons among these, renumbered."""
    renumbered = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)  # row -1 stays -1
    rows: Ints = renumbered[near[kept]]
    return rows


def without_islands(value: Reals, near: Ints) -> tuple[Reals, Ints, NDArray[np.bool_]]:
    """Values and neighbours of the hexagons that have a neighbour, and which these are."""
    kept: NDArray[np.bool_] = np.any(near >= 0, axis=1)
    return value[kept], among(near, kept), kept


def shares(value: Reals, near: Ints) -> Shares:
    """Shares of every hexagon in the spatial autocorrelation; no hexagon is an island, nor all values one.

    References
    ----------
    Moran PAP. Notes on continuous stochastic phenomena. Biometrika 1950;37:17-23. Geary RC. The contiguity
    ratio and statistical mapping. The Incorporated Statistician 1954;5:115-145. The range of
    I follows from the eigenvalues of the weights: de Jong P, Sprenger C, van Veen F. On extreme values of
    Moran's I and Geary's c. Geographical Analysis 1984;16:17-24.
    """
    z = value - value.mean()
    there = near >= 0
    degree = there.sum(axis=1)
    beside = z[near]
    lag = np.where(there, beside, 0.0).sum(axis=1) / degree
    difference = np.where(there, (beside - z[:, None]) ** 2, 0.0).sum(axis=1) / degree
    return Shares(z * lag, difference, z * z)


def permutation_p(value: Reals, near: Ints, times: int, seed: int) -> tuple[float, float]:
    """Two-sided p-values of Moran's I and Geary's C: how often chance lies as far from its expectation.

    Parameters
    ----------
    times
        Random arrangements of the values over the hexagons; ``1 / (times + 1)`` is the least p.
    """
    random = np.random.Generator(np.random.Philox(key=seed))
    m, z = len(value), value - value.mean()
    there = near >= 0
    degree = there.sum(axis=1)
    first, side = np.nonzero(there & (near > np.arange(m)[:, None]))  # every side once
    second = near[first, side]
    weight = 1 / degree[first] + 1 / degree[second]
    square = float((z * z).sum())

    def away(z: Reals) -> tuple[float, float]:
        products, differences = side_sums(z, first, second, weight)
        moran, geary = products / square, (m - 1) / (2 * m) * differences / square
        return abs(moran + 1 / (m - 1)), abs(geary - 1)

    moran, geary = (found * (1 - 1e-12) for found in away(z))  # the same, summed in another order, is as far
    far_moran = far_geary = 1
    for _ in range(times):
        by_chance = away(random.permutation(z))
        far_moran += by_chance[0] >= moran
        far_geary += by_chance[1] >= geary
    return far_moran / (times + 1), far_geary / (times + 1)


def getis_ord(value: Reals, near: Ints) -> Reals:
    """Gi* of every hexagon, a standard normal deviate; NaN if all values are one.

    References
    ----------
    Ord JK, Getis A. Local spatial autocorrelation statistics: distributional issues and an application.
    Geographical Analysis 1995;27:286-306.
    """
    m, there = len(value), near >= 0
    mean = value.mean()
    spread = math.sqrt(np.square(value - mean).mean())
    if _constant(value):
        return np.full(m, np.nan)
    weights = 1.0 + there.sum(axis=1)
    local = value + np.where(there, value[near], 0.0).sum(axis=1)
    z: Reals = (local - mean * weights) / (spread * np.sqrt((m * weights - weights**2) / (m - 1)))
    return z


def hot_and_cold(value: Reals, near: Ints) -> NDArray[np.int8]:
    """1 where high values gather, -1 where low ones do, 0 elsewhere, at a false discovery rate of 5 %."""
    z = getis_ord(value, near)
    if np.isnan(z).any():
        return np.zeros(len(value), np.int8)
    found = discoveries(2 * ndtr(-np.abs(z)), DISCOVERY)
    return np.where(found, np.sign(z), 0).astype(np.int8)


def discoveries(p: Reals, rate: float) -> NDArray[np.bool_]:
    """Which of many p-values are discoveries at a false discovery rate.

    References
    ----------
    Benjamini Y, Hochberg Y. Controlling the false discovery rate. J R Stat Soc B 1995;57:289-300.
    """
    ordered = np.sort(p)
    passed = np.flatnonzero(ordered <= rate * np.arange(1, len(p) + 1) / len(p))
    return p <= ordered[passed[-1]] if len(passed) else np.zeros(len(p), np.bool_)


def co_occurrences(value: Reals, near: Ints, top: float) -> Ints:
    """How often each level lies beside each other, shape ``(LEVELS * LEVELS,)``.

    Parameters
    ----------
    top
        Levels divide 0 to ``top`` evenly; what lies beyond belongs to the last of either end.
    """
    level = np.clip(np.floor(value * (LEVELS / top)), 0, LEVELS - 1).astype(np.int64)
    rows, sides = np.nonzero(near >= 0)
    pairs = level[rows] * LEVELS + level[near[rows, sides]]
    return np.bincount(pairs, minlength=LEVELS * LEVELS).astype(np.int64)


def texture_entropy(counts: NDArray[np.number]) -> float:
    """Haralick's entropy of co-occurrences, shape ``(LEVELS**2,)``, in bits; at most 2 log2 LEVELS = 6.64."""
    p = counts[counts > 0] / counts.sum()
    return float(max(0.0, -(p * np.log2(p)).sum()))


def texture_contrast(counts: NDArray[np.number]) -> float:
    """Haralick's contrast, mean squared difference of levels; 0 to 81.

    References
    ----------
    Haralick RM, Shanmugam K, Dinstein I. Textural features for image classification. IEEE Trans Syst Man
    Cybern 1973;3:610-621.
    """
    level = np.arange(LEVELS)
    squared = np.subtract.outer(level, level).reshape(-1) ** 2
    return float(counts @ squared / counts.sum())


def _constant(value: Reals) -> bool:
    return bool((value == value[0]).all())
