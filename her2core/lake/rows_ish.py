"""From ISH records to columns of ``slides`` and ``cases``; the columns are described in `schema`."""

from __future__ import annotations

from typing import Any

from her2core.records import SlideRow
from her2core.scoring.genetic import GeneticArm, Heterogeneity
from her2core.scoring.ish import ISHScore, ISHVerdict
from her2core.scoring.ish_nuclei import SecondPopulation

Row = dict[str, Any]


def judged_ish(verdict: ISHVerdict) -> Row:
    """Columns of an ISH verdict: group, recount, and every number with its interval."""
    row: Row = {
        "ish_group": verdict.group,
        "ish_recount_group": verdict.recount_group,
        "ish_possible_groups": list(verdict.possible_groups),
        "ish_borderline": verdict.borderline,
        "n_ish": verdict.n,
        "n_ish_recount": verdict.n_recount,
        "ish_recount_ratio": verdict.recount_ratio,
        "ish_recount_her2_mean": verdict.recount_her2,
    }
    found = verdict.estimates
    for name, estimate in (
        ("ratio", found and found.ratio),
        ("her2_mean", found and found.her2),
        ("cep17_mean", found and found.cep17),
    ):
        if estimate:
            row |= {f"ish_{name}": estimate.value}
            row |= {f"ish_{name}_low": estimate.low, f"ish_{name}_high": estimate.high}
    return row


def scored_ish(score: ISHScore) -> Row:
    """Columns of everything measured on the nuclei of one slide."""
    return {
        **judged_ish(score.verdict),
        "ish_rules": score.rules,
        "ish_rules_version": score.rules_version,
        "n_nuclei": score.n_nuclei,
        "n_nuclei_tumour": score.n_tumour,
        "n_nuclei_evaluable": score.n_evaluable,
        "n_nuclei_flagged": score.n_flagged,
        "n_nuclei_unscorable": score.n_unscorable,
        "n_areas": score.n_areas,
        "her2_spots_mean": score.her2_spots_mean,
        "cep17_spots_mean": score.cep17_spots_mean,
        **_heterogeneity(score.heterogeneity),
        **_population(score.population),
    }


def external_ish(slide: SlideRow) -> Row:
    """What the manifest brings of an ISH done elsewhere."""
    row: Row = {}
    for name in ("ratio", "her2", "cep17"):
        number = getattr(slide, f"ish_{name}")
        row[f"external_ish_{name}"] = None if number is None else float(number)
    words = ("status", "group", "recount_group", "source")
    return row | {f"external_ish_{name}": getattr(slide, f"ish_{name}") for name in words}


def _heterogeneity(found: Heterogeneity | None) -> Row:
    if found is None:
        return {}
    row: Row = {"gh_category": found.category, "copies_cv": found.copies_cv}
    row |= _arm("copies", found.copies_arm)
    if found.ratio_arm is not None:
        row |= _arm("ratio", found.ratio_arm)
    if (two := found.populations) is not None:
        row |= {f"copies_{name}": list(getattr(two, name)) for name in ("means", "sds", "weights")}
        row |= {f"copies_{name}": getattr(two, name) for name in ("delta_bic", "ashman_d", "separated")}
    return row


def _arm(name: str, arm: GeneticArm) -> Row:
    return {f"gh_{name}_{f}": getattr(arm, f) for f in ("fraction", "expected", "beyond_null", "category")}


def _population(found: SecondPopulation | None) -> Row:
    if found is None:
        return {}
    return {
        "population_group": found.group,
        "population_fraction": found.fraction,
        "population_ratio": found.counts.ratio,
        "population_her2_mean": found.counts.her2_mean,
        "population_rest_group": found.rest_group,
    }
