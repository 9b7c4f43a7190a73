"""The contour of a cell: one closed path between its nucleus and its neighbours.

A radius along a ray is likelier the cell's border the more it lies on a crest of DAB, the fewer crests lie
before it, and the more usual its distance is: from the nucleus, and from the line midway to the neighbour.
What each of these weighs was fitted (`benchmarks/fit_contours.py`) on contours drawn by eye in real cores and
on membranes planted on real tissue: a conditional logit of the border's radius along a ray, whose log-odds
are the gains of a closed path. DAB is compressed first (`COMPRESSED`): a crest is measured against the stain
around it, and a membrane of 1.2 OD on a cytoplasm of 0.6 is as plain as one of 0.3 on 0.1.

Contours are traced for many cells at once, one a lane (see `polar_lanes`). All lanes share one set of radii;
a lane uses those that its own nucleus and neighbours leave it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.polar import FORBIDDEN, MAX_BEND, N_RAYS, Sheet, sample
from her2core.kernels.polar_lanes import LANES, new_scores, trace_lanes

OPEN: Final = 1 << 20  # no neighbour along this ray
UNIT: Final = 2048  # gain of one log-odd: sums along a contour stay whole numbers of 32 bits
PER_DOUBLING: Final = 64  # compressed greys that twice the stain is more; ours
HALF_SCALE: Final = 20  # DAB grey, 0.16 OD: from about here on greys are compressed; ours
COMPRESSED: Final = np.rint(PER_DOUBLING * np.log2(1 + np.arange(256) / HALF_SCALE)).astype(np.uint8)
"""Compressed grey of every DAB grey: once 0.16 OD is there, twice the stain is 64 more. Ours."""
BEYOND_UM: Final = 3.0  # past the midline a shared membrane may lie so far; ours
FLANK_UM: Final = 1.25  # a crest is compared with what lies so far to either side; ours
LEAST_PART: Final = 2  # no border cuts more than this part, a half, off a nucleus outlined too wide; ours
CREST: Final = 24  # compressed greys from which a crest before the border is a membrane gone across; ours
MOST_CROSSED: Final = 400  # such greys that count, in steps of 0.25 um; ours
STEP_UM: Final = 0.25  # the fit's step along a ray
FAINT_RIDGE: Final = 24  # bends of the fit, compressed greys: of a crest's height ...
PLAIN_RIDGE: Final = 64
PLAIN_LEVEL: Final = 64  # ... and of the level


class Slopes(NamedTuple):
    """A piecewise linear gain by distance: log-odds a um up to the first bend, and their change at each."""

    first: float
    bends: tuple[tuple[float, float], ...] = ()  # (distance in um, change of slope)

    def at(self, um: NDArray[Any]) -> NDArray[Any]:
        """Log-odds at distances ``um``, of any shape, in the same shape; float64."""
        total = self.first * um
        for where, change in self.bends:
            total = total + change * np.maximum(um - where, 0.0)
        return total


# Fitted, see above: log-odds that the border lies at a distance ...
FROM_NUCLEUS: Final = Slopes(  # ... beyond the edge of the nucleus, um
    -0.333,
    ((-2.0, 0.245), (-1.0, 0.648), (-0.5, 0.112), (0.0, -0.244), (0.5, -0.182), (1.0, -0.045), (2.0, 0.037),
     (3.5, 0.006), (5.0, -0.443), (7.0, -0.636)),
)  # fmt: skip
FROM_POCKET: Final = Slopes(  # ... beyond the outline of a pocket
    0.274, ((0.5, -0.118), (1.0, 0.006), (1.5, 0.009), (2.0, -0.359), (3.5, -0.022))
)
PAST_MIDLINE: Final = Slopes(-0.419, ((0.5, -0.268), (1.25, 0.096)))  # ... past the midline
BEFORE_MIDLINE: Final = Slopes(0.178, ((0.5, -0.09), (1.25, -0.053), (2.5, -0.051), (4.5, 0.067)))
TO_THE_OPEN: Final = Slopes(0.102, ((1.0, -0.064), (2.0, -0.052), (4.0, -0.051)))
"""... beyond the edge, in addition, where there is no neighbour"""
HEIGHT: Final = (0.00056, 0.00886, 0.00387, 0.00138)
"""What a compressed grey of a crest adds; of its first `PLAIN_RIDGE`; of its first `FAINT_RIDGE`; and of a
trough. In `UNIT` these are the whole numbers 1, 18, 8 and 3: rounding moves the first by an eighth."""
LEVEL: Final = (0.02359, 0.01059)
"""What a compressed grey of the level adds, and of its first `PLAIN_LEVEL`; 48 and 22 in `UNIT`."""
CROSSED: Final = -0.01309
"""... and a compressed grey of crests gone across before."""
BEND: Final = (0.3, 0.05)
"""Log-odds that a step between neighbouring rays costs, and its square; compared on contours drawn by eye."""


class ContourRule(NamedTuple):
    """How a contour is looked for. Radii in steps along a ray, gains in `UNIT`."""

    scale: float  # steps per pixel of the nuclear image
    reach: int  # widest distance from the nucleus
    beyond: int  # how far past the midline a shared membrane may lie
    flank: int  # a crest is compared with the DAB this far to either side
    by_edge: NDArray[np.int32]  # (2, n) gain by the distance from the edge of a nucleus, and of a pocket
    by_mid: NDArray[np.int32]  # (n,) ... by the distance from the midline
    by_open: NDArray[np.int32]  # (n,) ... by that from the edge where there is no neighbour
    zero: int  # index of distance 0 in these
    height: NDArray[np.int32]  # (4,) see `HEIGHT`
    level: NDArray[np.int32]  # (2,)
    crossed: int
    most_crossed: int
    bend: NDArray[np.int32]
    glass: int  # hematoxylin grey below which there is no tissue
    clear_glass: int  # hematoxylin grey of glass
    cytoplasm: int  # hematoxylin greys above glass from which it is cytoplasm
    lumen: int  # glass so wide is a lumen, pixels of the nuclear image
    ridge_half_width: int  # half width of the strongest membranes where they end
    read_margin: int  # half width of the window in which the contour's DAB is read


def gains(step_um: float, n_radii: int) -> dict[str, Any]:
    """Tables and weights of a `ContourRule` for rays sampled every ``step_um``, up to ``n_radii`` steps."""
    steps = np.arange(-n_radii, n_radii + 1)
    um = steps * step_um
    away = np.where(um > 0, PAST_MIDLINE.at(np.maximum(um, 0.0)), BEFORE_MIDLINE.at(np.maximum(-um, 0.0)))

    def whole(log_odds: Any) -> NDArray[np.int32]:
        gain: NDArray[np.int32] = np.rint(UNIT * np.asarray(log_odds)).astype(np.int32)
        return gain

    per_step = step_um / STEP_UM
    k = np.arange(MAX_BEND + 1)
    return {
        "by_edge": whole([FROM_NUCLEUS.at(um), FROM_POCKET.at(um)]),
        "by_mid": whole(away),
        "by_open": whole(TO_THE_OPEN.at(um)),
        "zero": n_radii,
        "height": whole(HEIGHT),
        "level": whole(LEVEL),
        "crossed": int(whole(CROSSED * per_step)),
        "most_crossed": round(MOST_CROSSED / per_step),
        "bend": whole(BEND[0] * k + BEND[1] * k * k),
    }


class Workspace(NamedTuple):
    """The cells that `trace_contours` works on, one a lane, and its scratch."""

    centre: NDArray[np.int64]  # (2, lane) place in the sheets of the DAB and of both stains
    nucleus: NDArray[np.int32]  # (lane, ray) radius, pixels of the nuclear image
    hidden: NDArray[np.bool_]  # (lane,) whether that is a pocket
    mid: NDArray[np.float64]  # (lane, ray) distance to the midline, pixels of the nuclear image
    path: NDArray[np.int32]  # (lane, ray) the contours, steps
    bound: NDArray[np.int32]  # (ray, bound, lane) the nuclear edge; least, middle and greatest radius
    brown: NDArray[np.uint8]  # (ray, radius * LANES) compressed DAB
    since: NDArray[np.int32]  # (radius * LANES,) how far a radius lies beyond the least
    height: NDArray[np.int32]  # of the crest, after the flank's radii
    crossed: NDArray[np.int32]  # greys of crests before; nothing before the first radius
    gain: NDArray[np.int32]  # (ray, radius * LANES)
    scores: NDArray[np.int32]


def workspace(n_radii: int) -> Workspace:
    """Scratch for one thread; ``n_radii`` samples a ray."""
    m = n_radii + 1
    return Workspace(
        centre=np.zeros((2, LANES), np.int64),
        nucleus=np.zeros((LANES, N_RAYS), np.int32),
        hidden=np.zeros(LANES, np.bool_),
        mid=np.zeros((LANES, N_RAYS)),
        path=np.zeros((LANES, N_RAYS), np.int32),
        bound=np.zeros((N_RAYS, 4, LANES), np.int32),
        brown=np.zeros((N_RAYS, m * LANES), np.uint8),
        since=np.zeros(m * LANES, np.int32),
        height=np.zeros(2 * m * LANES, np.int32),
        crossed=np.zeros(m * LANES, np.int32),
        gain=np.zeros((N_RAYS, n_radii * LANES), np.int32),
        scores=new_scores(n_radii),
    )


@njit(nogil=True, cache=True, boundscheck=False)
def trace_contours(dab: Sheet, rule: ContourRule, work: Workspace) -> None:
    """Trace the cells around the nuclei of ``work`` into its paths, radii in steps."""
    last = dab.offset.shape[1] - 1 - rule.flank
    for lane in range(LANES):
        _bound(work.nucleus[lane], work.hidden[lane], work.mid[lane], last, rule, work.bound[:, :, lane])
    bound, brown, gain = work.bound, work.brown, work.gain
    first, final = bound[:, 1].min(), bound[:, 3].max()
    for a in range(N_RAYS):
        _forbid(gain, a, first, final)
    for lane in range(LANES):
        near = bound[:, :, lane]
        _read_brown(dab, work.centre[0, lane], near, rule, brown[:, lane:])
        _place(near, rule, rule.by_edge[1 if work.hidden[lane] else 0], gain[:, lane:])
    since, height = work.since, work.height
    for a in range(N_RAYS):
        low, high = _span(bound, a)
        _count(bound, a, low, high, since)
        _ridge_height(brown, a, low, high, rule.flank, height)
        _crossing_cost(height, since, low, high, rule.flank, work.crossed)
        _weigh(height, work.crossed, low, high, rule, brown, gain, a)
    trace_lanes(gain, first, final, rule.bend, work.scores, work.path)


@njit(nogil=True, cache=True, boundscheck=False)
def _bound(
    nucleus: NDArray[np.int32],
    hidden: bool,
    mid: NDArray[np.float64],
    last: int,
    rule: ContourRule,
    bound: NDArray[np.int32],
) -> None:
    """Nuclear edge, least, middle and greatest radius (steps) of a cell into ``bound`` (ray, 4)."""
    for a in range(N_RAYS):
        edge = int(nucleus[a] * rule.scale + 0.5)
        least = min(max(edge if hidden else edge // LEAST_PART, rule.flank), last)
        most = min(edge + rule.reach, last)
        middle = -OPEN
        if mid[a] < OPEN:
            middle = int(mid[a] * rule.scale + 0.5)
            most = min(most, middle + rule.beyond)
        most = max(most, edge, least)
        bound[a, 0], bound[a, 1], bound[a, 2], bound[a, 3] = edge, least, middle, min(most, last)


@njit(nogil=True, cache=True, boundscheck=False)
def _read_brown(
    dab: Sheet, at: int, bound: NDArray[np.int32], rule: ContourRule, brown: NDArray[np.uint8]
) -> None:
    """Compressed DAB of one lane's cell between its bounds, and a flank to either side."""
    for a in range(N_RAYS):
        for r in range(bound[a, 1] - rule.flank, bound[a, 3] + rule.flank + 1):
            brown[a, np.uint64(r * LANES)] = COMPRESSED[np.uint64(sample(dab, at, a, r))]


@njit(nogil=True, cache=True, boundscheck=False)
def _place(
    bound: NDArray[np.int32], rule: ContourRule, by_edge: NDArray[np.int32], gain: NDArray[np.int32]
) -> None:
    """Gain of one lane's radii by their place: from the nucleus, and from the midline if there is one."""
    for a in range(N_RAYS):
        edge, middle = bound[a, 0], bound[a, 2]
        beside = rule.by_mid if middle >= 0 else rule.by_open
        start = middle if middle >= 0 else edge
        for r in range(bound[a, 1], bound[a, 3] + 1):
            away = max(min(r - start, rule.zero), -rule.zero) + rule.zero
            gain[a, np.uint64(r * LANES)] = by_edge[np.uint64(r - edge + rule.zero)] + beside[np.uint64(away)]


@njit(nogil=True, cache=True, boundscheck=False)
def _span(bound: NDArray[np.int32], a: int) -> tuple[int, int]:
    """Least radius of ray ``a`` that any lane may use, and one more than the greatest."""
    low, high = bound[a, 1, 0], bound[a, 3, 0]
    for lane in range(1, LANES):
        low, high = min(low, bound[a, 1, lane]), max(high, bound[a, 3, lane])
    return low, high + 1


# Loops over the radii ``low`` to ``high`` of ray ``a`` in lanes, in 32 bits and each in a function of its
# own, so that they become vector code. What one leaves to the next begins at ``low``. Beyond a lane's own
# bounds they read what an earlier cell left there: its gain is `FORBIDDEN` there, and nothing adds up.


@njit(nogil=True, cache=True, boundscheck=False)
def _forbid(gain: NDArray[np.int32], a: int, first: int, final: int) -> None:
    row = gain[a, first * LANES : (final + 1) * LANES]
    for k in range(len(row)):
        row[k] = FORBIDDEN


@njit(nogil=True, cache=True, boundscheck=False)
def _count(bound: NDArray[np.int32], a: int, low: int, high: int, since: NDArray[np.int32]) -> None:
    """How far the radii lie beyond every lane's least."""
    one = np.int32(1)
    for lane in range(LANES):
        since[lane] = low - bound[a, 1, lane]
    for k in range((high - low - 1) * LANES):
        since[LANES + k] = since[k] + one


@njit(nogil=True, cache=True, boundscheck=False)
def _ridge_height(
    brown: NDArray[np.uint8], a: int, low: int, high: int, flank: int, height: NDArray[np.int32]
) -> None:
    """Height of the compressed DAB over both flanks, twice."""
    here, outer = brown[a, low * LANES :], brown[a, (low + flank) * LANES :]
    inner = brown[a, (low - flank) * LANES :]
    own = height[flank * LANES :]
    for k in range((high - low) * LANES):
        own[k] = np.int32(np.int32(2 * np.int32(here[k])) - np.int32(inner[k])) - np.int32(outer[k])


@njit(nogil=True, cache=True, boundscheck=False)
def _crossing_cost(
    height: NDArray[np.int32],
    since: NDArray[np.int32],
    low: int,
    high: int,
    flank: int,
    crossed: NDArray[np.int32],
) -> None:
    """Add up the crests that lie before every radius, a flank or more."""
    none, crest, behind = np.int32(0), np.int32(CREST), np.int32(flank - 1)
    over = height[LANES:]  # a flank less one behind
    for k in range((high - low - 1) * LANES):
        membrane = max(np.int32(over[k] - crest), none)
        crossed[LANES + k] = crossed[k] + (membrane if since[k] >= behind else none)


@njit(nogil=True, cache=True, boundscheck=False)
def _weigh(
    height: NDArray[np.int32],
    crossed: NDArray[np.int32],
    low: int,
    high: int,
    rule: ContourRule,
    brown: NDArray[np.uint8],
    gain: NDArray[np.int32],
    a: int,
) -> None:
    """Add to the gain of every radius what its DAB and what lies before it are worth."""
    none, some, much = np.int32(0), np.int32(FAINT_RIDGE), np.int32(PLAIN_RIDGE)
    stained = np.int32(PLAIN_LEVEL)
    up, up_much, up_some, down = rule.height[0], rule.height[1], rule.height[2], rule.height[3]
    level, level_much = rule.level[0], rule.level[1]
    crossing_cost, walls = np.int32(rule.crossed), np.int32(rule.most_crossed)
    own, grey = height[rule.flank * LANES :], brown[a, low * LANES :]
    row = gain[a, low * LANES : high * LANES]
    for k in range(len(row)):
        crest, dab = max(own[k], none), np.int32(grey[k])
        total = (
            np.int32(up * crest) + np.int32(up_much * min(crest, much)) + np.int32(up_some * min(crest, some))
        )
        total += (
            np.int32(down * min(own[k], none))
            + np.int32(level * dab)
            + np.int32(level_much * min(dab, stained))
        )
        row[k] += total + np.int32(crossing_cost * min(crossed[k], walls))
