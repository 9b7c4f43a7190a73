"""The cohort manifest: a CSV of slides, validated row by row before any work starts.

Every problem is reported at once with its row number as a spreadsheet shows it (the header is row 1). What
only the slide itself can show (missing, broken, no µm/px) is not the manifest's business: such a slide
becomes a row of the results with its reason.
"""

from __future__ import annotations

import difflib
import logging
import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo

from her2core.cases.clinical_cells import named_number, read_cell
from her2core.cases.clinical_words import READER_SCORES, read_words
from her2core.errors import ConfigError, ManifestError
from her2core.guidelines.rules_ihc import SPECIMEN_TYPES, TUMOURS
from her2core.intake.manifest_ids import joined, patient_problems, spelling_problems, taken_over
from her2core.intake.manifest_sheet import (
    EXCEL_ERRORS,
    NO_ROOM,
    Sheet,
    mangled,
    parse_sheet,
    read_sheet,
    repeated,
)
from her2core.readers.channels import parse_channels
from her2core.readers.scale import plausible_range
from her2core.records import Assay, SlideRow
from her2core.scoring.keyed import Judging
from her2core.spelling import folded
from her2core.text import CARRIES_SECRET, carries_secret, counted, cut, shown

log = logging.getLogger(__name__)

EXTRA_PREFIX = "x_"
"""Columns of this prefix are the user's own and are ignored; any other unknown column is an error."""
IDENTITY = "x_identity"
"""Column of ours: the identity that a slide had when it was taken in."""
MISSING = frozenset(
    {"", "-", "--", "–", "—", "na", "n/a", "#n/a", "nan", "none"}
    | {"[not available]", "[not applicable]", "[unknown]"}
)
"""Texts (in any case) that mean an empty cell; clinical exports write them. A slide may be called as one of
their words: files are."""
SITES = ("primary", "lymph_node", "metastasis", "recurrence", "unknown")
"""Sites; an organ may follow: ``metastasis:liver``."""
ISH_STATUSES = ("positive", "equivocal", "negative")
"""What a laboratory may have reported of an ISH."""
ISH_GROUPS = (
    *("1", "2", "3", "4", "5"),
    *("amplified", "high_copies", "not_amplified"),
    *("single_negative", "single_equivocal", "single_positive"),
)
"""ISH groups that a laboratory may give: breast's, gastric ones, and those of a single probe."""
YES_OR_NO = frozenset({"0", "1", "y", "n", "yes", "no", "true", "false"})
"""What is no reason to leave a slide out, and no reason to keep it."""
MAX_COPIES = 100.0
"""Most copies a nucleus, and highest ratio, that a laboratory can report (ours; real ones are below 40)."""
MAX_ADDRESS = 4096
"""Longest address, the longest path of Linux."""
MAX_TEXT = 128
"""Longest identifier, in characters: it becomes part of file names. Ours."""
IDS = ("slide_id", "case_id", "patient_id", "specimen_id", "block_id")
"""Columns of ids, which spreadsheets like to change."""
MAX_DOUBTS = 20
"""Most ids that warnings name."""
MAX_SHOWN = 100
"""Most problems that one message lists."""
FORMULA = re.compile(r"[=@]|[+\-][^0-9.,]")
"""How a text begins that a spreadsheet may take for a formula."""
UNSAFE = re.compile(r'[/\\:*?"<>|#%&]|^[^\w]|\.\.')
"""What a slide's name must not hold, because it names files, objects and links."""


def _plain(value: str) -> str:
    if value.casefold() in EXCEL_ERRORS:
        raise ValueError(f"found {shown(value)}, an error of the spreadsheet; expected its value")
    if NO_ROOM.fullmatch(value):
        raise ValueError(
            f"found {shown(value)}, which a spreadsheet writes where a column is too narrow; widen it"
        )
    if FORMULA.match(value):
        raise ValueError(
            f"found {shown(value)}, which a spreadsheet may run as a formula; expected text without =, +, - "
            "or @ at its beginning"
        )
    if not value.isprintable():
        raise ValueError(f"found {shown(value)}; expected text without control characters")
    if len(value) > MAX_TEXT:
        raise ValueError(f"{len(value)} characters; expected {MAX_TEXT} at most")
    return value


def _slide_name(value: str) -> str:
    if UNSAFE.search(value):
        raise ValueError(
            f"found {shown(value)}, which cannot name files and links; use letters, digits, spaces and "
            ". _ - +, and begin with a letter or digit"
        )
    return value


def _assay(value: str) -> str:
    return _one_of(value, [str(a) for a in Assay])


def _site(value: str) -> str:
    kind, _, organ = value.partition(":")
    organ = " ".join(organ.casefold().split())
    return _one_of(kind.strip(), SITES) + (f":{organ}" if organ else "")


def _reader_score(value: str) -> str:
    stated = read_words(value, scores=True)
    return (
        stated.score if stated.understood and stated.agree and stated.score else _one_of(value, READER_SCORES)
    )


def _one_of(value: str, known: Sequence[str]) -> str:
    by_folded = {k.casefold(): k for k in known}
    if value.casefold() not in by_folded:
        raise ValueError(f"found {shown(value)}; expected one of {', '.join(known)}{_meant(value, known)}")
    return by_folded[value.casefold()]


def _number(value: str, expected: str) -> Decimal:
    """A number with the decimals that were written; a decimal comma is a point."""
    if not re.fullmatch(r"-?[0-9]{1,9}([.,][0-9]{1,20})?|[.,][0-9]{1,20}", value):
        raise ValueError(f"found {shown(value)}; expected {expected}")
    return Decimal(value.replace(",", "."))


def _mpp(value: str, info: ValidationInfo) -> float:
    number = float(_number(value, "micrometres a pixel, such as 0.25"))
    low, high = plausible_range(info.data.get("assay", Assay.FISH))  # widest where the assay is wrong itself
    if not low <= number <= high:
        raise ValueError(f"found {value}; expected {low} to {high} micrometres a pixel")
    return number


def _no_number(column: str, value: str) -> str:
    """What to do with an inequality or a range, which leaves open what only a number would settle."""
    if read_cell(column, value).reason not in ("range", "approximate"):
        return ""
    return "; an inequality, range or estimate is no number: leave it empty and give the result in ish_status"


def _amount(column: str, what: str, *, above_zero: bool) -> Callable[[str], Decimal]:
    """Validator of a laboratory's number."""

    def read(value: str) -> Decimal:
        number = _number(
            named_number(column, value) or value, f"{what}, such as 2.1{_no_number(column, value)}"
        )
        if not 0 <= number <= MAX_COPIES or (above_zero and number == 0):
            least = "above 0 and" if above_zero else "from 0"
            raise ValueError(f"found {value}; expected {what}, {least} up to {MAX_COPIES:g}")
        return number

    return read


def _duration(unit: str, most: int) -> Callable[[str], float]:
    """Validator of a length of time; the upper bound catches slips of the pen, and is ours."""

    def read(value: str) -> float:
        number = _number(value, f"{unit}, such as 24")
        if not 0 <= number <= most:
            raise ValueError(f"found {value}; expected {unit}, from 0 up to {most}")
        return float(number)

    return read


def _tumour_type(value: str) -> str:
    return _one_of(value, TUMOURS)


def _specimen_type(value: str) -> str:
    return _one_of(value, SPECIMEN_TYPES)


def _channels(value: str, info: ValidationInfo) -> str:
    assay = info.data.get("assay")
    if assay not in (None, Assay.FISH):
        raise ValueError(
            f"found {shown(value)} for {assay}; only slides of {Assay.FISH} have channels to name"
        )
    parse_channels(_plain(value))
    return value


def _background(value: str, info: ValidationInfo) -> tuple[float, float, float]:
    """One grey level, or those of R, G and B with semicolons or spaces between."""
    if info.data.get("assay") is Assay.FISH:
        raise ValueError(f"found {shown(value)} for {Assay.FISH}; only bright-field slides have one to state")
    expected = "grey levels of empty glass, 20 to 255, such as 243 or 243;243;242"
    levels = [float(_number(part, expected)) for part in re.split(r"\s*;\s*|\s+", value)]
    if len(levels) not in (1, 3) or not all(20 <= level <= 255 for level in levels):
        raise ValueError(f"found {shown(value)}; expected {expected}")
    red, green, blue = levels * 3 if len(levels) == 1 else levels
    return red, green, blue


def _ish_status(value: str) -> str:
    stated = read_words(value, scores=False)
    return _one_of(stated.status if stated.understood and stated.status else value, ISH_STATUSES)


def _ish_group(value: str) -> str:
    return _one_of(value.casefold().removeprefix("group").strip(), ISH_GROUPS)


def _why_excluded(value: str) -> str:
    if value.casefold() in YES_OR_NO:
        raise ValueError(f"found {shown(value)}; leave it empty, or write why the slide is left out")
    return value


def _date(value: str) -> str:
    """A day, month or year in ISO form; whoever pseudonymises dates keeps the month or the year alone."""
    parts = value.split("-")
    try:
        date.fromisoformat("-".join([*parts, "01", "01"][:3]))
    except ValueError:
        expected = f"YYYY-MM-DD, YYYY-MM or YYYY{_as_iso(value)}"
        raise ValueError(f"found {shown(value)}; expected {expected}") from None
    return value


def _as_iso(value: str) -> str:
    """How a day with points, which can only be day.month.year, is written; nothing for other texts."""
    found = re.fullmatch(r"([0-9]{1,2})\. ?([0-9]{1,2})\. ?([0-9]{4})", value)
    if not found:
        return ""
    day, month, year = (int(part) for part in found.groups())
    try:
        return f", as in {date(year, month, day).isoformat()}"
    except ValueError:
        return ""


def _address(value: str) -> str:
    if carries_secret(value):
        raise ValueError(f"the address {CARRIES_SECRET}")
    if len(value) > MAX_ADDRESS:
        raise ValueError(f"{len(value)} characters; expected {MAX_ADDRESS} at most")
    if "\\" in value or not value.isprintable():
        raise ValueError(f"found {shown(value)}; expected folders separated by '/' and no control characters")
    scheme, separator, rest = value.partition("://")
    if separator and scheme not in ("s3", "file"):
        raise ValueError(f"found the scheme {shown(scheme)}; expected a path or s3://bucket/key")
    if scheme == "s3" and ("@" in rest.split("/", 1)[0] or "/" not in rest):
        raise ValueError("expected s3://bucket/key, without credentials")
    return value


def _ihc_only(value: str, info: ValidationInfo) -> str:
    assay = info.data.get("assay")
    if assay is not None and assay != Assay.IHC:
        raise ValueError(f"found outlines for {assay}; only slides of {Assay.IHC} are measured on them")
    return value


_Text = Annotated[str, AfterValidator(_plain)]
_Address = Annotated[str, AfterValidator(_address)]


class _Row(BaseModel):
    """One manifest row: its cells that are not empty, trimmed. The columns are those of `SlideRow`."""

    model_config = ConfigDict(extra="forbid")

    slide_id: Annotated[_Text, AfterValidator(_slide_name)]
    case_id: _Text
    uri: _Address
    assay: Annotated[Assay, BeforeValidator(_assay)]
    patient_id: _Text | None = None
    specimen_id: _Text | None = None
    block_id: _Text | None = None
    site: Annotated[_Text, AfterValidator(_site)] | None = None
    collection_date: Annotated[str, AfterValidator(_date)] | None = None
    scanner: _Text | None = None
    mpp: Annotated[float, BeforeValidator(_mpp)] | None = None
    scene: _Text | None = None
    roi_uri: _Address | None = None
    reader_score: Annotated[str, AfterValidator(_reader_score)] | None = None
    channels: Annotated[str, AfterValidator(_channels)] | None = None
    background: Annotated[tuple[float, float, float], BeforeValidator(_background)] | None = None
    ish_ratio: (
        Annotated[Decimal, BeforeValidator(_amount("ish_ratio", "a HER2/CEP17 ratio", above_zero=True))]
        | None
    ) = None
    ish_her2: (
        Annotated[Decimal, BeforeValidator(_amount("ish_her2", "HER2 copies a nucleus", above_zero=False))]
        | None
    ) = None
    ish_cep17: (
        Annotated[Decimal, BeforeValidator(_amount("ish_cep17", "CEP17 copies a nucleus", above_zero=True))]
        | None
    ) = None
    ish_status: Annotated[str, AfterValidator(_ish_status)] | None = None
    ish_group: Annotated[str, AfterValidator(_ish_group)] | None = None
    ish_recount_group: Annotated[str, AfterValidator(_ish_group)] | None = None
    ish_source: _Text | None = None
    exclude: Annotated[_Text, AfterValidator(_why_excluded)] | None = None
    tumour_type: Annotated[str, AfterValidator(_tumour_type)] | None = None
    specimen_type: Annotated[str, AfterValidator(_specimen_type)] | None = None
    cold_ischaemia_min: Annotated[float, BeforeValidator(_duration("minutes", 10_000))] | None = None
    fixative: _Text | None = None
    fixation_h: Annotated[float, BeforeValidator(_duration("hours", 10_000))] | None = None
    antibody_clone: _Text | None = None
    section_age_days: Annotated[float, BeforeValidator(_duration("days", 100_000))] | None = None
    block_date: Annotated[str, AfterValidator(_date)] | None = None
    cells_uri: Annotated[_Address, AfterValidator(_ihc_only)] | None = None
    laboratory: _Text | None = None


COLUMNS = tuple(_Row.model_fields)
REQUIRED = tuple(name for name, field in _Row.model_fields.items() if field.is_required())


def read_manifest(uri: str, endpoint_url: str | None = None) -> tuple[SlideRow, ...]:
    """Read and validate a manifest.

    Parameters
    ----------
    uri
        CSV, semicolon- or tab-separated file in UTF-8 (or UTF-16 with its mark), as a path or ``s3://`` URI.
        Relative slide addresses in it are taken from the place of the manifest.
    endpoint_url
        S3 endpoint; by default from the environment.

    Raises
    ------
    ManifestError
        Listing every problem with its row number.
    """
    return check_rows(uri, *read_sheet(uri, endpoint_url, REQUIRED))


def check_rows(uri: str, sheet: Sheet, misshapen: Sequence[str]) -> tuple[SlideRow, ...]:
    """Validate the rows of a manifest that was read.

    Parameters
    ----------
    uri
        Address of the manifest, from which relative ones in it are taken.
    sheet, misshapen
        Of `manifest_sheet.read_sheet`.

    Raises
    ------
    ManifestError
        Listing every problem with its row number.
    """
    problems = _header_problems(sheet.header)
    if problems:
        raise _refused(uri, problems)
    problems = list(misshapen)
    rows: list[tuple[int, SlideRow]] = []
    for number, cells in sheet.records:
        try:
            row = _Row.model_validate(_filled(sheet.header, cells))
        except ValidationError as error:
            problems += [
                f"row {number}, {_sentence(entry)}{_says_empty(entry, sheet.header, cells)}"
                for entry in error.errors(include_url=False)
            ]
            continue
        values = row.model_dump()
        for column in ("uri", "roi_uri", "cells_uri"):
            if values[column] is not None:
                values[column] = resolved(uri, values[column])
        rows.append((number, SlideRow(**values)))
    problems += _duplicates(rows) + spelling_problems(rows) + patient_problems(rows)
    as_written = rows
    rows, unclear = joined(rows)
    problems += unclear
    if not sheet.records and not problems:
        problems.append("no rows; expected one a slide")
    if problems:
        raise _refused(uri, problems)
    for line in [*_doubts(rows), *_shared(rows)]:
        log.warning("%s: %s", uri, line)
    if taken := taken_over(as_written, rows):
        log.warning("%s: %s", uri, taken)
    return tuple(row for _, row in rows)


def identities_in(uri: str, data: bytes) -> dict[str, str]:
    """What ingest wrote of the slides of a manifest (``x_identity``), by slide; nothing of others."""
    sheet, _ = parse_sheet(uri, data, REQUIRED)
    if IDENTITY not in sheet.header:
        return {}
    slide, identity = sheet.header.index("slide_id"), sheet.header.index(IDENTITY)
    return {cells[slide].strip(): cells[identity] for _, cells in sheet.records if cells[identity]}


def require_rules(rows: Sequence[SlideRow], judging: Judging, uri: str = "manifest") -> None:
    """Check that there are rules for every row's tumour and specimen.

    Raises
    ------
    ManifestError
        Naming the slides that no rule set, or more than one, is for.
    """
    problems = []
    for row in rows:
        try:
            judging.of(row)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise _refused(uri, problems)


def _filled(header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """Cells that are not empty, by column, trimmed and in Unicode's composed form."""
    texts = {
        name: unicodedata.normalize("NFC", cell.strip()) for name, cell in zip(header, cells, strict=True)
    }
    stated = {k: v for k, v in texts.items() if not k.startswith(EXTRA_PREFIX)}
    return {k: v for k, v in stated.items() if v.lower() not in MISSING or (k == "slide_id" and v.isalnum())}


def _says_empty(error: Any, header: Sequence[str], cells: Sequence[str]) -> str:
    """For a value that is required: the text that was taken for an empty cell; nothing of other errors."""
    if error["type"] != "missing":
        return ""
    text = cells[header.index(error["loc"][0])].strip()
    return f"; {shown(text)} means an empty cell" if text else ""


def _header_problems(header: Sequence[str]) -> list[str]:
    if len(header) == 1 and header[0] not in COLUMNS:
        return [f"one column alone, {shown(header[0])}; expected comma, semicolon or tab between columns"]
    problems = [f"column {name} is missing" for name in REQUIRED if name not in header]
    problems += [f"column {cut(name, MAX_TEXT)} appears twice" for name in repeated(header)]
    unknown = [name for name in header if name not in COLUMNS and not name.startswith(EXTRA_PREFIX)]
    for name in unknown[:MAX_SHOWN]:
        meant = _meant(name, COLUMNS)
        problems.append(f"column {shown(name)} is unknown{meant} (name your own columns {EXTRA_PREFIX}...)")
    return problems


def _doubts(rows: Sequence[tuple[int, SlideRow]]) -> list[str]:
    """Ids that a spreadsheet may have changed or that mean an empty cell; the first few, with their rows."""
    doubts: dict[tuple[str, str], str] = {}
    stripped: dict[tuple[str, str], tuple[str, int]] = {}
    for number, row in rows:
        for column in IDS:
            value = getattr(row, column)
            if value is None or (column, value) in doubts:
                continue
            if value.lower() in MISSING:
                doubts[column, value] = f"row {number}, {column}: {value!r} is taken for the slide's name"
            if why := mangled(value):
                doubts[column, value] = f"row {number}, {column}: {value!r} {why}; compare it with its source"
            if value.isdecimal():
                other, earlier = stripped.setdefault((column, value.lstrip("0")), (value, number))
                if other != value:
                    doubts[column, value] = (
                        f"row {number}, {column}: {value!r} and {other!r} of row {earlier} differ in zeros "
                        "before them, which spreadsheets drop; compare them with their source"
                    )
    found, more = list(doubts.values()), len(doubts) - MAX_DOUBTS
    return found[:MAX_DOUBTS] + ([f"... and {more} more"] if more > 0 else [])


def _shared(rows: Sequence[tuple[int, SlideRow]]) -> list[str]:
    """Slides whose tissue may count twice, for one case or for two; the first few, with their rows."""
    doubts: list[str] = []
    seen: dict[tuple[str, str | None], tuple[int, SlideRow]] = {}
    for number, row in rows:
        earlier, first = seen.setdefault((row.uri, row.scene), (number, row))
        if earlier == number or row.exclude or first.exclude:
            continue
        if row.roi_uri is None or first.roi_uri is None or row.roi_uri == first.roi_uri:
            whose = "" if row.case_id == first.case_id else f", of case {first.case_id!r}"
            doubts.append(
                f"row {number}, uri: the same slide as in row {earlier}{whose}; its tissue counts for both: "
                "correct uri, or draw a region for each (roi_uri)"
            )
    more = len(doubts) - MAX_DOUBTS
    return doubts[:MAX_DOUBTS] + ([f"... and {more} more"] if more > 0 else [])


def _duplicates(rows: Sequence[tuple[int, SlideRow]]) -> list[str]:
    """Slides named or placed twice, and cases of two patients."""
    problems = []
    ids: dict[str, int] = {}
    places: dict[tuple[str | None, ...], int] = {}
    patients: dict[str, tuple[str, int]] = {}
    for number, row in rows:
        if row.patient_id is not None:
            patient, earlier = patients.setdefault(row.case_id, (row.patient_id, number))
            if patient != row.patient_id:
                other = f"case {row.case_id!r} is {patient!r} in row {earlier}"
                problems.append(f"row {number}, patient_id: {row.patient_id!r}, but {other}")
        if (earlier := ids.setdefault(folded(row.slide_id), number)) != number:
            problems.append(f"row {number}, slide_id: {row.slide_id!r} is also in row {earlier}")
        place = (row.uri, row.scene, row.roi_uri, row.cells_uri)
        if (earlier := places.setdefault(place, number)) != number:
            problems.append(
                f"row {number}, uri: the same slide, scene, region and nuclei as in row {earlier}"
            )
    return problems


def resolved(manifest: str, address: str) -> str:
    """Absolute form of an address that may be relative to the manifest's folder."""
    if address.startswith("s3://"):
        return address
    if manifest.startswith("s3://") and not address.startswith(("/", "file://")):
        bucket, _, key = manifest.removeprefix("s3://").partition("/")
        return f"s3://{bucket}" + posixpath.normpath("/" + posixpath.join(posixpath.dirname(key), address))
    folder = Path(manifest.removeprefix("file://")).parent
    return os.path.abspath(folder / os.path.expanduser(address.removeprefix("file://")))


def _sentence(entry: Any) -> str:
    """One of pydantic's errors in the manifest's words."""
    name = entry["loc"][0]
    if entry["type"] == "missing":
        return f"{name}: empty; a value is required"
    return f"{name}: {entry['ctx']['error']}"


def _meant(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name[:MAX_TEXT].lower(), [k.lower() for k in known], n=1)
    return f"; did you mean {next(k for k in known if k.lower() == near[0])}?" if near else ""


def _refused(uri: str, problems: Sequence[str]) -> ManifestError:
    ordered = sorted(problems, key=lambda p: int(m.group(1)) if (m := re.match(r"row (\d+)", p)) else 0)
    lines = ordered[:MAX_SHOWN]
    if len(ordered) > len(lines):
        lines.append(f"... and {len(ordered) - len(lines)} more")
    count = counted(len(ordered), "problem")
    return ManifestError(f"{uri}: {count}, nothing was started:\n  " + "\n  ".join(lines))
