"""Intervals of what cells add up to: one compact block of hexagons after another is left out.

Cells beside each other are alike, and so are hexagons, often over a millimetre: single ones, drawn with
replacement, would pass for independent. Even blocks are not quite, and two sizes of them show by how much.

Sums of whole numbers are exact, so an interval depends neither on the order of the cells nor on how they were
cut, and its cost not on their number.

References
----------
Kuensch HR. The jackknife and the bootstrap for general stationary observations. Annals of Statistics
1989;17:1217-1241. Two sizes: Vats D, Flegal JM. Lugsail lag windows for estimating time-average covariance
matrices. Biometrika 2022;109:735-750.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from her2core.heterogeneity.jackknife import halved, jackknife_variance
from her2core.heterogeneity.regions import Hexes
from her2core.statistics import Z95, wilson

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]
Statistic = Callable[[Reals], Reals]
"""From sums, shape ``(..., k)``, to one value each, shape ``(...)``."""

COARSE, FINE = 3, 5
"""Times the hexagons are halved: eight blocks and, nested in these, thirty-two. In simulated fields these two
sizes hold the truth most often (ours; `benchmarks/simulate_intervals.py`)."""
T95_COARSE = 2.364624251592784
"""Two-sided 95 % point of Student's t with 7 degrees of freedom."""
MIN_HEXAGONS = 16
"""Fewer hexagons give no interval; below 32 there are the eight blocks alone (ours)."""
_BEYOND = (math.sqrt(2**COARSE) - 1) / (math.sqrt(2**FINE) - math.sqrt(2**COARSE))
"""A variance from blocks misses what they share across their borders, in proportion to the length of these
and so to the root of their number. The difference of two sizes, times this, leads from eight to one."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """Hexagons cut into compact blocks for what their cells add up to.

    Attributes
    ----------
    hexagons
        How many there are.
    fine
        Block of each, 0 to 31, shape ``(hexagons,)``, of which 0 to 3 make a coarse one, and so on. Of fewer
        than 32 hexagons one in four is used; None of fewer than `MIN_HEXAGONS`.
    """

    hexagons: int
    fine: Ints | None

    @classmethod
    def of(cls, hexes: Hexes) -> Cuts:
        m = len(hexes)
        if m < MIN_HEXAGONS:
            return cls(m, None)
        times = FINE if m >= 2**FINE else COARSE
        return cls(m, halved(hexes.y_um, hexes.x_um, times) << (FINE - times))

    def blocks(self, held: Reals) -> Blocks:
        """What is left without each block, of what each hexagon holds, shape ``(hexagons, k)``."""
        total = held.sum(axis=0)
        if self.fine is None:
            return Blocks(self.hexagons, total, None, None)
        fine = np.zeros((2**FINE, held.shape[1]))
        np.add.at(fine, self.fine, held)
        coarse = fine.reshape(2**COARSE, -1, held.shape[1]).sum(axis=1)
        finer = total - fine if self.hexagons >= 2**FINE else None
        return Blocks(self.hexagons, total, total - coarse, finer)


@dataclass(frozen=True, slots=True)
class Blocks:
    """What cells add up to in all, and without each block.

    Attributes
    ----------
    total
        Shape ``(k,)``.
    coarse, fine
        Without each of the eight, and of the thirty-two, blocks, shape ``(8, k)`` and ``(32, k)``; None if
        there are too few hexagons.
    """

    hexagons: int
    total: Reals
    coarse: Reals | None
    fine: Reals | None

    def variance(self, statistic: Statistic) -> float | None:
        """Variance of a statistic of the sums; None if it is not defined without some block."""
        if self.coarse is None:
            return None
        found = jackknife_variance(statistic(self.coarse))
        if self.fine is not None:
            found += _BEYOND * max(0.0, found - jackknife_variance(statistic(self.fine)))
        return found if math.isfinite(found) else None

    def interval(
        self,
        value: float,
        statistic: Statistic,
        low: float = -math.inf,
        high: float = math.inf,
    ) -> tuple[float, float] | None:
        """95 % interval of a statistic of the sums, by Student's t.

        Parameters
        ----------
        value
            The statistic, as exactly as it is known; the sums may give it coarsely, as bins do.
        low, high
            Range of the statistic.

        Returns
        -------
        tuple or None
            None if no block changes it: how it varies is then not to be seen.
        """
        variance = self.variance(statistic)
        if not variance or not math.isfinite(value):
            return None
        half = T95_COARSE * math.sqrt(variance)
        return min(value, max(low, value - half)), max(value, min(high, value + half))

    def share(
        self, value: float, statistic: Statistic, n: int, high: float = 1.0
    ) -> tuple[float, float] | None:
        """95 % interval of a fraction of ``n`` cells: Wilson's, of as many as would vary so independently.

        Of none or all of the cells that is taken to be the number of hexagons. See `fraction_interval`.
        """
        variance = self.variance(statistic)
        if variance is None or not math.isfinite(value):
            return None
        spread, effective = value * (1 - value), float(self.hexagons)
        if spread > 0:
            effective = spread / max(variance, spread / n) * (Z95 / T95_COARSE) ** 2
        ends = wilson(value * effective, effective)
        return min(value, ends[0]), max(value, min(high, ends[1]))
