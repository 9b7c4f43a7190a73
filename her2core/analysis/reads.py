"""Results of readers and machines for slides: their scores as levels, and why there is none.

Reads of people come from a run's ``reader_score`` or from a table of their own, long (one row a read) or wide
(one column a reader). Machines are finished runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from her2core.analysis.sheets import read_rows, refuse
from her2core.cases.clinical_words import READER_SCORES, read_words
from her2core.errors import ManifestError
from her2core.lake.finished import finished_rows
from her2core.lake.schema import SLIDES
from her2core.records import Assay
from her2core.storage.store import Store
from her2core.text import counted, listed, shown

FOUR = ("0", "1+", "2+", "3+")
FIVE = ("null", "ultralow", "1+", "2+", "3+")
"""Tiers with the 0 whole and split."""
LEVEL_OF = {"0_null": "null", "0_ultralow": "ultralow"}
UNSPLIT = "0"
"""A zero not split into null and ultralow: it has a place among four tiers and none among five."""
NO_SCORE = frozenset({"indeterminate", "not evaluable", "ne", "unevaluable", "insufficient", "not scorable"})
"""What a reader writes who gives no score."""
INDETERMINATE = "indeterminate"
MANIFEST_READER = "manifest"
"""Name of the reader whose scores the manifest brought."""
WIDE_PREFIX = "x_reader_"
"""Columns of a wide table, and of a manifest, that hold a reader's scores: x_reader_anna."""
READ_COLUMNS = (
    "slide_id",
    "reader",
    "score",
    "round",
    "date",
    "modality",
    "assisted",
    "patient_id",
    "case_id",
)


@dataclass(frozen=True, slots=True)
class Read:
    """One score of one slide.

    Attributes
    ----------
    level
        A level of `FIVE`, or `UNSPLIT`; None without a score.
    why
        Why there is none: ``indeterminate``, or the state in which a machine left the slide.
    round
        Number of the read among those of this rater of this slide, from 1.
    """

    slide_id: str
    rater: str
    level: str | None
    why: str | None = None
    round: int = 1
    date: date | None = None
    modality: str | None = None
    assisted: bool = False


@dataclass(frozen=True, slots=True)
class Reads:
    """All reads, whose slides are of whom, and which raters are people.

    Attributes
    ----------
    patients
        Patient of every slide; the case, or the slide itself, where none is known.
    people, machines
        Names of raters, sorted; people who read with assistance are raters of their own.
    cases
        Case of slides, where it is known: a run's, or the table's ``case_id``.
    """

    reads: tuple[Read, ...]
    patients: Mapping[str, str]
    people: tuple[str, ...]
    machines: tuple[str, ...]
    cases: Mapping[str, str] = field(default_factory=dict)

    def case(self, slide: str) -> str:
        """Case of a slide; its patient where none is known."""
        return self.cases.get(slide) or self.patients[slide]

    def first(self, rater: str) -> dict[str, Read]:
        """A rater's first read of every slide."""
        return {r.slide_id: r for r in self.reads if r.rater == rater and r.round == 1}

    @property
    def assisted(self) -> tuple[str, ...]:
        """People who read with assistance."""
        return tuple(sorted({r.rater for r in self.reads if r.assisted}))

    @property
    def unassisted(self) -> tuple[str, ...]:
        """People who read without."""
        return tuple(p for p in self.people if p not in self.assisted)


def four(level: str | None) -> str | None:
    """The level among four tiers."""
    return "0" if level in ("null", "ultralow", "0") else level


def five(level: str | None) -> str | None:
    """The level among five tiers; None for a zero that was not split."""
    return None if level == UNSPLIT else level


def gather(runs: Mapping[str, Store], readers: str | None = None, endpoint_url: str | None = None) -> Reads:
    """Reads of finished runs, and of a table of readers.

    Parameters
    ----------
    runs
        Outputs by the name that each machine goes by.
    readers
        Table of reads (path or ``s3://``).

    Raises
    ------
    ManifestError
        If the table cannot be used, names slides that no run has, or holds no read.
    StoreError
        If an output has no tables.
    """
    reads: dict[tuple[str, str, int], Read] = {}
    patients: dict[str, str] = {}
    cases: dict[str, str] = {}
    for name, store in runs.items():
        for row in finished_rows(store, SLIDES, _SLIDE_COLUMNS):
            if row["assay"] != Assay.IHC:
                continue
            slide = row["slide_id"]
            patients.setdefault(slide, row["patient_id"] or row["case_id"] or slide)
            cases.setdefault(slide, row["case_id"])
            reads[name, slide, 1] = machine_read(name, row)
            if row["reader_score"] and (MANIFEST_READER, slide, 1) not in reads:
                level = LEVEL_OF.get(row["reader_score"], row["reader_score"])
                reads[MANIFEST_READER, slide, 1] = Read(slide, MANIFEST_READER, level)
    people = {MANIFEST_READER} if any(rater == MANIFEST_READER for rater, *_ in reads) else set()
    if readers is not None:
        table, named, of_case = read_table(readers, endpoint_url)
        cases = of_case | cases
        unknown = sorted({r.slide_id for r in table} - set(patients)) if runs else []
        if unknown:
            raise ManifestError(
                f"{readers}: in no run given: {counted(len(unknown), 'slide')}, as {shown(unknown[0])}; "
                "expected slide_id as in the run's manifest (HER2-IHC)"
            )
        taken = {r.rater for r in table} & set(runs)
        if taken:
            raise ManifestError(
                f"{readers}: reader {min(taken)} has the name of a run; give the run NAME=URI"
            )
        for read in table:
            reads[read.rater, read.slide_id, read.round] = read
            known = named.get(read.slide_id) or cases.get(read.slide_id) or read.slide_id
            patients.setdefault(read.slide_id, known)
        people |= {r.rater for r in table}
    if not people and len(runs) < 2:
        raise ManifestError(
            "nobody to compare with: no reader_score in the run; give --readers TABLE or a second run"
        )
    ordered = tuple(reads[key] for key in sorted(reads))
    return Reads(ordered, patients, tuple(sorted(people)), tuple(sorted(runs)), cases)


_SLIDE_COLUMNS = (
    "slide_id", "case_id", "patient_id", "assay", "state", "score", "her2_class", "reader_score"
)  # fmt: skip


def machine_read(name: str, row: Mapping[str, str | None]) -> Read:
    """Result of a run for one of its IHC slides."""
    slide, score, found = row["slide_id"] or "", row["score"], row["her2_class"]
    if row["state"] != "scored" or score is None:
        state = row["state"] if row["state"] != "scored" else INDETERMINATE
        return Read(slide, name, None, state)
    if score == UNSPLIT and found in ("null", "ultralow"):
        return Read(slide, name, found)
    return Read(slide, name, score)


def read_table(
    uri: str, endpoint_url: str | None = None
) -> tuple[tuple[Read, ...], dict[str, str], dict[str, str]]:
    """Reads of a table, long or wide, and the patients and cases of slides that it names.

    Long: ``slide_id``, ``reader``, ``score`` and, where known, ``round``, ``date`` (YYYY-MM-DD), ``modality``
    (such as glass, digital), ``assisted`` (yes, no), ``patient_id``, ``case_id``. Wide: ``slide_id`` and
    a column ``x_reader_NAME`` a reader. An empty score is a slide that was not read; ``indeterminate`` or
    ``not evaluable`` is one without a score.

    Raises
    ------
    ManifestError
        Names every row that cannot be used.
    """
    header, rows, problems = read_rows(uri, endpoint_url, ("slide_id",), literal=("slide_id",))
    wide = [name for name in header if name.startswith(WIDE_PREFIX)]
    long = {"reader", "score"} <= set(header)
    if "slide_id" not in header or not (long or wide):
        raise ManifestError(
            f"{uri}: expected the columns slide_id, reader and score, or slide_id and {WIDE_PREFIX}NAME a "
            f"reader; found {listed(header)}"
        )
    found: list[Read] = []
    patients: dict[str, str] = {}
    cases: dict[str, str] = {}
    for number, row in rows:
        slide = row["slide_id"]
        try:
            if not slide:
                raise ValueError("no slide_id")
            for what, of in (("patient", patients), ("case", cases)):
                named = row.get(f"{what}_id")
                if named and of.setdefault(slide, named) != named:
                    raise ValueError(f"slide {slide} is of {what} {of[slide]} and of {named}")
            if long:
                found += _long(slide, row)
            else:
                found += [_read(slide, n.removeprefix(WIDE_PREFIX), row[n]) for n in wide if row[n]]
        except ValueError as error:
            problems.append(f"row {number}: {error}")
    numbered = _rounds(found, problems)
    refuse(uri, problems)
    return tuple(numbered), patients, cases


def _long(slide: str, row: Mapping[str, str | None]) -> list[Read]:
    reader, assisted = row["reader"], (row.get("assisted") or "no").casefold()
    if reader is None:
        raise ValueError("no reader")
    if assisted not in ("yes", "no"):
        raise ValueError(f"assisted is {shown(row['assisted'])}; expected yes or no")
    if not row["score"]:
        return []
    with_help = assisted == "yes"
    read = _read(slide, f"{reader}, assisted" if with_help else reader, row["score"])
    number, day = row.get("round"), row.get("date")
    if number is not None and not (number.isdecimal() and int(number) > 0):
        raise ValueError(f"round is {shown(number)}; expected 1, 2, ...")
    try:
        when = date.fromisoformat(day) if day else None
    except ValueError:
        raise ValueError(f"date is {shown(day)}; expected YYYY-MM-DD") from None
    return [
        Read(slide, read.rater, read.level, read.why, int(number or 0), when, row.get("modality"), with_help)
    ]


def _read(slide: str, reader: str, text: str | None) -> Read:
    words = text or ""
    if words.casefold() in NO_SCORE:
        return Read(slide, reader, None, INDETERMINATE, 0)
    stated = read_words(words, scores=True)
    if stated.understood and not stated.scores and stated.statuses == {"Indeterminate"}:
        return Read(slide, reader, None, INDETERMINATE, 0)
    if not (stated.understood and stated.agree and stated.score):
        raise ValueError(
            f"score is {shown(words)}; expected one of {', '.join(READER_SCORES)}, or indeterminate"
        )
    return Read(slide, reader, LEVEL_OF.get(stated.score, stated.score), None, 0)


def _rounds(reads: Sequence[Read], problems: list[str]) -> list[Read]:
    """Reads of one slide by one reader in their order: by round where all have one, else by date."""
    groups: dict[tuple[str, str], list[Read]] = {}
    for read in reads:
        groups.setdefault((read.rater, read.slide_id), []).append(read)
    out = []
    for (rater, slide), group in groups.items():
        dated = [r.date.toordinal() if r.date else 0 for r in group]
        by = [r.round for r in group] if all(r.round for r in group) else dated
        if len(group) > 1 and (0 in by or max(Counter(by).values()) > 1):
            problems.append(
                f"{rater} read {slide} {len(group)} times; give each its round, or its date, to tell the "
                "first one"
            )
            continue
        order = sorted(range(len(group)), key=by.__getitem__)
        out += [replace(group[i], round=place) for place, i in enumerate(order, start=1)]
    return out
