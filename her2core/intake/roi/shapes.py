"""From corners as people's programs write them to areas."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from her2core.errors import Reason, SlideError

AREAS = ("Polygon", "MultiPolygon")
MAX_RINGS = 20_000
"""Most outlines and holes of one file. Ours; a pathologist draws dozens, a classifier may leave thousands."""
MAX_CORNERS = 2_000_000
"""Most corners of one file, 32 MB of numbers. Ours."""
MAX_CROSSINGS = 10_000
"""Most crossings of an outline with itself, by its length and extent; mending takes time by them. Ours."""
CORNERS = 3
"""Fewest of an area."""


class UnreadableError(ValueError):
    """Why something drawn cannot be read, in words."""


class NoAreaError(UnreadableError):
    """Why something drawn bounds no area, in words; a stray click does."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One area that was drawn.

    Attributes
    ----------
    label
        What messages call it.
    classes
        Its class and the classes derived from it; empty for one without a class.
    negative
        Whether the program that wrote it takes it as a hole.
    """

    label: str
    classes: tuple[str, ...]
    area: BaseGeometry
    negative: bool = False


@dataclass(slots=True)
class Drawn:
    """Everything of a file: its areas, what it holds besides, and how much of it was read."""

    annotations: list[Annotation] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    mpp: float | None = None
    rings: int = 0
    corners: int = 0

    def pass_over(self, kind: str) -> None:
        """Count something that bounds no area."""
        self.passed_over[kind] = self.passed_over.get(kind, 0) + 1


def invalid(uri: str, what: str) -> SlideError:
    """Why a region of interest cannot be used."""
    return SlideError(Reason.ROI_INVALID, f"region of interest {uri}: {what}")


def polygon(drawn: Drawn, rings: Any) -> BaseGeometry:
    """The area of an outline and its holes, each a sequence of (x, y); an open ring is closed.

    Raises
    ------
    NoAreaError
        If its outline bounds nothing; a hole that bounds nothing is none.
    UnreadableError
        If these are no corners.
    OverflowError
        If the file holds too many.
    """
    if not isinstance(rings, Sequence) or isinstance(rings, str):
        raise UnreadableError("its outlines are no list")
    if not rings:
        raise NoAreaError("it is empty")
    outline = _ring(drawn, rings[0])
    holes = []
    for ring in rings[1:]:
        with suppress(NoAreaError):
            holes.append(_ring(drawn, ring))
    shape = shapely.Polygon(outline, holes)
    if shape.is_valid:
        return shape
    cut_out = []
    for hole in holes:
        with suppress(NoAreaError):
            cut_out.append(_mended(hole))
    return shapely.difference(_mended(outline), shapely.union_all(cut_out))


def _mended(ring: NDArray[np.float64]) -> BaseGeometry:
    """All that a ring bounds, where it crosses itself."""
    shape = shapely.Polygon(ring)
    if shape.is_valid:
        return shape
    y_span, x_span = np.ptp(ring, axis=0)
    # Straight lines of total length L thrown into an area A cross each other L² / (π A) times.
    if shape.length**2 > MAX_CROSSINGS * np.pi * max(y_span * x_span, 1.0):
        raise UnreadableError("its outline crosses itself thousands of times")
    return whole([shape])


def _ring(drawn: Drawn, points: Any) -> NDArray[np.float64]:
    if not isinstance(points, Sequence) or isinstance(points, str):
        raise UnreadableError("its outline is no list of corners")
    drawn.rings += 1
    drawn.corners += len(points)
    if drawn.rings > MAX_RINGS or drawn.corners > MAX_CORNERS:
        raise OverflowError
    try:
        corners = np.array([(point[0], point[1]) for point in points], np.float64)
    except (TypeError, ValueError, IndexError, KeyError, OverflowError):
        raise UnreadableError("a corner is not two numbers") from None
    if corners.size and not np.isfinite(corners).all():
        raise UnreadableError("a corner is not finite")
    different = len(np.unique(corners, axis=0)) if corners.size else 0
    if different < CORNERS:
        raise NoAreaError(f"{different} different corners; an area has {CORNERS} or more")
    return corners  # shapely closes it


def whole(parts: Iterable[BaseGeometry]) -> BaseGeometry:
    """The union of areas, of which an outline may cross itself.

    Raises
    ------
    NoAreaError
        If nothing is bounded.
    """
    valid = []
    for part in parts:
        pieces = shapely.get_parts(part if part.is_valid else shapely.make_valid(part))
        valid += [piece for piece in pieces if piece.geom_type in AREAS]
    area = shapely.union_all(valid)
    if not (math.isfinite(area.area) and area.area > 0):
        raise NoAreaError("its area is 0 px²")
    return area
