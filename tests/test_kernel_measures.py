"""What the kernels measure of an outline, and what it weighs, against plain arithmetic in this file.

Outlines and pictures are drawn at random, wide enough that every limit of a measure is passed by some. The
numbers are written again here: those of a fit change only where the fit is made anew.
"""

from __future__ import annotations

import numpy as np
import pytest

from her2core.kernels.ihc import splitting, surroundings
from her2core.kernels.ihc.nucleus_model import judge, nucleus_rule, rim_spread
from her2core.kernels.ihc.pockets import fill_pockets, judge_pockets, pocket_rule
from her2core.kernels.ihc.splitting import find_merged, split_limits, splitting_rule
from her2core.kernels.nuclei import Nuclei
from her2core.kernels.polar import new_ray_index, new_ray_offsets

EDGE, RAYS = 150, 36
UM = 0.5
TURN = 2.0 * np.pi * np.arange(RAYS) / RAYS
WIDE_RAYS = new_ray_offsets(40, 1.0)
INDEX = new_ray_index(40)


def blotches(low: float, high: float, rng: np.random.Generator, coarse: int = 15) -> np.ndarray:
    """Greys between two: even over squares of ``coarse`` pixels, with noise of 6."""
    n = EDGE // coarse
    smooth = np.kron(rng.uniform(low, high, (n, n)), np.ones((coarse, coarse)))
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint16)


def pinched(n: int, rng: np.random.Generator) -> np.ndarray:
    """Radii (n, ray) of outlines of 3 to 17 pixels: long, notched and rough ones."""
    axis, phase = rng.uniform(0, np.pi, (2, n, 1))
    size = rng.uniform(4, 12, (n, 1))
    wave = 1 + rng.uniform(0, 0.75, (n, 1)) * np.cos(2 * (TURN - axis)) + 0.15 * np.cos(3 * (TURN - phase))
    rough = rng.uniform(0, 1, (n, 1)) ** 4 * rng.normal(0, 2.5, (n, RAYS))
    return np.clip(np.rint(size * wave + rough), 3, 17).astype(np.int32)


class Drawn:
    """Outlines in a picture of hematoxylin (``blue``) and DAB (``brown``), greys."""

    def __init__(
        self,
        seed: int,
        n: int = 160,
        blue: tuple[float, float] = (60, 220),
        brown: tuple[float, float] = (0, 120),
    ) -> None:
        rng = np.random.default_rng(seed)
        self.blue, self.brown = blotches(*blue, rng), blotches(*brown, rng)
        y, x = rng.integers(45, EDGE - 45, (2, n)).astype(np.int32)
        order = np.lexsort((x, y))
        self.found = Nuclei.at(y[order], x[order])
        self.found.path[:] = pinched(n, rng)
        self.found.score[:] = rng.integers(0, 1200, n)
        stains = np.ascontiguousarray(self.blue << 8 | self.brown)
        self.sheet = WIDE_RAYS.over(stains)
        self.order = self.found.nearby()
        self.paths = self.found.path.astype(float)

    def along(self, i: int, a: int, radii: range) -> tuple[np.ndarray, np.ndarray]:
        """Blue and brown of some radii of a ray."""
        r = np.array(radii, float)
        y = self.found.y[i] + np.floor(r * np.sin(TURN[a]) + 0.5).astype(int)
        x = self.found.x[i] + np.floor(r * np.cos(TURN[a]) + 0.5).astype(int)
        return self.blue[y, x].astype(float), self.brown[y, x].astype(float)

    def within(self, i: int, every: int = 1) -> np.ndarray:
        """Mean of both inside by area, and the mean square of blue."""
        parts = [self.along(i, a, range(self.found.path[i, a])) for a in range(0, RAYS, every)]
        blue, brown = (np.concatenate(column) for column in zip(*parts, strict=True))
        weight = np.concatenate([2.0 * np.arange(len(part[0])) + 1 for part in parts])
        return np.array([weight @ blue, weight @ brown, weight @ blue**2]) / weight.sum()

    def beyond(self, i: int, first: int, last: int, every: int = 1) -> np.ndarray:
        """Both from ``first`` to before ``last`` pixels past the outline, shape ``(2, n)``."""
        path = self.found.path[i]
        parts = [self.along(i, a, range(path[a] + first, path[a] + last)) for a in range(0, RAYS, every)]
        return np.hstack([np.stack(part) for part in parts])

    def area_um2(self) -> np.ndarray:
        square = (self.paths * np.roll(self.paths, -1, axis=1)).sum(axis=1)
        return np.asarray(0.5 * np.sin(TURN[1]) * square * UM**2)

    def roughness(self) -> np.ndarray:
        turns = np.abs(self.paths - np.roll(self.paths, -1, axis=1)).sum(axis=1)
        return np.asarray(turns / self.paths.mean(axis=1))


def assert_steps(found: np.ndarray, log_odds: np.ndarray) -> None:
    """Scores count 256ths of the log-odds; sums of other order may fall to the next."""
    assert np.abs(found - 256 * log_odds).max() <= 1.01


# --- nuclei of IHC ------------------------------------------------------------------------------------


def test_a_nucleus_is_judged_by_the_fit() -> None:
    """A range of hematoxylin is 64 greys from 96 on, a tenth of an OD of DAB 12.5 greys."""
    drawn = Drawn(1)
    step = drawn.found.score / 16 / 64
    weak = drawn.found.score < 90
    inside = np.array([drawn.within(i, 2) for i in range(len(step))])
    around = np.array([drawn.beyond(i, 0, 3, 2).mean(axis=1) for i in range(len(step))])
    uneven = np.array([drawn.beyond(i, 1, 4)[0].std() for i in range(len(step))])
    wanted = (
        -12.37
        + 26.06 * np.minimum(step, 0.5)
        + 3.771 * np.clip((inside[:, 0] - 96) / 64, 0, 1.2)
        + 3.994 * np.clip((around[:, 0] - 96) / 64, -0.3, 0.6)
        - 4.493 * np.clip((inside[:, 1] - around[:, 1]) / 12.5, -0.6, 0.3)
        + 2.37 * np.log(np.clip(drawn.area_um2(), 8, 60))
        - 0.7034 * np.minimum(drawn.roughness(), 5)
        - 6.66 * uneven / 64
    )
    judge(drawn.sheet, EDGE, drawn.found, drawn.order, 90, nucleus_rule(3, UM))
    assert (drawn.found.score[weak] == -65536).all()
    assert_steps(drawn.found.score[~weak], wanted[~weak])


# --- two nuclei in an outline -------------------------------------------------------------------------


def moments(path: np.ndarray) -> tuple[np.ndarray, float, float, np.ndarray]:
    """Centroid, half axes and direction of the sectors of an outline, (y, x)."""
    r = path - 0.5
    at = np.stack([np.sin(TURN), np.cos(TURN)]) * r
    share = r**2 / (r**2).sum()
    centre = 2 / 3 * at @ share
    values, axes = np.linalg.eigh((at * share) @ at.T / 2 - np.outer(centre, centre))
    return centre, 2 * np.sqrt(values[1]), 2 * np.sqrt(max(values[0], 0.05)), axes[:, 1]


def notch(path: np.ndarray) -> float:
    """How far radii fall short of the chord between the rays 40 degrees to either side, in mean radii."""
    left, right = np.roll(path, 4), np.roll(path, -4)
    chord = left * right * np.sin(np.radians(80)) / np.sin(np.radians(40)) / (left + right)
    return float(np.maximum(chord - path, 0).sum() / path.sum())


def test_an_outline_is_parted_by_the_fit_at_a_quarter_and_three_quarters_of_its_axis() -> None:
    drawn = Drawn(2)
    n = len(drawn.order)
    rule = splitting_rule(3, 7, UM)
    odds, slender, places = np.zeros(n), np.zeros(n), np.zeros((n, 2, 2))
    for i, path in enumerate(drawn.paths):
        centre, long, short, axis = moments(path)
        slender[i] = long / short
        inside, around = drawn.within(i, 2), drawn.beyond(i, 0, 3, 2).mean(axis=1)
        odds[i] = (
            -9.685
            + 1.566 * long * UM
            - 0.8306 * min(slender[i], 3)
            + 77.33 * min(notch(path), 0.2)
            + 5.544 * np.clip((around[0] - 96) / 64, -0.3, 0.6)
            + 4.759 * np.clip((inside[1] - around[1]) / 12.5, -0.6, 0.6)
        )
        places[i] = np.floor(centre + np.outer([-0.5, 0.5], axis) * long + 0.5)
        whole = splitting.shape(drawn.found.path[i], INDEX)
        assert (whole.long, whole.short) == pytest.approx((long, short))
        found = splitting.split_log_odds(i, whole, drawn.sheet, EDGE, drawn.found, rule)
        assert found == pytest.approx(odds[i]) or (found <= 0 and odds[i] <= 0)
    rows, y, x = find_merged(drawn.sheet, EDGE, drawn.found, rule, INDEX)
    near = np.abs(places).max(axis=(1, 2)) <= 7
    assert rows.tolist() == np.flatnonzero((odds > 0) & near).tolist()
    assert 20 < len(rows) < np.count_nonzero(odds > 0) < n - 20
    at = np.stack([drawn.found.y, drawn.found.x], axis=1)[rows, None] + places[rows]
    halves = np.stack([y, x], axis=2)
    for k in np.flatnonzero(slender[rows] > 1.01):  # a disc has no axis
        assert sorted(halves[:, k].tolist()) == sorted(at[k].tolist())


def test_the_smallest_outline_is_half_a_pixel_wide() -> None:
    whole = splitting.shape(np.ones(RAYS, np.int32), INDEX)
    assert (whole.long, whole.short) == pytest.approx((0.5, 0.5))


def test_halves_end_midway() -> None:
    """Two centres 8 apart: straight on at 4, aslant farther, away from the other not."""
    limits = split_limits(np.array([[0], [0]], np.int32), np.array([[0], [8]], np.int32), 18, INDEX)
    far = 4 / np.maximum(np.cos(TURN), 1e-9)
    assert limits[0, 0].tolist() == np.where(far < 18, np.floor(far + 0.5), 18).tolist()
    assert limits[1, 0].tolist() == np.roll(limits[0, 0], 18).tolist()


# --- pockets ------------------------------------------------------------------------------------------


def test_dab_counts_less_the_darker_it_is() -> None:
    """24, 12 and 6 sixteenths of a grey; 220 without."""
    stains = np.arange(256, dtype=np.uint16).repeat(2).reshape(2, 256) | 0x4000
    pocket, coarse = np.zeros((2, 256), np.uint8), np.zeros((1, 128), np.uint8)
    fill_pockets(stains, pocket, coarse)
    dab = (np.arange(512) // 2).reshape(2, 256)
    wanted = 220 - (np.minimum(np.minimum(24 * dab, 12 * dab + 480), 6 * dab + 1260) + 8) // 16
    assert pocket.tolist() == wanted.tolist()
    assert coarse.tolist() == ((wanted.reshape(1, 2, 128, 2).sum(axis=(1, 3)) + 2) // 4).tolist()


def test_a_pocket_is_judged_by_the_fit() -> None:
    """A ray is closed by 10 greys of DAB more than inside, and by a quarter more; a grey is 1/125 OD."""
    drawn = Drawn(3, blue=(30, 130), brown=(-80, 110))
    n = len(drawn.order)
    closed, height, tissue = np.zeros(n), np.zeros(n), np.zeros(n)
    for i, path in enumerate(drawn.found.path):
        inside = drawn.within(i)
        peak = np.array([drawn.along(i, a, range(path[a] - 1, path[a] + 4))[1].max() for a in range(RAYS)])
        rise = peak - inside[1]
        closed[i] = np.mean(rise >= max(10, inside[1] / 4))
        height[i] = np.median(rise) / (inside[1] + 12.5)
        tissue[i] = max(inside[0] - 70, 0) / 64 + inside[1] / 125
    wanted = (
        -14.07
        + 8.703 * closed
        - 0.0693 * np.minimum(height, 3)
        + 0.666 * np.log(np.clip(drawn.area_um2(), 8, 150))
        - 0.336 * np.minimum(drawn.roughness(), 8)
        + 9.218 * np.clip(tissue, 0.4, 1)
    )
    weak = drawn.found.score < 200
    judge_pockets(drawn.sheet, EDGE, drawn.found, drawn.order, 200, 70, pocket_rule(3, UM))
    assert (drawn.found.score[weak] == -65536).all()
    assert_steps(drawn.found.score[~weak], wanted[~weak])
    assert height.max() > 3
    assert tissue.min() < 0.4


# --- what lies beside a nucleus -----------------------------------------------------------------------


def test_texture_gaps_and_fibres_beside_a_nucleus() -> None:
    """Clear is 0.15 ranges below the level between nuclei: grey 86; bands in whole pixels of 0.5 um."""
    drawn = Drawn(4, n=40)
    rule = surroundings.surroundings_rule(UM, 39)
    for i, path in enumerate(drawn.found.path):
        at = int(drawn.found.y[i]) * EDGE + int(drawn.found.x[i])
        inside = drawn.within(i)
        spread = np.sqrt(inside[2] - inside[0] ** 2)
        assert surroundings.texture(drawn.sheet, at, path) == pytest.approx(spread)
        clear = (drawn.beyond(i, 1, 5)[0] < 86).mean()
        assert surroundings.clear_fraction(drawn.sheet, at, path, rule.rim, 1, rule) == pytest.approx(clear)
        assert rim_spread(drawn.sheet, at, path, 3) == pytest.approx(drawn.beyond(i, 1, 4)[0].std())
        if path.max() <= 16:
            far = [drawn.along(i, a, range(path[a] + 8, path[a] + 23, 2))[0] for a in range(0, RAYS, 2)]
            found = surroundings.clear_fraction(drawn.sheet, at, path, rule.around, 2, rule)
            assert found == pytest.approx((np.concatenate(far) < 86).mean())
            aligned = surroundings.fibre_alignment(drawn.sheet, EDGE, at, path, INDEX, rule)
            assert aligned == pytest.approx(alignment(drawn, i), rel=1e-6)


def alignment(drawn: Drawn, i: int) -> float:
    """Of the outline's points, and of slopes over 2 pixels to either side, weighed by radius."""
    path = drawn.found.path[i].astype(float)
    at = path * np.array([np.cos(TURN), np.sin(TURN)])
    share = path / path.sum()
    apart = (at - (at @ share)[:, None]) * np.sqrt(share)
    tensor = np.zeros((2, 2))
    for a in range(RAYS):
        r = np.arange(path[a] + 2, path[a] + 16, 2)
        y = drawn.found.y[i] + np.floor(r * np.sin(TURN[a]) + 0.5).astype(int)
        x = drawn.found.x[i] + np.floor(r * np.cos(TURN[a]) + 0.5).astype(int)
        blue = drawn.blue.astype(float)
        slope = np.stack([blue[y, x + 2] - blue[y, x - 2], blue[y + 2, x] - blue[y - 2, x]])
        tensor += (slope * r) @ slope.T
    outline = apart @ apart.T
    lean = [(m[0, 0] - m[1, 1], 2 * m[0, 1]) for m in (outline, tensor)]
    return float(-(np.dot(*lean)) / (np.trace(outline) * (np.trace(tensor) + 1)))
