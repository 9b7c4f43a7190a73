"""Outlines traced in lanes are those that are traced one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from her2core.kernels.polar import FORBIDDEN, N_RAYS, bend_costs, new_lap, trace
from her2core.kernels.polar_lanes import LANES, in_lanes, new_scores, trace_lanes


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_radii=st.integers(6, 40),
    grades=st.integers(1, 400),
    forbidden=st.floats(0, 0.6),
    least=st.integers(0, 2),
    trim=st.integers(0, 2),
)
def test_every_lane_is_traced_as_if_alone(
    seed: int, n_radii: int, grades: int, forbidden: float, least: int, trim: int
) -> None:
    rng = np.random.default_rng(seed)
    gains = rng.integers(-grades, grades, (LANES, N_RAYS, n_radii), dtype=np.int32)  # few grades: many ties
    gains[rng.random(gains.shape) < forbidden] = FORBIDDEN
    bend, most = bend_costs(*rng.integers(0, 40, 2)), n_radii - 1 - trim
    paths = np.zeros((LANES, N_RAYS), np.int32)
    scores = new_scores(n_radii)
    for _ in range(2):  # what an earlier trace left in the scratch must not matter
        trace_lanes(gains.transpose(1, 2, 0).reshape(N_RAYS, -1).copy(), least, most, bend, scores, paths)
    alone = np.zeros(N_RAYS, np.int32)
    for lane in range(LANES):
        trace(gains[lane], least, most, bend, new_lap(n_radii), alone)
        np.testing.assert_array_equal(paths[lane], alone)


def test_in_lanes_repeats_every_radius() -> None:
    spread = in_lanes(np.array([3, 5], np.int32))
    assert spread.tolist() == [3] * LANES + [5] * LANES
