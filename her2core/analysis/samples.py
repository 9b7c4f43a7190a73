"""Which sample of a patient stands before a line of therapy: its specimen's HER2 and the heterogeneity of its
slides.

A sample counts if it was surely taken by the day the line began: what is measured later is not known then,
and who lived to have it taken is a survivor (immortal time).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from her2core.analysis.sheets import read_rows, refuse
from her2core.analysis.treatments import Line, days_of
from her2core.errors import ManifestError
from her2core.lake.finished import finished_rows
from her2core.lake.schema import CASES, HETEROGENEITY, SLIDES
from her2core.records import Assay
from her2core.storage.store import Store
from her2core.text import counted

LEVELS = ("membrane_od_mean", "h_score", "p3_pct", "p2_pct", "p_any_pct", "completeness_mean")
"""Columns of `cases` that give the amount of HER2."""
GROUPS = {
    "pos_IHC3": "3+", "pos_IHC2_ISHpos": "2+/ISH+", "pos_ISH_only": "ISH+ only", "low_2plus": "low",
    "low_1plus": "low", "ultralow": "ultralow", "null": "null",
}  # fmt: skip
"""Classes that outcome is compared by; 3+ is never one with 2+/ISH+."""
_SPECIMEN = ("case_id", "specimen_id", "site")
"""Columns that name a specimen."""
GROUP_ORDER = ("3+", "2+/ISH+", "ISH+ only", "low", "ultralow", "null")


@dataclass(frozen=True, slots=True)
class Sample:
    """A specimen of a run.

    Attributes
    ----------
    taken
        When, as written; None if it is not given.
    group
        A group of `GROUP_ORDER`; None for other classes.
    values
        Measures by name, `LEVELS` and metrics of heterogeneity; absent where there is none. Metrics of
        several slides are their mean, weighted by cells.
    """

    patient_id: str
    case_id: str
    specimen_id: str | None
    taken: str | None
    site: str | None
    status: str
    her2_class: str | None
    group: str | None
    values: Mapping[str, float]

    @property
    def name(self) -> str:
        """Case, specimen and site in one text; for people, never to be taken apart again."""
        return "/".join(part for part in (self.case_id, self.specimen_id, self.site) if part)


@dataclass(frozen=True, slots=True)
class Joined:
    """A line of therapy with the sample before it, or why there is none."""

    line: Line
    sample: Sample | None
    why: str
    therapy_between: bool = False


def read_samples(
    store: Store, metrics: Sequence[str], dates: Mapping[str, str] | None = None
) -> tuple[Sample, ...]:
    """Specimens of a finished run with their levels and metrics.

    Parameters
    ----------
    metrics
        Metrics of slides, as ``rao_q`` or with a size, as ``eta2_250um``.
    dates
        Days of biopsies by case, or by case/specimen, where the manifest has none.

    Raises
    ------
    ManifestError
        If a metric is unknown, or a date contradicts the manifest's.
    """
    wanted = {_metric(name): name for name in metrics if name not in LEVELS}
    cells: dict[str, int] = {}
    slides_of: dict[tuple[str | None, ...], list[str]] = {}
    for row in finished_rows(store, SLIDES, ("slide_id", *_SPECIMEN, "assay", "n_scored")):
        if row["assay"] == Assay.IHC:
            cells[row["slide_id"]] = row["n_scored"] or 0
            slides_of.setdefault(tuple(row[key] for key in _SPECIMEN), []).append(row["slide_id"])
    of_slides: dict[tuple[str, str], float] = {}
    known = set()
    for row in finished_rows(store, HETEROGENEITY, ("slide_id", "metric", "scale_um", "value")):
        known.add(row["metric"])
        name = wanted.get((row["metric"], row["scale_um"]))
        if name and row["value"] is not None and row["slide_id"] in cells:
            of_slides[row["slide_id"], name] = row["value"]
    unknown = sorted(name for (metric, _), name in wanted.items() if metric not in known)
    if unknown:
        raise ManifestError(
            f"--metric {', '.join(unknown)}: not in this run's tables; expected {', '.join(LEVELS)}, or a "
            "metric of docs/heterogeneity.md with its size, such as rao_q or eta2_250um"
        )
    samples, dates, used = [], dates or {}, set()
    columns = (*_SPECIMEN, "patient_id", "collection_date", "her2_status", "her2_class")
    for row in finished_rows(store, CASES, (*columns, *LEVELS)):
        keys = [row["case_id"], f"{row['case_id']}/{row['specimen_id']}"]
        dated = {key: dates[key] for key in keys if key in dates}
        used |= set(dated)
        given = dated.get(keys[1], dated.get(keys[0]))
        taken = row["collection_date"] or given
        if given and row["collection_date"] and given != row["collection_date"]:
            raise ManifestError(
                f"{keys[1]} was taken on {row['collection_date']} by the manifest and on {given} by the "
                "table of biopsies"
            )
        values = {name: float(row[name]) for name in LEVELS if row[name] is not None}
        slides = slides_of.get(tuple(row[key] for key in _SPECIMEN), [])
        for name in wanted.values():
            found = [(cells[s], of_slides[s, name]) for s in slides if (s, name) in of_slides and cells[s]]
            if found:
                values[name] = sum(n * v for n, v in found) / sum(n for n, _ in found)
        samples.append(
            Sample(
                row["patient_id"] or row["case_id"],
                row["case_id"],
                row["specimen_id"],
                taken,
                row["site"],
                row["her2_status"],
                row["her2_class"],
                GROUPS.get(row["her2_class"] or ""),
                values,
            )
        )
    if unused := sorted(set(dates) - used):
        raise ManifestError(
            f"the table of biopsies names {counted(len(unused), 'case')} that the run has not, as {unused[0]}"
        )
    return tuple(samples)


def _metric(name: str) -> tuple[str, float | None]:
    stem, underline, size = name.rpartition("_")
    if underline and size.endswith("um") and size[:-2].isdecimal():
        return stem, float(size[:-2])
    return name, None


def read_biopsies(uri: str, endpoint_url: str | None = None) -> dict[str, str]:
    """Days of biopsies by case, or by case/specimen: columns case_id, specimen_id (may be empty),
    biopsy_date.

    Raises
    ------
    ManifestError
        Names every row that cannot be used.
    """
    header, rows, problems = read_rows(uri, endpoint_url, ("case_id", "biopsy_date"))
    if not {"case_id", "biopsy_date"} <= set(header):
        raise ManifestError(
            f"{uri}: expected the columns case_id, biopsy_date and, where a case has several, specimen_id"
        )
    found: dict[str, str] = {}
    for number, row in rows:
        case, specimen, day = row["case_id"], row.get("specimen_id"), row["biopsy_date"] or ""
        try:
            days_of(day)
            if case is None:
                raise ValueError("no case_id")
            key = case if specimen is None else f"{case}/{specimen}"
            if found.setdefault(key, day) != day:
                raise ValueError(f"{key} was taken on {found[key]} and on {day}")
        except ValueError as error:
            problems.append(f"row {number}: {error}")
    refuse(uri, problems)
    return found


def join(lines: Sequence[Line], samples: Sequence[Sample]) -> tuple[Joined, ...]:
    """The last sample surely taken by the start of each line."""
    of: dict[str, list[Sample]] = {}
    for sample in samples:
        of.setdefault(sample.patient_id, []).append(sample)
    own: dict[str, list[Line]] = {}
    for line in lines:
        own.setdefault(line.patient_id, []).append(line)
    return tuple(_joined(line, of.get(line.patient_id, []), own[line.patient_id]) for line in lines)


def _joined(line: Line, samples: Sequence[Sample], lines: Sequence[Line]) -> Joined:
    """A line with its sample, of the samples and lines of its patient."""
    if not samples:
        return Joined(line, None, "no_sample")
    first, last = days_of(line.start)
    before, unsure, later = [], [], 0
    for sample in samples:
        if sample.taken is None:
            unsure.append("sample_date_missing")
            continue
        earliest, latest = days_of(sample.taken)
        if latest <= first:
            before.append((latest, earliest, sample))
        elif earliest > last:
            later += 1
        else:
            unsure.append("sample_date_ambiguous")
    if unsure:  # one of unknown time may be the one that counts
        return Joined(line, None, Counter(unsure).most_common(1)[0][0])
    if not before:
        return Joined(line, None, "sample_after_start")
    latest = max(day for day, *_ in before)
    chosen = [sample for day, _, sample in before if day == latest]
    since = min(earliest for day, earliest, _ in before if day == latest)
    overlapping = [sample for day, _, sample in before if since <= day < latest]
    if len(chosen) + len(overlapping) > 1:
        return Joined(line, None, "sample_date_tied")
    sample = chosen[0]
    if sample.status == "Indeterminate":
        return Joined(line, None, "sample_indeterminate")
    between = any(
        other.row != line.row and latest <= days_of(other.start)[0] <= first and other.therapy_class != "none"
        for other in lines
    )
    return Joined(line, sample, "", between)
