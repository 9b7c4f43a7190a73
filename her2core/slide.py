"""Stage ``slide``: from a slide's cell parts to its lake file, its score and its picture. No pixel is scored.

Everything here follows from the published parts, the region of interest and the score's parameters, so other
cut-offs or another guideline re-score a slide in seconds.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from her2core.cases import SlideOutcome
from her2core.guideline import RuleSet, load_rules
from her2core.lake import DataFile, write_slide_file
from her2core.params import ScoreParams
from her2core.picture import PictureCells, PictureSummary, read_thumbnail, slide_picture
from her2core.pyramid_reader import PyramidReader
from her2core.records import PyramidRef, SlideInfo, SlideProfile, SlideRow, SlideState
from her2core.roi import Roi, read_roi
from her2core.rows import cell_rows, tumour_mask
from her2core.schema import CELLS
from her2core.scores import MeasuredCells, SlideScore, classify, score_columns, score_slide
from her2core.sources import file_identity
from her2core.storage import Store, content_key

VERSION = 1
"""Raised whenever the same cells and parameters would give other rows or another picture."""


@dataclass(frozen=True, slots=True)
class CellsRef:
    """The published parts of a slide's cells, row by row of work units, and how many cells they hold."""

    parts: tuple[str, ...]
    cells: int


@dataclass(frozen=True, slots=True)
class SlideJob:
    """What the last stage of a slide works from."""

    store: Store
    row: SlideRow
    info: SlideInfo
    pyramid: PyramidRef
    profile: SlideProfile
    cells: CellsRef
    params: ScoreParams
    ladder_od: tuple[float, ...]
    endpoint_url: str | None

    def key(self, cells_key: str) -> str:
        """Content key of the result: parameters, cells, manifest row and region of interest."""
        row = self.row
        roi = "" if row.roi_uri is None else file_identity(row.roi_uri, self.endpoint_url)[1]
        rules = load_rules(self.params.rules)
        manifest = [row.slide_id, row.case_id, *(value or "" for value in (row.patient_id, row.specimen_id))]
        manifest += [value or "" for value in (row.block_id, row.site, row.collection_date, row.scanner)]
        manifest += [row.reader_score or "", row.uri]
        return content_key(
            "slide", VERSION, self.params, [cells_key, roi, f"{rules.name} {rules.version}", *manifest]
        )


@dataclass(frozen=True, slots=True)
class SlideFinished:
    """What a slide leaves behind: the facts of its table row, and a cells file that waits to be committed."""

    outcome: SlideOutcome
    cells: DataFile | None


def finish_slide(job: SlideJob, key: str) -> SlideFinished:
    """Write the slide's cells file and picture, and score it.

    Raises
    ------
    SlideError
        ``ROI_INVALID`` if the manifest's region of interest cannot be used.
    """
    rules = load_rules(job.params.rules)
    roi = None
    if job.row.roi_uri is not None:
        roi = read_roi(job.row.roi_uri, job.info.height, job.info.width, endpoint_url=job.endpoint_url)
    seen = _Seen(job.params, job.ladder_od)
    cells_file = write_slide_file(job.store, CELLS, key, seen.watch(_bands(job, rules, roi)))
    cells = seen.measured()
    score = score_slide(cells, job.params, rules, job.profile.quality, job.pyramid.mpp)
    picture = f"pictures/{job.row.slide_id}-{key[:8]}.png"
    job.store.write_bytes(picture, _picture(job, cells, rules, score))
    return SlideFinished(
        SlideOutcome(
            slide=job.row,
            state=state_of(score),
            info=job.info,
            pyramid=job.pyramid,
            profile=job.profile,
            score=score,
            tumour_mask=tumour_mask(roi is not None),
            picture=picture,
            score_key=key,
        ),
        cells_file,
    )


def _bands(job: SlideJob, rules: RuleSet, roi: Roi | None) -> Iterator[pa.Table]:
    """Rows of the ``cells`` table, one row of work units at a time: each band lies below the one before."""
    for _, parts in groupby(sorted(job.cells.parts), key=lambda part: PurePosixPath(part).name.split("-")[0]):
        cells = pa.concat_tables([pq.read_table(io.BytesIO(job.store.read_bytes(part))) for part in parts])
        in_roi = None
        if roi is not None:
            in_roi = roi.contains(cells["y_px0"].to_numpy(), cells["x_px0"].to_numpy())
        yield cell_rows(cells, job.row, job.pyramid.mpp, in_roi, job.params, job.ladder_od, rules)


class _Seen:
    """Keeps, of the rows that pass by, the few columns that score and picture need."""

    def __init__(self, params: ScoreParams, ladder_od: tuple[float, ...]) -> None:
        self.params, self.ladder_od = params, ladder_od
        self.columns = score_columns(params, ladder_od)
        empty = pa.schema([CELLS.schema.field(name) for name in self.columns]).empty_table()
        self.tables: list[pa.Table] = [empty]

    def watch(self, bands: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for unordered in bands:
            band = unordered.sort_by("cell_id")
            self.tables.append(band.select(self.columns).combine_chunks())
            yield band

    def measured(self) -> MeasuredCells:
        return MeasuredCells.of(pa.concat_tables(self.tables), self.params, self.ladder_od)


def _picture(job: SlideJob, cells: MeasuredCells, rules: RuleSet, score: SlideScore) -> bytes:
    thumbnail, um_px = read_thumbnail(PyramidReader(job.store, job.pyramid), job.pyramid)
    classes = classify(cells, job.params, rules).astype(np.int64)
    drawn = PictureCells(cells.y_um, cells.x_um, classes, cells.tumour & cells.evaluable)
    n = score.counts
    summary = PictureSummary(
        slide_id=job.row.slide_id,
        score=score.verdict.score,
        state=state_of(score),
        h_score=score.expression.h_score,
        counts=(n.n0, n.n1, n.n2u, n.n2, n.n3),
        note=", ".join(score.verdict.reasons),
    )
    return slide_picture(thumbnail, um_px, drawn, summary)


def state_of(score: SlideScore) -> SlideState:
    """Scored, or measured without a score."""
    return SlideState.SCORED if score.verdict.score else SlideState.INDETERMINATE
