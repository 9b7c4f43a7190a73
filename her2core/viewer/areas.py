"""Outlines of areas over a slide: tissue, the region of interest, and what quality control excluded.

Tissue is the mask that the run kept. The region is drawn again from its file as long as that is the one
that was used. Excluded areas are found again from the pyramid (`her2core.profile.excluded`), and shown only
if they give the fractions that the run recorded.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from her2core.errors import Her2Error
from her2core.export.finished import FinishedRun, Row
from her2core.intake.roi import read_roi, roi_identity
from her2core.profile.excluded import Excluded, excluded_areas
from her2core.profile.tissue import TissueMask, read_tissue
from her2core.pyramid.reader import PyramidReader
from her2core.records import Box, PyramidRef, Quality

Polygon = list[list[list[float]]]
"""Rings of (x, y) in level-0 pixels from the slide's corner: the outline first, then its holes."""

MAX_POLYGONS = 4000
"""Most polygons of one kind, the largest first: mottled tissue has hundreds. Ours."""
NO_PROFILE = "the slide has no profile"
ANOTHER_FILE = "the file of the region is another one now, or cannot be read from here"
ANOTHER_VERSION = "the region cannot be drawn again: the run had the parameters of another version"
FRACTION_OFF, SHARP_OFF = 2e-3, 1e-3
"""Most by which a fraction of tissue, and the share of sharp squares, may differ from what the run recorded.
Ours."""
NO_MEASURE = "pen, folds, bubbles and focus are not measured in fluorescence"
NOT_AGAIN = "the excluded areas cannot be found again: the run had other parameters, or another version"


def areas_of(run: FinishedRun, slide: Row) -> dict[str, Any]:
    """Areas of a slide by kind: ``tissue``, ``roi``, ``pen``, ``folds``, ``bubbles``, ``blurred``; and
    ``notes`` of what cannot be shown."""
    outcome = run.record(slide).outcome
    ref, profile = outcome.pyramid, outcome.profile
    if ref is None or profile is None:
        return {"notes": [NO_PROFILE]}
    mask = read_tissue(run.store, ref, profile)
    found: dict[str, Any] = {"tissue": polygons_of_mask(mask.mask, mask.downsample)}
    notes = []
    if slide["roi_source"] and run.roi_params is None:
        notes.append(ANOTHER_VERSION)
    elif slide["roi_source"]:
        found["roi"] = _region(run, slide, ref)
        notes += [] if found["roi"] else [ANOTHER_FILE]
    params = run.profile_params
    again = params and excluded_areas(PyramidReader(run.store, ref), ref, profile, params)
    if again and _recorded(again, profile.quality, mask.mask, mask.downsample):
        found |= {
            kind: polygons_of_mask(getattr(again, kind), again.step) for kind in ("pen", "folds", "bubbles")
        }
        found["blurred"] = [_square(box) for box in again.blurred]
    else:
        notes.append(NO_MEASURE if params and again is None else NOT_AGAIN)
    return found | {"notes": notes}


def _recorded(again: Excluded, quality: Quality, tissue: npt.NDArray[np.uint8], step: int) -> bool:
    """Whether areas are those behind the recorded fractions (of tissue before any was taken out)."""
    scale = (step / again.step) ** 2
    left = float(np.count_nonzero(tissue)) * scale
    whole = left + float(np.count_nonzero(again.folds | again.bubbles | again.pen))
    close = all(
        recorded is not None and abs(np.count_nonzero(mask) / max(whole, 1.0) - recorded) < FRACTION_OFF
        for mask, recorded in (
            (again.pen, quality.pen_fraction),
            (again.folds, quality.fold_fraction),
            (again.bubbles, quality.bubble_fraction),
        )
    )
    sharp = 1 - len(again.blurred) / again.sampled if again.sampled else 0.0
    return close and quality.sharp_fraction is not None and abs(sharp - quality.sharp_fraction) < SHARP_OFF


def _region(run: FinishedRun, slide: Row, ref: PyramidRef) -> list[Polygon]:
    uri, where = slide["roi_source"], run.store.endpoint_url
    try:
        if roi_identity(uri, where) != slide["roi_digest"]:
            return []
        region = read_roi(uri, *ref.shapes[0], ref.mpp, run.roi_params, endpoint_url=where).region
    except (Her2Error, OSError):
        return []
    if isinstance(region, TissueMask):
        return polygons_of_mask(region.mask, region.downsample)
    return _polygons_of_shape(region.area)


def polygons_of_mask(mask: npt.NDArray[Any], step: int) -> list[Polygon]:
    """Outlines of a mask whose pixels are ``step`` level-0 pixels wide, along the pixels' edges; corners of
    holes are cut by half a pixel."""
    height, width = mask.shape
    fine = np.zeros((2 * height + 1, 2 * width + 1), np.uint8)  # odd places are pixels, even ones their edges
    fine[1::2, 1::2] = mask != 0
    fine = cv2.dilate(fine, np.ones((3, 3), np.uint8))
    rings, tree = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parents = [] if not rings else [int(of[3]) for of in tree[0]]
    outer = [i for i, parent in enumerate(parents) if parent < 0]
    outer.sort(key=lambda i: -cv2.contourArea(rings[i]))
    holes: dict[int, list[int]] = {}
    for i, parent in enumerate(parents):
        if parent >= 0:
            holes.setdefault(parent, []).append(i)
    half = step / 2
    return [[(rings[k][:, 0] * half).tolist() for k in (i, *holes.get(i, ()))] for i in outer[:MAX_POLYGONS]]


def _polygons_of_shape(area: Any) -> list[Polygon]:
    parts = [part for part in shapely.get_parts(area) if part.geom_type == "Polygon"]
    parts.sort(key=lambda part: -part.area)
    return [
        [shapely.get_coordinates(ring).round(1).tolist() for ring in (part.exterior, *part.interiors)]
        for part in parts[:MAX_POLYGONS]
    ]


def _square(box: Box) -> Polygon:
    corners = [(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)]
    return [[[float(x), float(y)] for x, y in corners]]
