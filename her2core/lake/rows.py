"""From records to rows of the lake tables; the columns are described in `schema`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from her2core.cases.patients import PatientScore, SpecimenView
from her2core.cases.specimens import CaseScore, SlideOutcome
from her2core.errors import Reason
from her2core.guidelines.rules_ihc import (
    ClassCounts,
    RuleSet,
    load_rules,
    reader_stratum,
    stratum,
)
from her2core.lake.rows_ish import external_ish, judged_ish, scored_ish
from her2core.lake.schema import CASES, COMMITTED, SLIDES
from her2core.params import ScoreParams
from her2core.preanalytic import preanalytic_notes
from her2core.records import OutlinesUsed, RoiUsed
from her2core.scoring.ihc import (
    OD_PERCENTS,
    Expression,
    Verdict,
)

Row = dict[str, Any]


def slide_row(outcome: SlideOutcome, params: ScoreParams, ladder_od: Sequence[float]) -> Row:
    """Row of the ``slides`` table; what is not known of a slide that failed is null."""
    row: Row = dict.fromkeys(SLIDES.schema.names)
    slide, info, profile, score = outcome.slide, outcome.info, outcome.profile, outcome.score
    for part in (slide, info, profile and profile.quality, profile and profile.stain):
        row |= {k: v for k, v in _fields(part).items() if k in row and not k.startswith("ish_")}
    row |= {
        "assay": str(slide.assay),
        "uri": slide.uri,
        "channels": slide.channels,
        "background": slide.background,
        "reader_consensus": reader_stratum(load_rules(params.rules), slide.reader_score),
        "preanalytic": preanalytic_notes(slide) or None,
        "state": str(outcome.state),
        "message": outcome.message,
        "tumour_mask": outcome.tumour_mask,
        "probes": list(outcome.probes) or None,
        "picture": outcome.picture,
        "regions_picture": outcome.regions_picture,
        "fields_picture": outcome.fields_picture,
        "contours": outcome.contours,
        "score_key": outcome.score_key,
    }
    if info:
        row |= {"height_px0": info.height, "width_px0": info.width, "source_bytes": info.size_bytes}
    if outcome.roi:
        row |= _region(outcome.roi)
    if outcome.outlines:
        row |= _outlines(outcome.outlines)
    if outcome.pyramid:
        pyramid = outcome.pyramid
        row |= {"pyramid": pyramid.path, "pyramid_bytes": pyramid.bytes_written, "codec": pyramid.codec}
    if profile:
        row |= {
            "qc_verdict": profile.quality.verdict,
            "stain_source": getattr(profile.stain, "source", None),
            "stain_fallback": getattr(profile.stain, "fallback", None),
        }
    if score:
        row |= _judged(score.verdict, score.counts, load_rules(score.rules)) | _expressed(score.expression)
        row |= {
            "rules": score.rules,
            "rules_version": score.rules_version,
            "n_cells": score.n_cells,
            "n_tumour": score.n_tumour,
            "n_unevaluable": score.n_unevaluable,
            "stained_without_cells_mm2": score.stained_without_cells_mm2,
            "completeness_median": score.completeness_median,
            "ladder_od": list(ladder_od),
            "detect_od": params.detect_od,
        }
        quantiles = zip(OD_PERCENTS, score.membrane_od, strict=True)
        row |= {f"membrane_od_p{percent:02d}": value for percent, value in quantiles}
    if outcome.ish:
        row |= scored_ish(outcome.ish)
    return row | external_ish(slide) | {"reasons": list(outcome.reasons)}


def _region(roi: RoiUsed) -> Row:
    """The region of interest of a slide."""
    return {
        "roi_source": roi.source,
        "roi_digest": roi.digest,
        "roi_classes": list(roi.classes),
        "roi_excluded": list(roi.excluded),
        "roi_area_mm2": roi.area_mm2,
        "roi_notes": [*roi.doubts, *roi.notes],
    }


def _outlines(outlines: OutlinesUsed) -> Row:
    """Another program's nuclei of a slide."""
    return {
        "cells_source": outlines.source,
        "cells_digest": outlines.digest,
        "cells_given": outlines.count,
        "cells_notes": [*outlines.doubts, *outlines.notes],
    }


def case_row(case: CaseScore, rules: RuleSet) -> Row:
    """Row of the ``cases`` table."""
    ish, row = case.ish, dict.fromkeys(CASES.schema.names)
    if ish.verdict or ish.external:
        row |= {"ish_rules": ish.rules, "ish_rules_version": ish.rules_version}
    if ish.verdict:
        row |= judged_ish(ish.verdict)
    if (found := ish.heterogeneity) is not None:
        row |= {"gh_category": found.category, "gh_copies_fraction": found.copies_arm.fraction}
        row |= {"gh_ratio_fraction": found.ratio_arm.fraction if found.ratio_arm else None}
    return row | {
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "specimen_id": case.specimen_id,
        "site": case.site,
        "collection_date": case.collection_date,
        **_judged(case.verdict, case.counts, rules),
        **_expressed(case.expression),
        "rules": rules.name,
        "rules_version": rules.version,
        "her2_status": case.status,
        "her2_class": case.decision.her2_class,
        "ihc_class": case.verdict.her2_class,
        "flags": list(case.flags),
        "pending": case.pending,
        "conflicts": list(case.conflicts),
        "reasons": list(case.reasons),
        "case_rules": case.case_rules,
        "case_rules_version": case.case_rules_version,
        "ish_arm_source": ish.arm_source,
        "ish_result": str(ish.decision.result) if ish.decision else None,
        "ish_populations": list(ish.populations),
        "ish_comment": (ish.arm.comment or None) if ish.arm else None,
        "external_ish": [str(e) for e in ish.external],
        "incomplete": case.incomplete,
        "slides": list(case.slides),
        "slides_pooled": list(case.pooled),
        "slides_ish": list(ish.pooled),
        "slides_indeterminate": list(case.indeterminate),
        "slides_failed": list(case.failed),
        "slides_skipped": list(case.skipped),
        "n_slides": case.n_slides,
        "n_blocks": case.n_blocks,
        "slide_max": case.slide_max,
        "discordance": case.discordance,
        "block_discordance": case.block_discordance,
        "reader_scores": list(case.reader_scores),
    }


def patient_row(patient: PatientScore) -> Row:
    """Row of the ``patients`` table."""
    row: Row = {"patient_id": patient.patient_id}
    for name in ("specimens", "statuses", "classes", "lesions", "conflicts"):
        row[name] = list(getattr(patient, name))
    for name in ("index", "primary", "metastasis"):
        view: SpecimenView | None = getattr(patient, name)
        row |= {
            f"{name}_specimen": view and view.specimen,
            f"{name}_date": view and view.collection_date,
            f"{name}_status": view and view.status,
            f"{name}_class": view and view.her2_class,
        }
    for name in ("n_blocks", "n_slides", "index_basis", "ever_low_or_higher", "primary_metastasis"):
        row[name] = getattr(patient, name)
    row["primary_metastasis_change"] = patient.change
    return row | {"block_discordance": patient.block_discordance, "incomplete": patient.incomplete}


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run, as the last row that it writes. ``versions`` and ``inputs`` are stored as JSON.

    Attributes
    ----------
    table_versions
        Delta version of every table, by name.
    """

    run_id: str
    started_at: datetime
    finished_at: datetime
    state: str
    cohort: str
    manifest_uri: str
    manifest_sha256: str
    n_slides: int
    n_scored: int
    n_indeterminate: int
    n_failed: int
    n_quarantined: int
    n_skipped: int
    n_cells: int
    n_nuclei: int
    table_versions: Mapping[str, int]
    configuration: Mapping[str, Any]
    versions: Mapping[str, str]
    inputs: Sequence[Mapping[str, Any]]
    columns_added: Sequence[str] = ()


def run_row(run: RunRecord) -> Row:
    """Row of the ``runs`` table."""
    as_json = {
        k: json.dumps(getattr(run, k), sort_keys=True) for k in ("configuration", "versions", "inputs")
    }
    row = _fields(run) | as_json | {"columns_added": list(run.columns_added)}
    of_tables = row.pop("table_versions")
    return row | {f"{name}_version": of_tables.get(name) for name in COMMITTED}


def _judged(verdict: Verdict, counts: ClassCounts, rules: RuleSet) -> Row:
    """Columns of a verdict and the counts it rests on."""
    row: Row = {
        "score": verdict.score,
        "her2_class": verdict.her2_class,
        "consensus_score": stratum(rules, verdict.her2_class),
        "possible_scores": list(verdict.possible_scores),
        "borderline": verdict.borderline,
        "patterns": list(verdict.patterns),
        "null_excludes_pct": verdict.null_excludes_pct,
        "n_scored": counts.n,
        **_fields(counts),
    }
    flags = {
        "limited": Reason.LIMITED_TUMOUR,
        "uncalibrated": Reason.UNCALIBRATED,
        "low_end_unreliable": Reason.LOW_END_UNRELIABLE,
        "unusual_pattern": Reason.UNUSUAL_PATTERN,
    }
    row |= {name: reason in verdict.reasons for name, reason in flags.items()}
    for name, k, (low, high) in (
        ("p3", counts.n3, verdict.p3),
        ("p2", counts.at_least_2, verdict.p2),
        ("p_any", counts.stained, verdict.p_any),
    ):
        row[f"{name}_pct"] = 100 * k / counts.n if counts.n else None
        row[f"{name}_low_pct"], row[f"{name}_high_pct"] = 100 * low, 100 * high
    row["intense_complete_pct"] = row["p3_pct"] if rules.intense_complete else None
    return row


def _expressed(expression: Expression | None) -> Row:
    """Columns of continuous expression; null without any."""
    names = ("h_score", "membrane_od_mean", "cytoplasm_od_mean", "completeness_mean")
    row: Row = {name: getattr(expression, name, None) for name in names}
    p_of_t = expression.p_of_t if expression else None
    grid = list(expression.grid_od) if expression else None
    return row | {"p_od_t": grid, "p_od": None if p_of_t is None else list(p_of_t)}


def _fields(record: Any) -> Row:
    """Fields of a record (nothing of None), one level deep."""
    return {} if record is None else {name: getattr(record, name) for name in record.__dataclass_fields__}
