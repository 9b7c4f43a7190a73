"""Differences between scanners, laboratories, clones and dates that no biology explains.

Each is a Kruskal-Wallis test of a measure over the groups of a factor; p is adjusted over all tests of the
report after Benjamini and Hochberg. The effect is epsilon squared, H / (n - 1): the share of the ranks'
variance that lies between groups (Tomczak and Tomczak, Trends in Sport Sciences 1:19, 2014). Groups may
differ because their patients do; the test cannot separate the two.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from her2core.report.run_tables import Row

FEWEST = 5
"""Slides of a group that takes part in a test. Ours."""
MOST_GROUPS = 40
"""Groups of a factor; of one with more (as a name of its own for every slide) nothing is tested. Ours."""


@dataclass(frozen=True, slots=True)
class Factor:
    """What slides are grouped by."""

    key: str
    words: str
    group: Callable[[Row], str | None]


def _column(name: str) -> Callable[[Row], str | None]:
    return lambda slide: slide.get(name) or None


def _month(slide: Row) -> str | None:
    date = slide.get("collection_date")
    return date[:7] if date else None


FACTORS = (
    Factor("scanner", "scanner", _column("scanner")),
    Factor("laboratory", "laboratory", _column("laboratory")),
    Factor("antibody_clone", "antibody clone", _column("antibody_clone")),
    Factor("month", "month of collection", _month),
    Factor("fixative", "fixative", _column("fixative")),
    Factor("tumour_type", "tumour type", _column("tumour_type")),
    Factor("specimen_type", "biopsy or resection", _column("specimen_type")),
    Factor("site", "site", _column("site")),
)
MEASURES = {
    "membrane_od_mean": "membrane OD",
    "h_score": "H-score",
    "p_any_pct": "stained cells, %",
    "tissue_area_mm2": "tissue, mm²",
    "sharp_fraction": "tiles in focus",
    "residual_p95_od": "stain unexplained, OD",
    "dab_angle_deg": "DAB hue, °",
    "hematoxylin_angle_deg": "hematoxylin hue, °",
    "ish_ratio": "HER2/CEP17",
    "ish_her2_mean": "HER2 copies",
    "ish_cep17_mean": "CEP17 copies",
}
"""Columns of ``slides`` that may drift, and their names."""


def batch_tests(slides: Sequence[Row]) -> list[Row]:
    """One row a factor and measure with two groups of `FEWEST` slides: effect and p, strongest first."""
    tests: list[Row] = []
    for factor in FACTORS:
        for column, words in MEASURES.items():
            groups = [values for values in grouped(slides, factor, column).values() if len(values) >= FEWEST]
            if not 2 <= len(groups) <= MOST_GROUPS or len({value for group in groups for value in group}) < 2:
                continue
            from scipy.stats import kruskal  # half of what a report of few slides would import

            statistic, p = kruskal(*groups)
            n = sum(map(len, groups))
            tests.append(
                {
                    "factor": factor.words,
                    "measure": words,
                    "groups": len(groups),
                    "n": n,
                    "effect": float(statistic) / (n - 1),
                    "p": float(p),
                }
            )
    if tests:
        from scipy.stats import false_discovery_control

        for test, q in zip(tests, false_discovery_control([test["p"] for test in tests]), strict=True):
            test["q"] = float(q)
    return sorted(tests, key=lambda test: (-test["effect"], test["factor"], test["measure"]))


def grouped(slides: Sequence[Row], factor: Factor, column: str) -> Mapping[str, list[float]]:
    """Values of a measure by group."""
    found: dict[str, list[float]] = defaultdict(list)
    for slide in slides:
        group, value = factor.group(slide), slide.get(column)
        if group is not None and value is not None and math.isfinite(value):
            found[group].append(float(value))
    return dict(sorted(found.items()))
