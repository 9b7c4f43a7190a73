"""Reading a slide's region of interest, whatever wrote it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from her2core.errors import Reason, SlideError
from her2core.intake.roi.classes import MAX_NAMED, combined, tissues
from her2core.intake.roi.geojson import read_geojson
from her2core.intake.roi.shapes import MAX_CORNERS, MAX_RINGS, Drawn, invalid
from her2core.intake.roi.xml import read_xml
from her2core.params import RoiParams
from her2core.profile.tissue import TissueMask
from her2core.records import Box, RoiUsed
from her2core.storage.sources import file_identity
from her2core.storage.store import Store

MAX_BYTES = 32 * 2**20
"""Longest file of annotations; an export of every detected cell is not a region of interest. Ours."""
NO_FILE = "there is no such file. Correct roi_uri in the manifest."
XML = (".xml", ".annotations")
GEOJSON = ("json", ".txt")
OTHERS = {
    ".qpdata": "QuPath's own data",
    ".ndpa": "annotations of NDP.view",
    ".roi": "a region of ImageJ",
    ".zip": "an archive",
    ".csv": "a table",
    ".svg": "a drawing",
    ".gz": "a compressed file",
}
"""What people name instead, by the ending."""
MAX_OFF_SLIDE = 0.5
"""A region of which more lies off the slide is of another slide or scale. Ours."""
DOUBT_OFF_SLIDE = 0.05
"""A region of which more lies off the slide is doubted. Ours; an edge drawn beyond the picture is less."""
MIN_UM2 = 25.0
"""Smallest region: less than a nucleus. Ours."""
SAME_MPP = 0.02
"""Relative difference up to which two statements of µm/px are the same. Ours."""
UM_IS_A_CORNER = 0.7
"""µm/px from which micrometres and pixels cannot be distinguished by where they lie. Ours."""


@dataclass(frozen=True, slots=True)
class PolygonRoi:
    """Region bounded by polygons, in level-0 pixels with (0, 0) at the first pixel's corner."""

    area: BaseGeometry

    def contains(self, y_px0: npt.ArrayLike, x_px0: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether each point (level-0 pixels, pixel centres at integers) lies inside; the edge is outside."""
        shapely.prepare(self.area)
        y, x = np.asarray(y_px0, np.float64) + 0.5, np.asarray(x_px0, np.float64) + 0.5
        return np.asarray(shapely.contains_xy(self.area, x, y), np.bool_)

    def any(self, box: Box) -> bool:
        """Whether any of the region lies in ``box`` (level-0 pixels)."""
        return bool(self.area.intersects(shapely.box(box.x0, box.y0, box.x1, box.y1)))


Roi = PolygonRoi | TissueMask


@dataclass(frozen=True, slots=True)
class ReadRoi:
    """A region, and what to report of it."""

    region: Roi
    used: RoiUsed


def read_roi(
    uri: str,
    height: int,
    width: int,
    mpp: float,
    params: RoiParams | None = None,
    *,
    endpoint_url: str | None = None,
    digest: str = "",
) -> ReadRoi:
    """Read a slide's region of interest.

    Parameters
    ----------
    uri
        A ``.json`` or ``.geojson`` of QuPath, an ``.annotations`` of HALO, an ``.xml`` of ImageScope, or an
        OME-Zarr label group (``.../labels/<name>``, ``....zarr``).
    height, width, mpp
        Of the slide at level 0.
    params
        Which classes count and which are cut out.
    digest
        Identity of the file, to be kept with the result.

    Raises
    ------
    SlideError
        `Reason.ROI_INVALID`, naming the file, the annotation, what was found and what was expected.
    """
    name = uri.rstrip("/").lower()
    for ending, what in OTHERS.items():
        if name.endswith(ending):
            raise invalid(uri, f"{what}, which is not read. Export annotations as GeoJSON from QuPath.")
    if not name.endswith((*GEOJSON, *XML)):
        from her2core.intake.roi.label import read_label  # slow to import, and of few

        mask = read_label(uri, height, width, endpoint_url)
        area_px = float(np.count_nonzero(mask.mask)) * mask.downsample**2
        return ReadRoi(mask, RoiUsed(uri, digest, ("label",), (), area_px * mpp**2 / 1e6))
    layers = name.endswith(XML)
    drawn = _drawn(uri, _text(uri, endpoint_url))
    area, classes = combined(uri, drawn, params or RoiParams(), layers=layers)
    kept, doubts = _on_the_slide(uri, area, height, width, mpp)
    if drawn.mpp and abs(drawn.mpp / mpp - 1) > SAME_MPP:
        doubts.append(f"drawn on a slide of {drawn.mpp:g} µm/px, and this one has {mpp:g}")
    used = RoiUsed(
        source=uri,
        digest=digest,
        classes=classes["counted"],
        excluded=classes["cut_out"],
        area_mm2=kept.area * mpp**2 / 1e6,
        notes=_notes(drawn, classes["unused"]),
        doubts=tuple(doubts),
    )
    return ReadRoi(PolygonRoi(area), used)


@dataclass(frozen=True, slots=True)
class DrawnTissue:
    """Where a person drew tumour, and where other tissue; ``digest`` is of the file's bytes (SHA-256)."""

    tumour: PolygonRoi
    other: PolygonRoi
    digest: str


def read_tissue(
    uri: str,
    height: int,
    width: int,
    mpp: float,
    params: RoiParams,
    *,
    margin_um: float,
    endpoint_url: str | None = None,
) -> DrawnTissue:
    """Read a slide's tissue by the classes of its annotations, to learn from.

    Parameters
    ----------
    margin_um
        What lies nearer to a drawn line is left out.

    Others are those of `read_roi`.

    Raises
    ------
    SlideError
        `Reason.ROI_INVALID`, naming the file, what was found and what was expected.
    """
    if not uri.lower().endswith((*GEOJSON, *XML)):
        raise invalid(uri, "no annotations with classes. Export annotations as GeoJSON from QuPath.")
    text = _text(uri, endpoint_url)
    areas = tissues(uri, _drawn(uri, text), params)
    _on_the_slide(uri, shapely.union_all(areas), height, width, mpp)
    tumour, other = (PolygonRoi(area.buffer(-margin_um / mpp)) for area in areas)
    return DrawnTissue(tumour, other, hashlib.sha256(text).hexdigest())


def _drawn(uri: str, text: bytes) -> Drawn:
    """Everything that a file of annotations holds."""
    try:
        return read_xml(uri, text) if uri.lower().endswith(XML) else read_geojson(uri, text)
    except OverflowError:
        raise invalid(
            uri,
            f"more than {MAX_RINGS} outlines or {MAX_CORNERS} corners. Simplify the annotations, or remove "
            "their small holes and fragments.",
        ) from None


def roi_identity(uri: str, endpoint_url: str | None) -> str:
    """Identity of the file of a region: equal identity means an equal region.

    Raises
    ------
    SlideError
        ``ROI_INVALID`` if it cannot be read.
    """
    try:
        return file_identity(uri, endpoint_url)[1]
    except SlideError as error:
        if error.reason == Reason.FILE_MISSING:
            raise invalid(uri, NO_FILE) from error
        raise invalid(uri, f"cannot be read ({error.reason}). Correct roi_uri in the manifest.") from error


def _text(uri: str, endpoint_url: str | None) -> bytes:
    folder, _, name = uri.rpartition("/")
    store = Store(folder or ".", endpoint_url=endpoint_url)
    try:
        size = store.size(name)
        if size > MAX_BYTES:
            raise invalid(uri, f"{size} bytes; at most {MAX_BYTES} are read. Export annotations only.")
        return store.read_bytes(name)
    except FileNotFoundError as error:
        raise invalid(uri, NO_FILE) from error
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        why = type(error).__name__
        raise invalid(uri, f"cannot be read ({why}). Correct roi_uri in the manifest.") from error


def _on_the_slide(
    uri: str, area: BaseGeometry, height: int, width: int, mpp: float
) -> tuple[BaseGeometry, list[str]]:
    """The part of a region that lies on the slide, and what makes one doubt that it was drawn on it."""
    kept = shapely.intersection(area, shapely.box(0, 0, width, height))
    off = 1.0 - kept.area / area.area
    x0, y0, x1, y1 = area.bounds
    place = f"lies at y {y0:.6g} to {y1:.6g}, x {x0:.6g} to {x1:.6g}"
    where = f"{place}; the slide at y 0 to {height}, x 0 to {width}"
    if off > MAX_OFF_SLIDE:
        share = "" if kept.is_empty else f" ({100 * off:.0f} % of it off the slide)"
        raise invalid(
            uri,
            f"{where}{share}. Coordinates must be level-0 pixels of this very slide (and scene), not "
            "micrometres.",
        )
    if area.area * mpp**2 < MIN_UM2:
        raise invalid(
            uri,
            f"{area.area * mpp**2:.2g} µm², less than a nucleus; it {where}. Coordinates must be level-0 "
            "pixels, not fractions of the slide or millimetres.",
        )
    doubts = []
    if off > DOUBT_OFF_SLIDE:
        doubts.append(f"{100 * off:.0f} % of it is off the slide: it {where}")
    if mpp < UM_IS_A_CORNER and x1 <= width * mpp and y1 <= height * mpp:
        doubts.append(
            f"all of it is in the upper left corner, where coordinates in micrometres would lie: it {where}"
        )
    return kept, doubts


def _notes(drawn: Drawn, unused: tuple[str, ...]) -> tuple[str, ...]:
    """What the file holds that was not used, in words."""
    passed = [f"{count} {kind}" for kind, count in sorted(drawn.passed_over.items())][:MAX_NAMED]
    notes = [f"not used: {', '.join(unused)}"] if unused else []
    return tuple(notes + ([f"passed over: {', '.join(passed)}"] if passed else []))
