"""Regions of interest: polygons as QuPath exports them, or an OME-Zarr label.

Both answer one question, whether a point lies inside, point by point: the answer cannot depend on how the
slide was cut into chunks. Outside a region cells are measured but not scored.

References
----------
GeoJSON: RFC 7946. QuPath's export writes level-0 pixels, with (0, 0) at the corner of the first pixel.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
import zarr
from shapely.geometry.base import BaseGeometry

from her2core.errors import Reason, SlideError
from her2core.profile.tissue import TissueMask
from her2core.records import Box
from her2core.storage.store import Store

MAX_GEOJSON_BYTES = 256 * 2**20  # an export of every detected cell is not a region of interest
MAX_LABEL_PIXELS = 64 * 10**6  # finest level of a label that is read whole (64 MB)
CUT_OUT = ("ignore", "exclude")  # classifications that begin so are cut out; QuPath's own is "Ignore*"
AREAS = ("Polygon", "MultiPolygon")
NOT_ANNOTATIONS = ("detection", "cell", "tile")  # QuPath's objectType of what it measured itself


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


def read_roi(uri: str, height: int, width: int, *, endpoint_url: str | None = None) -> Roi:
    """Read a slide's region of interest.

    Parameters
    ----------
    uri
        A ``.json`` or ``.geojson`` file, or an OME-Zarr label group (``.../labels/<name>``, ``....zarr``).
        Every annotation counts, save those classified ``Ignore*`` or ``exclude``, which are cut out.
    height, width
        Of the slide at level 0.

    Raises
    ------
    SlideError
        `Reason.ROI_INVALID`, naming the file, the feature, what was found and what was expected.
    """
    if uri.rstrip("/").lower().endswith(("json", ".txt")):
        return _read_geojson(uri, height, width, endpoint_url)
    return _read_label(uri, height, width, endpoint_url)


def _invalid(uri: str, what: str) -> SlideError:
    return SlideError(Reason.ROI_INVALID, f"region of interest {uri}: {what}")


def _read_geojson(uri: str, height: int, width: int, endpoint_url: str | None) -> PolygonRoi:
    folder, _, name = uri.rpartition("/")
    store = Store(folder or ".", endpoint_url=endpoint_url)
    try:
        size = store.size(name)
        if size > MAX_GEOJSON_BYTES:
            raise _invalid(
                uri, f"{size} bytes; at most {MAX_GEOJSON_BYTES} are read. Export annotations only."
            )
        document = json.loads(store.read_bytes(name))
    except FileNotFoundError as error:
        raise _invalid(uri, "there is no such file. Correct roi_uri in the manifest.") from error
    except ValueError as error:  # JSON, or its encoding
        raise _invalid(uri, f"not JSON ({error}). Export annotations as GeoJSON from QuPath.") from error
    inside: list[BaseGeometry] = []
    outside: list[BaseGeometry] = []
    for label, feature in _features(uri, document):
        geometry = _geometry(uri, label, feature)
        (outside if _class_name(feature).lower().startswith(CUT_OUT) else inside).append(geometry)
    if not inside:
        raise _invalid(uri, f"no annotation to score ({len(outside)} to cut out). Draw at least one.")
    area = shapely.union_all(inside)
    if outside:
        area = shapely.difference(area, shapely.union_all(outside))
    _check_extent(uri, area, height, width)
    return PolygonRoi(area)


def _features(uri: str, document: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Annotations of a FeatureCollection, a list of features, a single feature, or a bare geometry."""
    if isinstance(document, dict) and document.get("type") == "FeatureCollection":
        document = document.get("features")
    if isinstance(document, dict):
        bare = document.get("type") in AREAS
        document = [{"type": "Feature", "geometry": document} if bare else document]
    if not isinstance(document, list):
        raise _invalid(uri, "expected a GeoJSON FeatureCollection, a list of features, or one feature.")
    for number, feature in enumerate(document):
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            found = feature.get("type") if isinstance(feature, dict) else type(feature).__name__
            raise _invalid(uri, f"feature {number} is {found!r}; expected 'Feature'.")
        properties = _properties(feature)
        if properties.get("objectType") not in NOT_ANNOTATIONS:
            name = properties.get("name")
            yield f"feature {number}" + (f" ({name})" if name else ""), feature


def _properties(feature: dict[str, Any]) -> dict[str, Any]:
    properties = feature.get("properties")
    return properties if isinstance(properties, dict) else {}


def _class_name(feature: dict[str, Any]) -> str:
    """QuPath's classification: ``{"name": ...}``, in newer files ``{"names": [...]}``."""
    found = _properties(feature).get("classification")
    if isinstance(found, dict):
        names = found.get("names")
        found = names[0] if isinstance(names, list) and names else found.get("name")
    return found if isinstance(found, str) else ""


def _geometry(uri: str, label: str, feature: dict[str, Any]) -> BaseGeometry:
    geometry = feature.get("geometry")
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in AREAS:
        raise _invalid(
            uri, f"{label} is a {kind}; expected Polygon or MultiPolygon. Remove it or draw an area."
        )
    try:
        shape = shapely.from_geojson(json.dumps(geometry))
    except (shapely.errors.GEOSException, ValueError, TypeError) as error:
        raise _invalid(uri, f"{label} cannot be read ({error}). Draw and export it again.") from error
    if not shape.is_valid:  # a hand-drawn outline that crosses itself
        parts = shapely.get_parts(shapely.make_valid(shape))
        shape = shapely.union_all([part for part in parts if part.geom_type in AREAS])
    if not (math.isfinite(shape.area) and shape.area > 0):
        raise _invalid(uri, f"{label} has area {shape.area}; expected more than 0 px². Draw it again.")
    return shape


def _check_extent(uri: str, area: BaseGeometry, height: int, width: int) -> None:
    if area.is_empty:
        raise _invalid(uri, "nothing is left after cutting out what is classified Ignore or exclude.")
    if not area.intersects(shapely.box(0, 0, width, height)):
        x0, y0, x1, y1 = area.bounds
        raise _invalid(
            uri,
            f"lies at y {y0:.0f} to {y1:.0f}, x {x0:.0f} to {x1:.0f}; the slide at y 0 to {height}, "
            f"x 0 to {width}. "
            "Coordinates must be level-0 pixels of this very slide (and scene), not micrometres.",
        )


def _read_label(uri: str, height: int, width: int, endpoint_url: str | None) -> TissueMask:
    store = Store(uri, endpoint_url=endpoint_url)
    try:
        group = zarr.open_group(store.zarr_store(), mode="r")
        attributes: dict[str, Any] = dict(group.attrs)
        ome: Any = attributes.get("ome", attributes)  # OME-Zarr 0.5, or 0.4 and earlier
        paths = [str(dataset["path"]) for dataset in ome["multiscales"][0]["datasets"]]
        arrays = [group[path] for path in paths]
    except (FileNotFoundError, KeyError, IndexError, TypeError, ValueError) as error:
        raise _invalid(
            uri, f"neither GeoJSON nor an OME-Zarr label ({error!r}). Name the label's own group."
        ) from error
    for array in arrays:
        if not isinstance(array, zarr.Array) or array.ndim < 2 or math.prod(array.shape[:-2]) != 1:
            raise _invalid(uri, f"level of shape {getattr(array, 'shape', None)}; expected one (y, x) plane.")
        label_height, label_width = array.shape[-2:]
        if label_height * label_width > MAX_LABEL_PIXELS:
            continue
        factor = max(round(height / label_height), 1)
        whole = (height // factor, width // factor)
        if not (0 <= label_height - whole[0] <= 1 and 0 <= label_width - whole[1] <= 1):
            raise _invalid(
                uri,
                f"{label_height} x {label_width} pixels; expected those of the slide ({height} x {width}) "
                "divided by a whole number. Is it a label of this slide?",
            )
        mask = np.asarray(array[(0,) * (array.ndim - 2)] if array.ndim > 2 else array[:])
        if not mask.any():
            raise _invalid(uri, "the label is empty; expected at least one pixel above 0.")
        return TissueMask((mask != 0).astype(np.uint8), factor)
    raise _invalid(uri, f"no level of at most {MAX_LABEL_PIXELS} pixels. Store the label as a pyramid.")
