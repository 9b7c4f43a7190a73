"""Light through empty glass for slides that show none, proposed from slides of the same scanner that do.

Nothing is applied: a person puts what is proposed into the manifest, where it is an input like any other. A
run that took it from other slides by itself would give another answer once more slides are there.

A batch is an assay, a scanner and a laboratory as the manifest names them. Its glass is the median over its
slides with glass, channel by channel; how far that is off is measured by leaving each of these out.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from her2core.errors import ManifestError
from her2core.intake.manifest import REQUIRED, check_rows
from her2core.intake.manifest_sheet import manifest_bytes, parse_sheet
from her2core.kernels.stain import Vector
from her2core.lake.finished import finished_rows
from her2core.lake.schema import SLIDES
from her2core.profile.tissue import MAX_OUTSHONE
from her2core.storage.store import Store
from her2core.text import counted

LEAST_SLIDES: Final = 5
"""Fewest slides with glass from which the light of others of their batch is proposed. Ours."""
MOST_OFF: Final = 4.0
"""Farthest a slide's own glass may be from what the others of its batch propose, grey levels: what a guess
from a slide's brightest patches is within on real cores."""

COLUMN: Final = "background"

Batch = tuple[str, str | None, str | None]
"""Assay, scanner, laboratory."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a batch's slides without glass may be given, or why nothing.

    Attributes
    ----------
    with_glass
        Slides that it rests on.
    background
        Median of their R, G and B; None without any.
    off
        Most grey levels, in any channel, by which a slide's own glass differs from the median of the others;
        None of fewer than two.
    lacking
        Slides whose background was guessed, and that get it.
    refused
        Why nothing is proposed; empty if something is.
    outshone
        Slides without glass that get nothing: they are brighter than the batch's glass.
    """

    assay: str
    scanner: str | None
    laboratory: str | None
    with_glass: int
    background: Vector | None
    off: float | None
    lacking: tuple[str, ...]
    refused: str
    outshone: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """As the manifest's column has it; empty where nothing is proposed."""
        if self.refused or self.background is None:
            return ""
        return ";".join(f"{level:g}" for level in self.background)


def propose(store: Store) -> tuple[Proposal, ...]:
    """Look through the slides of a finished run, batch by batch.

    Raises
    ------
    StoreError
        If the output has no table of slides.
    """
    columns = ("slide_id", "assay", "scanner", "laboratory", "i0", "i0_source")
    batches: dict[Batch, list[Mapping[str, Any]]] = defaultdict(list)
    for row in finished_rows(store, SLIDES, columns):
        if row["i0"] is not None:
            batches[row["assay"], row["scanner"], row["laboratory"]].append(row)
    ordered = sorted(batches, key=lambda batch: tuple(part or "" for part in batch))
    return tuple(_proposal(batch, batches[batch]) for batch in ordered)


def _proposal(batch: Batch, rows: Sequence[Mapping[str, Any]]) -> Proposal:
    glass = np.array([row["i0"] for row in rows if row["i0_source"] == "glass"], np.float64).reshape(-1, 3)
    guessed = {row["slide_id"]: max(row["i0"]) for row in rows if row["i0_source"] == "bright_end"}
    n = len(glass)
    background = _median(glass) if n else None
    off = None
    if n >= 2:
        others = [np.median(np.delete(glass, k, axis=0), axis=0) for k in range(n)]
        off = round(float(np.abs(glass - np.array(others)).max()), 1)
    brightest = max(background) if background is not None else np.inf
    outshone = {name for name, level in guessed.items() if level > brightest + MAX_OUTSHONE}
    return Proposal(
        *batch,
        with_glass=n,
        background=background,
        off=off,
        lacking=tuple(sorted(guessed.keys() - outshone)),
        refused=_refused(batch[1], n, off),
        outshone=tuple(sorted(outshone)),
    )


def _median(glass: np.ndarray[Any, np.dtype[np.float64]]) -> Vector:
    red, green, blue = np.round(np.median(glass, axis=0), 1).tolist()
    return red, green, blue


def _refused(scanner: str | None, n: int, off: float | None) -> str:
    if scanner is None:
        return "no scanner in the manifest: name it"
    if n < LEAST_SLIDES:
        return f"glass on {counted(n, 'slide')}; expected {LEAST_SLIDES} or more"
    if off is None or off > MOST_OFF:
        return f"glass differs by {off:g} grey levels from slide to slide; at most {MOST_OFF:g}"
    return ""


def complete_manifest(uri: str, proposals: Sequence[Proposal], endpoint_url: str | None) -> tuple[bytes, int]:
    """The manifest with what is proposed in its column ``background``, and in how many rows.

    Rows that state a background keep theirs. Everything else stays as it is.

    Raises
    ------
    ManifestError
        If it cannot be read, or none of its slides gets anything.
    """
    data = manifest_bytes(uri, endpoint_url)
    sheet, problems = parse_sheet(uri, data, REQUIRED)
    check_rows(uri, sheet, problems)
    given = {name: one.text for one in proposals if one.text for name in one.lacking}
    header = list(sheet.header)
    if COLUMN not in header:
        header.append(COLUMN)
    place, slide = header.index(COLUMN), header.index("slide_id")
    text, filled = io.StringIO(), 0
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for _, cells in sheet.records:
        row = [*cells, ""][: len(header)]
        new = given.get(row[slide].strip(), "")
        if new and not row[place].strip():
            row[place] = new
            filled += 1
        writer.writerow(row)
    if not filled:
        raise ManifestError(f"{uri}: none of its slides gets a background; nothing was written.")
    return text.getvalue().encode(), filled
