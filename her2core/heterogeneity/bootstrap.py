"""Intervals of what units add up to: the compact blocks of tissue in each are drawn with replacement.

A replicate is a sum of what its blocks hold, kept as whole numbers. Sums of whole numbers are exact in any
order, so units pool in any order, and an interval depends neither on the order of the cells nor on how a
matrix product is cut.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from her2core.statistics import TAILS, Z95

Reals = NDArray[np.float64]

MIN_BLOCKS = 10
"""Fewer blocks give no interval: it would be far too narrow (ours)."""
UNIT = 2.0**-24
"""Sums of measurements are rounded to this, so that they are whole numbers of it (ours)."""
_SEED = 20260401
"""Key of the bootstrap's random numbers: intervals depend on the blocks alone."""
_AT_ONCE = 64
"""Replicates drawn at a time, so that memory does not grow with their number."""


def replicate_sums(blocks: Reals, replicates: int, name: str = "") -> Reals | None:
    """Sums over blocks drawn with replacement, as many as there are.

    Draws of few blocks spread too little: what they lack is made up for as by Student's t.

    Parameters
    ----------
    blocks
        What each block holds, shape ``(m, k)``, whole numbers, none negative.
    name
        Draws of different names are independent; what is compared needs different ones.

    Returns
    -------
    NDArray or None
        Shape ``(replicates, k)``; None of fewer than `MIN_BLOCKS`.

    References
    ----------
    Davison AC, Hinkley DV. Bootstrap Methods and their Application. 1997, chapter 8 (block resampling).
    """
    from scipy.special import stdtrit  # slow to import: not where a run is only driven

    m = len(blocks)
    if m < MIN_BLOCKS:
        return None
    random = np.random.Generator(np.random.Philox(key=_SEED + _named(name)))
    sums = []
    for first in range(0, replicates, _AT_ONCE):
        many = min(_AT_ONCE, replicates - first)
        drawn = random.integers(0, m, (many, m)) + m * np.arange(many)[:, None]
        times = np.bincount(drawn.ravel(), minlength=many * m).reshape(many, m)
        sums.append(times.astype(np.float64) @ blocks)
    total = blocks.sum(axis=0)
    wider = float(stdtrit(m - 1, TAILS[1])) / Z95 * math.sqrt(m / (m - 1))
    replicated: Reals = np.maximum(np.rint(total + wider * (np.concatenate(sums) - total)), 0.0)
    return replicated


def _named(name: str) -> int:
    """A number that stands for a name; 0 of none."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:15]) if name else 0


def whole(values: Reals) -> Reals:
    """Measurements as whole numbers of `UNIT`."""
    rounded: Reals = np.rint(values / UNIT)
    return rounded
