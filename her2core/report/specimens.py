"""A specimen as the page shows it, and everything that disagrees in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from her2core.records import SlideState
from her2core.report.run_tables import Row, RunTables, patient_key, specimen_key
from her2core.report.slides import (
    CALLS,
    class_words,
    flag_words,
    how_far,
    machine_level,
    reader_differs,
    reader_level,
    reason_words,
)
from her2core.report.words import ISH_GROUPS, NO_CLASS, PENDING, in_words
from her2core.text import joined_name

KINDS = {
    "ihc_ish": "IHC and ISH",
    "blocks": "blocks",
    "slides": "slides",
    "lesions": "primary and metastasis",
    "reader": "reader and machine",
    "statements": "statements",
}
"""What may disagree, in the order of the page."""
TAKEN = (
    *("case_id", "patient_id", "specimen_id", "site", "collection_date", "her2_status", "her2_class"),
    *("score", "consensus_score", "ihc_class", "ish_group", "ish_result", "ish_comment", "ish_arm_source"),
    *("n_scored", "p3_pct", "p3_low_pct", "p3_high_pct", "p2_pct", "p2_low_pct", "p2_high_pct"),
    *("p_any_pct", "p_any_low_pct", "p_any_high_pct", "h_score", "membrane_od_mean"),
    *("n_ish", "ish_ratio", "ish_ratio_low", "ish_ratio_high", "ish_her2_mean", "ish_her2_mean_low"),
    *("ish_her2_mean_high", "ish_cep17_mean", "gh_category", "block_discordance", "discordance"),
    *("rules", "case_rules", "ish_rules", "n_slides", "n_blocks"),
)
STEPS = ("0", "1+", "2+", "3+")


def specimen_views(tables: RunTables) -> tuple[Row, ...]:
    """Rows of the specimens for the page, in the order of the table.

    Each has the columns `TAKEN`, ``name``, ``slide_rows`` (places of its slides), ``called``, ``why`` (its
    reasons, flags and what it waits for, in words), ``review`` (whether a person should look) and
    ``disagreements`` (pairs of one of `KINDS` and words).
    """
    slides: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for at, slide in enumerate(tables.slides):
        slides[specimen_key(slide)].append(at)
    lesions = {row["patient_id"]: row for row in tables.patients}
    views = []
    for case in tables.cases:
        places = slides.get(specimen_key(case), [])
        of = [tables.slides[at] for at in places]
        disagreements = _disagreements(case, of, lesions.get(patient_key(case)))
        views.append(
            {
                **{name: case.get(name) for name in TAKEN},
                "n_scored": case.get("n_scored") or None,  # 0 means that no slide could be pooled
                "name": specimen_name(case),
                "class_words": class_words(case["her2_class"]) if case["her2_class"] else NO_CLASS,
                "slide_rows": places,
                "called": case["her2_status"] in CALLS,
                "why": _why(case, of),
                "possible": " or ".join(case["possible_scores"] or ()) if case["borderline"] else None,
                "elsewhere": list(case["external_ish"] or ()),
                "review": needs_a_person(case) or bool(disagreements),
                "disagreements": disagreements,
            }
        )
    return tuple(views)


def specimen_name(case: Row) -> str:
    """Case, specimen and site, as the report shows them."""
    return joined_name(case, " · ")


def needs_a_person(case: Row) -> bool:
    """Whether a specimen's result is for a person to settle."""
    return bool(
        case["her2_status"] not in CALLS
        or case["pending"]
        or case["conflicts"]
        or case["borderline"]
        or "review" in (case["flags"] or ())
    )


def _why(case: Row, slides: Sequence[Row]) -> list[str]:
    """What made the result, and what limits it, in words, the weightier first.

    Reasons of a specimen are of its pooled cells: they explain nothing where no slide was measured.
    """
    words = [PENDING.get(case["pending"], in_words(case["pending"]))] if case["pending"] else []
    words += [flag_words(flag) for flag in case["flags"] or ()]
    words += [f"{row['slide_id']}: {_reader_words(row)}" for row in slides if reader_differs(row)]
    words += _other_conflicts(case, slides)
    causes = {row["slide_id"]: how_far(row, case)[1] for row in slides if row["state"] != SlideState.SCORED}
    words += [f"{slide}: {cause}" for slide, cause in causes.items()]
    measured = any(row["state"] in (SlideState.SCORED, SlideState.INDETERMINATE) for row in slides)
    pooled = [reason_words(reason) for reason in case["reasons"] or () if measured]
    return words + [reason for reason in pooled if reason not in causes.values()]


def _reader_words(slide: Row) -> str:
    return f"reader {reader_level(slide)}, machine {machine_level(slide)}"


def _other_conflicts(case: Row, slides: Sequence[Row]) -> list[str]:
    """Where a specimen's statements contradict each other; reader and machine have a kind of their own."""
    readers = {reader_differs(row) for row in slides}
    return [text for text in case["conflicts"] or () if text not in readers]


def _disagreements(case: Row, slides: Sequence[Row], patient: Row | None) -> list[tuple[str, str]]:
    found = [("ihc_ish", flag_words(flag)) for flag in case["flags"] or () if flag.startswith("discordant")]
    if "ish_conflict" in (case["flags"] or ()):
        found.append(("ihc_ish", flag_words("ish_conflict")))
    if (case["block_discordance"] or 0) > 0:
        found.append(("blocks", f"IHC scores of blocks differ by {case['block_discordance']}"))
    elif (case["discordance"] or 0) > 0:
        found.append(("slides", f"IHC scores of slides differ by {case['discordance']}"))
    if patient is not None and patient["primary_metastasis"] == "discordant":
        found.append(("lesions", f"from primary to metastasis: {patient['primary_metastasis_change']}"))
    found += [
        ("reader", f"{slide['slide_id']}: {_reader_words(slide)}")
        for slide in slides
        if reader_differs(slide)
    ]
    found += [("statements", text) for text in _other_conflicts(case, slides)]
    return found


def group_words(group: str) -> str:
    """An ISH group in words."""
    return ISH_GROUPS.get(group, in_words(group))
