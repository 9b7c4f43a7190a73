"""Orders that are found by short cuts are those of a plain sort."""

from __future__ import annotations

import numpy as np
import pytest

from her2core.points.order import by_group, by_place


@pytest.mark.parametrize("groups", [1, 7, 300, 70_000])
@pytest.mark.parametrize("n", [0, 1, 5000])
def test_groups_ascend_and_values_within_them(groups: int, n: int) -> None:
    random = np.random.default_rng(4)
    group = random.integers(groups, size=n)
    value = np.round(random.normal(size=n), 1)  # many are equal, and these keep their order
    assert (by_group(value, group) == np.lexsort((value, group))).all()


def test_rows_of_a_table_stay_where_they_are_and_others_are_sorted() -> None:
    random = np.random.default_rng(5)
    y, x, kind = random.integers(0, 30, (3, 500)).astype(np.float64)
    kind = kind.astype(np.int8)
    expected = np.lexsort((kind, x, y))
    assert (by_place(y, x, kind) == expected).all()
    once = expected[np.append(True, np.diff(1000 * y[expected] + x[expected]) > 0)]
    assert (by_place(y[once], x[once], kind[once]) == np.arange(len(once))).all()
    assert by_place(y[:0], x[:0], kind[:0]).shape == (0,)
