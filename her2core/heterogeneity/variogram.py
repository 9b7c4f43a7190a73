"""The semivariogram of values on a lattice of hexagons: how far resemblance reaches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.optimize import minimize_scalar

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]

MIN_PAIRS = 30
"""Fewer pairs at a lag are left out (Journel and Huijbregts 1978)."""
MIN_LAGS = 4
"""Fewer lags do not fix three parameters. Ours."""
LEAST_STRUCTURE = 0.1
"""Least share of the variance that must build up from the first to the last lag for a range. Ours."""


@dataclass(frozen=True, slots=True)
class Semivariogram:
    """Half the mean squared difference of values by distance, shape ``(lags,)`` each; ``lag_um`` ascends."""

    lag_um: Reals
    gamma: Reals
    pairs: Ints


@dataclass(frozen=True, slots=True)
class Fit:
    """The exponential model ``nugget + partial_sill * (1 - exp(-3 h / range_um))``.

    Attributes
    ----------
    first_um, longest_um
        Shortest and longest lag that was seen.
    """

    nugget: float
    partial_sill: float
    range_um: float
    first_um: float
    longest_um: float

    @property
    def resolved(self) -> bool:
        """False if the range lies beyond the longest lag: values go on drifting apart, there is no sill."""
        return self.range_um <= self.longest_um

    @property
    def structured(self) -> bool:
        """False if hexagons differ from their neighbours about as much as from any other."""
        beside, far = self._at(self.first_um), self._at(self.longest_um)
        return far - beside >= LEAST_STRUCTURE * far

    def _at(self, lag_um: float) -> float:
        return self.nugget + self.partial_sill * (1 - math.exp(-3 * lag_um / self.range_um))

    @property
    def nugget_share(self) -> float:
        """Nugget over sill: what share of the variance is gone from one hexagon to the next."""
        return self.nugget / (self.nugget + self.partial_sill)


def semivariogram(q: Ints, r: Ints, value: Reals, size_um: float) -> Semivariogram:
    """Semivariogram in lags of one hexagon, up to half the extent of the tissue.

    Pairs are summed by their axial step with Fourier transforms, so the cost is near linear in the hexagons
    and not quadratic.

    Parameters
    ----------
    q, r
        Axial coordinates, shape ``(m,)``, no hexagon twice.
    value
        Shape ``(m,)``.
    size_um
        Distance of neighbouring centres in µm.

    References
    ----------
    Matheron G. Principles of geostatistics. Economic Geology 1963;58:1246-1266. Marcotte D. Fast variogram
    computation with FFT. Computers & Geosciences 1996;22:1175-1186.
    """
    q, r = q - q.min(), r - r.min()
    height, width = int(r.max()) + 1, int(q.max()) + 1
    shape = (next_fast_len(2 * height - 1, real=True), next_fast_len(2 * width - 1, real=True))
    there, z = np.zeros((2, height, width))
    there[r, q], z[r, q] = 1.0, value - value.mean()
    f1, fz, fzz = (rfft2(plane, shape) for plane in (there, z, z * z))
    pairs = np.rint(irfft2(f1 * f1.conj(), shape)).astype(np.int64)
    squares = irfft2(2 * (fzz * f1.conj()).real - 2 * fz * fz.conj(), shape)

    dr, dq = (_steps(length) for length in shape)
    dr, dq = dr[:, None], dq[None, :]
    distance = np.sqrt(dq * dq + dq * dr + dr * dr)
    forward = (dr > 0) | ((dr == 0) & (dq > 0))  # each pair once
    used = forward & (pairs > 0) & (distance <= _extent(q, r) / 2)
    lag = np.rint(distance[used]).astype(np.int64)
    count = np.bincount(lag, pairs[used])
    kept = np.flatnonzero(count >= MIN_PAIRS)
    n = count[kept]
    far = np.bincount(lag, pairs[used] * distance[used])[kept]
    apart = np.maximum(np.bincount(lag, squares[used])[kept], 0.0)
    return Semivariogram(far / n * size_um, apart / (2 * n), n.astype(np.int64))


def _steps(length: int) -> Ints:
    """Signed step of every place of a circular correlation."""
    steps = np.arange(length)
    return np.where(steps > length // 2, steps - length, steps)


def _extent(q: Ints, r: Ints) -> float:
    """Longer side of the box around the centres, in hexagons."""
    return max(float(np.ptp(q + r / 2)), float(np.ptp(r)) * math.sqrt(3) / 2)


def fit_exponential(found: Semivariogram) -> Fit | None:
    """Least squares with weights pairs / lag², neither nugget nor sill below 0; None if there is no fit.

    For a given range the model is linear, so only the range is searched: over a grid from the first lag to
    four times the last, then between the best point's neighbours.

    References
    ----------
    Weights as in gstat: Pebesma EJ. Multivariable geostatistics in S. Comput Geosci 2004;30:683-691.
    """
    if len(found.lag_um) < MIN_LAGS or not found.gamma.any():
        return None
    first, last = float(found.lag_um[0]), float(found.lag_um[-1])
    grid = np.geomspace(first, 4 * last, 200)
    residual, *_ = _linear(found, grid)
    best = int(np.argmin(residual))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    finer = minimize_scalar(lambda a: _linear(found, a)[0], bounds=(low, high), method="bounded")
    a = float(grid[best] if residual[best] <= finer.fun else finer.x)
    _, nugget, partial = _linear(found, a)
    return Fit(float(nugget), float(partial), a, first, last)


def _linear(found: Semivariogram, a: Reals | float) -> tuple[Reals, Reals, Reals]:
    """Weighted sum of squared residuals, nugget and partial sill for every range ``a``."""
    gamma = found.gamma
    shape = 1 - np.exp(-3 * found.lag_um / np.asarray(a)[..., None])
    weights = found.pairs / found.lag_um**2
    weights = weights / weights.sum()
    mean_s, mean_g = np.vecdot(weights, shape), np.vecdot(weights, gamma)
    away = shape - mean_s[..., None]
    varies = np.vecdot(weights, away**2)
    slope = np.vecdot(weights, away * (gamma - mean_g)) / np.where(varies > 0, varies, np.inf)
    nugget = mean_g - slope * mean_s
    flat, through_zero = slope < 0, (slope >= 0) & (nugget < 0)
    least = np.vecdot(weights, shape * gamma) / np.vecdot(weights, shape**2)
    slope = np.where(flat, 0.0, np.where(through_zero, least, slope))
    nugget = np.where(flat, mean_g, np.where(through_zero, 0.0, nugget))
    residual = gamma - nugget[..., None] - slope[..., None] * shape
    return np.vecdot(weights, residual**2), nugget, slope
