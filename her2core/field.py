"""One image in memory, or one table of cells, to a score: the cohort's own stages without a cluster.

Notebooks and other programs begin here. The three steps of `score_field` are those of a run (pyramid and
profile, cells, slide), so a field has the very cells, bit by bit, that it has as a slide of a cohort.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from her2core.config import Config
from her2core.guidelines.rules_ihc import load_rules
from her2core.lake.schema import CELLS, NUCLEI
from her2core.params import IHCParams, ScoreParams
from her2core.pyramid import writer as pyramid
from her2core.readers import MemoryReader
from her2core.readers.channels import CHANNELS
from her2core.records import RGB, Assay, CellsRef, PyramidRef, Quality, SlideProfile, SlideRow, StainProfile
from her2core.scoring.ihc import MeasuredCells, SlideScore, score_columns, score_slide
from her2core.scoring.ish import ISHScore
from her2core.stages import cells as cells_stage
from her2core.stages import prepare
from her2core.stages.finished import SlideFinished
from her2core.stages.slide import SlideJob
from her2core.stages.slide_ihc import finish_ihc
from her2core.stages.slide_ish import finish_ish
from her2core.storage.store import Store
from her2core.storage.temporary import temporary_folder


@dataclass(frozen=True, slots=True)
class FieldScore:
    """What one field shows.

    Attributes
    ----------
    score
        `SlideScore` of IHC, `ISHScore` of ISH; ``score.verdict`` holds the score, its class and the reasons.
    cells
        Rows of the table ``cells``, or ``nuclei`` for ISH, if there are any; see docs/schema.md.
    profile
        Background, stain vectors, tissue and quality, as they were measured before any cell was seen.
    heterogeneity
        Every metric of the field by its name and scale.
    """

    score: SlideScore | ISHScore
    cells: pa.Table
    profile: SlideProfile
    heterogeneity: dict[tuple[str, float | None], float | None]


def score_field(
    pixels: np.ndarray[Any, Any], mpp: float, assay: Assay | str = Assay.IHC, config: Config | None = None
) -> FieldScore:
    """Score one image.

    Parameters
    ----------
    pixels
        uint8 ``(height, width, 3)`` in RGB (IHC, DISH), or uint8 or uint16 ``(height, width, 2 or 3)`` with
        the channels DAPI, HER2 and CEP17 (FISH).
    mpp
        µm per pixel.
    assay
        ``HER2-IHC``, ``HER2-FISH`` or ``HER2-DISH``.
    config
        Parameters of every stage; the defaults of a run if left out.

    Raises
    ------
    ValueError
        If the array has another type or shape, or ``mpp`` is no length.
    SlideError
        As in a run, with its reason: no tissue, pixels too coarse.

    Examples
    --------
    >>> from her2core import score_field
    >>> from her2core.phantom import PhantomSpec, render_field
    >>> drawn = PhantomSpec(seed=2, height_px=1400, width_px=1400, mix=(0.0, 0.0, 0.0, 0.0, 1.0))
    >>> field = score_field(render_field(drawn)[0], mpp=0.25)
    >>> field.score.verdict.score, field.score.verdict.her2_class
    ('3+', 'pos_IHC3')
    >>> field.cells.select(["y_um", "x_um", "completeness", "cell_class"]).num_columns
    4
    """
    assay, config = Assay(assay), config or Config()
    if not (math.isfinite(mpp) and mpp > 0):
        raise ValueError(f"mpp is {mpp}, expected µm per pixel, above 0")
    with temporary_folder("her2-field-", "the bytes of the field and its pyramid") as folder:
        store = Store(folder)
        ref, profile, reader = _prepare(store, pixels, mpp, assay, config)
        measured = _measure(store, ref, profile, assay, config)
        finished = _score(store, reader, ref, profile, measured, assay, config)
        table = CELLS if assay is Assay.IHC else NUCLEI
        rows = table.schema.empty_table()
        if finished.cells is not None:
            rows = pq.read_table(folder / "tables" / table.name / finished.cells.path)
    score = finished.outcome.score if assay is Assay.IHC else finished.outcome.ish
    if score is None:
        raise AssertionError("a slide that is finished has a score")
    metrics = {(metric.name, metric.scale_um): metric.value for metric in finished.metrics}
    return FieldScore(score, rows, profile, metrics)


def score_cells(
    cells: pa.Table | Mapping[str, Any],
    params: ScoreParams | None = None,
    *,
    ladder_od: tuple[float, ...] | None = None,
    mpp: float = 0.25,
    quality: Quality | None = None,
    stain: StainProfile | None = None,
) -> SlideScore:
    """Score a table of cells again: other thresholds, another rule set, other tumour cells. No pixel is read.

    Parameters
    ----------
    cells
        Rows of the table ``cells`` of one slide: Arrow, or a mapping of columns.
    params
        Thresholds and the rule set.
    ladder_od
        Cut-points of the completeness columns, ``slides.ladder_od``; the default ladder if left out.
    mpp
        Level-0 µm/px of the slide: too coarse for thin membranes is among the reasons.
    quality, stain
        Those of the slide, which make it indeterminate where they fail; without them cells alone decide.

    Raises
    ------
    ValueError
        If a column that the score needs is missing.

    Examples
    --------
    >>> from her2core import score_cells, score_field
    >>> from her2core.params import ScoreParams
    >>> from her2core.phantom import PhantomSpec, render_field
    >>> drawn = PhantomSpec(seed=2, height_px=1400, width_px=1400, mix=(0.0, 0.0, 0.0, 0.0, 1.0))
    >>> cells = score_field(render_field(drawn)[0], mpp=0.25).cells
    >>> score_cells(cells).verdict.score
    '3+'
    >>> score_cells(cells, ScoreParams(strong_od=5.0)).verdict.score  # nothing is so dark
    '2+'
    """
    params = params or ScoreParams()
    ladder = ladder_od or IHCParams().ladder_od
    there = cells.column_names if isinstance(cells, pa.Table) else cells
    if missing := [name for name in score_columns(params, ladder) if name not in there]:
        raise ValueError(f"cells have no column {', '.join(missing)}; expected rows of the table cells")
    measured = MeasuredCells.of(cells, params, ladder)
    passed = Quality("pass", (), 0.0, None, None, None, None, 0.0, None)
    return score_slide(measured, params, load_rules(params.rules), quality or passed, mpp, stain=stain)


def _prepare(
    store: Store, pixels: np.ndarray[Any, Any], mpp: float, assay: Assay, config: Config
) -> tuple[PyramidRef, SlideProfile, MemoryReader]:
    """Step 1: pyramid and profile."""
    channels = CHANNELS[: pixels.shape[-1]] if assay is Assay.FISH else RGB
    reader = MemoryReader(pixels, mpp, channels=channels)
    ref = pyramid.convert(reader, store, "pyramid", config.pyramid, mpp=mpp)
    return ref, prepare.profile(store, ref, config.profile, assay, "tissue"), reader


def _measure(store: Store, ref: PyramidRef, profile: SlideProfile, assay: Assay, config: Config) -> CellsRef:
    """Step 2: cells, or nuclei and signals."""
    kernel = config.ihc if assay is Assay.IHC else config.ish
    units = cells_stage.units(store, ref, profile, kernel, "cells", None)
    return CellsRef(tuple(sorted(cells_stage.by_part(units))), cells_stage.measure(units))


def _score(
    store: Store,
    reader: MemoryReader,
    ref: PyramidRef,
    profile: SlideProfile,
    measured: CellsRef,
    assay: Assay,
    config: Config,
) -> SlideFinished:
    """Step 3: from rows to the score."""
    row = SlideRow("field", "field", reader.info.uri, assay)
    job = (store, row, reader.info, ref, profile, measured)
    if assay is Assay.IHC:
        return finish_ihc(SlideJob(*job, config.ihc_score, config.ihc, None, config.heterogeneity), "field")
    return finish_ish(SlideJob(*job, config.ish_score, config.ish, None, config.heterogeneity), "field")
