"""Stage ``contours``: the outlines of all cells of a slide, kept where the configuration requests them.

They are what the cells were measured on, written by the task that measures them: nucleus, contour, and the
stain along it, ray by ray. All are whole numbers of the kernel's steps, so nothing is lost by storing them;
a cell takes about 53 bytes. Each work unit writes one Parquet file, in the order of ``cell_id``.

::

    cell_id    int64           as in the table ``cells``: centroid in 1/16 level-0 px from the slide's corner
    start_y    int16           where the rays start, 1/16 level-0 px below the centroid
    start_x    int16           ... and right of it
    nucleus    36 x uint8      radius of the nucleus along ray a (10 a degrees from +x towards +y), in steps,
                               half a step too long
    contour    36 x uint8      radius of the cell's contour, in steps of its own
    stain      36 x int16      DAB OD of the contour in steps of its own; 0 not stained, -1 not assessed

The steps in micrometres, the slide's micrometres per pixel, and the steps of stain in an OD, stand in the
file's metadata as JSON under ``her2_contours``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from her2core.errors import StoreError
from her2core.kernels.ihc.kernel import IHCKernel, Outlines
from her2core.kernels.ihc.planes import DAB_PER_OD
from her2core.kernels.polar import N_RAYS
from her2core.lake.rows_cells import PLACE_PARTS, cell_ids, cell_places
from her2core.records import Box, ContoursPart, ContoursRef
from her2core.storage.store import Store, record_of

STEPS = b"her2_contours"
"""Key of the steps in a file's metadata."""
NOT_JUDGED: Final = -1


@dataclass(frozen=True, slots=True)
class CellOutlines:
    """Outlines of some cells of a slide as they were measured, in the order of their ids.

    Attributes
    ----------
    ids
        ``cell_id``, int64 ``(n,)``.
    start_px0
        float64 ``(n, 2)``: where the rays start, ``(y, x)`` in level-0 px from the slide's corner.
    nucleus_um, contour_um
        float32 ``(n, 36)``: radius along ray ``a``, which points ``10 a`` degrees from +x towards +y.
    dab_od
        float32 ``(n, 36)``: DAB OD of the stained part of the contour, 0 where it is not stained.
    evaluable
        bool ``(n, 36)``: whether stain can be assessed along a ray.
    mpp
        Level-0 µm/px.
    """

    ids: NDArray[np.int64]
    start_px0: NDArray[np.float64]
    nucleus_um: NDArray[np.float32]
    contour_um: NDArray[np.float32]
    dab_od: NDArray[np.float32]
    evaluable: NDArray[np.bool_]
    mpp: float

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, rows: NDArray[Any]) -> CellOutlines:
        """Those that ``rows`` marks or lists."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _COLUMNS})

    @property
    def nucleus_px0(self) -> NDArray[np.float64]:
        """Corners of the nuclei, ``(n, 36, 2)``, each ``(y, x)`` in level-0 px from the slide's corner."""
        return self._corners(self.nucleus_um)

    @property
    def contour_px0(self) -> NDArray[np.float64]:
        """Corners of the cells' contours, as of the nuclei."""
        return self._corners(self.contour_um)

    def _corners(self, radius_um: NDArray[np.float32]) -> NDArray[np.float64]:
        turn = 2 * np.pi * np.arange(N_RAYS) / N_RAYS
        towards = np.stack([np.sin(turn), np.cos(turn)], axis=1)
        found: NDArray[np.float64] = self.start_px0[:, None] + towards * (radius_um / self.mpp)[..., None]
        return found


def outlined(cells: NDArray[np.void], lines: Outlines, level: int, mpp: float) -> CellOutlines:
    """Outlines of a kernel's rows, sorted by id.

    Parameters
    ----------
    cells
        Rows of `IHCKernel.outline` with their places in level-0 pixels.
    lines
        Their outlines, in pixels of ``level``.
    mpp
        Level-0 µm/px.
    """
    ids = cell_ids(cells["y_px0"], cells["x_px0"])
    start = (np.stack([lines.y_px, lines.x_px], axis=1) + 0.5) * 2**level
    radii = (lines.nucleus_um, lines.contour_um, lines.dab_od, lines.evaluable)
    return CellOutlines(ids, start, *radii, mpp).where(np.argsort(ids, kind="stable"))


def encode(found: CellOutlines, kernel: IHCKernel) -> bytes:
    """A part as a Parquet file.

    Raises
    ------
    ValueError
        If these are no outlines of the kernel: they are stored exactly or not at all.
    """
    steps = {
        "nucleus_um": kernel.geometry.um,
        "contour_um": kernel.geometry.step_um,
        "stain_per_od": DAB_PER_OD,
        "mpp": found.mpp,
    }
    start = (found.start_px0 * PLACE_PARTS).astype(np.int64) - cell_places(found.ids)
    nucleus = np.rint(found.nucleus_um / kernel.geometry.um + 0.5).astype(np.int64)
    contour = np.rint(found.contour_um / kernel.geometry.step_um).astype(np.int64)
    stain = np.where(found.evaluable, np.rint(found.dab_od * DAB_PER_OD), NOT_JUDGED).astype(np.int64)
    table = pa.table(
        {
            "cell_id": found.ids,
            "start_y": pa.array(start[:, 0], pa.int16()),
            "start_x": pa.array(start[:, 1], pa.int16()),
            "nucleus": _rays(nucleus, pa.uint8()),
            "contour": _rays(contour, pa.uint8()),
            "stain": _rays(stain, pa.int16()),
        },
        metadata={STEPS: json.dumps(steps).encode()},
    )
    again = _decoded(table)
    if not all(np.array_equal(getattr(again, name), getattr(found, name)) for name in _COLUMNS):
        raise ValueError("outlines between the kernel's steps cannot be stored as whole numbers of them")
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=1)
    return buffer.getvalue()


def _rays(values: NDArray[np.int64], kind: pa.DataType) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), kind), N_RAYS)


def _decoded(table: pa.Table) -> CellOutlines:
    steps = json.loads(table.schema.metadata[STEPS])

    def rays(name: str) -> NDArray[Any]:
        return np.asarray(table[name].combine_chunks().flatten()).reshape(-1, N_RAYS)

    ids = table["cell_id"].to_numpy()
    start = cell_places(ids) + np.stack([table["start_y"].to_numpy(), table["start_x"].to_numpy()], axis=1)
    stain = rays("stain")
    return CellOutlines(
        ids,
        start / PLACE_PARTS,
        ((rays("nucleus") - 0.5) * steps["nucleus_um"]).astype(np.float32),
        (rays("contour") * steps["contour_um"]).astype(np.float32),
        (np.maximum(stain, 0) / steps["stain_per_od"]).astype(np.float32),
        stain != NOT_JUDGED,
        steps["mpp"],
    )


def open_contours(store: Store, folder: str) -> ContoursRef:
    """What is stored of a slide, by its column ``contours`` of the table ``slides``.

    Raises
    ------
    StoreError
        If it is gone, or of another version.
    """
    record = record_of("contours", PurePosixPath(folder).name)
    try:
        return _REF.validate_json(store.read_bytes(record))
    except (FileNotFoundError, ValidationError) as error:
        what = "gone" if isinstance(error, OSError) else "of another version"
        raise StoreError(f"{store.uri(record)}: {what}; run again to make the outlines") from None


def read_part(store: Store, part: ContoursPart) -> CellOutlines:
    """Outlines of one file.

    Raises
    ------
    StoreError
        If it is gone or damaged.
    """
    try:
        return _decoded(pq.read_table(pa.BufferReader(store.read_bytes(part.path))))
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise StoreError(
            f"{store.uri(part.path)}: cannot be read ({type(error).__name__}); remove it and its record, and "
            "run again to make the outlines"
        ) from error


def outlines_within(store: Store, ref: ContoursRef, box: Box) -> CellOutlines:
    """Outlines of the cells whose centroid lies in a box, level-0 pixels, from the files that it meets.

    A viewer that draws tiles grows its box by the widest cell, some 25 µm.
    """
    found = []
    for part in ref.parts:
        own = part.box
        if own.y0 < box.y1 and box.y0 < own.y1 and own.x0 < box.x1 and box.x0 < own.x1:
            cells = read_part(store, part)
            y, x = cell_places(cells.ids).T / PLACE_PARTS
            found.append(cells.where((y >= box.y0) & (y < box.y1) & (x >= box.x0) & (x < box.x1)))
    return _joined(found)


def outlines_by_part(store: Store, ref: ContoursRef) -> Iterator[CellOutlines]:
    """Outlines of all cells, a file at a time, from the top of the slide."""
    for part in ref.parts:
        yield read_part(store, part)


def _joined(parts: list[CellOutlines]) -> CellOutlines:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        rays = np.zeros((0, N_RAYS), np.float32)
        none = rays.astype(np.bool_)
        return CellOutlines(np.zeros(0, np.int64), np.zeros((0, 2)), rays, rays, rays, none, 1.0)
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(one, name) for one in parts]) for name in _COLUMNS
    }
    whole = replace(parts[0], **joined)
    return whole.where(np.argsort(whole.ids, kind="stable"))


_COLUMNS = ("ids", "start_px0", "nucleus_um", "contour_um", "dab_od", "evaluable")
_REF: TypeAdapter[ContoursRef] = TypeAdapter(ContoursRef)
