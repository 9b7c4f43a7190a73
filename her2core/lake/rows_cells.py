"""From the kernel's cells to rows of the table ``cells``, and what rows of cells and nuclei share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from her2core.columns import SEED_SOURCES
from her2core.guidelines.rules_ihc import CLASS_OF_LABEL, CellClass
from her2core.lake.schema import CELLS
from her2core.records import Assay, SlideRow

PLACE_PARTS = 16
"""Parts of a pixel in which ``cell_id`` counts centroids; the kernels keep places to as many."""
_LABELS = pa.array(list(CLASS_OF_LABEL))


def cell_rows(
    cells: pa.Table,
    slide: SlideRow,
    mpp: float,
    in_roi: NDArray[np.bool_] | None,
    completeness: str,
) -> pa.Table:
    """Rows of the ``cells`` table from kernel rows, in the order they come.

    Parameters
    ----------
    cells
        Kernel columns (``CELL_DTYPE``), their neighbours, what was computed of tumour, and ``cell_class`` as
        `scoring.ihc.classify` has it; n rows.
    mpp
        Level-0 µm/px.
    in_roi
        Shape ``(n,)``, or None if the slide has no region of interest. With one, all cells inside it are
        tumour cells: a person drew it; without, the model decides.
    completeness
        Column of the ladder that is the stained fraction of the contour.
    """
    n = len(cells)
    y_px0, x_px0 = cells["y_px0"].to_numpy(), cells["x_px0"].to_numpy()
    classes = cells["cell_class"].to_numpy()
    inside = np.ones(n, np.bool_) if in_roi is None else in_roi
    columns: dict[str, Any] = {name: cells[name] for name in cells.column_names}
    columns |= {
        "slide_id": pa.repeat(slide.slide_id, n),
        "case_id": pa.repeat(slide.case_id, n),
        "cell_id": cell_ids(y_px0, x_px0),
        "y_um": y_px0 * mpp,
        "x_um": x_px0 * mpp,
        "completeness": cells[completeness],
        "seed_source": pc.take(pa.array(SEED_SOURCES), cells["seed_source"]),
        "in_roi": inside,
        "is_tumour": cells["tumour_rule"] if in_roi is None else inside,
        "tumour_mask": pa.repeat(tumour_mask(in_roi is not None, Assay.IHC), n),
        "cell_class": pc.take(_LABELS, pa.array(classes, mask=classes < CellClass.C0)),
    }
    return in_schema(columns, CELLS.schema)


def classes_of(rows: pa.Table) -> NDArray[np.int8]:
    """Class of every row of the ``cells`` table, values of `CellClass`, shape ``(n,)``."""
    found = pc.index_in(rows["cell_class"], value_set=_LABELS).fill_null(int(CellClass.UNEVALUABLE))
    classes: NDArray[np.int8] = found.to_numpy().astype(np.int8)
    return classes


def tumour_mask(has_roi: bool, assay: Assay) -> str:
    """Name of what decides which cells are tumour cells."""
    if has_roi:
        return "roi"
    return "model" if assay == Assay.IHC else "rule"


def cell_ids(y_px0: NDArray[np.float64], x_px0: NDArray[np.float64]) -> NDArray[np.int64]:
    """Name of every cell within its slide, shape ``(n,)``: centroids in 1/16 px from the slide's corner.

    Ascending names are rows sorted by (y, x).
    """
    y, x = (np.rint((axis + 0.5) * PLACE_PARTS).astype(np.int64) for axis in (y_px0, x_px0))
    return (y << 32) + x


def cell_places(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Centroids that `cell_ids` made names of: ``(n, 2)``, each ``(y, x)`` in 1/16 px from the corner."""
    return np.stack([ids >> 32, ids & 0xFFFFFFFF], axis=1)


def in_schema(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """Columns of arrays, NumPy's or Arrow's, as a table of ``schema``; what it does not name is left out."""

    def cast(values: Any, kind: pa.DataType) -> Any:
        arrow = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
        return arrow.cast(kind)

    return pa.table({f.name: cast(columns[f.name], f.type) for f in schema}, schema=schema)
