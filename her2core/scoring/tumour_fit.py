"""Fit a model that separates tumour cells from others, from cells whose tissue a person has drawn.

A logistic regression with a ridge penalty. Every slide weighs the same, and in it tumour the same as other
tissue, however many cells were drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from her2core.scoring.tumour import TumourModel

EXAMPLES: Final = 400
"""Cells of tumour, and of other tissue, that a slide gives at most: neighbours are alike. Ours."""
LEAST_EXAMPLES: Final = 20
"""Fewer cells of either are not used. Ours."""
FULL_EXAMPLES: Final = 150
"""So many and more together weigh the same, of either kind; fewer weigh less, each as these do. Ours."""
PENALTY: Final = 3.0
"""Ridge penalty of a weight, in examples. Ours."""
ROUNDS: Final = 20
"""Most Newton steps; 6 to 8 settle it."""
STEEPEST: Final = 30.0
"""Log-odds are cut off here before they are exponentiated; a probability of 1e-13."""
FLATTEST: Final = 1e-3
"""Least curvature of an example, so that Newton's step stays finite."""
SEED: Final = 0
"""Of the draw among the cells of a slide."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DrawnCells:
    """Features of a slide's drawn cells, and which of them are tumour.

    Attributes
    ----------
    features
        float64 ``(n, feature)``.
    tumour
        bool ``(n,)``.
    weight
        Of the slide beside others.
    """

    slide: str
    features: Array
    tumour: NDArray[np.bool_]
    weight: float = 1.0


def fit_model(
    slides: Sequence[DrawnCells], features: tuple[str, ...], name: str, version: int, fitted_on: str
) -> TumourModel:
    """Fit a model to drawn cells.

    Raises
    ------
    ValueError
        If no slide has enough cells of tumour, or none has enough of other tissue.
    """
    parts = [part for slide in slides for part in _examples(slide)]
    for tumour, what in ((True, "tumour"), (False, "other tissue")):
        if not any(part[1][0] == tumour for part in parts):
            raise ValueError(f"no slide has {LEAST_EXAMPLES} or more cells of {what}")
    x, y, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    middle, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
    bias, *weights = _ridge_logistic((x - middle) / spread, y, weight)
    return TumourModel(
        name, version, fitted_on, features, _short(middle), _short(spread), _short(weights), _short([bias])[0]
    )


def _examples(slide: DrawnCells) -> list[tuple[Array, Array, Array]]:
    """Cells of tumour and of other tissue: features, 1 for tumour, and weights."""
    found = []
    for tumour in (False, True):
        cells = np.flatnonzero(slide.tumour == tumour)
        cells = np.random.default_rng(SEED).permutation(cells)[:EXAMPLES]
        if len(cells) >= LEAST_EXAMPLES:
            weight = slide.weight * EXAMPLES / 2 / max(len(cells), FULL_EXAMPLES)
            n = len(cells)
            found.append((slide.features[cells], np.full(n, float(tumour)), np.full(n, weight)))
    return found


def _ridge_logistic(x: Array, y: Array, weight: Array) -> Array:
    """Bias and weights by Newton's method."""
    a = np.column_stack([np.ones(len(x)), x])
    ridge = np.full(a.shape[1], PENALTY)
    ridge[0] = 1e-6  # the bias is free
    b = np.zeros(a.shape[1])
    for _ in range(ROUNDS):
        p = 1.0 / (1.0 + np.exp(-np.clip(a @ b, -STEEPEST, STEEPEST)))
        slope = a.T @ (weight * (p - y)) + ridge * b
        bend = (a * (weight * np.maximum(p * (1 - p), FLATTEST))[:, None]).T @ a + np.diag(ridge)
        step = np.linalg.solve(bend, slope)
        b = b - step
        if np.abs(step).max() < 1e-6:
            break
    return np.asarray(b)


def _short(values: Sequence[float] | Array) -> tuple[float, ...]:
    """Four digits: what linear algebra makes of the last bits is lost in them."""
    return tuple(float(f"{value:.4g}") for value in values)
