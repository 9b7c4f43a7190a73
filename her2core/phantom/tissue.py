"""Plant tissue: cell centres, contours, stain and nuclei.

Jittered hexagonal centres are tessellated (Voronoi), the plane is bent smoothly, and every contour is cut
into samples of about half a micrometre. Neighbours in a nest share their samples, so a shared membrane is
one line; discohesive cells get a rounded outline of their own. Each tumour cell stains the arcs of its own
contour that make up its planted completeness; a sample carries the stronger of the stains its two cells
give it.

References
----------
Membrane line widths by class: Scheel et al. 2018 (PMC5848460).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.spatial import Voronoi

from her2core.phantom.spec import (
    CLASSES,
    EMPTY,
    F64,
    I64,
    LYMPHOCYTE,
    STROMA,
    TUMOUR,
    Bools,
    Noise,
    PhantomSpec,
    Regions,
)
from her2core.phantom.truth import Cells, Contours, Tissue, measure

PATCH_UM: Final = 30.0  # correlation length of class in a mosaic; ours
SMALLEST_UM2: Final = 25.0  # least tumour nucleus; ours
SAMPLE_UM: Final = 0.5  # arc length a contour sample stands for; ours
# By CLASSES: own completeness (low, high), peak OD (low, high), line width in um (mean, sd; Scheel 2018; a
# partial moderate line is as wide as a complete one), and DAB haze in the cytoplasm. ODs are ours, inside
# the bands of ScoreParams.
OWN_COMPLETENESS: Final = np.array([(0, 0), (0.25, 0.70), (0.30, 0.65), (0.94, 1.0), (0.97, 1.0)])
PEAK_OD: Final = np.array([(0, 0), (0.15, 0.27), (0.44, 0.58), (0.29, 0.54), (0.75, 1.20)])
WIDTH_UM: Final = np.array([(0.64, 0), (0.64, 0.10), (1.0, 0.23), (1.0, 0.23), (2.14, 0.40)])
CYTOPLASM_DAB_OD: Final = np.array([0.0, 0.015, 0.03, 0.035, 0.09])


def plant(spec: PhantomSpec) -> Tissue:
    """Choose every cell, contour and stain of a field; deterministic in the spec."""
    sites, kind, nest = _sites(spec)
    at, length, pair_a, pair_b, joined = _membranes(spec, sites, kind, nest)
    n = len(sites)
    # (cell, sample) incidences, sorted by angle around the cell: its contour
    owner = np.concatenate([pair_a, pair_b[pair_b >= 0]])
    sample = np.concatenate([np.arange(len(at)), np.flatnonzero(pair_b >= 0)])
    centre = _mean_by(owner, at[sample], length[sample], n)
    lonely = np.bincount(owner, minlength=n) == 0
    kind = np.where(lonely & (kind == TUMOUR), EMPTY, kind)  # far outside, where the tessellation is open
    stray = spec.rng(13).normal(0, 0.18 * spec.spacing_um, (int(lonely.sum()), 2))
    centre[lonely] = _Bend(spec)(sites[lonely]) + stray
    away = at[sample] - centre[owner]
    order = np.lexsort((np.arctan2(away[:, 0], away[:, 1]), owner))
    owner, sample, away = owner[order], sample[order], away[order]
    first = np.searchsorted(owner, np.arange(n + 1))

    cls = _classes(spec, kind, centre)
    od, width = _stain(spec, cls, at, length, owner, sample, away)
    contours = Contours(at, length, od, width, joined, owner, sample, first)
    cells = _nuclei(spec, kind, nest, cls, centre, contours, away)
    return measure(spec, cells, contours)


class _Bend:
    """Smooth map of the lattice plane to the tissue plane: cells become elongated, in flowing directions."""

    def __init__(self, spec: PhantomSpec) -> None:
        self.scale = 4.5 * spec.spacing_um
        self.dy, self.dx = Noise(spec.rng(4), self.scale, 12), Noise(spec.rng(5), self.scale, 12)

    def __call__(self, points: F64) -> F64:
        return points + 0.14 * self.scale * np.stack([self.dy(points), self.dx(points)], 1)


def _sites(spec: PhantomSpec) -> tuple[F64, I64, Bools]:
    """Cell centres of the lattice plane, their kind, and whether they stand in a nest."""
    rng, s = spec.rng(0), spec.spacing_um
    margin = 6 * s
    rows = int((spec.height_px * spec.mpp + 2 * margin) / (s * 0.866)) + 1
    cols = int((spec.width_px * spec.mpp + 2 * margin) / s) + 1
    i, j = np.divmod(np.arange(rows * cols), cols)
    sites = np.stack([i * s * 0.866, (j + 0.5 * (i % 2)) * s], 1) - margin
    sites += rng.normal(0, 0.14 * s, sites.shape)

    regions, bend = Regions(spec), _Bend(spec)
    place = bend(sites)
    tissue = regions.tissue(place) > 0.6 * s
    tumour = tissue & (regions.tumour(place) > 0)
    lucky = rng.random(len(sites))
    crowd = Noise(spec.rng(6), 60.0)(place)  # lymphocytes come in crowds
    kind = np.full(len(sites), EMPTY)
    kind[tissue & ~tumour & (lucky < 0.38)] = STROMA
    kind[tissue & ~tumour & (lucky > 1 - np.clip(0.10 + 0.25 * crowd, 0.02, 0.8))] = LYMPHOCYTE
    kind[tumour] = TUMOUR
    kind[tumour & (lucky < 0.012)] = LYMPHOCYTE
    kind[tumour & (lucky > 0.994)] = EMPTY  # small lumina
    return sites, kind, tumour & (regions.loose(place) <= 0)


def _membranes(spec: PhantomSpec, sites: F64, kind: I64, nest: Bools) -> tuple[F64, F64, I64, I64, Bools]:
    """Sampled membrane lines: points, arc lengths, the one or two cells of each, continuation marks."""
    rng = spec.rng(7)
    voronoi = Voronoi(sites)
    ends = np.array(voronoi.ridge_vertices)
    ridge = np.flatnonzero((ends >= 0).all(1) & (kind[voronoi.ridge_points] == TUMOUR).any(1))
    a, b = voronoi.ridge_points[ridge].T.astype(np.int64)
    swap = kind[a] != TUMOUR
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    start, stop = voronoi.vertices[ends[ridge]].transpose(1, 0, 2)
    keep = np.hypot(*(stop - start).T) < 4 * spec.spacing_um
    a, b, start, stop = a[keep], b[keep], start[keep], stop[keep]

    along = stop - start
    span = np.hypot(*along.T)
    normal = np.stack([along[:, 1], -along[:, 0]], 1) / np.maximum(span, 1e-9)[:, None]
    outward = np.sign(np.sum(normal * (sites[b] - sites[a]), 1))
    free = kind[b] != TUMOUR  # the margin of a nest bulges outwards
    sag = np.where(free, 0.13 * outward, rng.normal(0, 0.06, len(a))) * span
    ripple = rng.normal(0, 0.02, len(a)) * span

    shared = nest[a] & nest[b] & ~free
    alone = ~shared & ~free  # two cells that touch without sharing: a line each
    line_a = np.concatenate([a, b[alone]])
    line_b = np.concatenate([np.where(shared, b, -1), np.full(int(alone.sum()), -1)])
    which = np.concatenate([np.arange(len(a)), np.flatnonzero(alone)])

    count = np.maximum(3, np.rint(span[which] / SAMPLE_UM).astype(np.int64) + 1)
    offset = np.concatenate([[0], np.cumsum(count)])
    line = np.repeat(np.arange(len(which)), count)
    step = np.arange(offset[-1]) - offset[line]
    t = step / (count[line] - 1)
    e = which[line]
    side = sag[e] * 4 * t * (1 - t) + ripple[e] * np.sin(2 * np.pi * t)
    at = start[e] + t[:, None] * along[e] + side[:, None] * normal[e]
    cell_a, cell_b = line_a[line], line_b[line]
    loose = ~nest[cell_a]
    at[loose] = _round(at[loose], cell_a[loose], sites)
    at = _Bend(spec)(at)
    joined = step > 0
    gap = np.append(np.hypot(*np.diff(at, axis=0).T) * joined[1:], 0.0)
    return at, 0.5 * (gap + np.roll(gap, 1)), cell_a, cell_b, joined


def _round(at: F64, owner: I64, sites: F64) -> F64:
    """Outline of a discohesive cell: between its polygon and a circle, inside both."""
    away = at - sites[owner]
    radius = np.hypot(*away.T)
    mean = np.bincount(owner, radius, len(sites)) / np.maximum(np.bincount(owner, minlength=len(sites)), 1)
    squeeze = 0.87 / (1 + (radius / (1.05 * mean[owner])) ** 4) ** 0.25
    return np.asarray(sites[owner] + away * squeeze[:, None])


def _mean_by(owner: I64, values: F64, weight: F64, n: int) -> F64:
    """Weighted means of (p, 2) `values` by owner, (n, 2); zero where an owner has none."""
    total = np.maximum(np.bincount(owner, weight, n), 1e-9)
    return np.stack([np.bincount(owner, weight * values[:, k], n) / total for k in (0, 1)], 1)


def _classes(spec: PhantomSpec, kind: I64, centre: F64) -> I64:
    """Planted class of every tumour cell: the mix holds inside the image, laid out by the pattern."""
    tumour = np.flatnonzero(kind == TUMOUR)
    score = _pattern(spec, centre[tumour])
    size = np.array((spec.height_px, spec.width_px)) * spec.mpp
    inside = ((centre[tumour] >= 0) & (centre[tumour] < size)).all(1)
    rank = (np.searchsorted(np.sort(score[inside]), score, "right") - 0.5) / max(inside.sum(), 1)
    cls = np.zeros(len(kind), np.int64)
    cls[tumour] = np.minimum(np.searchsorted(np.cumsum(spec.mix), rank), len(CLASSES) - 1)
    return cls


def _pattern(spec: PhantomSpec, centre: F64) -> F64:
    """Where high classes go first: anywhere, in patches, or around one point of the image."""
    rng = spec.rng(8)
    if spec.pattern == "scattered":
        return rng.random(len(centre))
    if spec.pattern == "mosaic":
        return Noise(rng, PATCH_UM, 40)(centre)
    heart = rng.uniform(0.3, 0.7, 2) * (spec.height_px, spec.width_px) * spec.mpp
    return np.asarray(50.0 * Noise(rng, 100.0)(centre) - np.hypot(*(centre - heart).T))


def _stain(
    spec: PhantomSpec, cls: I64, at: F64, length: F64, owner: I64, sample: I64, away: F64
) -> tuple[F64, F64]:
    """DAB OD and line width of every sample: the stronger of what its cells plant there."""
    rng, n = spec.rng(9), len(cls)
    part = rng.uniform(*OWN_COMPLETENESS[cls].T)
    peak = rng.uniform(*PEAK_OD[cls].T) * spec.stain_strength
    wide = np.maximum(rng.normal(*WIDTH_UM[cls].T), 0.4)
    # A smooth random wave around the cell, cut at the quantile of arc length that gives the completeness.
    theta = np.arctan2(away[:, 0], away[:, 1])
    wave = np.zeros(len(owner))
    for k in (1, 2, 3, 5):
        amplitude, phase = rng.normal(size=n) / k**0.5, rng.uniform(0, 2 * np.pi, n)
        wave += amplitude[owner] * np.cos(k * theta + phase[owner])
    order = np.lexsort((wave, owner))
    arc = np.cumsum(length[sample[order]])
    total = np.bincount(owner, length[sample], n)
    before = np.concatenate([[0.0], np.cumsum(total)])[owner[order]]
    rank = np.empty(len(owner))
    rank[order] = (arc - 0.5 * length[sample[order]] - before) / total[owner[order]]
    given = np.where(rank < part[owner], peak[owner], 0.0)

    od, width = np.zeros(len(at)), np.full(len(at), 0.64)
    strongest = np.argsort(given, kind="stable")  # written last wins
    od[sample[strongest]] = given[strongest]
    width[sample[strongest]] = wide[owner[strongest]]
    od *= np.clip(1 + 0.15 * Noise(spec.rng(10), 1.5, 10)(at), 0.6, 1.4)  # deposits are granular
    return od, width


def _nuclei(
    spec: PhantomSpec, kind: I64, nest: Bools, cls: I64, centre: F64, contours: Contours, away: F64
) -> Cells:
    """Nuclei inside the contours of tumour cells; round dense lymphocytes; thin fibroblasts."""
    rng, n = spec.rng(11), len(kind)
    owner, first = contours.owner, contours.first
    tumour = kind == TUMOUR
    cross = np.concatenate([away[:-1, 0] * away[1:, 1] - away[:-1, 1] * away[1:, 0], [0.0]])
    cross[first[1:][first[1:] > first[:-1]] - 1] = 0.0  # the closing step is lost: a sample's width
    area = 0.5 * np.abs(np.bincount(owner, cross, n))
    yy, xx, yx = (np.bincount(owner, away[:, i] * away[:, j], n) for i, j in ((0, 0), (1, 1), (0, 1)))
    angle = 0.5 * np.arctan2(2 * yx, xx - yy)
    root = np.hypot(xx - yy, 2 * yx)
    ratio = np.sqrt(np.sqrt((yy + xx + root) / np.maximum(yy + xx - root, 1e-6)))
    angle[~tumour] = rng.uniform(0, np.pi) + 0.6 * Noise(spec.rng(12), 80.0)(centre[~tumour])

    def by_kind(of_tumour: F64, of_lymphocyte: F64, of_stroma: F64) -> F64:
        return np.choose(np.minimum(kind, STROMA), [of_tumour, of_lymphocyte, of_stroma])

    size = np.clip(rng.lognormal(np.log(58.0), 0.28, n) * (spec.spacing_um / 13.0) ** 2, 30.0, 110.0)
    size = by_kind(size, rng.uniform(18, 27, n), rng.uniform(14, 38, n))
    aspect = np.clip(ratio * rng.uniform(0.85, 1.15, n), 1.0, 2.2)
    aspect = by_kind(aspect, rng.uniform(1, 1.15, n), rng.uniform(2.2, 6, n))
    semi = np.sqrt(size / np.pi)[:, None] * np.stack([np.sqrt(aspect), 1 / np.sqrt(aspect)], 1)
    depth = np.where(tumour, 0.035, 0.015)[:, None]
    lobes = np.column_stack([depth * rng.normal(size=(n, 2)), rng.uniform(0, 2 * np.pi, (n, 2))])
    nucleus = centre + rng.normal(0, 0.03 * spec.spacing_um, (n, 2)) * tumour[:, None]

    # Shrink a nucleus until it stays 0.8 um clear of its own membrane, but never below a section's smallest.
    from_nucleus = contours.at[contours.sample] - nucleus[owner]
    cos, sin = np.cos(angle)[owner], np.sin(angle)[owner]
    u = (from_nucleus[:, 1] * cos + from_nucleus[:, 0] * sin) / (semi[owner, 0] + 0.8)
    v = (from_nucleus[:, 0] * cos - from_nucleus[:, 1] * sin) / (semi[owner, 1] + 0.8)
    nearest = np.full(n, np.inf)
    np.minimum.at(nearest, owner, np.hypot(u, v))
    semi *= np.clip(nearest / 1.06, 0.3, 1.0)[:, None]
    semi[tumour] *= np.maximum(1, np.sqrt(SMALLEST_UM2 / np.pi / semi[tumour].prod(1)))[:, None]

    od = spec.hematoxylin_od * np.clip(rng.normal(1, 0.22, n), 0.5, 1.7)
    od *= np.choose(kind, [1.0, 1.9, 1.1, 0.0])
    blush = 0.22 * spec.hematoxylin_od * np.clip(rng.normal(1, 0.2, n), 0.4, 1.6)
    haze = CYTOPLASM_DAB_OD[cls] * spec.stain_strength * rng.uniform(0.5, 1.5, n) + 0.008
    return Cells(kind, nest, cls, centre, area, nucleus, semi, angle, lobes, od, blush, haze)
