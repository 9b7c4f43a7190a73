"""Nuclei that another program outlined: QuPath's GeoJSON, or a label image as TIFF or OME-Zarr label.

However they were stored, each becomes a centre and 36 radii around it, as the kernel's own nuclei are; what
the kernel measures from there on is the same.

geojson      cells and detections of QuPath
label        label images of StarDist, InstanSeg, Cellpose as TIFF
omezarr      ... as labels of OME-Zarr images
plane        nuclei of a plane of numbers, tile by tile
rays         outlines to radii
read         which of them can be measured on
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from her2core.intake.outlines.read import check_outlines, outlines_identity, read_outlines

__all__ = ["check_outlines", "outlines_identity", "read_outlines"]


def __getattr__(name: str) -> Any:
    """Load a name at its first use: a run's driver names much that only its workers use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.read"), name)
