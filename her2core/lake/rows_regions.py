"""From regions to rows of ``regions``, and back to what they hold; `schema` describes the columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from her2core.guidelines.rules_ihc import SCORES
from her2core.heterogeneity.bootstrap import UNIT, whole
from her2core.heterogeneity.dataset import columns_of
from her2core.heterogeneity.jackknife import BLOCKS, spatial_blocks, sums_by
from her2core.heterogeneity.regions import NucleusRegions, Regions
from her2core.lake.schema import REGIONS
from her2core.lake.slide_files import FOLDER, DataFile
from her2core.records import Assay, SlideRow
from her2core.storage.store import Store


def region_rows(slide: SlideRow, sweep: Sequence[Regions | NucleusRegions]) -> Iterator[pa.Table]:
    """Rows of the regions of a slide, one table a size."""
    before = 0
    for regions in sweep:
        m = len(regions)
        columns: dict[str, Any] = {
            "slide_id": [slide.slide_id] * m,
            "case_id": [slide.case_id] * m,
            "region_id": before + np.arange(m),
            "scale_um": np.full(m, regions.grid.size_um),
            "q": regions.q,
            "r": regions.r,
            "y_um": regions.y_um,
            "x_um": regions.x_um,
        }
        columns |= {name: values for name, (values, *_) in columns_of(regions).items()}
        if isinstance(regions, Regions):
            columns["score"] = [SCORES[s] if s >= 0 else None for s in regions.score.tolist()]
        missing = pa.nulls(m)
        yield pa.table(
            [pa.array(columns.get(field.name, missing), field.type) for field in REGIONS.schema],
            schema=REGIONS.schema,
        )
        before += m


def block_sums(store: Store, file: DataFile, size_um: float, assay: str) -> NDArray[np.float64]:
    """What compact blocks of a slide hold, from its rows of ``regions``.

    Returns
    -------
    NDArray
        `units.CELL_SUMS` of IHC, `units.NUCLEUS_SUMS` of ISH, shape ``(16, k)``; ``(1, k)``, all in one, of
        fewer hexagons than that.
    """
    ihc = assay == Assay.IHC
    names = ["n", "membrane_od_mean", "membrane_od_sd", "n0", "n1", "n2", "n2u", "n3"]
    if not ihc:
        names = ["n", "her2", "her2_squares", "cep17", "amplified"]
    body = store.read_bytes(f"{FOLDER}/{REGIONS.name}/{file.path}")
    columns, of_size = ["y_um", "x_um", *names], [("scale_um", "==", size_um)]
    rows = pq.read_table(pa.BufferReader(body), columns=columns, filters=of_size)
    sums = [rows[name].fill_null(0).to_numpy().astype(np.float64) for name in names]
    if ihc:
        n, mean, sd, n0, n1, n2, n2u, n3 = sums
        sums = [n, n * mean, (n - 1) * sd**2 + n * mean**2, n0, n1, n2 + n2u, n3]
    held = whole(np.stack(sums, axis=1)) * UNIT
    blocks = spatial_blocks(rows["y_um"].to_numpy(), rows["x_um"].to_numpy())
    return held.sum(axis=0, keepdims=True) if blocks is None else sums_by(blocks, BLOCKS, *held.T)
