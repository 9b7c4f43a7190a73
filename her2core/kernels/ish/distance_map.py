"""How deep inside the stained area of an ISH slide every pixel lies: seeds of nuclei are the tops of it.

Twice: the `whole` takes what is stained as it is, in the `parts` creases of the stain are cuts as well. A
crease is a line paler than what lies on either side, as between two nuclei that touch, but also in coarse
chromatin.

References
----------
Borgefors 1986, Comput Vis Graph Image Process 34:344 (chamfer distance 5-7-11).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from her2core.kernels.ish.holes import fill_holes

Plane = NDArray[np.uint8]

SHADES: Final = 64  # grey steps from the level between nuclei to that of a typical nucleus
BASE: Final = 32  # grey value of the level between nuclei

# Lengths in micrometres; all are ours.
DEPTH_UM: Final = 7.5  # depth is counted so far
CHROMATIN_UM: Final = 0.5  # sigma; smoothed away before pixels are called stained
TOP_UM: Final = 0.75  # sigma; smoothed away before tops are looked for
HOLE_UM: Final = (3.0, 7.0)  # widest hole that is filled: one as dark as the field, and one that is not
CREASE_UM: Final = 1.0  # half the width of a crease
PARTNER_UM: Final = 3.0  # what is so near a nucleus and much paler is its glow
SURROUND_UM: Final = 10.0  # half the window whose mean separates stain from haze

# Of the range or in greys; all are ours.
STAINED: Final = (0.18, 0.6)  # of the range: paler is never, darker always stained; between, haze decides
HAZE: Final = (3, 4)  # stained is more than this fraction of the mean around
GLOW: Final = (4, 10)  # ... and more than this of the brightest near
CREASE: Final = (4, 12)  # grey, or one over a fraction of its height, that a crease lies below its sides
ONE_STEP: Final = 5  # depth of a pixel's width ...
SLANT_STEP: Final = 7  # ... of a diagonal
KNIGHT_STEP: Final = 11  # ... and of a knight's move (Borgefors 1986)
LIGHT_SIGMA_PX: Final = 0.8  # against noise of single pixels; ours
SPOT_PX: Final = 5  # window of the median that takes out signals, which shine into the counterstain; ours


class Images(NamedTuple):
    """The nuclear image and what is made of it, uint8 ``(h, w)``."""

    grey: Plane
    soft: Plane  # lightly smoothed
    wide: Plane  # mean of the surroundings
    whole: Plane  # smoothed depth, `ONE_STEP` a pixel
    parts: Plane  # the same where creases cut


def reach_um(*, levelled: bool) -> float:
    """How far away the pixels are that a depth depends on; `level` looks about as well."""
    windows = SURROUND_UM * (3 if levelled else 1)
    return DEPTH_UM + windows + HOLE_UM[1] + 3 * (TOP_UM + CHROMATIN_UM * (2 if levelled else 1))


def images(grey: Plane, um: float, room: Callable[[str], Plane]) -> Images:
    """Smooth, threshold and measure depth.

    8-bit blurs and means are integer arithmetic in OpenCV: a pixel's value does not depend on its place.

    Parameters
    ----------
    grey
        `BASE` between nuclei, ``BASE + SHADES`` in a typical one; ``um`` micrometres per pixel.
    room
        Gives the plane of a name, shaped like ``grey``, to write to.
    """
    soft, wide, whole, parts = (room(name) for name in ("soft", "wide", "whole", "parts"))
    calm, near, closed = (room(name) for name in ("calm", "near", "closed"))
    px = 1 / um
    cv2.GaussianBlur(grey, (3, 3), LIGHT_SIGMA_PX, dst=soft)
    _smooth(grey, CHROMATIN_UM * px, calm)
    window = _odd(SURROUND_UM * px)
    cv2.blur(calm, (window, window), dst=wide)
    cv2.medianBlur(grey, SPOT_PX, dst=closed)
    cv2.dilate(closed, _disc(PARTNER_UM * px), dst=near)
    cv2.morphologyEx(calm, cv2.MORPH_CLOSE, _disc(CREASE_UM * px), dst=closed)
    _stained(calm, wide, near, closed, whole, parts)
    cap = min(round(DEPTH_UM * px) * ONE_STEP, 255)
    pale, widest = int(BASE + STAINED[0] * SHADES), (round(HOLE_UM[0] * px), round(HOLE_UM[1] * px))
    for stained in (whole, parts):
        fill_holes(stained, calm, pale, widest)
        np.copyto(near, stained)
        measure_depth(near, cap)
        _smooth(near, TOP_UM * px, stained)
    return Images(grey, soft, wide, whole, parts)


def level(grey: Plane, um: float, low: Plane, scratch: Plane) -> None:
    """Bring the local background of ``grey`` to `BASE`, in place: lamps and sections are uneven.

    The background is the least of a lightly smoothed square of `SURROUND_UM` to every side, and at the most
    half the range from `BASE`: in the midst of packed nuclei there is none.
    """
    window = np.ones((_odd(SURROUND_UM / um),) * 2, np.uint8)
    _smooth(grey, CHROMATIN_UM / um, scratch)
    cv2.erode(scratch, window, dst=low)
    cv2.blur(low, (_odd(SURROUND_UM / um),) * 2, dst=scratch)
    np.clip(scratch, BASE - SHADES // 2, BASE + SHADES // 2, out=scratch)
    base = np.full_like(scratch, BASE)
    cv2.subtract(scratch, base, dst=low)  # saturates at 0, as the next
    cv2.subtract(base, scratch, dst=scratch)
    cv2.subtract(grey, low, dst=grey)
    cv2.add(grey, scratch, dst=grey)


def _odd(length: float) -> int:
    return 2 * max(1, round(length)) + 1


def _smooth(image: Plane, sigma_px: float, out: Plane) -> None:
    edge = _odd(3 * sigma_px)
    cv2.GaussianBlur(image, (edge, edge), sigma_px, dst=out)


def _disc(radius: float) -> Plane:
    edge = _odd(radius)
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (edge, edge)), np.uint8)


@njit(nogil=True, cache=True, boundscheck=False)
def _stained(
    calm: NDArray[np.uint8],
    wide: NDArray[np.uint8],
    near: NDArray[np.uint8],
    closed: NDArray[np.uint8],
    whole: NDArray[np.uint8],
    parts: NDArray[np.uint8],
) -> None:
    """255 where ``calm`` (h, w) is stained, else 0: ``whole``, and ``parts`` without creases."""
    low = np.int32(BASE + STAINED[0] * SHADES)
    high = np.int32(BASE + STAINED[1] * SHADES)
    h, w = calm.shape
    for y in range(h):
        for x in range(w):
            v = np.int32(calm[y, x])
            haze = BASE + (np.int32(wide[y, x]) - BASE) * HAZE[0] // HAZE[1]
            glow = BASE + (np.int32(near[y, x]) - BASE) * GLOW[0] // GLOW[1]
            stained = v > max(min(max(haze, low), high), glow)
            whole[y, x] = 255 if stained else 0
            crease = np.int32(closed[y, x]) - v >= max(np.int32(CREASE[0]), (v - BASE) // CREASE[1])
            parts[y, x] = 255 if stained and not crease else 0


@njit(nogil=True, cache=True, boundscheck=False)
def measure_depth(depth: NDArray[np.uint8], cap: int) -> None:
    """Chamfer distance of every pixel of ``depth`` (h, w) to the nearest 0, in place.

    Counted up to ``cap``: an integer that depends on nothing farther away. A rim of two pixels stays 0.
    """
    h, w = depth.shape
    depth[:2] = 0
    depth[h - 2 :] = 0
    depth[:, :2] = 0
    depth[:, w - 2 :] = 0
    lines = np.zeros((2, w), np.uint16)
    for way in (-1, 1):
        for j in range(2, h - 2):
            y = j if way < 0 else h - 1 - j
            _from_rows(depth, y, way, np.uint16(cap), lines)
            k = 0
            step = 1
            while step * ONE_STEP < cap:  # along the row by doubled steps: each is vector code
                _along_row(lines, k, way, step)
                k = 1 - k
                step *= 2
            _put(lines, k, depth, y)


# Loops that become vector code, each in a function of its own that cuts its arrays itself.


@njit(nogil=True, cache=True, boundscheck=False)
def _from_rows(depth: NDArray[np.uint8], y: int, way: int, cap: np.uint16, lines: NDArray[np.uint16]) -> None:
    """Distances of row ``y``, no more than it has, from the two rows that lie that ``way``."""
    one, slant, knight = np.uint16(ONE_STEP), np.uint16(SLANT_STEP), np.uint16(KNIGHT_STEP)
    row, up, top, out = depth[y, 2:], depth[y + way], depth[y + 2 * way, 1:], lines[0, 2:]
    b, c, d, e, right = up[1:], up[2:], up[3:], up[4:], top[2:]
    for x in range(depth.shape[1] - 4):
        aslant, far = min(b[x], d[x]), min(min(up[x], e[x]), min(top[x], right[x]))
        near = min(np.uint16(np.uint16(c[x]) + one), np.uint16(np.uint16(aslant) + slant))
        near = min(near, min(np.uint16(np.uint16(far) + knight), cap))
        out[x] = min(near, np.uint16(row[x]))


@njit(nogil=True, cache=True, boundscheck=False)
def _along_row(lines: NDArray[np.uint16], k: int, way: int, step: int) -> None:
    """Line ``k``, or what lies ``step`` pixels that ``way`` and so many steps, the less, into the other."""
    n, cost = lines.shape[1] - step, np.uint16(step * ONE_STEP)
    line, other = lines[k], lines[1 - k]
    if way < 0:
        own, beside, out = line[step:], line, other[step:]
    else:
        own, beside, out = line, line[step:], other
    for x in range(n):
        out[x] = min(own[x], np.uint16(beside[x] + cost))
    for x in range(step):
        z = x if way < 0 else n + x
        other[z] = line[z]


@njit(nogil=True, cache=True, boundscheck=False)
def _put(lines: NDArray[np.uint16], k: int, depth: NDArray[np.uint8], y: int) -> None:
    line, row = lines[k], depth[y]
    for x in range(len(row)):
        row[x] = np.uint8(line[x])
