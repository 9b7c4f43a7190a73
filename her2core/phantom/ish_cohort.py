"""ISH slides of the synthetic cohort: cases that immunohistochemistry alone leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from her2core.guidelines.rules_ish import load_ish_rules
from her2core.phantom.ish import ISHSpec, PlantedISH, Population, plant_ish
from her2core.phantom.slides import write_fluorescence, write_slide
from her2core.records import Assay, SlideRow

RULES: Final = "ish_asco_cap_2018"


@dataclass(frozen=True, slots=True)
class PlannedISHSlide:
    """One ISH slide of the cohort, and the status and class that its case must get with it."""

    case: str
    block: str
    assay: Assay
    populations: tuple[Population, ...]
    her2_status: str
    her2_class: str
    site: str = "primary"
    mpp: float = 0.1
    side_px: int = 2600

    @property
    def slide_id(self) -> str:
        return f"{self.case}-{self.block}-{self.assay.removeprefix('HER2-')}"

    @property
    def path(self) -> str:
        """Place of the slide in the cohort's folder."""
        return f"slides/{self.slide_id}.{'ome.tif' if self.assay == Assay.FISH else 'tif'}"


ISH_PLAN: Final = (
    PlannedISHSlide("TWO", "A1", Assay.FISH, (Population(1.0, 7.0, 2.2),), "Positive", "pos_IHC2_ISHpos"),
    PlannedISHSlide(
        "TWONEG", "A1", Assay.DISH, (Population(1.0, 2.4, 2.1),), "Negative", "low_2plus", mpp=0.11
    ),
    PlannedISHSlide(
        "WAITING", "A1", Assay.FISH, (Population(1.0, 5.0, 3.4),), "Indeterminate", "indeterminate"
    ),
)
"""Amplified, not amplified, and group 4 without the IHC that would resolve it."""


def make_ish(planned: PlannedISHSlide, folder: Path, seed: int) -> PlantedISH:
    """Draw one slide into the cohort's folder."""
    spec = ISHSpec(
        planned.assay.removeprefix("HER2-"),
        seed,
        planned.side_px - 8 * (seed % 5),
        planned.side_px - 12 * (seed % 3),
        planned.mpp,
        planned.populations,
    )
    planted = plant_ish(spec)
    if planned.assay == Assay.FISH:
        write_fluorescence(folder / planned.path, planted)
    else:
        write_slide(folder / planned.path, planted, quality=90)
    return planted


def ish_manifest_row(planned: PlannedISHSlide) -> SlideRow:
    """Manifest row of an ISH slide; it shares specimen and block with the IHC slide of its case."""
    return SlideRow(
        slide_id=planned.slide_id,
        case_id=planned.case,
        patient_id=f"P-{planned.case}",
        uri=planned.path,
        assay=planned.assay,
        specimen_id=f"{planned.case}-{planned.site}",
        block_id=planned.block,
        site=planned.site,
        scanner="phantom",
    )


def ish_truth_row(planted: PlantedISH) -> dict[str, Any]:
    """What the planted signals amount to, over the nuclei that nothing overlaps (spec §2)."""
    nuclei = planted.nuclei[~planted.nuclei["overlapped"]]
    nuclei = nuclei[(nuclei["her2"] > 0) & (nuclei["cep17"] > 0)]
    n, her2, cep17 = len(nuclei), int(nuclei["her2"].sum()), int(nuclei["cep17"].sum())
    return {
        "n_nuclei": n,
        "ish_ratio": round(her2 / cep17, 4),
        "ish_her2_mean": round(her2 / n, 4),
        "ish_cep17_mean": round(cep17 / n, 4),
        "ish_group": load_ish_rules(RULES).group(n, her2, cep17),
    }


def nuclei_table(slide_id: str, planted: PlantedISH) -> pa.Table:
    """Planted nuclei of one slide."""
    names = planted.nuclei.dtype.names or ()
    ids = pa.repeat(slide_id, len(planted.nuclei))
    return pa.table({"slide_id": ids} | {name: planted.nuclei[name] for name in names})
