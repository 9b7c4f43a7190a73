"""What the kernels measure of an outline, and what it weighs, against plain arithmetic in this file.

Outlines and pictures are drawn at random, wide enough that every limit of a measure is passed by some. The
numbers are written again here: those of a fit change only where the fit is made anew.
"""

from __future__ import annotations

import numpy as np
import pytest

from her2core.kernels.ihc import contour, membrane, splitting, surroundings
from her2core.kernels.ihc.kernel import IHCKernel
from her2core.kernels.ihc.nucleus_model import judge, nucleus_rule, rim_spread
from her2core.kernels.ihc.overlaps import suppress_overlaps
from her2core.kernels.ihc.planes import BASE, DAB_PER_OD, SHADES
from her2core.kernels.ihc.pockets import fill_pockets, judge_pockets, pocket_rule
from her2core.kernels.ihc.splitting import find_merged, split_limits, splitting_rule
from her2core.kernels.nuclei import Nuclei
from her2core.kernels.polar import new_ray_index, new_ray_offsets
from her2core.kernels.stain import reference_stain
from her2core.params import IHCParams

EDGE, RAYS = 150, 36
UM = 0.5
TURN = 2.0 * np.pi * np.arange(RAYS) / RAYS
WAY = np.stack([np.sin(TURN), np.cos(TURN)], axis=1)
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
    """Clear is 0.15 ranges below the level between nuclei: grey 86; bands in whole pixels of 0.5 um.

    Bare is what both stains together leave below 0.13 ranges above that level, a range being 1 OD.
    """
    drawn = Drawn(4, n=40)
    rule, shares = surroundings.surroundings_rule(UM, 39, 1.0), []
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
            beside = [drawn.along(i, a, range(path[a] + 1, path[a] + 11)) for a in range(0, RAYS, 2)]
            blue, brown = (np.concatenate(each).astype(int) for each in zip(*beside, strict=True))
            a_brown = round(SHADES / DAB_PER_OD * 256)
            bare = blue + brown * a_brown // 256 < BASE + round(0.13 * SHADES)
            assert surroundings.bare_fraction(drawn.sheet, at, path, rule) == pytest.approx(bare.mean())
            shares.append(bare.mean())
            aligned = surroundings.fibre_alignment(drawn.sheet, EDGE, at, path, INDEX, rule)
            assert aligned == pytest.approx(alignment(drawn, i), rel=1e-6)
    assert 0 < np.mean(shares) < 1


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


# --- rivals, midlines and contours --------------------------------------------------------------------


def test_the_worse_of_two_outlines_that_overlap_goes() -> None:
    """Points lie inside up to three quarters of a pixel; 9 of 36 do, or 4 of a nucleus and a pocket."""
    drawn = Drawn(5, n=50)
    found = drawn.found
    found.hidden[:] = np.random.default_rng(5).random(len(found.y)) < 0.5
    centre = np.stack([found.y, found.x], axis=1).astype(int)
    points = centre[:, None] + np.floor(drawn.paths[..., None] * WAY + 0.5).astype(int)

    def inside(i: int, j: int) -> int:
        apart = points[i] - centre[j]
        ray = np.floor(np.arctan2(apart[:, 0], apart[:, 1]) / (2 * np.pi) * RAYS + 0.5).astype(int) % RAYS
        return int(np.sum(np.hypot(*apart.T) < found.path[j, ray] + 0.75))

    keep = np.ones(len(found.y), bool)
    for i in range(len(keep)):
        for j in range(i + 1, len(keep)):
            if np.abs(centre[i] - centre[j]).max() <= 16:
                least = 9 if found.hidden[i] == found.hidden[j] else 4
                if max(inside(i, j), inside(j, i)) >= least:
                    keep[j if found.score[i] >= found.score[j] else i] = False
    kept = suppress_overlaps(found, 16, 9, 4, WIDE_RAYS, new_ray_index(60))
    assert kept.tolist() == keep.tolist()
    assert 5 < keep.sum() < len(keep) - 5


def test_the_midline_halves_the_gap_between_nuclei() -> None:
    """For rays less than 78.5 degrees (cosine 0.2) aslant to a neighbour at most 20 pixels away."""
    drawn = Drawn(6, n=50)
    _, own = np.unique(np.stack([drawn.found.y, drawn.found.x], axis=1), axis=0, return_index=True)
    found = drawn.found.where(own)
    found = found.where(found.nearby())
    mid, centre = np.zeros(RAYS), np.stack([found.y, found.x], axis=1).astype(float)
    for i in range(len(centre)):
        wanted = np.full(RAYS, float(1 << 20))
        for j in range(len(centre)):
            way = centre[j] - centre[i]
            if i != j and np.abs(way).max() <= 20:
                far = np.sqrt(way @ way)
                towards = int(np.floor(np.arctan2(*way) / (2 * np.pi) * RAYS + 0.5)) % RAYS
                gap = far - found.path[i, towards] - found.path[j, (towards + 18) % RAYS]
                along = WAY @ way / far
                there = along > 0.2
                wanted[there] = np.minimum(wanted[there], (found.path[i, towards] + gap / 2) / along[there])
        membrane.bound_rays(i, found, found.strips(EDGE), 20, INDEX, mid)
        assert mid == pytest.approx(wanted, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("step_um", [0.25, 0.5])
def test_a_contour_gains_by_its_distances_as_fitted(step_um: float) -> None:
    """Log-odds at the bends of the fit, straight lines between; a gain is a 2048th."""
    n = 60
    um = np.arange(-n, n + 1) * step_um

    def lines(at: list[float], log_odds: list[float]) -> np.ndarray:
        """On from the first and the last two points as well."""
        slopes = np.diff(log_odds) / np.diff(at)
        inner = np.interp(um, at, log_odds)
        return np.asarray(
            inner + np.minimum(um - at[0], 0) * slopes[0] + np.maximum(um - at[-1], 0) * slopes[-1]
        )

    nucleus = lines(
        [-3, -2, -1, -0.5, 0, 0.5, 1, 2, 3.5, 5, 7, 8],
        [0.999, 0.666, 0.578, 0.858, 1.194, 1.408, 1.531, 1.732, 2.089, 2.455, 2.057, 1.222],
    )
    pocket = lines([0, 0.5, 1, 1.5, 2, 3.5, 4.5], [0, 0.137, 0.215, 0.296, 0.3815, 0.0995, -0.1105])
    past = lines([0, 0.5, 1.25, 2.25], [0, -0.2095, -0.72475, -1.31575])
    before = lines([-5.5, -4.5, -2.5, -1.25, -0.5, 0], [0.21775, 0.16675, 0.19875, 0.155, 0.089, 0])
    open_ = lines([0, 1, 2, 4, 5], [0, 0.102, 0.14, 0.112, 0.047])
    found = contour.gains(step_um, n)
    for name, wanted in (
        ("by_edge", np.stack([nucleus, pocket])),
        ("by_mid", np.where(um > 0, past, before)),
        ("by_open", open_),
    ):
        assert found[name] == pytest.approx(2048 * wanted, abs=0.51)
    assert found["height"].tolist() == [1, 18, 8, 3]
    assert found["level"].tolist() == [48, 22]
    assert found["bend"].tolist() == [round(2048 * (0.3 * k + 0.05 * k * k)) for k in range(5)]
    assert found["crossed"] == round(-0.01309 * 2048 * step_um / 0.25)
    assert (found["most_crossed"], found["zero"]) == (400 * 0.25 / step_um, n)
    dab = np.arange(256)
    assert contour.COMPRESSED.tolist() == np.rint(64 * np.log2(1 + dab / 20)).tolist()


# --- membranes ----------------------------------------------------------------------------------------


class Cells(Drawn):
    """Contours 0 to 6 um outside of nuclei, on pixels of 0.25 um: half as wide as those of hematoxylin."""

    kernel = IHCKernel(IHCParams(), reference_stain((243.0, 242.0, 240.0)), 0.25)

    def __init__(self, seed: int, n: int = 40) -> None:
        super().__init__(seed, n, blue=(40, 130), brown=(-40, 90))
        rng = np.random.default_rng(seed)
        self.nucleus = np.clip(self.found.path, 3, 7)
        out = rng.uniform(0, 20, (n, 1)) + rng.uniform(0, 1, (n, 1)) * rng.integers(0, 9, (n, RAYS))
        self.contour = (2 * self.nucleus + out).astype(np.int32)
        self.rule = self.kernel.rules.contour._replace(glass=85)
        self.fine = np.kron(self.brown, np.ones((2, 2))).astype(np.uint8)
        self.fine += rng.integers(0, 40, self.fine.shape).astype(np.uint8)
        self.dab = self.kernel.rules.fine_rays.over(self.fine)
        self.sheet = self.kernel.rules.wide_rays.over(np.ascontiguousarray(self.blue << 8 | self.brown))

    def coarse_at(self, i: int) -> int:
        return int(self.found.y[i]) * EDGE + int(self.found.x[i])

    def fine_at(self, i: int) -> int:
        return 2 * (int(self.found.y[i]) * 2 * EDGE + int(self.found.x[i]))

    def on_fine(self, i: int, a: int, radii: list[int] | range) -> np.ndarray:
        """DAB around a point half a pixel right of and below the centre."""
        r = np.array(radii, float)
        y = 2 * self.found.y[i] + np.floor(r * np.sin(TURN[a]) + 1.0).astype(int)
        x = 2 * self.found.x[i] + np.floor(r * np.cos(TURN[a]) + 1.0).astype(int)
        return self.fine[y, x].astype(int)

    def beside_nucleus(self, i: int, rank: int) -> float:
        """Hematoxylin of the two pixels beside the nucleus, on the ray of a rank."""
        sums = [self.along(i, a, range(r + 1, r + 3))[0].sum() for a, r in enumerate(self.nucleus[i])]
        return float(np.sort(sums)[rank] / 2)


def test_a_contour_reads_the_most_dab_within_twice_its_slack() -> None:
    """In the last slack crests alone, and a quarter more DAB farther out makes a flank of it all."""
    cells = Cells(7)
    grey, peak = np.zeros((11, RAYS), np.int32), np.zeros(RAYS, np.int32)
    for i, path in enumerate(cells.contour):
        membrane.read_contour(cells.dab, cells.fine_at(i), path, 2, grey, peak)
        for a in range(RAYS):
            dab = cells.on_fine(i, a, [max(path[a] + k, 0) for k in range(-4, 7)])
            crests = [dab[k] for k in (7, 8) if dab[k] >= dab[k + 2]]
            most = max([*dab[:7], *crests])
            assert peak[a] == (dab[2] if dab[10] > 1.25 * most else most)


def test_cytoplasm_lies_up_to_six_tenths_of_the_way_and_2_um_from_the_membrane() -> None:
    """Of less than 36 pixels, together with the outer half of the nucleus."""
    cells = Cells(8)
    count = np.zeros((4, 256), np.int32)
    few = 0
    for i, path in enumerate(cells.contour):
        edge = 2 * cells.nucleus[i]
        last = np.minimum(edge + (0.6 * (path - edge)).astype(int), path - 8)
        greys = [cells.on_fine(i, a, range(edge[a] + 1, max(last[a], edge[a]) + 1)) for a in range(RAYS)]
        if sum(map(len, greys)) < RAYS:
            few += 1
            greys += [cells.on_fine(i, a, range(edge[a] // 2, edge[a] + 1)) for a in range(RAYS)]
        seen = np.sort(np.concatenate(greys))
        found = membrane.cytoplasm_level(
            cells.dab, cells.fine_at(i), cells.nucleus[i], path, cells.rule, count
        )
        assert found == seen[(len(seen) - 1) // 2]
    assert 0 < few < len(cells.contour)


def test_a_ray_into_a_lumen_cannot_be_judged() -> None:
    """6 um, 12 pixels, with less hematoxylin than tissue and less than 6 greys of DAB."""
    cells = Cells(9)
    peak, valid = np.full(RAYS, 10, np.int32), np.zeros(RAYS, np.bool_)
    peak[::5] = 40
    judged = 0
    for i, path in enumerate(cells.contour):
        membrane.find_valid(
            cells.sheet, cells.coarse_at(i), cells.nucleus[i], path, peak, 40, cells.rule, valid
        )
        for a in range(RAYS):
            stop = min(path[a] // 2 + 14, cells.sheet.offset.shape[1])
            blue, brown = cells.along(i, a, range(cells.nucleus[i, a] + 1, stop))
            clear = "".join("x" if b < 85 and d < 6 else "." for b, d in zip(blue, brown, strict=True))
            assert valid[a] == (peak[a] >= 40 or "x" * 12 not in clear)
            judged += valid[a]
    assert 0 < judged < cells.contour.size


def test_brown_is_dab_less_the_hematoxylin_that_comes_with_it() -> None:
    """At the brownest of three pixels across the contour, over the cell's own cytoplasm."""
    cells = Cells(10)
    stained = np.arange(RAYS) % 3 > 0
    for i, path in enumerate(cells.contour):
        own = cells.beside_nucleus(i, 18)
        dab = blue = 0.0
        for a in np.flatnonzero(stained):
            middle = int(path[a] / 2 + 0.5)
            blues, browns = cells.along(i, a, range(middle - 1, middle + 2))
            dab += browns.max() - 3
            blue += blues[np.argmax(browns)] - own
        found = membrane.brownness(
            cells.sheet, cells.coarse_at(i), cells.nucleus[i], path, 3, stained, 0.4, cells.rule
        )
        assert found == pytest.approx(1 - 0.4 * blue / dab if dab > 0 else 0.0)
