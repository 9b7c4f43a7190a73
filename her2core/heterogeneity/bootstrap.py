"""Intervals from whole hexagons: cells beside each other are alike, so hexagons are drawn and not cells.

A replicate is a sum of what its hexagons hold, kept as whole numbers. Sums of whole numbers are exact in
any order, so an interval depends neither on the order of the cells nor on how a matrix product is cut, and
its cost not on the number of cells.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

MIN_BLOCKS = 10
"""Fewer hexagons give no interval: it would be far too narrow (ours)."""
UNIT = 2.0**-24
"""Sums of measurements are rounded to this, so that they are whole numbers of it (ours)."""
_SEED = 20260401
"""Key of the bootstrap's random numbers: intervals depend on the hexagons alone."""
_AT_ONCE = 64
"""Replicates drawn at a time, so that memory does not grow with their number."""
TAILS = (0.025, 0.975)
"""Quantiles of replicates that a 95 % interval lies between."""


def replicate_sums(blocks: Reals, replicates: int, name: str = "") -> Reals | None:
    """Sums over hexagons drawn with replacement, as many as there are.

    Parameters
    ----------
    blocks
        What each hexagon holds, shape ``(m, k)``, whole numbers.
    name
        Draws of different names are independent; what is compared needs different ones.

    Returns
    -------
    NDArray or None
        Shape ``(replicates, k)``; None of fewer than `MIN_BLOCKS` hexagons.

    References
    ----------
    Davison AC, Hinkley DV. Bootstrap Methods and their Application. 1997, chapter 8 (block resampling).
    """
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
    return np.concatenate(sums)


def _named(name: str) -> int:
    """A number that stands for a name; 0 of none."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:15]) if name else 0


def whole(values: Reals) -> Reals:
    """Measurements as whole numbers of `UNIT`."""
    rounded: Reals = np.rint(values / UNIT)
    return rounded


@dataclass(frozen=True, slots=True)
class Blocks:
    """What the hexagons hold in all, and what each replicate does.

    Attributes
    ----------
    total
        Shape ``(k,)``.
    replicates
        Shape ``(replicates, k)``; None if there are too few hexagons.
    """

    total: Reals
    replicates: Reals | None

    @classmethod
    def of(cls, blocks: Reals, replicates: int) -> Blocks:
        return cls(blocks.sum(axis=0), replicate_sums(blocks, replicates))

    def interval(
        self,
        value: float,
        statistic: Callable[[Reals], Reals],
        low: float = -math.inf,
        high: float = math.inf,
    ) -> tuple[float, float] | None:
        """95 % percentile interval of a statistic of the sums, widened to hold the value.

        Replicates of an index at the end of its range all lie on one side of it.

        Parameters
        ----------
        value
            The statistic, as exactly as it is known: where the sums give it coarsely, as bins do, the
            interval is moved by the difference.
        low, high
            Range of the statistic.
        """
        if self.replicates is None or not math.isfinite(value):
            return None
        found = statistic(self.replicates)
        found = found[np.isfinite(found)]
        if len(found) < MIN_BLOCKS:
            return None
        moved = value - float(statistic(self.total[None])[0])
        ends = np.clip(np.quantile(found, TAILS) + moved, low, high).tolist()
        return min(ends[0], value), max(ends[1], value)
