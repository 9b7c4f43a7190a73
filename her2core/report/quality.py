"""Outliers of quality control: slides that differ from the others of their assay.

The score of a value is its distance from the median in units of the spread: 1.4826 times the median absolute
deviation, or, where more than half of the values are equal, 1.2533 times the mean absolute deviation from the
median (Iglewicz and Hoaglin, How to Detect and Handle Outliers, ASQC 1993).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from her2core.report.run_tables import Row

OUTLYING = 3.5
"""Score from which a value is an outlier (Iglewicz and Hoaglin 1993)."""
FEWEST = 8
"""Slides of an assay from which outliers are looked for. Ours."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A column of ``slides`` that quality is assessed by, and the name and unit it is shown with."""

    column: str
    words: str
    unit: str


MEASURES = (
    Measure("tissue_area_mm2", "tissue", "mm²"),
    Measure("sharp_fraction", "tiles in focus", ""),
    Measure("pen_fraction", "pen marks", ""),
    Measure("fold_fraction", "folds", ""),
    Measure("bubble_fraction", "bubbles", ""),
    Measure("saturated_fraction", "too dark", ""),
    Measure("background", "background", "grey level"),
    Measure("residual_p95_od", "stain unexplained", "OD"),
    Measure("hematoxylin_angle_deg", "hematoxylin hue", "°"),
    Measure("dab_angle_deg", "DAB hue", "°"),
)


def value_of(slide: Row, measure: Measure) -> float | None:
    """A slide's value; the background is the mean of its channels."""
    if measure.column == "background":
        return statistics.fmean(slide["i0"]) if slide["i0"] else None
    value = slide[measure.column]
    return None if value is None else float(value)


def quality_rows(slides: Sequence[Row]) -> list[Row]:
    """One row a slide and measure: ``slide_id``, ``assay``, ``measure``, ``value``, ``score``, ``outlier``.

    The score is null where an assay has fewer than `FEWEST` values, or all are equal.
    """
    found: list[Row] = []
    for assay in sorted({slide["assay"] for slide in slides}):
        of = [slide for slide in slides if slide["assay"] == assay]
        for measure in MEASURES:
            values = [(slide, value_of(slide, measure)) for slide in of]
            known = [(slide, value) for slide, value in values if value is not None]
            scores = robust_scores([value for _, value in known])
            for (slide, value), score in zip(known, scores, strict=True):
                found.append(
                    {
                        "slide_id": slide["slide_id"],
                        "assay": assay,
                        "measure": measure.words,
                        "unit": measure.unit,
                        "value": value,
                        "score": score,
                        "outlier": score is not None and abs(score) > OUTLYING,
                    }
                )
    return found


def robust_scores(values: Sequence[float]) -> list[float | None]:
    """Distance from the median in units of the spread."""
    if len(values) < FEWEST:
        return [None] * len(values)
    middle = statistics.median(values)
    away = [abs(value - middle) for value in values]
    spread = 1.4826 * statistics.median(away) or 1.2533 * statistics.fmean(away)
    if spread == 0:
        return [None] * len(values)
    return [(value - middle) / spread for value in values]
