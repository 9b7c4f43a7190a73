"""Nuclei of an ISH slide: one seed a nucleus, cuts between touching ones, an outline around each.

Counterstained nuclei are flat, large and often touch, so that shape parts them rather than light: seeds lie
deepest inside the stained area, and two nuclei are cut where that has a neck or the stain a valley. Outlines
are those of `her2core.kernels.polar`. They are found twice, from depth with and without creases as cuts, and
compete: one convex nucleus beats its parts, two nuclei beat the dumbbell around them.

Everything looks a bounded way: a seed yields to any deeper one near it, an outline to any better one over it,
whatever becomes of those.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels import nuclei
from her2core.kernels.ish import distance_map
from her2core.kernels.ish.distance_map import BASE, ONE_STEP, SHADES, Images
from her2core.kernels.ish.polygon import Outlines, outlines
from her2core.kernels.ish.valley import PartRule, part_seeds, valley
from her2core.kernels.nuclei import Nuclei
from her2core.kernels.polar import (
    FORBIDDEN,
    N_RAYS,
    RayIndex,
    RayOffsets,
    Sheet,
    bend_costs,
    new_lap,
    new_ray_index,
    new_ray_offsets,
    trace,
)

# Lengths in micrometres; where no source is named, ours.
REACH_UM: Final = 15.0  # widest radius of a nucleus: that of a 400 um2 ellipse twice as long as wide
LEAST_DEPTH_UM: Final = 1.5  # of a seed
PEAK_UM: Final = 1.5  # two seeds are farther apart than this
NEAR_UM: Final = 10.0  # along an axis: seeds of one nucleus, of two that touch, outlines that compete
INNER_UM: Final = 1.5  # width inside an edge
OUTER_UM: Final = 1.0  # and outside
DRIFT_UM: Final = 5.0  # from a seed to the centroid of its outline
SHARED: Final = 0.5  # of an outline's area inside another: they are one nucleus
SAMPLED: Final = (0.5, 0.4)  # of a radius: first sample, and from there to the second
SHARE_BITS: Final = 18  # of one over a width: exact for a 16th of a grey and up to 8 pixels
SPARE_PX: Final = 4  # for rounding, beyond what is read
WIDE: Final = 0.5  # of the largest nucleus: a wider outline needs more contrast, or it is background; ours
OWN_EDGE: Final = 0.75  # of its step elsewhere: so much has a nucleus inside a wider outline; ours, measured
EDGE_MERIT: Final = 0.1  # ... and gains a part that has its whole step there; ours, measured
OWN_SOLIDITY: Final = 0.93  # of such a nucleus; ours
OWN_ROOM: Final = 1.25  # times its area: that of an outline that holds it and more; ours
LEAST_FREE: Final = 6  # rays, of 36, along which a nucleus must be seen to end
BEND: Final = (24, 8)  # cost of a step between neighbouring rays, and of its square, 1/16 grey
WHOLE_NECK: Final = (ONE_STEP, 2)  # depth, and 1/16 of it, that a neck between two wholes is narrower
PART_NECK: Final = (2, 1)  # ... and between two parts
VALLEY: Final = (8, 4)  # grey, and 1/16 of the nuclei's height, that a valley between two nuclei is deep
VALLEY_ASIDE_UM: Final = 1.0  # ... also so far to either side
RIM_PX: Final = 1.5  # a nucleus is looked for gaps in its stain this far inside its outline
CLIP_GREY: Final = 48  # a stronger edge counts as this one
FILL: Final = (-12, 8)  # greys by which a pixel counts for or against lying inside, at most
FILL_WEIGHT: Final = 8  # of such a grey, 1/16 grey
HALF_WAY: Final = (8, 13, 20)  # twentieths of a nucleus's height between which the level half-way down lies
# What an outline's merit, its solidity, loses:
LONG_FROM: Final = 1.5  # ... by the axis ratio beyond this ...
LONG_COST: Final = 0.1  # ... so much
LARGE_COST: Final = 0.2  # ... by the area beyond the largest, in largest areas
EMPTY_COST: Final = 2.0  # ... by the fraction that is not stained
PART_COST: Final = 0.02  # ... as a part of another: of two as good the whole is kept


class Rules(NamedTuple):
    """Lengths in pixels of the nuclear image and what follows from them."""

    um: float
    r_max: int
    near: int
    inner: int
    outer: int
    least: int  # radius
    largest: float  # area of one nucleus
    necks: tuple[PartRule, PartRule]  # of wholes and of parts
    valley: PartRule
    bend: NDArray[np.int32]
    ray_index: RayIndex
    ray_offsets: RayOffsets
    seed: int  # least depth
    reach: int  # farthest pixel from a nucleus's centroid that matters


def rules(um: float, largest_um2: float, *, levelled: bool) -> Rules:
    """For a nuclear image of ``um`` micrometres per pixel, its background brought to one level or not."""

    def px(length: float) -> int:
        return max(1, round(length / um))

    near, r_max = px(NEAR_UM), px(REACH_UM)
    # A finished nucleus depends on its rivals, these on what parts them from others, and which others there
    # are on deeper seeds near them; seeds on the stain around.
    around = px(distance_map.reach_um(levelled=levelled) + PEAK_UM)
    reach = px(DRIFT_UM) + 3 * near + max(around, r_max + px(OUTER_UM)) + SPARE_PX
    return Rules(
        um=um,
        r_max=r_max,
        near=near,
        inner=px(INNER_UM),
        outer=px(OUTER_UM),
        least=px(LEAST_DEPTH_UM),
        largest=largest_um2 / um**2,
        necks=(
            PartRule(near=near, depth=WHOLE_NECK[0], share=WHOLE_NECK[1], base=0, aside=0),
            PartRule(near=near, depth=PART_NECK[0], share=PART_NECK[1], base=0, aside=0),
        ),
        valley=PartRule(near=near, depth=VALLEY[0], share=VALLEY[1], base=BASE, aside=px(VALLEY_ASIDE_UM)),
        bend=bend_costs(*BEND),
        ray_index=new_ray_index(near + r_max + 1),
        ray_offsets=new_ray_offsets(r_max + px(OUTER_UM) + SPARE_PX, 1.0),
        seed=px(LEAST_DEPTH_UM) * ONE_STEP,
        reach=reach,
    )


@njit(nogil=True, cache=True, boundscheck=False)
def deepest(
    hill: NDArray[np.uint8],
    y: NDArray[np.int32],
    x: NDArray[np.int32],
    rule: PartRule,
    keep: NDArray[np.bool_],
) -> None:
    """Clear ``keep`` (n,) of seeds (ascending ``y``) with a deeper one near and no neck on the way there."""
    for i in range(len(y)):
        j = i + 1
        while j < len(y) and y[j] - y[i] <= rule.near:
            near = abs(x[j] - x[i]) <= rule.near and (keep[i] or keep[j])
            if near and valley(hill, y[i], x[i], y[j] - y[i], x[j] - x[i], rule) == 0.0:
                if hill[y[j], x[j]] > hill[y[i], x[i]]:
                    keep[i] = False
                else:
                    keep[j] = False
            j += 1


class Workspace(NamedTuple):
    """Scratch of `outline_all`."""

    gain: NDArray[np.int32]
    step: NDArray[np.int32]
    lap: NDArray[np.int32]
    cum: NDArray[np.int32]
    per_inner: NDArray[np.int32]  # (radius,) one over what there is of it, in 1 / 2**SHARE_BITS
    per_outer: np.int32


def workspace(rule: Rules) -> Workspace:
    """Scratch for one thread."""
    m = rule.r_max + 1
    gain, step = np.zeros((2, N_RAYS, m), np.int32)
    cum = np.zeros(rule.inner + m + rule.outer + 1, np.int32)
    within = np.minimum(np.arange(m), rule.inner).clip(1)
    one_over = ((1 << SHARE_BITS) // np.append(within, rule.outer) + 1).astype(np.int32)
    return Workspace(gain, step, new_lap(m), cum, one_over[:-1], one_over[-1])


class Found(NamedTuple):
    """Outlined nuclei, in ascending ``(y, x)``, and how each was bounded and lit."""

    shape: Outlines
    bound: NDArray[np.int32]  # (n, ray) widest radius that touching nuclei leave
    inside: NDArray[np.int32]  # grey around the seed
    step: NDArray[np.int32]  # mean step where nothing touches, 1/16 grey
    edge: NDArray[np.int32]  # (n, ray) step across the outline, 1/16 grey

    def joined(self, other: Found) -> Found:
        """These, then those."""
        return Found(
            Outlines(*(np.concatenate([a, b]) for a, b in zip(self.shape, other.shape, strict=True))),
            np.concatenate([self.bound, other.bound]),
            np.concatenate([self.inside, other.inside]),
            np.concatenate([self.step, other.step]),
            np.concatenate([self.edge, other.edge]),
        )

    def where(self, keep: NDArray[Any]) -> Found:
        """Those that ``keep`` marks, bool ``(n,)``, or lists."""
        return Found(self.shape.where(keep), *(a[keep] for a in self[1:]))


def find(picture: Images, rule: Rules, contrast: float, seeds: NDArray[np.int32], work: Workspace) -> Found:
    """Nuclei of a picture; those nearer its rim than ``rule.reach`` are not to be trusted.

    Parameters
    ----------
    contrast
        Least mean step across an outline, as a fraction of the slide's range.
    seeds
        int32 ``(most, 2)`` scratch.
    """
    whole = _outlined(picture, picture.whole, rule.necks[0], rule, contrast, seeds, work)
    parts = _outlined(picture, picture.parts, rule.necks[1], rule, contrast, seeds, work)
    both = whole.joined(parts)
    part = np.arange(len(both.inside)) >= len(whole.inside)
    order = np.lexsort((part, both.shape.x, both.shape.y))
    shape, part = both.shape.where(order), part[order]
    empty = empty_share(shape, picture.whole, rule.ray_index)
    seen = both.where(order)
    keep = order[compete(shape, part, merit(shape, part, empty, rule), (seen.step, seen.edge), rule)]
    return both.where(keep)


def _outlined(
    picture: Images,
    hill: NDArray[np.uint8],
    neck: PartRule,
    rule: Rules,
    contrast: float,
    seeds: NDArray[np.int32],
    work: Workspace,
) -> Found:
    """Outlines around the tops of ``hill`` that have contrast."""
    margin = rule.r_max + rule.outer + SPARE_PX
    n = nuclei.find_seeds(hill, rule.seed, max(1, round(PEAK_UM / rule.um)), margin, seeds)
    y, x = np.ascontiguousarray(seeds[:n].T)
    keep = np.ones(n, np.bool_)
    deepest(hill, y, x, neck, keep)
    found = Nuclei.at(y[keep], x[keep])
    n = len(found.y)
    bound, edge = np.full((n, N_RAYS), rule.r_max, np.int32), np.zeros((n, N_RAYS), np.int32)
    inside, step = np.zeros((2, n), np.int32)
    part_seeds(hill, found.y, found.x, neck, rule.ray_index, bound)
    part_seeds(picture.soft, found.y, found.x, rule.valley, rule.ray_index, bound)
    sheet = rule.ray_offsets.over(picture.soft)
    stride = picture.soft.shape[1]
    outline_all(sheet, stride, picture.wide, bound, rule, work, found, (inside, step, edge))
    keep = step >= round(nuclei.STEP_PARTS * contrast * SHADES)
    shape = outlines(found.y[keep], found.x[keep], found.path[keep], rule.ray_index)
    seen = Found(shape, bound[keep], inside[keep], step[keep], edge[keep])
    wide = np.maximum(shape.area / (WIDE * rule.largest), 1.0)
    return seen.where(seen.step >= nuclei.STEP_PARTS * contrast * SHADES * wide)


def merit(
    shape: Outlines, part: NDArray[np.bool_], empty: NDArray[np.float64], rule: Rules
) -> NDArray[np.float64]:
    """How much every outline looks like one nucleus: convex and full, not too long, not too large. Ours.

    ``part`` (n,) marks halves of a cut nucleus, ``empty`` (n,) is the share without stain; returns (n,).
    """
    long = np.maximum(shape.elongation - LONG_FROM, 0.0)
    large = np.maximum(shape.area / rule.largest - 1.0, 0.0)
    return shape.solidity - EMPTY_COST * empty - LONG_COST * long - LARGE_COST * large - PART_COST * part


@njit(nogil=True, cache=True, boundscheck=False)
def empty_share(shape: Outlines, hill: NDArray[np.uint8], ray_index: RayIndex) -> NDArray[np.float64]:
    """float64 (n,): fraction of every outline, a pixel's rim apart, where ``hill`` (h, w) is flat.

    Outlines bridge the notches between nuclei that touch.
    """
    share = np.zeros(len(shape.y))
    for i in range(len(shape.y)):
        reach = int(np.ceil(shape.radius[i].max()))
        n = 0
        empty = 0
        for dy in range(-reach, reach + 1):
            row = hill[shape.y[i] + dy]
            for dx in range(-reach, reach + 1):
                far = ray_index.distance[dy + ray_index.reach, dx + ray_index.reach]
                if far + RIM_PX <= shape.radius[i, ray_index.ray[dy + ray_index.reach, dx + ray_index.reach]]:
                    n += 1
                    empty += row[shape.x[i] + dx] <= 1
        share[i] = empty / max(n, 1)
    return share


@njit(nogil=True, cache=True, boundscheck=False)
def compete(
    shape: Outlines,
    part: NDArray[np.bool_],
    merit: NDArray[np.float64],
    contrast: tuple[NDArray[np.int32], NDArray[np.int32]],
    rule: Rules,
) -> NDArray[np.bool_]:
    """bool (n,): which of the outlines (in ascending ``y``, then ``x``, wholes first) are kept.

    Among wholes, and among parts, one that lies half in a better one is dropped. A whole and the parts whose
    centres it holds: the whole, or where their mean merit is higher, they. But what holds an outline that
    stands out of it is several nuclei, and is dropped.

    ``contrast`` is the ``step`` and the ``edge`` of `Found`.
    """
    n = len(shape.y)
    keep = np.ones(n, np.bool_)
    several = np.zeros(n, np.bool_)
    total, count = np.zeros(n), np.zeros(n, np.int64)
    for i in range(n):
        j = i + 1
        while j < n and shape.y[j] - shape.y[i] <= rule.near:
            if abs(shape.x[j] - shape.x[i]) <= rule.near:
                if part[i] == part[j]:
                    a, b = (i, j) if merit[i] >= merit[j] else (j, i)
                    wide, small = (i, j) if shape.area[i] >= shape.area[j] else (j, i)
                    inside = _shared(small, wide, shape, rule.ray_index)
                    held = inside and _has_room(small, wide, shape)
                    if held and _own_edge(small, wide, shape, contrast, rule) >= OWN_EDGE:
                        keep[wide] = False
                    elif _shared(b, a, shape, rule.ray_index):
                        keep[b] = False
                else:
                    a, b = (j, i) if part[i] else (i, j)
                    if _holds(a, shape.y[b], shape.x[b], shape, rule.ray_index):
                        own = _own_edge(b, a, shape, contrast, rule)
                        total[a] += merit[b] + EDGE_MERIT * min(max(own, 0.0), 1.0)
                        count[a] += 1
                        several[a] |= own >= OWN_EDGE and _has_room(b, a, shape)
            j += 1
    before = keep.copy()
    for i in range(n):
        if not part[i] and (several[i] or (count[i] > 0 and total[i] > merit[i] * count[i])):
            keep[i] = False
    for i in range(n):
        if part[i]:
            keep[i] = before[i] and not _beaten(i, keep, part, shape, rule)
    return keep


@njit(nogil=True, cache=True, boundscheck=False)
def _has_room(i: int, j: int, shape: Outlines) -> bool:
    """Whether outline ``j`` could hold the nucleus ``i`` and more."""
    return bool(shape.solidity[i] >= OWN_SOLIDITY and shape.area[j] >= OWN_ROOM * shape.area[i])


@njit(nogil=True, cache=True, boundscheck=False)
def _own_edge(
    i: int, j: int, shape: Outlines, contrast: tuple[NDArray[np.int32], NDArray[np.int32]], rule: Rules
) -> float:
    """Mean edge of outline ``i`` inside ``j``, as a fraction of its free one: near 1 it is no piece of it."""
    step, edge = contrast
    ray_index = rule.ray_index
    n = 0
    total = 0
    for a in range(N_RAYS):
        r = shape.radius[i, a] + rule.inner
        y = shape.y[i] + int(np.floor(r * ray_index.sin[a] + 0.5))
        x = shape.x[i] + int(np.floor(r * ray_index.cos[a] + 0.5))
        if _holds(j, y, x, shape, ray_index):
            n += 1
            total += edge[i, a]
    return total / (n * max(step[i], 1)) if n >= LEAST_FREE else 0.0


@njit(nogil=True, cache=True, boundscheck=False)
def _beaten(i: int, keep: NDArray[np.bool_], part: NDArray[np.bool_], shape: Outlines, rule: Rules) -> bool:
    """Whether a kept whole holds the centre, or half the area, of part ``i``."""
    first = np.searchsorted(shape.y, shape.y[i] - rule.near)
    last = np.searchsorted(shape.y, shape.y[i] + rule.near + 1)
    for j in range(first, last):
        rival = not part[j] and keep[j] and abs(shape.x[j] - shape.x[i]) <= rule.near
        if rival and _holds(j, shape.y[i], shape.x[i], shape, rule.ray_index):
            return True
        if rival and _shared(i, j, shape, rule.ray_index):
            return True
    return False


@njit(nogil=True, cache=True, boundscheck=False)
def _holds(i: int, y: int, x: int, shape: Outlines, ray_index: RayIndex) -> bool:
    dy, dx = y - shape.y[i] + ray_index.reach, x - shape.x[i] + ray_index.reach
    if not (0 <= dy <= 2 * ray_index.reach and 0 <= dx <= 2 * ray_index.reach):
        return False
    return bool(ray_index.distance[dy, dx] <= shape.radius[i, ray_index.ray[dy, dx]])


@njit(nogil=True, cache=True, boundscheck=False)
def _shared(i: int, j: int, shape: Outlines, ray_index: RayIndex) -> bool:
    """Whether `SHARED` of outline ``i`` lies in ``j``, by samples at half and nine tenths of every radius."""
    dy, dx = float(shape.y[i] - shape.y[j]), float(shape.x[i] - shape.x[j])
    reach = (SAMPLED[0] + SAMPLED[1]) * shape.radius[i].max() + shape.radius[j].max() + SPARE_PX
    if dy * dy + dx * dx > reach * reach:
        return False
    need = SHARED * 2.0 * N_RAYS
    n = 0
    for a in range(N_RAYS):
        for part in range(2):
            r = shape.radius[i, a] * (SAMPLED[0] + SAMPLED[1] * part)
            y = shape.y[i] + int(np.floor(r * ray_index.sin[a] + 0.5))
            x = shape.x[i] + int(np.floor(r * ray_index.cos[a] + 0.5))
            n += _holds(j, y, x, shape, ray_index)
        if n >= need or n + 2 * (N_RAYS - 1 - a) < need:
            break
    return n >= need


@njit(nogil=True, cache=True, boundscheck=False)
def outline_all(
    sheet: Sheet,
    stride: int,
    wide: NDArray[np.uint8],
    bound: NDArray[np.int32],
    rule: Rules,
    work: Workspace,
    found: Nuclei,
    seen: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]],
) -> None:
    """Trace every nucleus of ``found``: its paths, and ``inside``, ``step`` and ``edge`` as `Found` has them.

    ``wide`` (h, w) is the smoothed image, ``bound`` (n, ray) the farthest radius in pixels, ``seen`` three
    arrays, a row a nucleus. The gain of a radius is the step across it, and what lies within it above the
    level half-way down from the nucleus: where another nucleus touches there is no step, and the outline
    goes on to the cut.
    """
    flat, offset = sheet
    inside, free, edge = seen
    gain, step, lap, cum, per_inner, per_outer = work
    m = gain.shape[1]
    clip = np.int32(CLIP_GREY * 16)
    for i in range(len(found.y)):
        at = found.y[i] * stride + found.x[i]
        level = 0
        for a in range(N_RAYS):
            for r in range(rule.least):
                level += flat[at + offset[a, r]]
        level //= N_RAYS * rule.least
        inside[i] = level
        above = level - BASE
        lowest, highest = HALF_WAY[0] * above // HALF_WAY[2], HALF_WAY[1] * above // HALF_WAY[2]
        half = min(max(np.int32(wide[found.y[i], found.x[i]]), BASE + lowest), BASE + highest)
        for a in range(N_RAYS):
            ray = offset[a]
            for r in range(m + rule.outer):
                cum[rule.inner + r + 1] = cum[rule.inner + r] + np.int32(flat[at + ray[r]])
            _steps(
                cum, cum[rule.inner :], cum[rule.inner + rule.outer :], per_inner, per_outer, clip, step[a]
            )
            last = min(max(bound[i, a], rule.least), m - 1)
            gain[a, : rule.least] = FORBIDDEN
            gain[a, last + 1 :] = FORBIDDEN
            total = np.int32(0)
            for r in range(last + 1):
                if r >= rule.least:
                    gain[a, r] = step[a, r] + total
                grey = cum[rule.inner + r + 1] - cum[rule.inner + r]
                fill = min(max(np.int32(grey - half), np.int32(FILL[0])), np.int32(FILL[1]))
                total += np.int32(FILL_WEIGHT) * fill
        trace(gain, rule.least, m - 1, rule.bend, lap, found.path[i])
        for a in range(N_RAYS):
            edge[i, a] = step[a, found.path[i, a]]
        free[i] = _free_step(found.path[i], bound[i], step)


@njit(nogil=True, cache=True, boundscheck=False)
def _steps(
    cum: NDArray[np.int32],
    here: NDArray[np.int32],
    beyond: NDArray[np.int32],
    per_inner: NDArray[np.int32],
    per_outer: np.int32,
    clip: np.int32,
    row: NDArray[np.int32],
) -> None:
    """Step of every radius, 1/16 grey, from the ``cum`` of greys before it; in 32 bits, as vector code."""
    bits, low = np.int32(SHARE_BITS), np.int32(-(clip // 4))
    for r in range(len(row)):
        inside = np.int32(np.int32(16) * (here[r] - cum[r]) * per_inner[r]) >> bits
        outside = np.int32(np.int32(16) * (beyond[r] - here[r]) * per_outer) >> bits
        row[r] = min(max(np.int32(inside - outside), low), clip)


@njit(nogil=True, cache=True, boundscheck=False)
def _free_step(path: NDArray[np.int32], bound: NDArray[np.int32], step: NDArray[np.int32]) -> int:
    """Mean step along the rays that no neighbour bounds; 0 of too few."""
    total = 0
    n = 0
    for a in range(N_RAYS):
        if path[a] < bound[a] - 1:
            total += step[a, path[a]]
            n += 1
    return total // n if n >= LEAST_FREE else 0
