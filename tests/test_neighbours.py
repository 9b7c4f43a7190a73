"""Neighbours of cells, across however a slide's rows were cut into bands."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from her2core.params import IHCParams
from her2core.points.neighbour_fraction import marked_fraction
from her2core.scoring.neighbours import COLUMN, TOUCH_UM, with_strong_neighbours

MPP = 0.25


def a_slide(n: int, height: int = 900, width: int = 700) -> pa.Table:
    rng = np.random.default_rng(n)
    return pa.table(
        {
            "y_px0": np.sort(rng.integers(-8, height * 16, n) / 16),
            "x_px0": rng.integers(-8, width * 16, n) / 16,
            "completeness_06": rng.random(n).astype(np.float32),
        }
    )


def test_against_all_pairs() -> None:
    slide = a_slide(500)
    points = np.stack([slide["y_px0"].to_numpy(), slide["x_px0"].to_numpy()], axis=1)
    marked = slide["completeness_06"].to_numpy() >= 0.5
    near = cdist(points, points) <= 72.0
    np.fill_diagonal(near, False)
    expected = (near @ marked.astype(int) / np.maximum(near.sum(1), 1)).astype(np.float32)
    order = np.random.default_rng(1).permutation(500)
    found = marked_fraction(points[order, 0], points[order, 1], marked[order], 72.0)
    np.testing.assert_array_equal(found, expected[order])


def test_by_hand() -> None:
    """A cell that just touches a strong one and a weak one; another far away."""
    y = np.array([0.0, 72.0, 144.0, 900.0])
    found = marked_fraction(y, np.zeros(4), np.array([True, True, False, True]), 72.0)
    np.testing.assert_array_equal(found, np.array([1.0, 0.5, 1.0, 0.0], np.float32))
    assert len(marked_fraction(y[:0], y[:0], np.zeros(0, np.bool_), 72.0)) == 0


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.floats(0, 900), max_size=12), n=st.sampled_from([1, 40, 400]))
def test_bands_do_not_matter(cuts: list[float], n: int) -> None:
    """Bands of any height, lower than a neighbour is far or empty, give the same bits as one."""
    slide = a_slide(n)
    edges = [-1e9, *sorted(cuts), 1e9]
    y = slide["y_px0"].to_numpy()
    bands = []
    for top, bottom in pairwise(edges):
        band = slide.filter((y >= top) & (y < bottom))
        bands.append(band.take(np.random.default_rng(3).permutation(len(band))))
    whole = pa.concat_tables(with_strong_neighbours([slide], IHCParams(), MPP))
    cut = pa.concat_tables(with_strong_neighbours(bands, IHCParams(), MPP))
    by = [("y_px0", "ascending"), ("x_px0", "ascending"), ("completeness_06", "ascending")]
    assert cut.sort_by(by).equals(whole.sort_by(by))
    marked = slide["completeness_06"].to_numpy() >= 0.5
    expected = marked_fraction(y, slide["x_px0"].to_numpy(), marked, TOUCH_UM / MPP)
    np.testing.assert_array_equal(whole[COLUMN].to_numpy(), expected)


def test_a_band_is_passed_on_before_the_last_is_read() -> None:
    slide = a_slide(400)
    y = slide["y_px0"].to_numpy()
    read: list[int] = []

    def bands() -> Iterator[pa.Table]:
        for top in range(-300, 900, 300):
            read.append(top)
            yield slide.filter((y >= top) & (y < top + 300))

    passed = with_strong_neighbours(bands(), IHCParams(), MPP)
    next(passed)
    assert len(read) < 4


@pytest.mark.parametrize(
    ("apart_um", "contour", "fraction"), [(17.9, 0.51, 1.0), (18.1, 0.51, 0.0), (17.9, 0.49, 0.0)]
)
def test_a_strong_neighbour_lies_within_18_um_and_has_half_a_strong_contour(
    apart_um: float, contour: float, fraction: float
) -> None:
    strong = np.array([0.0, contour], np.float32)
    two = pa.table({"y_px0": [0.0, apart_um / MPP], "x_px0": [0.0, 0.0], "completeness_06": strong})
    found = pa.concat_tables(with_strong_neighbours([two], IHCParams(), MPP))
    assert found[COLUMN].to_pylist() == [fraction, 0.0]
