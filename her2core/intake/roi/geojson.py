"""Annotations as QuPath exports them.

References
----------
GeoJSON: RFC 7946. QuPath writes level-0 pixels, with (0, 0) at the corner of the first pixel; a class as
``{"name": "Tumor: Positive"}``, in newer files ``{"names": ["Tumor", "Positive"]}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from shapely.geometry.base import BaseGeometry

from her2core.intake.qupath import OLD_IDS
from her2core.intake.roi.shapes import (
    AREAS,
    Annotation,
    Drawn,
    NoAreaError,
    UnreadableError,
    invalid,
    polygon,
    whole,
)
from her2core.text import shown

NOT_ANNOTATIONS = ("detection", "cell", "tile", "tma_core", "root")
"""QuPath's objectType of what it measured or laid out itself."""
WITHOUT_AREA = "outline without area"
MAX_DEPTH = 8
"""Most collections inside each other. Ours."""
MAX_FEATURES = 200_000
"""Most features of one file. Ours."""


def read_geojson(uri: str, text: bytes) -> Drawn:
    """Areas of a FeatureCollection, a list of features, a single feature, or a bare geometry; nested or not.

    Raises
    ------
    SlideError
        ``ROI_INVALID`` if this is no GeoJSON, or one feature cannot be read.
    """
    try:
        document = json.loads(text)
    except RecursionError:
        raise invalid(uri, "brackets are nested too deep for a GeoJSON. Export annotations anew.") from None
    except ValueError as error:  # JSON, or its encoding
        raise invalid(uri, f"not JSON ({error}). Export annotations as GeoJSON from QuPath.") from None
    drawn = Drawn()
    for number, feature in enumerate(_features(uri, document)):
        properties = _properties(feature)
        kind = _measured(feature, properties)
        if kind:
            drawn.pass_over(kind)
            continue
        classes = class_names(properties)
        label = f"feature {number}" + (f" ({shown(classes[0])})" if classes else "")
        try:
            parts = list(_areas(drawn, feature.get("geometry")))
            if parts:
                drawn.annotations.append(Annotation(label, classes, whole(parts)))
        except NoAreaError:
            drawn.pass_over(WITHOUT_AREA)
        except UnreadableError as error:
            raise invalid(uri, f"{label} cannot be read: {error}. Draw and export it again.") from None
    return drawn


def _measured(feature: dict[str, Any], properties: dict[str, Any]) -> str | None:
    """Objects that QuPath made by itself and nobody drew; versions before 0.3 mark them by the id."""
    kind = properties.get("objectType")
    if isinstance(kind, str) and kind in NOT_ANNOTATIONS:
        return kind
    name = feature.get("id")
    kind = OLD_IDS.get(name) if isinstance(name, str) else None
    return kind if kind in NOT_ANNOTATIONS else None


def _features(uri: str, document: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Features in the order of the file, out of any collections in collections."""
    if depth > MAX_DEPTH:
        raise invalid(uri, f"more than {MAX_DEPTH} collections inside each other. Export annotations anew.")
    if isinstance(document, list):
        if len(document) > MAX_FEATURES:
            raise invalid(
                uri, f"{len(document)} features; at most {MAX_FEATURES} are read. Export annotations only."
            )
        for entry in document:
            yield from _features(uri, entry, depth + 1)
        return
    kind = document.get("type") if isinstance(document, dict) else type(document).__name__
    if kind == "Feature":
        yield document
    elif kind == "FeatureCollection":
        features = document.get("features")
        if not isinstance(features, list):
            raise invalid(uri, "a FeatureCollection without its list of features. Export annotations anew.")
        yield from _features(uri, features, depth + 1)
    elif isinstance(kind, str) and kind in GEOMETRIES:
        yield {"type": "Feature", "geometry": document}
    else:
        raise invalid(
            uri,
            f"found {shown(kind)}; expected a GeoJSON FeatureCollection, a list of features, or one feature.",
        )


GEOMETRIES = (*AREAS, "GeometryCollection", "Point", "MultiPoint", "LineString", "MultiLineString")
"""Kinds of RFC 7946."""


def _areas(drawn: Drawn, geometry: Any, depth: int = 0) -> Iterator[BaseGeometry]:
    """Areas of a geometry; points, lines and empty ones are passed over."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if geometry is None:
        drawn.pass_over("feature without geometry")
        return
    if kind not in GEOMETRIES:
        raise UnreadableError(f"its geometry is {shown(kind)}; expected Polygon or MultiPolygon")
    found = geometry.get("geometries" if kind == "GeometryCollection" else "coordinates")
    if not isinstance(found, list):
        raise UnreadableError(f"a {kind} without its coordinates")
    if kind == "GeometryCollection":
        if depth > MAX_DEPTH:
            raise UnreadableError(f"more than {MAX_DEPTH} collections inside each other")
        for part in found:
            yield from _areas(drawn, part, depth + 1)
    elif kind in AREAS:
        for rings in [found] if kind == "Polygon" else found:
            try:
                yield polygon(drawn, rings)
            except NoAreaError:
                drawn.pass_over(WITHOUT_AREA)
    else:
        drawn.pass_over(kind)


def _properties(feature: dict[str, Any]) -> dict[str, Any]:
    properties = feature.get("properties")
    return properties if isinstance(properties, dict) else {}


def class_names(properties: dict[str, Any]) -> tuple[str, ...]:
    """QuPath's class and the classes derived from it, as in ``Tumor: Ignore*``."""
    found = properties.get("classification")
    if isinstance(found, dict):
        names = found.get("names")
        found = names if isinstance(names, list) and names else found.get("name")
    given = found if isinstance(found, list) else [found]
    words = (word.strip() for name in given if isinstance(name, str) for word in name.split(":"))
    return tuple(word for word in words if word)
