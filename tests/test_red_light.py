"""A black signal is dark in red light itself: the black plane has other peaks too."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from her2core.kernels.ish.dish import DishUnmixer
from her2core.kernels.ish.red_light import Reach, reach, seen_in_red_light
from tests.test_dish import STAIN

MPP = 0.08
TABLE = DishUnmixer(STAIN, MPP).table[0]


def od_image(red_light: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """RGB of an OD of red light, (h, w); the other colours are empty."""
    out = np.full((*red_light.shape, 3), 240, np.uint8)
    out[..., 0] = np.rint(STAIN.i0[0] * 10.0**-red_light)
    return out


def nucleus(noise: float = 0.02) -> npt.NDArray[np.float64]:
    return np.random.default_rng(3).normal(0.25, noise, (61, 61))


def judged(od: npt.NDArray[np.float64]) -> bool:
    return bool(seen_in_red_light(od_image(od), TABLE, np.array([[30.0, 30.0]]), reach(MPP))[0])


def dot(height: float, y: int = 30, x: int = 30, sigma: float = 4.0) -> npt.NDArray[np.float64]:
    yy, xx = np.mgrid[:61, :61]
    spot: npt.NDArray[np.float64] = height * np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / (2 * sigma**2))
    return spot


def test_a_dot_of_a_tenth_is_seen_and_an_even_nucleus_is_not() -> None:
    assert judged(nucleus() + dot(0.1))
    assert not judged(nucleus())


@pytest.mark.parametrize(("height", "seen"), [(0.0, False), (0.02, False), (0.1, True)])
def test_even_light_without_any_spread_is_no_dot(height: float, seen: bool) -> None:
    """As where a nucleus is saturated, or a file is compressed so far that it is flat."""
    assert judged(nucleus(noise=0.0) + dot(height)) == seen


def test_the_edge_of_a_dense_nucleus_is_no_dot() -> None:
    od = nucleus()
    od[:, 26:] += 0.3
    assert not judged(od)
    assert judged(od + dot(0.5))


@pytest.mark.parametrize(("spreads", "seen"), [(1.0, False), (1.6, True)])
def test_a_dot_is_a_quarter_more_than_the_spread_high(spreads: float, seen: bool) -> None:
    """Around it a gradient of 0.01 a pixel; the spread is what half of the ring exceeds."""
    slope = np.tile(0.01 * np.arange(61), (61, 1))
    yy, xx = np.mgrid[-14:15:2, -14:15:2]
    ring = (np.hypot(yy, xx) >= 8.0) & (np.hypot(yy, xx) <= 15.0)
    spread = 1.4826 * float(np.median(np.abs(0.01 * xx[ring])))
    flat = np.hypot(*(np.mgrid[:61, :61] - 30)) < 6
    slope[flat] = 0.3 + spreads * spread
    assert judged(slope) == seen


def test_lengths_follow_the_pixel() -> None:
    assert reach(0.08) == Reach(3, pytest.approx(8.0), pytest.approx(15.0), 2)
    assert reach(0.25).dot == reach(0.25).step == 1
