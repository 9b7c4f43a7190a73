"""Which specimen has what: the combinations of data that questions can be asked of."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from her2core.records import Assay
from her2core.report.run_tables import Row, RunTables, specimen_key

Has = Callable[[Row, Sequence[Row], Row | None], bool]
"""Of a specimen, its slides and its patient."""

_MEASURED = ("scored", "indeterminate")


def _any(condition: Callable[[Row], object]) -> Has:
    return lambda _, slides, __: any(condition(slide) for slide in slides)


ITEMS: dict[str, Has] = {
    "IHC": _any(lambda s: s["assay"] == Assay.IHC and s["state"] in _MEASURED),
    "ISH": _any(lambda s: s["assay"] != Assay.IHC and s["state"] in _MEASURED),
    "reported ISH": lambda case, _, __: bool(case["external_ish"]),
    "reader": _any(lambda s: s["reader_score"]),
    "control": _any(lambda s: s["uncalibrated"] is False),
    "drawn region": _any(lambda s: s["roi_source"]),
    "date": lambda case, _, __: bool(case["collection_date"]),
    "scanner": _any(lambda s: s["scanner"]),
    "clone": _any(lambda s: s["antibody_clone"]),
    "2+ blocks": lambda case, _, __: (case["n_blocks"] or 0) > 1,
    "primary + metastasis": lambda _, __, patient: (
        patient is not None and patient["primary_metastasis"] is not None
    ),
}
"""What a specimen may have. Outcome and RNA are no part of a run's tables."""


def coverage(tables: RunTables) -> list[list[bool]]:
    """Of every specimen, in the table's order, which of `ITEMS` it has."""
    slides: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for slide in tables.slides:
        slides[specimen_key(slide)].append(slide)
    patients = {row["patient_id"]: row for row in tables.patients}
    return [
        [
            bool(has(case, slides[specimen_key(case)], patients.get(case["patient_id"] or case["case_id"])))
            for has in ITEMS.values()
        ]
        for case in tables.cases
    ]


def combinations(covered: Sequence[Sequence[bool]]) -> list[Row]:
    """Every combination that occurs, and how many specimens have it, the commonest first."""
    counts = Counter(tuple(has) for has in covered)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], [not has for has in item[0]]))
    return [dict(zip(ITEMS, has, strict=True)) | {"specimens": count} for has, count in ordered]
