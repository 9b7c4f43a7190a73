"""HER2 results out of a clinical patient table, as clinics fill it in: values, or the reason for none.

Written for TCGA's and cBioPortal's tables: sub-header rows, ``[Not Available]``, text in number columns,
``<10%``, ranges, and signal totals where copies a cell belong. Nothing is guessed and nothing dropped: every
cell ends as a value or as a reason code, and statements that contradict each other are listed.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from her2core.cases.clinical_cells import ABSENT, RANGES, Reading, read_cell
from her2core.errors import ManifestError
from her2core.storage.sources import open_remote

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "patient_id": ("bcr_patient_barcode", "patient_id"),
    "ihc_status": ("her2_status_by_ihc", "ihc_her2"),
    "ihc_score": ("her2_ihc_score",),
    "ihc_percent": ("her2_ihc_percent_positive",),
    "ish_status": ("her2_fish_status",),
    "ish_her2": ("her2_copy_number",),
    "ish_cep17": ("cent17_copy_number",),
    "n_nuclei": ("her2_and_cent17_cells_count",),
    "ish_ratio": ("her2_cent17_ratio",),
}
"""What is read, and the column names (TCGA's, cBioPortal's; in any case) that hold it."""
REQUIRED = ("patient_id", "ihc_status", "ish_status")
"""Without these a table is not a HER2 table; any other column may be absent."""


@dataclass(frozen=True, slots=True)
class ClinicalRow:
    """HER2 of one patient as a clinical table has it.

    Attributes
    ----------
    row
        Line of the table, counted from 1.
    ihc_percent
        Lowest and highest percentage of stained cells that the table leaves open.
    ish_her2, ish_cep17
        Signals a nucleus: as written, or the written total over the nuclei counted.
    reasons
        Column -> code for every cell that holds no value (`REASONS`).
    unread
        Column -> text, for those of these cells that say something all the same.
    derived
        What was computed from other cells, in words.
    conflicts
        Statements that contradict each other, in words.
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

    @property
    def ihc_outcome(self) -> str:
        """``score``, ``status`` (a word alone), or the reason why there is neither."""
        if self.ihc_score:
            return "score"
        return "status" if self.ihc_status else self.reasons["ihc_status"]

    @property
    def ish_outcome(self) -> str:
        """What there is of ISH, or the reason why there is none.

        ``ratio_and_copies``, ``copies`` (no ratio), ``ratio`` (no HER2 copies), ``status`` (a word alone).
        """
        ratio, copies = self.ish_ratio is not None, self.ish_her2 is not None
        if ratio or copies:
            return "ratio_and_copies" if ratio and copies else "ratio" if ratio else "copies"
        return "status" if self.ish_status else self.reasons["ish_status"]


def read_clinical(uri: str, endpoint_url: str | None = None) -> tuple[ClinicalRow, ...]:
    """Read a tab-separated clinical patient table.

    Raises
    ------
    ManifestError
        If it cannot be read, lacks a column of `REQUIRED`, or names a patient twice.
    """
    try:
        with open_remote(uri, endpoint_url) as file:
            text = file.read().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{uri}: cannot be read as a UTF-8 table: {error}") from error
    return parse_clinical(text, uri)


def parse_clinical(text: str, name: str = "table") -> tuple[ClinicalRow, ...]:
    """Rows of a table given as text; `name` is what errors call it. Raises as `read_clinical`."""
    table = csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    numbered = enumerate(table, start=1)
    lines = [(number, cells) for number, cells in numbered if any(cells) and not cells[0].startswith("#")]
    header = [cell.strip().lower() for cell in lines[0][1]] if lines else []
    place = {
        column: header.index(next(known for known in names if known in header))
        for column, names in COLUMNS.items()
        if not set(names).isdisjoint(header)
    }
    if missing := [
        f"{column} ({' or '.join(COLUMNS[column])})" for column in REQUIRED if column not in place
    ]:
        raise ManifestError(f"{name}: no column for {', '.join(missing)}; expected a tab-separated table")
    rows = []
    for number, cells in lines[1:]:
        filled = {c: cells[i].strip() if i < len(cells) else "" for c, i in place.items()}
        if not _is_sub_header(filled["patient_id"]):
            rows.append(clean(filled, number))
    patients = Counter(row.patient_id for row in rows)
    if twice := sorted(p for p, count in patients.items() if count > 1):
        raise ManifestError(f"{name}: patients in several rows: {', '.join(twice)}; expected one row each")
    return tuple(rows)


def _is_sub_header(patient: str) -> bool:
    return patient.lower() in COLUMNS["patient_id"] or patient.startswith("CDE_ID")


def clean(cells: Mapping[str, str], row: int = 0) -> ClinicalRow:
    """One patient's row from its cells, by the names of `COLUMNS`."""
    seen = {
        column: read_cell(column, cells[column]) if column in cells else Reading("", reason="no_column")
        for column in COLUMNS
        if column != "patient_id"
    }
    derived: list[str] = []
    conflicts = _word_conflicts(seen)
    _totals_to_copies(seen, derived)
    _ratio_from_copies(seen, derived)
    conflicts += _number_conflicts(seen)
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
        unread={c: cell.text for c, cell in seen.items() if cell.reason and cell.text.lower() not in ABSENT},
        derived=tuple(derived),
        conflicts=tuple(conflicts),
    )  # fmt: skip


def _plain(value: Fraction | None) -> float | None:
    return None if value is None else float(value)


def _totals_to_copies(seen: dict[str, Reading], derived: list[str]) -> None:
    """Divide signal totals by the nuclei counted.

    No nucleus has more than 10 chromosome 17 signals on average, nor 100 HER2 signals; where one of the two
    is beyond that, both were written as totals.
    """
    names = ("ish_her2", "ish_cep17")
    written = {name: value for name in names if (value := seen[name].value) is not None}
    if all(value <= RANGES[name][1] for name, value in written.items()):
        return
    n = seen["n_nuclei"].value
    for name in written:
        cell = seen[name]
        if n is None:
            seen[name] = Reading(cell.text, cell.value, cell.low, cell.high, reason="total_without_cells")
            continue
        low, high = RANGES[name]
        mean, least, most = (value / n for value in (written[name], cell.low or 0, cell.high or 0))
        if low <= mean <= high:
            seen[name] = Reading(cell.text, mean, Fraction(least), Fraction(most))
            derived.append(f"{name} {float(mean):.2f} = {cell.text} signals / {n} nuclei")
        else:
            seen[name] = Reading(cell.text, reason="implausible")


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
    """Status against score and percentage; a word for copies that denies the ISH status leaves it unread."""
    status, score, percent = seen["ihc_status"].word, seen["ihc_score"].word, seen["ihc_percent"]
    expected = {"3+": "Positive", "2+": "Equivocal", "1+": "Negative", "0": "Negative"}
    found = []
    if score and status in ("Positive", "Negative", "Equivocal") and status != expected[score]:
        found.append(f"IHC status {status}, IHC score {score}")
    if score == "3+" and percent.high is not None and percent.high <= 10:
        found.append(f"IHC score 3+, {percent.text} of cells stained")
    copies, word = seen["ish_her2"].text.casefold(), seen["ish_status"].word
    if "amplified" in copies and word == ("Positive" if "not amplified" in copies else "Negative"):
        seen["ish_status"] = Reading(seen["ish_status"].text, reason="contradicted")
        found.append(f"ISH status {word}, HER2 copies {seen['ish_her2'].text!r}")
    return found


def _number_conflicts(seen: Mapping[str, Reading]) -> list[str]:
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
    low, high = _quotient(her2, cep17)
    if None not in (low, high, ratio.low, ratio.high) and (ratio.high < low or high < ratio.low):  # type: ignore[operator]
        found.append(f"ratio {ratio.text}, but HER2 {her2.text} / CEP17 {cep17.text}")
    return found


def manifest_columns(row: ClinicalRow, source: str) -> dict[str, str]:
    """Manifest cells of this patient's slides; what is not known is empty.

    Parameters
    ----------
    source
        Where the results come from, for ``ish_source``. A clinical table speaks of a patient: whoever joins
        it to slides answers for its being the same specimen.
    """
    numbers = {name: getattr(row, name) for name in ("ish_ratio", "ish_her2", "ish_cep17")}
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
