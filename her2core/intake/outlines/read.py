"""Reading the nuclei that another program found on a slide, and judging which can be measured on."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from her2core.errors import Reason, SlideError
from her2core.intake.outlines.geojson import SHRUNK, read_geojson
from her2core.intake.outlines.label import read_label
from her2core.intake.outlines.rays import F64, Collected, invalid
from her2core.params import IHCParams
from her2core.readers.marks import MARKERS
from her2core.records import OutlinesUsed
from her2core.storage.sources import file_identity, slide_bytes
from her2core.storage.store import Store
from her2core.text import counted

MAX_BYTES: Final = 512 * 2**20
"""Longest GeoJSON (some 200 000 cells with their nuclei); it takes ten times as much memory. Ours."""
GEOJSON: Final = ("json", ".txt")
LABELS: Final = (".tif", ".tiff")
NO_KIND: Final = (
    "expected .geojson or .json of QuPath, a label image as .tif, or an OME-Zarr label "
    "(IMAGE.zarr/labels/NAME), and nothing of these lies there. Correct cells_uri, or export one of them."
)
NO_FILE: Final = "there is no such file. Correct cells_uri in the manifest."
TWICE_UM: Final = 2.0
"""Outlines whose centres are closer are one nucleus given twice: as far apart as two of our seeds. Ours."""
MAX_OFF_SLIDE: Final = 0.5
"""If more of the outlines lie off the slide they are of another slide or scale. Ours."""
DOUBT_OFF_SLIDE: Final = 0.05
"""If more of the outlines lie off the slide one doubts them. Ours."""
DOUBT_SIZE: Final = 0.5
"""If more of the outlines are no nuclei by their size one doubts them. Ours."""


class ReadOutlines(NamedTuple):
    """Nuclei to measure on, sorted by (y, x); level-0 pixels, pixel centres at whole numbers."""

    y_px0: F64
    x_px0: F64
    radius_um: NDArray[np.float32]
    used: OutlinesUsed


def check_outlines(uri: str, endpoint_url: str | None = None) -> None:
    """Refuse, without reading its outlines, a file that is not there, of another kind or too long.

    Raises
    ------
    SlideError
        ``CELLS_INVALID``
    """
    name = uri.lower()
    if not name.endswith((*GEOJSON, *LABELS)):
        place = Store(uri, endpoint_url=endpoint_url)
        if not any(place.exists(marker) for marker in MARKERS):
            raise invalid(uri, NO_KIND)
        from her2core.intake.outlines.omezarr import label_address  # slow to import, and of few

        label_address(uri, endpoint_url)
        return
    try:
        size = slide_bytes(uri, endpoint_url)
    except SlideError as error:
        raise _unreadable(uri, error) from error
    if size == 0:
        raise invalid(uri, "0 bytes. Export it again.")
    if name.endswith(GEOJSON) and size > MAX_BYTES:
        raise invalid(uri, f"{size} bytes; at most {MAX_BYTES} are read. Store them as a label image.")


def outlines_identity(uri: str, endpoint_url: str | None = None) -> str:
    """Identity of a file of outlines, or of a label's group: equal identity means equal outlines.

    Raises
    ------
    SlideError
        ``CELLS_INVALID`` if it cannot be read.
    """
    try:
        if not uri.lower().endswith((*GEOJSON, *LABELS)):
            from her2core.intake.outlines.omezarr import label_address

            uri = label_address(uri, endpoint_url)
        return file_identity(uri, endpoint_url)[1]
    except SlideError as error:
        raise _unreadable(uri, error) from error


def _unreadable(uri: str, error: SlideError) -> SlideError:
    if error.reason == Reason.CELLS_INVALID:
        return error
    if error.reason == Reason.FILE_MISSING:
        return invalid(uri, NO_FILE)
    return invalid(uri, f"cannot be read ({error.reason}). Correct cells_uri in the manifest.")


def read_outlines(
    uri: str,
    height: int,
    width: int,
    mpp: float,
    params: IHCParams,
    *,
    endpoint_url: str | None = None,
    digest: str = "",
) -> ReadOutlines:
    """Read the nuclei of a slide that another program outlined.

    Parameters
    ----------
    uri
        A ``.geojson`` or ``.json`` of QuPath in level-0 pixels, a label image as ``.tif``, or an OME-Zarr
        label.
    height, width, mpp
        Of the slide at level 0.
    params
        The sizes of nuclei that are measured.
    digest
        Identity of the file, to be kept with the result.

    Raises
    ------
    SlideError
        `Reason.CELLS_INVALID`, naming the file, what was found and what was expected.
    """
    check_outlines(uri, endpoint_url)
    if uri.lower().endswith(LABELS):
        found = read_label(uri, height, width, mpp, params.max_nucleus_um2, endpoint_url)
    elif not uri.lower().endswith(GEOJSON):
        from her2core.intake.outlines.omezarr import read_zarr_label

        found = read_zarr_label(uri, height, width, mpp, params.max_nucleus_um2, endpoint_url)
    else:
        folder, _, name = uri.rpartition("/")
        try:
            text = Store(folder or ".", endpoint_url=endpoint_url).read_bytes(name)
        except OSError as error:
            raise invalid(uri, f"cannot be read ({type(error).__name__}). Correct cells_uri.") from error
        found = read_geojson(uri, text)
    return _measurable(uri, found, height, width, mpp, params, digest)


def _measurable(
    uri: str, found: Collected, height: int, width: int, mpp: float, params: IHCParams, digest: str
) -> ReadOutlines:
    """Of all outlines those on the slide, of a nucleus's size, and each once."""
    n = len(found.y)
    passed = [f"{count} {kind}" for kind, count in sorted(found.passed_over.items())[:12]]
    if n == 0:
        raise invalid(
            uri,
            f"no outline of a nucleus or cell: it holds {', '.join(passed) or 'nothing'}. Find cells first, "
            "or leave cells_uri empty and they are found here.",
        )
    y, x, area = np.array(found.y), np.array(found.x), np.array(found.area) * mpp**2
    on = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    off = n - int(np.count_nonzero(on))
    if off > MAX_OFF_SLIDE * n:
        raise invalid(
            uri,
            f"{off} of {n} outlines lie off the slide: they are at y {y.min():.6g} to {y.max():.6g}, x "
            f"{x.min():.6g} to {x.max():.6g}, the slide at y 0 to {height}, x 0 to {width}. Coordinates must "
            "be level-0 pixels of this very slide (and scene), not micrometres.",
        )
    small, large = on & (area < params.min_nucleus_um2), on & (area > params.max_nucleus_um2)
    fit = np.flatnonzero(on & ~small & ~large)
    limits = f"{params.min_nucleus_um2:g} to {params.max_nucleus_um2:g} µm²"
    if not len(fit):
        raise invalid(
            uri,
            f"none of {n} outlines is of a nucleus's size, {limits}: their median area is "
            f"{np.median(area):.3g} µm². Coordinates must be level-0 pixels, and every nucleus an outline "
            "or a number of its own.",
        )
    fit = fit[np.lexsort((x[fit], y[fit]))]
    kept = fit[_once(y[fit] * mpp, x[fit] * mpp, area[fit])]
    wrong_size = int(np.count_nonzero(small | large))
    unused = (
        (int(np.count_nonzero(small)), f"smaller than {params.min_nucleus_um2:g} µm²"),
        (int(np.count_nonzero(large)), f"larger than {params.max_nucleus_um2:g} µm²"),
        (off, "off the slide"),
        (len(fit) - len(kept), f"within {TWICE_UM:g} µm of a larger one"),
    )
    notes = [f"{count} of {n} outlines not used: {why}" for count, why in unused if count]
    if found.whole_cells:
        notes.append(
            f"{counted(found.whole_cells, 'cell')} without a nucleus: {SHRUNK:g} of their radii taken for it"
        )
    if passed:
        notes.append(f"passed over: {', '.join(passed)}")
    doubts = []
    if off > DOUBT_OFF_SLIDE * n:
        doubts.append(f"{100 * off / n:.0f} % of the outlines lie off the slide")
    if wrong_size > DOUBT_SIZE * n:
        doubts.append(f"{100 * wrong_size / n:.0f} % of the outlines are not {limits}")
    radius = np.array([found.radius[i] for i in kept]) * mpp
    used = OutlinesUsed(uri, digest, len(kept), tuple(notes), tuple(doubts))
    return ReadOutlines(y[kept] - 0.5, x[kept] - 0.5, radius.astype(np.float32), used)


def _once(y_um: F64, x_um: F64, area: F64) -> NDArray[np.bool_]:
    """Which outlines have no larger one, or as large one before them, so near that both are one nucleus."""
    from scipy.spatial import cKDTree  # slow to import

    keep = np.ones(len(y_um), np.bool_)
    pairs = cKDTree(np.stack([y_um, x_um], axis=1)).query_pairs(TWICE_UM, output_type="ndarray")
    first, second = pairs.T
    keep[np.where(area[first] >= area[second], second, first)] = False
    return keep
