"""From regions to rows of ``regions``; `schema` describes the columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from her2core.guidelines.rules_ihc import SCORES
from her2core.heterogeneity.dataset import columns_of
from her2core.heterogeneity.regions import NucleusRegions, Regions
from her2core.lake.schema import REGIONS
from her2core.records import SlideRow


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
