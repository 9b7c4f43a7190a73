"""Nuclei: seeds, an outline around each, and the valleys that part those of ISH slides."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.planes import BASE
from her2core.kernels.polar import FORBIDDEN, N_RAYS, bend_costs, centroid, new_lap, trace

STRIP: Final = 32  # height of a band of nuclei worked through from left to right, pixels


class Nuclei(NamedTuple):
    """Outlined nuclei on the grid of the nuclear image, one row each."""

    y: NDArray[np.int32]  # centre pixel of the outline
    x: NDArray[np.int32]
    path: NDArray[np.int32]  # (n, ray) radius, px
    score: NDArray[np.int32]  # mean step across it, 1/16 grey
    weak: NDArray[np.int32]  # and across its weakest quarter

    @classmethod
    def at(cls, y: NDArray[np.int32], x: NDArray[np.int32]) -> Nuclei:
        """Centres that have no outline yet."""
        n = len(y)
        return cls(y, x, np.zeros((n, N_RAYS), np.int32), np.zeros(n, np.int32), np.zeros(n, np.int32))

    def nearby(self) -> NDArray[np.intp]:
        """An order in which those that follow one another look at the same pixels."""
        return np.lexsort((self.x, self.y // STRIP))

    def where(self, keep: NDArray[np.bool_]) -> Nuclei:
        """Those that ``keep`` marks."""
        return Nuclei(*(column[keep] for column in self))


@njit(nogil=True, cache=True, boundscheck=False)
def find_seeds(image: Any, least: int, radius: int, margin: int, seeds: Any) -> int:
    """Local maxima of ``image`` (h, w) within a disc; the first in reading order wins a tie.

    Writes ``(y, x)`` rows into ``seeds`` in reading order and returns their number.
    """
    h, w = image.shape
    n = 0
    for y in range(margin, h - margin):
        row, up, down = image[y], image[y - 1], image[y + 1]
        for x in range(margin, w - margin):
            v = row[x]
            if v < least or row[x - 1] >= v or row[x + 1] > v or up[x] >= v or down[x] > v:
                continue
            if _is_peak(image, y, x, radius) and n < seeds.shape[0]:
                seeds[n, 0] = y
                seeds[n, 1] = x
                n += 1
    return n


@njit(nogil=True, cache=True, boundscheck=False)
def _is_peak(image: Any, y: int, x: int, radius: int) -> bool:
    v = image[y, x]
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dy * dy + dx * dx <= radius * radius:
                q = image[y + dy, x + dx]
                if q > v or (q == v and (dy < 0 or (dy == 0 and dx < 0))):
                    return False
    return True


class PartRule(NamedTuple):
    """When two seeds stand in two nuclei."""

    near: int  # widest distance along an axis, pixels
    depth: int  # least valley, grey
    share: int  # least valley, as 1/16 of the nuclei's height over `base`
    base: int
    aside: int  # the valley must be as deep this far to either side: chromatin can be walked around


@njit(nogil=True, cache=True, boundscheck=False)
def part(image: Any, y: Any, x: Any, rule: Any, look: Any, bound: Any) -> None:
    """Lower ``bound`` (n, ray), px, to the valley between every two seeds that stand in two nuclei."""
    for i in range(len(y)):
        j = i + 1
        while j < len(y) and y[j] - y[i] <= rule.near:
            if abs(x[j] - x[i]) <= rule.near:
                dy, dx = y[j] - y[i], x[j] - x[i]
                where = _valley(image, y[i], x[i], dy, dx, rule)
                if where > 0.0:
                    d = np.sqrt(float(dy * dy + dx * dx))
                    for a in range(N_RAYS):
                        along = (look.cos[a] * dx + look.sin[a] * dy) / d
                        if along > 0.2:
                            bound[i, a] = min(bound[i, a], int(where * d / along))
                        elif along < -0.2:
                            bound[j, a] = min(bound[j, a], int((1.0 - where) * d / -along))
            j += 1


@njit(nogil=True, cache=True, boundscheck=False)
def _valley(image: Any, y: int, x: int, dy: int, dx: int, rule: Any) -> float:
    """Where along the way from (y, x) the valley to (y + dy, x + dx) lies, 0 to 1; 0 where there is none."""
    steps = max(abs(dy), abs(dx))
    if steps < 4:
        return 0.0
    peak = np.int32(min(_mean9(image, y, x), _mean9(image, y + dy, x + dx)))
    d = np.sqrt(float(dy * dy + dx * dx))
    saddle = np.int32(0)
    where = 0.5
    for side in range(-1, 2):
        off_y, off_x = side * rule.aside * dx / d, -side * rule.aside * dy / d
        lowest = np.int32(255)
        for k in range(1, steps):
            v = int(np.floor(y + k * dy / steps + off_y + 0.5))
            u = int(np.floor(x + k * dx / steps + off_x + 0.5))
            grey = np.int32(image[v, u])
            if grey < lowest:
                lowest = grey
                if side == 0:
                    where = k / steps
        saddle = max(saddle, lowest)
    deep = peak - saddle
    if deep < rule.depth or 16 * deep < rule.share * (peak - rule.base):
        return 0.0
    return where


@njit(nogil=True, cache=True, boundscheck=False)
def _mean9(image: Any, y: int, x: int) -> Any:
    total = np.int32(0)
    for v in range(y - 1, y + 2):
        for u in range(x - 1, x + 2):
            total += image[v, u]
    return total // 9


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


def edge_rule(inner: int, outer: int, r_min: int, r_max: int, growth: int, clip: int) -> EdgeRule:
    """Edges between means over ``inner`` and ``outer`` pixels; at a radius of ``growth`` they weigh half."""
    radius = np.arange(r_max + 1)
    unit = 16 << 8
    return EdgeRule(
        inner=inner,
        per_inner=(unit // np.clip(radius, 1, inner)).astype(np.int32),
        outer=outer,
        per_outer=np.int32(unit // outer),
        weight=((radius << 8) // (radius + growth)).astype(np.int32),
        r_min=r_min,
        clip=np.int32(16 * clip),
        floor=BASE + 8,
        below=-8,
        pale=2,
        bend=bend_costs(32, 4),
    )


class Workspace(NamedTuple):
    """Scratch of `outline`."""

    gain: NDArray[np.int32]
    lap: NDArray[np.int32]
    cum: NDArray[np.int32]


def workspace(rule: EdgeRule) -> Workspace:
    """Scratch for one thread."""
    m = len(rule.weight)
    zeros = np.zeros(rule.inner + m + rule.outer + 1, np.int32)
    return Workspace(np.zeros((N_RAYS, m), np.int32), new_lap(m), zeros)


@njit(nogil=True, cache=True, boundscheck=False)
def outline_all(sheet: Any, stride: int, floor: Any, rule: Any, work: Any, found: Any, order: Any) -> None:
    """`outline` around every centre of ``found``, in any order; its paths and scores are filled in."""
    for i in order:
        at = found.y[i] * stride + found.x[i]
        found.score[i], found.weak[i] = outline(sheet, at, floor[i], rule, work, found.path[i])


@njit(nogil=True, cache=True, boundscheck=False)
def outline(sheet: Any, centre: int, floor: int, rule: Any, work: Any, path: Any) -> tuple[int, int]:
    """Trace the nucleus around ``sheet.flat[centre]`` into ``path`` (ray,), radii in pixels.

    The gain of a radius is the step from the mean inside it to the mean outside, along its ray. ``floor`` is
    the grey below which there is no nucleus.

    Returns
    -------
    Mean clipped step along the outline, and over the weakest quarter of it, in 1/16 grey.
    """
    gain, lap, cum = work
    m = len(rule.weight)
    for a in range(N_RAYS):
        ray, row = sheet.offset[a], gain[a]
        for r in range(m + rule.outer):
            cum[rule.inner + r + 1] = cum[rule.inner + r] + np.int32(sheet.flat[centre + ray[r]])
        _steps(cum, rule, row)
        row[: rule.r_min] = FORBIDDEN
        pale = 0
        for r in range(m):
            row[r] -= min(pale, rule.clip)
            pale += max(floor - (cum[rule.inner + r + 1] - cum[rule.inner + r]), 0) * rule.pale
    trace(gain, rule.r_min, m - 1, rule.bend, lap, path)
    step = np.empty(N_RAYS, np.int32)
    for a in range(N_RAYS):
        step[a] = gain[a, path[a]]
    step.sort()
    return step.sum() // N_RAYS, step[: N_RAYS // 4].sum() // (N_RAYS // 4)


@njit(nogil=True, cache=True, boundscheck=False)
def _steps(cum: Any, rule: Any, row: Any) -> None:
    """Weighted step of every radius, 1/16 grey, from the ``cum`` of greys before it (after ``inner`` zeros).

    In 32 bits throughout, so that it becomes vector code.
    """
    here, beyond = cum[rule.inner :], cum[rule.inner + rule.outer :]
    low = np.int32(-(rule.clip // 2))
    for r in range(len(row)):
        inside = np.int32((here[r] - cum[r]) * rule.per_inner[r])
        step = np.int32(inside - (beyond[r] - here[r]) * rule.per_outer) >> 8
        row[r] = (np.int32(min(max(np.int32(step), low), rule.clip)) * rule.weight[r]) >> 8


@njit(nogil=True, cache=True, boundscheck=False)
def recentre(found: Any, look: Any, most: int) -> None:
    """Move every centre to the pixel nearest its outline's centroid, by ``most`` pixels at the most."""
    for i in range(len(found.y)):
        dy, dx, _ = centroid(found.path[i], 0.5, look)
        found.y[i] += min(max(int(np.floor(dy + 0.5)), -most), most)
        found.x[i] += min(max(int(np.floor(dx + 0.5)), -most), most)
