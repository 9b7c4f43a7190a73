"""Stage ``slide`` for IHC: from cell parts to lake file, score and picture. No pixel is scored."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from her2core.guidelines.rules_ihc import CellClass, RuleSet, load_rules
from her2core.heterogeneity.biopsy import virtual_biopsies
from her2core.heterogeneity.ihc import measure_heterogeneity, sweep_regions
from her2core.kernels.stain import dab_doubt
from her2core.lake.rows_cells import cell_rows, classes_of
from her2core.lake.schema import CELLS
from her2core.lake.slide_files import write_slide_file
from her2core.params import IHCParams, ScoreParams
from her2core.pictures.canvas import read_thumbnail
from her2core.pictures.fields import fields_picture
from her2core.pictures.ihc import PictureCells, PictureSummary, slide_picture
from her2core.profile.sampling import Pixels
from her2core.profile.uncovered import stained_without_cells
from her2core.pyramid.reader import PyramidReader
from her2core.records import StainProfile
from her2core.scoring.ihc import (
    MEMBRANE_COLUMNS,
    MeasuredCells,
    SlideScore,
    classify,
    completeness_column,
    score_columns,
    score_slide,
)
from her2core.scoring.neighbours import with_strong_neighbours
from her2core.scoring.tumour import FROM_CELLS, TumourChoice, choose_tumour, load_model, with_tumour
from her2core.stages.fields_ihc import choose_fields, fields_geojson, look_at
from her2core.stages.finished import SlideFinished
from her2core.stages.slide import (
    CloseUp,
    SlideJob,
    SlideResult,
    inside,
    state_of,
    write_outputs,
)

IHCJob = SlideJob[ScoreParams, IHCParams]


def finish_ihc(job: IHCJob, key: str) -> SlideFinished:
    """Write the slide's files of cells and regions and its picture, score it and measure its heterogeneity.

    Raises
    ------
    SlideError
        ``ROI_INVALID`` if the manifest's region of interest cannot be used.
    """
    params, ladder_od = job.params, job.kernel.ladder_od
    rules, roi = load_rules(params.rules), job.roi()
    doubt = dab_doubt(_stain(job))
    seen, (in_order, choice) = _ColumnCollector(params, ladder_od, any(doubt)), _choice(job, rules)
    classified = _with_classes(with_tumour(job.bands(), choice), in_order)
    bands = with_strong_neighbours(classified, job.kernel, job.pyramid.mpp)
    completeness = completeness_column(params, ladder_od)
    rows = (cell_rows(band, job.row, job.pyramid.mpp, inside(roi, band), completeness) for band in bands)
    cells_file = write_slide_file(job.store, CELLS, key, seen.watch(rows))
    cells, classes = seen.measured(), seen.classes()
    score = score_slide(
        cells,
        params,
        rules,
        job.profile.quality,
        job.pyramid.mpp,
        classes=classes,
        stain=_stain(job),
        nests=seen.nests() if roi is None else None,
        tumour_found=choice.found,
        bare_mm2=_bare(job),
        doubtful=[seen.measured(lacking) for lacking in doubt if lacking],
    )
    sweep = sweep_regions(cells, classes, job.heterogeneity, rules)
    metrics = measure_heterogeneity(cells, classes, sweep, job.heterogeneity, score.verdict.score)
    tumour = np.where(cells.tumour, classes, np.int8(CellClass.UNEVALUABLE))
    biopsies = virtual_biopsies(cells.y_um, cells.x_um, tumour, rules, job.heterogeneity)
    draw = partial(_picture, job.row.slide_id, cells, classes, score)
    close_up = _close_up(job, cells, classes)
    return write_outputs(
        job, key, SlideResult(score, cells_file, sweep, (*metrics, *biopsies), draw, roi, close_up=close_up)
    )


def _close_up(job: IHCJob, cells: MeasuredCells, classes: NDArray[np.int8]) -> CloseUp | None:
    chosen = choose_fields(cells, classes, job.params)
    outlines = job.outlines.path if job.outlines else None
    seen = look_at(job.store, job.pyramid, job.profile, job.kernel, job.params, cells, chosen, outlines)
    fields = list(zip(chosen, seen, strict=False))
    if not fields:
        return None
    picture = fields_picture(job.row.slide_id, [field for _, field in fields])
    return CloseUp(picture, fields_geojson(fields, job.pyramid.mpp))


def _bare(job: IHCJob) -> tuple[float, float]:
    """Stained tissue without cells, and all stained tissue, mm²."""
    rgb, um_px = read_thumbnail(PyramidReader(job.store, job.pyramid), job.pyramid)
    read = job.columns(["y_px0", "x_px0", "cell_area_um2"])
    y, x, area = (read[name].to_numpy() for name in ("y_px0", "x_px0", "cell_area_um2"))
    mpp = job.pyramid.mpp
    return stained_without_cells(rgb, um_px, _stain(job), y * mpp, x * mpp, area)


def _stain(job: IHCJob) -> StainProfile:
    stain = job.profile.stain
    if not isinstance(stain, StainProfile):
        raise TypeError(f"a {type(stain).__name__} is no colour of an IHC slide")
    return stain


def _choice(job: IHCJob, rules: RuleSet) -> tuple[NDArray[np.int8], TumourChoice]:
    """Class of every cell, and which are tumour cells, in the order of the job's bands."""
    params, ladder_od, mpp = job.params, job.kernel.ladder_od, job.pyramid.mpp
    of_class = (completeness_column(params, ladder_od), *MEMBRANE_COLUMNS)
    read = job.columns(sorted({*FROM_CELLS, *of_class}))
    cells = {name: read[name].to_numpy() for name in read.column_names}
    places = {"y_um": cells["y_px0"] * mpp, "x_um": cells["x_px0"] * mpp}
    everyone = {"is_tumour": np.ones(len(read), np.bool_)}
    measured = MeasuredCells.of(cells | places | everyone, params, ladder_od)
    classes, model = classify(measured, params, rules), load_model(params.tumour_model)
    stained = classes >= CellClass.C1
    return classes, choose_tumour(cells, stained, measured.completeness, mpp, _stain(job), model)


def _with_classes(bands: Iterator[pa.Table], classes: NDArray[np.int8]) -> Iterator[pa.Table]:
    """Append ``cell_class`` to the kernel rows of a slide; ``bands`` are in the order of the classes."""
    first = 0
    for band in bands:
        yield band.append_column("cell_class", pa.array(classes[first : first + len(band)]))
        first += len(band)


class _ColumnCollector:
    """Keeps, of the rows that pass by, the few columns that score and picture need."""

    def __init__(self, params: ScoreParams, ladder_od: tuple[float, ...], every_cut: bool) -> None:
        self.params, self.ladder_od = params, ladder_od
        self.columns = (*score_columns(params, ladder_od, every_cut), "stained_nest", "cell_class")
        empty = pa.schema([CELLS.schema.field(name) for name in self.columns]).empty_table()
        self.tables: list[pa.Table] = [empty]

    def watch(self, bands: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for unordered in bands:
            band = unordered.sort_by("cell_id")
            self.tables.append(band.select(self.columns).combine_chunks())
            yield band

    def measured(self, lacking_od: float = 0.0) -> MeasuredCells:
        return MeasuredCells.of(pa.concat_tables(self.tables), self.params, self.ladder_od, lacking_od)

    def classes(self) -> NDArray[np.int8]:
        return classes_of(pa.concat_tables(self.tables))

    def nests(self) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = pa.concat_tables(self.tables)["stained_nest"].to_numpy()
        return found


def _picture(
    slide_id: str,
    cells: MeasuredCells,
    classes: NDArray[np.int8],
    score: SlideScore,
    thumbnail: Pixels,
    um_px: float,
) -> bytes:
    drawn = PictureCells(cells.y_um, cells.x_um, classes.astype(np.int64), cells.tumour & cells.evaluable)
    n = score.counts
    summary = PictureSummary(
        slide_id=slide_id,
        score=score.verdict.score,
        state=state_of(score),
        h_score=score.expression.h_score,
        counts=(n.n0, n.n1, n.n2u, n.n2, n.n3),
        note=", ".join(score.verdict.reasons),
    )
    return slide_picture(thumbnail, um_px, drawn, summary)
