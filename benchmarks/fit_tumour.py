"""Fit the model that tells tumour cells from others, and judge it on cores that it was not fitted on.

    python benchmarks/fit_tumour.py [--write] [--planted]

Tissue drawn by eye on seven cores (`tests/data/tissue_by_eye.csv`), which have to be at hand, and phantoms
decide: a logistic regression over the features of `FEATURES`. It is fitted again without one core after the
other, and judged on the core left out: on its drawn tissue, and on its single cells read blind
(`tests/data/tumour_cells_by_eye.csv`), which decide nothing. Tiles and camera fields decide nothing either,
and the model is judged on them as it is shipped. Cells nearer to a drawn line than `MARGIN_UM` and uncertain
tissue count neither way. ``--planted`` judges too whether stain chooses: membranes are planted on the tumour
of every other field of cores with little stain (a minute more). ``--write`` stores the model in the package.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import planted
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from slides import MPP, RGB, SHARED, profile_of

import her2core.scoring.tumour
from her2core.guidelines.rules_ihc import CellClass, load_rules
from her2core.kernels.ihc.kernel import IHCKernel
from her2core.params import IHCParams, ScoreParams
from her2core.phantom import PhantomSpec, render_field
from her2core.records import Box, StainProfile
from her2core.scoring.ihc import MeasuredCells, classify
from her2core.scoring.tissue_features import TissueFeatures
from her2core.scoring.tumour import FROM_CELLS, TumourChoice, TumourModel, choose_tumour
from her2core.scoring.tumour_fit import DrawnCells, fit_model

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
DRAWN, READ = DATA / "tissue_by_eye.csv", DATA / "tumour_cells_by_eye.csv"
NAME = "cores"
VERSION = 10
FEATURES = ("own_bare", "own_contrast_25", "alignment_50", "area_25")
MARGIN_UM = 2.5
SAME_UM = 1.0  # a cell this near to a mark is the marked one
PHANTOM = 0.2  # weight of a phantom beside a core
LEVELS = {
    "unstained": (1.0, 0.0, 0.0, 0.0, 0.0),
    "1+": (0.3, 0.7, 0.0, 0.0, 0.0),
    "2+": (0.2, 0.2, 0.1, 0.5, 0.0),
    "3+": (0.05, 0.05, 0.05, 0.05, 0.8),
}
PHANTOMS = {201: 0.6, 202: 0.35, 203: 0.8}  # seed: part of the plane that is tumour
LITTLE_STAINED = ("0_aa1d", "0_ccb6", "1_154a", "2_726f")  # cores that membranes are planted on
BARE = dataclasses.replace(planted.PLANTS[0], name="none", od=1e-4, haze_od=0.0)
PLANTED = (BARE, planted.PLANTS[0], planted.PLANTS[2])
FIELD_PX, FIELDS, STEP_PX, AROUND_PX = 560, 4, 140, 200  # where they are planted, in each
EDGE_PX = 48  # cells nearer to a field's edge do not count
LEAST = 15  # cells, for a share of them to count
COLUMNS = (
    "tumour kept in unstained fields",
    "in planted fields",
    "other tissue kept in unstained fields",
    "in planted fields",
    "stained cells, %, drawn",
    "chosen",
    "off by",
)
PARAMS = ScoreParams(rules="gastric_resection")
RULES = load_rules(PARAMS.rules)

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Tissue:
    """Cells of an image, what tissue they lie in by eye, and whether that is certain."""

    name: str
    cells: np.ndarray[tuple[int], np.dtype[np.void]]
    mpp: float
    stain: StainProfile
    kind: NDArray[np.str_]
    certain: Flags

    @property
    def tumour(self) -> Flags:
        return self.kind == "tumour"

    @cached_property
    def measured(self) -> MeasuredCells:
        columns = {name: self.cells[name] for name in self.cells.dtype.names or ()}
        columns |= {"y_um": self.cells["y_px0"] * self.mpp, "x_um": self.cells["x_px0"] * self.mpp}
        columns |= {"is_tumour": np.ones(len(self.cells), np.bool_)}
        return MeasuredCells.of(columns, PARAMS, IHCParams().ladder_od)

    @cached_property
    def classes(self) -> NDArray[np.int8]:
        return classify(self.measured, PARAMS, RULES)

    @cached_property
    def table(self) -> TissueFeatures:
        return TissueFeatures.of(self.cells, self.mpp, self.stain, self.classes >= CellClass.C1)

    def features(self) -> Array:
        return self.table.table(FEATURES)

    def choice(self, model: TumourModel) -> TumourChoice:
        cells = {name: self.cells[name] for name in FROM_CELLS}
        stained = self.classes >= CellClass.C1
        return choose_tumour(cells, stained, self.measured.completeness, self.mpp, self.stain, model)

    def chosen(self, model: TumourModel) -> Flags:
        return self.choice(model).chosen


def cells_of(rgb: RGB, mpp: float) -> tuple[np.ndarray[tuple[int], np.dtype[np.void]], StainProfile]:
    """All cells of an image."""
    stain = profile_of(rgb, mpp)
    kernel, found = IHCKernel(IHCParams(), stain, mpp), []
    for y0 in range(0, len(rgb), 2048):
        core = Box(y0, 0, min(y0 + 2048, len(rgb)), rgb.shape[1])
        need = core.grown(kernel.halo_px)
        padded = np.full((need.height, need.width, 3), 255, np.uint8)
        top = max(need.y0, 0)
        part = rgb[top : need.y1]
        padded[top - need.y0 :, kernel.halo_px :][: len(part), : part.shape[1]] = part
        found.append(kernel(padded, (need.y0, need.x0), core).copy())
    return np.concatenate(found), stain


def drawn_images() -> Iterable[Tissue]:
    shapes: dict[str, list[dict[str, str]]] = {}
    with DRAWN.open() as rows:
        for row in csv.DictReader(rows):
            shapes.setdefault(row["image"], []).append(row)
    for image, rows_of in shapes.items():
        (path,) = (SHARED / "data").glob(f"ihc_*/{image}")
        mpp = float(rows_of[0]["mpp"])
        cells, stain = cells_of(np.ascontiguousarray(cv2.imread(str(path))[..., ::-1]), mpp)
        kind, certain = looked_up(rows_of, cells["y_px0"] + 0.5, cells["x_px0"] + 0.5, mpp)
        yield Tissue(image, cells, mpp, stain, kind, certain)


def looked_up(rows: list[dict[str, str]], y: Array, x: Array, mpp: float) -> tuple[NDArray[np.str_], Flags]:
    """Tissue of every place, and whether it is certain and away from a line."""
    kind, certain = np.full(len(y), rows[0]["tissue"], "U11"), np.full(len(y), rows[0]["certain"] == "1")
    near = np.zeros(len(y), np.bool_)
    for row in rows[1:]:
        points = [tuple(map(float, point.split()[::-1])) for point in row["points"].split(";")]
        width = float(row["width_px"])
        line, ring = shapely.LineString, shapely.Polygon
        area = line(points).buffer(width / 2, cap_style="flat") if width else shapely.make_valid(ring(points))
        shapely.prepare(area)
        inside = shapely.contains_xy(area, x, y)
        kind[inside], certain[inside] = row["tissue"], row["certain"] == "1"
        near |= shapely.distance(area.boundary, shapely.points(x, y)) * mpp <= MARGIN_UM
    return kind, certain & ~near & (kind != "artefact")


def phantoms() -> Iterable[Tissue]:
    """The same tissue with four levels of stain, three times."""
    for seed, part in PHANTOMS.items():
        for level, mix in LEVELS.items():
            spec = PhantomSpec(seed=seed, mix=mix, tumour_fraction=part)
            rgb, truth = render_field(dataclasses.replace(spec, height_px=1600, width_px=1600))
            cells, stain = cells_of(rgb, MPP)
            places = np.stack([cells["y_px0"], cells["x_px0"]], axis=1)
            apart, nearest = cKDTree(np.stack([truth["y_px0"], truth["x_px0"]], axis=1)).query(places)
            yield Tissue(
                f"phantom {seed} {level}", cells, MPP, stain, truth["kind"][nearest], apart * MPP < 4.0
            )


def fit(tissues: list[Tissue], *, note: str = "") -> TumourModel:
    """Logistic regression; tumour and other tissue weigh the same in every core."""
    slides = [
        DrawnCells(
            tissue.name,
            tissue.features()[tissue.certain],
            tissue.tumour[tissue.certain],
            PHANTOM if tissue.name.startswith("phantom") else 1.0,
        )
        for tissue in tissues
    ]
    return fit_model(slides, FEATURES, NAME, VERSION, note)


def judged(tissue: Tissue, model: TumourModel) -> str:
    """Sensitivity, specificity, stained cells dropped, and percentages beside those of the drawn tumour."""
    chosen, ok, tumour, classes = tissue.chosen(model), tissue.certain, tissue.tumour, tissue.classes

    def share(flags: Flags, of: Flags) -> str:
        return f"{flags[of].mean():5.2f}" if of.sum() >= 20 else "    –"

    words = [tissue.name[:18].ljust(18), share(chosen, ok & tumour), share(~chosen, ok & ~tumour)]
    words += [
        share(~chosen, ok & (tissue.kind == "benign")),
        share(~chosen, ok & tumour & (classes >= CellClass.C1)),
    ]
    for lowest in (CellClass.C3, CellClass.C2, CellClass.C1):
        for of in (tumour, chosen):
            counted = classes[of & (classes >= CellClass.C0)]
            words.append(f"{100 * (counted >= lowest).mean():5.1f}" if len(counted) else "    –")
    return " ".join(words)


def on_read_cells(tissue: Tissue, chosen: Flags) -> tuple[float, float]:
    """Sensitivity and specificity on the core's single cells that were read blind."""
    with READ.open() as rows:
        marks = [row for row in csv.DictReader(rows) if row["image"] == tissue.name and row["tumour"]]
    places = np.stack([tissue.cells["y_px0"], tissue.cells["x_px0"]], axis=1) * tissue.mpp
    apart, cell = cKDTree(places).query(
        np.array([(float(m["y_px0"]), float(m["x_px0"])) for m in marks]) * tissue.mpp
    )
    here, tumour = apart <= SAME_UM, np.array([mark["tumour"] == "1" for mark in marks])
    picked = chosen[cell]
    return float(picked[here & tumour].mean()), float((~picked)[here & ~tumour].mean())


def planted_slides(core: Tissue) -> Iterable[tuple[str, Tissue, Flags]]:
    """Fields of the core taken as one slide: level, cells, and which of them lie in fields that were planted.

    Only tumour is planted, no lymphocytes or fibres: first in the even fields, then in the odd ones. With
    nothing planted, the same halves are what to compare with. Certain are only cells off the edges.
    """
    (path,) = (SHARED / "data").glob(f"ihc_*/{core.name}")
    rgb = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
    real = core.stain.source == "estimated"
    stain = core.stain if real else dataclasses.replace(core.stain, dab=planted.REFERENCE_DAB)
    with DRAWN.open() as rows:
        shapes = [row for row in csv.DictReader(rows) if row["image"] == core.name]
    boxes = _fields(core, rgb.shape[:2])
    found: dict[str, list[np.ndarray[tuple[int], np.dtype[np.void]]]] = defaultdict(list)
    for box in boxes:
        around = box.grown(AROUND_PX)
        part = np.ascontiguousarray(rgb[around.y0 : around.y1, around.x0 : around.x1])
        here = _inside(core.cells, box)
        places = [core.cells["y_px0"][here], core.cells["x_px0"][here], np.ones(here.sum())]
        for plant in PLANTED:
            field = planted.plant_field(
                part, (around.y0, around.x0), box, np.stack(places, axis=1), stain, plant, ~core.tumour[here]
            )
            found[plant.name].append(planted.read(field)[0].copy())
    for level in found:
        for first in (0, 1):
            turn = [k % 2 == first for k in range(len(boxes))]
            parts = [found[level if mine else BARE.name][k] for k, mine in enumerate(turn)]
            cells, stained = np.concatenate(parts), np.repeat(turn, [len(part) for part in parts])
            kind, certain = looked_up(shapes, cells["y_px0"] + 0.5, cells["x_px0"] + 0.5, core.mpp)
            certain &= np.any([_inside(cells, box.grown(-EDGE_PX)) for box in boxes], axis=0)
            yield level, Tissue(core.name, cells, core.mpp, core.stain, kind, certain), stained


def kept(slide: Tissue, stained: Flags, model: TumourModel) -> list[float]:
    """`COLUMNS` of a slide; not a number where there are too few cells."""
    chosen, tumour, ok = slide.chosen(model), slide.tumour, slide.certain
    groups = [ok & kind & field for kind in (tumour, ~tumour) for field in (~stained, stained)]
    shares = [float(chosen[of].mean()) if of.sum() >= LEAST else np.nan for of in groups]
    classes = [slide.classes[ok & of & (slide.classes >= CellClass.C0)] for of in (tumour, chosen)]
    drawn, read = (100 * float((of >= CellClass.C1).mean()) for of in classes)
    return [*shares, drawn, read, abs(read - drawn)]


def _inside(cells: np.ndarray[tuple[int], np.dtype[np.void]], box: Box) -> Flags:
    y, x = cells["y_px0"], cells["x_px0"]
    return np.asarray((y >= box.y0) & (y < box.y1) & (x >= box.x0) & (x < box.x1))


def _fields(core: Tissue, size: tuple[int, ...]) -> list[Box]:
    """Those with most certain cells of tumour or of others, whichever are fewer; apart from one another."""
    first = AROUND_PX + EDGE_PX
    corners = [
        (y, x)
        for y in range(first, size[0] - FIELD_PX - first, STEP_PX)
        for x in range(first, size[1] - FIELD_PX - first, STEP_PX)
    ]
    boxes = [Box(y, x, y + FIELD_PX, x + FIELD_PX) for y, x in corners]
    kinds = [core.cells[core.certain & kind] for kind in (core.tumour, ~core.tumour)]
    boxes.sort(key=lambda box: -min(int(_inside(kind, box.grown(-EDGE_PX)).sum()) for kind in kinds))
    chosen: list[Box] = []
    for box in boxes:
        if all(max(abs(box.y0 - b.y0), abs(box.x0 - b.x0)) >= FIELD_PX for b in chosen):
            chosen.append(box)
    return chosen[:FIELDS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="store the model in the package")
    parser.add_argument("--planted", action="store_true", help="plant stain on tumour, and judge again")
    options = parser.parse_args()
    images, made = list(drawn_images()), list(phantoms())
    cores = [tissue for tissue in images if "-" in tissue.name]
    note = f"{len(cores)} cores with tissue drawn by eye, {len(made)} phantoms"
    shipped = fit(cores + made, note=note)
    print("image               sens  spec benign dropped  3+ drawn, chosen  2+  1+")
    rates, read = [], []
    levels: dict[str, list[list[float]]] = defaultdict(list)
    for tissue in cores:
        model = fit([other for other in cores if other is not tissue] + made)
        print(judged(tissue, model), "(left out)")
        chosen, ok = tissue.chosen(model), tissue.certain
        rates.append((chosen[ok & tissue.tumour].mean(), (~chosen)[ok & ~tissue.tumour].mean()))
        read.append(on_read_cells(tissue, chosen))
        print("  cells read blind: sensitivity {:.2f}, specificity {:.2f}".format(*read[-1]))
        if options.planted and tissue.name.startswith(LITTLE_STAINED):
            for level, slide, stained in planted_slides(tissue):
                levels[level].append(kept(slide, stained, model))
    for what, pairs in (("drawn tissue", rates), ("cells read blind", read)):
        means = np.mean(pairs, axis=0)
        print(
            f"mean of cores left out, {what}: sensitivity, specificity {means}, balanced {means.mean():.3f}"
        )
    for level, slides in levels.items():
        known = [[value for value in column if not np.isnan(value)] for column in zip(*slides, strict=True)]
        means = (f"{what} {np.mean(of):.2f}" for what, of in zip(COLUMNS, known, strict=True) if of)
        print(f"planted with {level}: {', '.join(means)}")
    for tissue in (*(t for t in images if t not in cores), *made):
        print(judged(tissue, shipped))
    print(json.dumps(dataclasses.asdict(shipped), indent=1))
    if options.write:
        folder = Path(her2core.scoring.tumour.__file__).with_name("tumour_models")
        (folder / f"{NAME}.json").write_text(json.dumps(dataclasses.asdict(shipped), indent=1) + "\n")


if __name__ == "__main__":
    main()
