"""Fit what the IHC kernel weighs to draw contours and to accept pockets, and judge it on cores left out.

    python benchmarks/fit_contours.py

Truth are contours drawn by eye on three stained cores (`tests/data/contours_by_eye.csv`) and membranes
planted on two unstained ones (`planted.py`); the images have to be at hand. Tiles and camera fields are for
judging only (`judge_contours.py`).

*Contours.* Along every ray the border's radius is one of those that the kernel allows. A conditional logit
gives each the log-odds that `her2core/kernels/ihc/contour.py` names; they are fitted on all rays together.
*Pockets.* A logistic regression tells outlines that are a cell's (30 to 125 % of its area) from those in no
cell, by the measures of `pockets.PocketRule`; outlines of a part of a cell count neither way.

Printed are the constants, to be copied into the two modules, and for each stained core what weights fitted
without it do there: the loss and the likeliest radius of its rays, pockets rightly taken and wrongly taken.
Which radii and outlines there are depends on the rules in use: a second run gives slightly other weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from judge_contours import drawn_fields, profile_of
from numpy.typing import NDArray
from planted import planted_fields
from scipy.optimize import linear_sum_assignment, minimize
from slides import MPP, RGB, SHARED

from her2core.kernels.ihc import contour, membrane, pockets
from her2core.kernels.ihc.kernel import Cells, IHCKernel, Outlines
from her2core.kernels.ihc.planes import Planes
from her2core.kernels.nuclei import Nuclei
from her2core.kernels.polar import N_RAYS, centroid
from her2core.params import IHCParams
from her2core.records import Box, StainProfile

FOUND_UM = 3.0
EYE, PLANTED = 1.0, 0.25  # weight of a ray drawn by eye, and of a planted one: these are ten times as many
EYE_POCKET, PLANTED_POCKET = 3.0, 0.15
PENALTY = 5.0
SURE_STEPS = 1.5  # spread of the drawn radius
NUCLEUS_UM = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.5, 5.0, 7.0)  # where slopes may change
POCKET_UM = (0.5, 1.0, 1.5, 2.0, 3.5)
PAST_UM = (0.5, 1.25)
BEFORE_UM = (0.5, 1.25, 2.5, 4.5)
OPEN_UM = (1.0, 2.0, 4.0)
POCKETS = ("closed", "height", "size", "rough", "tissue")

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """Pixels, and the true cells in them."""

    core: str
    rgb: RGB
    origin: tuple[int, int]
    box: Box
    stain: StainProfile
    centres: Array  # (n, 2) of the nuclei, y and x
    contours: list[Array]  # closed polygons (k, 2); empty where a cell cannot be outlined
    certain: list[bool]
    eye: bool


@dataclass
class Examples:
    """Rays with their radii, and outlines of pockets."""

    rays: list[tuple[str, float, Array, Array]] = field(default_factory=list)  # core, weight, (r, k), (r,)
    pockets: list[tuple[str, float, Array, bool]] = field(default_factory=list)


class Watched(IHCKernel):
    """The kernel, with what it sees along the rays of its cells, and all pockets that it looks at."""

    def __init__(self, stain: StainProfile) -> None:
        super().__init__(IHCParams(), stain, MPP)
        self.asked: list[tuple[Nuclei, Array]] = []

    def _outlined_pockets(
        self, planes: Planes, pocket: RGB, wide: RGB, y: NDArray[np.int32], x: NDArray[np.int32]
    ) -> Nuclei:
        found = super()._outlined_pockets(planes, pocket, wide, y, x)
        sheet, width, scratch = (
            self.rules.wide_rays.over(planes.stains),
            planes.soft.shape[1],
            np.empty(N_RAYS),
        )
        clear = self.rules.contour.clear_glass
        rows = [
            pockets.measure_pocket(
                sheet, found.y[i] * width + found.x[i], found.path[i], clear, self.rules.pocket, scratch
            )
            for i in range(len(found.y))
        ]
        self.asked.append((found, np.array(rows).reshape(-1, len(POCKETS))))
        return found

    def _measure(
        self, planes: Planes, found: Nuclei, inner: Box, source: int | None
    ) -> tuple[Cells, Outlines]:
        self.found = found.where(found.nearby())
        strips = self.found.strips(planes.soft.shape[0])
        width, stride = planes.soft.shape[1], planes.dab.shape[1]
        at = self.geometry.bin * (self.found.y.astype(np.int64) * stride + self.found.x)
        offset = self.rules.fine_rays.dy.astype(np.int64) * stride + self.rules.fine_rays.dx
        inside = (self.found.y > 60) & (self.found.y < len(planes.soft) - 60)
        inside &= (self.found.x > 60) & (self.found.x < width - 60)
        self.rows = np.flatnonzero(inside)
        self.brown = contour.COMPRESSED[planes.dab.ravel()[at[self.rows, None, None] + offset[None]]].astype(
            float
        )
        self.mid = np.zeros((len(self.rows), N_RAYS))
        for k, i in enumerate(self.rows):
            membrane.bound_rays(
                i, self.found, strips, self.geometry.neighbour, self.rules.ray_index, self.mid[k]
            )
        return super()._measure(planes, found, inner, source)


def regions() -> Iterator[Region]:
    """Windows drawn by eye on cores, and planted fields."""
    where = {path.name: path for path in (SHARED / "data" / "ihc_cores").glob("*.jpg")}
    own = [one for one in drawn_fields() if one.image in where]
    for image in dict.fromkeys(one.image for one in own):
        rgb = np.ascontiguousarray(cv2.imread(str(where[image]))[..., ::-1])
        stain = profile_of(rgb, MPP)
        for one in own:
            if one.image == image:
                centres = np.array([drawn.centre for drawn in one.drawn])
                contours = [drawn.contour for drawn in one.drawn]
                certain = [drawn.certain for drawn in one.drawn]
                yield Region(image[:6], rgb, (0, 0), one.box, stain, centres, contours, certain, True)
    for one in planted_fields():
        contours = [
            ordered(c, m) if whole else c[:0]
            for c, m, whole in zip(one.contours, one.marks, one.whole, strict=True)
        ]
        certain = one.certain.tolist()
        yield Region(
            one.name[:6], one.rgb, one.origin, one.box, one.stain, one.marks, contours, certain, False
        )


def ordered(points: Array, centre: Array) -> Array:
    """Border pixels in the order in which they are seen from the centre."""
    away = points - centre
    return points[np.argsort(np.arctan2(away[:, 0], away[:, 1]))]


def examples(region: Region, into: Examples) -> None:
    kernel = Watched(region.stain)
    need = region.box.grown(kernel.halo_px)
    padded = np.full((need.height, need.width, 3), 255, np.uint8)
    y0, x0 = max(need.y0, region.origin[0]), max(need.x0, region.origin[1])
    part = region.rgb[y0 - region.origin[0] :, x0 - region.origin[1] :][: need.y1 - y0, : need.x1 - x0]
    padded[y0 - need.y0 :, x0 - need.x0 :][: part.shape[0], : part.shape[1]] = part
    kernel(padded, (need.y0, need.x0), region.box)
    coarse = 2 * kernel.geometry.bin
    origin = np.array([need.y0 + -need.y0 % coarse, need.x0 + -need.x0 % coarse])
    add_rays(kernel, region, origin, into)
    add_pockets(kernel, region, origin, into)


def places(kernel: Watched, found: Nuclei, origin: NDArray[np.int64]) -> tuple[Array, Array]:
    """Where outlines start, and their centroids; pixels of the image."""
    start = kernel.geometry.bin * np.stack([found.y, found.x], 1) + 0.5 * (kernel.geometry.bin - 1) + origin
    inner = np.array([centroid(path, 0.5, kernel.rules.ray_index)[:2] for path in found.path]).reshape(-1, 2)
    return start, start + kernel.geometry.bin * inner


def add_rays(kernel: Watched, region: Region, origin: NDArray[np.int64], into: Examples) -> None:
    found = kernel.found.where(kernel.rows)
    start, place = places(kernel, found, origin)
    apart = np.hypot(*(region.centres[:, None] - place[None]).transpose(2, 0, 1)) * MPP
    rows, columns = linear_sum_assignment(np.where(apart <= FOUND_UM, apart, 1e6))
    for i, j in zip(rows, columns, strict=True):
        if apart[i, j] > FOUND_UM or len(region.contours[i]) < 3 or not region.certain[i]:
            continue
        true = radii(region.contours[i], start[j]) * MPP / kernel.geometry.step_um
        values, allowed = features(
            kernel, found.path[j], bool(found.hidden[j]), kernel.mid[j], kernel.brown[j]
        )
        for a in range(N_RAYS):
            r = np.flatnonzero(allowed[a])
            if np.isnan(true[a]) or not len(r) or not r[0] - 3 <= true[a] <= r[-1] + 3:
                continue
            share = np.exp(-0.5 * ((r - true[a]) / SURE_STEPS) ** 2)
            into.rays.append((region.core, EYE if region.eye else PLANTED, values[a, r], share / share.sum()))


def radii(polygon: Array, start: Array) -> Array:
    """Where rays from ``start`` first meet a closed polygon, pixels; NaN where they do not."""
    corner, side = polygon - start, np.roll(polygon, -1, 0) - polygon
    out = np.full(N_RAYS, np.nan)
    for a in range(N_RAYS):
        sin, cos = np.sin(2 * np.pi * a / N_RAYS), np.cos(2 * np.pi * a / N_RAYS)
        across = cos * side[:, 0] - sin * side[:, 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            along = (sin * corner[:, 1] - cos * corner[:, 0]) / across
            far = (corner[:, 1] * side[:, 0] - corner[:, 0] * side[:, 1]) / across
        hits = far[(along >= 0) & (along < 1) & (far > 0)]
        out[a] = hits.min() if len(hits) else np.nan
    return out


def features(
    kernel: Watched, path: NDArray[np.int32], hidden: bool, mid: Array, brown: Array
) -> tuple[Array, NDArray[np.bool_]]:
    """What a radius's log-odds are made of ``(ray, radius, k)``, and which radii are allowed."""
    rule, um = kernel.rules.contour, kernel.geometry.step_um
    n = brown.shape[1]
    r = np.arange(n)[None]
    bound = np.zeros((N_RAYS, 4), np.int32)
    contour._bound(path, hidden, mid, n - 1 - rule.flank, rule, bound)
    edge, least, middle, most = (bound[:, k, None] for k in range(4))
    allowed = (r >= least) & (r <= most)
    flank = rule.flank
    wide = np.pad(brown, ((0, 0), (flank, flank)), "edge")
    crest = 2 * brown - wide[:, :n] - wide[:, 2 * flank :]
    up = np.maximum(crest, 0)
    over = np.where(r >= least, np.maximum(crest - contour.CREST, 0), 0)
    crossed = np.pad(np.cumsum(over, 1), ((0, 0), (flank, 0)))[:, :n]
    beyond, alone = (r - edge) * um, middle < 0
    away = np.where(alone, 0.0, (r - middle) * um)

    def slopes(x: Array, bends: tuple[float, ...]) -> list[Array]:
        return [x, *(np.maximum(x - bend, 0) for bend in bends)]

    seen, pocket = float(not hidden), float(hidden)
    columns = [seen * v for v in slopes(beyond, NUCLEUS_UM)]
    columns += [pocket * v for v in slopes(beyond, POCKET_UM)]
    columns += slopes(np.maximum(away, 0), PAST_UM) + slopes(np.maximum(-away, 0), BEFORE_UM)
    columns += [alone * v for v in slopes(beyond, OPEN_UM)]
    columns += [
        up,
        np.minimum(up, 64),
        np.minimum(up, 24),
        np.minimum(crest, 0),
        brown,
        np.minimum(brown, 64),
    ]
    columns += [np.minimum(crossed, rule.most_crossed)]
    return np.stack(np.broadcast_arrays(*columns), -1), allowed


def add_pockets(kernel: Watched, region: Region, origin: NDArray[np.int64], into: Examples) -> None:
    weight = EYE_POCKET if region.eye else PLANTED_POCKET
    shapes = [np.ascontiguousarray(c, np.float32) for c in region.contours]
    areas = [cv2.contourArea(c) if len(c) > 2 else 0.0 for c in shapes]
    for found, measures in kernel.asked:
        _, place = places(kernel, found, origin)
        box = region.box
        inside = ((place >= (box.y0, box.x0)) & (place < (box.y1, box.x1))).all(1)
        for i in np.flatnonzero(inside & (found.score > -(1 << 16))):
            size = centroid(found.path[i], 0.5, kernel.rules.ray_index)[2] * kernel.geometry.bin**2
            verdict: bool | None = False
            y, x = place[i]
            for shape, area, centre, sure in zip(shapes, areas, region.centres, region.certain, strict=True):
                if area and cv2.pointPolygonTest(shape, (float(y), float(x)), False) >= 0:
                    alike = 0.3 * area < size < 1.25 * area
                    verdict = True if alike and sure else (verdict or None)
                elif not area and np.hypot(*(centre - place[i])) * MPP < FOUND_UM:
                    verdict = verdict or None
            if verdict is not None:
                into.pockets.append((region.core, weight, measures[i], verdict))


def fit_rays(rays: list[tuple[str, float, Array, Array]]) -> tuple[Array, float]:
    """Weights of the conditional logit, and its mean loss."""
    x, y = np.concatenate([ray[2] for ray in rays]), np.concatenate([ray[3] * ray[1] for ray in rays])
    n = np.array([len(ray[2]) for ray in rays])
    first, weight = np.r_[0, np.cumsum(n)[:-1]], np.array([ray[1] for ray in rays])
    scale = x.std(axis=0) + 1e-6
    x = x / scale

    def loss(b: Array) -> tuple[float, Array]:
        s = x @ b
        top = np.maximum.reduceat(s, first)
        e = np.exp(s - np.repeat(top, n))
        z = np.add.reduceat(e, first)
        p = e * np.repeat(weight / z, n)
        value = (weight * (np.log(z) + top)).sum() - (y * s).sum() + PENALTY * (b @ b) / 2
        return float(value / weight.sum()), (x.T @ (p - y) + PENALTY * b) / weight.sum()

    result = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return result.x / scale, float(result.fun)


def judge_rays(rays: list[tuple[str, float, Array, Array]], weights: Array, step_um: float) -> str:
    off = []
    for _, _, values, share in rays:
        off.append(abs(int(np.argmax(values @ weights)) - (share * np.arange(len(share))).sum()) * step_um)
    return f"{len(rays):6d} {np.median(off):7.2f} {(np.array(off) <= 1.5).mean():7.2f}"


def fit_pockets(rows: list[tuple[str, float, Array, bool]]) -> Array:
    """Bias and weights of the logistic regression."""
    x, y, w = (np.array([row[k] for row in rows], float) for k in (2, 3, 1))
    middle, spread = x.mean(0), x.std(0)
    a = np.c_[np.ones(len(x)), (x - middle) / spread]

    def loss(b: Array) -> tuple[float, Array]:
        t = a @ b
        value = (w * (np.logaddexp(0, t) - y * t)).sum() + (b[1:] ** 2).sum() / 2
        return float(value), a.T @ (w * (1 / (1 + np.exp(-t)) - y)) + np.r_[0, b[1:]]

    b = minimize(loss, np.zeros(a.shape[1]), jac=True, method="L-BFGS-B").x
    return np.r_[b[0] - (b[1:] / spread * middle).sum(), b[1:] / spread]


def judge_pockets(rows: list[tuple[str, float, Array, bool]], weights: Array) -> str:
    score = np.array([weights[0] + row[2] @ weights[1:] for row in rows])
    real = np.array([row[3] for row in rows])
    return (
        f"{real.sum():7d} {(score[real] > 0).mean():6.2f} {(~real).sum():6d} {(score[~real] > 0).mean():6.2f}"
    )


def show(weights: Array) -> None:
    """Print the constants of `contour.py`."""
    left = list(np.round(weights, 5).tolist())

    def take(n: int) -> list[float]:
        taken = left[:n]
        del left[:n]
        return taken

    for name, bends in (
        ("FROM_NUCLEUS", NUCLEUS_UM),
        ("FROM_POCKET", POCKET_UM),
        ("PAST_MIDLINE", PAST_UM),
        ("BEFORE_MIDLINE", BEFORE_UM),
        ("TO_THE_OPEN", OPEN_UM),
    ):
        first, *changes = (round(v, 3) for v in take(1 + len(bends)))
        print(f"{name} = Slopes({first}, {tuple(zip(bends, changes, strict=True))})")
    print(f"HEIGHT = {tuple(take(4))}\nLEVEL = {tuple(take(2))}\nCROSSED = {take(1)[0]}")


def main() -> None:
    all_of = Examples()
    for region in regions():
        examples(region, all_of)
    step_um = Watched(next(regions()).stain).geometry.step_um
    weights, loss = fit_rays(all_of.rays)
    print(f"contours: {len(all_of.rays)} rays, loss {loss:.4f}")
    show(weights)
    of_pockets = fit_pockets(all_of.pockets)
    print(
        "pockets: " + ", ".join(f"{k}={v:.4g}" for k, v in zip(("bias", *POCKETS), of_pockets, strict=True))
    )
    print("\nleft out     rays off, um  within pockets  taken others  taken")
    eye = {ray[0] for ray in all_of.rays if ray[1] == EYE}
    for core in sorted({ray[0] for ray in all_of.rays}):
        own, rest = ([x for x in all_of.rays if (x[0] == core) == k] for k in (True, False))
        line = f"{core:10s} {judge_rays(own, fit_rays(rest)[0], step_um)}"
        mine, others = ([x for x in all_of.pockets if (x[0] == core) == k] for k in (True, False))
        print(line, judge_pockets(mine, fit_pockets(others)), "" if core in eye else "  planted")


if __name__ == "__main__":
    main()
