"""Stage ``outlines``: another program's nuclei, read once a slide and published for its work units.

They become centres and radii in a small Parquet file, sorted from the top of the slide down, of which every
unit takes those in its reach.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from her2core.errors import Reason, SlideError
from her2core.intake.outlines import outlines_identity, read_outlines
from her2core.kernels.nuclei import Given
from her2core.kernels.polar import N_RAYS
from her2core.params import IHCParams
from her2core.records import Box, OutlinesRef
from her2core.storage.store import Store

GROUP = 8192
"""Nuclei of a row group: a unit decodes those whose rows it meets. Ours."""


class SlideSize(NamedTuple):
    """Height, width and µm/px of a slide at level 0."""

    height: int
    width: int
    mpp: float


def publish(
    store: Store,
    path: str,
    size: SlideSize,
    uri: str,
    digest: str,
    params: IHCParams,
    endpoint_url: str | None,
) -> OutlinesRef:
    """Read a slide's outlines and publish them at ``path``.

    Parameters
    ----------
    digest
        Identity of the file when the slide was inspected.

    Raises
    ------
    SlideError
        ``CELLS_INVALID`` if they cannot be used, ``FILE_CHANGED`` if the file is another one by now.
    """
    found = read_outlines(uri, *size, params, endpoint_url=endpoint_url, digest=digest)
    if outlines_identity(uri, endpoint_url) != digest:
        raise SlideError(
            Reason.FILE_CHANGED, f"{uri}: replaced while it was read; run again when it is complete."
        )
    radii = pa.FixedSizeListArray.from_arrays(pa.array(found.radius_um.ravel()), N_RAYS)
    table = pa.table({"y_px0": found.y_px0, "x_px0": found.x_px0, "radius_um": radii})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=1, row_group_size=GROUP)
    store.write_bytes(path, buffer.getbuffer())
    return OutlinesRef(path, found.used)


def nuclei_near(store: Store, path: str, around: Box, level: int) -> Given:
    """Published nuclei with their centre in ``around``, in pixels of ``level`` as `Given` expects them."""
    scale = 2**level
    rows = [("y_px0", ">=", around.y0 * scale - 1.0), ("y_px0", "<=", around.y1 * scale + 1.0)]
    table = pq.read_table(pa.BufferReader(store.read_bytes(path)), filters=rows)
    y, x = ((table[axis].to_numpy() + 0.5) / scale - 0.5 for axis in ("y_px0", "x_px0"))
    radii = table["radius_um"].combine_chunks().flatten().to_numpy().reshape(-1, N_RAYS)
    near = np.flatnonzero((x >= around.x0 - 1.0) & (x <= around.x1 + 1.0))
    return Given(y[near], x[near], radii[near])
