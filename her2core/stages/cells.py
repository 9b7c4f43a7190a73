"""Stage ``cells``: run a kernel over one work unit of a pyramid and publish its rows: cells, or nuclei (ISH).

A unit is a square of the working level, somewhat larger than a shard: a smaller one spends its time on the
halo that the kernel requires, a larger one takes more memory and more glass along. It is read once, halo and
all, into a buffer that the thread keeps; only the part of the unit that holds tissue is looked at, and chunks
of it that lie farther than the halo from any tissue are not read.
"""

from __future__ import annotations

import io
import itertools
import math
import threading
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from her2core.buffers import ThreadBuffers
from her2core.columns import CELL_DTYPE
from her2core.kernels.ihc.kernel import IHCKernel
from her2core.kernels.ish.kernel import ISHKernel
from her2core.lake.encodings import part_bytes
from her2core.lake.rows_nuclei import kernel_table
from her2core.params import IHCParams, ISHParams
from her2core.profile.tissue import TissueMask, read_tissue
from her2core.pyramid.reader import Begun, PyramidReader
from her2core.records import Box, PyramidRef, SlideProfile, StainProfile
from her2core.stages.contours import encode, outlined
from her2core.stages.outlines import nuclei_near
from her2core.stages.parts import PART_UNITS, UNIT_SHARDS
from her2core.storage.store import Store
from her2core.storage.waiting import Uploads

FINEST_UM_PX = 0.17
"""Finer levels are not worked on for IHC: the kernel's filters are laid out for 0.17-0.6 µm/px (ours)."""

Params = IHCParams | ISHParams

_local = threading.local()
_buffers = ThreadBuffers()


@dataclass(frozen=True, slots=True)
class Unit:
    """One work unit of one slide: everything a worker needs to measure it.

    ``box`` is in pixels of ``level``; ``part`` is the object that the rows go to, with those of neighbours;
    ``outlines`` holds another program's nuclei, where the manifest names some; ``contours`` is the object
    that the outlines of the cells go to, where they are kept.
    """

    store: Store
    pyramid: PyramidRef
    profile: SlideProfile
    params: Params
    level: int
    box: Box
    part: str
    outlines: str | None = None
    contours: str | None = None

    @property
    def box_px0(self) -> Box:
        """The box in level-0 pixels."""
        return _at_level_0(self.box, self.level)


def working_level(mpp: float, params: Params) -> int:
    """Return the pyramid level that is worked on, for ``mpp`` micrometres per level-0 pixel.

    Signals of ISH are as small as pixels get: they are looked for at full resolution.
    """
    level = 0
    if isinstance(params, ISHParams):
        return level
    while mpp * 2**level < FINEST_UM_PX:
        level += 1
    return level


def measure(units: Sequence[Unit], there: Collection[str] = ()) -> int:
    """Measure every cell in tissue whose centroid lies in a unit's box; publish the parts of these units.

    The units are of one slide, all that there are of each part, and done one after the other; when it
    returns, all are stored. Of a server, the next one is read and the last ones stored while one is measured.

    Parameters
    ----------
    there
        Parts, and outlines of cells, that are published: parts that are, with their outlines, are counted and
        not measured again.

    Returns
    -------
    int
        Number of cells of all units.
    """
    found, counts = frozenset(there), dict[str, int]()
    parts = by_part(units)
    todo: deque[Unit] = deque()
    for name, members in parts.items():
        if {name, *(unit.contours or name for unit in members)} <= found:
            counts[name] = _count(members[0])
        else:
            todo += members
    if not todo:
        return sum(counts.values())
    looks, rows = deque([_look(todo.popleft())]), list[pa.Table]()
    with Uploads(units[0].store) as uploads:
        while looks:
            look = looks.popleft()
            if todo:
                looks.append(_look(todo.popleft()))
            rows.append(_rows_in(look, uploads))
            name = look.unit.part
            if len(rows) == len(parts[name]):
                whole = pa.concat_tables(rows)
                uploads.put({name: part_bytes(whole)}, last=look.unit.contours is not None)
                counts[name] = len(whole)
                rows.clear()
    return sum(counts.values())


def by_part(units: Sequence[Unit]) -> dict[str, list[Unit]]:
    """Units by the part that their rows go to, from left to right as these lie in it."""
    found: dict[str, list[Unit]] = {}
    for unit in sorted(units, key=lambda unit: (unit.part, unit.box.y0, unit.box.x0)):
        found.setdefault(unit.part, []).append(unit)
    return found


def _count(unit: Unit) -> int:
    """Rows of a published part."""
    return int(pq.read_metadata(io.BytesIO(unit.store.read_bytes(unit.part))).num_rows)


def units(
    store: Store,
    pyramid: PyramidRef,
    profile: SlideProfile,
    params: Params,
    folder: str,
    outlines: str | None = None,
    contours: str | None = None,
) -> tuple[Unit, ...]:
    """Return the work units of a slide that hold tissue, and where their rows and outlines go."""
    level = working_level(pyramid.mpp, params)
    tissue = read_tissue(store, pyramid, profile)
    (height, width), edge = pyramid.shape(level), _unit_edge(pyramid)
    found = []
    for y0, x0 in itertools.product(range(0, height, edge), range(0, width, edge)):
        box = Box(y0, x0, min(y0 + edge, height), min(x0 + edge, width))
        if core_with_tissue(tissue, box, level) is not None:
            row, column = y0 // edge, x0 // edge
            kept = None if contours is None else f"{contours}/{_name(row, column)}"
            part = f"{folder}/{_name(row, column - column % PART_UNITS)}"
            found.append(Unit(store, pyramid, profile, params, level, box, part, outlines, kept))
    return tuple(found)


def _name(row: int, column: int) -> str:
    """File name of what units leave behind, by the first of them; `stages.slide` reads the row in it."""
    return f"{row:05d}-{column:05d}.parquet"


def _unit_edge(pyramid: PyramidRef) -> int:
    return int(UNIT_SHARDS * pyramid.shard)


def core_with_tissue(tissue: TissueMask, box: Box, level: int) -> Box | None:
    """Smallest part of ``box``, in pixels of ``level``, that owns every cell in tissue that ``box`` owns.

    A centroid is owned by pixel edges and lies in tissue by pixel centres, so the two may disagree by half a
    pixel: one pixel more on every side makes up for it.
    """
    scale = 2**level
    found = tissue.bounds(_at_level_0(box.grown(1), level))
    if found is None:
        return None
    near = Box(found.y0 // scale, found.x0 // scale, -(-found.y1 // scale), -(-found.x1 // scale))
    return near.grown(1).within(box)


def _at_level_0(box: Box, level: int) -> Box:
    scale = 2**level
    return Box(box.y0 * scale, box.x0 * scale, box.y1 * scale, box.x1 * scale)


@dataclass(frozen=True, slots=True)
class _Look:
    """What is looked at of a unit; ``begun`` is being read where reading waits for a server."""

    unit: Unit
    tissue: TissueMask
    core: Box
    around: Box
    begun: Future[Begun] | None

    def matters(self, chunk: Box) -> bool:
        """Whether a chunk matters to a cell in tissue; one pixel more for its centroid, as above."""
        halo = self.core.y0 - self.around.y0
        return self.tissue.any(_at_level_0(chunk.grown(halo + 1), self.unit.level))


def _look(unit: Unit) -> _Look:
    tissue = read_tissue(unit.store, unit.pyramid, unit.profile)
    core = core_with_tissue(tissue, unit.box, unit.level)
    if core is None:
        core = Box(unit.box.y0, unit.box.x0, unit.box.y0, unit.box.x0)  # of no pixel: the columns alone
    look = _Look(unit, tissue, core, core.grown(_kernel(unit).halo_px), None)
    reader = PyramidReader(unit.store, unit.pyramid)
    if not reader.waits:
        return look
    return replace(look, begun=reader.begin(unit.level, look.around, look.matters))


def _rows_in(look: _Look, uploads: Uploads) -> pa.Table:
    unit, tissue, core, around = look.unit, look.tissue, look.core, look.around
    kernel = _kernel(unit)
    region = _buffer(unit, kernel.halo_px, around)
    begun = None if look.begun is None else look.begun.result()
    reader = PyramidReader(unit.store, unit.pyramid)
    reader.read(unit.level, around.y0, around.x0, region, look.matters, begun)
    if isinstance(kernel, ISHKernel):
        nuclei, spots = kernel(region, (around.y0, around.x0), core)
        return kernel_table(nuclei, spots, tissue.contains(nuclei["y_px0"], nuclei["x_px0"]))
    given = None
    if unit.outlines is not None:
        given = nuclei_near(unit.store, unit.outlines, around, unit.level)
    cells, lines = kernel.outline(region, (around.y0, around.x0), core, given)
    if unit.level > 0:  # pixel centres: (p + 1/2) * scale - 1/2
        for axis in ("y_px0", "x_px0"):
            cells[axis] = (cells[axis] + 0.5) * 2**unit.level - 0.5
    inside = tissue.contains(cells["y_px0"], cells["x_px0"])
    if unit.contours is not None:  # before the part: one that is there has its outlines beside it
        kept = outlined(cells[inside], lines.where(inside), unit.level, unit.pyramid.mpp)
        uploads.put({unit.contours: encode(kept, kernel)})
    return _cells_table(cells[inside])


def _kernel(unit: Unit) -> IHCKernel | ISHKernel:
    """Return this thread's kernel for the unit's slide, keeping its buffers from unit to unit."""
    largest = _largest_box(unit)
    key = (unit.params, unit.profile.stain, unit.pyramid.mpp, unit.level, largest)
    if getattr(_local, "kernel_key", None) != key:
        _local.kernel = None  # its buffers go before the next ones come
        _local.kernel = _new_kernel(unit, largest)
        _local.kernel_key = key
    kernel: IHCKernel | ISHKernel = _local.kernel
    return kernel


def _new_kernel(unit: Unit, largest: tuple[int, int]) -> IHCKernel | ISHKernel:
    mpp, stain = unit.pyramid.mpp * 2**unit.level, unit.profile.stain
    if isinstance(unit.params, IHCParams) and isinstance(stain, StainProfile):
        return IHCKernel(unit.params, stain, mpp, largest)
    if isinstance(unit.params, ISHParams) and not isinstance(stain, StainProfile):
        return ISHKernel(unit.params, stain, mpp, largest, extent=unit.pyramid.shape(unit.level))
    raise TypeError(f"{type(unit.params).__name__} do not go with a {type(stain).__name__}")


def _largest_box(unit: Unit) -> tuple[int, int]:
    """Height and width of the largest unit of the slide."""
    (height, width), edge = unit.pyramid.shape(unit.level), _unit_edge(unit.pyramid)
    return max(min(height, edge), unit.box.height), max(min(width, edge), unit.box.width)


def _buffer(unit: Unit, halo_px: int, around: Box) -> NDArray[Any]:
    """Return this thread's pixels for reading a box, at once large enough for every unit of the slide."""
    height, width = _largest_box(unit)
    dtype, channels = np.dtype(unit.pyramid.dtype), len(unit.pyramid.channels)
    capacity = (height + 2 * halo_px) * (width + 2 * halo_px) * channels * dtype.itemsize
    shape = (around.height, around.width, channels)
    flat = _buffers.flat("region", math.prod(shape) * dtype.itemsize, capacity)
    return flat.view(dtype).reshape(shape)


def _cells_table(cells: NDArray[np.void]) -> pa.Table:
    return pa.table({name: np.ascontiguousarray(cells[name]) for name in CELL_DTYPE.names or ()})
