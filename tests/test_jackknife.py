"""Intervals by leaving sixteenths of the regions out: formulas, and how statistics really vary."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import t

from her2core.heterogeneity.jackknife import (
    BLOCKS,
    T95,
    fraction_interval,
    fraction_of_regions,
    jackknife_interval,
    jackknife_variance,
    spatial_blocks,
)
from her2core.heterogeneity.regions import Hexes, HexGrid
from her2core.heterogeneity.spatial import lattice_metrics
from her2core.params import HeterogeneityParams
from her2core.statistics import wilson

Reals = NDArray[np.float64]


def sheet(rows: int, columns: int) -> Hexes:
    r, column = (a.ravel() for a in np.mgrid[:rows, :columns])
    q = column - r // 2
    order = np.lexsort((r, q))
    return Hexes(HexGrid(1.0), q[order], r[order])


@given(st.integers(16, 60), st.integers(1, 60), st.integers(0, 5))
def test_blocks_are_equal_and_know_neither_place_nor_order(rows: int, columns: int, seed: int) -> None:
    hexes = sheet(rows, columns)
    blocks = spatial_blocks(hexes.y_um, hexes.x_um)
    assert blocks is not None
    sizes = np.bincount(blocks, minlength=BLOCKS)
    assert sizes.min() >= 1
    assert np.ptp(sizes) <= 1
    mixed = np.random.default_rng(seed).permutation(len(hexes))
    again = spatial_blocks(hexes.y_um[mixed], hexes.x_um[mixed])
    assert again is not None
    assert np.array_equal(again, blocks[mixed])


def test_blocks_are_compact_and_follow_the_tissue() -> None:
    square, strip = sheet(40, 40), sheet(4, 160)
    for hexes, longest in ((square, 11.5), (strip, 11.5)):
        blocks = spatial_blocks(hexes.y_um, hexes.x_um)
        assert blocks is not None
        for b in range(BLOCKS):
            here = blocks == b
            assert max(np.ptp(hexes.y_um[here]), np.ptp(hexes.x_um[here])) <= longest
    assert spatial_blocks(np.zeros(15), np.arange(15.0)) is None


def test_the_jackknife_of_a_mean_is_the_textbooks() -> None:
    means = np.random.default_rng(1).normal(size=BLOCKS)  # of equal blocks
    left_out = (means.sum() - means) / (BLOCKS - 1)
    assert jackknife_variance(left_out) == pytest.approx(means.var(ddof=1) / BLOCKS)
    half = t.ppf(0.975, BLOCKS - 1) * means.std(ddof=1) / math.sqrt(BLOCKS)
    interval = jackknife_interval(means.mean(), left_out)
    assert interval == pytest.approx((means.mean() - half, means.mean() + half))
    assert t.ppf(0.975, BLOCKS - 1) == pytest.approx(T95, abs=1e-12)


def test_intervals_keep_to_the_range_and_hold_the_value() -> None:
    left_out = np.linspace(0.0, 0.2, BLOCKS)
    interval = jackknife_interval(0.05, left_out, 0.0, 0.3)
    assert interval == (0.0, 0.3)
    assert jackknife_interval(0.05, np.append(left_out[1:], np.nan)) is None
    assert jackknife_interval(0.05, np.zeros(0)) is None
    assert jackknife_interval(0.0, np.zeros(BLOCKS), 0.0, 1.0) is None


def test_a_fraction_of_independent_regions_is_wilsons_and_a_gathered_one_is_wider() -> None:
    hexes = sheet(40, 40)
    m, random = len(hexes), np.random.default_rng(2)
    scattered = random.permutation(m) < m // 4
    gathered = hexes.x_um < np.quantile(hexes.x_um, 0.25)
    of = [fraction_of_regions(hit, hexes.y_um, hexes.x_um) for hit in (scattered, gathered)]
    k = [int(hit.sum()) for hit in (scattered, gathered)]
    alone = [wilson(each, m) for each in k]
    widths, plain = ([high - low for low, high in ends] for ends in (of, alone))
    assert plain[0] <= widths[0] < 2.2 * plain[0]
    assert widths[1] > 8 * plain[1]  # of sixteen regions, not of 1600
    for hits in (0, m):
        assert fraction_interval(hits, m, np.full(BLOCKS, hits / m)) == wilson(hits, m)
    assert fraction_interval(5, 20, np.zeros(0)) == wilson(5, 20)


def test_intervals_cover_what_other_tissue_of_the_kind_would_give() -> None:
    """Exponential fields, of which values resemble each other over 4 hexagons; each metric's own mean."""
    hexes, random = sheet(20, 20), np.random.default_rng(3)
    apart = np.hypot(hexes.y_um[:, None] - hexes.y_um, hexes.x_um[:, None] - hexes.x_um)
    root = np.linalg.cholesky(0.7 * np.exp(-3 * apart / 4.0) + 0.3 * np.eye(len(hexes)))
    params, found = HeterogeneityParams(permutations=99), {}
    for _ in range(40):
        value = 0.5 + 0.15 * (root @ random.normal(size=len(hexes)))
        for metric in lattice_metrics(hexes, value, "x", 1.0, params):
            found.setdefault(metric.name, []).append((metric.value, metric.low, metric.high))
    for name in (
        "moran_i",
        "geary_c",
        "hot_fraction",
        "variogram_range_um",
        "texture_entropy",
        "texture_contrast",
    ):
        rows = np.array(found[f"{name}_x"], np.float64)
        value, low, high = rows[np.isfinite(rows).all(axis=1)].T
        assert len(value) > 30, name
        covered = np.mean((low <= value.mean()) & (value.mean() <= high))
        assert covered >= 0.85, (name, covered)
        assert np.median(high - low) < 2.5 * 3.92 * value.std(), name  # and not by saying nothing
