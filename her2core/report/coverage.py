"""Which specimen has what: the combinations of data that analyses can use."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from her2core.records import Assay
from her2core.report.run_tables import Row, RunTables, patient_key, specimen_key

if TYPE_CHECKING:
    from her2core.analysis.rna import RnaValue
    from her2core.analysis.treatments import Line

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
"""What a specimen may have by a run's tables."""


@dataclass(frozen=True, slots=True)
class Linked:
    """What a table beside the run has of its specimens, such as outcome or RNA.

    Attributes
    ----------
    has
        Of every specimen, in the table's order.
    used, rows
        How many of the table's rows belong to a specimen of the run, and all.
    """

    has: tuple[bool, ...]
    used: int
    rows: int


def outcomes(tables: RunTables, lines: Sequence[Line]) -> Linked:
    """Specimens whose patient has a line of therapy with an endpoint or a response."""
    known = [line for line in lines if line.ends or line.pcr is not None or line.bor is not None]
    with_outcome = {line.patient_id for line in known}
    patients = [patient_key(case) for case in tables.cases]
    of_run = set(patients)
    used = sum(line.patient_id in of_run for line in known)
    return Linked(tuple(patient in with_outcome for patient in patients), used, len(lines))


def rna(tables: RunTables, values: Sequence[RnaValue]) -> Linked:
    """Specimens that a value of RNA is surely of: the only one that it fits."""
    ids = [(patient_key(case), str(case["case_id"]), case["specimen_id"]) for case in tables.cases]
    found = [[at for at, of in enumerate(ids) if value.fits(*of)] for value in values]
    sure = [fitting[0] for fitting in found if len(fitting) == 1]
    having = set(sure)
    return Linked(tuple(at in having for at in range(len(ids))), len(sure), len(values))


def coverage(tables: RunTables, linked: Mapping[str, Linked] | None = None) -> list[list[bool]]:
    """Of every specimen, in the table's order, which of `ITEMS` it has, and which of what is linked."""
    slides: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for slide in tables.slides:
        slides[specimen_key(slide)].append(slide)
    patients = {row["patient_id"]: row for row in tables.patients}
    rows = []
    for at, case in enumerate(tables.cases):
        own, patient = slides[specimen_key(case)], patients.get(patient_key(case))
        has = [bool(item(case, own, patient)) for item in ITEMS.values()]
        rows.append(has + [of.has[at] for of in (linked or {}).values()])
    return rows


def combinations(covered: Sequence[Sequence[bool]], items: Sequence[str]) -> list[Row]:
    """Every combination that occurs, and how many specimens have it, the commonest first."""
    counts = Counter(tuple(has) for has in covered)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], [not has for has in item[0]]))
    return [dict(zip(items, has, strict=True)) | {"specimens": count} for has, count in ordered]
