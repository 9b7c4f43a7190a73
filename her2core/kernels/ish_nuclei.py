"""Nuclei of an ISH slide: one seed a nucleus, cuts between touching ones, an outline around each.

Counterstained nuclei are flat, large and often touch, so that shape parts them rather than light: seeds are
the places deepest inside the stained area, and two nuclei are cut where the stained area has a neck or the
stain a crease. The outlines are those of `her2core.kernels.polar`. Everything looks a bounded way: how deep
a pixel lies is counted to `DEPTH_UM`, a seed yields to any deeper one near it, whatever becomes of that.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels import nuclei
from her2core.kernels.nuclei import Nuclei, PartRule
from her2core.kernels.polar import (
    FORBIDDEN,
    N_RAYS,
    Bearings,
    Star,
    bearings,
    bend_costs,
    new_lap,
    star,
    trace,
)
from her2core.kernels.rivals import KEPT, RivalRule, suppress

SHADES: Final = 64  # grey steps from the level between nuclei to that of a typical nucleus
BASE: Final = 32  # grey value of the level between nuclei

# Lengths in micrometres; where no source is named, ours.
REACH_UM: Final = 15.0  # widest radius of a nucleus: that of a 400 um2 ellipse twice as long as wide
DEPTH_UM: Final = 7.5  # how deep inside a pixel lies is counted so far
LEAST_DEPTH_UM: Final = 1.5  # of a seed
CHROMATIN_UM: Final = 0.5  # smoothed away before pixels are called stained
TOP_UM: Final = 0.75  # smoothed away before seeds are looked for
HOLE_UM: Final = (3.0, 7.0)  # widest hole that is filled: one as dark as glass, and one that is not
CREASE_UM: Final = 1.0  # half the width of a crease
PARTNER_UM: Final = 3.0  # a pixel less than about half as bright as what is so near belongs to its rim
SURROUND_UM: Final = 10.0  # half the window whose mean tells stain from haze
PEAK_UM: Final = 1.5  # two seeds are farther apart than this
NEAR_UM: Final = 10.0  # along an axis: seeds of one nucleus, of two that touch, outlines that compete
INNER_UM: Final = 1.5  # width inside an edge
OUTER_UM: Final = 1.0  # and outside
DRIFT_UM: Final = 5.0  # from a seed to the centroid of its outline
STAINED: Final = (0.18, 0.6)  # of the range: paler is never, darker always stained; between, the mean decides
CREASE: Final = 4  # grey: a line so much paler than either side parts nuclei; or by an eighth
ONE_STEP: Final = 5  # depth of a pixel's width, so that a diagonal is 7 and a knight's move 11
SHARED_RAYS: Final = 16  # of 36: outlines that overlap so far are one nucleus


class Rules(NamedTuple):
    """Lengths in pixels of the nuclear image and what follows from them."""

    um: float
    r_max: int
    near: int
    inner: int
    outer: int
    least: int  # radius
    neck: PartRule
    valley: PartRule
    bend: NDArray[np.int32]
    look: Bearings
    star: Star
    cap: int  # of depth
    seed: int  # least depth
    reach: int  # farthest pixel from a nucleus's centroid that matters


def rules(um: float) -> Rules:
    """For a nuclear image of ``um`` micrometres per pixel."""

    def px(length: float) -> int:
        return max(1, round(length / um))

    near, r_max = px(NEAR_UM), px(REACH_UM)
    # A finished nucleus depends on its rivals, these on what parts them from others, and which others there
    # are on deeper seeds near them; seeds on the stain around.
    around = (
        px(DEPTH_UM) + px(SURROUND_UM) + px(HOLE_UM[1]) + 3 * px(TOP_UM) + 3 * px(CHROMATIN_UM) + px(PEAK_UM)
    )
    reach = px(DRIFT_UM) + 3 * near + max(around, r_max + px(OUTER_UM))
    return Rules(
        um=um,
        r_max=r_max,
        near=near,
        inner=px(INNER_UM),
        outer=px(OUTER_UM),
        least=px(LEAST_DEPTH_UM),
        neck=PartRule(near=near, depth=ONE_STEP, share=2, base=0, aside=0),
        valley=PartRule(near=near, depth=8, share=4, base=BASE, aside=px(1.0)),
        bend=bend_costs(48, 16),
        look=bearings(near + r_max + 1),
        star=star(r_max + px(OUTER_UM) + 4, 1.0),
        cap=min(px(DEPTH_UM) * ONE_STEP, 255),
        seed=px(LEAST_DEPTH_UM) * ONE_STEP,
        reach=reach + 4,
    )


class Images(NamedTuple):
    """The nuclear image and what is made of it, uint8 ``(h, w)``."""

    grey: NDArray[np.uint8]
    soft: NDArray[np.uint8]  # lightly smoothed
    wide: NDArray[np.uint8]  # mean of the surroundings
    depth: NDArray[np.uint8]  # distance to what is not stained, `ONE_STEP` a pixel
    hill: NDArray[np.uint8]  # the same, smoothed: seeds are its tops


def _odd(length: float) -> int:
    return 2 * max(1, round(length)) + 1


def images(grey: NDArray[np.uint8], rule: Rules, room: Any) -> Images:
    """Smooth, threshold and measure depth; ``room(name)`` gives a uint8 plane like ``grey`` to write to.

    8-bit blurs and means are integer arithmetic in OpenCV: a pixel's value does not depend on its place.
    """
    soft, calm, wide, depth, hill = (room(name) for name in ("soft", "calm", "wide", "depth", "hill"))
    px = 1 / rule.um
    window = _odd(SURROUND_UM * px)
    cv2.GaussianBlur(grey, (3, 3), 0.8, dst=soft)
    edge = _odd(3 * CHROMATIN_UM * px)
    cv2.GaussianBlur(grey, (edge, edge), CHROMATIN_UM * px, dst=calm)
    cv2.blur(calm, (window, window), dst=wide)
    cv2.medianBlur(grey, 5, dst=hill)
    cv2.dilate(hill, _disc(PARTNER_UM * px), dst=depth)
    cv2.morphologyEx(calm, cv2.MORPH_CLOSE, _disc(CREASE_UM * px), dst=hill)
    _stained(calm, wide, depth, hill)
    _fill_holes(depth, calm, (round(HOLE_UM[0] * px), round(HOLE_UM[1] * px)))
    measure_depth(depth, rule.cap)
    edge = _odd(3 * TOP_UM * px)
    cv2.GaussianBlur(depth, (edge, edge), TOP_UM * px, dst=hill)
    return Images(grey, soft, wide, depth, hill)


def _disc(radius: float) -> NDArray[np.uint8]:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_odd(radius),) * 2).astype(np.uint8)


@njit(nogil=True, cache=True, boundscheck=False)
def _stained(calm: Any, wide: Any, depth: Any, closed: Any) -> None:
    """``depth`` (h, w), the brightest of the surroundings, becomes 255 where ``calm`` is stained, else 0."""
    low = np.int32(BASE + STAINED[0] * SHADES)
    high = np.int32(BASE + STAINED[1] * SHADES)
    h, w = calm.shape
    for y in range(h):
        for x in range(w):
            v = np.int32(calm[y, x])
            haze = BASE + (np.int32(wide[y, x]) - BASE) * 3 // 4
            rim = BASE + (np.int32(depth[y, x]) - BASE) * 4 // 10
            level = max(min(max(haze, low), high), rim)
            crease = np.int32(closed[y, x]) - v
            depth[y, x] = 255 if v > level and crease < max(CREASE, (v - BASE) // 10) else 0


def _fill_holes(stained: NDArray[np.uint8], calm: NDArray[np.uint8], widest: tuple[int, int]) -> None:
    """Fill holes no wider and no higher than so many pixels: the first dark ones, the second others.

    A region larger than that is never a hole, so that where a region goes on far away does not matter.
    """
    _, label, box, _ = cv2.connectedComponentsWithStats(cv2.bitwise_not(stained), connectivity=4)
    size = np.maximum(box[:, cv2.CC_STAT_WIDTH], box[:, cv2.CC_STAT_HEIGHT])
    size[0] = stained.size  # what is stained
    _paint(label, size, calm, widest, stained)


@njit(nogil=True, cache=True, boundscheck=False)
def _paint(label: Any, size: Any, calm: Any, widest: tuple[int, int], out: Any) -> None:
    low = np.int32(BASE + STAINED[0] * SHADES)
    dark = np.zeros(len(size), np.int64)
    h, w = label.shape
    for y in range(h):
        for x in range(w):
            if out[y, x] == 0 and calm[y, x] <= low:
                dark[label[y, x]] += 1
    for y in range(h):
        for x in range(w):
            k = label[y, x]
            if out[y, x] == 0 and (size[k] <= widest[0] or (size[k] <= widest[1] and dark[k] == 0)):
                out[y, x] = 255


@njit(nogil=True, cache=True, boundscheck=False)
def measure_depth(depth: Any, cap: int) -> None:
    """Chamfer distance 5-7-11 (Borgefors 1986) of every pixel of ``depth`` (h, w) to the nearest 0, in place.

    Counted up to ``cap``: an integer that depends on nothing farther away. A rim of two pixels stays 0.
    """
    h, w = depth.shape
    depth[:2] = 0
    depth[h - 2 :] = 0
    depth[:, :2] = 0
    depth[:, w - 2 :] = 0
    for y in range(2, h - 2):
        row, up, top = depth[y], depth[y - 1], depth[y - 2]
        for x in range(2, w - 2):
            if row[x]:
                side = min(min(np.int32(row[x - 1]), np.int32(up[x])) + 5, cap)
                slant = min(np.int32(up[x - 1]), np.int32(up[x + 1])) + 7
                knight = min(
                    min(np.int32(up[x - 2]), np.int32(up[x + 2])),
                    min(np.int32(top[x - 1]), np.int32(top[x + 1])),
                )
                row[x] = min(side, min(slant, knight + 11))
    for y in range(h - 3, 1, -1):
        row, up, top = depth[y], depth[y + 1], depth[y + 2]
        for x in range(w - 3, 1, -1):
            if row[x]:
                side = min(min(np.int32(row[x + 1]), np.int32(up[x])) + 5, np.int32(row[x]))
                slant = min(np.int32(up[x - 1]), np.int32(up[x + 1])) + 7
                knight = min(
                    min(np.int32(up[x - 2]), np.int32(up[x + 2])),
                    min(np.int32(top[x - 1]), np.int32(top[x + 1])),
                )
                row[x] = min(side, min(slant, knight + 11))


@njit(nogil=True, cache=True, boundscheck=False)
def deepest(hill: Any, y: Any, x: Any, rule: Any, keep: Any) -> None:
    """Clear ``keep`` (n,) of seeds (ascending ``y``) with a deeper one near and no neck on the way there."""
    for i in range(len(y)):
        j = i + 1
        while j < len(y) and y[j] - y[i] <= rule.near:
            if abs(x[j] - x[i]) <= rule.near and (keep[i] or keep[j]):
                if nuclei._valley(hill, y[i], x[i], y[j] - y[i], x[j] - x[i], rule) == 0.0:
                    if hill[y[j], x[j]] > hill[y[i], x[i]]:
                        keep[i] = False
                    else:
                        keep[j] = False
            j += 1


class Found(NamedTuple):
    """Outlined nuclei and, beside each, how it was bounded and lit."""

    nuclei: Nuclei
    bound: NDArray[np.int32]  # (n, ray) widest radius that touching nuclei leave
    inside: NDArray[np.int32]  # grey around the seed
    free: NDArray[np.int32]  # mean step where nothing touches, 1/16 grey


def find(
    picture: Images, rule: Rules, inner: Any, contrast: float, seeds: NDArray[np.int32], work: Any
) -> Found:
    """Nuclei with a centroid within ``inner`` (and others near them), in ascending ``(y, x)``.

    Parameters
    ----------
    inner
        Box in pixels of the nuclear image, which reaches ``rule.reach`` beyond it.
    contrast
        Least mean step across an outline, as a fraction of the slide's range.
    seeds
        int32 ``(most, 2)`` scratch.
    work
        Scratch from `workspace`.
    """
    n = nuclei.find_seeds(
        picture.hill, rule.seed, max(1, round(PEAK_UM / rule.um)), rule.r_max + rule.outer + 4, seeds
    )
    y, x = np.ascontiguousarray(seeds[:n].T)
    keep = np.ones(n, np.bool_)
    deepest(picture.hill, y, x, rule.neck, keep)
    y, x = y[keep], x[keep]
    found = Nuclei.at(y, x)
    bound = np.full((len(y), N_RAYS), rule.r_max, np.int32)
    nuclei.part(picture.hill, y, x, rule.neck, rule.look, bound)
    nuclei.part(picture.soft, y, x, rule.valley, rule.look, bound)
    inside, free = np.zeros(len(y), np.int32), np.zeros(len(y), np.int32)
    sheet = rule.star.over(picture.soft)
    outline_all(sheet, picture.soft.shape[1], picture.wide, bound, rule, work, found, inside, free)
    keep = free >= round(16 * contrast * SHADES)
    keep[keep] = (
        suppress(found.where(keep), RivalRule(rule.near, SHARED_RAYS, 1), rule.star, rule.look) == KEPT
    )
    return Found(found.where(keep), bound[keep], inside[keep], free[keep])


class Workspace(NamedTuple):
    """Scratch of `outline_all`."""

    gain: NDArray[np.int32]
    step: NDArray[np.int32]
    lap: NDArray[np.int32]


def workspace(rule: Rules) -> Workspace:
    """Scratch for one thread."""
    m = rule.r_max + 1
    return Workspace(np.zeros((N_RAYS, m), np.int32), np.zeros((N_RAYS, m), np.int32), new_lap(m))


@njit(nogil=True, cache=True, boundscheck=False)
def outline_all(
    sheet: Any, stride: int, wide: Any, bound: Any, rule: Any, work: Any, found: Any, inside: Any, free: Any
) -> None:
    """Trace every nucleus of ``found``; its paths and scores, ``inside`` and ``free`` are filled in.

    The gain of a radius is the step across it, and what lies within it above the level half-way down from
    the nucleus: where another nucleus touches there is no step, and the outline goes on to the cut.
    """
    flat, offset = sheet
    gain, step, lap = work
    m = gain.shape[1]
    clip = np.int32(48 * 16)
    for i in range(len(found.y)):
        at = found.y[i] * stride + found.x[i]
        level = 0
        for a in range(N_RAYS):
            for r in range(rule.least):
                level += flat[at + offset[a, r]]
        level //= N_RAYS * rule.least
        inside[i] = level
        above = level - BASE
        half = min(
            max(np.int32(wide[found.y[i], found.x[i]]), BASE + 8 * above // 20), BASE + 13 * above // 20
        )
        for a in range(N_RAYS):
            total = 0
            last = min(max(bound[i, a], rule.least), m - 1)
            for r in range(m):
                if r < rule.least or r > last:
                    gain[a, r] = FORBIDDEN
                    step[a, r] = 0
                else:
                    within = 0
                    n = min(r, rule.inner)
                    for k in range(r - n, r):
                        within += flat[at + offset[a, k]]
                    beyond = 0
                    for k in range(r, r + rule.outer):
                        beyond += flat[at + offset[a, k]]
                    s = 16 * within // n - 16 * beyond // rule.outer
                    step[a, r] = min(max(s, -clip // 4), clip)
                    gain[a, r] = step[a, r] + total
                total += 8 * min(max(np.int32(flat[at + offset[a, r]]) - half, -12), 8)
        trace(gain, rule.least, m - 1, rule.bend, lap, found.path[i])
        _score(i, bound, step, found, free)


@njit(nogil=True, cache=True, boundscheck=False)
def _score(i: int, bound: Any, step: Any, found: Any, free: Any) -> None:
    total = 0
    open_total = 0
    n = 0
    for a in range(N_RAYS):
        s = step[a, found.path[i, a]]
        total += max(s, 0)
        if found.path[i, a] < bound[i, a] - 1:
            open_total += s
            n += 1
    found.score[i] = total // N_RAYS
    found.weak[i] = n
    free[i] = open_total // max(n, 1)
