"""Geometry of a pyramid, for any size, chunk and shard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from her2core.errors import ConfigError
from her2core.grid import Grid

grids = st.builds(
    lambda height, width, chunk, side: Grid(height, width, 2**chunk, 2 ** (chunk + side)),
    st.integers(1, 200),
    st.integers(1, 200),
    st.integers(1, 6),
    st.integers(0, 4),
)


@given(grids)
@settings(deadline=None)
def test_levels_halve_down_to_one_chunk(grid: Grid) -> None:
    shapes = [(grid.height, grid.width)]
    while max(shapes[-1]) > grid.chunk:
        shapes.append(((shapes[-1][0] + 1) // 2, (shapes[-1][1] + 1) // 2))
    assert grid.shapes == tuple(shapes)
    assert grid.levels == len(shapes)


@given(grids)
@settings(deadline=None)
def test_shards_tile_every_level_once(grid: Grid) -> None:
    for level in range(grid.levels):
        covered = np.zeros(grid.level_shape(level), np.uint8)
        for iy, ix in grid.shards(level):
            box = grid.shard_box(level, iy, ix)
            assert min(box.height, box.width) > 0
            covered[box.y0 : box.y1, box.x0 : box.x1] += 1
        assert (covered == 1).all()


@given(grids)
@settings(deadline=None)
def test_one_task_covers_the_same_ground_at_every_level_of_its_band(grid: Grid) -> None:
    for first in range(0, grid.levels, grid.band):
        for level in grid.band_levels(first):
            assert tuple(grid.shards(level)) == tuple(grid.shards(first))
            scale = 2 ** (level - first)
            for iy, ix in grid.shards(first):
                fine, coarse = grid.shard_box(first, iy, ix), grid.shard_box(level, iy, ix)
                assert (coarse.y0 * scale, coarse.x0 * scale) == (fine.y0, fine.x0)
                assert (coarse.y1, coarse.x1) == (-(-fine.y1 // scale), -(-fine.x1 // scale))


@given(grids)
@settings(deadline=None)
def test_shards_hold_whole_chunks(grid: Grid) -> None:
    for level in range(grid.levels):
        assert grid.shard_px(level) % grid.chunk == 0
        assert grid.chunk <= grid.shard_px(level) <= grid.shard


def test_numbers_of_a_slide_worked_by_hand() -> None:
    grid = Grid(20_000, 100_000, 512, 4096)
    assert grid.levels == 9  # 100000 / 2^8 = 391 <= 512
    assert grid.band == 4  # 4096, 2048, 1024, 512
    assert grid.shapes[3] == (2500, 12500)
    assert grid.shapes[8] == (79, 391)
    assert len(grid.tasks()) == 5 * 25
    # four levels of 125 shards; 4 to 7 (1250 x 6250) with 1 x 2 of 4096; level 8 with one; 9 + 1 documents
    assert grid.objects == 4 * 125 + 4 * 2 + 1 + 10


@pytest.mark.parametrize(
    ("height", "width", "chunk", "shard", "named"),
    [
        (0, 10, 512, 4096, "0 x 10"),
        (10, 10, 500, 4000, "500"),
        (10, 10, 1, 4, "1"),
        (10, 10, 512, 1536, "1536"),
        (10, 10, 512, 256, "256"),
        (10, 10, 512, 0, "0"),
    ],
)
def test_impossible_geometry_is_refused_by_name(
    height: int, width: int, chunk: int, shard: int, named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        Grid(height, width, chunk, shard)
