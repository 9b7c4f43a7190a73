"""Annotations of HALO (``.annotations``) and ImageScope (``.xml``): layers of regions, in level-0 pixels.

::

    HALO        Annotations > Annotation Name > Regions > Region Type="Polygon" NegativeROA > Vertices > V X Y
    ImageScope  Annotations > Annotation Name > Regions > Region Type="0" NegativeROA > Vertices > Vertex X Y
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

import shapely
from shapely.affinity import scale
from shapely.geometry.base import BaseGeometry

from her2core.intake.roi.shapes import (
    Annotation,
    Drawn,
    NoAreaError,
    UnreadableError,
    invalid,
    polygon,
    whole,
)
from her2core.text import shown

POLYGON, RECTANGLE, ELLIPSE = "polygon", "rectangle", "ellipse"
KINDS = {"0": POLYGON, "1": RECTANGLE, "2": ELLIPSE, "polygon": POLYGON, "rectangle": RECTANGLE,
         "ellipse": ELLIPSE, "": POLYGON}  # fmt: skip
"""What bounds an area: ImageScope's numbers, HALO's names. Arrows, rulers and pins do not."""
HELP = "Export annotations as GeoJSON from QuPath, or as HALO or ImageScope XML."
MAX_DEPTH = 16
"""Deepest element; both programs need seven levels. Ours."""


class _Shallow(ET.TreeBuilder):
    """Builds a tree of few levels, and none with entities."""

    depth = 0

    def start(self, tag: str, attrs: dict[str, str]) -> ET.Element:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError("elements are nested too deep")
        return super().start(tag, attrs)

    def end(self, tag: str) -> ET.Element:
        self.depth -= 1
        return super().end(tag)

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise UnreadableError("it declares a document type, which neither program does")


def read_xml(uri: str, text: bytes) -> Drawn:
    """Areas of a HALO or ImageScope file.

    Raises
    ------
    SlideError
        ``ROI_INVALID`` if it is neither, or one region cannot be read.
    """
    try:
        root = ET.fromstring(text, ET.XMLParser(target=_Shallow()))
    except (ET.ParseError, UnreadableError, LookupError, ValueError) as error:
        raise invalid(uri, f"cannot be read as XML ({error}). {HELP}") from None
    layers = root.findall("Annotation")
    if root.tag != "Annotations" or not layers:
        raise invalid(uri, f"XML of {shown(root.tag)}, not the Annotations of HALO or ImageScope. {HELP}")
    drawn = Drawn(mpp=_number(root.get("MicronsPerPixel")))
    for layer in layers:
        name = (layer.get("Name") or "").strip()
        for number, region in enumerate(layer.findall("Regions/Region")):
            _read_region(uri, drawn, name, number, region)
    return drawn


def _read_region(uri: str, drawn: Drawn, layer: str, number: int, region: ET.Element) -> None:
    text = (region.get("Text") or "").strip()
    label = f"region {number}" + (f" of layer {shown(layer)}" if layer else "")
    kind = KINDS.get((region.get("Type") or "").strip().lower())
    if kind is None:
        drawn.pass_over(f"region of type {shown(region.get('Type'))}")
        return
    corners = region.findall("Vertices/V") or region.findall("Vertices/Vertex")
    try:
        points = [(float(corner.get("X", "")), float(corner.get("Y", ""))) for corner in corners]
    except ValueError:
        raise invalid(uri, f"{label}: a corner is not two numbers. {HELP}") from None
    try:
        area = whole([_area(drawn, kind, points)])
    except NoAreaError:
        drawn.pass_over("outline without area")
        return
    except UnreadableError as error:
        raise invalid(uri, f"{label} cannot be read: {error}. Draw and export it again.") from None
    negative = (region.get("NegativeROA") or "0").strip().lower() in ("1", "true")
    classes = tuple(word for word in (layer, text) if word)
    drawn.annotations.append(Annotation(label, classes, area, negative))


def _area(drawn: Drawn, kind: str, points: Sequence[tuple[float, float]]) -> BaseGeometry:
    """The area of a region; rectangles and ellipses may be given by two opposite corners."""
    if kind == POLYGON or (kind == RECTANGLE and len(points) > 2):
        return polygon(drawn, [points])
    if len(points) != 2:
        raise UnreadableError(f"an {kind} of {len(points)} corners; expected the two of its frame")
    (x0, y0), (x1, y1) = points
    frame = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    if kind == RECTANGLE:
        return polygon(drawn, [frame])
    polygon(drawn, [frame])  # counted, and checked
    circle = shapely.Point((x0 + x1) / 2, (y0 + y1) / 2).buffer(0.5, quad_segs=32)
    return scale(circle, abs(x1 - x0), abs(y1 - y0))


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
