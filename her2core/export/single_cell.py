"""Cells as AnnData and SpatialData: measurements as a matrix, places in µm, the classes beside them.

SpatialData holds the cells as shapes, polygons where contours are wanted and else circles of the cells' area,
and a table that annotates them. The pyramid is not copied; both are in the coordinate system ``um`` of the
slide.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from her2core.errors import ConfigError
from her2core.export.contours import has_contours, outline_cells
from her2core.export.finished import FinishedRun, Row, Selection, export_each, write_folder
from her2core.extras import need
from her2core.lake.schema import CELLS, Column
from her2core.records import Assay
from her2core.storage.store import Store
from her2core.storage.temporary import temporary_folder

KEYS = ("slide_id", "case_id", "cell_id")
FLAGS = (
    "cell_class",
    "is_tumour",
    "in_roi",
    "tumour_mask",
    "tumour_rule",
    "stained_nest",
    "seed_source",
    "qc_flag",
)
PLACES = ("y_um", "x_um", "y_px0", "x_px0")


def export_anndata(run: FinishedRun, out: Store, selection: Selection) -> list[str]:
    """Write one ``cells.h5ad`` of all chosen slides."""
    with _quiet():
        need("export", "anndata")
    tables = [_cells(run, slide, selection) for slide in run.chosen(selection, Assay.IHC)]
    table = pa.concat_tables(tables)
    with temporary_folder("her2-export-", "the bytes of an exported file") as folder, _quiet():
        local = folder / "cells.h5ad"
        to_anndata(table, run).write_h5ad(local, compression="gzip")
        out.write_file("cells.h5ad", local)
    return ["cells.h5ad"]


def to_anndata(table: pa.Table, run: FinishedRun) -> Any:
    """Cells as AnnData: X the measurements, obs their ids and classes, obsm ``spatial`` x and y in µm."""
    import pandas as pd
    from anndata import AnnData

    measures = _measures(table)
    obs: dict[str, Any] = {"cell_id": table["cell_id"].to_numpy()}
    for name in (n for n in ("slide_id", "case_id", *FLAGS) if n in table.column_names):
        values = np.array(table[name].to_pylist(), object)
        kind = table.schema.field(name).type  # of text there are several kinds
        text = not (pa.types.is_boolean(kind) or pa.types.is_integer(kind))
        obs[name] = pd.Categorical(values) if text else values.astype(bool if name != "qc_flag" else np.int16)
    names = [f"{s}/{i}" for s, i in zip(table["slide_id"].to_pylist(), obs["cell_id"].tolist(), strict=True)]
    frame = pd.DataFrame(obs, index=pd.Index(names, dtype=object))
    columns = [table[c.name].to_numpy(zero_copy_only=False).astype(np.float32) for c in measures]
    var = pd.DataFrame(
        {
            "unit": np.array([c.unit for c in measures], object),
            "meaning": np.array([c.description for c in measures], object),
        },
        index=pd.Index([c.name for c in measures], dtype=object),
    )
    place = np.column_stack([table["x_um"].to_numpy(), table["y_um"].to_numpy()])
    data = AnnData(np.column_stack(columns), obs=frame, var=var, obsm={"spatial": place})
    data.uns["her2cohort"] = {"run_id": run.run["run_id"], "note": "Research use only, not for diagnosis."}
    return data


def _cells(run: FinishedRun, slide: Row, selection: Selection) -> pa.Table:
    return run.batches(slide, selection, [c.name for c in CELLS.columns]).read_all()


def _measures(table: pa.Table) -> list[Column]:
    return [
        c
        for c in CELLS.columns
        if c.name in table.column_names
        and c.name not in (*KEYS, *FLAGS, *PLACES)
        and (pa.types.is_floating(c.type) or pa.types.is_integer(c.type))
    ]


def export_spatialdata(
    run: FinishedRun, out: Store, selection: Selection, contours: bool = False
) -> list[str]:
    """Write ``SLIDE.spatialdata.zarr`` a slide."""
    with _quiet():
        need("export", "spatialdata")

    def write(slide: Row) -> str:
        name = f"{slide['slide_id']}.spatialdata.zarr"
        with temporary_folder("her2-export-", "the bytes of an exported file") as folder, _quiet():
            local = folder / name
            _spatial(run, slide, selection, contours and has_contours(slide)).write(local)
            write_folder(out, name, local)
        return name

    return export_each(run.chosen(selection, Assay.IHC), write)


def _spatial(run: FinishedRun, slide: Row, selection: Selection, contours: bool) -> Any:
    import geopandas as gpd
    import pandas as pd
    from shapely import Point, Polygon
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity

    cells = _cells(run, slide, selection)
    if not len(cells):
        raise ConfigError(f"{slide['slide_id']}: no cell is chosen, and SpatialData has no empty shapes")
    ids = cells["cell_id"].to_numpy()
    index = [str(i) for i in ids.tolist()]
    mpp, space = slide["mpp"], {"um": Identity()}
    if contours:
        found: dict[int, Any] = {}
        for part in outline_cells(run, slide, ids):
            um = (part.contour_px0 - 0.5) * mpp  # µm are from the centre of the first pixel
            found |= {i: Polygon(yx[:, ::-1]) for i, yx in zip(part.ids.tolist(), um, strict=True)}
        shapes = gpd.GeoDataFrame(
            {"geometry": [found[i] for i in ids.tolist()]}, index=pd.Index(index, dtype=object)
        )
    else:
        x, y = cells["x_um"].to_numpy(), cells["y_um"].to_numpy()
        points = [Point(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
        area = cells["cell_area_um2"].to_numpy(zero_copy_only=False)
        shapes = gpd.GeoDataFrame(
            {"geometry": points, "radius": np.sqrt(area / np.pi)}, index=pd.Index(index, dtype=object)
        )
    table = to_anndata(cells, run)
    table.obs["instance"] = np.array(index, object)
    table.obs["region"] = pd.Categorical(np.full(len(index), "cells", object))
    return SpatialData(
        shapes={"cells": ShapesModel.parse(shapes, transformations=space)},
        tables={
            "table": TableModel.parse(table, region="cells", region_key="region", instance_key="instance")
        },
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without others' warnings about what they will change, and with text as every version of AnnData reads
    it.

    pandas 3 makes text a kind of its own, which AnnData 0.12 does not write.
    """
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pd.option_context("future.infer_string", False):
            yield
