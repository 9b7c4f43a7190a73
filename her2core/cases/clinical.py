"""HER2 results out of a clinical patient table, as clinics fill it in: values, or the reason for none.

Written for TCGA's and cBioPortal's tables and for what else clinics keep: sub-header rows, text in number
columns, ``[Not Available]``, ``<10%``, ``≥2.0``, and signal totals where copies a cell belong. Nothing is
guessed and nothing dropped: every cell ends as a value or as a reason code, statements that contradict each
other are listed, and what only a person can decide is no result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from her2core.cases.clinical_cells import RANGES, Reading, absence, read_cell, split_ratio
from her2core.cases.clinical_table import COLUMNS, Layout, Table, read_table
from her2core.cases.clinical_words import STATUS_OF, by_assay, read_words
from her2core.spelling import alike

MANIFEST_COLUMNS = ("reader_score", "ish_ratio", "ish_her2", "ish_cep17", "ish_status", "ish_source")
"""Columns of the manifest that a clinical table can fill."""
MOST_MEAN = {"ish_her2": 40, "ish_cep17": 10}
"""A whole number of signals above this is no mean but a total: real means of HER2 stay below 40. Ours."""


@dataclass(frozen=True, slots=True)
class ClinicalRow:
    """HER2 of one patient as a clinical table has it.

    Attributes
    ----------
    row
        Row of the table, counted from 1.
    ihc_percent
        Lowest and highest percentage of stained cells that the table leaves open.
    ish_her2, ish_cep17
        Signals a nucleus: as written, or the written total over the nuclei counted.
    reasons
        Column -> code for every cell that holds no value (`REASONS`).
    unread
        Column -> text, for those of these cells that hold something all the same.
    derived
        What was computed from other cells, in words.
    conflicts
        Statements that contradict each other, in words.
    others
        Other rows of the same patient that differ: a person decides which one counts.
    computed_ratio
        Whether the ratio was computed from the copies, and so is as uncertain as their rounding.
    """

    patient_id: str
    row: int
    ihc_status: str | None
    ihc_score: str | None
    ihc_percent: tuple[float, float] | None
    ish_status: str | None
    ish_ratio: float | None
    ish_her2: float | None
    ish_cep17: float | None
    n_nuclei: int | None
    reasons: Mapping[str, str]
    unread: Mapping[str, str]
    derived: tuple[str, ...]
    conflicts: tuple[str, ...]
    others: tuple[int, ...] = ()
    computed_ratio: bool = False

    @property
    def ihc_outcome(self) -> str:
        """``score``, ``status`` (a word alone), or the reason why there is neither."""
        if self.ihc_score:
            return "score"
        return "status" if self.ihc_status else self._why("ihc_status", "ihc_score")

    @property
    def ish_outcome(self) -> str:
        """What there is of ISH, or the reason why there is none.

        ``ratio_and_copies``, ``copies`` (no ratio), ``ratio`` (no HER2 copies), ``status`` (a word alone).
        """
        ratio, copies = self.ish_ratio is not None, self.ish_her2 is not None
        if ratio or copies:
            return "ratio_and_copies" if ratio and copies else "ratio" if ratio else "copies"
        return "status" if self.ish_status else self._why("ish_status", "ish_ratio", "ish_her2")

    def _why(self, *columns: str) -> str:
        """Reason of the first of these cells that is not empty, or of the first that there is."""
        stated = [column for column in columns if column in self.unread]
        there = [column for column in columns if self.reasons.get(column, "no_column") != "no_column"]
        return self.reasons[(stated or there or columns)[0]]


@dataclass(frozen=True, slots=True)
class ClinicalTable:
    """The patients of a table, and how it was read."""

    layout: Layout
    rows: tuple[ClinicalRow, ...]


def read_clinical_table(
    uri: str, mapping: Mapping[str, str] | None = None, endpoint_url: str | None = None
) -> ClinicalTable:
    """Read a clinical patient table: with tabs, semicolons or commas; UTF-8, UTF-16 or Windows-1252.

    Parameters
    ----------
    mapping
        What is read (`COLUMNS`) -> the name of the column that holds it, where it has a name of its own.

    Raises
    ------
    ManifestError
        If it cannot be read, names no patients or nothing of HER2, or leaves open which column holds what.
    """
    return _cleaned(read_table(uri, mapping or {}, endpoint_url))


def _cleaned(table: Table) -> ClinicalTable:
    """Rows of a table; of rows with the same statements on the same patient, one."""
    cleaned = [clean(cells, number) for number, cells in table.rows]
    by_patient: dict[int, dict[tuple[object, ...], ClinicalRow]] = {}
    for row, first in zip(cleaned, alike([row.patient_id for row in cleaned]), strict=True):
        patient = row.row if _unnamed(row) else cleaned[first].row
        by_patient.setdefault(patient, {}).setdefault(_statements(row), row)
    rows = [row for different in by_patient.values() for row in _beside_each_other(different)]
    return ClinicalTable(table.layout, tuple(sorted(rows, key=lambda row: row.row)))


def _statements(row: ClinicalRow) -> tuple[object, ...]:
    """HER2 results of a row."""
    numbers = (row.ihc_percent, row.ish_ratio, row.ish_her2, row.ish_cep17, row.n_nuclei)
    return row.ihc_status, row.ihc_score, row.ish_status, *numbers, tuple(row.unread.items())


def _beside_each_other(different: Mapping[tuple[object, ...], ClinicalRow]) -> list[ClinicalRow]:
    """The rows of a patient that differ, each with the numbers of the others."""
    stating = [row for stated, row in different.items() if any(stated)] or list(different.values())
    rows = []
    for row in stating:
        others, conflicts = tuple(other.row for other in stating if other is not row), row.conflicts
        if others:
            where = ", ".join(map(str, others))
            conflicts += (f"the patient's row {where} holds something else",)
        if _unnamed(row):
            conflicts += ("no patient is named",)
        rows.append(replace(row, conflicts=conflicts, others=others))
    return rows


def _unnamed(row: ClinicalRow) -> bool:
    """Whether a row names no patient."""
    return absence(row.patient_id) is not None


def clean(cells: Mapping[str, str], row: int = 0) -> ClinicalRow:
    """One patient's row from its cells, by the names of `COLUMNS`."""
    seen = {
        column: read_cell(column, cells[column]) if column in cells else Reading("", reason="no_column")
        for column in COLUMNS
        if column != "patient_id"
    }
    derived: list[str] = []
    conflicts = _from_other_cells(seen, derived)
    conflicts += _word_conflicts(seen)
    _totals_to_copies(seen, derived)
    computed = seen["ish_ratio"].value is None
    _ratio_from_copies(seen, derived)
    conflicts += _bound_conflicts(seen)
    conflicts += _number_conflicts(seen, written=not computed)
    percent = seen["ihc_percent"]
    return ClinicalRow(
        patient_id=cells["patient_id"],
        row=row,
        ihc_status=seen["ihc_status"].word,
        ihc_score=seen["ihc_score"].word,
        ihc_percent=None if percent.low is None or percent.high is None else
        (float(percent.low), float(percent.high)),
        ish_status=seen["ish_status"].word,
        ish_ratio=_plain(seen["ish_ratio"].value),
        ish_her2=_plain(seen["ish_her2"].value),
        ish_cep17=_plain(seen["ish_cep17"].value),
        n_nuclei=None if (n := seen["n_nuclei"].value) is None else int(n),
        reasons={column: cell.reason for column, cell in seen.items() if cell.reason},
        unread={c: cell.text for c, cell in seen.items() if cell.reason and not cell.absent},
        derived=tuple(derived),
        conflicts=tuple(conflicts),
        computed_ratio=computed and seen["ish_ratio"].value is not None,
    )  # fmt: skip


def _plain(value: Fraction | None) -> float | None:
    return None if value is None else float(value)


_CALLED = {"ihc_score": "IHC score", "ihc_status": "IHC status", "ish_status": "ISH status"}
"""The columns of words, as conflicts call them."""


def _from_other_cells(seen: dict[str, Reading], derived: list[str]) -> list[str]:
    """Fill empty cells with what others state of them, and list where they differ."""
    written, found = dict(seen), []
    for source in ("ihc_status", "ish_status", "ihc_score"):
        for column, word in _stated(source, written[source]):
            cell = seen[column]
            if column == source or word is None:
                continue
            if cell.absent and cell.word is None:
                seen[column] = Reading(cell.text, word=word)
                derived.append(f"{column} {word} from the {_CALLED[source]}")
            elif column != "ihc_status" and cell.word not in (None, word):  # of status and score see below
                found.append(f"{_CALLED[source]} {written[source].text!r}, {_CALLED[column]} {cell.word}")
                seen[column] = Reading(cell.text, reason="contradicted")
    copies = next((cell.word for name in ("ish_ratio", "ish_her2") if (cell := seen[name]).word), None)
    if copies and seen["ish_status"].absent and seen["ish_status"].word is None:
        seen["ish_status"] = Reading(seen["ish_status"].text, word=copies)
        derived.append(f"ish_status {copies} from the ISH numbers")
    for source in ("ish_status", "ihc_status", "ihc_score"):
        found += _ratio_in_words(seen, source, written[source].text, derived)
    return found


def _stated(column: str, cell: Reading) -> Iterator[tuple[str, str | None]]:
    """What a cell of words states, of its own assay or of the other: columns, and their words."""
    parts = {} if cell.absent else by_assay(cell.text, column[:3])
    if ihc := parts.get("ihc"):
        stated = read_words(ihc, scores=True, bare=column != "ihc_status")
        if stated.understood and stated.agree:
            yield from (("ihc_score", stated.score), ("ihc_status", stated.status))
    if ish := parts.get("ish"):
        stated = read_words(split_ratio(ish)[0], scores=False)
        if stated.understood:
            yield "ish_status", stated.status


def _ratio_in_words(seen: dict[str, Reading], source: str, text: str, derived: list[str]) -> list[str]:
    """Take the ratio that a cell of words names beside the ISH status; it denies another one."""
    ratio, other = split_ratio(by_assay(text, source[:3]).get("ish", ""))[1], seen["ish_ratio"]
    if ratio is None:
        return []
    if other.absent:
        seen["ish_ratio"] = ratio
        if ratio.value is not None:
            derived.append(f"ish_ratio {float(ratio.value):g} from the {_CALLED[source]}")
    elif not _overlap(ratio, other):
        seen["ish_ratio"] = Reading(other.text, reason="contradicted")
        _deny(seen)
        return [f"{_CALLED[source]} {text!r}, ratio {other.text}"]
    return []


def _overlap(a: Reading, b: Reading) -> bool:
    """Whether two readings can be one number."""
    if a.low is None or b.low is None or a.high is None or b.high is None:
        return True
    return a.low <= b.high and b.low <= a.high


def _totals_to_copies(seen: dict[str, Reading], derived: list[str]) -> None:
    """Divide signal totals by the nuclei counted.

    A mean may have decimals and stays within `MOST_MEAN`; a total is whole, and no less than the nuclei, each
    of which shows a signal. Numbers that can be either in all columns of a row are left to a person; without
    the number of nuclei they are taken for means, as the columns require.
    """
    n = seen["n_nuclei"].value
    written = {name: value for name in MOST_MEAN if (value := seen[name].value) is not None}
    total = {name: value.denominator == 1 and (n is None or value >= n) for name, value in written.items()}
    mean = {
        name: value <= (MOST_MEAN[name] if value.denominator == 1 else RANGES[name][1])
        for name, value in written.items()
    }
    if all(mean.values()):
        if n is not None and written and all(total.values()):
            for name in written:
                seen[name] = Reading(seen[name].text, reason="total_or_mean")
        return
    together = all(total.values())
    for name, value in written.items():
        if mean[name] and not together:
            continue
        if not total[name]:
            seen[name] = Reading(seen[name].text, reason="implausible")
        elif n is None:
            cell = seen[name]
            seen[name] = Reading(cell.text, cell.value, cell.low, cell.high, reason="total_without_cells")
        else:
            seen[name] = _copies(name, seen[name], value, n, derived)


def _copies(name: str, cell: Reading, total: Fraction, n: Fraction, derived: list[str]) -> Reading:
    """Signals a nucleus of a total; nothing of nuclei is rounded."""
    mean, (low, high) = total / n, RANGES[name]
    if not low <= mean <= high:
        return Reading(cell.text, reason="implausible")
    derived.append(f"{name} {float(mean):.2f} = {cell.text} signals / {n} nuclei")
    return Reading(cell.text, mean, (cell.low or 0) / n, (cell.high or 0) / n, cell.word)


def _ratio_from_copies(seen: dict[str, Reading], derived: list[str]) -> None:
    """The ratio of the sums (or of the means, which is the same) where none was written."""
    her2, cep17, ratio = seen["ish_her2"], seen["ish_cep17"], seen["ish_ratio"]
    if ratio.value is None and ratio.low is None and her2.value and cep17.value:
        value = her2.value / cep17.value
        seen["ish_ratio"] = Reading(ratio.text, value, *_quotient(her2, cep17))
        derived.append(f"ish_ratio {float(value):.2f} = {her2.text} / {cep17.text}")
    for name in ("ish_her2", "ish_cep17"):
        if seen[name].reason == "total_without_cells":
            seen[name] = Reading(seen[name].text, reason="total_without_cells")


def _quotient(a: Reading, b: Reading) -> tuple[Fraction | None, Fraction | None]:
    """Interval of a / b that the rounding of both leaves open."""
    if a.low is None or a.high is None or not b.low or b.high is None:
        return None, None
    return a.low / b.high, a.high / b.low


def _word_conflicts(seen: dict[str, Reading]) -> list[str]:
    """Status against score and percentage, and the ISH status against a word beside ISH numbers."""
    status, score, percent = seen["ihc_status"].word, seen["ihc_score"].word, seen["ihc_percent"]
    found = []
    if score and status in ("Positive", "Negative", "Equivocal") and status != STATUS_OF[score]:
        found.append(f"IHC status {status}, IHC score {score}")
    if score == "3+" and percent.high is not None and percent.high <= 10:
        found.append(f"IHC score 3+, {percent.text} of cells stained")
    for name, what in (("ish_her2", "HER2 copies"), ("ish_ratio", "ratio")):
        word, stated = seen["ish_status"].word, seen[name].word
        if stated and word in ("Positive", "Negative") and word != stated:
            found.append(f"ISH status {word}, {what} {seen[name].text!r}")
            _deny(seen)
    return found


def _deny(seen: dict[str, Reading]) -> None:
    """Take the ISH status for no value: what contradicts it is no number that stands by itself."""
    seen["ish_status"] = Reading(seen["ish_status"].text, reason="contradicted")


def _bound_conflicts(seen: dict[str, Reading]) -> list[str]:
    """ISH status against inequalities and ranges, which are no numbers: such a status is left unread."""
    word, found = seen["ish_status"].word, []
    ratio, her2 = seen["ish_ratio"], seen["ish_her2"]
    for cell, what, cut in ((ratio, "ratio", 2), (her2, "HER2 copies", 6)):
        if cell.value is None and word == "Negative" and cell.low is not None and cell.low >= cut:
            found.append(f"ISH status Negative, {what} {cell.text}")
    few = her2.high is None or her2.high <= 4
    if ratio.value is None and word == "Positive" and ratio.high is not None and ratio.high <= 2 and few:
        found.append(f"ISH status Positive, ratio {ratio.text}")
    if found:
        _deny(seen)
    return found


def _number_conflicts(seen: Mapping[str, Reading], *, written: bool) -> list[str]:
    """ISH status against ratio and copies, and the ratio against the copies it is made of."""
    status, ratio, her2, cep17 = (seen[k] for k in ("ish_status", "ish_ratio", "ish_her2", "ish_cep17"))
    found = []
    if status.word == "Negative" and ratio.value is not None and ratio.value >= 2:
        found.append(f"ISH status Negative, ratio {float(ratio.value):g}")
    if status.word == "Negative" and her2.value is not None and her2.value >= 6:
        found.append(f"ISH status Negative, {float(her2.value):.2f} HER2 signals a nucleus")
    few = her2.value is None or her2.value < 4
    if status.word == "Positive" and ratio.value is not None and ratio.value < 2 and few:
        found.append(f"ISH status Positive, ratio {float(ratio.value):g}")
    single = ratio.value is None and ratio.low is None
    if status.word == "Positive" and single and her2.value is not None and her2.value < 4:
        found.append(f"ISH status Positive, {float(her2.value):.2f} HER2 signals a nucleus")
    low, high = _quotient(her2, cep17)
    if written and None not in (low, high, ratio.low, ratio.high) and (ratio.high < low or high < ratio.low):  # type: ignore[operator]
        found.append(f"ratio {ratio.text}, but HER2 {her2.text} / CEP17 {cep17.text}")
    return found


def manifest_columns(row: ClinicalRow, source: str) -> dict[str, str]:
    """Manifest cells of this patient's slides; what is not known is empty, and all where rows differ.

    Parameters
    ----------
    source
        Where the results come from, for ``ish_source``. A clinical table is of patients: whoever joins
        it to slides answers for its being the same specimen.
    """
    if row.others:
        return dict.fromkeys(MANIFEST_COLUMNS, "")
    numbers = {name: getattr(row, name) for name in ("ish_ratio", "ish_her2", "ish_cep17")}
    if row.computed_ratio and None not in numbers.values():
        numbers["ish_ratio"] = None  # the copies give it, with their rounding
    cells = {name: "" if value is None else str(value) for name, value in numbers.items()}
    status = "" if row.ish_status in (None, "Indeterminate") else row.ish_status  # the latter is no result
    cells |= {"reader_score": row.ihc_score or "", "ish_status": status}
    return cells | {"ish_source": source if any(cells[k] for k in (*numbers, "ish_status")) else ""}


def summarise(rows: Iterable[ClinicalRow]) -> dict[str, Counter[str]]:
    """How many rows ended how: ``ihc``, ``ish``, ``reasons`` (``column: code``) and ``conflicts`` (rows)."""
    table: Sequence[ClinicalRow] = tuple(rows)
    return {
        "ihc": Counter(row.ihc_outcome for row in table),
        "ish": Counter(row.ish_outcome for row in table),
        "reasons": Counter(f"{column}: {code}" for row in table for column, code in row.reasons.items()),
        "conflicts": Counter("conflict" if row.conflicts else "none" for row in table),
    }
