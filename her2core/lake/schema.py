"""Columns of the lake tables, in one place: name, type, unit and meaning of every one.

``docs/schema.md`` is `document`'s text, and a test holds it against the tables as they are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from her2core.columns import LADDER_STEPS
from her2core.heterogeneity.catalogue import CASE_METRICS, PATIENT_METRICS, SLIDE_METRICS, MetricSpec

TEXT, FLAG, WHOLE, REAL = pa.string(), pa.bool_(), pa.int64(), pa.float64()
SINGLE, TIME = pa.float32(), pa.timestamp("us", "UTC")
TEXTS = pa.list_(pa.field("element", pa.string()))
REALS = pa.list_(pa.field("element", pa.float64()))


@dataclass(frozen=True, slots=True)
class Column:
    """One column: ``unit`` is empty for names, flags and counts; ``required`` columns are never null."""

    name: str
    type: pa.DataType
    unit: str
    description: str
    required: bool = False

    @property
    def field(self) -> pa.Field:
        metadata = {"comment": self.description} | ({"unit": self.unit} if self.unit else {})
        return pa.field(self.name, self.type, nullable=not self.required, metadata=metadata)


@dataclass(frozen=True)
class Table:
    """One lake table. A run replaces rows by their ``replaces`` column; rows are sorted by ``key``.

    A wide table has columns of its ``metrics`` behind those that name a row.
    """

    name: str
    description: str
    replaces: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    metrics: tuple[MetricSpec, ...] = ()

    @cached_property
    def schema(self) -> pa.Schema:
        return pa.schema([column.field for column in self.columns])


def _id(name: str, description: str) -> Column:
    return Column(name, TEXT, "", description, required=True)


def _counts(of: str) -> tuple[Column, ...]:
    """Columns that slides and specimens share: what was counted, and what a rule set made of it."""
    return (
        Column("score", TEXT, "", "IHC score 0, 1+, 2+ or 3+; null if there is none."),
        Column("her2_class", TEXT, "", "Derived class: pos_IHC3, equivocal_2plus, low_1plus, ultralow, null, "
               "0_unresolved, negative (rule sets without low), indeterminate."),
        Column("consensus_score", TEXT, "", "Stratum of the international consensus of January 2026 for "
               "breast: 0 (absent), 0+ (with membrane staining), 1+, 2+, 3+, or 0_unresolved; null for other "
               "tumours."),
        Column("possible_scores", TEXTS, "", "Scores that the 95 % intervals, a guessed background, or "
               "other choices of tumour cells leave open, lowest first."),
        Column("borderline", FLAG, "", "More than one score is possible: a 95 % interval holds its "
               "cut-off, or the background or the choice of cells decides."),
        Column("limited", FLAG, "", "Enough cells for a score, but fewer than 100 (ScoreParams.full_cells)."),
        Column("uncalibrated", FLAG, "", "The OD cut-points come from no control of the stain batch."),
        Column("low_end_unreliable", FLAG, "", "Pixels too coarse for the thin membranes of 0 and 1+."),
        Column("unusual_pattern", FLAG, "", "The score rests on a pattern that guidelines omit."),
        Column("patterns", TEXTS, "", "Names of these patterns; see docs/scoring.md."),
        Column("null_excludes_pct", REAL, "%", "For class null: stained percentage that the number of cells "
               "excludes with 95 % confidence (0.5 from 598 cells, 1 from 299)."),
        Column("rules", TEXT, "", "Rule set that gave the score."),
        Column("rules_version", WHOLE, "", "Version of that rule set."),
        Column("n_scored", WHOLE, "", f"Evaluable tumour cells of the {of}: the denominator."),
        Column("n0", WHOLE, "", "Evaluable tumour cells of class 0."),
        Column("n1", WHOLE, "", "Evaluable tumour cells of class 1."),
        Column("n1_complete", WHOLE, "", "Those of n1 whose faint staining is complete."),
        Column("n2", WHOLE, "", "Evaluable tumour cells of class 2."),
        Column("n2u", WHOLE, "", "Evaluable tumour cells of class 2u (moderate to strong, incomplete)."),
        Column("n3", WHOLE, "", "Evaluable tumour cells of class 3."),
        *(
            Column(f"{name}{suffix}", REAL, "%", f"{what}{note}")
            for name, what in (
                ("p3", "Percentage of class 3"),
                ("p2", "Cumulative percentage of class 2, 2u and 3"),
                ("p_any", "Cumulative percentage of class 1, 2, 2u and 3"),
            )
            for suffix, note in (
                ("_pct", " among evaluable tumour cells."),
                ("_low_pct", ", lower end of its 95 % Wilson interval."),
                ("_high_pct", ", upper end of its 95 % Wilson interval."),
            )
        ),
        Column("intense_complete_pct", REAL, "%", "Percentage of cells with uniform, intense, complete "
               "membrane staining, as CAP's breast template asks for: p3_pct; null where class 3 means more "
               "(gastric)."),
        Column("cluster_any", WHOLE, "", "Cells in the largest connected group of class 1 or higher."),
        Column("cluster_2", WHOLE, "", "Cells in the largest connected group of class 2 or higher."),
        Column("cluster_3", WHOLE, "", "Cells in the largest connected group of class 3."),
        Column("contiguous_3", WHOLE, "", "As cluster_3, summed over slides."),
        Column("h_score", REAL, "", "1 x % weak + 2 x % moderate + 3 x % strong mean membrane OD, 0-300; "
               "ignores completeness."),
        Column("membrane_od_mean", REAL, "OD", "Mean over cells of the mean membrane OD."),
        Column("cytoplasm_od_mean", REAL, "OD", "Mean over cells of the cytoplasm OD."),
        Column("completeness_mean", REAL, "fraction", "Mean completeness at the detection cut-point."),
        Column("p_od_t", REALS, "OD", "Grid of t for p_od."),
        Column("p_od", REALS, "fraction", "P(t): fraction of cells with a mean membrane OD >= t."),
    )  # fmt: skip


def _ish(of: str) -> tuple[Column, ...]:
    """Columns that slides and specimens share: signals counted, and what a rule set made of them."""
    return (
        Column("ish_group", TEXT, "", "ISH group 1 to 5, or single_negative, single_equivocal, "
               "single_positive; null if there is none."),
        Column("ish_recount_group", TEXT, "", "Group of the independent reserve sample; null if too small."),
        Column("ish_possible_groups", TEXTS, "", "Groups that the 95 % intervals leave open."),
        Column("ish_borderline", FLAG, "", "An interval crosses ratio 2.0, or 4.0 or 6.0 copies."),
        Column("ish_rules", TEXT, "", "ISH rule set that gave the group, or read what was reported."),
        Column("ish_rules_version", WHOLE, "", "Version of that rule set."),
        Column("n_ish", WHOLE, "", f"Evaluable nuclei of the {of}'s first count: the denominator."),
        Column("n_ish_recount", WHOLE, "", "Nuclei of the reserve sample; 0 if there is no recount."),
        *(
            Column(f"ish_{name}{suffix}", REAL, unit, f"{what}{note}")
            for name, unit, what in (
                ("ratio", "", "HER2 signals over CEP17 signals (ratio of sums)"),
                ("her2_mean", "signals", "Mean HER2 signals a nucleus"),
                ("cep17_mean", "signals", "Mean CEP17 signals a nucleus"),
            )
            for suffix, note in (
                ("", "."),
                ("_low", ", lower end of its 95 % bootstrap interval."),
                ("_high", ", upper end of its 95 % bootstrap interval."),
            )
        ),
        Column("ish_recount_ratio", REAL, "", "Ratio of the reserve sample."),
        Column("ish_recount_her2_mean", REAL, "signals", "Mean HER2 signals of the reserve sample."),
    )  # fmt: skip


_CASE_CLASS = Column("her2_class", TEXT, "", "pos_IHC3, pos_IHC2_ISHpos, pos_ISH_only, equivocal, low_2plus, "
                     "low_1plus, ultralow, 0_unresolved, null, negative (rule sets without low), or "
                     "indeterminate; null where ISH stands alone.")  # fmt: skip

CELLS = Table(
    "cells",
    "One row a cell, sorted by its place in the slide. One file a slide.",
    "slide_id",
    ("slide_id", "cell_id"),
    (
        _id("slide_id", "Slide, from the manifest."),
        _id("case_id", "Case, from the manifest."),
        Column("cell_id", WHOLE, "", "Cell within its slide, made of its centroid in 1/16 level-0 px: "
               "y16 * 2^32 + x16, counted from the slide's corner.", True),
        Column("y_um", REAL, "µm", "Centroid below the centre of the first pixel: y_px0 x µm/px.", True),
        Column("x_um", REAL, "µm", "Centroid right of the centre of the first pixel: x_px0 x µm/px.", True),
        Column("y_px0", REAL, "level-0 px", "Centroid; whole numbers are pixel centres.", True),
        Column("x_px0", REAL, "level-0 px", "Centroid; whole numbers are pixel centres.", True),
        Column("nucleus_area_um2", SINGLE, "µm²", "Area of the nucleus."),
        Column("nucleus_elongation", SINGLE, "", "Long over short axis of the nucleus; 1 is a circle."),
        Column("nucleus_contrast", SINGLE, "OD", "Hematoxylin OD of the nucleus above its surroundings."),
        Column("cell_area_um2", SINGLE, "µm²", "Area inside the cell's contour."),
        Column("nucleus_texture_od", SINGLE, "OD", "Standard deviation of hematoxylin OD inside the nucleus: "
               "coarse or even chromatin."),
        Column("clear_rim_fraction", SINGLE, "fraction", "Part of the band 0.5 to 2 µm outside the nucleus "
               "without hematoxylin: gaps, where epithelium has cytoplasm."),
        Column("clear_around_fraction", SINGLE, "fraction", "The same 4 to 11 µm outside the nucleus."),
        Column("bare_fraction", SINGLE, "fraction", "Part of the band 0.5 to 5 µm outside the nucleus with "
               "neither hematoxylin nor DAB: the cell's body ends there."),
        Column("fibre_alignment", SINGLE, "", "How far a long nucleus lies along the fibres around it: 1 "
               "along, -1 across, 0 where either has no direction."),
        Column("nucleus_od", SINGLE, "OD", "Mean hematoxylin OD of the nucleus."),
        Column("cytoplasm_od", SINGLE, "OD", "DAB OD of the cytoplasm."),
        Column("membrane_od_mean", SINGLE, "OD", "Mean DAB OD of the whole contour."),
        Column("membrane_od_median", SINGLE, "OD", "Median DAB OD of the stained part of the contour: the "
               "intensity of the cell class."),
        Column("membrane_od_p90", SINGLE, "OD", "90th percentile of DAB OD along the contour."),
        Column("membrane_brownness", SINGLE, "", "How brown the stained part of the contour is above the "
               "cytoplasm: 1 as DAB, and without stain; 0 as grey (erythrocytes, debris, edges)."),
        *(
            Column(f"completeness_{i:02d}", SINGLE, "fraction", "Completeness: fraction of the contour "
                   f"stained at or above cut-point {i} of slides.ladder_od, counted from 0.")
            for i in range(LADDER_STEPS)
        ),
        Column("completeness", SINGLE, "fraction", "Completeness at slides.detect_od."),
        Column("largest_gap_deg", SINGLE, "degree", "Largest stretch of the contour below ihc.positive_od."),
        Column("evaluable_fraction", SINGLE, "fraction", "Part of the contour that could be judged."),
        Column("neighbour_strong_fraction", SINGLE, "fraction", "Of the cells within 18 µm, those with a "
               "strong contour, whose stain this cell may only borrow."),
        Column("seed_source", TEXT, "", "How the cell was found: hematoxylin (its nucleus stands out), "
               "membrane (the basin that stain encloses) or given (another program outlined it)."),
        Column("qc_flag", pa.int16(), "", "Sum of 1 (fewer than half of the contour evaluable) and 2 (too "
               "dark to measure); 0 is good."),
        Column("in_roi", FLAG, "", "Inside the region of interest; true everywhere without one.", True),
        Column("tumour_probability", SINGLE, "fraction", "Chance that it is a tumour cell by "
               "ihc_score.tumour_model, which sees of DAB only that a place is not bare.", True),
        Column("stained_nest", FLAG, "", "Of the cells within 25 µm, itself included, 70 % or more are of "
               "class 1 or higher.", True),
        Column("tumour_rule", FLAG, "", "Looks like a tumour cell: tumour_probability of 0.5 or more, or "
               "stained_nest.", True),
        Column("is_tumour", FLAG, "", "Counted as a tumour cell.", True),
        Column("tumour_mask", TEXT, "", "What decided is_tumour: model (tumour_rule) or roi (in_roi).", True),
        Column("cell_class", TEXT, "", "0, 1, 2, 2u or 3 by the run's rule set; null if the contour is not "
               "evaluable."),
    ),
)  # fmt: skip

_SIGNALS = pa.list_(
    pa.field(
        "element",
        pa.struct(
            [
                pa.field("probe", TEXT),
                pa.field("y_px0", REAL),
                pa.field("x_px0", REAL),
                pa.field("diameter_um", SINGLE),
                pa.field("contrast", SINGLE),
                pa.field("integrated", SINGLE),
                pa.field("copies", pa.int16()),
            ]
        ),
    )
)

NUCLEI = Table(
    "nuclei",
    "One row a nucleus of an ISH slide with its signals, sorted by its place in the slide. One file a slide.",
    "slide_id",
    ("slide_id", "nucleus_id"),
    (
        _id("slide_id", "Slide, from the manifest."),
        _id("case_id", "Case, from the manifest."),
        Column("nucleus_id", WHOLE, "", "Nucleus within its slide, made of its centroid in 1/16 level-0 px: "
               "y16 * 2^32 + x16, counted from the slide's corner.", True),
        Column("y_um", REAL, "µm", "Centroid below the centre of the first pixel: y_px0 x µm/px.", True),
        Column("x_um", REAL, "µm", "Centroid right of the centre of the first pixel: x_px0 x µm/px.", True),
        Column("y_px0", REAL, "level-0 px", "Centroid; whole numbers are pixel centres.", True),
        Column("x_px0", REAL, "level-0 px", "Centroid; whole numbers are pixel centres.", True),
        Column("nucleus_area_um2", SINGLE, "µm²", "Area of the nucleus."),
        Column("elongation", SINGLE, "", "Long over short axis; 1 is a circle."),
        Column("solidity", SINGLE, "fraction", "Area over the area of the convex hull."),
        Column("counterstain", SINGLE, "grey level or OD", "Mean DAPI above background, or mean hematoxylin "
               "OD."),
        Column("sharpness", SINGLE, "", "Steepness of the outline; see docs/ish.md."),
        Column("overlap_fraction", SINGLE, "fraction", "Part of the nucleus that another one covers."),
        Column("her2_spots", WHOLE, "", "HER2 signals that the filter accepts; a cluster counts once."),
        Column("cep17_spots", WHOLE, "", "CEP17 signals; a cluster counts once. Null for a single probe."),
        Column("her2_signals", WHOLE, "", "HER2 signals, clusters counted by their integrated density."),
        Column("cep17_signals", WHOLE, "", "CEP17 signals, likewise. Null for a single probe."),
        Column("her2_integrated", SINGLE, "grey level or OD x µm²", "Integrated density of HER2 signals."),
        Column("cep17_integrated", SINGLE, "grey level or OD x µm²", "Likewise for CEP17."),
        Column("flags", pa.int16(), "", "Sum of 1 (overlapped), 2 (cut by the slide's edge), 4 (blurred), "
               "8 (shape), 16 (size), 32 (saturated), 64 (unresolved); 0 is good."),
        Column("in_roi", FLAG, "", "Inside the region of interest; true everywhere without one.", True),
        Column("tumour_rule", FLAG, "", "Nucleus looks like a tumour cell's by the documented rule.", True),
        Column("is_tumour", FLAG, "", "Counted as a tumour cell's nucleus.", True),
        Column("tumour_mask", TEXT, "", "What decided is_tumour: rule, or roi (and rule).", True),
        Column("evaluable", FLAG, "", "Takes part in the counts: tumour, unflagged, with a signal of each "
               "probe.", True),
        Column("spots", _SIGNALS, "", "Its signals: probe, place, diameter (µm), contrast, integrated density"
               " and the copies it counts for; 0 where the filter rejects it (see docs/ish.md)."),
    ),
)  # fmt: skip

REGIONS = Table(
    "regions",
    "One row a hexagon that holds evaluable tumour cells (IHC) or evaluable nuclei (ISH), at every size of "
    "the sweep. One file a slide. Columns of the other assay are null.",
    "slide_id",
    ("slide_id", "region_id"),
    (
        _id("slide_id", "Slide, from the manifest."),
        _id("case_id", "Case, from the manifest."),
        Column("region_id", WHOLE, "", "Region within its slide, counted by size, q and r.", True),
        Column("scale_um", REAL, "µm", "Width of the hexagon from flat to flat side.", True),
        Column("q", WHOLE, "", "Axial coordinate to the right; see docs/heterogeneity.md.", True),
        Column("r", WHOLE, "", "Axial coordinate downwards.", True),
        Column("y_um", REAL, "µm", "Centre, below the centre of the first pixel.", True),
        Column("x_um", REAL, "µm", "Centre, right of the centre of the first pixel.", True),
        Column("n", WHOLE, "", "Evaluable tumour cells, or evaluable nuclei.", True),
        *(
            Column(f"n{kind}", WHOLE, "", f"Evaluable tumour cells of class {kind}.")
            for kind in ("0", "1", "2", "2u", "3")
        ),
        Column("membrane_od_mean", REAL, "OD", "Mean membrane OD of its cells."),
        Column("membrane_od_sd", REAL, "OD", "Standard deviation of the membrane OD of its cells."),
        *(
            Column(f"membrane_od_p{percent}", REAL, "OD", f"{percent} % quantile of the membrane OD of its "
                   "cells.")
            for percent in (10, 50, 90)
        ),
        Column("completeness_mean", REAL, "fraction", "Mean completeness at slides.detect_od."),
        Column("score", TEXT, "", "Score 0, 1+, 2+, 3+ by the slide's rule set; null with too few cells."),
        Column("her2", WHOLE, "signals", "HER2 signals of its nuclei."),
        Column("her2_squares", WHOLE, "signals²", "Sum of the squared HER2 signals of its nuclei."),
        Column("cep17", WHOLE, "signals", "CEP17 signals of its nuclei; null for a single probe."),
        Column("amplified", WHOLE, "", "Nuclei beyond the CAP 2009 cut-off of the assay."),
        Column("copies_mean", REAL, "signals", "Mean HER2 signals a nucleus."),
        Column("ratio", REAL, "", "HER2 over CEP17 signals (ratio of sums)."),
        Column("amplified_fraction", REAL, "fraction", "Amplified among evaluable nuclei."),
    ),
)  # fmt: skip

_MEASURED = (
    Column("value", REAL, "", "Value; null unless status is ok."),
    Column("low", REAL, "", "Lower end of its 95 % interval; null where none is given."),
    Column("high", REAL, "", "Upper end of its 95 % interval; null where none is given."),
)
_STATUS = Column(
    "status", TEXT, "", "ok, insufficient (too few for it) or degenerate (not defined for these).", True
)
_SPECIMEN = (
    _id("case_id", "Case, from the manifest."),
    Column("specimen_id", TEXT, "", "From the manifest; null if it names none."),
    Column("site", TEXT, "", "From the manifest; null if it names none."),
)
_PATIENT = _id("patient_id", "From the manifest; the case_id where it names no patient.")


def _side_by_side(metrics: tuple[MetricSpec, ...]) -> tuple[Column, ...]:
    """Columns of a wide table."""
    return tuple(
        column
        for metric in metrics
        for name in metric.columns.values()
        for column in (
            Column(name, REAL, metric.unit, metric.meaning),
            Column(f"{name}_low", REAL, metric.unit, "Lower end of its 95 % interval."),
            Column(f"{name}_high", REAL, metric.unit, "Upper end of its 95 % interval."),
            Column(f"{name}_status", TEXT, "", "Its status."),
            *((Column(f"{name}_label", TEXT, "", "Its label."),) if metric.labelled else ()),
        )
    )


def _units(what: str) -> tuple[Column, ...]:
    """Columns of a tidy table of comparisons."""
    return (
        Column("metric", TEXT, "", "Name of the metric.", True),
        *_MEASURED,
        Column("n", WHOLE, "", f"{what} with cells enough, which it rests on.", True),
        Column("n_cells", WHOLE, "", "Evaluable tumour cells, or nuclei, in these.", True),
        _STATUS,
        Column("units", TEXTS, "", "Their names.", True),
    )


HETEROGENEITY = Table(
    "heterogeneity",
    "One row a metric of a slide at one scale; docs/heterogeneity.md explains each one.",
    "slide_id",
    ("slide_id", "metric", "scale_um"),
    (
        _id("slide_id", "Slide, from the manifest."),
        _id("case_id", "Case, from the manifest."),
        Column("metric", TEXT, "", "Name of the metric.", True),
        Column("scale_um", REAL, "µm", "Size of the regions, or reach; null for what knows no place."),
        *_MEASURED,
        Column("n", WHOLE, "", "Cells, nuclei or regions that it rests on.", True),
        _STATUS,
        Column("label", TEXT, "", "Word that goes with the number: a pattern's name, unimodal, range>max."),
    ),
)

HETEROGENEITY_WIDE = Table(
    "heterogeneity_wide",
    "One row a measured slide, its metrics side by side. Metrics of the other assay are null.",
    "slide_id",
    ("slide_id",),
    (
        _id("slide_id", "Slide, from the manifest."),
        _id("case_id", "Case, from the manifest."),
        *_side_by_side(SLIDE_METRICS),
    ),
    SLIDE_METRICS,
)

CASE_HETEROGENEITY = Table(
    "case_heterogeneity",
    "One row a metric of a specimen: how its slides, and its blocks, differ; see docs/heterogeneity.md.",
    "case_id",
    ("case_id", "specimen_id", "site", "metric"),
    (*_SPECIMEN, *_units("Slides or blocks")),
)

CASE_HETEROGENEITY_WIDE = Table(
    "case_heterogeneity_wide",
    "One row a specimen, its metrics side by side. Metrics of an assay that it has no slide of are null.",
    "case_id",
    ("case_id", "specimen_id", "site"),
    (*_SPECIMEN, *_side_by_side(CASE_METRICS)),
    CASE_METRICS,
)

PATIENT_HETEROGENEITY = Table(
    "patient_heterogeneity",
    "One row a metric of a patient: how the lesions differ, and what changes from primary to metastasis.",
    "patient_id",
    ("patient_id", "metric"),
    (_PATIENT, *_units("Lesions")),
)

PATIENT_HETEROGENEITY_WIDE = Table(
    "patient_heterogeneity_wide",
    "One row a patient, its metrics side by side. Metrics of an assay that there is no slide of are null.",
    "patient_id",
    ("patient_id",),
    (_PATIENT, *_side_by_side(PATIENT_METRICS)),
    PATIENT_METRICS,
)

SLIDES = Table(
    "slides",
    "One row a slide of a manifest, whatever became of it.",
    "slide_id",
    ("slide_id",),
    (
        _id("slide_id", "Slide, from the manifest."),
        _id("case_id", "Case, from the manifest."),
        Column("patient_id", TEXT, "", "From the manifest."),
        Column("specimen_id", TEXT, "", "From the manifest."),
        Column("block_id", TEXT, "", "From the manifest."),
        Column("site", TEXT, "", "From the manifest: primary, metastasis, ..."),
        Column("collection_date", TEXT, "", "From the manifest."),
        Column("scanner", TEXT, "", "From the manifest."),
        Column("laboratory", TEXT, "", "From the manifest: who stained the slide."),
        Column("tumour_type", TEXT, "", "From the manifest: breast or gastric."),
        Column("specimen_type", TEXT, "", "From the manifest: biopsy or resection."),
        Column("cold_ischaemia_min", REAL, "min", "From the manifest: from removal to fixation."),
        Column("fixative", TEXT, "", "From the manifest."),
        Column("fixation_h", REAL, "h", "From the manifest: time in fixative."),
        Column("antibody_clone", TEXT, "", "From the manifest."),
        Column("section_age_days", REAL, "day", "From the manifest: from cutting to staining."),
        Column("block_date", TEXT, "", "From the manifest: when the block was made."),
        Column("preanalytic", TEXTS, "", "What of this lies outside the recommended range, in words."),
        Column("assay", TEXT, "", "HER2-IHC, HER2-DISH or HER2-FISH.", True),
        Column("uri", TEXT, "", "Where the slide was read.", True),
        Column("channels", TEXT, "", "Which channel is which, from the manifest."),
        Column("background", REALS, "grey level", "R, G, B through empty glass, from the manifest."),
        Column("reader_score", TEXT, "", "What a human reader wrote in the manifest; never overwritten."),
        Column("reader_consensus", TEXT, "", "The same as a stratum of the consensus (consensus_score); "
               "0_unspecified for a 0 of which nobody recorded whether it was 0 or 0+."),
        Column("state", TEXT, "", "scored, indeterminate, failed, quarantined or skipped.", True),
        Column("reasons", TEXTS, "", "Reason codes: why there is no score, or what to know of it."),
        Column("message", TEXT, "", "The error in words, if there was one."),
        *_counts("slide"),
        Column("n_cells", WHOLE, "", "All cells found in tissue."),
        Column("n_tumour", WHOLE, "", "Tumour cells among them."),
        Column("n_unevaluable", WHOLE, "", "Tumour cells whose contour could not be judged."),
        Column("stained_without_cells_mm2", REAL, "mm²", "Stained tissue in which no cells were found."),
        Column("tumour_mask", TEXT, "", "Where the tumour flag of the cells comes from: roi, model (IHC) or "
               "rule (ISH)."),
        Column("roi_source", TEXT, "", "Region of interest: where it was read; null without one."),
        Column("roi_digest", TEXT, "", "Identity of that file: equal means the same region."),
        Column("roi_classes", TEXTS, "", "Classes of the annotations that count; see docs/cohort.md."),
        Column("roi_excluded", TEXTS, "", "Classes of those that were cut out."),
        Column("roi_area_mm2", REAL, "mm²", "Area of the region on the slide."),
        Column("roi_notes", TEXTS, "", "What of the file was not used, and why it may not be of this slide."),
        Column("cells_source", TEXT, "", "Another program's outlines that the cells were measured on: where "
               "they were read; null where nuclei were found here."),
        Column("cells_digest", TEXT, "", "Identity of that file: equal means the same outlines."),
        Column("cells_given", WHOLE, "", "How many of its outlines could be measured on; those in tissue are "
               "cells."),
        Column("cells_notes", TEXTS, "", "Which were not used, and why they may not be of this slide."),
        *(
            Column(f"membrane_od_p{q:02d}", REAL, "OD", f"{q} % of cells have at most this mean membrane OD.")
            for q in (5, 10, 25, 50, 75, 90, 95)
        ),
        Column("completeness_median", REAL, "fraction", "Median completeness at the detection cut-point."),
        *_ish("slide"),
        Column("n_nuclei", WHOLE, "", "All nuclei found on an ISH slide."),
        Column("n_nuclei_tumour", WHOLE, "", "Tumour nuclei among them."),
        Column("n_nuclei_evaluable", WHOLE, "", "Nuclei that can be counted, the reserve sample included."),
        Column("n_nuclei_flagged", WHOLE, "", "Tumour nuclei left out for a flag."),
        Column("n_nuclei_unscorable", WHOLE, "", "Well-shaped tumour nuclei without countable signals."),
        Column("n_areas", WHOLE, "", "Squares of ish_score.area_um with enough evaluable nuclei."),
        Column("her2_spots_mean", REAL, "signals", "As ish_her2_mean, over all evaluable nuclei, a cluster "
               "counted once."),
        Column("cep17_spots_mean", REAL, "signals", "Likewise for CEP17."),
        Column("gh_category", TEXT, "", "Genetic heterogeneity (CAP 2009) by ratio, or by copies for a "
               "single probe: underpowered (fewer than 200 nuclei), none, heterogeneous, amplified."),
        *(
            Column(f"gh_{arm}_{name}", kind, unit, f"{what} {cut}{note}")
            for arm, cut in (("ratio", "ratio above 2.2"), ("copies", "more than 6 HER2 signals"))
            for name, kind, unit, what, note in (
                ("fraction", REAL, "fraction", "Nuclei with", "."),
                ("expected", REAL, "fraction", "Share with", " that truncation alone explains; see "
                 "docs/scoring.md."),
                ("beyond_null", FLAG, "", "The lower end of the interval of the share with",
                 " exceeds that."),
                ("category", TEXT, "", "Category of the share with", "."),
            )
        ),
        Column("copies_cv", REAL, "", "Coefficient of variation of HER2 signals a nucleus."),
        Column("copies_means", REALS, "signals", "Two-component mixture of HER2 signals: its means."),
        Column("copies_sds", REALS, "signals", "Their standard deviations."),
        Column("copies_weights", REALS, "fraction", "Their shares of the nuclei."),
        Column("copies_delta_bic", REAL, "", "BIC of one population less that of two; 10 favours two."),
        Column("copies_ashman_d", REAL, "", "Ashman's D of the two; above 2 they are apart."),
        Column("copies_separated", FLAG, "", "Two populations by all of BIC, Ashman's D and weight."),
        Column("population_group", TEXT, "", "ISH group of a contiguous amplified population of more than "
               "10 %; null without one."),
        Column("population_fraction", REAL, "fraction", "Its share of the evaluable nuclei."),
        Column("population_ratio", REAL, "", "Its ratio."),
        Column("population_her2_mean", REAL, "signals", "Its mean HER2 signals a nucleus."),
        Column("population_rest_group", TEXT, "", "ISH group of the other nuclei."),
        Column("probes", TEXTS, "", "ISH: what marks what, as HER2=0 (a channel of the file) or HER2=black."),
        Column("external_ish_ratio", REAL, "", "ISH ratio that the manifest brings; never overwritten."),
        Column("external_ish_her2", REAL, "signals", "Mean HER2 signals that it brings."),
        Column("external_ish_cep17", REAL, "signals", "Mean CEP17 signals that it brings."),
        Column("external_ish_status", TEXT, "", "ISH status that it brings."),
        Column("external_ish_group", TEXT, "", "ISH group that it brings."),
        Column("external_ish_recount_group", TEXT, "", "Group of a laboratory's recount that it brings."),
        Column("external_ish_source", TEXT, "", "Where that comes from."),
        Column("ladder_od", REALS, "OD", "Cut-points of the columns completeness_00 and following."),
        Column("detect_od", REAL, "OD", "Detection cut-point: the ladder's step that scores are made from."),
        Column("qc_verdict", TEXT, "", "pass, warn or fail."),
        Column("tissue_area_mm2", REAL, "mm²", "Tissue found."),
        Column("sharp_fraction", REAL, "fraction", "Sampled tissue tiles in focus."),
        Column("pen_fraction", REAL, "fraction", "Tissue under pen marks."),
        Column("fold_fraction", REAL, "fraction", "Tissue in folds."),
        Column("bubble_fraction", REAL, "fraction", "Tissue under air bubbles."),
        Column("saturated_fraction", REAL, "fraction", "Tissue pixels too dark to measure."),
        Column("residual_p95_od", REAL, "OD", "95th percentile of what the two stains do not explain."),
        Column("i0", REALS, "grey level", "Background intensity of R, G, B."),
        Column("i0_source", TEXT, "", "Where the background is from: glass, white, stated, or bright_end "
               "(guessed)."),
        Column("stain_source", TEXT, "", "Stain vectors: estimated, partly or reference."),
        Column("stain_fallback", TEXT, "", "Why a reference vector was used, or why the slide's own may be "
               "more than 3 degrees off."),
        Column("hematoxylin_angle_deg", REAL, "degree", "Angle of the hematoxylin vector to the reference."),
        Column("dab_angle_deg", REAL, "degree", "Angle of the DAB vector to the reference."),
        Column("identity", TEXT, "", "Size and digest (or ETag) of the file that was scored."),
        Column("format", TEXT, "", "File format as read."),
        Column("reader", TEXT, "", "Reader that decoded it."),
        Column("scene", TEXT, "", "Number of the scene, of a file with several."),
        Column("mpp", REAL, "µm/px", "Pixel size of level 0."),
        Column("mpp_source", TEXT, "", "Where the pixel size comes from: manifest, or the metadata field."),
        Column("height_px0", WHOLE, "level-0 px", "Height of level 0."),
        Column("width_px0", WHOLE, "level-0 px", "Width of level 0."),
        Column("source_bytes", WHOLE, "byte", "Size of the source file."),
        Column("pyramid", TEXT, "", "OME-Zarr group, relative to the output root."),
        Column("pyramid_bytes", WHOLE, "byte", "Size of the pyramid."),
        Column("codec", TEXT, "", "Named codec of the pyramid."),
        Column("picture", TEXT, "", "Overlay picture, relative to the output root."),
        Column("regions_picture", TEXT, "", "Maps of the regions, relative to the output root."),
        Column("fields_picture", TEXT, "", "Fields at full resolution (IHC), relative to the output root. "
               "Outlines lie beside it as GeoJSON."),
        Column("contours", TEXT, "", "Folder of the outlines of all cells (Parquet), relative to the output "
               "root; null unless outlines.keep is all."),
        Column("score_key", TEXT, "", "Content key of the result: names inputs, parameters and versions."),
    ),
)  # fmt: skip

CASES = Table(
    "cases",
    "One row a specimen of a case: specimens, and primary and metastasis, are never merged.",
    "case_id",
    ("case_id", "specimen_id", "site"),
    (
        _SPECIMEN[0],
        Column("patient_id", TEXT, "", "From the manifest."),
        *_SPECIMEN[1:],
        Column("collection_date", TEXT, "", "From the manifest; null if its slides name none, or several."),
        Column("her2_status", TEXT, "", "Positive, Equivocal, Negative or Indeterminate, from IHC and ISH "
               "together.", True),
        *(c if c.name != "her2_class" else _CASE_CLASS for c in _counts("specimen, pooled over its slides")),
        Column("ihc_class", TEXT, "", "Class by IHC alone, as slides.her2_class."),
        Column("flags", TEXTS, "", "discordant_ihc3_ish_negative, discordant_ihc_low_ish_positive, "
               "ish_without_ihc, ish_open, hidden_by_pooling, strong_below_floor, external_ish_undecided, "
               "external_ish_rounded, ish_conflict, second_population, review (a person should look); see "
               "docs/cases.md."),
        Column("pending", TEXT, "", "What the ISH result waits for: PENDING_IHC, PENDING_RECOUNT, "
               "PENDING_DUAL_PROBE or ADJUDICATE; null if for nothing."),
        Column("conflicts", TEXTS, "", "Statements that contradict each other, in words."),
        Column("reasons", TEXTS, "", "Reason codes: why there is no score, or what to know of it."),
        Column("case_rules", TEXT, "", "Table that joined IHC and ISH."),
        Column("case_rules_version", WHOLE, "", "Version of that table."),
        Column("ish_arm_source", TEXT, "", "Whose ISH result counts: measured, or external:<source>; null if "
               "there is none."),
        Column("ish_result", TEXT, "", "What the measured group means beside the IHC: Positive, Negative, or "
               "what it waits for."),
        Column("ish_comment", TEXT, "", "Comment that belongs to the ISH result that counts."),
        *_ish("specimen, pooled over its slides"),
        Column("ish_populations", TEXTS, "", "Contiguous amplified populations of single slides, with the "
               "group of the rest; pooling may hide them."),
        Column("gh_category", TEXT, "", "Genetic heterogeneity (CAP 2009) of the pooled nuclei; see slides."),
        Column("gh_ratio_fraction", REAL, "fraction", "Pooled nuclei with ratio above 2.2."),
        Column("gh_copies_fraction", REAL, "fraction", "Pooled nuclei with more than 6 HER2 signals."),
        Column("external_ish", TEXTS, "", "ISH reported elsewhere, as source: result (status, ratio, HER2, "
               "CEP17); never overwritten."),
        Column("incomplete", FLAG, "", "A slide of the specimen does not speak in this score.", True),
        Column("slides", TEXTS, "", "All slides of the specimen in the manifest."),
        Column("slides_pooled", TEXTS, "", "IHC slides whose cells were pooled."),
        Column("slides_ish", TEXTS, "", "ISH slides whose nuclei were pooled."),
        Column("slides_indeterminate", TEXTS, "", "Slides measured without a score of their own."),
        Column("slides_failed", TEXTS, "", "Slides that ended in an error; never read as negative."),
        Column("slides_skipped", TEXTS, "", "Slides that the manifest excludes; never read as negative."),
        Column("n_slides", WHOLE, "", "Slides of the specimen in the manifest.", True),
        Column("n_blocks", WHOLE, "", "Blocks that the manifest names for it.", True),
        Column("slide_max", TEXT, "", "Highest IHC score of a single slide (the view specimen_max)."),
        Column("discordance", WHOLE, "score steps", "Highest less lowest slide score, if there are two."),
        Column("block_discordance", WHOLE, "score steps", "Highest less lowest IHC score of its blocks, each "
               "pooled over its slides, if there are two."),
        Column("reader_scores", TEXTS, "", "Human reader scores of the slides, as slide_id=score."),
    ),
)  # fmt: skip


def _view(name: str, what: str) -> tuple[Column, ...]:
    """Columns of one specimen that stands for others."""
    return (
        Column(f"{name}_specimen", TEXT, "", f"{what}: its name."),
        Column(f"{name}_date", TEXT, "", f"{what}: its collection date."),
        Column(f"{name}_status", TEXT, "", f"{what}: its her2_status."),
        Column(f"{name}_class", TEXT, "", f"{what}: its her2_class."),
    )


PATIENTS = Table(
    "patients",
    "One row a patient: its specimens side by side, never merged.",
    "patient_id",
    ("patient_id",),
    (
        _PATIENT,
        Column("specimens", TEXTS, "", "Specimens, as case/specimen/site.", True),
        Column("statuses", TEXTS, "", "Their her2_status, in this order.", True),
        Column("classes", TEXTS, "", "Their her2_class, in this order.", True),
        Column("lesions", TEXTS, "", "Sites that the manifest names.", True),
        Column("n_blocks", WHOLE, "", "Blocks that the manifest names.", True),
        Column("n_slides", WHOLE, "", "Slides in the manifest.", True),
        *_view("index", "Last specimen by collection date (no therapy dates are known)"),
        Column("index_basis", TEXT, "", "only_specimen or latest_date; date_missing or date_tied where the "
               "dates name no last specimen.", True),
        Column("ever_low_or_higher", FLAG, "", "Any specimen low or positive (2+ is, whatever ISH says); "
               "null if unknown, or where low is not defined."),
        *_view("primary", "Primary specimen, of several the highest"),
        *_view("metastasis", "Specimen of a distant metastasis, of several the highest"),
        Column("primary_metastasis", TEXT, "", "concordant or discordant by tier (zero, low, positive); null "
               "if it cannot be told."),
        Column("primary_metastasis_change", TEXT, "", "From which tier to which, primary first."),
        Column("block_discordance", WHOLE, "score steps", "Largest of the specimens'."),
        Column("incomplete", FLAG, "", "A specimen is Indeterminate, or has a slide that does not speak.",
               True),
        Column("conflicts", TEXTS, "", "Those of the specimens, with their names.", True),
    ),
)  # fmt: skip

COMMITTED: dict[str, Table] = {
    table.name: table
    for table in (
        CELLS,
        NUCLEI,
        REGIONS,
        HETEROGENEITY,
        HETEROGENEITY_WIDE,
        SLIDES,
        CASES,
        CASE_HETEROGENEITY,
        CASE_HETEROGENEITY_WIDE,
        PATIENTS,
        PATIENT_HETEROGENEITY,
        PATIENT_HETEROGENEITY_WIDE,
    )
}
"""Tables that a run commits before the row that names their versions."""

RUNS = Table(
    "runs",
    "One row a run, written as it begins and last: who goes by the table versions it names never sees half a "
    "run.",
    "run_id",
    ("run_id",),
    (
        _id("run_id", "Run."),
        Column("started_at", TIME, "UTC", "Start of the run.", True),
        Column("finished_at", TIME, "UTC", "Last commit of this row.", True),
        Column("state", TEXT, "", "complete (every slide scored or excluded), partial, running (its versions "
               "are those before it began) or interrupted.", True),
        Column("cohort", TEXT, "", "Which cohort: run.cohort, or a digest of the manifest's address."),
        Column("manifest_uri", TEXT, "", "Manifest that was run.", True),
        Column("manifest_sha256", TEXT, "", "SHA-256 of its bytes.", True),
        Column("n_slides", WHOLE, "", "Slides in the manifest.", True),
        Column("n_scored", WHOLE, "", "Slides with a score.", True),
        Column("n_indeterminate", WHOLE, "", "Slides measured without a score.", True),
        Column("n_failed", WHOLE, "", "Slides ended by an error that a retry may cure.", True),
        Column("n_quarantined", WHOLE, "", "Slides that are themselves the cause of their error.", True),
        Column("n_skipped", WHOLE, "", "Slides that the manifest excludes.", True),
        Column("n_cells", WHOLE, "", "Cells in the slides of this run.", True),
        Column("n_nuclei", WHOLE, "", "Nuclei in the ISH slides of this run.", True),
        *(
            Column(f"{name}_version", WHOLE, "", f"Delta version of {name} that holds this run.")
            for name in COMMITTED
        ),
        Column("configuration", TEXT, "", "Resolved configuration, JSON.", True),
        Column("versions", TEXT, "", "Versions of this package, Python and the libraries, JSON.", True),
        Column("inputs", TEXT, "", "Slides with URI, identity (size and digest of the file) and result key, "
               "JSON; `roi_uri` and `cells_uri` with the identities of these files as `roi` and `cells`, "
               "null where the slide was not scored.", True),
        Column("columns_added", TEXTS, "", "Columns that tables of an older version lacked as the run began, "
               "as table.column; null in older rows, unless the run wrote these again."),
    ),
)  # fmt: skip

TABLES: dict[str, Table] = COMMITTED | {RUNS.name: RUNS}


_PREFACE = """# Lake tables

Delta tables under `tables/` of the output. `python -m her2core.lake.schema > docs/schema.md` makes this page;
a test compares it with the tables as they are written. Optical density (OD) is base 10 against the slide's
own background. How cells become classes and scores: [scoring.md](scoring.md). Research use only.

```python
import polars as pl

slides = pl.read_delta("OUT/tables/slides")
cells = pl.scan_delta("OUT/tables/cells").filter(pl.col("slide_id") == "s1").collect()

run = pl.read_delta("OUT/tables/runs").sort("finished_at").row(-1, named=True)
as_of_run = pl.read_delta("OUT/tables/slides", version=run["slides_version"])
```

```python
from urllib.parse import unquote

import duckdb
from deltalake import DeltaTable  # DuckDB's own delta_scan downloads an extension

cells = duckdb.read_parquet([unquote(uri) for uri in DeltaTable("OUT/tables/cells").file_uris()])
duckdb.sql("SELECT slide_id, cell_class, count(*) FROM cells WHERE is_tumour GROUP BY ALL")
```

```python
from deltalake import DeltaTable, QueryBuilder  # SQL without another package, also on S3

tables = QueryBuilder().register("cells", DeltaTable("OUT/tables/cells"))
counts = tables.execute("SELECT slide_id, cell_class, count(*) FROM cells WHERE is_tumour GROUP BY 1, 2")
print(counts.read_all())
```

Three ways of reading go wrong:

- A pattern of Parquet files (`cells/*.parquet`) finds older versions as well, until somebody vacuums the
  table: a slide that was scored again stands in it twice. `file_uris()` names the files of one version, as
  addresses: with `%20` for a blank in the folder's name, which `unquote` undoes.
- `read_delta` and `scan_delta` of Polars do not, and find no file where a folder's name has a blank: read
  it by one of the other two.
- `to_pyarrow_table` and `to_pyarrow_dataset` of deltalake read right, and then the process may die at its
  end ("terminate called without an active exception", exit code 134), a fault between delta-rs and Arrow.

Tables may be compacted, and get nullable columns of your own: rows of a slide that is not scored again keep
what stands there. Finish your runs before you vacuum: a run that resumes looks for the file of every slide
that it finds done.

On S3 Polars and `DeltaTable` take `storage_options`; see [s3.md](s3.md). A slide that is scored again, or
fails after it was scored, loses its older cells and row; the version that its run's row names still holds
them."""


_WIDE = """Braces hold the sizes in µm of several columns. Each metric has more columns, named as that of its
value with an ending: `_low` and `_high` (ends of the 95 % interval, null where none is given), `_status`
(`ok`, `insufficient` or `degenerate`; null where the assay has no such metric), and, where a label is spoken
of, `_label`. Numbers of cells and regions stand in the tidy table, as do other sizes."""


def document() -> str:
    """Column dictionary in Markdown."""
    lines = [_PREFACE]
    for table in TABLES.values():
        lines += ["", f"## {table.name}", "", f"{table.description} A run replaces the rows of its "
                  f"`{table.replaces}`; key: {', '.join(f'`{k}`' for k in table.key)}.", "",
                  "| column | type | unit | meaning |", "|---|---|---|---|"]  # fmt: skip
        named = len(table.columns) - len(_side_by_side(table.metrics))
        lines += [
            f"| `{c.name}` | {type_name(c)} | {c.unit} | {c.description} |" for c in table.columns[:named]
        ]
        lines += [f"| `{m.pattern}` | double | {m.unit} | {m.meaning} |" for m in table.metrics]
        if table.metrics:
            lines += ["", _WIDE]
    return "\n".join(lines) + "\n"


def type_name(column: Column) -> str:
    """Type as the dictionary writes it; ``required`` where a value is never null."""
    text = str(column.type).replace("list<element: ", "list<").replace("timestamp[us, tz=UTC]", "timestamp")
    return text + (", required" if column.required else "")


if __name__ == "__main__":
    import sys

    sys.stdout.write(document())
