"""Fit what the IHC kernel weighs to find nuclei, and say how well that does in fields it was not fitted on.

    python benchmarks/fit_nuclei.py

Nuclei marked by eye (`tests/data/nuclei_by_eye.csv`) on real cores, which have to be at hand, and phantoms
decide which outlines are nuclei (`NucleusRule`) and which hold two (`SplittingRule`): two
logistic regressions over the measures that the kernel itself takes. Both are then fitted again without one
core after the other, and the kernel looks for the nuclei of the core left out: fields of one core share its
stain and its tissue, and leaving out a field says too much of a slide never seen. Printed are the weights, to
be copied into the two rules, and recall and precision by core: of the rules in use, of those fitted on all
cores, and of those fitted without the core. A nucleus is found within 3 um of its mark, and what lies on an
uncertain mark counts neither way.

Which outlines there are depends on the rules in use: a second run gives slightly other weights.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment, minimize
from slides import MPP, RGB, SHARED, profile_of

from her2core.kernels.ihc.kernel import IHCKernel
from her2core.kernels.ihc.nucleus_model import NucleusRule
from her2core.kernels.ihc.planes import Planes
from her2core.kernels.ihc.splitting import SplittingRule, shape, split_log_odds
from her2core.kernels.nuclei import UNLIMITED, Nuclei
from her2core.kernels.polar import centroid
from her2core.params import IHCParams
from her2core.phantom import PhantomSpec, render_field
from her2core.records import Box, StainProfile

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
FOUND_UM = 3.0
CENTRED_UM = 3.0  # an outline whose centroid is nearer to a mark is an example of a nucleus
PHANTOM = 0.15  # weight of a phantom's nucleus beside a marked one
LENIENT = 0.4  # added to the evidence of a nucleus: recall for precision
LENIENT_SPLITTING = 0.3
ALIGNED_PX = 4  # the kernel cuts a region off up to such a place: from there its grid begins with the region
EVIDENCE = ("step", "inside", "outside", "brown", "size", "rough", "uneven")
SPLITTING = ("long", "slender", "notch", "outside", "brown")
MIXED = (0.2, 0.2, 0.1, 0.2, 0.3)
PHANTOMS = (
    PhantomSpec(seed=121, mix=MIXED),
    PhantomSpec(seed=122, mix=(0.3, 0.7, 0.0, 0.0, 0.0)),
    PhantomSpec(seed=123, mix=(0.2, 0.2, 0.1, 0.5, 0.0)),
    PhantomSpec(seed=124, mix=MIXED, spacing_um=11.0),
    PhantomSpec(seed=125, mix=MIXED, spacing_um=16.0),
    PhantomSpec(seed=126, mix=MIXED, hematoxylin_od=0.12),
    PhantomSpec(seed=127, mix=MIXED, hematoxylin_od=0.5),
    PhantomSpec(seed=128, mix=MIXED, stain_strength=0.8),
    PhantomSpec(seed=129, mix=MIXED, stain_strength=1.3),
    PhantomSpec(seed=130, mix=MIXED, jpeg_quality=50),
    PhantomSpec(seed=131, mix=MIXED, jpeg_quality=95),
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Field:
    """Pixels around a field, and the nuclei that are in it."""

    name: str
    box: Box
    rgb: RGB
    origin: tuple[int, int]
    stain: StainProfile
    marks: Array  # (n, 3): y, x, certain
    planted: bool


class Examples:
    """Measures, what they are of, what they weigh, and the name of their core."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, Array, bool, float]] = []

    def fit(self, penalty: float, without: str | None) -> tuple[float, Array]:
        """Bias and weights of a logistic regression, but for the examples of one core, if any."""
        rows = [row for row in self.rows if row[0] != without]
        x, y, w = (np.array([row[k] for row in rows]) for k in (1, 2, 3))
        middle, spread = x.mean(axis=0), x.std(axis=0) + 1e-9
        a = np.c_[np.ones(len(x)), (x - middle) / spread]

        def loss(b: Array) -> tuple[float, Array]:
            t = a @ b
            slope = a.T @ (w * (1 / (1 + np.exp(-t)) - y))
            slope[1:] += penalty * b[1:]
            return float((w * (np.logaddexp(0, t) - y * t)).sum() + penalty * (b[1:] ** 2).sum() / 2), slope

        b = minimize(loss, np.zeros(a.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 3000}).x
        weights = b[1:] / spread
        return float(b[0] - weights @ middle), weights


class Watched(IHCKernel):
    """The kernel, with all outlines that it judges and those that it asks whether they hold two."""

    def __init__(self, stain: StainProfile) -> None:
        super().__init__(IHCParams(), stain, MPP)
        self.measured: list[tuple[Nuclei, Array]] = []
        self.asked: list[tuple[Nuclei, Array]] = []

    def _outlined(
        self, planes: Planes, y: NDArray[np.int32], x: NDArray[np.int32], limit: NDArray[np.int32] = UNLIMITED
    ) -> Nuclei:
        used, columns = self.rules, []
        for name in EVIDENCE:  # evidence is linear: a rule with one weight is that measure
            none = used.nucleus._replace(**dict.fromkeys(EVIDENCE, 0.0), bias=0.0)
            self.rules = replace(used, nucleus=none._replace(**{name: 256.0}))
            columns.append(super()._outlined(planes, y, x, limit).score / 65536)
        self.rules = used
        found = super()._outlined(planes, y, x, limit)
        if len(limit) == 0:
            self.measured.append((found, np.stack(columns, axis=1)))
        return found

    def _parted(self, planes: Planes, found: Nuclei) -> Nuclei:
        kept = self._unrivalled(found.where(np.lexsort((found.x, found.y))), self.geometry.near)
        stains, width = self.rules.wide_rays.over(planes.stains), planes.stains.shape[1]
        measures, none = np.zeros((len(kept.y), len(SPLITTING))), dict.fromkeys(SPLITTING, 0.0)
        for i in range(len(kept.y)):
            whole = shape(kept.path[i], self.rules.ray_index)
            for k, name in enumerate(SPLITTING):
                rule = self.rules.splitting._replace(**none, bias=1.0)._replace(**{name: 1.0})
                measures[i, k] = split_log_odds(i, whole, stains, width, kept, rule) - 1.0
        self.asked.append((kept, measures))
        return super()._parted(planes, found)


def marked_fields() -> Iterator[Field]:
    by_field: dict[tuple[str, int, int, int], list[tuple[float, float, float]]] = defaultdict(list)
    with (DATA / "nuclei_by_eye.csv").open() as rows:
        for row in csv.DictReader(rows):
            key = (row["core"], int(row["field_y0"]), int(row["field_x0"]), int(row["field_px"]))
            by_field[key].append((float(row["y_px0"]), float(row["x_px0"]), float(row["certain"])))
    for core in sorted({key[0] for key in by_field}):
        rgb = np.ascontiguousarray(cv2.imread(str(SHARED / "data" / "ihc_cores" / core))[..., ::-1])
        stain = profile_of(rgb)
        for (name, y0, x0, side), marks in by_field.items():
            if name == core:
                yield cut(core[:6], rgb, stain, Box(y0, x0, y0 + side, x0 + side), np.array(marks), False)


def phantom_fields() -> Iterator[Field]:
    for spec in PHANTOMS:
        rgb, truth = render_field(replace(spec, height_px=1024, width_px=1024))
        marks = np.stack([truth["y_px0"], truth["x_px0"], np.ones(len(truth))], axis=1)
        yield cut("phantom", rgb, profile_of(rgb), Box(48, 48, 976, 976), marks, True)


def cut(name: str, rgb: RGB, stain: StainProfile, box: Box, marks: Array, planted: bool) -> Field:
    need = box.grown(12 + IHCKernel(IHCParams(), stain, MPP).halo_px)
    need = Box(need.y0 - need.y0 % ALIGNED_PX, need.x0 - need.x0 % ALIGNED_PX, need.y1, need.x1)
    padded = np.full((need.height, need.width, 3), 255, np.uint8)
    y0, x0 = max(need.y0, 0), max(need.x0, 0)
    part = rgb[y0 : need.y1, x0 : need.x1]
    padded[y0 - need.y0 :, x0 - need.x0 :][: part.shape[0], : part.shape[1]] = part
    return Field(name, box, padded, (need.y0, need.x0), stain, marks, planted)


def examples(fields: list[Field]) -> tuple[Examples, Examples]:
    """Outlines that are nuclei or not, and that hold two nuclei or not."""
    single, double = Examples(), Examples()
    for one in fields:
        kernel = Watched(one.stain)
        kernel(one.rgb, one.origin, one.box.grown(12))
        certain = one.marks[:, 2] == 1
        share = PHANTOM if one.planted else 1.0
        hits: list[tuple[int, Array]] = []
        for found, measures in kernel.measured:
            for i in np.flatnonzero(inside(one, found) & (found.score > -(1 << 16))):
                sure, unsure = distances(one, kernel, found, i)
                if sure.min(initial=99.0) <= CENTRED_UM:
                    hits.append((int(np.argmin(sure)), measures[i]))
                elif min(sure.min(initial=99.0), unsure.min(initial=99.0)) > FOUND_UM:
                    single.rows.append((one.name, measures[i], False, 0.5 * share))
        often = Counter(mark for mark, _ in hits)
        for mark, measure in hits:
            single.rows.append((one.name, measure, True, share / often[mark]))
        for found, measures in kernel.asked:
            for i in np.flatnonzero(inside(one, found)):
                held = within(one, kernel, found, i)
                n_sure, n_unsure = int((held & certain).sum()), int((held & ~certain).sum())
                if n_sure >= 2 or n_unsure == 0:
                    double.rows.append((one.name, measures[i], n_sure >= 2, 1.0))
    return single, double


def places(one: Field, found: Nuclei) -> Array:
    return np.stack([2 * found.y + 0.5 + one.origin[0], 2 * found.x + 0.5 + one.origin[1]], axis=1)


def inside(one: Field, found: Nuclei) -> NDArray[np.bool_]:
    place, box = places(one, found), one.box
    return ((place >= (box.y0, box.x0)) & (place < (box.y1, box.x1))).all(axis=1)


def distances(one: Field, kernel: IHCKernel, found: Nuclei, i: int) -> tuple[Array, Array]:
    """Micrometres from an outline's centroid to the certain and the uncertain marks."""
    dy, dx, _ = centroid(found.path[i], 0.5, kernel.rules.ray_index)
    apart = np.hypot(*(one.marks[:, :2] - places(one, found)[i] - (2 * dy, 2 * dx)).T) * MPP
    return apart[one.marks[:, 2] == 1], apart[one.marks[:, 2] != 1]


def within(one: Field, kernel: IHCKernel, found: Nuclei, i: int) -> NDArray[np.bool_]:
    """Which marks lie inside an outline."""
    ray_index = kernel.rules.ray_index
    off = np.rint((one.marks[:, :2] - places(one, found)[i]) / 2).astype(int)
    near = (abs(off) <= ray_index.reach).all(axis=1)
    y, x = np.clip(off, -ray_index.reach, ray_index.reach).T + ray_index.reach
    return near & (ray_index.distance[y, x] < found.path[i][ray_index.ray[y, x]] + 0.75)


def rules(
    kernel: IHCKernel, single: Examples, double: Examples, without: str | None
) -> tuple[NucleusRule, SplittingRule]:
    """Both rules as fitted, but for the examples of one core, if any."""
    bias, weights = single.fit(1.0, without)
    nucleus = kernel.rules.nucleus._replace(
        **dict(zip(EVIDENCE, weights.tolist(), strict=True)), bias=bias + LENIENT
    )
    bias, weights = double.fit(2.0, without)
    splitting = kernel.rules.splitting._replace(
        **dict(zip(SPLITTING, weights.tolist(), strict=True)), bias=bias + LENIENT_SPLITTING
    )
    return nucleus, splitting


def compare(one: Field, kernel: IHCKernel) -> Counter[str]:
    """Certain marks, those found, and nuclei found that no uncertain mark excuses."""
    cells = kernel(one.rgb, one.origin, one.box.grown(12))
    found = np.stack([cells["y_px0"], cells["x_px0"]], axis=1)
    certain = one.marks[:, 2] == 1
    hits = pairs(one.marks[certain, :2], found)
    rest = np.delete(found, hits, axis=0)
    rest = np.delete(rest, pairs(one.marks[~certain, :2], rest), axis=0)
    box = one.box
    extra = ((rest >= (box.y0, box.x0)) & (rest < (box.y1, box.x1))).all(axis=1).sum()
    return Counter(marks=int(certain.sum()), hits=len(hits), extra=int(extra))


def pairs(marks: Array, found: Array) -> NDArray[np.int64]:
    """Indices of those ``found`` that match a mark, one to one."""
    apart = np.hypot(*(marks[:, None] - found[None]).transpose(2, 0, 1)) * MPP
    rows, columns = linear_sum_assignment(np.where(apart <= FOUND_UM, apart, 1e6))
    return columns[apart[rows, columns] <= FOUND_UM]


def main() -> None:
    marked = list(marked_fields())
    single, double = examples(marked + list(phantom_fields()))
    used = IHCKernel(IHCParams(), marked[0].stain, MPP)
    cores = sorted({one.name for one in marked})
    on_all = rules(used, single, double, None)
    for rule, names in zip(on_all, (EVIDENCE, SPLITTING), strict=True):
        print(", ".join(f"{name}={getattr(rule, name):.4g}" for name in ("bias", *names)))
    show("rules in use", marked, dict.fromkeys(cores, (used.rules.nucleus, used.rules.splitting)))
    show("fitted on all cores", marked, dict.fromkeys(cores, on_all))
    show("fitted without the core", marked, {core: rules(used, single, double, core) for core in cores})


def show(title: str, marked: list[Field], by_core: dict[str, tuple[NucleusRule, SplittingRule]]) -> None:
    """Print recall and precision of the rules ``by_core``."""
    print(f"\n{title:26s} {'marks':>6s} {'recall':>7s} {'precision':>10s}")
    total: dict[str, Counter[str]] = defaultdict(Counter)
    for one in marked:
        kernel = IHCKernel(IHCParams(), one.stain, MPP)
        nucleus, splitting = by_core[one.name]
        kernel.rules = replace(kernel.rules, nucleus=nucleus, splitting=splitting)
        counts = compare(one, kernel)
        total[one.name] += counts
        total["all"] += counts
    for name, n in total.items():
        recall, precision = n["hits"] / n["marks"], n["hits"] / (n["hits"] + n["extra"])
        print(f"{name:26s} {n['marks']:6d} {recall:7.3f} {precision:10.3f}")


if __name__ == "__main__":
    main()
