"""From specimens to patients: views that lay specimens side by side and never merge them.

A patient is the manifest's ``patient_id``, or its ``case_id`` where there is none. Guidelines do not cover
several specimens; these views are those of spec §3.2, and where dates or scores do not decide, neither do
they.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from her2core.cases.specimens import CaseScore
from her2core.guidelines.rules_case import HER2_CLASSES, STATUSES

PRIMARY, METASTASIS, UNKNOWN = "primary", "metastasis", "unknown"
"""Kinds of site; the first two are compared, and lymph nodes and recurrences are neither."""
TIERS = ("zero", "low", "positive")
"""What primary and metastasis are compared by: null and ultralow are zero."""
_ZERO = ("ultralow", "0_unresolved", "null")


@dataclass(frozen=True, slots=True)
class SpecimenView:
    """One specimen that stands for a patient, or for a site: its name, status and class."""

    specimen: str
    collection_date: str | None
    status: str
    her2_class: str | None


@dataclass(frozen=True, slots=True)
class PatientScore:
    """Specimens of one patient side by side.

    Attributes
    ----------
    specimens
        Names of all (case/specimen/site), sorted; ``statuses`` and ``classes`` in their order.
    lesions
        Their sites.
    index, index_basis
        Last specimen by collection date: the one before therapy if the manifest lists no therapy.
        Basis: ``only_specimen``, ``latest_date``, or why there is none: ``date_missing``, ``date_tied``.
    ever_low_or_higher
        Whether any specimen is surely low or positive (2+ is one of these, whatever the ISH); None if none
        is and some are unknown, or where low is not defined.
    primary, metastasis
        Highest specimen of that site; None if there is none.
    primary_metastasis
        ``concordant`` or ``discordant`` by tier; None if undetermined. ``change`` names the tiers.
    block_discordance
        Largest of the specimens', in steps.
    incomplete
        Whether any specimen is Indeterminate, or has a slide that does not contribute to its score.
    conflicts
        Those of the specimens, with their names.
    """

    patient_id: str
    specimens: tuple[str, ...]
    statuses: tuple[str, ...]
    classes: tuple[str | None, ...]
    lesions: tuple[str, ...]
    n_blocks: int
    n_slides: int
    index: SpecimenView | None
    index_basis: str
    ever_low_or_higher: bool | None
    primary: SpecimenView | None
    metastasis: SpecimenView | None
    primary_metastasis: str | None
    change: str | None
    block_discordance: int | None
    incomplete: bool
    conflicts: tuple[str, ...]


def score_patients(cases: Iterable[CaseScore]) -> tuple[PatientScore, ...]:
    """One row a patient, ordered by name."""
    return tuple(_score(patient, group) for patient, group in by_patient(cases).items())


def by_patient(cases: Iterable[CaseScore]) -> dict[str, list[CaseScore]]:
    """Specimens of every patient; both ordered by name."""
    groups: dict[str, list[CaseScore]] = {}
    for case in sorted(cases, key=lambda c: (c.name, c.case_id, c.specimen_id or "", c.site or "")):
        groups.setdefault(case.patient_id or case.case_id, []).append(case)
    return {patient: groups[patient] for patient in sorted(groups)}


def of_kind(cases: Iterable[CaseScore], kind: str) -> CaseScore | None:
    """The specimen that stands for a kind of site, `PRIMARY` or `METASTASIS`: of several the highest."""
    return _highest([case for case in cases if _kind(case) == kind])


def lesions(cases: Sequence[CaseScore]) -> list[CaseScore]:
    """The specimens that stand for the sites that are known: of several of one site the highest."""
    sites = sorted({case.site for case in cases if case.site and _kind(case) != UNKNOWN})
    found = (_highest([case for case in cases if case.site == site]) for site in sites)
    return [case for case in found if case]


def _score(patient: str, cases: Sequence[CaseScore]) -> PatientScore:
    has_low = all(case.has_low for case in cases)
    index, basis = _index(cases)
    primary, metastasis = (of_kind(cases, kind) for kind in (PRIMARY, METASTASIS))
    agreement, change = _compare(primary, metastasis, has_low)
    blocks = [c.block_discordance for c in cases if c.block_discordance is not None]
    return PatientScore(
        patient_id=patient,
        specimens=tuple(c.name for c in cases),
        statuses=tuple(c.status for c in cases),
        classes=tuple(c.decision.her2_class for c in cases),
        lesions=tuple(sorted({c.site for c in cases if c.site})),
        n_blocks=sum(c.n_blocks for c in cases),
        n_slides=sum(c.n_slides for c in cases),
        index=_view(index),
        index_basis=basis,
        ever_low_or_higher=_ever_low(cases) if has_low else None,
        primary=_view(primary),
        metastasis=_view(metastasis),
        primary_metastasis=agreement,
        change=change,
        block_discordance=max(blocks, default=None),
        incomplete=any(c.incomplete or c.status == "Indeterminate" for c in cases),
        conflicts=tuple(f"{c.name}: {sentence}" for c in cases for sentence in c.conflicts),
    )


def _kind(case: CaseScore) -> str:
    """Site without its organ."""
    return (case.site or "").partition(":")[0]


def _view(case: CaseScore | None) -> SpecimenView | None:
    if case is None:
        return None
    return SpecimenView(case.name, case.collection_date, case.status, case.decision.her2_class)


def _index(cases: Sequence[CaseScore]) -> tuple[CaseScore | None, str]:
    """The specimen that was surely taken last; a month or year is anywhere within it."""
    if len(cases) == 1:
        return cases[0], "only_specimen"
    dates = [case.collection_date for case in cases]
    if not all(dates):
        return None, "date_missing"
    first = [(date or "") + "0000-01-01"[len(date or "") :] for date in dates]
    last = [(date or "") + "0000-12-31"[len(date or "") :] for date in dates]
    for i, case in enumerate(cases):
        if all(first[i] > last[k] for k in range(len(cases)) if k != i):
            return case, "latest_date"
    return None, "date_tied"


def _highest(cases: Sequence[CaseScore]) -> CaseScore | None:
    """Specimen of the highest class, the first by name among equals; one that is unknown comes last."""

    def rank(case: CaseScore) -> tuple[int, int]:
        if case.status == "Indeterminate":
            return len(STATUSES), 0
        her2_class = case.decision.her2_class
        return STATUSES.index(case.status), HER2_CLASSES.index(her2_class) if her2_class else len(
            HER2_CLASSES
        )

    return min(cases, key=rank, default=None)


def _ever_low(cases: Sequence[CaseScore]) -> bool | None:
    tiers = [_tiers(case, has_low=True) for case in cases]
    if any("zero" not in possible for possible in tiers):
        return True
    return False if all(possible == {"zero"} for possible in tiers) else None


def _tiers(case: CaseScore, has_low: bool) -> set[str]:
    """Tiers that a specimen may be of."""
    her2_class = case.decision.her2_class
    if case.status == "Positive":
        return {"positive"}
    if case.status == "Indeterminate":
        return set(TIERS)
    if case.status == "Equivocal":
        if "hidden_by_pooling" in case.flags:
            return set(TIERS) if has_low else {"zero", "positive"}
        return {"zero" if not has_low or case.verdict.her2_class in _ZERO else "low", "positive"}
    if her2_class is None:  # ISH alone
        return {"zero", "low"} if has_low else {"zero"}
    return {"low"} if her2_class.startswith("low") else {"zero"}


def _compare(
    primary: CaseScore | None, metastasis: CaseScore | None, has_low: bool
) -> tuple[str | None, str | None]:
    """Whether the tiers agree, and from which to which; None where more than one answer is possible."""
    if primary is None or metastasis is None:
        return None, None
    one, other = _tiers(primary, has_low), _tiers(metastasis, has_low)
    if len(one) == len(other) == 1:
        agree = "concordant" if one == other else "discordant"
        return agree, f"{one.pop()} to {other.pop()}"
    return ("discordant", None) if one.isdisjoint(other) else (None, None)
