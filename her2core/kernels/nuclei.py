"""Nuclei: seeds, and an outline around each."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.polar import (
    FORBIDDEN,
    MAX_BEND,
    N_RAYS,
    RayIndex,
    RayOffsets,
    Sheet,
    bend_costs,
    centroid,
    sample,
)
from her2core.kernels.polar_lanes import LANES, in_lanes, new_scores, trace_lanes

STRIP: Final = 32  # height of a band of nuclei worked through from left to right, pixels
STEP_PARTS: Final = 16  # of a grey, in which steps across an edge are kept
SHARE_BITS: Final = 8  # below those of one over a width, and of an edge's weight
BEND: Final = (10, 10)  # cost of a step between neighbouring rays, and of its square, 1/16 grey; ours
BELOW_GREY: Final = -8  # inside a nucleus so much darker than the mean of the surroundings; ours
PALE_COST: Final = 2  # of a grey below the floor, 1/16 grey; ours
UNLIMITED: Final = np.zeros((0, N_RAYS), np.int32)  # outlines that may be as wide as the rule allows


class Nuclei(NamedTuple):
    """Outlined nuclei on the grid of the nuclear image, one row each."""

    y: NDArray[np.int32]  # centre pixel of the outline
    x: NDArray[np.int32]
    path: NDArray[np.int32]  # (n, ray) radius, px
    score: NDArray[np.int32]  # mean step across it, 1/16 grey
    hidden: NDArray[np.bool_]  # no nucleus shows: the pocket that a membrane encloses

    @classmethod
    def at(cls, y: NDArray[np.int32], x: NDArray[np.int32]) -> Nuclei:
        """Centres ``(n,)`` that have no outline yet."""
        n = len(y)
        return cls(y, x, np.zeros((n, N_RAYS), np.int32), np.zeros(n, np.int32), np.zeros(n, np.bool_))

    def nearby(self) -> NDArray[np.intp]:
        """Indices sorted for cache locality: strips of `STRIP` rows, each from left to right."""
        return np.lexsort((self.x, self.y // STRIP))

    def strips(self, height: int) -> NDArray[np.intp]:
        """First of every strip of `STRIP` rows, and the number of all; in the order of `nearby`."""
        return np.searchsorted(self.y // STRIP, np.arange(-(-height // STRIP) + 1))

    def where(self, keep: NDArray[Any]) -> Nuclei:
        """Those that ``keep`` marks, bool ``(n,)``, or lists."""
        return Nuclei(*(column[keep] for column in self))

    def joined(self, other: Nuclei) -> Nuclei:
        """These and then the ``other``."""
        return Nuclei(*(np.concatenate(columns) for columns in zip(self, other, strict=True)))

    def improve(self, rows: NDArray[np.intp], other: Nuclei) -> None:
        """Put ``other`` in place of ``rows`` (m,) where its score is higher."""
        better = np.flatnonzero(other.score > self.score[rows])
        for column, others in zip(self, other, strict=True):
            column[rows[better]] = others[better]


class Given(NamedTuple):
    """Nuclei that another program outlined, in place of those that are found.

    Attributes
    ----------
    y_px, x_px
        float64 ``(n,)``: centres, absolute pixels of the kernel's level; sorted by ``(y, x)``.
    radius_um
        float32 ``(n, 36)``: radii along the rays.
    """

    y_px: NDArray[np.float64]
    x_px: NDArray[np.float64]
    radius_um: NDArray[np.float32]

    def on_grid(self, factor: int, um: float, r_min: int, r_max: int) -> Nuclei:
        """These on the grid of the nuclear image: a pixel is ``factor`` of the level, and ``um`` wide.

        A centre goes to the pixel that it lies in, and its radii make up for the way there. They are kept
        within ``r_min`` and ``r_max`` pixels, and turn no sharper than an outline that was traced.
        """
        y, x = ((axis + 0.5) / factor for axis in (self.y_px, self.x_px))
        row, column = (np.floor(axis).astype(np.int32) for axis in (y, x))
        turn = 2.0 * np.pi * np.arange(N_RAYS) / N_RAYS
        way = (y - row - 0.5)[:, None] * np.sin(turn) + (x - column - 0.5)[:, None] * np.cos(turn)
        path = np.floor(self.radius_um.astype(np.float64) / um + way + 1.0).astype(np.int32)  # + 1/2, rounded
        path = np.clip(path, r_min, r_max)
        for _ in range(-(-(r_max - r_min) // MAX_BEND)):  # as far as a bend can reach
            beside = np.minimum(np.roll(path, 1, axis=1), np.roll(path, -1, axis=1))
            path = np.minimum(path, beside + MAX_BEND)
        n = len(row)
        return Nuclei(row, column, path, np.ones(n, np.int32), np.zeros(n, np.bool_))


def find_seeds(image: NDArray[Any], least: int, radius: int, margin: int, seeds: NDArray[np.int32]) -> int:
    """Local maxima of ``image`` (h, w) within a disc; the first in reading order wins a tie.

    Writes ``(y, x)`` rows into ``seeds`` in reading order and returns their number.
    """
    found: int = _find_seeds(image, least, _disc(radius, image.shape[1]), margin, seeds)
    return found


def _disc(radius: int, width: int) -> NDArray[np.int64]:
    """Places (n,) within ``radius`` of a pixel that follow it in rows of ``width``; nearest first."""
    dy, dx = np.mgrid[: radius + 1, -radius : radius + 1]
    square = dy * dy + dx * dx
    later = (square <= radius * radius) & ((dy > 0) | (dx > 0))
    place: NDArray[np.int64] = (dy * width + dx)[later]
    return place[np.argsort(square[later], kind="stable")]


@njit(nogil=True, cache=True, boundscheck=False)
def _find_seeds(
    image: NDArray[np.int16] | NDArray[np.uint8],
    least: int,
    disc: NDArray[np.int64],
    margin: int,
    seeds: NDArray[np.int32],
) -> int:
    h, w = image.shape
    n = 0
    width = max(w - 2 * margin, 0)
    flat = image.ravel()
    eights = np.zeros(width // 8 + 1, np.uint64)
    top = eights.view(np.uint8)
    for y in range(margin, h - margin):
        row, up, down = image[y], image[y - 1, margin:], image[y + 1, margin:]
        _find_tops(row[margin:], row[margin - 1 :], row[margin + 1 :], up, down, least, top[:width])
        for k in range(len(eights)):
            if eights[k] != 0:  # few are: eight pixels at a time are passed over
                for x in range(margin + 8 * k, margin + 8 * k + 8):
                    if top[x - margin] and _is_peak(flat, y * w + x, disc) and n < len(seeds):
                        seeds[n, 0] = y
                        seeds[n, 1] = x
                        n += 1
    return n


@njit(nogil=True, cache=True, boundscheck=False)
def _find_tops(
    row: NDArray[np.int16] | NDArray[np.uint8],
    left: NDArray[np.int16] | NDArray[np.uint8],
    right: NDArray[np.int16] | NDArray[np.uint8],
    up: NDArray[np.int16] | NDArray[np.uint8],
    down: NDArray[np.int16] | NDArray[np.uint8],
    least: int,
    top: NDArray[np.uint8],
) -> None:
    """Mark pixels that are `least`, and no lower than those beside them; in vector code."""
    for x in range(len(top)):
        v = row[x]
        beside = (left[x] < v) & (right[x] <= v) & (up[x] < v) & (down[x] <= v)
        top[x] = beside & (v >= least)


@njit(nogil=True, cache=True, boundscheck=False)
def _is_peak(flat: NDArray[np.int16] | NDArray[np.uint8], at: int, disc: NDArray[np.int64]) -> bool:
    v = flat[np.uint64(at)]
    for k in range(len(disc)):
        if flat[np.uint64(at - disc[k])] >= v or flat[np.uint64(at + disc[k])] > v:
            return False
    return True


class EdgeRule(NamedTuple):
    """How a nuclear edge is looked for; lengths in pixels of the nuclear image, greys in its units."""

    inner: int  # width inside the edge
    per_inner: NDArray[np.int32]  # (radius,) one over what of it there is, in 16 / 2**8
    outer: int  # width outside the edge
    per_outer: np.int32
    weight: NDArray[np.int32]  # (radius,) of an edge, 2**8 the most: a nucleolus has one too
    r_min: int
    clip: np.int32  # an edge stronger than this counts as this, 1/16 grey
    floor: int  # inside, paler than this is not nucleus
    below: int  # ... nor is what is paler than the surroundings' mean by this much
    pale: int  # cost of a pixel below the floor, 1/16 grey a grey
    bend: NDArray[np.int32]


def edge_rule(
    inner: int,
    outer: int,
    r_min: int,
    r_max: int,
    growth: float,
    clip: int,
    floor: int,
    bend: tuple[int, int] = BEND,
) -> EdgeRule:
    """Edges between means over ``inner`` and ``outer`` pixels; at a radius of ``growth`` they weigh half.

    Inside an outline, pixels below grey ``floor`` count against it.
    """
    radius = np.arange(r_max + 1)
    unit = STEP_PARTS << SHARE_BITS
    return EdgeRule(
        inner=inner,
        per_inner=(unit // np.clip(radius, 1, inner)).astype(np.int32),
        outer=outer,
        per_outer=np.int32(unit // outer),
        weight=((1 << SHARE_BITS) * radius / (radius + growth)).astype(np.int32),
        r_min=r_min,
        clip=np.int32(STEP_PARTS * clip),
        floor=floor,
        below=BELOW_GREY,
        pale=PALE_COST,
        bend=bend_costs(*bend),
    )


class Workspace(NamedTuple):
    """Scratch of `outline_all`, and the rule's weights, all in lanes (see `polar_lanes`)."""

    sample: NDArray[np.int32]  # greys of a ray
    sums: NDArray[np.int32]  # of the greys before every radius, after `inner` zeros
    pale: NDArray[np.int32]  # what a radius pays for the pale pixels before it
    floor: NDArray[np.int32]
    gain: NDArray[np.int32]
    scores: NDArray[np.int32]
    paths: NDArray[np.int32]
    per_inner: NDArray[np.int32]
    weight: NDArray[np.int32]


def workspace(rule: EdgeRule) -> Workspace:
    """Scratch for one thread."""
    m = len(rule.weight)
    return Workspace(
        sample=np.zeros((m + rule.outer) * LANES, np.int32),
        sums=np.zeros((rule.inner + m + rule.outer + 1) * LANES, np.int32),
        pale=np.zeros((m + 1) * LANES, np.int32),
        floor=np.zeros(m * LANES, np.int32),
        gain=np.zeros((N_RAYS, m * LANES), np.int32),
        scores=new_scores(m),
        paths=np.zeros((LANES, N_RAYS), np.int32),
        per_inner=in_lanes(rule.per_inner),
        weight=in_lanes(rule.weight),
    )


@njit(nogil=True, cache=True, boundscheck=False)
def outline_all(
    sheet: Sheet,
    stride: int,
    floor: NDArray[np.int32],
    limit: NDArray[np.int32],
    rule: EdgeRule,
    work: Workspace,
    found: Nuclei,
    order: NDArray[np.int64],
) -> None:
    """Trace the nuclei around the centres of ``found``, in any order; its paths and scores are filled in.

    The gain of a radius is the step from the mean inside it to the mean outside, along its ray; ``floor``
    (n,) is the grey below which there is no nucleus, ``limit`` (n, ray) the widest radii, or `UNLIMITED`. The
    score is the mean clipped step along an outline, in 1/16 grey.
    """
    m = len(rule.weight)
    inner, outer = rule.inner * LANES, rule.outer * LANES
    grey, sums, pale, least = work.sample, work.sums, work.pale, work.floor
    gain, paths = work.gain, work.paths
    centre = np.empty(LANES, np.int64)
    for first in range(0, len(order), LANES):
        batch = order[first : first + LANES]
        for lane in range(LANES):
            i = batch[min(lane, len(batch) - 1)]
            centre[lane] = found.y[i] * stride + found.x[i]
            least[lane::LANES] = floor[i]
        for a in range(N_RAYS):
            _gather(sheet, centre, a, grey)
            _sum_up(grey, inner, sums)
            _steps(sums, inner, outer, rule, work.per_inner, work.weight, gain, a)
            _pay_for_pale(grey, least, rule, pale, gain, a)
            if len(limit) > 0:
                _stop_at(limit, batch, rule.r_min, gain, a)
        trace_lanes(gain, rule.r_min, m - 1, rule.bend, work.scores, paths)
        for lane in range(len(batch)):
            i = batch[lane]
            found.path[i] = paths[lane]
            found.score[i] = _score(gain, lane, paths)


@njit(nogil=True, cache=True, boundscheck=False)
def _gather(sheet: Sheet, centre: NDArray[np.int64], a: int, grey: NDArray[np.int32]) -> None:
    """Greys along ray ``a`` around every lane's centre."""
    for r in range(len(grey) // LANES):
        for lane in range(LANES):
            grey[np.uint64(r * LANES + lane)] = sample(sheet, centre[lane], a, r)


@njit(nogil=True, cache=True, boundscheck=False)
def _sum_up(sample: NDArray[np.int32], first: int, sums: NDArray[np.int32]) -> None:
    """Add up every lane's samples: from ``first`` on ``sums`` has a zero a lane, and then the sums."""
    own = sums[first:]
    for k in range(len(sample)):
        own[LANES + k] = own[k] + sample[k]


@njit(nogil=True, cache=True, boundscheck=False)
def _steps(
    sums: NDArray[np.int32],
    inner: int,
    outer: int,
    rule: EdgeRule,
    per_inner: NDArray[np.int32],
    weight: NDArray[np.int32],
    gain: NDArray[np.int32],
    a: int,
) -> None:
    """Weighted step of every radius of ray ``a``, 1/16 grey, from sums to ``inner`` places before it, to it,
    and to ``outer`` beyond.

    In 32 bits throughout, so that it becomes vector code.
    """
    back, here, beyond, row = sums, sums[inner:], sums[inner + outer :], gain[a]
    per_outer, low, clip = np.int32(rule.per_outer), np.int32(-(rule.clip // 2)), np.int32(rule.clip)
    for k in range(len(row)):
        inside = np.int32(np.int32(here[k] - back[k]) * per_inner[k])
        outside = np.int32(np.int32(beyond[k] - here[k]) * per_outer)
        step = np.int32(np.int32(inside - outside) >> np.int32(SHARE_BITS))
        row[k] = np.int32(min(max(step, low), clip) * weight[k]) >> np.int32(SHARE_BITS)


@njit(nogil=True, cache=True, boundscheck=False)
def _pay_for_pale(
    sample: NDArray[np.int32],
    floor: NDArray[np.int32],
    rule: EdgeRule,
    pale: NDArray[np.int32],
    gain: NDArray[np.int32],
    a: int,
) -> None:
    """Let every radius of ray ``a`` pay for the pixels before it that are paler than the floor."""
    clip, cost, row = np.int32(rule.clip), np.int32(rule.pale), gain[a]
    for k in range(len(row)):
        paid = pale[k]
        row[k] -= min(paid, clip)
        pale[LANES + k] = paid + np.int32(max(np.int32(floor[k] - sample[k]), np.int32(0)) * cost)


@njit(nogil=True, cache=True, boundscheck=False)
def _stop_at(
    limit: NDArray[np.int32], batch: NDArray[np.int64], least: int, gain: NDArray[np.int32], a: int
) -> None:
    """Forbid every lane the radii beyond its limit on ray ``a``."""
    for lane in range(len(batch)):
        gain[a, (max(limit[batch[lane], a], least) + 1) * LANES + lane :: LANES] = FORBIDDEN


@njit(nogil=True, cache=True, boundscheck=False)
def _score(gain: NDArray[np.int32], lane: int, paths: NDArray[np.int32]) -> int:
    """Mean gain along a lane's outline."""
    total = 0
    for a in range(N_RAYS):
        total += gain[a, paths[lane, a] * LANES + lane]
    return total // N_RAYS


@njit(nogil=True, cache=True, boundscheck=False)
def recentre(found: Nuclei, ray_offsets: RayOffsets, ray_index: RayIndex, most: int) -> None:
    """Draw every outline around its centroid's pixel, or as near to that as ``most`` pixels allow."""
    old = np.empty(N_RAYS, np.int32)
    for i in range(len(found.y)):
        path = found.path[i]
        dy, dx, _ = centroid(path, 0.5, ray_index)
        y = min(max(int(np.floor(dy + 0.5)), -most), most)
        x = min(max(int(np.floor(dx + 0.5)), -most), most)
        found.y[i] += y
        found.x[i] += x
        if y == 0 and x == 0:
            continue
        old[:] = path
        sure = max(1, int(old.min() - np.sqrt(y * y + x * x)))  # nearer than this is inside all around
        for a in range(N_RAYS):
            r = sure
            while r < ray_offsets.dy.shape[1] and _inside(
                y + ray_offsets.dy[a, r], x + ray_offsets.dx[a, r], old, ray_index
            ):
                r += 1
            path[a] = r


@njit(nogil=True, cache=True, boundscheck=False)
def _inside(dy: int, dx: int, path: NDArray[np.int32], ray_index: RayIndex) -> bool:
    """Whether the pixel at ``(dy, dx)`` from its centre lies inside an outline."""
    row, column = dy + ray_index.reach, dx + ray_index.reach
    return bool(ray_index.distance[row, column] < path[ray_index.ray[row, column]])
