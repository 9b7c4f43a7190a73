"""Dual ISH in bright field: planted silver, red and hematoxylin come back apart."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from her2core.kernels.ish.dish import (
    BASE,
    PER_OD,
    REFERENCE_COUNTERSTAIN,
    REFERENCE_RED,
    SHADES,
    ZERO,
    DishPlanes,
    DishUnmixer,
    estimate_dish,
    paint_over,
    unmix_hematoxylin,
)
from her2core.kernels.stain import Vector, angle_deg, unit
from her2core.records import DishStain

MPP = 0.15
I0 = (230.0, 228.0, 225.0)
HEMATOXYLIN: Vector = (0.72, 0.65, 0.24)
RED: Vector = (0.16, 0.94, 0.30)
STAIN = DishStain(I0, HEMATOXYLIN, RED, "reference", None, 0.02, 0.25)
Floats = npt.NDArray[np.float64]


def light(hematoxylin: Floats, red: Floats, black: Floats) -> npt.NDArray[np.uint8]:
    od = hematoxylin[..., None] * unit(HEMATOXYLIN) + red[..., None] * unit(RED) + black[..., None]
    return np.clip(np.rint(np.array(I0) * 10.0**-od), 0, 255).astype(np.uint8)


def bump(shape: tuple[int, int], y: float, x: float, sigma_um: float = 0.25) -> Floats:
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    square = (yy - y) ** 2 + (xx - x) ** 2
    return np.asarray(np.exp(-square / (2 * (sigma_um / MPP) ** 2)), np.float64)


def planes_of(hematoxylin: Floats, red: Floats, black: Floats) -> DishPlanes:
    found = DishUnmixer(STAIN, MPP)(light(hematoxylin, red, black))
    return DishPlanes(*(plane.copy() for plane in found))


def counterstain(stain: DishStain, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    unmixer, grey = DishUnmixer(stain, MPP), np.zeros(rgb.shape[:2], np.uint8)
    unmix_hematoxylin(cv2.GaussianBlur(rgb, (0, 0), 1.0), unmixer.table, unmixer.weights, grey)
    return grey


SHAPE = (96, 96)
NONE = np.zeros(SHAPE)
NUCLEUS = np.where(np.hypot(*(np.mgrid[:96, :96] - 48)) < 36, 0.25, 0.02)


def test_each_stain_alone_shows_in_its_own_plane() -> None:
    silver, red = 0.6 * bump(SHAPE, 48, 40), 0.8 * bump(SHAPE, 48, 60)
    found = planes_of(NUCLEUS, red, silver)
    assert found.black[48, 40] - ZERO > 0.35 * PER_OD
    assert found.red[48, 60] - ZERO > 0.5 * PER_OD
    grey = counterstain(STAIN, light(NUCLEUS, red, silver))
    assert abs(int(grey[20, 48]) - (BASE + SHADES)) <= 3
    assert abs(int(grey[2, 2]) - BASE) <= 3


def test_red_signals_are_not_black_and_black_ones_not_red() -> None:
    for strength in (0.4, 0.8, 1.2):
        red = planes_of(NUCLEUS, strength * bump(SHAPE, 48, 48), NONE)
        plain = planes_of(NUCLEUS, NONE, NONE)
        assert int(red.black[40:57, 40:57].max()) - int(plain.black[48, 48]) < 0.1 * PER_OD
        black = planes_of(NUCLEUS, NONE, strength * bump(SHAPE, 48, 48))
        assert np.abs(black.red[40:57, 40:57].astype(int) - ZERO).max() < 0.1 * PER_OD


def test_dense_hematoxylin_is_no_black_signal() -> None:
    dense = planes_of(4.0 * NUCLEUS, NONE, NONE)
    inside = dense.black[30:67, 30:67].astype(int)  # level, however high: signals are what stands out of it
    assert inside.max() - inside.min() <= 2


def test_a_black_dot_whose_colours_are_shifted_leaves_no_red_rim() -> None:
    silver = 0.5 * bump(SHAPE, 48, 48, 0.2)
    rgb = light(NUCLEUS, NONE, silver)
    for channel, shift in ((0, -1), (2, 1)):
        rgb[..., channel] = np.roll(rgb[..., channel], shift, axis=1)
    found = DishUnmixer(STAIN, MPP)(rgb)
    assert np.abs(found.red[38:59, 38:59].astype(int) - ZERO).max() < 0.12 * PER_OD
    assert int(found.black[48, 48]) - int(found.black[60, 48]) > 0.1 * PER_OD


def test_red_beside_black_survives_the_painting() -> None:
    found = planes_of(NUCLEUS, 0.8 * bump(SHAPE, 48, 55), 0.6 * bump(SHAPE, 48, 46))
    y, x = np.unravel_index(np.argmax(found.red), SHAPE)
    assert np.hypot(y - 48, x - 55) <= 2.0
    assert found.red[y, x] - ZERO > 0.5 * PER_OD


def test_painting_looks_no_farther_than_it_may() -> None:
    image = np.full((21, 21), 10, np.uint8)
    image[8:13, 8:13] = 90
    mask = np.zeros_like(image)
    mask[8:13, 8:13] = 1
    near = image.copy()
    paint_over(near, mask, 2)
    assert near[10, 10] == 90  # nothing unmasked within two pixels
    assert near[9, 9] == 10
    paint_over(image, mask, 3)
    assert (image == 10).all()


def test_painting_weighs_the_eight_sides_by_nearness() -> None:
    rng = np.random.default_rng(7)
    for shape, share in (((40, 150), 0.3), ((9, 70), 0.8), ((30, 64), 1.0), ((20, 30), 0.0)):
        image = rng.integers(0, 256, shape).astype(np.uint8)
        mask = (cv2.blur(rng.random(shape), (3, 3)) < share).astype(np.uint8)
        expected = image.copy()
        for y, x in np.argwhere(mask):
            found = []
            for dy, dx in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
                for d in range(1, 6):
                    yy, xx = y + d * dy, x + d * dx
                    if not (0 <= yy < shape[0] and 0 <= xx < shape[1]):
                        break
                    if not mask[yy, xx]:
                        found.append(((1 << 16) // d, int(image[yy, xx])))
                        break
            if found:
                mass = sum(weight for weight, _ in found)
                expected[y, x] = (sum(weight * value for weight, value in found) + mass // 2) // mass
        paint_over(image, mask, 5)
        np.testing.assert_array_equal(image, expected)


def test_a_pixel_is_the_same_wherever_the_region_begins() -> None:
    rng = np.random.default_rng(0)
    silver = sum((0.5 * bump(SHAPE, *rng.uniform(20, 76, 2)) for _ in range(4)), start=NONE)
    rgb = light(NUCLEUS + 0.01 * rng.normal(size=SHAPE), 0.7 * bump(SHAPE, 50, 50), silver)
    rgb = np.tile(rgb, (2, 2, 1))
    unmixer = DishUnmixer(STAIN, MPP)
    reach = unmixer.reach_px
    whole = [plane.copy() for plane in unmixer(rgb)]
    part = unmixer(np.ascontiguousarray(rgb[3:-5, 11:-2]))
    for a, b in zip(whole, part, strict=True):
        inner = a[3:-5, 11:-2][reach:-reach, reach:-reach]
        assert inner.size > 10_000
        assert np.array_equal(inner, b[reach:-reach, reach:-reach])


def tissue(seed: int, reds: int = 20) -> list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]]:
    """Tiles at half a micrometre a pixel: round nuclei with signals a pixel or two wide."""
    rng = np.random.default_rng(seed)
    tiles = []
    for _ in range(6):
        hematoxylin = np.full((200, 200), 0.02)
        red, black = np.zeros((200, 200)), np.zeros((200, 200))
        for _ in range(40):
            y, x = (int(v) for v in rng.integers(12, 188, 2))
            cv2.circle(hematoxylin, (x, y), 9, float(rng.uniform(0.2, 0.3)), -1)
            for plane, number in ((red, reds), (black, 2)):
                for _ in range(number // 10 if plane is red else number):
                    cv2.circle(
                        plane, (x + int(rng.integers(-5, 6)), y + int(rng.integers(-5, 6))), 1, 0.7, -1
                    )
        rgb = light(cv2.GaussianBlur(hematoxylin, (0, 0), 0.7), red, black).astype(np.int16)
        noisy = np.clip(rgb + rng.normal(0, 2, rgb.shape), 0, 255).astype(np.uint8)
        tiles.append((noisy, np.ones(rgb.shape[:2], np.bool_)))
    return tiles


def test_colours_are_estimated_from_tissue() -> None:
    found = estimate_dish(tissue(1), I0, 0.5)
    assert found.source == "estimated"
    assert found.fallback is None
    assert angle_deg(found.hematoxylin, HEMATOXYLIN) < 5
    assert angle_deg(found.red, RED) < 12  # red lies on nuclei: what is seen of it holds hematoxylin
    assert found.hematoxylin_low_od < 0.1
    assert found.hematoxylin_high_od == pytest.approx(0.25, abs=0.06)


def test_without_red_signals_the_reference_is_taken_and_said_so() -> None:
    found = estimate_dish(tissue(2, reds=0), I0, 0.5)
    assert found.red == pytest.approx(tuple(unit(REFERENCE_RED)))
    assert found.fallback == "red: too few pixels of it"
    assert found.source == "estimated"


def test_without_tissue_everything_is_the_reference() -> None:
    found = estimate_dish([], I0, 0.5, i0_source="bright end")
    assert found.hematoxylin == pytest.approx(tuple(unit(REFERENCE_COUNTERSTAIN)))
    assert found.source == "reference"
    assert found.i0_source == "bright end"
    assert "hematoxylin: too few pixels of it" in (found.fallback or "")


def test_a_foreign_counterstain_is_not_believed() -> None:
    tiles = [(rgb[..., ::-1].copy(), mask) for rgb, mask in tissue(3)]  # methyl red instead of hematoxylin
    found = estimate_dish(tiles, I0[::-1], 0.5)
    assert found.source == "reference"
    assert found.fallback is not None


def test_weaker_counterstain_is_as_good() -> None:
    pale = replace(STAIN, hematoxylin_high_od=0.12)
    grey = counterstain(pale, light(0.48 * NUCLEUS, NONE, NONE))
    assert abs(int(grey[20, 48]) - (BASE + SHADES)) <= 5
