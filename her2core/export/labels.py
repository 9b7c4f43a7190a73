"""Cells as an OME-Zarr label: every pixel inside a contour holds its cell's number, at every level of the
pyramid.

``SLIDE.ome.zarr/labels/cells`` is written apart from the run, which stays as it is; its properties name which
number is which ``cell_id`` and class. Where two contours overlap the later cell has the pixel; 0 is none.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zarr
from numpy.typing import NDArray

from her2core.errors import ConfigError
from her2core.export.contours import outline_cells
from her2core.export.finished import FinishedRun, Row, Selection, export_each, write_folder
from her2core.export.qupath import rgb
from her2core.guidelines.rules_ihc import CLASS_OF_LABEL
from her2core.pictures.colours import CLASS_COLOURS, OTHER_COLOUR
from her2core.pyramid import ngff
from her2core.records import Assay
from her2core.storage.store import Store
from her2core.storage.temporary import temporary_folder

CHUNK = 1024
MAX_CELLS = 2_000_000
"""Most cells of one label: their properties are one JSON document. Ours."""
NAME = "cells"


def export_labels(run: FinishedRun, out: Store, selection: Selection) -> list[str]:
    """Write a label image of cells a slide.

    Raises
    ------
    ConfigError
        If the slide's contours cannot be had, or there are too many cells.
    """

    def write(slide: Row) -> str:
        name = f"{slide['slide_id']}.ome.zarr"
        with temporary_folder("her2-export-", "the bytes of an exported file") as folder:
            local = folder / name
            _write(run, slide, selection, local)
            write_folder(out, name, local)
        return name

    return export_each(run.chosen(selection, Assay.IHC), write)


def _write(run: FinishedRun, slide: Row, selection: Selection, local: Path) -> None:
    names = ("cell_id", "cell_class")
    rows = run.batches(slide, selection, names).read_all().to_pylist()
    if len(rows) > MAX_CELLS:
        raise ConfigError(
            f"{slide['slide_id']}: {len(rows)} cells; a label holds {MAX_CELLS}. Choose a box or a class"
        )
    ids = np.array([row["cell_id"] for row in rows], np.int64)
    ref = run.record(slide).outcome.pyramid
    if ref is None:
        raise ConfigError(f"{slide['slide_id']}: has no pyramid")
    group = local / "labels" / NAME
    arrays = [_array(group, level, shape) for level, shape in enumerate(ref.shapes)]
    for part in outline_cells(run, slide, ids):
        _paint(arrays[0], part.contour_px0, np.searchsorted(ids, part.ids) + 1)
    for finer, coarser in pairwise(arrays):
        _halve(finer, coarser)
    document = ngff.label_group(NAME, list(range(len(arrays))), ref.mpp, [], {})
    document["attributes"]["ome"]["image-label"] = {
        "version": "0.5",
        "colors": [
            {"label-value": i + 1, "rgba": [*rgb(_colour(row["cell_class"])), 255]}
            for i, row in enumerate(rows)
        ],
        "properties": [
            {"label-value": i + 1, "cell_id": str(row["cell_id"]), "cell_class": row["cell_class"]}
            for i, row in enumerate(rows)
        ],
    }
    (group / "zarr.json").write_text(json.dumps(document))
    (local / "labels" / "zarr.json").write_text(json.dumps(ngff.labels_group([NAME])))
    root: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    (local / "zarr.json").write_text(json.dumps(root))


def _colour(label: str | None) -> str:
    return CLASS_COLOURS[CLASS_OF_LABEL[label]] if label is not None else OTHER_COLOUR


def _array(group: Path, level: int, shape: tuple[int, int]) -> Any:
    return zarr.create_array(
        str(group / str(level)), shape=shape, chunks=(CHUNK, CHUNK), dtype="uint32", fill_value=0,
        dimension_names=("y", "x"), zarr_format=3,
    )  # fmt: skip


def _paint(array: Any, contours: NDArray[np.float64], values: NDArray[np.int64]) -> None:
    """Fill contours, ``(y, x)`` from the corner, into the part of the array that they touch."""
    low = np.maximum(np.floor(contours.min((0, 1))).astype(int), 0)
    high = np.minimum(np.ceil(contours.max((0, 1))).astype(int) + 1, array.shape)
    part = np.ascontiguousarray(array[low[0] : high[0], low[1] : high[1]]).astype(np.int32)
    points = np.rint((contours - 0.5 - low)[..., ::-1] * 16).astype(np.int32)
    for ring, value in zip(points, values.tolist(), strict=True):
        cv2.fillPoly(part, [ring], int(value), shift=4)
    array[low[0] : high[0], low[1] : high[1]] = part.astype(np.uint32)


def _halve(finer: Any, coarser: Any) -> None:
    """Every second pixel of the finer level, in strips."""
    height, width = coarser.shape
    for y in range(0, height, CHUNK):
        strip = finer[2 * y : 2 * min(y + CHUNK, height)][::2, ::2]
        coarser[y : y + strip.shape[0], : min(width, strip.shape[1])] = strip[: height - y, :width]
