"""Indices of diversity and spread, of many samples at once.

Every function takes counts with any number of leading axes and gives one value a sample, NaN where the index
is not defined: a whole slide and what is left of it without each block go through the same formula.

References
----------
Rao's Q as the index of HER2 heterogeneity: Potts SJ et al. Evaluating tumor heterogeneity in
immunohistochemistry-stained breast cancer tissue. Lab Invest 2012;92:1342-1357.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

_BISECTIONS = 30
"""Halvings of the range of OD: below a millionth of a bin."""
STEPS = 4
"""Scores a cell can have, 0 to 3: evenness divides by all of them, seen or not."""
MIN_MEAN_OD = 0.05
"""Below this mean, in OD, a coefficient of variation is noise over nothing (spec §5.2)."""


def shannon(counts: Reals) -> Reals:
    """Entropy in nats with the Miller-Madow correction ``(S - 1) / 2n``, shape ``(...)``; 0 to ln 4.

    Parameters
    ----------
    counts
        Cells of score 0, 1, 2, 3, shape ``(..., 4)``. ``S`` is the number of scores that are seen.

    References
    ----------
    Miller GA. Note on the bias of information estimates. In: Information Theory in Psychology, 1955.
    """
    n, p = _shares(counts)
    plain = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)
    corrected: Reals = plain + (np.count_nonzero(counts, axis=-1) - 1) / (2 * n)
    return np.clip(corrected, 0.0, math.log(STEPS))


def evenness(counts: Reals) -> Reals:
    """`shannon` over ln 4, 0 to 1."""
    return shannon(counts) / math.log(STEPS)


def gini_simpson(counts: Reals) -> Reals:
    """Chance that two different cells differ in score: ``1 - sum n_i (n_i - 1) / (n (n - 1))``."""
    n = counts.sum(axis=-1)
    pairs = np.where(n > 1, n * (n - 1), np.nan)
    same: Reals = np.sum(counts * (counts - 1), axis=-1) / pairs
    return 1 - same


def rao_q(counts: Reals) -> Reals:
    """Mean difference in score of two cells, ``sum_ij |i - j| / 3 p_i p_j``; 0 to 0.5 (half 0, half 3)."""
    _, p = _shares(counts)
    step = np.arange(STEPS)
    differences = np.abs(step[:, None] - step) / (STEPS - 1)
    mean: Reals = np.einsum("...i,ij,...j->...", p, differences, p)
    return mean


def _shares(counts: Reals) -> tuple[Reals, Reals]:
    total = counts.sum(axis=-1)
    n = np.where(total > 0, total, np.nan)
    return n, counts / n[..., None]


def mean(x: Reals, w: Reals) -> Reals:
    """Mean of values ``x``, shape ``(b,)``, ascending, of which there are ``w``, shape ``(..., b)``."""
    n = w.sum(axis=-1)
    total: Reals = np.sum(w * x, axis=-1)
    return total / np.where(n > 0, n, np.nan)


def sd(x: Reals, w: Reals) -> Reals:
    """Standard deviation, with n - 1; NaN where all values are equal. Arguments as in `mean`."""
    n = w.sum(axis=-1)
    squares, *_ = _moments(x, w, 2)
    return np.sqrt(np.where(_varied(x, w), squares, np.nan) / np.where(n > 1, n - 1, np.nan))


def cv(x: Reals, w: Reals) -> Reals:
    """Coefficient of variation: `sd` over `mean`; NaN where the mean is below `MIN_MEAN_OD`."""
    centre = mean(x, w)
    return sd(x, w) / np.where(centre >= MIN_MEAN_OD, centre, np.nan)


def mad(x: Reals, w: Reals) -> Reals:
    """Median of the absolute differences from the median, not scaled to a normal's deviation."""
    centre = _median(np.broadcast_to(x, w.shape), w)
    away = np.abs(x - centre[..., None])
    order = np.argsort(away, axis=-1, kind="stable")
    middle = _median(np.take_along_axis(away, order, -1), np.take_along_axis(w, order, -1))
    return np.where(np.isnan(sd(x, w)), np.nan, middle)


def binned_mad(width: float, w: Reals) -> Reals:
    """`mad` of values in bins of this width from 0 up, spread evenly over each bin; shape ``(..., b)``."""
    edges = np.concatenate([np.zeros((*w.shape[:-1], 1)), np.cumsum(w, axis=-1)], axis=-1)
    half = edges[..., -1] / 2
    b = w.shape[-1]

    def up_to(value: Reals) -> Reals:
        place = np.clip(value / width, 0.0, float(b))
        at = np.minimum(place.astype(np.int64), b - 1)[..., None]
        below, inside = (np.take_along_axis(v, at, -1)[..., 0] for v in (edges, w))
        return np.asarray(below + (place - at[..., 0]) * inside)

    def first(enough: Callable[[Reals], Reals]) -> Reals:
        low, high = np.zeros_like(half), np.full_like(half, b * width)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            reached = enough(middle) >= half
            low, high = np.where(reached, low, middle), np.where(reached, middle, high)
        return high

    centre = first(up_to)
    return first(lambda away: up_to(centre + away) - up_to(centre - away))


def gini(x: Reals, w: Reals) -> Reals:
    """Gini coefficient ``sum (2r - n - 1) x_(r) / (n sum x)`` of values clipped at 0; 0 to (n - 1) / n."""
    clipped = np.maximum(x, 0.0)
    n = w.sum(axis=-1, keepdims=True)
    below = np.cumsum(w, axis=-1) - w
    ranked = np.sum(w * (2 * below + w - n) * clipped, axis=-1)  # ranks of equal values, summed
    total = n[..., 0] * np.sum(w * clipped, axis=-1)
    found: Reals = ranked / np.where(total > 0, total, np.nan)
    return np.where(np.isnan(sd(x, w)), np.nan, found)


def bimodality(x: Reals, w: Reals) -> Reals:
    """Bimodality coefficient ``(g^2 + 1) / (k + 3 (n - 1)^2 / ((n - 2) (n - 3)))``; above 5/9 may be two.

    ``g`` and ``k`` are the sample skewness and excess kurtosis, corrected for bias as usual with this
    coefficient. A skewed single population raises it: 0.50 of a lognormal, 0.33 of a normal.

    References
    ----------
    SAS/STAT User's Guide, The CLUSTER Procedure: Miscellaneous Formulas.
    """
    n = w.sum(axis=-1)
    n = np.where((n > 3) & ~np.isnan(sd(x, w)), n, np.nan)
    m2, m3, m4 = (moment / n for moment in _moments(x, w, 4))
    m2 = np.where(m2 > 0, m2, np.nan)
    skew = m3 / m2**1.5 * np.sqrt(n * (n - 1)) / (n - 2)
    excess = ((n + 1) * (m4 / m2**2 - 3) + 6) * (n - 1) / ((n - 2) * (n - 3))
    found: Reals = (skew**2 + 1) / (excess + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3)))
    return found


def _varied(x: Reals, w: Reals) -> NDArray[np.bool_]:
    """Whether a sample has two different values: compared directly, as sums of equal ones are rounded."""
    seen = w > 0
    first, last = np.argmax(seen, axis=-1), len(x) - 1 - np.argmax(seen[..., ::-1], axis=-1)
    varied: NDArray[np.bool_] = x[first] < x[last]
    return varied


def _moments(x: Reals, w: Reals, highest: int) -> list[Reals]:
    """Sums of the 2nd, 3rd, ... power of the differences from each sample's mean."""
    centre = np.asarray(mean(x, w))[..., None]
    away = x - np.where(np.isnan(centre), 0.0, centre)
    power, sums = w * away, []
    for _ in range(2, highest + 1):
        power = power * away
        sums.append(np.sum(power, axis=-1))
    return sums


def _median(x: Reals, w: Reals) -> Reals:
    """Median of each sample: values ascending, shape ``(..., b)``, the mean of the two middle ones."""
    up_to = np.cumsum(w, axis=-1)
    n = up_to[..., -1:]
    low, high = ((up_to <= rank).sum(axis=-1, keepdims=True) for rank in (np.floor((n - 1) / 2), n // 2))
    last = x.shape[-1] - 1
    values = [np.take_along_axis(x, np.minimum(at, last), -1)[..., 0] for at in (low, high)]
    return np.where(n[..., 0] > 0, (values[0] + values[1]) / 2, np.nan)
