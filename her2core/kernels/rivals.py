"""One outline for every nucleus, by a verdict of bounded reach."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit

from her2core.kernels.polar import N_RAYS

OPEN: Final = 0
KEPT: Final = 1
DROPPED: Final = 2
MOST_RIVALS: Final = 16  # better outlines of one place that are remembered


class RivalRule(NamedTuple):
    """Which outlines compete."""

    near: int  # centres farther apart than this along an axis never do, pixels
    shared: int  # outline points of one inside the other that make them one nucleus
    rounds: int  # overlaps that a verdict may travel


@njit(nogil=True, cache=True, boundscheck=False)
def suppress(found: Any, rule: Any, star: Any, look: Any) -> Any:
    """Of two outlines (in ascending ``y``) that share half their points, keep the better.

    Greedy suppression would let a chain of overlaps carry an influence across a slide. Here a verdict
    travels one overlap a round, and what is still open at the end is dropped.

    Returns
    -------
    uint8 (n,): `KEPT` or `DROPPED`.
    """
    n = len(found.y)
    rivals, count = _pair(found, rule, star, look)
    state = np.zeros(n, np.uint8)
    for _ in range(rule.rounds):
        before = state.copy()
        for i in range(n):
            if before[i] == OPEN:
                state[i] = _verdict(before, rivals[i, : count[i]])
    for i in range(n):
        if state[i] == OPEN:
            state[i] = DROPPED
    return state


@njit(nogil=True, cache=True, boundscheck=False)
def _pair(found: Any, rule: Any, star: Any, look: Any) -> Any:
    """The better rivals of every outline, int32 (n, `MOST_RIVALS`), and their number (n,)."""
    n = len(found.y)
    rivals, count = np.empty((n, MOST_RIVALS), np.int32), np.zeros(n, np.int32)
    for i in range(n):
        j = i + 1
        while j < n and found.y[j] - found.y[i] <= rule.near:
            if abs(found.x[j] - found.x[i]) <= rule.near and (
                _covers(i, j, found, star, look) >= rule.shared
                or _covers(j, i, found, star, look) >= rule.shared
            ):
                loser = j if found.score[i] >= found.score[j] else i
                if count[loser] < MOST_RIVALS:
                    rivals[loser, count[loser]] = i + j - loser
                    count[loser] += 1
            j += 1
    return rivals, count


@njit(nogil=True, cache=True, boundscheck=False)
def _covers(i: int, j: int, found: Any, star: Any, look: Any) -> int:
    """Number of outline points of nucleus ``i`` that lie inside nucleus ``j``."""
    n = 0
    for a in range(N_RAYS):
        dy = found.y[i] - found.y[j] + star.dy[a, found.path[i, a]] + look.reach
        dx = found.x[i] - found.x[j] + star.dx[a, found.path[i, a]] + look.reach
        n += look.distance[dy, dx] < found.path[j, look.ray[dy, dx]] + 0.75  # a pixel is rounded
    return n


@njit(nogil=True, cache=True, boundscheck=False)
def _verdict(state: Any, rivals: Any) -> int:
    """`KEPT` if every better rival is dropped, `DROPPED` if one is kept, `OPEN` until that is known."""
    verdict = KEPT
    for r in rivals:
        if state[r] == KEPT:
            return DROPPED
        if state[r] == OPEN:
            verdict = OPEN
    return verdict
