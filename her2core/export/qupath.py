"""Cells and regions as GeoJSON that QuPath opens by drag and drop, written cell by cell.

Coordinates are QuPath's: pixels of level 0 from the slide's corner. With contours a cell is a *cell* with its
nucleus, without a point detection. Regions are annotations. Measurements are the columns of the tables.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np

from her2core.export.contours import has_contours, outline_cells
from her2core.export.finished import FinishedRun, Row, Selection, export_each
from her2core.guidelines.rules_ihc import CLASS_OF_LABEL
from her2core.lake.schema import CELLS, REGIONS
from her2core.pictures.colours import CLASS_COLOURS, OTHER_COLOUR
from her2core.records import Assay
from her2core.storage.store import Store
from her2core.storage.temporary import temporary_folder

NAMESPACE = uuid.UUID("5a1c0f4e-6f0e-5d5c-9a55-3d9f6c1e8b21")
"""Of the ids that objects have in QuPath; they follow from slide and cell."""
KEYS = ("slide_id", "case_id", "cell_id", "cell_class", "is_tumour", "y_px0", "x_px0", "y_um", "x_um")
"""Columns that are no measurement."""


def export_qupath(
    run: FinishedRun,
    out: Store,
    selection: Selection,
    contours: bool = False,
    regions_um: float | None = None,
) -> list[str]:
    """Write a GeoJSON a slide.

    Parameters
    ----------
    contours
        Whether cells have their contour and nucleus: as stored, or outlined again on the pyramid.
    regions_um
        Size of the regions that are written as annotations; none by default.
    """

    def write(slide: Row) -> str:
        features = _features(run, slide, selection, contours and has_contours(slide), regions_um)
        with temporary_folder("her2-export-", "the bytes of an exported file") as folder:
            local = folder / "cells.geojson"
            with local.open("w", encoding="utf-8") as file:
                file.write('{"type": "FeatureCollection", "features": [\n')
                for place, feature in enumerate(features):
                    file.write((",\n" if place else "") + json.dumps(feature))
                file.write("\n]}\n")
            out.write_file(f"{slide['slide_id']}.geojson", local)
        return f"{slide['slide_id']}.geojson"

    return export_each(run.chosen(selection, Assay.IHC), write)


def _features(
    run: FinishedRun, slide: Row, selection: Selection, contours: bool, regions_um: float | None
) -> Iterator[dict[str, Any]]:
    if regions_um is not None:
        yield from _regions(run, slide, regions_um)
    columns = [c.name for c in CELLS.columns]
    if not contours:
        for batch in run.batches(slide, selection, columns):
            for row in batch.to_pylist():
                point = {"type": "Point", "coordinates": [row["x_px0"] + 0.5, row["y_px0"] + 0.5]}
                yield _cell(slide, row, "detection", point)
        return
    table = run.batches(slide, selection, columns).read_all()
    ids = table["cell_id"].to_numpy()
    for part in outline_cells(run, slide, ids):
        rows = table.take(np.searchsorted(ids, part.ids)).to_pylist()
        for row, cell, nucleus in zip(rows, part.contour_px0, part.nucleus_px0, strict=True):
            yield _cell(slide, row, "cell", polygon(cell)) | {"nucleusGeometry": polygon(nucleus)}


def _cell(slide: Row, row: Row, kind: str, geometry: dict[str, Any]) -> dict[str, Any]:
    label = row["cell_class"]
    name = f"HER2 {label}" if label is not None else "HER2 not evaluable"
    if not row["is_tumour"]:
        name = "Other"
    colour = (
        CLASS_COLOURS[CLASS_OF_LABEL[label]] if label in CLASS_OF_LABEL and row["is_tumour"] else OTHER_COLOUR
    )
    measured = {
        k: v
        for k, v in row.items()
        if k not in KEYS and isinstance(v, (int, float)) and not isinstance(v, bool)
    }
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(NAMESPACE, f"{slide['slide_id']}/{row['cell_id']}")),
        "geometry": geometry,
        "properties": {
            "objectType": kind,
            "classification": {"name": name, "color": rgb(colour)},
            "measurements": {k: v for k, v in measured.items() if math.isfinite(v)},
            "metadata": {"cell_id": str(row["cell_id"]), "seed_source": row.get("seed_source") or ""},
        },
    }


def _regions(run: FinishedRun, slide: Row, size_um: float) -> Iterator[dict[str, Any]]:
    names = [c.name for c in REGIONS.columns]
    for row in run.rows(REGIONS, names):
        if row["slide_id"] != slide["slide_id"] or row["scale_um"] != size_um:
            continue
        measured = {
            k: v for k, v in row.items() if k not in ("slide_id", "case_id", "score") and v is not None
        }
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(NAMESPACE, f"{slide['slide_id']}/region/{row['region_id']}")),
            "geometry": polygon(hexagon_px0(row["y_um"], row["x_um"], size_um, slide["mpp"])),
            "properties": {
                "objectType": "annotation",
                "name": f"{size_um:g} µm {row['q']},{row['r']}",
                "classification": {
                    "name": f"Region {row['score'] or 'without score'}",
                    "color": rgb(OTHER_COLOUR),
                },
                "isLocked": True,
                "measurements": measured,
            },
        }


def hexagon_px0(
    y_um: float, x_um: float, width_um: float, mpp: float
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Corners of a region, ``(y, x)`` in level-0 px from the slide's corner; its flat sides are left and
    right."""
    turn = np.pi / 6 + np.pi / 3 * np.arange(6)
    radius = width_um / np.sqrt(3)
    corners = np.stack([y_um + radius * np.sin(turn), x_um + radius * np.cos(turn)], axis=1)
    out: np.ndarray[Any, np.dtype[np.float64]] = corners / mpp + 0.5
    return out


def polygon(yx: Any) -> dict[str, Any]:
    """A closed ring of GeoJSON, x before y, rounded to a hundredth of a pixel."""
    ring = np.round(np.asarray(yx)[:, ::-1], 2).tolist()
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def rgb(colour: str) -> list[int]:
    """A colour as QuPath writes it."""
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
