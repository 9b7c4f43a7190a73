"""What QuPath calls the objects that it exports as GeoJSON."""

from __future__ import annotations

from typing import Final

DETECTION: Final = "detection"
CELL: Final = "cell"
ANNOTATION: Final = "annotation"
OLD_IDS: Final = {
    "PathDetectionObject": DETECTION,
    "PathCellObject": CELL,
    "PathAnnotationObject": ANNOTATION,
    "PathTileObject": "tile",
    "TMACoreObject": "tma_core",
    "PathRootObject": "root",
}
"""objectType of a feature by its id, as QuPath 0.2 writes it."""
