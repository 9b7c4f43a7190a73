"""The clinical table of an outcome analysis: a row a line of therapy, with what was known before and what
came after.

Read strictly: every row that cannot be used is named, nothing is guessed. Survival is in days from the start
of the line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from her2core.analysis.sheets import read_rows, refuse
from her2core.errors import ManifestError
from her2core.text import listed, shown

ANTIBODY, T_DM1, T_DXD, TKI = "antibody", "T-DM1", "T-DXd", "TKI"
ANTI_HER2 = (ANTIBODY, T_DM1, T_DXD, TKI)
CLASSES = (*ANTI_HER2, "other ADC", "chemotherapy", "endocrine", "none")
NAMES = {
    **dict.fromkeys(("mab", "trastuzumab", "pertuzumab", "margetuximab"), ANTIBODY),
    **dict.fromkeys(("tdm1", "trastuzumab emtansine"), T_DM1),
    **dict.fromkeys(("tdxd", "trastuzumab deruxtecan"), T_DXD),
    **dict.fromkeys(("lapatinib", "tucatinib", "neratinib", "pyrotinib"), TKI),
    "chemo": "chemotherapy",
}
"""Other words for the classes."""
INTENTS = ("neoadjuvant", "adjuvant", "metastatic")
ENDPOINTS = ("pfs", "dfs", "os")
"""Times to an event: each has the columns NAME_days and NAME_event."""
RESPONSES = ("CR", "PR", "SD", "PD", "NE")
ER_POSITIVE_PERCENT = 1.0
"""ER is positive from 1 % of tumour cells on (ASCO/CAP 2020)."""
MAX_DAYS = 36525.0
"""A hundred years."""
COLUMNS = (
    "patient_id", "line", "therapy_class", "regimen", "intent", "start", "stop", "centre", "er", "grade",
    "age_years", "stage", "pcr", "bor", "entry_days",
    *(f"{name}_{part}" for name in ENDPOINTS for part in ("days", "event")),
)  # fmt: skip
REQUIRED = ("patient_id", "therapy_class", "start")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of therapy of one patient.

    Attributes
    ----------
    start, stop
        As written: YYYY-MM-DD, YYYY-MM or YYYY.
    entry_days
        Days from the start to where observation began; patients are not at risk before.
    stage
        Of the anatomic groups 0 to IV, without their letters.
    ends
        Endpoint -> days and whether the event came.
    """

    row: int
    patient_id: str
    therapy_class: str
    start: str
    stop: str | None = None
    line: int | None = None
    regimen: str | None = None
    intent: str | None = None
    centre: str | None = None
    er_positive: bool | None = None
    grade: int | None = None
    age_years: float | None = None
    stage: int | None = None
    pcr: bool | None = None
    bor: str | None = None
    entry_days: float = 0.0
    ends: Mapping[str, tuple[float, bool]] | None = None

    @property
    def responded(self) -> bool | None:
        """Whether the best response is complete or partial; one that was not evaluable is no response."""
        return None if self.bor is None else self.bor in ("CR", "PR")


def read_lines(uri: str, endpoint_url: str | None = None) -> tuple[Line, ...]:
    """Lines of therapy of a table (CSV; path or ``s3://``), in order of patients and starts.

    Raises
    ------
    ManifestError
        Names every row and column that cannot be used.
    """
    header, rows, problems = read_rows(uri, endpoint_url, REQUIRED, literal=("therapy_class",))
    lacking = [name for name in REQUIRED if name not in header]
    odd = [name for name in header if name not in COLUMNS and not name.startswith("x_")]
    if lacking or odd:
        stated = [f"lacks the columns {', '.join(lacking)}"] if lacking else []
        stated += [f"has columns that are not known: {listed(odd)} (your own begin with x_)"] if odd else []
        raise ManifestError(f"{uri}: {'; '.join(stated)}. Known are {', '.join(COLUMNS)}")
    found = []
    for number, row in rows:
        try:
            found.append(_line(number, row))
        except ValueError as error:
            problems.append(f"row {number}: {error}")
    refuse(uri, problems + _twice(found))
    return tuple(sorted(found, key=lambda line: (line.patient_id, line.start, line.line or 0, line.row)))


def days_of(text: str) -> tuple[date, date]:
    """First and last day that a date of any precision may mean.

    Raises
    ------
    ValueError
        If it is none.
    """
    found = re.fullmatch(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?", text)
    if not found:
        raise ValueError(f"{shown(text)} is no date; expected YYYY-MM-DD, YYYY-MM or YYYY")
    year, month, day = (int(part) if part else None for part in found.groups())
    assert year is not None
    try:
        first = date(year, month or 1, day or 1)
    except ValueError:
        raise ValueError(f"{shown(text)} is no date; expected YYYY-MM-DD, YYYY-MM or YYYY") from None
    if day:
        return first, first
    after = date(year + 1, 1, 1) if month in (None, 12) else date(year, (month or 0) + 1, 1)
    return first, after - timedelta(days=1)


def _line(number: int, row: Mapping[str, str | None]) -> Line:
    get = row.get
    patient, kind, start = get("patient_id"), get("therapy_class"), get("start")
    if not patient or not start:
        raise ValueError("no patient_id" if not patient else "no start; expected the first day of the line")
    first, _ = days_of(start)
    stop = get("stop")
    if stop and days_of(stop)[1] < first:
        raise ValueError(f"stop {stop} lies before start {start}")
    ends = {name: found for name in ENDPOINTS if (found := _end(name, row))}
    if "pfs" in ends and "os" in ends and ends["pfs"][0] > ends["os"][0]:
        raise ValueError(f"pfs_days {ends['pfs'][0]:g} is longer than os_days {ends['os'][0]:g}")
    number_of = _number(get("line"), "line", 1, 50)
    grade = _number(get("grade"), "grade", 1, 3)
    return Line(
        number,
        patient,
        _class(kind or ""),
        start,
        stop,
        None if number_of is None else int(number_of),
        get("regimen"),
        _one(get("intent"), INTENTS, "intent"),
        get("centre"),
        _er(get("er")),
        None if grade is None else int(grade),
        _number(get("age_years"), "age_years", 0, 120),
        _stage(get("stage")),
        _yes(get("pcr"), "pcr"),
        _one(get("bor"), RESPONSES, "bor"),
        _number(get("entry_days"), "entry_days", 0, MAX_DAYS) or 0.0,
        ends,
    )


def _class(text: str) -> str:
    folded = " ".join(text.casefold().split())
    for known in CLASSES:
        if folded.replace("-", "") == known.casefold().replace("-", ""):
            return known
    if folded.replace("-", "") in NAMES:
        return NAMES[folded.replace("-", "")]
    raise ValueError(f"therapy_class is {shown(text)}; expected one of {', '.join(CLASSES)}")


def _end(name: str, row: Mapping[str, str | None]) -> tuple[float, bool] | None:
    days = _number(row.get(f"{name}_days"), f"{name}_days", 0, MAX_DAYS)
    event = _yes(row.get(f"{name}_event"), f"{name}_event")
    if (days is None) != (event is None):
        raise ValueError(f"{name}_days and {name}_event belong together; one of them is empty")
    if days is None or event is None:
        return None
    if days == 0:
        raise ValueError(f"{name}_days is 0; expected more, from the start of the line")
    return days, event


def _number(text: str | None, name: str, least: float, most: float) -> float | None:
    if text is None:
        return None
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise ValueError(f"{name} is {shown(text)}; expected {least:g} to {most:g}")
    return value


def _yes(text: str | None, name: str) -> bool | None:
    if text is None:
        return None
    words = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}
    if text.casefold() not in words:
        raise ValueError(f"{name} is {shown(text)}; expected 1 or 0, yes or no")
    return words[text.casefold()]


def _one(text: str | None, known: Sequence[str], name: str) -> str | None:
    if text is None:
        return None
    for word in known:
        if word.casefold() == text.casefold():
            return word
    raise ValueError(f"{name} is {shown(text)}; expected one of {', '.join(known)}")


def _er(text: str | None) -> bool | None:
    if text is None:
        return None
    word = text.casefold().removesuffix("%").strip()
    if word in ("positive", "pos", "negative", "neg"):
        return word.startswith("pos")
    percent = _number(word, "er", 0, 100)
    assert percent is not None
    return percent >= ER_POSITIVE_PERCENT


def _stage(text: str | None) -> int | None:
    """Stage group of the AJCC and UICC: 0, or I to IV in Roman or Arabic numerals, letters left out."""
    if text is None:
        return None
    found = re.fullmatch(r"(?:stage\s*)?(0|[1-4]|iv|i{1,3})(?:[abc]\d?)?", text.strip().casefold())
    if not found:
        raise ValueError(
            f"stage is {shown(text)}; expected 0 or I to IV, such as IIIA; TNM belongs into a column of your "
            "own (x_...)"
        )
    word = found[1]
    return int(word) if word.isdigit() else 4 if word == "iv" else len(word)


def _twice(lines: Sequence[Line]) -> list[str]:
    """Classes that a patient starts twice on one day."""
    problems = []
    seen: dict[tuple[str, str, str], int] = {}
    for line in lines:
        key = line.patient_id, line.therapy_class, line.start
        if key in seen:
            problems.append(
                f"row {line.row}: {line.patient_id} starts {line.therapy_class} twice (row {seen[key]})"
            )
        seen[key] = line.row
    return problems
