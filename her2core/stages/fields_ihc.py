"""Six fields of an IHC slide looked at again: chosen from the rows, outlined by the kernel, drawn and kept.

The fields show what a table cannot: whether what was counted is what a pathologist sees. Their outlines are
left beside the picture as GeoJSON that QuPath opens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from her2core.columns import SEED_POCKET
from her2core.guidelines.rules_ihc import CellClass
from her2core.kernels.ihc.kernel import IHCKernel, Outlines
from her2core.kernels.polar import N_RAYS
from her2core.params import IHCParams, ScoreParams
from her2core.pictures.fields import FieldCells, PicturedField
from her2core.pyramid.reader import PyramidReader
from her2core.records import Box, PyramidRef, SlideProfile, StainProfile
from her2core.scoring.ihc import MeasuredCells
from her2core.stages.cells import working_level
from her2core.stages.outlines import nuclei_near
from her2core.statistics import scattered
from her2core.storage.store import Store

FIELD_UM = 64.0
"""Edge of a field: some dozens of cells. Ours."""
MIN_CELLS = 5
"""A field shows at least so many cells. Ours."""
MIN_TUMOUR = 8
"""... and one that is chosen by its stain so many that count. Ours."""


NEAR_COMPLETE, NEAR_OD = 0.1, 0.05
"""A cell is borderline so near to complete (fraction of its contour), or to a cut-point (OD). Ours."""


_POLYGON = '{"type": "Polygon", "coordinates": [%s]}'
_FEATURE = f'{{"type": "Feature", "geometry": {_POLYGON}, "nucleusGeometry": {_POLYGON}, "properties": %s}}'


@dataclass(frozen=True, slots=True)
class ChosenField:
    """Why a field is shown, and its first corner in µm."""

    name: str
    y_um: float
    x_um: float


def choose_fields(
    cells: MeasuredCells, classes: NDArray[np.int8], params: ScoreParams
) -> tuple[ChosenField, ...]:
    """Up to six squares of `FIELD_UM` of a slide's cells, no two alike; the same for the same rows.

    *strongest* has the highest mean membrane OD, *typical* that nearest to the slide's; *borderline* most
    cells within a tenth of the contour of being complete, or within 0.05 OD of a cut-point; *excluded* most
    cells that are not counted, *dense* most cells, and *random* is drawn by a hash of its place.
    """
    if not len(cells.y_um):
        return ()
    row, column = (np.floor(v / FIELD_UM).astype(np.int64) for v in (cells.y_um, cells.x_um))
    place, square = np.unique((row << 32) + column, return_inverse=True)
    counted = cells.tumour & cells.evaluable & (classes != CellClass.UNEVALUABLE)
    n, tumour = np.bincount(square), np.bincount(square, counted)
    od = np.bincount(square, np.where(counted, cells.membrane_od, 0.0)) / np.maximum(tumour, 1)
    near = abs(cells.completeness - params.complete_fraction) < NEAR_COMPLETE
    for cut in (params.weak_od, params.moderate_od, params.strong_od):
        near |= abs(np.nan_to_num(cells.intensity_od) - cut) < NEAR_OD
    middle = float(np.median(cells.membrane_od[counted])) if counted.any() else 0.0
    stained = tumour >= MIN_TUMOUR
    wishes = (
        ("strongest", np.where(stained, od, -np.inf)),
        ("typical", np.where(stained, -abs(od - middle), -np.inf)),
        ("borderline", np.where(stained, np.bincount(square, near & counted), -np.inf)),
        ("excluded", np.where(n - tumour >= MIN_CELLS, n - tumour, -np.inf)),
        ("dense", np.where(n >= MIN_CELLS, n, -np.inf)),
        ("random", np.where(n >= MIN_CELLS, scattered(place.astype(np.uint64)) / 2.0**64, -np.inf)),
    )
    taken: list[int] = []
    fields = []
    for name, merit in wishes:
        merit = np.array(merit, np.float64)
        merit[taken] = -np.inf
        best = int(np.argmax(merit))
        if np.isfinite(merit[best]):
            taken.append(best)
            y, x = int(place[best]) >> 32, int(place[best]) & 0xFFFFFFFF
            fields.append(ChosenField(name, y * FIELD_UM, x * FIELD_UM))
    return tuple(fields)


def look_at(
    store: Store,
    pyramid: PyramidRef,
    profile: SlideProfile,
    kernel_params: IHCParams,
    params: ScoreParams,
    cells: MeasuredCells,
    chosen: tuple[ChosenField, ...],
    outlines: str | None = None,
) -> Iterator[PicturedField]:
    """Read the chosen fields and outline their cells by the kernel and on the nuclei that measured them."""
    if not chosen or not isinstance(profile.stain, StainProfile):
        return
    level = working_level(pyramid.mpp, kernel_params)
    um_px = pyramid.mpp * 2**level
    kernel = IHCKernel(kernel_params, profile.stain, um_px)
    reader = PyramidReader(store, pyramid)
    usable = np.flatnonzero(cells.tumour & cells.evaluable)
    side = round(FIELD_UM / um_px)
    corners = [(round(one.y_um / um_px), round(one.x_um / um_px)) for one in chosen]
    boxes = [Box(y0, x0, y0 + side, x0 + side) for y0, x0 in corners]
    begun = [reader.begin(level, box.grown(kernel.halo_px)) if reader.waits else None for box in boxes]
    for one, box, fetched in zip(chosen, boxes, begun, strict=True):
        around = box.grown(kernel.halo_px)
        region = np.empty((around.height, around.width, 3), np.uint8)
        reader.read(level, around.y0, around.x0, region, begun=fetched.result() if fetched else None)
        given = None if outlines is None else nuclei_near(store, outlines, around, level)
        rows, lines = kernel.outline(region, (around.y0, around.x0), box, given)
        inner = region[kernel.halo_px : -kernel.halo_px, kernel.halo_px : -kernel.halo_px]
        y_um, x_um = (((rows[axis] + 0.5) * 2**level - 0.5) * pyramid.mpp for axis in ("y_px0", "x_px0"))
        counted = _places(cells, usable, box, um_px)
        keys = zip(np.round(y_um, 2).tolist(), np.round(x_um, 2).tolist(), strict=True)
        use = np.array([key in counted for key in keys], np.bool_)
        field = _field_cells(rows, lines, box, um_px, params, use)
        yield PicturedField(one.name, np.ascontiguousarray(inner), um_px, field)


def _places(
    cells: MeasuredCells, usable: NDArray[np.intp], box: Box, um_px: float
) -> set[tuple[float, float]]:
    """Places of the usable cells in and just around a box, to a hundredth of a micrometre."""
    y, x = cells.y_um[usable], cells.x_um[usable]
    around = box.grown(2)
    near = (
        (y >= around.y0 * um_px)
        & (y < around.y1 * um_px)
        & (x >= around.x0 * um_px)
        & (x < around.x1 * um_px)
    )
    return set(zip(np.round(y[near], 2).tolist(), np.round(x[near], 2).tolist(), strict=True))


def _field_cells(
    rows: NDArray[np.void],
    lines: Outlines,
    box: Box,
    um_px: float,
    params: ScoreParams,
    counted: NDArray[np.bool_],
) -> FieldCells:
    turn = 2 * np.pi * np.arange(N_RAYS) / N_RAYS
    towards = np.stack([np.sin(turn), np.cos(turn)], axis=1)
    start = (np.stack([lines.y_px - box.y0, lines.x_px - box.x0], axis=1) + 0.5) * um_px
    cuts = (params.detect_od, params.weak_od, params.moderate_od, params.strong_od)
    return FieldCells(
        nucleus_um=start[:, None] + towards * lines.nucleus_um[..., None],
        contour_um=start[:, None] + towards * lines.contour_um[..., None],
        arc=np.digitize(lines.dab_od, cuts).astype(np.int8),
        pocket=rows["seed_source"] == SEED_POCKET,
        counted=counted,
    )


def fields_geojson(fields: list[tuple[ChosenField, PicturedField]], mpp: float) -> bytes:
    """The outlines as a GeoJSON FeatureCollection of cells as QuPath has them, in level-0 pixels."""
    features = []
    for chosen, field in fields:
        cells, corner = field.cells, _corner_um(chosen, field.um_px)
        contours, nuclei = (_rings((um + corner) / mpp) for um in (cells.contour_um, cells.nucleus_um))
        stained = (cells.arc > 0).sum(axis=1).tolist()
        rows = zip(contours, nuclei, cells.counted.tolist(), cells.pocket.tolist(), stained, strict=True)
        for contour, nucleus, counted, pocket, rays in rows:
            properties = {
                "objectType": "cell",
                "classification": {"name": "Tumor" if counted else "Other"},
                "measurements": {"pocket": int(pocket), "stained rays": rays},
                "metadata": {"field": chosen.name},
            }
            features.append(_FEATURE % (contour, nucleus, json.dumps(properties)))
    return f'{{"type": "FeatureCollection", "features": [{", ".join(features)}]}}'.encode()


def _corner_um(chosen: ChosenField, um_px: float) -> NDArray[np.float64]:
    """Where a field's first pixel begins: fields lie on whole pixels of the level that is worked on."""
    corner: NDArray[np.float64] = np.rint(np.array([chosen.y_um, chosen.x_um]) / um_px) * um_px
    return corner


def _rings(yx: NDArray[np.float64]) -> list[str]:
    """Closed rings as GeoJSON has them, x before y, of ``(n, ray, 2)``; as lists they take longer."""
    rings = np.round(yx[..., ::-1], 1)
    closed = np.concatenate([rings, rings[:, :1]], axis=1)
    form = f"[{', '.join(['[%.1f, %.1f]'] * closed.shape[1])}]"
    return [form % tuple(ring) for ring in closed.reshape(len(closed), -1).tolist()]
