"""Ids of a manifest: which rows are of one patient, case and specimen, and where that is undecided.

Ids are compared as they are written. Two that differ only in letter case, spaces, dashes or underscores are a
slip, and refused. An empty cell takes the value of the other rows of its case, if they agree; if they
differ, it is refused too.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from her2core.records import SlideRow
from her2core.spelling import spellings
from her2core.text import first_few

UNKNOWN_SITE = "unknown"
"""Site that was looked for and not found."""
FILLED = ("patient_id", "specimen_id", "site", "tumour_type", "specimen_type")
"""Columns that an empty cell takes from the other rows of its case."""
MAX_NAMED = 20
"""Most rows that a warning names."""
Numbered = tuple[int, SlideRow]
"""A row and its number, as a spreadsheet shows it."""

Place = tuple[str | None, str | None, str | None]
"""Specimen, kind of site and organ; None where a row does not state it."""


def spelling_problems(rows: Sequence[Numbered]) -> list[str]:
    """Ids that differ from an earlier one in letter case, spaces, dashes or underscores alone.

    Cases and patients are compared over the manifest, the rest within a case.
    """
    problems = []
    first: dict[tuple[str, str, str], tuple[str, int]] = {}
    for number, row in rows:
        for column in ("case_id", "patient_id", "specimen_id", "block_id", "ish_source"):
            value: str | None = getattr(row, column)
            if value is None:
                continue
            scope = "" if column in ("case_id", "patient_id") else row.case_id
            keys = [(column, scope, spelling) for spelling in spellings(value)]
            other, earlier = next((first[key] for key in keys if key in first), (value, number))
            for key in keys:
                first.setdefault(key, (value, number))
            if value != other:
                problems.append(
                    f"row {number}, {column}: {value!r} differs from {other!r} of row {earlier} only in "
                    "letter case, spaces, dashes or underscores; write it one way"
                )
    return problems


def patient_problems(rows: Sequence[Numbered]) -> list[str]:
    """Cases without a patient that are named as another case's patient: both would be one patient."""
    patients = {
        spelling: (row, n)
        for n, row in reversed(rows)
        if row.patient_id is not None
        for spelling in spellings(row.patient_id)
    }
    named = {row.case_id for _, row in rows if row.patient_id is not None}
    problems = []
    for case, (number, row) in {row.case_id: (n, row) for n, row in reversed(rows)}.items():
        alike = (patients[spelling] for spelling in spellings(case) if spelling in patients)
        other, earlier = next(alike, (row, number))
        if case not in named and other.case_id != case:
            problems.append(
                f"row {number}, patient_id: empty, so the patient is taken to be {case!r}, but in row "
                f"{earlier} {other.patient_id!r} is the patient of case {other.case_id!r}; write the patient "
                f"of {case!r}"
            )
    return problems


def joined(rows: Sequence[Numbered]) -> tuple[list[Numbered], list[str]]:
    """Rows with ids and kinds filled in from the other rows of their case, and what is unclear.

    Filled in are patient, specimen and site, and then the tumour and specimen type of a specimen.

    A site without an organ takes the organ; ``unknown`` counts as empty where the row names its specimen.
    """
    by_case: dict[str, list[Numbered]] = {}
    for number, row in rows:
        by_case.setdefault(row.case_id, []).append((number, row))
    found: dict[int, SlideRow] = {}
    problems = []
    for case, group in by_case.items():
        patient = next((row.patient_id for _, row in group if row.patient_id is not None), None)
        places = {_place(row) for _, row in group}
        wholes = _wholes(places)
        fits = {place: sorted((w for w in wholes if _within(place, w)), key=str) for place in places - wholes}
        unknown = {row.specimen_id for _, row in group if row.site == UNKNOWN_SITE}
        for number, row in group:
            place = _place(row)
            candidates = fits.get(place, [place])
            if len(candidates) > 1:
                problems.append(
                    f"row {number}, {_blank(place, candidates)}: case {case!r} has "
                    f"{', '.join(map(_words, candidates))}; write which one it is"
                )
                continue
            found[number] = replace(_filled(row, candidates[0], unknown), patient_id=patient)
    whole = [(number, found.get(number, row)) for number, row in rows]
    tumours, unlike = _of_specimens(whole, "tumour_type")
    kinds, also_unlike = _of_specimens(whole, "specimen_type")
    typed = [
        (number, replace(row, tumour_type=tumours.get(_key(row)), specimen_type=kinds.get(_key(row))))
        for number, row in whole
    ]
    return typed, problems + unlike + also_unlike


def taken_over(before: Sequence[Numbered], after: Sequence[Numbered]) -> str:
    """What `joined` filled in, in a sentence; empty if nothing."""
    found = []
    for (number, row), (_, whole) in zip(before, after, strict=True):
        values = [(name, getattr(row, name), getattr(whole, name)) for name in FILLED]
        if changed := [f"{name} {value}" for name, old, value in values if old != value]:
            found.append(f"row {number} ({', '.join(changed)})")
    if not found:
        return ""
    return f"cells taken over from other rows of their case: {first_few(found, MAX_NAMED)}"


Specimen = tuple[str, str | None, str | None]
"""Case, specimen and site."""


def _key(row: SlideRow) -> Specimen:
    return row.case_id, row.specimen_id, row.site


def _of_specimens(rows: Sequence[Numbered], column: str) -> tuple[dict[Specimen, str], list[str]]:
    """What the rows of every specimen state in a column, and where they contradict each other."""
    stated: dict[Specimen, tuple[str, int]] = {}
    problems = []
    for number, row in rows:
        value: str | None = getattr(row, column)
        if value is None:
            continue
        other, earlier = stated.setdefault(_key(row), (value, number))
        if value != other:
            problems.append(
                f"row {number}, {column}: {value!r}, but row {earlier} of its specimen has {other!r}"
            )
    return {key: value for key, (value, _) in stated.items()}, problems


def _place(row: SlideRow) -> Place:
    kind, _, organ = (row.site or "").partition(":")
    if row.site == UNKNOWN_SITE and row.specimen_id is not None:
        kind = ""
    return row.specimen_id, kind or None, organ or None


def _wholes(places: AbstractSet[Place]) -> AbstractSet[Place]:
    """What places come to when those that do not contradict each other are put together.

    A place that states everything contradicts every other such; so only those that leave something out are
    compared with all.
    """
    with_organ = {place[:2] for place in places if place[2]}
    partial = {p for p in places if None in p[:2] or (p[2] is None and p[:2] in with_organ)}
    found = set(places)
    if not partial:
        return found
    while True:
        unions = {
            (a[0] or b[0], a[1] or b[1], a[2] or b[2]) for a in partial for b in found if _compatible(a, b)
        }
        if unions <= found:
            return found - {p for p in partial if any(p != q and _within(p, q) for q in found)}
        found |= unions
        partial |= {place for place in unions if None in place}


def _compatible(a: Place, b: Place) -> bool:
    return all(x is None or y is None or x == y for x, y in zip(a, b, strict=True))


def _within(part: Place, whole: Place) -> bool:
    """Whether another place holds all that this one does."""
    return all(x is None or x == y for x, y in zip(part, whole, strict=True))


def _filled(row: SlideRow, place: Place, unknown: AbstractSet[str | None]) -> SlideRow:
    """The row at its place; an unnamed site is unknown if a row of the specimen states it."""
    specimen, kind, organ = place
    site = f"{kind}:{organ}" if kind and organ else kind or (UNKNOWN_SITE if specimen in unknown else None)
    return replace(row, specimen_id=specimen, site=site)


def _blank(place: Place, candidates: Sequence[Place]) -> str:
    """The column in which a row is not specific enough."""
    return "specimen_id" if place[0] is None and len({c[0] for c in candidates}) > 1 else "site"


def _words(place: Place) -> str:
    specimen, kind, organ = place
    site = ":".join(filter(None, (kind, organ)))
    return "/".join(filter(None, (specimen, site))) or "neither"
