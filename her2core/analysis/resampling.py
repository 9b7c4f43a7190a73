"""Intervals by a bootstrap of patients: the slides of one patient are not independent of each other.

Every statistic here is a function of sums over slides, so that a replicate is a weighting of patients and all
replicates are one matrix product. Seeds are fixed and patients sorted by name: the same rows in any order
give the same interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from her2core.statistics import TAILS, wilson

REPLICATES = 2000
"""Draws of patients. Ours; the ends of a 95 % interval vary by about 2 % of its width."""
SEED = 20260115
MIN_PATIENTS = 5
"""Fewer patients give no interval. Ours."""
MIN_DEFINED = 0.95
"""Least share of draws in which a statistic must be defined for an interval. Ours."""

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""From sums, shape ``(..., k)``, to values, shape ``(...)``; NaN where it is not defined."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval (NaN where there is none), and the slides and patients it rests on."""

    value: float
    low: float
    high: float
    n: int
    n_patients: int


NOTHING = Estimate(np.nan, np.nan, np.nan, 0, 0)


@dataclass(frozen=True, slots=True)
class Resampled:
    """Sums over slides, of all and of every replicate.

    Attributes
    ----------
    whole, drawn
        Shapes ``(k,)`` and ``(REPLICATES, k)``.
    having
        Patients whose sum is not 0, shape ``(k,)``.
    """

    whole: Floats
    drawn: Floats
    having: NDArray[np.int64]
    n: int
    n_patients: int

    @classmethod
    def of(cls, values: Floats, patients: Sequence[str]) -> Resampled:
        """Resample rows of ``values``, shape ``(n, k)``, by the patient of each."""
        names, codes = np.unique(np.array(patients, np.str_), return_inverse=True)
        sums = np.zeros((len(names), values.shape[1]))
        np.add.at(sums, codes, values)
        return cls(values.sum(0), draws(len(names)) @ sums, (sums != 0).sum(0), len(values), len(names))

    def estimate(self, statistic: Statistic) -> Estimate:
        """Value and percentile interval of a statistic."""
        value = float(statistic(self.whole[None])[0])
        low, high = percentiles(statistic(self.drawn), self.n_patients)
        if low == high:  # every draw is alike: nothing was learnt of the spread
            low = high = float("nan")
        return Estimate(value, low, high, self.n, self.n_patients)

    def share(self, part: int, of: int) -> Estimate:
        """Sum ``part`` over sum ``of``; Wilson's interval of patients where all or none of them count."""
        k, n = self.whole[part], self.whole[of]
        if n == 0:
            return NOTHING
        found = self.estimate(lambda s: divided(s[..., part], s[..., of]))
        if k in (0, n):  # all draws are alike; a patient is one trial
            patients = int(self.having[of])
            low, high = wilson(0 if k == 0 else patients, patients)
            return Estimate(k / n, low, high, int(n), patients)
        return Estimate(found.value, found.low, found.high, int(n), int(self.having[of]))


@lru_cache(maxsize=2)
def draws(patients: int) -> Floats:
    """How often each patient is drawn, shape ``(REPLICATES, patients)``; kept for the next of as many."""
    if patients == 0:
        return np.zeros((REPLICATES, 0))
    rng = np.random.default_rng(SEED)
    drawn = rng.multinomial(patients, np.full(patients, 1 / patients), REPLICATES).astype(np.float64)
    drawn.setflags(write=False)
    return drawn


def percentiles(values: Floats, patients: int) -> tuple[float, float]:
    """2.5 and 97.5 % of replicates; NaN with too few patients, or where too many are not defined."""
    defined = values[np.isfinite(values)]
    if patients < MIN_PATIENTS or len(defined) < MIN_DEFINED * len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, TAILS)
    return float(low), float(high)


def divided(a: Floats, b: Floats) -> Floats:
    """``a / b``, NaN where b is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(b != 0, a / np.where(b != 0, b, 1.0), np.nan)
