"""Synthetic HER2 slides with planted truth: every cell, contour and stain is chosen, then drawn.

    spec = PhantomSpec(seed=1, height_px=2048, width_px=2048, mix=(0.2, 0.2, 0.0, 0.6, 0.0))
    rgb, truth = render_field(spec)              # uint8 (h, w, 3) and a TRUTH_DTYPE array, one row a nucleus
    tissue = plant(spec)                         # geometry alone: tissue.truth, tissue.contour(row)
    synth_cohort("folder")                       # slides, manifest.csv, truth.csv, truth_cells.parquet
    rgb = render_region(tissue, Box(y0, x0, y1, x1))    # any part, pixel for pixel as in the whole

`truth` columns: ``y_px0, x_px0`` (nucleus centre; 0 is the centre of the first pixel), ``kind`` (tumour,
lymphocyte, stroma), ``cell_class`` ("0", "1", "2u", "2", "3" by the table of spec §1.2; "" where
not tumour), ``nucleus_area_um2``, ``nucleus_od``, ``cell_area_um2``, ``nest``, ``completeness`` (arc-length
fraction of the whole contour that is planted with stain, from whichever side), ``membrane_od`` (mean over
that part), and as drawn: ``completeness_00`` ... ``_07`` (fraction of the contour at or above each OD of
`LADDER_OD`) and ``membrane_od_median`` (over the part at or above the detection cut-point).

Phantoms prove plumbing and arithmetic, not clinical validity.
"""

from her2core.phantom.cohort import synth_cohort
from her2core.phantom.ish import ISHSpec, PlantedISH, Population, plant_ish
from her2core.phantom.ish_render import render_ish
from her2core.phantom.render import render_field, render_region, stain_layers
from her2core.phantom.spec import CLASSES, PhantomSpec
from her2core.phantom.tissue import plant
from her2core.phantom.truth import LADDER_OD, TRUTH_DTYPE, Tissue, cell_class

__all__ = [
    "CLASSES",
    "LADDER_OD",
    "TRUTH_DTYPE",
    "ISHSpec",
    "PhantomSpec",
    "PlantedISH",
    "Population",
    "Tissue",
    "cell_class",
    "plant",
    "plant_ish",
    "render_field",
    "render_ish",
    "render_region",
    "stain_layers",
    "synth_cohort",
]
