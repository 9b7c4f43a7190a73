"""Two normal populations fitted to a histogram: how far apart, and whether they are two.

Many samples are fitted at once, a slide and its bootstrap replicates, and nothing is drawn at random. How
narrow a population may be depends on what is measured: stain (`stain_floor`) or signals (`copynumber`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Floor = Callable[[Reals], Reals]
"""Least variance of a population with a given mean."""

MIN_DELTA_BIC = 10.0
"""Advantage in BIC from which a second population is more than a better fit (Kass and Raftery 1995)."""
MIN_WEIGHT = 0.05
"""Least share of the smaller population: specification 5, and the CAP 2009 lower bound of heterogeneity."""
MIN_SD_OD = 0.02
"""Least standard deviation of a population, in OD, about ten grey levels: a spike is no population (ours)."""
ROUNDS = 300
"""Most rounds of expectation and maximisation."""
_TOLERANCE = 1e-8
"""Gain in log-likelihood a cell below which rounds end."""


def stain_floor(mean: Reals) -> Reals:
    """`Floor` of stain: the same at any mean."""
    return np.full_like(mean, MIN_SD_OD**2)


@dataclass(frozen=True, slots=True)
class Populations:
    """Two populations of each sample, shape ``(...)``, the lower one first.

    Attributes
    ----------
    weights, means, sds
        Share of cells, mean and standard deviation, shape ``(2, ...)``.
    delta_bic
        BIC of one population less that of two: above 0 favours two.
    """

    weights: Reals
    means: Reals
    sds: Reals
    delta_bic: Reals

    @property
    def ashman_d(self) -> Reals:
        """``sqrt(2) |m1 - m2| / sqrt(s1^2 + s2^2)``; above 2 the two are separated.

        References
        ----------
        Ashman KM, Bird CM, Zepf SE. Detecting bimodality in astronomical datasets. Astron J 1994;108:2348.
        """
        apart: Reals = self.means[1] - self.means[0]
        spread: Reals = np.sqrt((self.sds**2).sum(axis=0))
        return math.sqrt(2) * apart / spread

    @property
    def two(self) -> NDArray[np.bool_]:
        """Whether a second population is really there: evidence enough, and cells enough in both."""
        real: NDArray[np.bool_] = (self.delta_bic >= MIN_DELTA_BIC) & (self.weights.min(axis=0) >= MIN_WEIGHT)
        return real


def fit_two(
    x: Reals, w: Reals, start: Populations | None = None, floor: Floor = stain_floor
) -> Populations | None:
    """Fit two normal populations by expectation and maximisation.

    Parameters
    ----------
    x, w
        Values, shape ``(b,)``, ascending, and how many cells have each, shape ``(..., b)``.
    start
        Populations of one sample to start from; the cut of the values that fits best with every cell on its
        side, without them, which is for one sample alone.
    floor
        No population is narrower than this.

    Returns
    -------
    Populations or None
        None of fewer than two different values.
    """
    seen = np.any(w > 0, axis=tuple(range(w.ndim - 1)))
    x, w = x[seen], w[..., seen]
    if start is None:
        if len(x) < 2:
            return None
        parts = _best_cut(x, w, floor)
    else:
        shape = (2, *w.shape[:-1])
        parts = tuple(
            np.broadcast_to(p.reshape(2, *(1,) * (w.ndim - 1)), shape)
            for p in (start.weights, start.means, start.sds**2)
        )
    n = w.sum(axis=-1)
    previous = np.full(n.shape, -math.inf)
    for _ in range(ROUNDS):
        joint = _log_joint(x, parts)
        total = np.logaddexp(joint[0], joint[1])
        two = np.sum(w * total, axis=-1)
        if np.all(two - previous <= _TOLERANCE * n):
            break
        previous = two
        share = np.exp(joint - total) * w
        masses = np.maximum(share.sum(axis=-1), 1e-300)  # a population may die out: its weight is then 0
        parts = (masses / n, *_mean_variance(x, share, masses, floor))
    one = np.sum(w * _log_normal(x, *_mean_variance(x, w, n, floor)), axis=-1)
    weights, means, variances = parts
    order = np.argsort(means, axis=0, kind="stable")
    weights, means, variances = (np.take_along_axis(p, order, axis=0) for p in (weights, means, variances))
    gain = 2 * (two - one) - 3 * np.log(n)  # five parameters against two
    return Populations(weights, means, np.sqrt(variances), np.asarray(gain))


_Parts = tuple[Reals, ...]
"""Weight, mean and variance of both populations, shape ``(2, ...)`` each."""


def _best_cut(x: Reals, w: Reals, floor: Floor) -> _Parts:
    """The cut of one sample's values that fits best with every cell on its side."""
    sums = np.cumsum(np.stack([w, w * x, w * x * x]), axis=1)
    sides = np.stack([sums[:, :-1], sums[:, -1:] - sums[:, :-1]])  # side, power, cut
    mass = sides[:, 0]
    means = sides[:, 1] / mass
    spread = np.maximum(sides[:, 2] / mass - means**2, 0.0)
    variances = np.maximum(spread, floor(means))
    shares = mass / sums[0, -1]
    fit = np.sum(mass * (np.log(shares) - 0.5 * np.log(variances) - 0.5 * spread / variances), axis=0)
    best = int(np.argmax(fit))
    return shares[:, best], means[:, best], variances[:, best]


def _mean_variance(x: Reals, w: Reals, n: Reals, floor: Floor) -> tuple[Reals, Reals]:
    centre = np.sum(w * x, axis=-1) / n
    spread = np.sum(w * (x - centre[..., None]) ** 2, axis=-1) / n
    return centre, np.maximum(spread, floor(centre))


def _log_joint(x: Reals, parts: _Parts) -> Reals:
    weights, means, variances = parts
    return np.log(weights)[..., None] + _log_normal(x, means, variances)


def _log_normal(x: Reals, centre: Reals, variance: Reals) -> Reals:
    v = np.asarray(variance)[..., None]
    density: Reals = -0.5 * ((x - np.asarray(centre)[..., None]) ** 2 / v + np.log(2 * math.pi * v))
    return density
