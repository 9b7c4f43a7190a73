"""Agreement beyond chance, from sums: Cohen's and Fleiss' kappa, the intraclass correlation, the ONEST curve.

References
----------
Cohen J. Weighted kappa. Psychol Bull 1968;70:213-220.
Fleiss JL. Measuring nominal scale agreement among many raters. Psychol Bull 1971;76:378-382.
Shrout PE, Fleiss JL. Intraclass correlations: uses in assessing rater reliability. Psychol Bull
1979;86:420-428. Reisenbichler ES, Han G, et al. Prospective multi-institutional evaluation of pathologist
assessment of PD-L1 assays for patient selection in triple negative breast cancer. Mod Pathol
2020;33:1746-1752 (ONEST).
"""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray

from her2core.analysis.resampling import Floats, divided

LINEAR, QUADRATIC, UNWEIGHTED = 1, 2, 0
"""Power of the distance between levels that a disagreement weighs; 0 is all alike."""


def confusion(a: NDArray[np.intp], b: NDArray[np.intp], levels: int) -> Floats:
    """One row a slide, shape ``(n, levels²)``: 1 in the cell of its two levels."""
    cells = np.zeros((len(a), levels * levels))
    cells[np.arange(len(a)), a * levels + b] = 1.0
    return cells


def kappa(cells: Floats, weight: int = UNWEIGHTED) -> Floats:
    """Cohen's kappa ``1 - sum(w observed) / sum(w expected)`` of confusion matrices.

    Parameters
    ----------
    cells
        Shape ``(..., levels²)``, rows of the first rater.
    weight
        A disagreement over d levels weighs ``d ** weight``.

    Returns
    -------
    ndarray
        NaN where chance alone leaves no disagreement: all slides of one level.
    """
    levels = round(cells.shape[-1] ** 0.5)
    observed = cells.reshape(*cells.shape[:-1], levels, levels)
    steps = abs(np.subtract.outer(np.arange(levels), np.arange(levels)))
    w = (steps > 0).astype(np.float64) if weight == UNWEIGHTED else steps.astype(np.float64) ** weight
    rows, columns = observed.sum(-1), observed.sum(-2)
    total = rows.sum(-1)
    expected = (w * (rows[..., :, None] * columns[..., None, :])).sum((-1, -2))
    return 1 - divided((w * observed).sum((-1, -2)) * total, expected)


def cohens_kappa(
    a: NDArray[np.integer], b: NDArray[np.integer], levels: int, weight: int = QUADRATIC
) -> float:
    """Cohen's kappa of two raters' levels, each from 0; NaN where it is not defined."""
    return float(kappa(confusion(a.astype(np.intp), b.astype(np.intp), levels).sum(0)[None], weight)[0])


def fleiss_terms(counts: Floats) -> Floats:
    """What Fleiss' kappa is a function of, a row a slide: agreeing pairs, and the share of each level.

    Parameters
    ----------
    counts
        Raters that gave each level, shape ``(n, levels)``; as many raters in every row.
    """
    raters = counts.sum(1, keepdims=True)
    pairs = ((counts * counts).sum(1, keepdims=True) - raters) / (raters * (raters - 1))
    return np.hstack([np.ones((len(counts), 1)), pairs, counts / raters])


def fleiss(sums: Floats) -> Floats:
    """Fleiss' kappa of sums of `fleiss_terms`, shape ``(..., 2 + levels)``."""
    n = sums[..., :1]
    means = divided(sums, np.broadcast_to(n, sums.shape))
    chance = (means[..., 2:] ** 2).sum(-1)
    return divided(means[..., 1] - chance, 1 - chance)


def icc_terms(ratings: Floats) -> Floats:
    """What the ICC is a function of, a row a slide; ratings of shape ``(n, raters)``."""
    total = ratings.sum(1, keepdims=True)
    one = np.ones((len(ratings), 1))
    return np.hstack([one, (ratings**2).sum(1, keepdims=True), total**2 / ratings.shape[1], ratings])


def icc_agreement(sums: Floats) -> Floats:
    """ICC(2,1) of sums of `icc_terms`: two-way random effects, absolute agreement, a single rater."""
    n, raters = sums[..., 0], sums.shape[-1] - 3
    columns = sums[..., 3:]
    mean2 = divided(columns.sum(-1) ** 2, n * raters)
    rows = sums[..., 2] - mean2
    between = divided((columns**2).sum(-1), n) - mean2
    error = sums[..., 1] - mean2 - rows - between
    ms_rows, ms_raters = divided(rows, n - 1), between / (raters - 1)
    ms_error = divided(error, (n - 1) * (raters - 1))
    return divided(
        ms_rows - ms_error, ms_rows + (raters - 1) * ms_error + raters * (ms_raters - ms_error) / n
    )


def agree_all(counts: Floats, raters: int) -> Floats:
    """Chance that ``raters`` drawn from those of a slide all give one level, shape ``(n,)``.

    The mean over slides is the mean of the ONEST curve over all orders of the raters, without drawing any:
    of R raters, of whom n_c gave level c, it is ``sum_c C(n_c, k) / C(R, k)``.
    """
    ways = np.array([comb(n, raters) for n in range(int(counts.sum(1).max(initial=0)) + 1)], np.float64)
    whole = counts.astype(np.intp)
    found: Floats = ways[whole].sum(1) / ways[whole.sum(1)]
    return found
