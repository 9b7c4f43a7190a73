"""The columns of cells, nuclei and signals as kernels write them, scores read them and the lake stores them.

One truth for all three: a row's fields and their types, the steps of the completeness ladder, the names of
probes and seeds, and the flags that say what is doubtful. Units stand in `her2core.lake.schema`.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Final

import numpy as np

LADDER_STEPS: Final = 8
"""Cut-points of the completeness ladder, one column each."""

CELL_MEASURES: Final = (
    "nucleus_area_um2",
    "nucleus_od",
    "cytoplasm_od",
    "membrane_od_mean",
    "membrane_od_median",
    "membrane_od_p90",
    *(f"completeness_{step:02d}" for step in range(LADDER_STEPS)),
    "largest_gap_deg",
    "evaluable_fraction",
    "nucleus_elongation",
    "nucleus_contrast",
    "cell_area_um2",
    "nucleus_texture_od",
    "clear_rim_fraction",
    "clear_around_fraction",
    "fibre_alignment",
    "membrane_brownness",
    "bare_fraction",
)
"""What is measured of a cell, in the order of the kernel's rows."""

CELL_DTYPE: Final = np.dtype(
    [("y_px0", "f8"), ("x_px0", "f8")]
    + [(name, "f4") for name in CELL_MEASURES]
    + [("seed_source", "u1"), ("qc_flag", "u1")]
)
"""One cell of an IHC slide."""

SEED_SOURCES: Final = ("hematoxylin", "membrane", "given")
"""How a cell was found, by its ``seed_source`` code."""
SEED_POCKET: Final = SEED_SOURCES.index("membrane")
"""``seed_source`` of a cell found by its pocket, the basin that stained membranes enclose."""
SEED_GIVEN: Final = SEED_SOURCES.index("given")
"""``seed_source`` of a cell around a nucleus that another program outlined."""


class QcFlag(IntFlag):
    """What is doubtful about a cell's measurement."""

    UNEVALUABLE = 1  # fewer than half of its rays meet a boundary
    SATURATED = 2  # its membrane is darker than can be measured


PROBES: Final = ("HER2", "CEP17")
"""Names of the ``probe`` codes of signals."""

NUCLEUS_DTYPE: Final = np.dtype(
    [
        ("y_px0", "f8"),  # quantised to 1/16 px; pixel (0, 0) has its centre at 0
        ("x_px0", "f8"),
        ("nucleus_area_um2", "f4"),
        ("elongation", "f4"),
        ("solidity", "f4"),
        ("counterstain", "f4"),  # DAPI above background, grey levels; or hematoxylin OD
        ("sharpness", "f4"),
        ("overlap_fraction", "f4"),
        ("her2_spots", "u2"),
        ("cep17_spots", "u2"),
        ("her2_integrated", "f4"),
        ("cep17_integrated", "f4"),
        ("tumour_rule", "?"),
        ("flags", "u1"),
    ]
)
"""One nucleus of an ISH slide."""

SPOT_DTYPE: Final = np.dtype(
    [
        ("nucleus", "i4"),  # row among the nuclei
        ("probe", "u1"),  # index into `PROBES`
        ("y_px0", "f8"),
        ("x_px0", "f8"),
        ("diameter_um", "f4"),
        ("contrast", "f4"),
        ("integrated", "f4"),
    ]
)
"""One signal of an ISH slide."""


class NucleusFlag(IntFlag):
    """Why a nucleus is left out of a score by default."""

    OVERLAP = 1  # shares too much of its area with others
    TRUNCATED = 2  # cut by the edge of the slide
    BLURRED = 4  # its edge is out of focus, and so may be its signals
    SHAPE = 8  # not convex: two nuclei, or a torn one
    SIZE = 16  # too small or too large for one nucleus
    SATURATED = 32  # too bright or too dark to be measured
    UNRESOLVED = 64  # pixels too coarse for signals
