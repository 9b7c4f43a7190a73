"""Whether a black signal is seen in red light itself.

Silver is the only thing in a nucleus that makes a small dark dot in red light. The black plane is red light
less what red signals have of it, and no more than all colours have: beside a red signal, and on the coloured
edge of a dense nucleus, that difference has peaks where nothing is dark.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.ish.dish import OD_BITS
from her2core.kernels.ish.spot_peaks import ROBUST, median

SEEN: Final = 1.25  # spreads of what surrounds it, by which a black signal's OD is above that; ours, measured
LEAST_OD: Final = 0.02  # by which it is above that at least: a nucleus without noise has no spread; ours
DOT_UM: Final = 0.25  # half the window whose mean is the signal's OD; ours
RING_UM: Final = (0.64, 1.2)  # from here to there lies what surrounds it: a signal is 0.8 wide; ours
STEP_UM: Final = 0.16  # between the windows that are looked at there; ours


class Reach(NamedTuple):
    """The lengths above in pixels, one and more."""

    dot: int
    near: float
    far: float
    step: int


def reach(mpp: float) -> Reach:
    """At ``mpp`` micrometres per pixel."""
    near, far = RING_UM[0] / mpp, RING_UM[1] / mpp
    return Reach(max(1, round(DOT_UM / mpp)), near, far, max(1, round(STEP_UM / mpp)))


def seen_in_red_light(
    rgb: NDArray[np.uint8], table: NDArray[np.int32], places: NDArray[np.float64], far: Reach
) -> NDArray[np.bool_]:
    """Which signals are, bool (n,).

    Parameters
    ----------
    rgb
        uint8 ``(h, w, 3)``, with ``far.far`` and ``far.dot`` pixels around every signal.
    table
        OD of a level of red light, int32 ``(256,)``.
    places
        ``(n, 2)`` centres, ``y, x``, in pixels of ``rgb``.
    """
    out = np.empty(len(places), np.bool_)
    _judge(rgb, table, places, far, out)
    return out


@njit(nogil=True, cache=True, boundscheck=False)
def _judge(
    rgb: NDArray[np.uint8],
    table: NDArray[np.int32],
    places: NDArray[np.float64],
    reach: Reach,
    out: NDArray[np.bool_],
) -> None:
    size = int(reach.far) // reach.step
    least = LEAST_OD * (1 << OD_BITS) * (2 * reach.dot + 1) ** 2
    around, scratch = np.empty((2, (2 * size + 1) ** 2), np.float32)
    for i in range(len(places)):
        y, x = int(np.floor(places[i, 0] + 0.5)), int(np.floor(places[i, 1] + 0.5))
        n = 0
        for j in range(-size, size + 1):
            for k in range(-size, size + 1):
                dy, dx = j * reach.step, k * reach.step
                if reach.near**2 <= dy * dy + dx * dx <= reach.far**2:
                    around[n] = _window(rgb, table, y + dy, x + dx, reach.dot)
                    n += 1
        scratch[:n] = around[:n]
        middle = median(scratch[:n])
        scratch[:n] = np.abs(around[:n] - np.float32(middle))
        spread = ROBUST * median(scratch[:n])
        out[i] = _window(rgb, table, y, x, reach.dot) - middle >= max(SEEN * spread, least)


@njit(nogil=True, cache=True, boundscheck=False)
def _window(rgb: NDArray[np.uint8], table: NDArray[np.int32], y: int, x: int, half: int) -> int:
    """Sum of OD over a square; what is beyond the array repeats its edge."""
    total = 0
    for yy in range(y - half, y + half + 1):
        line = rgb[min(max(yy, 0), len(rgb) - 1)]
        for xx in range(x - half, x + half + 1):
            total += table[line[min(max(xx, 0), len(line) - 1), 0]]
    return total
