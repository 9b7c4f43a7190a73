"""What the ISH kernel measures of outlines and signals, against plain arithmetic in this file.

Outlines and pictures are drawn at random, crowded enough that every limit is passed by some.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import ConvexHull

from her2core.columns import SPOT_DTYPE
from her2core.kernels.ish import (
    dish,
    distance_map,
    kernel,
    nuclei,
    polygon,
    shape,
    spot_intensity,
    spot_peaks,
    valley,
)
from her2core.kernels.ish.holes import fill_holes
from her2core.kernels.ish.scale_space import ROOT8, scales
from her2core.kernels.polar import new_ray_index
from her2core.records import DishStain

EDGE, RAYS, N = 170, 36, 90
TURN = 2.0 * np.pi * np.arange(RAYS) / RAYS
WAY = np.stack([np.sin(TURN), np.cos(TURN)], axis=1)
INDEX = new_ray_index(45)
RULE = nuclei.rules(0.5, 300.0, levelled=False)


def smooth(sigma: float, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    field = ndimage.gaussian_filter(rng.normal(size=(EDGE, EDGE)), sigma)
    return np.clip(low + (high - low) * (0.5 + field / field.std() / 3), 0, 255).astype(np.uint8)


class Crowd:
    """Overlapping nuclei, and what was found of them; ``outline`` holds their corners (n, ray, 2)."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.grey = smooth(2.5, 30, 270, rng)
        self.soft = ndimage.uniform_filter(self.grey, 3)
        y, x = rng.integers(45, EDGE - 45, (2, N)).astype(np.int32)
        order = np.lexsort((x, y))
        wave = rng.uniform(0, 0.4, (N, 1)) * np.cos(2 * (TURN - rng.uniform(0, np.pi, (N, 1))))
        rough = rng.uniform(0, 1.2, (N, 1)) * rng.normal(size=(N, RAYS))
        path = np.clip(np.rint(rng.uniform(4, 13, (N, 1)) * (1 + wave) + rough), 3, 18).astype(np.int32)
        self.shape = polygon.outlines(y[order], x[order], path, RULE.ray_index)
        self.path = path.astype(float)
        cut = rng.random((N, RAYS)) < 0.3
        bound = np.where(cut, path + rng.integers(-1, 4, (N, RAYS)), RULE.r_max).astype(np.int32)
        step = rng.integers(100, 700, N).astype(np.int32)
        edge = np.rint(step[:, None] * rng.uniform(-0.5, 2.0, (N, 1)) + rng.normal(0, 60, (N, RAYS)))
        self.found = nuclei.Found(self.shape, bound, np.zeros(N, np.int32), step, edge.astype(np.int32))
        self.centre = np.stack([self.shape.y, self.shape.x], axis=1).astype(float)

    def holds(self, i: int, points: np.ndarray, less: float = 0.0) -> np.ndarray:
        """Whether pixels lie within the radius, less some, of the nearest ray of nucleus ``i``."""
        apart = points - self.centre[i]
        ray = np.floor(np.arctan2(apart[..., 0], apart[..., 1]) / (2 * np.pi) * RAYS + 0.5).astype(int) % RAYS
        far = np.hypot(apart[..., 0], apart[..., 1]).astype(np.float32)
        return np.asarray(far <= self.shape.radius[i, ray] - less)

    def pixels(self, i: int) -> np.ndarray:
        """Of nucleus ``i``, (n, 2)."""
        reach = np.arange(-20, 21)
        square = np.stack(np.meshgrid(reach, reach, indexing="ij"), axis=-1).reshape(-1, 2) + self.centre[i]
        return np.asarray(square[self.holds(i, square)].astype(int))

    def share(self, i: int, j: int) -> float:
        """Of points at half and nine tenths of the radii of ``i``, those in ``j``."""
        points = [self.on_rays(i, part * self.shape.radius[i]) for part in (0.5, 0.9)]
        return float(self.holds(j, np.concatenate(points)).mean())

    def on_rays(self, i: int, radius: np.ndarray) -> np.ndarray:
        return np.asarray(self.centre[i] + np.floor(radius[:, None] * WAY + 0.5))

    def own_edge(self, i: int, j: int) -> float:
        """Mean edge 1.5 um inside of ``j``, of the free one; 0 of fewer than six rays."""
        inside = self.holds(j, self.on_rays(i, self.shape.radius[i] + 3))
        mean = self.found.edge[i][inside].mean() / self.found.step[i] if inside.sum() >= 6 else 0.0
        return float(mean)

    def has_room(self, i: int, j: int) -> bool:
        return bool(self.shape.solidity[i] >= 0.93 and self.shape.area[j] >= 1.25 * self.shape.area[i])


@cache
def crowd(seed: int = 1) -> Crowd:
    return Crowd(seed)


# --- polygons -----------------------------------------------------------------------------------------


def test_a_polygon_has_the_area_moments_and_hull_of_its_corners() -> None:
    """Triangles around the centre; a radius is the mean of three, half a pixel inside."""
    drawn = crowd()
    radius = (np.roll(drawn.path, 1, axis=1) + 2 * drawn.path + np.roll(drawn.path, -1, axis=1)) / 4 - 0.5
    assert drawn.shape.radius == pytest.approx(radius)
    for i in range(N):
        corners = radius[i, :, None] * WAY
        sides = np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)
        area = 0.5 * np.abs(np.linalg.det(sides))
        centre = (area[:, None] * sides.sum(axis=1) / 3).sum(axis=0) / area.sum()
        moments = np.zeros((2, 2))
        for part, (a, b) in zip(area, sides, strict=True):
            points = np.stack([-centre, a - centre, b - centre])
            moments += part / 12 * (points.T @ points + np.outer(points.sum(axis=0), points.sum(axis=0)))
        low, high = np.linalg.eigvalsh(moments)
        assert drawn.shape.area[i] == pytest.approx(area.sum())
        assert drawn.shape.centroid[i] == pytest.approx(centre)
        assert drawn.shape.elongation[i] == pytest.approx(np.sqrt(high / low))
        assert drawn.shape.solidity[i] == pytest.approx(area.sum() / ConvexHull(corners).volume)


def test_the_largest_nucleus_is_counted_in_pixels() -> None:
    assert RULE.largest == 1200.0  # 300 um2 of a quarter each


# --- which outlines are kept --------------------------------------------------------------------------


def merits(drawn: Crowd, part: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """A tenth an axis ratio beyond 1.5, a fifth for every 200 px beyond these, 2 for what is empty."""
    large = np.maximum(drawn.shape.area / 200 - 1, 0)
    long = np.maximum(drawn.shape.elongation - 1.5, 0)
    return np.asarray(drawn.shape.solidity - 2 * empty - 0.1 * long - 0.2 * large - 0.02 * part)


def test_outlines_compete_by_their_merit() -> None:
    """Half inside is one nucleus, within 10 um; with three quarters of an edge it is one of its own."""
    for seed in (1, 2):
        drawn = crowd(seed)
        rng = np.random.default_rng(seed)
        part = rng.random(N) < 0.5
        empty = rng.uniform(0, 0.1, N)
        merit = nuclei.merit(drawn.shape, part, empty, RULE._replace(largest=200.0))
        assert merit == pytest.approx(merits(drawn, part, empty))
        contrast = drawn.found.step, drawn.found.edge
        found = nuclei.compete(drawn.shape, part, merit, contrast, RULE)
        assert found.tolist() == kept(drawn, part, merit).tolist()
        assert 10 < found.sum() < N - 10


def kept(drawn: Crowd, part: np.ndarray, merit: np.ndarray) -> np.ndarray:
    apart = np.abs(drawn.centre[:, None] - drawn.centre).max(axis=2)
    near = [(i, j) for i in range(N) for j in range(i + 1, N) if apart[i, j] <= 20]
    alive, parts_of = np.ones(N, bool), {i: [] for i in range(N)}
    for i, j in near:
        if part[i] == part[j]:
            better, worse = (i, j) if merit[i] >= merit[j] else (j, i)
            wide, small = (i, j) if drawn.shape.area[i] >= drawn.shape.area[j] else (j, i)
            stands_out = drawn.share(small, wide) >= 0.5 and drawn.has_room(small, wide)
            if stands_out and drawn.own_edge(small, wide) >= 0.75:
                alive[wide] = False
            elif drawn.share(worse, better) >= 0.5:
                alive[worse] = False
        else:
            whole, half = (j, i) if part[i] else (i, j)
            if drawn.holds(whole, drawn.centre[half]):
                parts_of[whole].append(half)
    of_parts = alive.copy()
    for whole, halves in parts_of.items():
        if halves:
            edges = [(half, drawn.own_edge(half, whole)) for half in halves]
            worth = [merit[half] + 0.1 * min(max(own, 0), 1) for half, own in edges]
            several = [own >= 0.75 and drawn.has_room(half, whole) for half, own in edges]
            alive[whole] &= not any(several) and np.mean(worth) <= merit[whole]
    for i in np.flatnonzero(part):
        rivals = [j for j in range(N) if not part[j] and alive[j] and apart[i, j] <= 20]
        beaten = any(drawn.holds(j, drawn.centre[i]) or drawn.share(i, j) >= 0.5 for j in rivals)
        alive[i] = of_parts[i] and not beaten
    return alive


def test_what_is_empty_lies_more_than_a_rim_inside() -> None:
    drawn = crowd()
    hill = np.where(drawn.grey > 110, drawn.grey, 1).astype(np.uint8)
    hill[drawn.grey > 200] = 2
    found = nuclei.empty_share(drawn.shape, hill, RULE.ray_index)
    for i in range(N):
        pixels = drawn.pixels(i)
        y, x = pixels[drawn.holds(i, pixels, 1.5)].T
        assert found[i] == pytest.approx((hill[y, x] <= 1).mean())


# --- what the image shows -----------------------------------------------------------------------------


def test_grey_and_overlap_and_sharpness_of_nuclei() -> None:
    """Haze has less than half the step and shares nothing; a radius counts as 5 to 9 pixels, here."""
    drawn = crowd()
    found = shape.measure(
        (drawn.grey, drawn.soft), drawn.shape, drawn.found, np.arange(N), 30, (5.0, 9.0), RULE.ray_index
    )
    step = drawn.found.step
    for i in range(N):
        pixels = drawn.pixels(i)
        grey = drawn.grey[pixels[:, 0], pixels[:, 1]]
        apart = np.abs(drawn.centre - drawn.centre[i]).max(axis=1)
        rivals = [j for j in range(N) if j != i and apart[j] <= 30 and 2 * step[j] > step[i]]
        shared = np.any([drawn.holds(j, pixels, 1.0) for j in rivals], axis=0).mean()
        assert found[i, 0] == pytest.approx(grey.mean())
        assert found[i, 1] == pytest.approx(sharpness(drawn, i))
        assert found[i, 2] == pytest.approx(shared + lens(drawn, i, pixels))
        assert found[i, 3] == pytest.approx((grey == 255).mean())
    assert found[:, 3].max() > 0
    assert 10 < np.count_nonzero(found[:, 1]) < N


def levels(drawn: Crowd, image: np.ndarray, i: int, ray: int, radii: np.ndarray) -> np.ndarray:
    at = drawn.centre[i] + np.floor(radii[:, None] * WAY[ray] + 0.5)
    return np.asarray(image[tuple(at.astype(int).T)], float)


def lens(drawn: Crowd, i: int, pixels: np.ndarray) -> float:
    """On a cut, 2 pixels to either side, what is brighter than 1.4 median heights over 32."""
    grey = np.sort(drawn.soft[pixels[:, 0], pixels[:, 1]].astype(float))
    bright = 32 + 1.4 * (grey[len(grey) // 2] - 32)
    total = 0.0
    for a in range(RAYS):
        cut = drawn.shape.radius[i, a] + 0.5
        if cut < drawn.found.bound[i, a] - 2:
            continue
        over = levels(drawn, drawn.soft, i, a, np.arange(45.0)) > bright
        first = next((r for r in range(int(cut) + 2, -9, -1) if r <= cut - 2 or over[r]), 0)
        if first > cut - 2:
            low = next(r for r in range(first, -1, -1) if r == 0 or not over[r])
            high = next(r for r in range(first, 45) if r >= 2 * cut or not over[r + 1])
            total += np.pi / RAYS * (high**2 - low**2)
    return float(total / drawn.shape.area[i])


def sharpness(drawn: Crowd, i: int) -> float:
    """Fall over a tenth of the radius, of that over seven tenths, every ray about its own steepest place."""
    radius = np.clip(np.sqrt(drawn.shape.area[i] / np.pi), 5, 9)
    half = int(np.ceil(0.35 * radius + 0.5))
    around, aside = np.arange(-half, half), max(int(0.175 * radius + 0.5), 1)
    profile = np.zeros(2 * half)
    for a in range(RAYS):
        edge = drawn.shape.radius[i, a] + 0.5
        if edge <= drawn.found.bound[i, a] - 1:
            profile += levels(
                drawn, drawn.grey, i, a, np.maximum(steepest(drawn, i, a, edge, aside) + around, 0.0)
            )
    close, wide = (
        -np.diff(np.interp([half - 0.5 - away, half - 0.5 + away], np.arange(2 * half), profile))[0]
        for away in (0.05 * radius, 0.35 * radius)
    )
    return float(close / wide) if wide > 0 else 0.0


def steepest(drawn: Crowd, i: int, ray: int, edge: float, aside: int) -> float:
    """Where as many pixels inside exceed those outside by most; of equals the nearest, then the inner one."""
    falls = {}
    for shift in sorted(range(-aside, aside + 1), key=lambda s: (abs(s), s)):
        away = np.arange(aside)
        inner, outer = (np.maximum(edge + shift + way, 0.0) for way in (-1 - away, away))
        falls[shift] = sum(levels(drawn, drawn.grey, i, ray, inner)) - sum(
            levels(drawn, drawn.grey, i, ray, outer)
        )
    return edge + max(falls, key=lambda shift: falls[shift])


# --- valleys and depth --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "share", "base", "aside"), [(8, 4, 32, 2), (5, 2, 0, 0), (2, 1, 0, 0), (0, 8, 32, 1)]
)
def test_seeds_are_parted_at_the_lowest_place_between(depth: int, share: int, base: int, aside: int) -> None:
    """Depths count from the lower mean of nine pixels, shares in sixteenths of the height over base."""
    drawn = crowd()
    rule = valley.PartRule(near=20, depth=depth, share=share, base=base, aside=aside)
    y, x = drawn.shape.y, drawn.shape.x
    bound, wanted = (np.full((N, RAYS), 60, np.int32) for _ in range(2))
    valley.part_seeds(drawn.soft, y, x, rule, RULE.ray_index, bound)
    for i in range(N):
        for j in range(i + 1, N):
            way = drawn.centre[j] - drawn.centre[i]
            where = lowest_between(drawn.soft, drawn.centre[i], way, rule) if np.abs(way).max() <= 20 else 0
            if where:
                along = WAY[:, 1] * way[1] + WAY[:, 0] * way[0]
                along /= (far := np.sqrt(way @ way))
                for k, part, sign in ((i, where, along), (j, 1 - where, -along)):
                    open_ = sign > 0.2
                    wanted[k, open_] = np.minimum(wanted[k, open_], (part * far / sign[open_]).astype(int))
    assert bound.tolist() == wanted.tolist()
    assert 100 < np.count_nonzero(bound < 60) < N * RAYS


def lowest_between(image: np.ndarray, start: np.ndarray, way: np.ndarray, rule: valley.PartRule) -> float:
    """Where along the way, 0 to 1; 0 of none, or of seeds less than 4 pixels apart."""
    steps = int(np.abs(way).max())
    if steps < 4:
        return 0.0
    grey = image.astype(int)
    seeds = np.stack([start, start + way]).astype(int)
    ends = [grey[y - 1 : y + 2, x - 1 : x + 2].sum() // 9 for y, x in seeds]
    k = np.arange(1, steps)[:, None]
    lines = []
    for side in (-1, 0, 1):
        aside = side * rule.aside * np.array([way[1], -way[0]]) / np.sqrt(way @ way)
        lines.append(grey[tuple(np.floor(start + k * way / steps + aside + 0.5).astype(int).T)])
    deep = min(ends) - max(line.min() for line in lines)
    if deep < rule.depth or deep < rule.share / 16 * (min(ends) - rule.base):
        return 0.0
    return float(k[np.argmin(lines[1]), 0] / steps)


def test_depth_is_counted_by_steps_of_5_7_and_11() -> None:
    mask = np.where(crowd().grey > 90, 255, 0).astype(np.uint8)
    mask[40:110, 60:130] = 255
    found = mask.copy()
    distance_map.measure_depth(found, 75)
    depth = np.where(mask > 0, 10**6, 0)
    depth[:2] = depth[-2:] = 0
    depth[:, :2] = depth[:, -2:] = 0
    moves = [(5, 0, 1), (5, 1, 0), (7, 1, 1), (7, 1, -1)]
    moves += [(11, dy, dx) for dy, dx in ((1, 2), (2, 1), (1, -2), (2, -1))]
    for _ in range(25):
        for cost, dy, dx in moves:
            for sign in (1, -1):
                depth = np.minimum(depth, np.roll(depth, (sign * dy, sign * dx), axis=(0, 1)) + cost)
    assert found.max() == 75
    assert found.tolist() == np.minimum(depth, 75).tolist()


def test_a_pixel_is_stained_by_range_haze_and_glow_and_creases_cut() -> None:
    """Never below 0.18 of the range, always above 0.6, but for 0.4 of the brightest near; 64 greys wide."""
    rng = np.random.default_rng(5)
    calm, wide, near, closed = rng.integers(20, 256, (4, 300, 300)).astype(np.uint8)
    near = np.maximum(near // 2, calm)
    closed = np.clip(calm + rng.integers(0, 25, calm.shape), 0, 255).astype(np.uint8)
    whole, parts = np.zeros((2, *calm.shape), np.uint8)
    distance_map._stained(calm, wide, near, closed, whole, parts)
    v, haze, glow = (plane.astype(float) for plane in (calm, wide, near))
    haze, glow = 32 + np.floor((haze - 32) * 3 / 4), 32 + np.floor((glow - 32) * 4 / 10)
    stained = (v > np.clip(haze, np.floor(32 + 0.18 * 64), np.floor(32 + 0.6 * 64))) & (v > glow)
    crease = closed - v >= np.maximum(4, np.floor((v - 32) / 12))
    assert (whole > 0).tolist() == stained.tolist()
    assert (parts > 0).tolist() == (stained & ~crease).tolist()


def test_holes_are_filled_up_to_their_width() -> None:
    rng = np.random.default_rng(6)
    field = ndimage.gaussian_filter(rng.normal(size=(220, 260)), 1.3)
    mask = np.where(field > -0.02, 255, 0).astype(np.uint8)
    grey = rng.integers(0, 256, mask.shape).astype(np.uint8)
    grey[:, :130] = np.maximum(grey[:, :130], 100)
    regions, n = ndimage.label(mask == 0)
    wanted = mask.copy()
    for k, place in enumerate(ndimage.find_objects(regions), start=1):
        hole = regions[place] == k
        widest = 5 if (grey[place][hole] <= 60).any() else 12
        wanted[place][hole] = 255 if max(hole.shape) <= widest else 0
    fill_holes(mask, grey, 60, (5, 12))
    assert mask.tolist() == wanted.tolist()
    assert n > 200


# --- signals ------------------------------------------------------------------------------------------


def test_the_stronger_of_two_signals_within_half_a_diameter_stays() -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        spots = np.zeros((60, 6))
        spots[:, 0], spots[:, 3] = rng.uniform(10, 100, 60), rng.uniform(1, 2.5, 60)
        spots[:, 1:3] = rng.uniform(0, 40, (60, 2))
        wanted: list[np.ndarray] = []
        for spot in spots[np.argsort(-spots[:, 0])]:
            reach = [0.5 * np.sqrt(8) * max(spot[3], other[3]) for other in wanted]
            near = [np.hypot(*(spot - other)[1:3]) <= far for other, far in zip(wanted, reach, strict=True)]
            if spot[0] >= 0.35 * spots[:, 0].max() and not any(near):
                wanted.append(spot)
        n = spot_peaks.merge_spots(spots, 60, 0.35, 0.5)
        assert spots[:n].tolist() == [spot.tolist() for spot in wanted]


def test_noise_is_that_of_a_grid_of_some_256_pixels() -> None:
    """1.4826 times the median size, in the nucleus, of pixels 2 apart in 40 x 26."""
    rng = np.random.default_rng(8)
    level = rng.normal(0, 5, (46, 32)).astype(np.float32)
    inside = rng.integers(0, 2, (40, 26)).astype(np.int32)
    seen = np.abs(level[3:-3, 3:-3])[1::2, 1::2][inside[1::2, 1::2] == 1]
    assert spot_peaks.noise_of(level, inside, 1, 3) == pytest.approx(1.4826 * np.median(seen), rel=1e-6)
    assert spot_peaks.noise_of(level, inside, 2, 3) == 0


def test_a_signal_rises_by_half_its_contrast_above_the_median_around() -> None:
    rng = np.random.default_rng(9)
    pad, reach = 4, 17
    level = ndimage.gaussian_filter(rng.normal(0, 80, (88, 98)), 2).astype(np.float32)
    inside = (ndimage.gaussian_filter(rng.normal(size=(80, 90)), 6) > 0).astype(np.int32)
    spots = np.zeros((60, 6))
    spots[:, 1], spots[:, 2] = rng.integers(pad, 80 + pad, 60), rng.integers(pad, 90 + pad, 60)
    spots[:, 0], spots[:, 4] = rng.uniform(1, 30, 60), spots[:, 1] * 98 + spots[:, 2]
    wanted = []
    for spot in spots:
        ways = np.arange(-16, reach + 1, 2)
        y, x = (np.array(a) for a in np.meshgrid(spot[1] - pad + ways, spot[2] - pad + ways, indexing="ij"))
        within = (y >= 0) & (y < 80) & (x >= 0) & (x < 90)
        y, x = y[within].astype(int), x[within].astype(int)
        around = level[pad:, pad:][y, x][inside[y, x] == 1]
        ground = float(np.median(around)) if len(around) else 0.0
        if level.ravel()[int(spot[4])] - ground >= 0.5 * spot[0]:
            wanted.append([*spot[:5], ground])
    n = spot_intensity.risen(level, inside, 1, pad, reach, spots, 60)
    assert spots[:n] == pytest.approx(np.array(wanted))
    assert 5 < n < 50


@pytest.mark.parametrize(("slender", "round_"), [(4.8, True), (5.2, False)])
def test_a_ridge_is_five_times_as_curved_across_as_along(slender: float, round_: bool) -> None:
    """Curvature of 1 along, ``slender`` across, at 30 degrees; small, so that all is quadratic."""
    y, x = np.mgrid[-3:4, -3:4] * 1.0
    along, across = (np.cos(a) * x + np.sin(a) * y for a in (np.pi / 6, np.pi / 6 + np.pi / 2))
    level = (1000 - along**2 - slender * across**2).astype(np.float32)
    assert spot_peaks._round(level, 3, 3) == round_


def test_places_are_kept_in_64ths_within_half_a_pixel() -> None:
    for before, top, after in ((1.0, 4.0, 2.0), (0.0, 4.0, 3.9), (3.9, 4.0, 0.0), (4.0, 4.0, 4.0)):
        bend = 2 * top - before - after
        at = np.clip((after - before) / 2 / bend, -0.5, 0.5) if bend > 0 else 0.0
        assert spot_peaks._vertex(before, top, after) == np.floor(64 * at + 0.5) / 64


def test_scales_answer_to_their_diameters() -> None:
    """Three scales: geometric steps; a Gaussian ends at 2.5 sigma; the gain of a difference of two."""
    bank = scales(2.0, 8.0, 3)
    assert bank.sigma_px == pytest.approx(np.array([2, 4, 8]) / np.sqrt(8))
    level = np.array([2**0.5, 2**1.5, 2**2.5, 2**3.5]) / np.sqrt(8)
    step = np.sqrt(np.diff(level**2, prepend=0.0))
    assert bank.radius.tolist() == np.ceil(2.5 * step).astype(int).tolist()
    assert (bank.gain, ROOT8) == pytest.approx((1 / 3, np.sqrt(8)))
    for taps, sigma, radius in zip(bank.taps, step, bank.radius, strict=True):
        bell = np.exp(-(np.arange(radius + 1) ** 2) / (2 * sigma**2))
        assert taps[: radius + 1] == pytest.approx(bell / (bell[0] + 2 * bell[1:].sum()), rel=1e-5)


# --- colours of dual ISH ------------------------------------------------------------------------------

I0 = (240.0, 236.0, 230.0)
COLOURS = np.array([(0.76, 0.62, 0.20), (0.13, 0.95, 0.28), (1.0, 1.0, 1.0)])
COLOURS[:2] /= np.linalg.norm(COLOURS[:2], axis=1)[:, None]
STAIN = DishStain(I0, tuple(COLOURS[0]), tuple(COLOURS[1]), "estimated", None, 0.05, 0.21)


def stained_pixels(n: int, seed: int) -> np.ndarray:
    """RGB of random amounts of hematoxylin, red and black, of some none."""
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(0, (0.6, 0.5, 0.3), (n, 3)) * (rng.random((n, 3)) < (0.9, 0.5, 0.4))
    return np.rint(np.array(I0) * 10.0 ** -(amounts @ COLOURS)).astype(np.uint8)


def optical(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(np.log10(np.array(I0) / rgb))


def test_signals_and_hematoxylin_are_unmixed_into_greys() -> None:
    """Planes have 100 greys an OD from 32 on; hematoxylin 64 for 0.16 OD, from 32 at 0.05."""
    rgb = stained_pixels(4000, 11).reshape(40, 100, 3)
    unmixer = dish.DishUnmixer(STAIN, 0.15)
    black, red, hem = np.zeros((3, 40, 100), np.uint8)
    dish.unmix_signals(rgb, unmixer.table, unmixer.weights, black, red)
    dish.unmix_hematoxylin(rgb, unmixer.table, unmixer.weights, hem)
    od = optical(rgb)
    amounts = od @ np.linalg.inv(COLOURS)
    dark = np.minimum(od[..., 0] - COLOURS[1, 0] * np.maximum(amounts[..., 1], 0), 3 * od.min(axis=-1))
    for found, wanted in (
        (black, 32 + 100 * dark),
        (red, 32 + 100 * amounts[..., 1]),
        (hem, 32 + 64 * (amounts[..., 0] - 0.05) / 0.16),
    ):
        assert np.abs(found - np.clip(wanted, 0, 255)).max() < 1.1


def test_a_range_of_less_than_8_hundredths_is_noise() -> None:
    """Hematoxylin of 0.2 OD over 0.05 is then 64 x 0.15 / 0.08 greys."""
    narrow = dish.unmixing_weights(replace(STAIN, hematoxylin_low_od=0.05, hematoxylin_high_od=0.06))
    weights = narrow.hematoxylin / (1 << 8)
    grey = weights[:3] @ (0.2 * COLOURS[0]) + weights[3] / (1 << 10)
    assert grey == pytest.approx(32.5 + 64 * 0.15 / 0.08, abs=0.1)


def test_dots_are_smoothed_and_painted_over_so_far() -> None:
    """Sigma 0.15 um to twice of it; a rim of 0.2, a patch of 0.8 and surroundings of 2 um to either side."""
    unmixer = dish.DishUnmixer(STAIN, 0.05)
    assert (unmixer.sigma, unmixer.edge) == pytest.approx((3.0, 13))
    assert (unmixer.rim, unmixer.patch, unmixer.wide) == (4, 16, 81)
    assert unmixer.reach_px == 6 + 40 + 4 + 16
    coarse = dish.DishUnmixer(STAIN, 1.0)
    assert (coarse.sigma, coarse.edge, coarse.rim, coarse.patch, coarse.wide) == (0.5, 3, 1, 2, 5)


def mean_direction(od: np.ndarray) -> np.ndarray:
    total = od.sum(axis=0)
    return np.asarray(total / np.linalg.norm(total))


def test_colours_are_the_mean_directions_of_their_poles() -> None:
    """Counterstain: the stronger quarter of what has half as much red and less than 0.12 OD of black.

    Red: 35 degrees from it and 0.2 OD, of which the redder half counts. Below 0.15 OD is noise.
    """
    rgb = stained_pixels(6000, 12)
    found = dish.estimate_dish([(rgb[None], np.ones((1, 6000), np.bool_))], I0, 0.5)
    od = optical(rgb[rgb.min(axis=1) >= 12])
    od = od[np.linalg.norm(od, axis=1) >= 0.15]
    reference = [np.array(v) / np.linalg.norm(v) for v in ((0.733, 0.647, 0.231), (0.124, 0.962, 0.243))]
    h, r, k = (od @ np.linalg.inv(np.stack([*reference, np.ones(3)]))).T
    pure = (h > 0) & (np.abs(r) < 0.5 * h) & (k < 0.12)
    blue = mean_direction(od[pure & (h >= np.percentile(h[pure], 75))])
    h, r, k = (od @ np.linalg.inv(np.stack([blue, reference[1], np.ones(3)]))).T
    angle = np.degrees(np.arctan2(r, h))
    held = (angle >= 35) & (r >= 0.2) & (k < 0.12)
    red = mean_direction(od[held & (angle >= np.percentile(angle[held], 50))])
    assert found.fallback is None
    assert found.hematoxylin == pytest.approx(blue, abs=1e-4)
    assert found.red == pytest.approx(red, abs=1e-4)


def test_what_signals_hide_is_taken_from_around_and_from_them() -> None:
    """A bin is hidden by more than 8 greys, 0.08 OD, of either; a tenth of what is around must be seen."""
    rng = np.random.default_rng(13)
    black = rng.integers(0, 40, (60, 60)).astype(np.uint8)
    red, grey = rng.integers(20, 70, (2, 60, 60)).astype(np.uint8)
    clear, beside = np.zeros((2, 60, 60), np.uint8)
    kernel.hide(black, red, grey, clear, beside)
    seen = (black <= 8) & (red <= 40)
    assert clear.tolist() == np.where(seen, 255, 0).tolist()
    assert beside.tolist() == np.where(seen, grey, 0).tolist()
    clear, beside = rng.integers(0, 60, (60, 60)).astype(np.uint8), (beside // 4).astype(np.uint8)
    hidden = np.maximum(black.astype(int) - 8, 0) + np.maximum(red.astype(int) - 40, 0)
    wanted = grey.astype(int)
    wanted = np.where(wanted < 96, np.minimum(wanted + hidden * 300 // 256, 96), wanted)
    around = np.minimum(255 * beside.astype(int) // np.maximum(clear, 1), 255)
    wanted = np.where((hidden > 0) & (clear >= 26), np.maximum(wanted, around), wanted)
    kernel.mend(black, red, 300, (clear, beside), grey)
    assert grey.tolist() == wanted.tolist()


def test_a_signal_in_focus_is_less_than_85_hundredths_of_a_micrometre_wide() -> None:
    """The strongest of either probe decides."""
    spots = np.zeros(6, SPOT_DTYPE)
    spots["nucleus"], spots["probe"] = [0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 0, 0]
    spots["contrast"] = [9, 5, 9, 5, 5, 9]
    spots["diameter_um"] = [0.84, 2.0, 0.86, 0.84, 0.5, 0.86]
    assert kernel.crisp(spots, 4).tolist() == [True, True, False, False]


def test_bins_are_means_rounded() -> None:
    rng = np.random.default_rng(14)
    pixels = rng.integers(0, 256, (15, 24, 3)).astype(np.uint8)
    out = np.zeros((5, 7, 3), np.uint8)
    kernel.shrink_rgb(pixels, 2, 3, out)
    means = pixels[:, 2:23].reshape(5, 3, 7, 3, 3).mean(axis=(1, 3))
    assert out.tolist() == np.floor(means + 0.5).tolist()
