"""Membranes planted on real unstained tissue: real morphology, exact truth.

    python benchmarks/planted.py [FOLDER]

Takes fields of the real cores in which every nucleus was marked by eye (`tests/data/nuclei_by_eye.csv`) and
which are unstained, gives every mark the ground that is nearest to it, and lays DAB along the borders: known
OD, width, gaps, granularity, haze, blur, chroma subsampling and JPEG quality. Borders are bent and lie off
the midline between nuclei, so that a contour that only halves the distance is wrong. Printed is how well the
kernel reads the planted values **within one field and one score**, where nothing but the reading can make
figures agree; and how well an `oracle` does that knows the true contours and stains, and reads what pixels
and JPEG left of them. Kappa says nothing where nearly all cells are of one class, as at 3+: beside it stand
the share of cells whose class agrees, and the largest share of one true class (`one`). With a FOLDER the
pictures are left there.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import (
    distance_transform_edt,
    find_objects,
    gaussian_filter,
    map_coordinates,
    maximum_filter,
    minimum_filter,
)
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from slides import MPP, RGB, SHARED, profile_of

from her2core.analysis.kappa import cohens_kappa
from her2core.guidelines.rules_ihc import load_rules
from her2core.kernels.ihc.kernel import IHCKernel
from her2core.kernels.stain import REFERENCE_DAB, unit
from her2core.params import IHCParams, ScoreParams
from her2core.records import Box, StainProfile
from her2core.scoring.ihc import MeasuredCells, classify

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
UNSTAINED = ("0_aa1d", "0_ccb6")  # cores read as 0: what brown there is, is haze
FINE = 2  # the truth is drawn at so many times the resolution
FOUND_UM = 3.0
RULES = "breast_asco_cap_2018"
ORDINAL = np.array([0, 1, 2, 2, 3, 0])  # of a `CellClass`; the last, -1, cannot be judged
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Plant:
    """How one field is stained.

    OD is base 10 at the crest of a membrane; widths are those at half height, in um: 0.64 (1+), 1.0 (2+) and
    2.14 (3+) after Scheel 2018.
    """

    name: str
    od: float  # median of the cells'
    od_spread: float  # standard deviation of its logarithm among cells
    width_um: float
    complete: tuple[float, float]  # range of the stained share of a cell's own contour
    haze_od: float = 0.03  # in the cytoplasm of stained cells
    unstained_haze: float = 0.3  # part of it in cells of which hardly anything is stained
    grain: float = 0.15  # spread of OD along a membrane
    blur_um: float = 0.15
    jpeg: int = 85
    subsampled: bool = True
    seed: int = 1


PLANTS = (
    Plant("1+", 0.28, 0.25, 0.64, (0.05, 0.85), seed=11),
    Plant("2+", 0.48, 0.22, 1.0, (0.2, 1.0), haze_od=0.06, seed=12),
    Plant("3+", 0.95, 0.22, 2.14, (0.5, 1.0), haze_od=0.12, seed=13),
    Plant("1+ blurred", 0.28, 0.25, 0.8, (0.05, 0.85), blur_um=0.35, jpeg=70, seed=14),
    Plant("2+ grainy", 0.48, 0.25, 1.0, (0.2, 1.0), grain=0.35, haze_od=0.10, seed=15),
)


@dataclass(frozen=True)
class PlantedField:
    """Pixels with planted membranes, the box in which all nuclei are marked, and the truth of every cell."""

    name: str
    plant: Plant
    rgb: RGB
    origin: tuple[int, int]
    box: Box
    stain: StainProfile
    marks: Array  # (n, 2): y, x
    certain: NDArray[np.bool_]
    od: Array  # (n,) median OD of the stained contour as drawn (optics included, no noise), 0 where it is not
    complete: Array  # (n, 3): share of the contour with OD 0.1, 0.2 and 0.4 or more, as drawn
    contours: list[Array]  # (k, 2) y, x of the true contours
    whole: NDArray[np.bool_]  # (n,) whether the cell lies whole in the box


def marked_fields() -> dict[tuple[str, int, int, int], Array]:
    """Marks (n, 3: y, x, certain) by core and field."""
    fields: dict[tuple[str, int, int, int], list[tuple[float, float, float]]] = defaultdict(list)
    with (DATA / "nuclei_by_eye.csv").open() as rows:
        for row in csv.DictReader(rows):
            key = (row["core"], int(row["field_y0"]), int(row["field_x0"]), int(row["field_px"]))
            fields[key].append((float(row["y_px0"]), float(row["x_px0"]), float(row["certain"])))
    return {key: np.array(marks) for key, marks in fields.items()}


def plant_field(
    rgb: RGB,
    origin: tuple[int, int],
    box: Box,
    marks: Array,
    stain: StainProfile,
    plant: Plant,
    bare: NDArray[np.bool_] | None = None,
) -> PlantedField:
    """Stain ``rgb``, whose first pixel is ``origin``, within ``box`` along the borders of its cells.

    Marks that are ``bare`` have ground of their own, but neither membrane nor haze; what a stained neighbour
    stains of a common border is theirs too.
    """
    rng = np.random.default_rng([plant.seed, box.y0, box.x0])
    h, w = box.height * FINE, box.width * FINE
    um = MPP / FINE
    yx = (marks[:, :2] - (box.y0, box.x0) + 0.5) * FINE - 0.5
    labels = territories(yx, h, w, um, rng)
    n = len(marks)
    od_of = plant.od * np.exp(plant.od_spread * rng.standard_normal(n))
    bare = np.zeros(n, bool) if bare is None else bare
    share = np.where(bare, 0.0, rng.uniform(*plant.complete, n))
    border = np.zeros((h, w), np.float32)
    on_border = (labels > 0) & (
        minimum_filter(labels, 3, mode="nearest") != maximum_filter(labels, 3, mode="nearest")
    )
    arcs = [stained_arcs(rng, s) for s in share]
    own: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    for i, area in enumerate(find_objects(labels, n)):
        rows, columns = area or (slice(0, 0), slice(0, 0))
        ys, xs = np.nonzero(on_border[rows, columns] & (labels[rows, columns] == i + 1))
        ys, xs = ys + rows.start, xs + columns.start
        own.append((ys, xs))
        turn = np.arctan2(ys - yx[i, 0], xs - yx[i, 1]) / (2 * np.pi) % 1.0
        stained = np.zeros(len(ys), bool)
        for start, length in arcs[i]:
            stained |= (turn - start) % 1.0 < length
        np.maximum.at(border, (ys[stained], xs[stained]), np.float32(od_of[i]))
    # a membrane is one line: what a cell stains of a border, its neighbour across it has too
    spread = cv2.dilate(border, np.ones((3, 3), np.uint8))
    border = np.where(on_border, spread, 0)
    grain = np.exp(plant.grain * smooth_noise(rng, (h, w), 0.6 / um))
    line = border * grain
    distance, nearest = distance_transform_edt(line <= 0, return_indices=True)
    sigma = plant.width_um / 2.355 / um
    dab = line[nearest[0], nearest[1]] * np.exp(-0.5 * (distance / sigma) ** 2)
    dab = gaussian_filter(dab, 1.0)
    cytoplasm = np.r_[0.0, np.where(bare, 0.0, np.where(share > 0.15, 1.0, plant.unstained_haze))][labels]
    dab = np.maximum(
        dab,
        plant.haze_od * gaussian_filter(cytoplasm * np.exp(0.3 * smooth_noise(rng, (h, w), 0.8 / um)), 2.0),
    )
    if plant.blur_um > 0:
        dab = gaussian_filter(dab, plant.blur_um / um)
    small = cv2.resize(dab, (box.width, box.height), interpolation=cv2.INTER_AREA)
    out = rgb.astype(np.float64)
    y0, x0 = box.y0 - origin[0], box.x0 - origin[1]
    out[y0 : y0 + box.height, x0 : x0 + box.width] *= 10.0 ** (-small[..., None] * np.array(stain.dab))
    picture = np.clip(np.rint(out), 0, 255).astype(np.uint8)
    chroma = (
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if plant.subsampled else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    )
    flags = [cv2.IMWRITE_JPEG_QUALITY, plant.jpeg, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, chroma]
    picture = np.ascontiguousarray(
        cv2.imdecode(cv2.imencode(".jpg", picture[..., ::-1], flags)[1], 1)[..., ::-1]
    )
    od, complete, contours, whole = np.zeros(n), np.zeros((n, 3)), [], np.zeros(n, bool)
    crest = cv2.dilate(dab.astype(np.float32), np.ones((3, 3), np.uint8))  # what a perfect contour would read
    for i, (ys, xs) in enumerate(own):
        values = crest[ys, xs]
        contours.append(np.stack([(ys + 0.5) / FINE - 0.5 + box.y0, (xs + 0.5) / FINE - 0.5 + box.x0], 1))
        if not len(ys):
            continue
        whole[i] = ys.min() > 2 and xs.min() > 2 and ys.max() < h - 3 and xs.max() < w - 3
        od[i] = np.median(values[values >= 0.1]) if (values >= 0.1).any() else 0.0
        complete[i] = [(values >= cut).mean() for cut in (0.1, 0.2, 0.4)]
    return PlantedField(
        "", plant, picture, origin, box, stain, marks[:, :2], marks[:, 2] == 1, od, complete, contours, whole
    )


def territories(yx: Array, h: int, w: int, um: float, rng: np.random.Generator) -> NDArray[np.int32]:
    """Number of the mark (from 1) that each pixel belongs to, 0 far from all; borders are bent."""
    warp = [1.0 / um * smooth_noise(rng, (h, w), 3.0 / um) for _ in range(2)]
    yy, xx = np.mgrid[:h, :w].astype(np.float64)
    points = np.stack([(yy + warp[0]).ravel(), (xx + warp[1]).ravel()], 1)
    distance, index = cKDTree(yx).query(points, k=min(4, len(yx)))
    offset = rng.uniform(-1.2, 1.2, len(yx)) / um
    reach = rng.uniform(5.5, 8.5, len(yx)) / um
    best = np.argmin(distance - offset[index], axis=1)
    rows = np.arange(len(points))
    winner = index[rows, best]
    labels = np.where(distance[rows, best] <= reach[winner], winner + 1, 0).reshape(h, w).astype(np.int32)
    for i, area in enumerate(find_objects(labels, len(yx))):  # a territory is the piece that holds its mark
        if area is None:
            continue
        mask = labels[area] == i + 1
        _, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
        y, x = np.clip(np.rint(yx[i]).astype(int), 0, (h - 1, w - 1))
        kept = parts[y - area[0].start, x - area[1].start] if labels[y, x] == i + 1 else 0
        labels[area][mask & (parts != kept)] = 0
    return labels


def stained_arcs(rng: np.random.Generator, share: float) -> list[tuple[float, float]]:
    """One to three arcs (start, length), in turns, that are ``share`` of a contour together."""
    if share > 0.97:
        return [(0.0, 1.0)]
    k = int(rng.integers(1, 4))
    gaps = rng.dirichlet(np.full(k, 3.0)) * (1.0 - share)
    pieces = rng.dirichlet(np.full(k, 3.0)) * share
    start, arcs = float(rng.random()), []
    for gap, piece in zip(gaps, pieces, strict=True):
        arcs.append((start % 1.0, float(piece)))
        start += piece + gap
    return arcs


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Array:
    """Gaussian noise of unit variance, correlated over ``sigma`` pixels."""
    step = max(1, int(sigma / 2))
    small = rng.standard_normal((-(-shape[0] // step) + 2, -(-shape[1] // step) + 2))
    small = gaussian_filter(small, sigma / step, mode="wrap")
    small /= small.std()
    return cv2.resize(small, (small.shape[1] * step, small.shape[0] * step), interpolation=cv2.INTER_CUBIC)[
        : shape[0], : shape[1]
    ]


def planted_fields(plants: tuple[Plant, ...] = PLANTS) -> list[PlantedField]:
    """Every unstained field with each of ``plants``."""
    made = []
    for (core, y0, x0, side), marks in sorted(marked_fields().items()):
        if not core.startswith(UNSTAINED) or side < 512:
            continue
        rgb = np.ascontiguousarray(cv2.imread(str(SHARED / "data" / "ihc_cores" / core))[..., ::-1])
        stain = profile_of(rgb)
        stain = replace(stain, dab=REFERENCE_DAB) if stain.source != "estimated" else stain
        box = Box(y0, x0, y0 + side, x0 + side)
        around = box.grown(320)
        around = Box(
            max(around.y0, 0), max(around.x0, 0), min(around.y1, rgb.shape[0]), min(around.x1, rgb.shape[1])
        )
        part = np.ascontiguousarray(rgb[around.y0 : around.y1, around.x0 : around.x1])
        for plant in plants:
            field = plant_field(part, (around.y0, around.x0), box, marks, stain, plant)
            made.append(replace(field, name=f"{core[:6]} {y0} {x0}"))
    return made


def read(field: PlantedField) -> tuple[np.ndarray, NDArray[np.intp], NDArray[np.intp]]:
    """The kernel's cells in the field, and the pairs (mark, cell) within `FOUND_UM`."""
    kernel = IHCKernel(IHCParams(), field.stain, MPP)
    need = field.box.grown(kernel.halo_px)
    padded = np.full((need.height, need.width, 3), 255, np.uint8)
    y0, x0 = max(need.y0, field.origin[0]), max(need.x0, field.origin[1])
    part = field.rgb[y0 - field.origin[0] :, x0 - field.origin[1] :][: need.y1 - y0, : need.x1 - x0]
    padded[y0 - need.y0 :, x0 - need.x0 :][: part.shape[0], : part.shape[1]] = part
    cells = kernel(padded, (need.y0, need.x0), field.box)
    place = np.stack([cells["y_px0"], cells["x_px0"]], 1)
    apart = np.hypot(*(field.marks[:, None] - place[None]).transpose(2, 0, 1)) * MPP
    rows, columns = linear_sum_assignment(np.where(apart <= FOUND_UM, apart, 1e6))
    hit = apart[rows, columns] <= FOUND_UM
    return cells, rows[hit], columns[hit]


def oracle(field: PlantedField) -> tuple[Array, Array]:
    """Median OD and stained shares (as `PlantedField.complete`) on the true contours, from the picture."""
    h, dab = unit(field.stain.hematoxylin), unit(field.stain.dab)
    apart = np.linalg.inv(np.stack([h, dab, unit(np.cross(h, dab))]))
    seen = (-np.log10(np.maximum(field.rgb, 1) / np.array(field.stain.i0)) @ apart)[..., 1]
    crest = cv2.dilate(seen.astype(np.float32), np.ones((3, 3), np.uint8))
    od, complete = np.zeros(len(field.contours)), np.zeros((len(field.contours), 3))
    for i, contour in enumerate(field.contours):
        if len(contour):
            values = map_coordinates(crest, (contour - field.origin).T, order=1, mode="nearest")
            od[i] = np.median(values[values >= 0.1]) if (values >= 0.1).any() else 0.0
            complete[i] = [(values >= cut).mean() for cut in (0.1, 0.2, 0.4)]
    return od, complete


def classes(od: Array, complete: Array, p: ScoreParams) -> NDArray[np.int64]:
    """Ordinal class 0 to 3 (breast) of cells by OD and completeness; 2u counts as 2."""
    full, some = complete >= p.complete_fraction, complete >= p.detect_fraction
    grade = np.where(
        od < p.weak_od,
        1,
        np.where(full, np.where(od < p.strong_od, 2, 3), np.where(od < p.moderate_od, 1, 2)),
    )
    return np.where(some, grade, 0)


def measured(cells: np.ndarray) -> MeasuredCells:
    """Rows of the kernel as scores take them; every cell is tumour."""
    columns = {name: cells[name] for name in cells.dtype.names}
    columns["is_tumour"] = np.ones(len(cells), bool)
    columns["y_um"], columns["x_um"] = columns["y_px0"] * MPP, columns["x_px0"] * MPP
    return MeasuredCells.of(columns, ScoreParams(), IHCParams().ladder_od)


def judge(field: PlantedField) -> dict[str, float]:
    """Agreement of reading and truth in one field; cells whole in it, certain marks."""
    cells, marks, found = read(field)
    use = field.whole[marks] & field.certain[marks]
    marks, found = marks[use], found[use]
    cells = cells[found]
    truth_od, truth_c = field.od[marks], field.complete[marks]
    ladder = [round(v, 2) for v in IHCParams().ladder_od]
    read_c = np.stack([cells[f"completeness_{ladder.index(cut):02d}"] for cut in (0.1, 0.2, 0.4)], 1).astype(
        float
    )
    read_od = cells["membrane_od_median"].astype(float)
    read_class = ORDINAL[classify(measured(cells), ScoreParams(), load_rules(RULES))]
    both = (read_od > 0) & (truth_od > 0)
    p = ScoreParams()
    truth_class, (own_od, own_c) = (
        classes(truth_od, truth_c[:, 0], p),
        (each[marks] for each in oracle(field)),
    )
    own_class = classes(own_od, own_c[:, 0], p)
    return {
        "n": float(len(marks)),
        "found": float(len(marks) / max((field.whole & field.certain).sum(), 1)),
        "od_r": correlation(read_od[both], truth_od[both]),
        "c10_r": correlation(read_c[:, 0], truth_c[:, 0]),
        "c20_r": correlation(read_c[:, 1], truth_c[:, 1]),
        "c40_r": correlation(read_c[:, 2], truth_c[:, 2])
        if (truth_c[:, 2] > 0).mean() > 0.3
        else float("nan"),
        "c20_err": float(np.abs(read_c[:, 1] - truth_c[:, 1]).mean()),
        "bias": bias(read_c[:, 1], truth_c[:, 1]),
        "kappa": cohens_kappa(read_class, truth_class, 4),
        "agree": float((read_class == truth_class).mean()),
        "one": float(np.bincount(truth_class).max() / len(truth_class)),
        "o_od_r": correlation(own_od[both], truth_od[both]),
        "o_c20_r": correlation(own_c[:, 1], truth_c[:, 1]),
        "o_bias": bias(own_c[:, 1], truth_c[:, 1]),
        "o_kappa": cohens_kappa(own_class, truth_class, 4),
        "o_agree": float((own_class == truth_class).mean()),
    }


def bias(found: Array, truth: Array) -> float:
    """The largest mean error in a tenth of the truth that holds five cells or more."""
    errors = [float((found[t] - truth[t]).mean()) for t in tenths(truth) if t.sum() >= 5]
    return max(errors, key=abs, default=float("nan"))


def tenths(value: Array) -> list[NDArray[np.bool_]]:
    """Masks of the tenths of 0 to 1 in which values lie."""
    return [(np.minimum((value * 10).astype(int), 9) == k) for k in range(10)]


def correlation(a: Array, b: Array) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 5 and a.std() > 0 and b.std() > 0 else float("nan")


def main() -> None:
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    for field in planted_fields():
        rows[field.plant.name].append(judge(field))
        if len(sys.argv) > 1:
            path = Path(sys.argv[1]) / f"{field.name} {field.plant.name}.png".replace(" ", "_")
            cv2.imwrite(str(path), field.rgb[..., ::-1])
    keys = list(next(iter(rows.values()))[0])
    print(f"{'means within fields':20s}" + "".join(f"{key:>9s}" for key in keys))
    for name, one in rows.items():
        print(f"{name:20s}" + "".join(f"{np.nanmean([row[key] for row in one]):9.3f}" for key in keys))


if __name__ == "__main__":
    main()
