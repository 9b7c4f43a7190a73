"""Genetic heterogeneity: how many nuclei are amplified, and how many truncation alone would explain.

References
----------
Vance GH et al. Genetic heterogeneity in HER2 testing in breast cancer. Arch Pathol Lab Med 2009;133:611-612.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from her2core.guidelines.rules_ish import ISHRules
from her2core.params import ISHScoreParams
from her2core.scoring.copynumber import CopyPopulations, fit_copies, truncation_null
from her2core.scoring.signals import SignalCounts
from her2core.statistics import wilson


@dataclass(frozen=True, slots=True)
class GeneticArm:
    """One arm of the CAP 2009 definition of genetic heterogeneity.

    Attributes
    ----------
    amplified
        Nuclei beyond the arm's cut-off.
    fraction
        Their share of all evaluable nuclei.
    expected
        Share that truncation alone would put there if all cells were like the tumour's bulk: like its lower
        population where there are two, else like its mean. None if underpowered.
    beyond_null
        Whether even the lower end of the share's 95 % Wilson interval exceeds ``expected``.
    category
        ``underpowered``, ``none``, ``heterogeneous`` or ``amplified``.
    """

    amplified: int
    fraction: float
    expected: float | None
    beyond_null: bool | None
    category: str

    @property
    def excess(self) -> float | None:
        """Share of nuclei beyond the cut-off that truncation does not explain; may be below 0."""
        return None if self.expected is None else self.fraction - self.expected


@dataclass(frozen=True, slots=True)
class Heterogeneity:
    """Genetic heterogeneity of all evaluable nuclei.

    Attributes
    ----------
    ratio_arm
        Nuclei with a ratio above 2.2; None for a single probe.
    copies_arm
        Nuclei with more than 6 HER2 signals.
    copies_cv
        Standard deviation over mean of HER2 signals a nucleus.
    populations
        Two-component fit of HER2 signals; None if underpowered or where all nuclei show the same number.
    """

    n: int
    ratio_arm: GeneticArm | None
    copies_arm: GeneticArm
    copies_cv: float
    populations: CopyPopulations | None

    @property
    def category(self) -> str:
        """Category of the arm that CAP 2009 means for the assay: ratio if there are two probes."""
        return (self.ratio_arm or self.copies_arm).category


def heterogeneity(counts: SignalCounts, params: ISHScoreParams, rules: ISHRules) -> Heterogeneity | None:
    """Genetic heterogeneity of all nuclei of a count; None without nuclei."""
    her2_mean, rule, n = counts.her2_mean, rules.heterogeneity, counts.n
    if her2_mean is None:
        return None
    by_copies: Counter[int] = Counter()
    for her2, _, k in counts.nuclei:
        by_copies[her2] += k
    spread = math.fsum(k * (her2 - her2_mean) ** 2 for her2, k in by_copies.items()) / n
    copies = sorted(by_copies)
    if n < rule.min_nuclei:
        populations = bulk = None
    else:
        populations = fit_copies(copies, [by_copies[c] for c in copies], params.retention)
        bulk = her2_mean
        if populations and populations.separated:
            bulk = max(1.0, populations.means[0])  # a mean of ones may be rounded below one

    def arm(*, ratio: bool) -> GeneticArm:
        above = rule.ratio_above if ratio else rule.copies_above
        amplified = counts.beyond(above, ratio=ratio)
        expected = None
        if bulk is not None:
            expected = truncation_null(bulk, counts.cep17_mean if ratio else None, params.retention, above)
        return GeneticArm(
            amplified=amplified,
            fraction=amplified / n,
            expected=expected,
            beyond_null=None if expected is None else wilson(amplified, n)[0] > expected,
            category=rule.category(amplified, n),
        )

    return Heterogeneity(
        n=n,
        ratio_arm=arm(ratio=True) if counts.dual else None,
        copies_arm=arm(ratio=False),
        copies_cv=math.sqrt(spread) / her2_mean,
        populations=populations,
    )
