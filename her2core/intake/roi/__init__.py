"""Regions of interest: what a pathologist drew, from QuPath, HALO or ImageScope, or an OME-Zarr label.

All answer one question, whether a point lies inside, point by point: the answer cannot depend on how the
slide was cut into chunks. Outside a region cells are measured but not scored.

geojson      annotations of QuPath
xml          annotations of HALO and ImageScope
shapes       rings of corners to areas
classes      which annotations count, which are cut out
label        masks
"""

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
