"""What truncation alone does to signal counts, and whether HER2 copies fall into two populations.

A section cuts nuclei, so each signal is seen with a certain chance only, and even a tumour of identical
cells shows nuclei beyond any cut-off. `truncation_null` estimates how many; `fit_copies` tests if the copies
form one population or two, allowing neither to be narrower than truncation would make it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from her2core.scoring.mixture import MIN_DELTA_BIC, MIN_WEIGHT, Floor, fit_two

Reals = NDArray[np.float64]

MIN_SEPARATION = 2.0
"""Ashman's D above which two populations are separated (Ashman et al. 1994)."""
_VARIANCE_FLOOR = 0.25
"""Least variance of a population, in signals squared: counts are whole (ours)."""


def seen_signals(mean: float, retention: float) -> Reals:
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
    NDArray
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


def _visible(copies: int, retention: float) -> Reals:
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
        Distance of the means over their spread, as `mixture.Populations.ashman_d`.
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
    """Fit a mixture of two normal populations to a histogram of copies.

    No population is narrower than truncation makes one of identical cells, ``variance >= mean (1 -
    retention)``.

    Parameters
    ----------
    copies, nuclei
        Distinct numbers of signals, ascending, and how many nuclei show each.

    Returns
    -------
    CopyPopulations or None
        None where all nuclei show the same number, and nothing can be separated.
    """
    x, w = np.array(copies, np.float64), np.array(nuclei, np.float64)
    found = fit_two(x, w, floor=truncation_floor(retention))
    if found is None:
        return None
    (m1, m2), (s1, s2), (w1, w2) = (each.tolist() for each in (found.means, found.sds, found.weights))
    return CopyPopulations((m1, m2), (s1, s2), (w1, w2), float(found.delta_bic), float(found.ashman_d))


def truncation_floor(retention: float) -> Floor:
    """Least variance of a population of nuclei, by its mean, if each signal is seen with this chance."""

    def floor(mean: Reals) -> Reals:
        return np.maximum(mean * (1 - retention), _VARIANCE_FLOOR)

    return floor
