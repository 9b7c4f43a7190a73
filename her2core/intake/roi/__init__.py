"""Regions of interest: what a pathologist drew, from QuPath, HALO or ImageScope, or an OME-Zarr label.

All answer one question, whether a point lies inside, point by point: the answer cannot depend on how the
slide was cut into chunks. Outside a region cells are measured but not scored.

geojson      annotations of QuPath
xml          annotations of HALO and ImageScope
shapes       rings of corners to areas
classes      which annotations count, which are cut out
label        masks
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from her2core.intake.roi.read import (
        DrawnTissue,
        PolygonRoi,
        ReadRoi,
        Roi,
        read_roi,
        read_tissue,
        roi_identity,
    )

__all__ = ["DrawnTissue", "PolygonRoi", "ReadRoi", "Roi", "read_roi", "read_tissue", "roi_identity"]


def __getattr__(name: str) -> Any:
    """Load a name at its first use: a run's driver names much that only its workers use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.read"), name)
