"""What truncation alone does to signal counts, and whether HER2 copies fall into two populations.

A section cuts nuclei, so each signal is seen with a certain chance only, and even a tumour of identical
cells shows nuclei beyond any cut-off. `truncation_null` says how many; `fit_copies` asks whether the copies
form one population or two, allowing neither to be narrower than truncation would make it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_DELTA_BIC = 10.0
"""Advantage in BIC from which a second population is more than a better fit (Kass and Raftery 1995)."""
MIN_WEIGHT = 0.05
"""Least share of the smaller population; the CAP 2009 lower bound of heterogeneity."""
MIN_SEPARATION = 2.0
"""Ashman's D above which two populations are separated (Ashman et al. 1994)."""
_VARIANCE_FLOOR = 0.25
"""Least variance of a population, in signals squared: counts are whole (ours)."""
_ROUNDS = 200
"""Rounds of expectation and maximisation."""
_TOLERANCE = 1e-9
"""Gain in log-likelihood a nucleus below which rounds end."""


def seen_signals(mean: float, retention: float) -> NDArray[np.float64]:
    """Distribution of visible signals in nuclei that show at least one, if all have the same copies.

    True copies are whole: where no whole number gives the mean, the two nearest are mixed.

    Parameters
    ----------
    mean
        Mean number of visible signals, at least 1.
    retention
        Chance of a signal to be visible, in (0, 1).

    Returns
    -------
    NDArray[np.float64]
        Shape ``(m + 1,)``: probability of 0, 1, ..., m signals.

    References
    ----------
    Truncation as binomial loss of signals: Nguyen et al., Lab Invest 2019 (s41374-018-0172-y).
    """
    if not mean >= 1 or not 0 < retention < 1:
        raise ValueError(f"mean {mean}, retention {retention}: expected at least 1, and between 0 and 1")
    copies = math.floor(mean)  # seen when none is lost: never too many
    while (above := _visible_mean(copies + 1, retention)) <= mean:
        copies += 1
    below = _visible_mean(copies, retention)
    share = max(0.0, (mean - below) / (above - below))
    seen = share * _visible(copies + 1, retention)
    seen[:-1] += (1 - share) * _visible(copies, retention)
    return seen


def _visible_mean(copies: int, retention: float) -> float:
    return copies * retention / float(1 - (1 - retention) ** copies)


def _visible(copies: int, retention: float) -> NDArray[np.float64]:
    """Binomial of ``copies`` and ``retention``, given at least one."""
    chance = [0.0]
    for k in range(1, copies + 1):
        ways = math.lgamma(copies + 1) - math.lgamma(k + 1) - math.lgamma(copies - k + 1)
        chance.append(math.exp(ways + k * math.log(retention) + (copies - k) * math.log1p(-retention)))
    return np.array(chance) / math.fsum(chance)


def truncation_null(
    her2_mean: float, cep17_mean: float | None, retention: float, above: tuple[int, int]
) -> float:
    """Share of nuclei beyond a cut-off in a tumour of identical cells with these means.

    Signals of the two probes are lost independently of each other. Cells in S and G2, and copies that vary
    from cell to cell, are not in the model: both add to what is seen beyond it.

    Parameters
    ----------
    her2_mean, cep17_mean
        Mean visible signals of nuclei that show at least one of each; ``cep17_mean`` None: copies alone.
    above
        ``(numerator, denominator)`` that ratio or copies must exceed.
    """
    numerator, denominator = above
    her2 = seen_signals(her2_mean, retention)
    cep17 = np.array([0.0, 1.0]) if cep17_mean is None else seen_signals(cep17_mean, retention)
    h, c = np.arange(len(her2))[:, None], np.arange(len(cep17))[None, :]
    beyond = denominator * h > numerator * c
    return min(1.0, math.fsum((her2[:, None] * cep17[None, :])[beyond].tolist()))


@dataclass(frozen=True, slots=True)
class CopyPopulations:
    """HER2 copies as two populations, and whether they are two.

    Attributes
    ----------
    means, sds, weights
        Signals a nucleus and share of nuclei of the lower and the higher population.
    delta_bic
        BIC of one population less that of two: above 0 favours two.
    ashman_d
        Distance of the means over their spread, ``sqrt(2) |m1 - m2| / sqrt(s1^2 + s2^2)``.

    References
    ----------
    Ashman KM, Bird CM, Zepf SE. Detecting bimodality in astronomical datasets. Astron J 1994;108:2348-2361.
    """

    means: tuple[float, float]
    sds: tuple[float, float]
    weights: tuple[float, float]
    delta_bic: float
    ashman_d: float

    @property
    def separated(self) -> bool:
        """Whether there are two populations by all three criteria."""
        return (
            self.delta_bic >= MIN_DELTA_BIC
            and min(self.weights) >= MIN_WEIGHT
            and self.ashman_d > MIN_SEPARATION
        )


def fit_copies(copies: Sequence[int], nuclei: Sequence[int], retention: float) -> CopyPopulations | None:
    """Fit a mixture of two normal populations to a histogram of copies, from one deterministic start.

    The start is the cut of the sorted copies that fits best with every nucleus on its side; expectation and
    maximisation refine it. No population is narrower than truncation makes one of identical cells,
    ``variance >= mean (1 - retention)``.

    Parameters
    ----------
    copies, nuclei
        Distinct numbers of signals, ascending, and how many nuclei show each.

    Returns
    -------
    CopyPopulations or None
        None where all nuclei show the same number, and nothing can be told apart.
    """
    if len(copies) < 2:
        return None
    x, w = np.array(copies, np.float64), np.array(nuclei, np.float64)
    n = float(w.sum())
    one = float(w @ _log_normal(x, *_moments(x, w, retention)))
    starts = [_cut(x, w, k, retention) for k in range(1, len(x))]
    best = max(range(len(starts)), key=lambda k: starts[k][1])
    parts, _ = starts[best]
    previous = -math.inf
    for _ in range(_ROUNDS):
        joint = np.stack([math.log(weight) + _log_normal(x, m, v) for weight, m, v in parts])
        total = np.logaddexp(joint[0], joint[1])
        two = float(w @ total)
        if two - previous <= _TOLERANCE * n:
            break
        previous = two
        share = np.exp(joint - total) * w
        masses = share.sum(axis=1)
        if masses.min() <= 0:
            break
        parts = [(float(m / n), *_moments(x, s, retention)) for m, s in zip(masses, share, strict=True)]
    (w1, m1, v1), (w2, m2, v2) = sorted(parts, key=lambda part: part[1])
    return CopyPopulations(
        means=(m1, m2),
        sds=(math.sqrt(v1), math.sqrt(v2)),
        weights=(w1, w2),
        delta_bic=2 * (two - one) - 3 * math.log(n),  # five parameters against two
        ashman_d=math.sqrt(2) * (m2 - m1) / math.sqrt(v1 + v2),
    )


_Part = tuple[float, float, float]
"""Weight, mean and variance of a population."""


def _cut(
    x: NDArray[np.float64], w: NDArray[np.float64], k: int, retention: float
) -> tuple[list[_Part], float]:
    """Two populations, below and from index ``k``, and how likely every nucleus is on its side."""
    parts, fit, n = [], 0.0, float(w.sum())
    for side in (slice(None, k), slice(k, None)):
        share = float(w[side].sum()) / n
        mean, variance = _moments(x[side], w[side], retention)
        parts.append((share, mean, variance))
        fit += float(w[side] @ (math.log(share) + _log_normal(x[side], mean, variance)))
    return parts, fit


def _moments(x: NDArray[np.float64], w: NDArray[np.float64], retention: float) -> tuple[float, float]:
    mean = float(x @ w / w.sum())
    variance = float((x - mean) ** 2 @ w / w.sum())
    return mean, max(variance, mean * (1 - retention), _VARIANCE_FLOOR)


def _log_normal(x: NDArray[np.float64], mean: float, variance: float) -> NDArray[np.float64]:
    density: NDArray[np.float64] = -0.5 * ((x - mean) ** 2 / variance + math.log(2 * math.pi * variance))
    return density
