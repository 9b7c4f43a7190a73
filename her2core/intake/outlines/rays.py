"""Outlines as radii around their centroids: every ray as far as its outermost crossing of the outline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from her2core.errors import Reason, SlideError
from her2core.kernels.polar import N_RAYS

F64 = NDArray[np.float64]

MAX_OUTLINES: Final = 1_000_000
"""Most outlines of one file. Ours; a large resection has half as many cells."""
_TURN: Final = 2.0 * np.pi * np.arange(N_RAYS)[:, None] / N_RAYS
COS: Final = np.cos(_TURN)
SIN: Final = np.sin(_TURN)


@dataclass(slots=True)
class Collected:
    """Outlines of a file as they come, in level-0 pixels with (0, 0) at the first pixel's corner.

    Attributes
    ----------
    y, x, radius, area
        Of each its centroid, its radii ``(36,)`` and its area.
    whole_cells
        How many were outlines of cells, drawn in towards their centres.
    passed_over
        What else the file holds, by kind.
    """

    y: list[float] = field(default_factory=list)
    x: list[float] = field(default_factory=list)
    radius: list[F64] = field(default_factory=list)
    area: list[float] = field(default_factory=list)
    whole_cells: int = 0
    passed_over: dict[str, int] = field(default_factory=dict)

    def add(self, y: float, x: float, radius: F64, area: float) -> None:
        """Keep one outline."""
        self.y.append(y)
        self.x.append(x)
        self.radius.append(radius)
        self.area.append(area)

    def pass_over(self, kind: str, count: int = 1) -> None:
        """Count what is no outline of a nucleus."""
        self.passed_over[kind] = self.passed_over.get(kind, 0) + count


def invalid(uri: str, what: str) -> SlideError:
    """Why outlines cannot be used."""
    return SlideError(Reason.CELLS_INVALID, f"outlines of cells {uri}: {what}")


def centroid_of(ring: F64) -> tuple[float, float, float]:
    """Centroid ``(y, x)`` and area of a ring of corners ``(k, 2)``, each (x, y); area 0 bounds nothing."""
    start = ring[0]
    x0, y0 = (ring - start).T  # small numbers: products keep their digits
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    cross = x0 * y1 - x1 * y0
    twice = float(cross.sum())
    if abs(twice) < 1e-9:
        return float(start[1]), float(start[0]), 0.0
    y, x = (float(((a + b) * cross).sum()) / (3.0 * twice) for a, b in ((y0, y1), (x0, x1)))
    return float(start[1]) + y, float(start[0]) + x, abs(twice) / 2.0


def radii_of_ring(ring: F64, y: float, x: float) -> F64:
    """Radii ``(36,)`` of a ring of corners (x, y) around a point; 0 where a ray meets none of it."""
    x0, y0 = ring[:, 0] - x, ring[:, 1] - y
    beside = COS * y0 - SIN * x0  # (ray, corner): left of the ray or right of it
    along = COS * x0 + SIN * y0
    beside_next, along_next = np.roll(beside, -1, axis=1), np.roll(along, -1, axis=1)
    crosses = (beside <= 0) != (beside_next <= 0)
    share = beside / np.where(crosses, beside - beside_next, 1.0)
    far = np.where(crosses, along + share * (along_next - along), 0.0)
    radius: F64 = np.maximum(far.max(axis=1), 0.0)
    return radius
