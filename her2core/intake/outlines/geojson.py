"""Cells and detections as QuPath exports them.

A cell has an outline, ``geometry``, and its nucleus in ``nucleusGeometry`` beside it; a detection, as
StarDist and InstanSeg leave it, is a nucleus by itself. Where cells come without nuclei, the search for their
membranes begins at `SHRUNK` of the way from their centre to their outline.
"""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np

from her2core.intake.outlines.rays import F64, MAX_OUTLINES, Collected, centroid_of, invalid, radii_of_ring
from her2core.intake.qupath import ANNOTATION, CELL, DETECTION, OLD_IDS
from her2core.text import shown

SHRUNK: Final = 0.6
"""Of the radii of a cell without a nucleus, what its nucleus may have. Ours."""
MAX_CORNERS: Final = 100_000
"""Most corners of one outline. Ours; nuclei have dozens."""
MAX_PLACE: Final = 1e7
"""Farthest coordinate, level-0 pixels; no slide is so wide. Ours."""
REMEDY: Final = "Export cells or detections as GeoJSON from QuPath."


def read_geojson(uri: str, text: bytes) -> Collected:
    """Nuclei of a FeatureCollection, a list of features or a single one.

    Annotations count as nuclei where there is neither a cell nor a detection.

    Raises
    ------
    SlideError
        ``CELLS_INVALID`` if this is no GeoJSON, or one feature cannot be read.
    """
    try:
        document = json.loads(text)
    except RecursionError:
        raise invalid(uri, f"brackets are nested too deep for a GeoJSON. {REMEDY}") from None
    except ValueError as error:  # JSON, or its encoding
        raise invalid(uri, f"not JSON ({error}). {REMEDY}") from None
    found, drawn = Collected(), Collected()
    for number, feature in enumerate(_features(uri, document)):
        kind = _kind(feature)
        if kind not in (DETECTION, CELL, ANNOTATION):
            found.pass_over(kind)
            continue
        try:
            _add(found if kind != ANNOTATION else drawn, feature, whole_cell=kind == CELL)
        except ValueError as error:
            raise invalid(uri, f"feature {number} cannot be read: {error}. {REMEDY}") from None
    if not found.y and drawn.y:
        drawn.passed_over |= found.passed_over
        return drawn
    if drawn.y:
        found.pass_over(ANNOTATION, len(drawn.y))
    return found


def _features(uri: str, document: Any) -> list[Any]:
    if isinstance(document, dict):
        document = document.get("features") if document.get("type") == "FeatureCollection" else [document]
    if not isinstance(document, list) or not all(
        isinstance(feature, dict) and feature.get("type") == "Feature" for feature in document
    ):
        raise invalid(uri, f"expected a GeoJSON FeatureCollection or a list of features. {REMEDY}")
    if len(document) > MAX_OUTLINES:
        raise invalid(uri, f"{len(document)} features; at most {MAX_OUTLINES} are read. {REMEDY}")
    return document


def _kind(feature: dict[str, Any]) -> str:
    """What QuPath calls the object; one without a kind is taken as a nucleus."""
    properties, name = feature.get("properties"), feature.get("id")
    kind = properties.get("objectType") if isinstance(properties, dict) else None
    if isinstance(kind, str):
        return kind if len(kind) <= 20 and kind.isprintable() else "object of another kind"
    return OLD_IDS.get(name, DETECTION) if isinstance(name, str) else DETECTION


def _add(found: Collected, feature: dict[str, Any], *, whole_cell: bool) -> None:
    """Keep a feature's nucleus, or what its cell's outline implies.

    Raises
    ------
    ValueError
        If its corners are none.
    """
    nucleus = feature.get("nucleusGeometry")
    ring = _largest_ring(nucleus)
    shrunk = whole_cell and ring is None
    if ring is None:
        ring = _largest_ring(feature.get("geometry"))
    if ring is None:
        found.pass_over("feature without area")
        return
    y, x, area = centroid_of(ring)
    share = SHRUNK if shrunk else 1.0
    found.whole_cells += shrunk
    found.add(y, x, share * radii_of_ring(ring, y, x), share**2 * area)


def _largest_ring(geometry: Any) -> F64 | None:
    """Corners of a polygon, or of the largest of several; None of what bounds no area."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        return None
    found = geometry.get("coordinates")
    polygons = [found] if kind == "Polygon" else found
    if not isinstance(polygons, list) or not all(isinstance(rings, list) for rings in polygons):
        raise ValueError(f"a {kind} without its coordinates")
    rings = [_corners(polygon[0]) for polygon in polygons if polygon]
    areas = [centroid_of(ring)[2] if len(ring) >= 3 else 0.0 for ring in rings]
    best = int(np.argmax(areas)) if areas else -1
    return rings[best] if best >= 0 and areas[best] > 0 else None


def _corners(ring: Any) -> F64:
    if not isinstance(ring, list) or len(ring) > MAX_CORNERS:
        raise ValueError(f"its outline is no list of at most {MAX_CORNERS} corners")
    try:
        corners = np.array([(point[0], point[1]) for point in ring], np.float64).reshape(-1, 2)
    except (TypeError, ValueError, LookupError, OverflowError):
        raise ValueError("a corner is not two numbers") from None
    if not (np.abs(corners) < MAX_PLACE).all():  # neither is what is no number
        raise ValueError(f"a corner lies at {shown(str(corners.max()))}; expected level-0 pixels")
    return corners
