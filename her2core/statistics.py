"""The few statistics of the tables, exact or in a fixed order: no result depends on how rows were cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
"""Two-sided 95 % point of the standard normal distribution."""

TAILS = (0.025, 0.975)
"""Quantiles of replicates that a 95 % interval lies between."""

_PIECE = 65_536
"""Values turned into Python floats at a time, so that a long column needs little memory."""


def wilson(k: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of the fraction ``k / n``.

    Parameters
    ----------
    k, n
        Successes and trials, whole unless trials are an effective number; without trials nothing is known
        and the interval is (0, 1).
    z
        Normal quantile; 95 % two-sided by default.

    Raises
    ------
    ValueError
        Unless ``0 <= k <= n``.

    References
    ----------
    Wilson EB. Probable inference, the law of succession, and statistical inference. JASA 1927;22:209-212.
    """
    if not 0 <= k <= n:
        raise ValueError(f"found k = {k} of n = {n}; expected 0 <= k <= n")
    if n == 0:
        return 0.0, 1.0
    p, z2 = k / n, z * z
    centre = p + z2 / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    scale = 1 + z2 / n
    low = 0.0 if k == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if k == n else min(1.0, (centre + half) / scale)
    return low, high


def exact_sum(values: NDArray[np.floating]) -> float:
    """Correctly rounded sum of a column, shape ``(n,)``: the same for any order and any cut of its rows."""
    pieces = (values[start : start + _PIECE].tolist() for start in range(0, len(values), _PIECE))
    return math.fsum(chain.from_iterable(pieces))


def quantiles(values: NDArray[np.floating], percents: Sequence[int]) -> tuple[float | None, ...]:
    """Order statistics: the smallest value that at least ``percent`` % of the values do not exceed.

    Parameters
    ----------
    values
        Shape ``(n,)``, without NaN.
    percents
        Whole percentages in 1..100. Ranks are integer arithmetic and nothing is interpolated, so every
        quantile is a value that was measured.

    Returns
    -------
    tuple
        One value a percentage; None where there are no values.
    """
    n = len(values)
    if n == 0:
        return (None,) * len(percents)
    ranks = [-(-percent * n // 100) - 1 for percent in percents]
    ordered = np.partition(values, sorted(set(ranks)))
    return tuple(float(ordered[rank]) for rank in ranks)


def scattered(names: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers that look random but follow from the names alone, shape ``(n,)``.

    References
    ----------
    SplitMix64: Steele GL, Lea D, Flood CH. Fast splittable pseudorandom number generators. OOPSLA 2014.
    """
    z = names + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
