"""A small synthetic cohort, from no staining to strong, with its manifest and its truth."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from her2core.phantom.ish import PlantedISH
from her2core.phantom.ish_cohort import (
    ISH_PLAN,
    PlannedISHSlide,
    ish_manifest_row,
    ish_truth_row,
    make_ish,
    nuclei_table,
)
from her2core.phantom.slides import write_slide
from her2core.phantom.spec import CLASSES, PhantomSpec
from her2core.phantom.tissue import plant
from her2core.phantom.truth import Tissue, Truth
from her2core.records import Assay, SlideRow

log = logging.getLogger(__name__)

MANIFEST_COLUMNS: Final = tuple(SlideRow.__dataclass_fields__)
ISLANDS: Final = (
    (0.37, 0.37, 0.33, 0.33),
    (0.61, 0.61, 0.34, 0.34),
    (0.24, 0.76, 0.20, 0.20),
    (0.77, 0.24, 0.20, 0.20),
)  # two big pieces of tissue that touch, and two small ones
HER2_CLASS: Final = {"3+": "pos_IHC3", "2+": "equivocal_2plus", "1+": "low_1plus"}


@dataclass(frozen=True, slots=True)
class PlannedSlide:
    """One slide of the cohort: what is planted (fractions of `CLASSES`), and how the classes are laid out."""

    case: str
    block: str
    mix: tuple[float, float, float, float, float]
    pattern: str = "scattered"
    hematoxylin_od: float = 0.25
    site: str = "primary"
    shrink: int = 1

    @property
    def slide_id(self) -> str:
        return f"{self.case}-{self.block}"


PLAN: Final = (
    PlannedSlide("NULL", "A1", (1.0, 0.0, 0.0, 0.0, 0.0)),
    PlannedSlide("ULTRALOW", "A1", (0.975, 0.025, 0.0, 0.0, 0.0), "mosaic"),
    PlannedSlide("ONE", "A1", (0.45, 0.54, 0.0, 0.01, 0.0), "mosaic", 0.20),
    PlannedSlide("TWO", "A1", (0.10, 0.25, 0.02, 0.63, 0.0)),
    PlannedSlide("TWONEG", "A1", (0.15, 0.25, 0.02, 0.58, 0.0), shrink=2),
    PlannedSlide("THREE", "A1", (0.03, 0.07, 0.02, 0.20, 0.68)),
    PlannedSlide("MIXED", "A1", (0.55, 0.12, 0.0, 0.05, 0.28), "cluster"),
    PlannedSlide("MIXED", "B1", (0.70, 0.28, 0.0, 0.02, 0.0), "mosaic", 0.18, "metastasis"),
)
"""Seven cases, eight slides: the scores of breast, zero split in null and ultralow, a case of two minds."""


def synth_cohort(
    out_dir: str | Path,
    *,
    seed: int = 1,
    side_px: int = 5120,
    mpp: float = 0.25,
    plan: Sequence[PlannedSlide] = PLAN,
    ish_plan: Sequence[PlannedISHSlide] = ISH_PLAN,
    workers: int = 2,
) -> Path:
    """Write the slides of both plans, ``manifest.csv``, and what was planted.

    The truth is in ``truth.csv`` (IHC slides), ``truth_ish.csv`` (ISH slides), ``truth_cases.csv`` (status
    and class of every specimen), ``truth_cells.parquet`` and ``truth_nuclei.parquet``.

    Manifest URIs are relative to the manifest's folder; micrometres per pixel are in the slides alone.

    Parameters
    ----------
    side_px
        About the height and width of every IHC slide; 5120 pixels of 0.25 um hold over 1 mm2 of tissue.
    workers
        Slides drawn at once.

    Returns
    -------
    Path
        The manifest.
    """
    folder = Path(out_dir)
    (folder / "slides").mkdir(parents=True, exist_ok=True)

    def make(i: int) -> Tissue:
        tissue = plant(slide_spec(plan[i], seed=1000 * seed + i, side_px=side_px, mpp=mpp))
        write_slide(folder / slide_path(plan[i]), tissue)
        return tissue

    def make_of_ish(i: int) -> PlantedISH:
        return make_ish(ish_plan[i], folder, 1000 * seed + 100 + i)

    manifest, truth, cells = [], [], []
    truth_ish, nuclei = [], []
    with ThreadPoolExecutor(workers) as pool:  # drawing releases the GIL
        for planned, tissue in zip(plan, pool.map(make, range(len(plan))), strict=True):
            row = truth_row(tissue.truth)
            log.info("%s: %s in %d tumour cells", planned.slide_id, row["planted_score"], row["n_tumour"])
            ids = {"slide_id": planned.slide_id, "case_id": planned.case, "pattern": planned.pattern}
            truth.append(ids | row)
            manifest.append(manifest_row(planned, row["planted_score"]))
            cells.append(_cell_table(planned.slide_id, tissue.truth))
        for slide, planted in zip(ish_plan, pool.map(make_of_ish, range(len(ish_plan))), strict=True):
            ids = {"slide_id": slide.slide_id, "case_id": slide.case}
            truth_ish.append(ids | ish_truth_row(planted))
            manifest.append({name: getattr(ish_manifest_row(slide), name) for name in MANIFEST_COLUMNS})
            nuclei.append(nuclei_table(slide.slide_id, planted))
    write_csv(folder / "truth.csv", truth)
    write_csv(folder / "truth_cases.csv", case_truth(truth, plan, ish_plan))
    pq.write_table(pa.concat_tables(cells), folder / "truth_cells.parquet")
    if truth_ish:
        write_csv(folder / "truth_ish.csv", truth_ish)
        pq.write_table(pa.concat_tables(nuclei), folder / "truth_nuclei.parquet")
    return write_csv(folder / "manifest.csv", manifest)


def case_truth(
    truth: Sequence[Mapping[str, Any]], plan: Sequence[PlannedSlide], ish_plan: Sequence[PlannedISHSlide]
) -> list[dict[str, str]]:
    """Status and class of every specimen (spec §3.1): from ISH where it was planned, else from IHC."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for planned, row in zip(plan, truth, strict=True):
        status = {"3+": "Positive", "2+": "Equivocal"}.get(row["planted_score"], "Negative")
        her2_class = "equivocal" if row["planted_score"] == "2+" else row["her2_class"]
        found[planned.case, planned.site] = {"her2_status": status, "her2_class": her2_class}
    for slide in ish_plan:
        found[slide.case, slide.site] = {"her2_status": slide.her2_status, "her2_class": slide.her2_class}
    return [{"case_id": case, "site": site, **values} for (case, site), values in sorted(found.items())]


def slide_path(planned: PlannedSlide) -> str:
    """Place of a slide in the cohort's folder."""
    return f"slides/{planned.slide_id}.tif"


def slide_spec(planned: PlannedSlide, *, seed: int, side_px: int = 5120, mpp: float = 0.25) -> PhantomSpec:
    """The whole specification of one slide of the cohort; its size is no multiple of any tile."""
    return PhantomSpec(
        seed=seed,
        height_px=side_px // planned.shrink - 8 * (seed % 5),
        width_px=side_px // planned.shrink - 12 * (seed % 3),
        mpp=mpp,
        tumour_fraction=0.6,
        mix=planned.mix,
        pattern=planned.pattern,
        islands=ISLANDS,
        hematoxylin_od=planned.hematoxylin_od,
    )


def manifest_row(planned: PlannedSlide, reader_score: str) -> dict[str, Any]:
    """Manifest columns of one slide."""
    row = SlideRow(
        slide_id=planned.slide_id,
        case_id=planned.case,
        patient_id=f"P-{planned.case}",
        uri=slide_path(planned),
        assay=Assay.IHC,
        specimen_id=f"{planned.case}-{planned.site}",
        block_id=planned.block,
        site=planned.site,
        scanner="phantom",
        reader_score=reader_score,
    )
    return {name: getattr(row, name) for name in MANIFEST_COLUMNS}


def truth_row(truth: Truth) -> dict[str, Any]:
    """What the planted cells amount to: counts, cumulative fractions, score and class (spec §1.2)."""
    tumour = truth[truth["kind"] == "tumour"]
    count = {name: int((tumour["cell_class"] == name).sum()) for name in CLASSES}
    n, n3 = len(tumour), count["3"]
    n2 = n3 + count["2"] + count["2u"]
    stained = n2 + count["1"]
    score = planted_score(n, n3, n2, stained)
    return {
        "planted_score": score,
        "her2_class": HER2_CLASS.get(score, "ultralow" if stained else "null"),
        "n_tumour": n,
        "n_lymphocyte": int((truth["kind"] == "lymphocyte").sum()),
        "n_stroma": int((truth["kind"] == "stroma").sum()),
        "p3": round(n3 / n, 5),
        "p2": round(n2 / n, 5),
        "p1": round(stained / n, 5),
        "mean_completeness": round(float(tumour["completeness"].mean()), 5),
        "mean_membrane_od": round(float(tumour["membrane_od"].mean()), 5),
    } | {f"n_{name}": value for name, value in count.items()}


def planted_score(n: int, n3: int, n2: int, stained: int) -> str:
    """Breast score of `n` cells of which cumulatively so many are 3+, at least 2+, and stained at all."""
    if 10 * n3 > n:
        return "3+"
    if (100 * n3 >= n and n3 >= 10) or 10 * n2 > n:
        return "2+"
    return "1+" if 10 * stained > n else "0"


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Rows of equal keys as CSV; None is left empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _cell_table(slide_id: str, truth: Truth) -> pa.Table:
    names = truth.dtype.names or ()
    columns = {"slide_id": np.full(len(truth), slide_id)} | {name: truth[name] for name in names}
    return pa.table(columns)
