"""RNA beside HER2 in tables, figures and words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from her2core.analysis.anchors import RNA, anchor_table, anchor_text
from her2core.analysis.results import (
    COLOURS,
    RESEARCH_ONLY,
    Answer,
    ResultTable,
    count_column,
    estimate_columns,
    estimated,
    markdown,
    spread,
    text_column,
)
from her2core.analysis.rna import LEVELS, OUTLIER, Rna, RnaSet
from her2core.analysis.samples import GROUP_ORDER
from her2core.lake.schema import REAL, Column
from her2core.pictures.canvas import png_bytes
from her2core.text import counted

_SET = (text_column("platform", "How RNA was measured."), text_column("unit", "Unit of its values."))


def report_rna(found: Rna) -> Answer:
    """Tables, figures and the summary of RNA beside HER2."""
    return Answer("RNA and HER2", _text(found), tuple(_tables(found)), dict(_figures(found)))


def _tables(found: Rna) -> Iterator[ResultTable]:
    yield ResultTable(
        "specimens",
        "Every specimen with RNA.",
        (
            *_SET,
            text_column("patient_id", "Patient."),
            text_column("specimen", "Specimen."),
            text_column("her2_class", "Its class."),
            Column("value", REAL, "", "Mean of its regions, on the scale that the summary names."),
            count_column("regions", "Values that it is the mean of."),
            *(Column(level, REAL, "", f"{level} of the specimen.") for level in LEVELS),
        ),
        [
            {"platform": s.platform, "unit": s.unit, "patient_id": m.sample.patient_id}
            | {"specimen": m.sample.name, "her2_class": m.sample.her2_class}
            | {"value": m.value, "regions": m.regions}
            | {level: m.sample.values.get(level) for level in LEVELS}
            for s in found.sets
            for m in s.matched
        ],
    )
    yield ResultTable(
        "measures",
        "How RNA goes with HER2.",
        (
            *_SET,
            text_column("measure", "Which statistic."),
            count_column("n", "Specimens."),
            count_column("n_patients", "Patients, which intervals are drawn of."),
            *estimate_columns("value", "The statistic"),
        ),
        [
            {"platform": s.platform, "unit": s.unit, "measure": name, "n": e.n, "n_patients": e.n_patients}
            | spread("value", e)
            for s in found.sets
            for name, e in s.measures
        ],
    )
    yield ResultTable(
        "outliers",
        f"Specimens more than {OUTLIER} robust standard deviations off the line of RNA on membrane OD.",
        (
            *_SET,
            text_column("specimen", "Specimen."),
            text_column("her2_class", "Its class."),
            Column("value", REAL, "", "RNA."),
            Column("expected", REAL, "", "By the line (Theil and Sen)."),
            Column("robust_z", REAL, "", "Distance from it."),
        ),
        [
            {
                "platform": s.platform,
                "unit": s.unit,
                "specimen": o.sample.name,
                "her2_class": o.sample.her2_class,
            }
            | {"value": o.value, "expected": o.expected, "robust_z": o.robust_z}
            for s in found.sets
            for o in s.outliers
        ],
    )
    yield anchor_table(RNA)


def _text(found: Rna) -> str:
    parts = [
        "# RNA and HER2",
        f"{RESEARCH_ONLY} Bulk RNA is of a mixture of cells and cannot measure heterogeneity within a "
        "sample; cut-offs of one platform and unit do not transfer to another.",
    ]
    if found.unmatched:
        parts.append(
            markdown(("rows not used", "rows"), [(why, str(n)) for why, n in found.unmatched.items()])
        )
    if not found.sets:
        parts.append("**No value belongs to a specimen of the run: nothing can be compared.**")
    for s in found.sets:
        parts += [f"## {s.platform}, {s.unit}", _set(s)]
    parts += ["## Published figures", anchor_text(RNA)]
    return "\n\n".join(parts) + "\n"


def _set(s: RnaSet) -> str:
    rows = [(name, str(e.n), estimated(e)) for name, e in s.measures]
    lines = [f"{counted(len(s.matched), 'specimen')}. Values: {s.scale}."]
    if rows:
        lines.append(markdown(("measure", "n", "value (95 %, draws of patients)"), rows))
    if s.refused:
        lines.append("Not computed: " + "; ".join(s.refused) + ".")
    if s.outliers:
        lines.append(
            f"{counted(len(s.outliers), 'specimen')} off the line: "
            + "; ".join(
                f"{o.sample.name} ({o.sample.her2_class}, z {o.robust_z:+.1f})" for o in s.outliers[:20]
            )
            + ". Look at their slides: another tumour content, a polysomy, or a swapped sample."
        )
    if np.isfinite(s.within_sd):
        lines.append(
            f"Several values of {counted(s.several, 'patient')}: SD {s.within_sd:.2f} within them, "
            f"{s.between_sd:.2f} between patients."
        )
    return "\n\n".join(lines)


def _figures(found: Rna) -> Iterator[tuple[str, bytes]]:
    for place, s in enumerate(found.sets, start=1):
        if any(LEVELS[0] in m.sample.values for m in s.matched):
            yield f"rna_{place}", png_bytes(_scatter(s))


def _scatter(s: RnaSet) -> Figure:
    figure = Figure((6.5, 4.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    for colour, group in zip(COLOURS, (*GROUP_ORDER, None), strict=False):
        of = [m for m in s.matched if m.sample.group == group and LEVELS[0] in m.sample.values]
        if of:
            x, y = [m.sample.values[LEVELS[0]] for m in of], [m.value for m in of]
            axes.plot(x, y, "o", ms=5, color=colour, label=f"{group or 'other'}, n {len(of)}", alpha=0.85)
    off = [o for o in s.outliers if LEVELS[0] in o.sample.values]
    axes.plot(
        [o.sample.values[LEVELS[0]] for o in off], [o.value for o in off], "o", ms=11, mfc="none", mec="black"
    )
    axes.set_xlabel("mean membrane OD")
    axes.set_ylabel(f"ERBB2, {s.unit}", parse_math=False)
    axes.set_title(f"{s.platform}; {s.scale}; rings: off the line", fontsize=9.5, parse_math=False)
    axes.grid(color="#E5E5E5")
    axes.legend(frameon=False, fontsize=9)
    return figure
