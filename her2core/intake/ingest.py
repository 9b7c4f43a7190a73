"""What arrived in a place becomes rows of a manifest; what a person must decide is reported and waits.

The manifest is the record: its columns ``x_identity`` and ``x_stamp`` keep what every slide was when it was
taken in. Rows that are there are never changed in any other cell and never removed. What cannot be used is
written beside it (``MANIFEST.refused.csv``), so that it is not opened again before it changes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from botocore.exceptions import BotoCoreError

from her2core.errors import ConfigError, ManifestError, Reason, SlideError
from her2core.intake.discover import Found, discover
from her2core.intake.draft import assay_of, slide_id_of
from her2core.intake.identifiers import Cells, NamingRule, Sidecar, UnclearError, merged
from her2core.intake.inspect import inspect_slide, require_scorable
from her2core.intake.manifest import IDENTITY, REQUIRED, check_rows, resolved
from her2core.intake.manifest_sheet import MAX_BYTES, Sheet, parse_sheet
from her2core.readers.channels import parse_channels
from her2core.records import Assay
from her2core.spelling import folded
from her2core.storage.lease import held
from her2core.storage.sources import Scratch, read_small
from her2core.storage.store import Store
from her2core.text import cleaned, counted, cut, harmless

SETTLE_S = 600.0
"""A slide whose last file is younger may still be arriving. Ours: longer than a scanner pauses."""
OPENED_AT_ONCE = 4
"""New slides whose headers are read at the same time: they wait for the store, not for a processor. Ours."""
STAMP, ASSAY_FROM = "x_stamp", "x_assay_from"
"""Our columns of the manifest beside the identity: stamp of the listing, and where the assay was found."""
UNCLEAR_ASSAY = "assay_unclear"
REFUSED_COLUMNS = ("uri", "stamp", "reason", "message")
MANIFEST_WAIT_S = 300.0
"""How long one ingest waits for another into the same manifest. Ours."""
_ROW = re.compile(r"\brow (\d+)")


class Kind(StrEnum):
    """What became of a slide."""

    NEW = "new"
    CHANGED = "changed"
    VANISHED = "vanished"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    NO_CASE = "no case"
    UNCLEAR = "unclear"
    WAITING = "waiting"


FOR_A_PERSON = frozenset({Kind.VANISHED, Kind.DUPLICATE, Kind.REFUSED, Kind.NO_CASE, Kind.UNCLEAR})
"""Kinds that a person has to correct."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One slide of a report, and what there is to report of it."""

    kind: Kind
    uri: str
    slide_id: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest found.

    Attributes
    ----------
    objects, slides
        Listed in the place.
    rows
        Of the manifest, as it is now.
    written
        Whether the manifest was replaced.
    guessed
        New slides whose assay was guessed, by what from (``name``, ``pixels``).
    """

    place: str
    manifest: str
    objects: int
    slides: int
    rows: int
    written: bool
    entries: tuple[Entry, ...]
    outputs: tuple[str, ...] = ()
    guessed: Mapping[str, int] = field(default_factory=dict)

    def of(self, kind: Kind) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind == kind]

    @property
    def to_score(self) -> tuple[str, ...]:
        """Slides that a run has work with: new ones and changed ones."""
        return tuple(e.slide_id for e in self.entries if e.kind in (Kind.NEW, Kind.CHANGED))

    @property
    def needs_a_person(self) -> bool:
        return any(entry.kind in FOR_A_PERSON for entry in self.entries)

    @property
    def is_waiting(self) -> bool:
        """Whether slides were still arriving."""
        return any(entry.kind == Kind.WAITING for entry in self.entries)

    def lines(self) -> list[str]:
        """The report in a few lines of text."""
        counts = Counter(entry.kind for entry in self.entries)
        found = ", ".join(f"{counts[kind]} {kind}" for kind in Kind if counts[kind]) or "nothing new"
        lines = [
            f"{self.place}: {counted(self.objects, 'object')}, {counted(self.slides, 'slide')}: {found}",
            f"{self.manifest}: {counted(self.rows, 'row')}, {'replaced' if self.written else 'as it was'}",
        ]
        if self.guessed:
            sources = [f"{count} from the {source}" for source, count in sorted(self.guessed.items())]
            lines.append(
                f"assays of new slides that were guessed: {', '.join(sources)}; see the column {ASSAY_FROM}"
            )
        lines += [
            f"passed over, an output of her2 run: {self.place}/{path}".rstrip("/") for path in self.outputs
        ]
        return lines

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        return {
            "place": self.place,
            "manifest": self.manifest,
            "objects": self.objects,
            "slides": self.slides,
            "rows": self.rows,
            "written": self.written,
            "guessed": dict(self.guessed),
            "to_score": list(self.to_score),
            "outputs": list(self.outputs),
            "entries": [asdict(entry) for entry in self.entries],
        }


@dataclass(frozen=True, slots=True)
class Intake:
    """What to take in, and by what rules.

    Attributes
    ----------
    place
        Folder or ``s3://bucket/prefix``.
    manifest
        Path or ``s3://`` address of the manifest, which need not be there yet.
    assay
        Of all slides for which neither rule nor table gives it.
    """

    place: str
    manifest: str
    scratch: Scratch
    rule: NamingRule | None = None
    sidecar: Sidecar | None = None
    assay: Assay | None = None
    settle_s: float = SETTLE_S
    endpoint_url: str | None = None


def ingest(intake: Intake, *, dry_run: bool = False) -> IngestReport:
    """Bring a manifest up to date with a place; one ingest at a time does that.

    Raises
    ------
    StoreError
        If the place or the manifest's folder cannot be used, or another ingest is at work.
    ManifestError
        If the manifest as it stands cannot be used.
    """
    Store(intake.place, endpoint_url=intake.endpoint_url).reach()
    if dry_run:
        return _Ingest(intake).run(write=False)
    with _alone(intake):
        return _Ingest(intake).run(write=True)


@contextmanager
def _alone(intake: Intake) -> Iterator[None]:
    folder, name = _manifest_place(intake)
    folder.reach("write to")
    with held(folder, "another ingest", "ingest", folder=f".{name}.lease", patience_s=MANIFEST_WAIT_S):
        yield


def _manifest_place(intake: Intake) -> tuple[Store, str]:
    folder, _, name = intake.manifest.removeprefix("file://").rpartition("/")
    if not name or (intake.manifest.startswith("s3://") and folder in ("s3:/", "")):
        raise ConfigError(f"--manifest {intake.manifest}: expected a file, such as s3://bucket/manifest.csv")
    root = folder or ("/" if intake.manifest.startswith("/") else ".")
    return Store(root, endpoint_url=intake.endpoint_url), name


@dataclass(slots=True)
class _Candidate:
    """A slide that may become a row."""

    found: Found
    uri: str
    cells: dict[str, str]
    sources: str
    identity: str


class _Ingest:
    """One ingest under way."""

    def __init__(self, intake: Intake) -> None:
        self.intake = intake
        self.store = Store(intake.place, endpoint_url=intake.endpoint_url)
        self.folder, self.name = _manifest_place(intake)
        self.entries: list[Entry] = []
        self.guessed: Counter[str] = Counter()

    def run(self, *, write: bool) -> IngestReport:
        found = discover(self.store)
        before = self._read()
        header, rows = self._rows(before)
        changed = self._known(found.slides, found.upload_of, rows)
        candidates = self._identified(self.waiting_for_a_row)
        new = self._inspected(candidates)
        new = self._valid(header, rows, new)
        self._vanished()
        if new or changed:
            rows += new
            if write:
                self._replace(before, _as_csv(header, rows))
        if write:
            self._write_refused()
        order = {kind: number for number, kind in enumerate(Kind)}
        return IngestReport(
            place=self.store.uri(),
            manifest=self.intake.manifest,
            objects=found.objects,
            slides=len(found.slides),
            rows=len(rows),
            written=write and bool(new or changed),
            entries=tuple(sorted(self.entries, key=lambda e: (order[e.kind], e.uri))),
            outputs=found.outputs,
            guessed=dict(self.guessed),
        )

    def report(self, kind: Kind, uri: str, why: str = "", slide_id: str = "") -> None:
        """Report a slide."""
        self.entries.append(Entry(kind, uri, slide_id, cut(" ".join(why.split()), 400)))

    # the manifest as it is

    def _read(self) -> bytes | None:
        try:
            return read_small(self.intake.manifest, self.intake.endpoint_url, MAX_BYTES)
        except FileNotFoundError:
            return None

    def _rows(self, data: bytes | None) -> tuple[list[str], list[dict[str, str]]]:
        """Header and rows as they are written; the manifest must be one that a run accepts."""
        self.by_uri: dict[str, list[dict[str, str]]] = {}
        self.by_identity: dict[str, tuple[str, str]] = {}
        self.taken: set[str] = set()
        self.refused = self._read_refused()
        self.still_refused: dict[str, tuple[str, str, str]] = {}
        if data is None:
            return [*REQUIRED], []
        uri = self.intake.manifest
        sheet, misshapen = parse_sheet(uri, data, REQUIRED)
        if sheet.records or misshapen:
            check_rows(uri, sheet, misshapen)
        rows = [dict(zip(sheet.header, cells, strict=True)) for _, cells in sheet.records]
        for row in rows:
            self.by_uri.setdefault(resolved(uri, row["uri"].strip()), []).append(row)
            self.taken.add(folded(row["slide_id"]))
        return list(sheet.header), rows

    def _know_by_identity(self, changed: Collection[str] = ()) -> Iterator[tuple[str, str, str]]:
        """Know rows by what their slides are: place and id of each that is what an earlier one is, its id.

        Earlier are those that are not excluded, and of these the ones that have not changed.
        """
        self.by_identity.clear()
        rows = [(uri, row) for uri, of in self.by_uri.items() for row in of if row.get(IDENTITY)]
        for uri, row in sorted(rows, key=lambda each: (bool(each[1].get("exclude")), each[0] in changed)):
            place, other = self.by_identity.setdefault(row[IDENTITY], (uri, row["slide_id"]))
            if place != uri and not row.get("exclude"):
                yield uri, row["slide_id"], other

    def _known(
        self, slides: Sequence[Found], upload_of: Callable[[Found], str | None], rows: list[dict[str, str]]
    ) -> bool:
        """Pass by the slides that have rows; whether a row was changed. What has none is kept for later."""
        self.waiting_for_a_row: list[Found] = []
        self.here = {self.store.uri(slide.path) for slide in slides}
        now, noted, changed = time.time(), False, set[str]()
        for slide in slides:
            uri = self.store.uri(slide.path)
            if upload := upload_of(slide):
                self.report(Kind.WAITING, uri, f"{upload} is being uploaded")
            elif (age := now - slide.changed) < self.intake.settle_s:
                self.report(Kind.WAITING, uri, f"written {max(age, 0):.0f} s ago; it may still be arriving")
            elif uri not in self.by_uri:
                self.waiting_for_a_row.append(slide)
            elif any(row.get(STAMP) != slide.stamp for row in self.by_uri[uri]):
                before = [row.get(IDENTITY) for row in self.by_uri[uri]]
                noted |= self._noted(slide, uri)
                if before != [row.get(IDENTITY) for row in self.by_uri[uri]]:
                    changed.add(uri)
        for uri, slide_id, other in self._know_by_identity(changed):
            if uri in self.here:
                why = f"the same content as {other}; both rows stay: correct one, or write why in exclude"
                self.report(Kind.DUPLICATE, uri, why, slide_id)
        return noted

    def _noted(self, slide: Found, uri: str) -> bool:
        """Note what a slide with rows is now."""
        try:
            identity = slide.identity(self.store)
        except (SlideError, OSError, BotoCoreError) as error:
            self.report(Kind.REFUSED, uri, cleaned(str(error)))
            return False
        for row in self.by_uri[uri]:
            if row.get(IDENTITY) and row[IDENTITY] != identity:
                self.report(Kind.CHANGED, uri, "other content than when it was taken in", row["slide_id"])
            row[IDENTITY], row[STAMP] = identity, slide.stamp
        return True

    # new slides

    def _identified(self, slides: Sequence[Found]) -> list[_Candidate]:
        """New slides whose case is known, and whose content is in the manifest under no other name."""
        alike = Counter(_name(slide).casefold() for slide in slides)
        root = self._root()
        alike.update(PurePosixPath(uri).name.casefold() for uri in self.by_uri if uri.startswith(root))
        candidates = []
        for slide in slides:
            uri = self.store.uri(slide.path)
            try:
                cells, sources = self._cells(slide, alike[_name(slide).casefold()])
            except UnclearError as error:
                self.report(Kind.UNCLEAR, uri, str(error))
                continue
            if not cells.get("case_id"):
                self.report(Kind.NO_CASE, uri, f"{sources or 'neither rule nor table'} names its case")
                continue
            if self._is_refused_still(slide, uri, cells):
                continue
            try:
                identity = slide.identity(self.store)
            except (SlideError, OSError, BotoCoreError) as error:
                self._refuse(slide, uri, cells, error)
                continue
            if identity in self.by_identity:
                place, other = self.by_identity[identity]
                why = "not taken in again"
                if self._is_gone(place):
                    why = "whose file is gone: if it was renamed or moved, write this place into its row"
                self.report(Kind.DUPLICATE, uri, f"the same content as {other}; {why}")
                continue
            self.by_identity[identity] = uri, cells.get("slide_id") or uri
            candidates.append(_Candidate(slide, uri, cells, sources, identity))
        return candidates

    def _cells(self, slide: Found, alike: int) -> tuple[dict[str, str], str]:
        """What rule and table give for a slide, and, if that is no case, why."""
        rule, sidecar = self.intake.rule, self.intake.sidecar
        by_rule: Cells | None = rule.cells(slide.path) if rule else None
        by_table = sidecar.cells(slide.path, alike) if sidecar else None
        missing = [
            text
            for text, requested, fits in (
                ("the naming rule does not fit it;", rule, by_rule),
                ("the table has no row for it;", sidecar, by_table),
            )
            if requested is not None and fits is None
        ]
        return merged(by_rule, by_table), " ".join(missing) and f"{' '.join(missing)} nothing"

    def _inspected(self, candidates: Sequence[_Candidate]) -> list[dict[str, str]]:
        """Rows of the candidates that can be read and whose assay is known."""
        rows = []
        with ThreadPoolExecutor(OPENED_AT_ONCE) as pool:
            for candidate, row in zip(candidates, pool.map(self._row, candidates), strict=True):
                if isinstance(row, dict):
                    rows.append(row)
                else:
                    self._refuse(candidate.found, candidate.uri, candidate.cells, row)
        for row in rows:
            if not row.get("slide_id"):
                row["slide_id"] = slide_id_of(PurePosixPath(row["uri"]).name, self.taken)
            if row[ASSAY_FROM] in ("name", "pixels"):
                self.guessed[row[ASSAY_FROM]] += 1
        return rows

    def _row(self, candidate: _Candidate) -> dict[str, str] | Exception:
        """The row of a new slide, whose header is read, or why it has none."""
        cells = candidate.cells
        try:
            assay, source = _stated(cells)
            if assay is None and self.intake.assay is not None:
                assay, source = self.intake.assay, "stated"
            info = inspect_slide(
                candidate.uri,
                mpp=_mpp(cells),
                scene=cells.get("scene"),
                assay=assay,
                channels=_channels(cells),
                endpoint_url=self.intake.endpoint_url,
                identity=candidate.identity,
                scratch=self.intake.scratch,
            )
            if assay is None:
                assay, source = assay_of(_name(candidate.found), info)
            if assay is None:
                return UnclearError("neither rule, table, name nor pixels show which assay it is")
            require_scorable(info, assay)
        except (SlideError, UnclearError, OSError, BotoCoreError) as error:
            return error
        ours = {IDENTITY: candidate.identity, STAMP: candidate.found.stamp, ASSAY_FROM: source}
        return {**cells, "uri": candidate.uri, "assay": str(assay), **ours}

    def _valid(
        self, header: list[str], rows: Sequence[dict[str, str]], new: list[dict[str, str]]
    ) -> list[dict[str, str]]:
        """The new rows that a run accepts beside those that are there; the others are reported."""
        why: dict[str, str] = {}
        while new:
            for name in dict.fromkeys(name for row in new for name in row):
                if name not in header:
                    header.append(name)
            try:
                check_rows(self.intake.manifest, _sheet(header, [*rows, *new]), [])
            except ManifestError as error:
                blamed = _blamed(str(error), len(rows), len(new))
                if not blamed:
                    raise
                why |= {new[place]["uri"]: text for place, text in blamed.items()}
                new = [row for place, row in enumerate(new) if place not in blamed]
            else:
                break
        for uri, text in why.items():
            self.report(Kind.UNCLEAR, uri, text)
        for row in new:
            summary = f"{row['case_id']}, {row['assay']} from the {row[ASSAY_FROM]}"
            self.report(Kind.NEW, row["uri"], summary, row["slide_id"])
        return new

    def _vanished(self) -> None:
        """Report rows of this place whose slide is not in it any more."""
        for uri, of_uri in self.by_uri.items():
            if self._is_gone(uri):
                for row in of_uri:
                    self.report(Kind.VANISHED, uri, "no longer there; its row stays", row["slide_id"])

    def _is_gone(self, uri: str) -> bool:
        """Whether a slide of this place is not in it any more."""
        root = self._root()
        return uri.startswith(root) and uri not in self.here and not self.store.exists(uri.removeprefix(root))

    def _root(self) -> str:
        return f"{self.store.uri().rstrip('/')}/"

    # what is refused

    def _refuse(self, slide: Found, uri: str, cells: Cells, error: Exception) -> None:
        """Report a slide that cannot be used, and remember it until it changes."""
        reason = error.reason if isinstance(error, SlideError) else ""
        words = error.message if isinstance(error, SlideError) else str(error)
        message = cut(" ".join(cleaned(words).split()), 300)
        if isinstance(error, UnclearError):
            reason = UNCLEAR_ASSAY
        self._say_refused(uri, reason, message)
        if reason and reason != Reason.FILE_CHANGED:
            self.still_refused[uri] = (self._tried(slide, cells), reason, message)

    def _is_refused_still(self, slide: Found, uri: str, cells: Cells) -> bool:
        """Whether a slide was refused before and is the same; it is reported then, and not opened."""
        stamp, reason, message = self.refused.get(uri, ("", "", ""))
        if stamp != self._tried(slide, cells):
            return False
        self.still_refused[uri] = (stamp, reason, message)
        self._say_refused(uri, reason, message)
        return True

    def _say_refused(self, uri: str, reason: str, message: str) -> None:
        if reason == UNCLEAR_ASSAY:
            self.report(Kind.UNCLEAR, uri, message)
        else:
            self.report(Kind.REFUSED, uri, ": ".join(filter(None, (reason, message))))

    def _tried(self, slide: Found, cells: Cells) -> str:
        """Digest of all that decides whether a slide can be used."""
        known = json.dumps([slide.stamp, dict(cells), self.intake.assay], sort_keys=True)
        return hashlib.sha256(known.encode()).hexdigest()[:16]

    def _refused_name(self) -> str:
        return f"{self.name.removesuffix('.csv')}.refused.csv"

    def _read_refused(self) -> dict[str, tuple[str, str, str]]:
        try:
            text = self.folder.read_bytes(self._refused_name()).decode()
        except FileNotFoundError:
            return {}
        rows = csv.DictReader(io.StringIO(text, newline=""))
        return {r["uri"]: (r["stamp"], r["reason"], r["message"]) for r in rows if None not in r.values()}

    def _write_refused(self) -> None:
        elsewhere = {u: e for u, e in self.refused.items() if not u.startswith(self._root())}
        now = elsewhere | self.still_refused
        if now != self.refused:
            cells = ((uri, *now[uri][:2], harmless(now[uri][2])) for uri in sorted(now))
            rows = [dict(zip(REFUSED_COLUMNS, each, strict=True)) for each in cells]
            self.folder.write_bytes(self._refused_name(), _as_csv(REFUSED_COLUMNS, rows))

    # writing

    def _replace(self, before: bytes | None, after: bytes) -> None:
        if self._read() != before:
            raise ManifestError(
                f"{self.intake.manifest}: was changed by another during the ingest, and is as they "
                "left it; run the same command again"
            )
        self.folder.write_bytes(self.name, after)


def _stated(cells: Cells) -> tuple[Assay | None, str]:
    """The assay that rule or table state."""
    if not (text := cells.get("assay")):
        return None, ""
    assay = assay_of(text, None)[0]
    if assay is None:
        raise UnclearError(f"assay: {text!r}; expected one of {', '.join(Assay)}")
    return assay, "rule or table"


def _mpp(cells: Cells) -> float | None:
    try:
        return float(cells["mpp"].replace(",", ".")) if "mpp" in cells else None
    except ValueError:
        raise UnclearError(f"mpp: {cells['mpp']!r}; expected micrometres a pixel") from None


def _channels(cells: Cells) -> str | None:
    if "channels" in cells:
        try:
            parse_channels(cells["channels"])
        except ValueError as error:
            raise UnclearError(f"channels: {error}") from None
    return cells.get("channels")


def _name(slide: Found) -> str:
    return slide.path.rpartition("/")[2]


def _sheet(header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> Sheet:
    """Rows as a manifest has them, numbered as a spreadsheet does."""
    records = [(number, tuple(row.get(name, "") for name in header)) for number, row in enumerate(rows, 2)]
    return Sheet(tuple(header), tuple(records))


def _blamed(message: str, before: int, new: int) -> dict[int, str]:
    """New rows that problems name, by their place among the new ones; those named first are blamed first."""
    blamed: dict[int, str] = {}
    for line in message.splitlines()[1:]:
        places = [int(number) - 2 - before for number in _ROW.findall(line)]
        mine = [place for place in places if 0 <= place < new]
        if mine:
            blamed.setdefault(mine[0], _ROW.sub("a row", line.strip().partition(", ")[2]) or line.strip())
    return blamed


def _as_csv(header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row)
    return text.getvalue().encode()
