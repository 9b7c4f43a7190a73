"""From nuclei to ISH group: pure functions of the nuclei's columns, so any rule or cut-off can be tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from her2core.errors import Reason
from her2core.guidelines.rules_ish import ISHRules
from her2core.params import ISHScoreParams
from her2core.records import Quality
from her2core.scoring.genetic import Heterogeneity, heterogeneity
from her2core.scoring.ish_nuclei import MeasuredNuclei, SecondPopulation, count_nuclei, second_population
from her2core.scoring.signals import ISHCounts, ISHEstimates, estimate


@dataclass(frozen=True, slots=True)
class ISHVerdict:
    """ISH group of a slide or a specimen, or why there is none.

    Attributes
    ----------
    group
        See `rules_ish.SINGLE_GROUPS`; None if indeterminate. What it means beside IHC: `ISHRules.resolve`.
    recount_group
        Group of the reserve sample; None if it is too small for a recount.
    reasons
        Codes of `errors.Reason`, sorted.
    possible_groups
        Groups that the 95 % intervals leave open, in the order of the guideline.
    crossed
        Cut-offs inside these intervals (``ratio 2``, ``copies 4``, ``copies 6``).
    n, n_recount
        Nuclei of the first count, and of the recount (0 if there is none).
    estimates
        Ratio and means of the first count; None without nuclei.
    recount_ratio, recount_her2
        Ratio and mean HER2 signals of the recount.
    """

    group: str | None
    recount_group: str | None
    reasons: tuple[str, ...]
    possible_groups: tuple[str, ...]
    crossed: tuple[str, ...]
    n: int
    n_recount: int
    estimates: ISHEstimates | None
    recount_ratio: float | None
    recount_her2: float | None

    @property
    def borderline(self) -> bool:
        """Whether an interval crosses ratio 2.0 or 4.0 or 6.0 copies, also where the group stands."""
        return bool(self.crossed)


def judge_ish(
    counts: ISHCounts,
    params: ISHScoreParams,
    rules: ISHRules,
    reasons: Iterable[str] = (),
    *,
    readable: bool = True,
) -> ISHVerdict:
    """Apply a rule set to counts, unless there are too few nuclei or the slide is not readable.

    Parameters
    ----------
    reasons
        What is known already (quality control, resolution); kept beside what is found here.
    readable
        False if quality control failed or signals cannot be resolved: then no group is given.
    """
    found = {str(reason) for reason in reasons}
    count, recount = counts.split(params.min_nuclei)
    enough = counts.all.n >= params.min_nuclei
    if not enough:
        found.add(Reason.INSUFFICIENT_NUCLEI)
    elif counts.all.n < params.full_nuclei:
        found.add(Reason.LIMITED_NUCLEI)
    estimates = estimate(count, params.replicates)
    group: str | None = None
    possible: tuple[str, ...] = ()
    crossed: tuple[str, ...] = ()
    if readable and enough and estimates is not None:
        group = rules.group(count.n, count.her2, count.cep17)
        ratio = estimates.ratio.range if estimates.ratio else None
        copies = estimates.her2.range
        possible, crossed = rules.possible(ratio, copies), rules.crossed(ratio, copies)
    if not (readable and enough):
        recount = None
    return ISHVerdict(
        group=group,
        recount_group=rules.group(recount.n, recount.her2, recount.cep17) if recount else None,
        reasons=tuple(sorted(found)),
        possible_groups=possible,
        crossed=crossed,
        n=count.n,
        n_recount=recount.n if recount else 0,
        estimates=estimates,
        recount_ratio=recount.ratio if recount else None,
        recount_her2=recount.her2_mean if recount else None,
    )


@dataclass(frozen=True, slots=True)
class ISHScore:
    """Everything measured on the nuclei of one slide.

    Attributes
    ----------
    n_nuclei, n_tumour, n_evaluable
        Nuclei found, tumour nuclei among them, and those that are counted.
    n_flagged
        Tumour nuclei left out for a flag.
    n_unscorable, n_well_shaped
        Tumour nuclei whose signals cannot be counted or are missing, and those they are a share of.
    n_areas
        Squares of ``area_um`` with at least ``area_nuclei`` evaluable nuclei.
    her2_spots_mean, cep17_spots_mean
        Mean spots an evaluable nucleus, clusters uncounted, whatever the category counts.
    """

    verdict: ISHVerdict
    counts: ISHCounts
    heterogeneity: Heterogeneity | None
    population: SecondPopulation | None
    rules: str
    rules_version: int
    n_nuclei: int
    n_tumour: int
    n_evaluable: int
    n_flagged: int
    n_unscorable: int
    n_well_shaped: int
    n_areas: int
    her2_spots_mean: float | None
    cep17_spots_mean: float | None


def score_ish(
    nuclei: MeasuredNuclei,
    params: ISHScoreParams,
    rules: ISHRules,
    quality: Quality,
    unresolved: str | None = None,
) -> ISHScore:
    """Score one slide.

    A slide most of whose nuclei are out of focus is indeterminate: what is left is in focus by chance.

    Parameters
    ----------
    nuclei
        All nuclei of the slide, in any order.
    quality
        Verdict of quality control: ``fail`` makes the slide indeterminate; its reasons are passed on.
    unresolved
        Reason why single signals cannot be resolved (pixels too coarse), which makes the slide
        indeterminate; None where they can.
    """
    counts = count_nuclei(nuclei, params)
    evaluable, unscorable = nuclei.evaluable(params), nuclei.unscorable(params)
    n, n_unscorable = counts.all.n, int(np.count_nonzero(unscorable))
    n_well_shaped = int(np.count_nonzero(nuclei.well_shaped(params)))
    n_areas = _areas(nuclei.y_um[evaluable], nuclei.x_um[evaluable], params)
    reasons = set(quality.reasons)
    if unresolved is not None:
        reasons.add(unresolved)
    if 100 * n_unscorable > params.max_unscorable_percent * n_well_shaped:
        reasons.add(Reason.UNSCORABLE_NUCLEI)
    n_blurred = int(np.count_nonzero(nuclei.blurred(params)))
    blurred = 100 * n_blurred > params.max_blurred_percent * n_well_shaped
    if blurred:
        reasons.add(Reason.BLUR)
    if n_areas < 2:
        reasons.add(Reason.FEW_AREAS)
    readable = quality.verdict != "fail" and unresolved is None and not blurred
    cep17_spots = nuclei.cep17_spots
    return ISHScore(
        verdict=judge_ish(counts, params, rules, reasons, readable=readable),
        counts=counts,
        heterogeneity=heterogeneity(counts.all, params, rules) if readable else None,
        population=second_population(nuclei, params, rules) if readable else None,
        rules=rules.name,
        rules_version=rules.version,
        n_nuclei=len(nuclei.tumour),
        n_tumour=int(np.count_nonzero(nuclei.tumour)),
        n_evaluable=n,
        n_flagged=int(np.count_nonzero(nuclei.tumour & nuclei.flagged(params))),
        n_unscorable=n_unscorable,
        n_well_shaped=n_well_shaped,
        n_areas=n_areas,
        her2_spots_mean=int(nuclei.her2_spots[evaluable].sum()) / n if n else None,
        cep17_spots_mean=int(cep17_spots[evaluable].sum()) / n if n and cep17_spots is not None else None,
    )


def _areas(y_um: NDArray[np.float64], x_um: NDArray[np.float64], params: ISHScoreParams) -> int:
    """Squares of a fixed grid that hold nuclei enough."""
    squares = Counter(
        zip(
            np.floor(y_um / params.area_um).astype(np.int64).tolist(),
            np.floor(x_um / params.area_um).astype(np.int64).tolist(),
            strict=True,
        )
    )
    return sum(nuclei >= params.area_nuclei for nuclei in squares.values())
