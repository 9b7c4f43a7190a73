"""Nuclei: stains at about half a micrometre a pixel, seeds, outlines, and one nucleus for every place.

Hematoxylin is measured in units of the slide's own range (`SHADES` from between nuclei to inside one), so
that a faint counterstain is as good as a strong one, and a nucleus is darker in it *or* paler in DAB than
its rim: nests of strong membranes are found by the pale pockets they enclose.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.stain import stain_table
from her2core.kernels.polar import FORBIDDEN, N_RAYS, bend_costs, trace
from her2core.records import StainProfile

SHADES: Final = 64  # grey steps from the level between nuclei to hematoxylin_high_od
BASE: Final = 96  # grey value of the level between nuclei
BETWEEN: Final = 0.25  # that level, of hematoxylin_high_od: the measured one follows the mix of tissues; ours
MIN_RANGE_OD: Final = 0.08  # a narrower range is noise, not counterstain; ours
DAB_PER_OD: Final = 125  # grey steps per unit of DAB OD: 0.008 OD a step, 2.04 OD at 255
FRACTION_BITS: Final = 2  # of the packed look-up tables
DAB_SHADE_OD: Final = 0.35  # DAB that outweighs the whole hematoxylin range; ours


class Stains(NamedTuple):
    """Look-up tables from 8-bit RGB to both stains at once.

    Attributes
    ----------
    packed
        int32 ``(3, 256)``: hematoxylin in the high, DAB in the low 16 bits, fixed point.
    shade
        int32 ``(256,)``: what DAB takes from the nuclear image.
    range_od
        Hematoxylin OD of `SHADES` grey steps.
    low_od
        Hematoxylin OD of grey value `BASE`: `BETWEEN` of that of a nucleus.
    """

    packed: NDArray[np.int32]
    shade: NDArray[np.int32]
    range_od: float
    low_od: float


def stain_tables(stain: StainProfile) -> Stains:
    """Tables for one slide; OD is base 10 against the slide's own background (spec 4.1)."""
    low_od = BETWEEN * stain.hematoxylin_high_od
    range_od = max(stain.hematoxylin_high_od - low_od, MIN_RANGE_OD)
    amounts = stain_table(stain)  # (3, 256, stain)
    one = 1 << FRACTION_BITS
    hem = np.rint(amounts[:, :, 0] * (SHADES / range_od * one)).astype(np.int32)
    dab = np.rint(amounts[:, :, 1] * (DAB_PER_OD * one)).astype(np.int32)
    hem[0] += round((BASE - low_od * SHADES / range_od) * one)
    shade = np.rint(np.arange(256) * (SHADES / (DAB_SHADE_OD * DAB_PER_OD))).astype(np.int32)
    return Stains((hem << 16) + dab, shade, range_od, low_od)


@njit(nogil=True, cache=True, boundscheck=False)
def unmix_binned(rgb: Any, packed: Any, shade: Any, dab: Any, hem: Any, nuclear: Any) -> None:
    """Unmix ``rgb`` (2h, 2w, 3) into DAB (2h, 2w) and, as means of 2 x 2, hematoxylin and nuclear image (h, w)."""
    h, w = hem.shape
    red, green, blue = packed[0], packed[1], packed[2]
    half = 1 << (FRACTION_BITS - 1)
    for y in range(h):
        upper, lower = rgb[2 * y], rgb[2 * y + 1]
        dab0, dab1 = dab[2 * y], dab[2 * y + 1]
        for x in range(w):
            hsum = np.int32(0)
            dsum = np.int32(0)
            for i in range(2 * x, 2 * x + 2):
                p = red[upper[i, 0]] + green[upper[i, 1]] + blue[upper[i, 2]]
                q = red[lower[i, 0]] + green[lower[i, 1]] + blue[lower[i, 2]]
                a = np.int32(np.int16(p))
                b = np.int32(np.int16(q))
                hsum += ((p - a) >> 16) + ((q - b) >> 16)
                a = min(max((a + half) >> FRACTION_BITS, 0), 255)
                b = min(max((b + half) >> FRACTION_BITS, 0), 255)
                dab0[i] = a
                dab1[i] = b
                dsum += a + b
            hsum = (hsum + 4 * half) >> (FRACTION_BITS + 2)
            hem[y, x] = min(max(hsum, 0), 255)
            nuclear[y, x] = min(max(hsum - shade[(dsum + 2) >> 2], 0), 255)


@njit(nogil=True, cache=True, boundscheck=False)
def unmix_plain(rgb: Any, packed: Any, shade: Any, dab: Any, hem: Any, nuclear: Any) -> None:
    """Unmix ``rgb`` (h, w, 3) where a pixel already is about half a micrometre wide; all outputs (h, w)."""
    h, w = hem.shape
    half = 1 << (FRACTION_BITS - 1)
    for y in range(h):
        for x in range(w):
            p = packed[0, rgb[y, x, 0]] + packed[1, rgb[y, x, 1]] + packed[2, rgb[y, x, 2]]
            a = np.int32(np.int16(p))
            h1 = (((p - a) >> 16) + half) >> FRACTION_BITS
            d1 = min(max((a + half) >> FRACTION_BITS, 0), 255)
            dab[y, x] = d1
            hem[y, x] = min(max(h1, 0), 255)
            nuclear[y, x] = min(max(h1 - shade[d1], 0), 255)


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


@njit(nogil=True, cache=True, boundscheck=False)
def outline(flat: Any, centre: int, offset: Any, bound: Any, floor: int, rule: Any, gain: Any, lap: Any,
            path: Any) -> tuple[int, int]:  # fmt: skip
    """Trace the nucleus around ``flat[centre]`` into ``path`` (ray,), radii in pixels.

    The gain of a radius is the step from the mean inside it to the mean outside, along its ray.

    Returns
    -------
    Mean clipped step along the outline, and over the weakest quarter of it, in 1/16 grey.
    """
    m = len(rule.weight)
    reach = m + rule.outer
    low = np.int32(-(rule.clip // 2))
    cum = np.zeros(rule.inner + reach + 1, np.int32)  # greys before a radius, after `inner` empty ones
    for a in range(N_RAYS):
        ray, row = offset[a], gain[a]
        for r in range(reach):
            cum[rule.inner + r + 1] = cum[rule.inner + r] + np.int32(flat[centre + ray[r]])
        here, beyond = cum[rule.inner :], cum[rule.inner + rule.outer :]
        for r in range(m):  # 32 bits throughout, so that it becomes vector code
            inside = np.int32((here[r] - cum[r]) * rule.per_inner[r])
            step = np.int32(inside - (beyond[r] - here[r]) * rule.per_outer) >> 8
            row[r] = (np.int32(min(max(np.int32(step), low), rule.clip)) * rule.weight[r]) >> 8
        last = min(max(bound[a], rule.r_min), m - 1)
        row[: rule.r_min] = FORBIDDEN
        row[last + 1 :] = FORBIDDEN
        pale = 0
        for r in range(last + 1):
            row[r] -= min(pale, rule.clip)
            pale += max(floor - (here[r + 1] - here[r]), 0) * rule.pale
    trace(gain, rule.r_min, m - 1, rule.bend, lap, path)
    step = np.empty(N_RAYS, np.int32)
    for a in range(N_RAYS):
        step[a] = gain[a, path[a]]
    step.sort()
    return step.sum() // N_RAYS, step[: N_RAYS // 4].sum() // (N_RAYS // 4)


@njit(nogil=True, cache=True, boundscheck=False)
def concavity(path: Any) -> float:
    """Depth of the dents in an outline, relative to its mean radius: 0 where it is convex."""
    deficit = 0.0
    total = 0
    for a in range(N_RAYS):
        total += path[a]
        deepest = 0.0
        for span in (2, 4, 6):
            left, right = path[(a - span) % N_RAYS], path[(a + span) % N_RAYS]
            chord = 2.0 * np.cos(2.0 * np.pi * span / N_RAYS) * left * right / max(left + right, 1)
            deepest = max(deepest, chord - path[a])
        deficit += max(deepest - 0.5, 0.0)  # half a pixel is rounding
    return deficit / max(total, 1)


class NucleusRule(NamedTuple):
    """Evidence that an outline is a nucleus: a sum of weighted measures; positive is a nucleus.

    Lengths in pixels, ``od`` factors turn greys into units of the slide's hematoxylin range and into DAB OD.
    """

    rim: int  # width of the surroundings
    per_range: float
    per_dab_od: float
    um2: float  # area of a pixel
    bias: float
    step: float  # mean step along the outline, ranges
    weakest: float  # mean step along the weakest quarter: a nucleus cut in two has one
    inside: float  # hematoxylin inside, ranges above the level between nuclei
    outside: float  # and around: tissue rather than glass
    brown: float  # DAB inside less DAB around, 0.1 OD: texture, red cells and grains are browner, pockets paler
    size: float  # log of the area in um2
    rough: float  # changes of radius around the outline, in mean radii


class Nuclei(NamedTuple):
    """Outlined nuclei on the grid of the nuclear image, one row each."""

    y: NDArray[np.int32]  # centre pixel of the outline
    x: NDArray[np.int32]
    path: NDArray[np.int32]  # (n, ray) radius, px
    score: NDArray[np.int32]  # mean step across it, 1/16 grey
    weak: NDArray[np.int32]  # and across its weakest quarter


class PartRule(NamedTuple):
    """When two seeds stand in two nuclei."""

    near: int  # widest distance along an axis, pixels
    depth: int  # least valley, grey
    share: int  # least valley, as 1/16 of the nuclei's height over `base`
    base: int
    aside: int  # the valley must be as deep this far to either side: chromatin can be walked around


@njit(nogil=True, cache=True, boundscheck=False)
def part(image: Any, y: Any, x: Any, rule: Any, cos: Any, sin: Any, bound: Any) -> None:
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
                        along = (cos[a] * dx + sin[a] * dy) / d
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
            v = np.int32(image[int(np.floor(y + k * dy / steps + off_y + 0.5)), int(np.floor(x + k * dx / steps + off_x + 0.5))])
            if v < lowest:
                lowest = v
                if side == 0:
                    where = k / steps
        saddle = max(saddle, lowest)
    deep = peak - saddle
    if deep < rule.depth or 16 * deep < rule.share * (peak - rule.base):
        return 0.0
    return where


@njit(nogil=True, cache=True, boundscheck=False)
def _mean9(image: Any, y: int, x: int) -> int:
    total = np.int32(0)
    for v in range(y - 1, y + 2):
        for u in range(x - 1, x + 2):
            total += image[v, u]
    return total // 9


@njit(nogil=True, cache=True, boundscheck=False)
def outline_all(flat: Any, stride: int, y: Any, x: Any, offset: Any, bound: Any, floor: Any, rule: Any, gain: Any,
                lap: Any, path: Any, score: Any, weak: Any) -> None:  # fmt: skip
    """`outline` around every centre."""
    for i in range(len(y)):
        score[i], weak[i] = outline(flat, y[i] * stride + x[i], offset, bound[i], floor[i], rule, gain, lap, path[i])


@njit(nogil=True, cache=True, boundscheck=False)
def judge_all(hem: Any, dab: Any, y: Any, x: Any, path: Any, score: Any, weak: Any, offset: Any, offset_full: Any,
              rule: Any, keep: Any) -> None:  # fmt: skip
    """Clear ``keep`` (n,) where there is no `evidence`; ``hem`` (h, w) and ``dab`` (b h, b w)."""
    stride, factor = hem.shape[1], dab.shape[0] // hem.shape[0]
    flat, flat_full = hem.ravel(), dab.ravel()
    for i in range(len(y)):
        if keep[i]:
            at = y[i] * stride + x[i]
            at_full = factor * (y[i] * dab.shape[1] + x[i])
            found = evidence(flat, flat_full, at, offset, at_full, offset_full, path[i], score[i], weak[i], rule)
            keep[i] = found > 0.0


@njit(nogil=True, cache=True, boundscheck=False)
def recentre(y: Any, x: Any, path: Any, cos: Any, sin: Any, most: int) -> None:
    """Move every centre to the pixel nearest its outline's centroid, by ``most`` pixels at the most."""
    for i in range(len(y)):
        dy, dx, _ = centroid(path[i], 0.5, cos, sin)
        y[i] += min(max(int(np.floor(dy + 0.5)), -most), most)
        x[i] += min(max(int(np.floor(dx + 0.5)), -most), most)


@njit(nogil=True, cache=True, boundscheck=False)
def centroid(path: Any, inset: float, cos: Any, sin: Any) -> tuple[float, float, float]:
    """Centroid (dy, dx) from the centre, and area, of the polygon of ``path`` (ray,); pixels.

    An edge found at ``r`` lies between samples ``r - 1`` and ``r``: half a pixel inside.
    """
    area = 0.0
    sy = 0.0
    sx = 0.0
    for a in range(N_RAYS):
        b = (a + 1) % N_RAYS
        ra, rb = path[a] - inset, path[b] - inset
        ya, xa, yb, xb = ra * sin[a], ra * cos[a], rb * sin[b], rb * cos[b]
        cross = xa * yb - xb * ya
        area += cross
        sy += cross * (ya + yb)
        sx += cross * (xa + xb)
    return sy / (3.0 * area), sx / (3.0 * area), 0.5 * area


@njit(nogil=True, cache=True, boundscheck=False)
def _covers(i: int, j: int, y: Any, x: Any, path: Any, star_y: Any, star_x: Any, look: Any) -> int:
    """Number of outline points of nucleus ``i`` that lie inside nucleus ``j``."""
    n = 0
    for a in range(N_RAYS):
        dy = y[i] - y[j] + star_y[a, path[i, a]] + look.reach
        dx = x[i] - x[j] + star_x[a, path[i, a]] + look.reach
        n += look.distance[dy, dx] < path[j, look.ray[dy, dx]] + 0.75  # a pixel is rounded
    return n


@njit(nogil=True, cache=True, boundscheck=False)
def suppress(y: Any, x: Any, score: Any, path: Any, near: int, shared: int, rounds: int, star_y: Any, star_x: Any,
             look: Any, rivals: Any, state: Any) -> None:  # fmt: skip
    """Keep one outline for every nucleus: of two that share half their outline, the better.

    Greedy suppression would let a chain of overlaps carry an influence across a slide. Here a verdict
    travels one overlap a round, and what is still open after ``rounds`` is dropped.

    Parameters
    ----------
    y, x
        Centres in ascending ``y``.
    near
        Centres farther apart than this along an axis never compete.
    shared
        Outline points of one inside the other that make them one nucleus.
    rivals
        int32 ``(n, k)`` scratch.
    state
        uint8 ``(n,)``; out: 1 kept, 2 dropped.
    """
    n = len(y)
    count = np.zeros(n, np.int32)
    for i in range(n):
        j = i + 1
        while j < n and y[j] - y[i] <= near:
            if abs(x[j] - x[i]) <= near and (
                _covers(i, j, y, x, path, star_y, star_x, look) >= shared
                or _covers(j, i, y, x, path, star_y, star_x, look) >= shared
            ):
                loser = j if score[i] >= score[j] else i
                if count[loser] < rivals.shape[1]:
                    rivals[loser, count[loser]] = i + j - loser
                    count[loser] += 1
            j += 1
    state[:n] = 0
    for _ in range(rounds):
        before = state[:n].copy()
        for i in range(n):
            if before[i] == 0:
                state[i] = _verdict(before, rivals[i, : count[i]])
    for i in range(n):
        if state[i] == 0:
            state[i] = 2


@njit(nogil=True, cache=True, boundscheck=False)
def _verdict(state: Any, rivals: Any) -> int:
    """1 where every better rival is dropped, 2 where one is kept, 0 while open."""
    verdict = 1
    for r in rivals:
        if state[r] == 1:
            return 2
        if state[r] == 0:
            verdict = 0
    return verdict


@njit(nogil=True, cache=True, boundscheck=False)
def evidence(hem: Any, dab: Any, centre: int, offset: Any, centre_full: int, offset_full: Any, path: Any,
             score: int, weak: int, rule: Any) -> float:  # fmt: skip
    """Evidence by `NucleusRule` that an outline is a nucleus."""
    dab_in, dab_out = levels(dab, centre_full, offset_full, path, rule.rim)
    hem_in, hem_out = levels(hem, centre, offset, path, rule.rim)
    square = 0
    total = 0
    change = 0
    for a in range(N_RAYS):
        square += path[a] * path[(a + 1) % N_RAYS]
        total += path[a]
        change += abs(path[a] - path[(a + 1) % N_RAYS])
    area = 0.5 * np.sin(2.0 * np.pi / N_RAYS) * square * rule.um2
    return float(
        rule.bias
        + rule.step * min(score / 16.0 * rule.per_range, 0.5)
        + rule.weakest * min(max(weak / 16.0 * rule.per_range, -0.2), 0.4)
        + rule.inside * min(max((hem_in - BASE) * rule.per_range, 0.0), 1.2)
        + rule.outside * min(max((hem_out - BASE) * rule.per_range, -0.3), 0.6)
        + rule.brown * min(max((dab_in - dab_out) * rule.per_dab_od, -0.6), 0.3)
        + rule.size * np.log(min(max(area, 8.0), 60.0))
        + rule.rough * min(change * N_RAYS / total, 5.0)
    )


@njit(nogil=True, cache=True, boundscheck=False)
def levels(flat: Any, centre: int, offset: Any, path: Any, rim: int) -> tuple[float, float]:
    """Mean grey inside the outline, by area, and in the ``rim`` pixels around it."""
    total = 0
    area = 0
    around = 0
    for a in range(N_RAYS):
        for r in range(path[a]):
            total += (2 * r + 1) * flat[centre + offset[a, r]]
        area += path[a] * path[a]
        for r in range(path[a], path[a] + rim):
            around += flat[centre + offset[a, r]]
    return total / max(area, 1), around / (rim * N_RAYS)


@njit(nogil=True, cache=True, boundscheck=False)
def elongation(path: Any, cos: Any, sin: Any) -> float:
    """Axis ratio of the ellipse with the outline's second moments; 1 for a circle."""
    dy, dx, _ = centroid(path, 0.5, cos, sin)
    yy = 0.0
    xx = 0.0
    yx = 0.0
    for a in range(N_RAYS):
        y, x = path[a] * sin[a] - dy, path[a] * cos[a] - dx
        w = path[a]
        yy += w * y * y
        xx += w * x * x
        yx += w * y * x
    spread = np.sqrt((yy - xx) * (yy - xx) + 4.0 * yx * yx)
    return float(np.sqrt((yy + xx + spread) / max(yy + xx - spread, 1e-6)))
