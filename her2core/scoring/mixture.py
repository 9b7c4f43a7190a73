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
"""Least share of the smaller population: spec §5.2, and the CAP 2009 lower bound of heterogeneity."""
MIN_SD_OD = 0.02
"""Least standard deviation of a population, in OD, about ten grey levels: a spike is no population (ours)."""
STARTS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Shares of the cells below the cuts that fits start from: a single start may end in a tail of few cells. On
some fifty histograms 150 random starts found nothing better by 0.3 in log-likelihood (ours)."""
CYCLES = 200
"""Most extrapolations of expectation and maximisation, three rounds each."""
_TOLERANCE = 1e-4
"""Gain in log-likelihood below which a cycle is the last; `MIN_DELTA_BIC` is one of 5 (ours)."""
_NONE = 1e-300
"""Cells of a population that died out."""
_FAR = 30.0
"""Log-odds and log-variances beyond this are none."""


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
        Populations of one sample to start from, where one resembles the others. Without them many starts are
        made, which is for one sample alone, and the likeliest fit is kept: if there is one, of those whose
        smaller population holds `MIN_WEIGHT`, since a tail of few cells is none.
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
        parts, two = _best(*_maximise(x, w, _cuts(x, w, floor), floor))
    else:
        shape = (2, *w.shape[:-1])
        given = (start.weights, start.means, start.sds**2)
        begun = np.stack([np.broadcast_to(p.reshape(2, *(1,) * (w.ndim - 1)), shape) for p in given])
        parts, two = _maximise(x, w, begun, floor)
    n = w.sum(axis=-1)
    one = np.sum(w * _log_normal(x, *_mean_variance(x, w, n, floor)), axis=-1)
    order = np.argsort(parts[1], axis=0, kind="stable")
    weights, means, variances = (np.take_along_axis(p, order, axis=0) for p in parts)
    gain = 2 * (two - one) - 3 * np.log(n)  # five parameters against two
    return Populations(weights, means, np.sqrt(variances), np.asarray(gain))


def _cuts(x: Reals, w: Reals, floor: Floor) -> Reals:
    """One sample cut in two at each of `STARTS`, shape ``(3, 2, cuts)``."""
    below = np.cumsum(w)
    at = np.unique(np.searchsorted(below[:-1], np.array(STARTS) * below[-1]).clip(0, len(x) - 2))
    lower = np.arange(len(x)) <= at[:, None]
    sides = np.stack([lower, ~lower]) * w
    masses = sides.sum(axis=-1)
    return np.stack([masses / below[-1], *_mean_variance(x, sides, masses, floor)])


def _best(parts: Reals, likelihood: Reals) -> tuple[Reals, Reals]:
    """The fit of one sample that counts, of several."""
    enough = parts[0].min(axis=0) >= MIN_WEIGHT
    best = int(np.argmax(np.where(enough | ~enough.any(), likelihood, -np.inf)))
    return parts[..., best], likelihood[best]


def _maximise(x: Reals, w: Reals, parts: Reals, floor: Floor) -> tuple[Reals, Reals]:
    """Expectation and maximisation to the end, from many starts or of many samples at once.

    Two rounds show where further ones lead, and the third begins there unless that is no better.

    Parameters
    ----------
    parts
        Weight, mean and variance of both populations, shape ``(3, 2, ...)``.

    Returns
    -------
    tuple
        The parts, and the log-likelihood, shape ``(...)``.

    References
    ----------
    Varadhan R, Roland C. Simple and globally convergent methods for accelerating the convergence of any EM
    algorithm. Scand J Stat 2008;35:335-353 (SQUAREM, third step length).
    """
    previous = np.full(parts.shape[2:], -np.inf)
    for _ in range(CYCLES):
        first, now = _round(x, w, parts, floor)
        if np.all(now - previous <= _TOLERANCE):
            break
        previous = now
        second, before = _round(x, w, first, floor)
        leapt, after = _round(x, w, _leap(parts, first, second, floor), floor)
        parts = np.where(after >= before, leapt, second)
    return parts, now


def _round(x: Reals, w: Reals, parts: Reals, floor: Floor) -> tuple[Reals, Reals]:
    """One round, and the log-likelihood before it."""
    joint = _log_joint(x, parts)
    total = np.logaddexp(joint[0], joint[1])
    share = np.exp(joint - total) * w
    masses = np.maximum(share.sum(axis=-1), _NONE)  # a population may die out: its weight is then 0
    after = np.stack([masses / w.sum(axis=-1), *_mean_variance(x, share, masses, floor)])
    return after, np.sum(w * total, axis=-1)


def _leap(parts: Reals, first: Reals, second: Reals, floor: Floor) -> Reals:
    """Where two rounds from ``parts`` lead if they go on like that: of log-odds, means and log-variances."""
    free = (np.stack([np.log(p[0, 0] / p[0, 1]), *p[1], *np.log(p[2])]) for p in (parts, first, second))
    begun, one, two = free
    step, bend = one - begun, two - 2 * one + begun
    bent = np.sqrt(np.sum(bend**2, axis=0))
    far = np.maximum(np.sqrt(np.sum(step**2, axis=0)) / np.where(bent > 0, bent, np.inf), 1.0)
    odds, *means, low, high = begun + 2 * far * step + far**2 * bend
    weight = 1 / (1 + np.exp(-np.clip(odds, -_FAR, _FAR)))
    centres = np.stack(means)
    variances = np.maximum(np.exp(np.clip(np.stack([low, high]), -_FAR, _FAR)), floor(centres))
    return np.stack([np.stack([weight, 1 - weight]), centres, variances])


def _mean_variance(x: Reals, w: Reals, n: Reals, floor: Floor) -> tuple[Reals, Reals]:
    centre = np.sum(w * x, axis=-1) / n
    spread = np.sum(w * (x - centre[..., None]) ** 2, axis=-1) / n
    return centre, np.maximum(spread, floor(centre))


def _log_joint(x: Reals, parts: Reals) -> Reals:
    weights, means, variances = parts
    joint: Reals = np.log(weights)[..., None] + _log_normal(x, means, variances)
    return joint


def _log_normal(x: Reals, centre: Reals, variance: Reals) -> Reals:
    v = np.asarray(variance)[..., None]
    density: Reals = -0.5 * ((x - np.asarray(centre)[..., None]) ** 2 / v + np.log(2 * math.pi * v))
    return density
