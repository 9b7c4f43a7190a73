"""How values differ across the sides that the places of a lattice share."""

from __future__ import annotations

from typing import Any

from numba import njit


@njit(nogil=True, cache=True)
def side_sums(value: Any, first: Any, second: Any, weight: Any) -> Any:
    """Weighted sums over all sides of the product, and of the squared difference, of the values beside it.

    Parameters
    ----------
    value
        Shape ``(m,)``, float64.
    first, second
        Rows of the two places beside each side, shape ``(s,)``, int64.
    weight
        Of each side, shape ``(s,)``, float64.

    Returns
    -------
    tuple of float
        Added up in the order of the sides.
    """
    products, differences = 0.0, 0.0
    for k in range(len(weight)):
        a, b = value[first[k]], value[second[k]]
        products += weight[k] * (a * b)
        differences += weight[k] * (a - b) ** 2
    return products, differences
