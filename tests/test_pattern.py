"""Patterns of positive cells are named as they were planted: on lattices, in random mixtures, on phantoms."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from her2core.heterogeneity.blocks import Cuts
from her2core.heterogeneity.pattern import CLUSTER_CELLS, Pattern, PatternType, pattern_metrics, pattern_of
from her2core.heterogeneity.spatial_cells import Neighbours
from her2core.params import HeterogeneityParams, PyramidParams
from her2core.phantom import PhantomSpec, plant, render_field
from tests.helpers import chain

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]
Sheet = tuple[Reals, Reals, Ints, Ints]


@pytest.fixture(scope="module")
def sheet() -> Sheet:
    """60 x 60 cells, 15 µm apart, and their rows and columns."""
    i, j = (a.ravel() for a in np.mgrid[:60, :60])
    return i * 15.0, j * 15.0, i, j


@pytest.mark.parametrize(
    ("positive", "expected"),
    [
        (lambda i, j: i < 0, PatternType.HOMOGENEOUS),
        (lambda i, j: i >= 0, PatternType.HOMOGENEOUS),
        (lambda i, j: (i == 7) & (j < 35), PatternType.HOMOGENEOUS),  # 35 of 3600, below 1 %
        (lambda i, j: j < 30, PatternType.CLUSTER),
        (lambda i, j: j >= 10, PatternType.CLUSTER),  # the negative cells are the minority
        (lambda i, j: (j < 12) | (j >= 48), PatternType.CLUSTER),
        (lambda i, j: (i % 4 == 0) & (j % 4 == 0), PatternType.SCATTERED),
        (lambda i, j: ~((i % 4 == 0) & (j % 4 == 0)), PatternType.SCATTERED),
        (lambda i, j: (i // 10 % 3 == 0) & (j // 10 % 3 == 0), PatternType.MOSAIC),  # 4 patches of 100
        (lambda i, j: (i // 3 % 2 == 0) & (j % 30 < 28) & (i % 6 < 1), PatternType.MOSAIC),  # short rows
        (lambda i, j: (i // 5 + j // 5) % 2 == 0, PatternType.MOSAIC),  # patches that touch at their corners
        (lambda i, j: (i + j) % 2 == 0, PatternType.MOSAIC),
    ],
    ids=[
        "none",
        "all",
        "below 1 %",
        "half",
        "negative band",
        "two blocks",
        "single positive",
        "single negative",
        "patches",
        "rows",
        "board of 75 µm",
        "board of single cells",
    ],
)
def test_planted_patterns_are_named(
    sheet: Sheet, positive: Callable[[Ints, Ints], NDArray[np.bool_]], expected: PatternType
) -> None:
    y, x, i, j = sheet
    assert pattern_of(y, x, positive(i, j), 25.0).type is expected


def packed(per_mm2: float, side_um: float = 1200.0) -> tuple[Reals, Reals]:
    """Cells in a sheet, about as far apart from each other as their density allows."""
    step = math.sqrt(2 / math.sqrt(3) * 1e6 / per_mm2)
    row, column = (a.ravel() for a in np.mgrid[: int(side_um / step / 0.87), : int(side_um / step)])
    y, x = row * step * math.sqrt(3) / 2, (column + 0.5 * (row % 2)) * step
    jitter = np.random.default_rng(9).normal(0, step * 0.15, (2, len(y)))
    return y + jitter[0], x + jitter[1]


def found_in(y: Reals, x: Reals, probability: Reals | float, seed: int = 10) -> Pattern:
    positive = np.random.default_rng(seed).random(len(y)) < probability
    return pattern_of(y, x, positive, 25.0)


@pytest.mark.parametrize("per_mm2", [2000, 4000, 6000, 9000])
def test_a_random_mixture_is_no_cluster_however_dense(per_mm2: float) -> None:
    """Not even where its cells hang together across the whole sheet, as they do at 40 to 50 %."""
    y, x = packed(per_mm2)
    for share in (0.02, 0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.6, 0.9):
        found = found_in(y, x, share)
        assert found.type in (PatternType.MOSAIC, PatternType.SCATTERED)
        assert np.count_nonzero(found.cohesive) < 0.02 * len(y)
    assert found_in(y, x, 0.02).type is PatternType.SCATTERED
    half = found_in(y, x, 0.5)
    assert half.type is PatternType.MOSAIC
    assert per_mm2 < 5000 or half.sizes[0] > 0.4 * len(y)  # the trap


@pytest.mark.parametrize("per_mm2", [4000, 6000, 9000])
def test_a_cluster_is_one_in_noise_and_among_scattered_cells(per_mm2: float) -> None:
    y, x = packed(per_mm2)
    left, disc = x < 600, np.hypot(y - 600, x - 600) < 270
    noisy = found_in(y, x, np.where(left, 0.85, 0.15))
    assert noisy.type is PatternType.CLUSTER
    assert np.count_nonzero(noisy.cohesive) / len(y) == pytest.approx(0.43, abs=0.03)
    salted = found_in(y, x, np.where(disc, 1.0, 0.3))
    assert salted.type is PatternType.CLUSTER
    assert np.count_nonzero(salted.cohesive) / disc.sum() == pytest.approx(1.0, abs=0.1)
    assert found_in(y, x, np.where(left, 0.6, 0.1)).type is PatternType.MOSAIC  # more here than there


def test_pattern_cut_offs_are_whole_numbers() -> None:
    """Groups 100 µm apart, of a given number of cells 5 µm apart, in 1000 cells."""

    def pattern(*groups: int) -> PatternType:
        rarer = [(5.0 * i, 400.0 * g) for g, size in enumerate(groups) for i in range(size)]
        rest = [(-1000.0 - i, 0.0) for i in range(1000 - len(rarer))]
        y, x = np.array(rarer + rest).T
        found = pattern_of(y, x, np.arange(1000) < len(rarer), 25.0)
        assert found.sizes.tolist() == sorted(groups, reverse=True)
        assert np.count_nonzero(found.cohesive) == max(groups)
        return found.type

    assert pattern(*[1] * 9) is PatternType.HOMOGENEOUS
    assert pattern(*[1] * 10) is PatternType.SCATTERED
    assert pattern(100) is PatternType.CLUSTER
    assert pattern(99) is PatternType.MOSAIC
    assert pattern(3, 3, 2, 2) is PatternType.SCATTERED
    assert pattern(4, 4, 2) is PatternType.MOSAIC
    assert pattern(4, *[2] * 8) is PatternType.SCATTERED  # 16 of 20 are 80 %
    assert pattern(5, *[2] * 8) is PatternType.MOSAIC


def test_a_small_cluster_is_no_cluster() -> None:
    """10 % of 150 cells, but fewer than 20 of them."""
    y = np.concatenate([np.arange(19) * 5.0, 1000.0 + np.arange(131)])
    assert pattern_of(y, np.zeros(150), np.arange(150) < 19, 25.0).type is PatternType.MOSAIC


@pytest.mark.parametrize(
    ("pattern", "parts", "expected"),
    [
        ("scattered", (0.02, 0.05), "scattered"),
        ("scattered", (0.15, 0.3, 0.45, 0.5, 0.7), "mosaic"),
        ("mosaic", (0.05, 0.3, 0.45, 0.7), "mosaic"),
        ("cluster", (0.11, 0.3, 0.45, 0.5, 0.7), "cluster"),
    ],
)
def test_patterns_planted_on_phantoms_are_named(
    pattern: str, parts: tuple[float, ...], expected: str
) -> None:
    """Scattered cells are mixed at random: what they are called follows from how many there are."""
    for part in parts:
        mix = (1 - part, 0.0, 0.0, 0.0, part)
        truth = plant(PhantomSpec(seed=3, height_px=3600, width_px=3600, mix=mix, pattern=pattern)).truth
        tumour = truth[truth["kind"] == "tumour"]
        y, x = tumour["y_px0"] * 0.25, tumour["x_px0"] * 0.25
        assert pattern_of(y, x, tumour["cell_class"] == "3", 25.0).type == expected, part


@pytest.mark.parametrize(
    ("pattern", "part", "expected"),
    [("scattered", 0.45, "mosaic"), ("mosaic", 0.3, "mosaic"), ("cluster", 0.3, "cluster")],
)
def test_patterns_are_named_from_pixels(pattern: str, part: float, expected: str, tmp_path: Path) -> None:
    mix = (1 - part, 0.0, 0.0, 0.0, part)  # cohesive: loose tumour is chosen less where it is unstained
    spec = PhantomSpec(seed=3, height_px=1800, width_px=1800, loose_fraction=0.0, mix=mix, pattern=pattern)
    reader = chain.memory_slide(render_field(spec)[0])
    _, _, finished = chain.score(reader, tmp_path, PyramidParams(chunk=512, shard=2048))
    found = {metric.name: metric for metric in finished.metrics}
    minority = found["pattern_minority_3"]
    assert minority.label == expected
    assert minority.value == pytest.approx(part, abs=0.08)  # some unstained tumour is not recognised as such
    largest, cohesive = (found[f"pattern_{name}_3"].value or 0.0 for name in ("largest", "cohesive"))
    assert cohesive <= largest <= minority.value
    if pattern == "scattered":
        assert largest > 0.1 > cohesive  # it hangs together, and is no cluster


def test_metrics_of_groups_by_hand() -> None:
    """A row of 40 cells and 30 single ones, each 100 µm from the next, among 500; twenty hexagons."""
    rarer = [(0.0, 5.0 * i) for i in range(40)] + [(1000.0 + 100 * i, 0.0) for i in range(30)]
    y, x = np.array([*rarer, *((-1000.0 - i, 0.0) for i in range(430))]).T
    classes = np.where(np.arange(500) < 70, 4, 0).astype(np.int8)
    rows, params = np.arange(500) // 25, HeterogeneityParams(replicates=99, permutations=99)
    around = Neighbours.of(y, x, classes, params)
    cuts = Cuts(20, np.arange(20) % 8 * 4)
    measured = pattern_metrics(y, x, classes, rows, cuts, around, params)
    found = {m.name: m for m in measured if m.name.endswith("_3")}
    values = {name.split("_")[1]: metric.value for name, metric in found.items()}
    assert values == {
        "minority": 70 / 500,
        "largest": 40 / 500,
        "cohesive": 40 / 500,
        "scattered": 30 / 70,
        "groups": 1.0,
    }
    assert {metric.label for metric in found.values()} == {"mosaic"}
    assert {type(metric.label) for metric in found.values()} == {str}  # who unpickles it loads no numba
    assert CLUSTER_CELLS <= 40 < 0.1 * 500
    for metric in found.values():
        assert metric.low is not None
        assert metric.high is not None
        assert metric.value is not None
        assert metric.low <= metric.value <= metric.high
    mixed = np.random.default_rng(1).permutation(500)
    around = Neighbours.of(y[mixed], x[mixed], classes[mixed], params)
    again = list(pattern_metrics(y[mixed], x[mixed], classes[mixed], rows[mixed], cuts, around, params))
    assert [m for m in again if m.name in found] == list(found.values())
