"""How many copies a signal of ISH stands for: clusters counted by their integrated density (spec §8.1)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

PEAK_OCTAVES: Final = 0.5  # width by which that distribution is smoothed: focus alone spreads it so; ours
SINGLE_BINS: Final = 8  # per doubling of integrated density, in the search for the single signal; ours
PEAK_SHARE: Final = 0.5  # of the highest peak: a lower one is no peak of single signals; ours
REACH_SIGMAS: Final = 4  # of the smoothing that are kept
AROUND_PEAK_OCTAVES: Final = 0.5  # signals so near the peak give the median; ours
CLUSTER: Final = 3.5  # times a single signal: denser is a cluster; one single one in fifty is; ours, measured


def single_signal(integrated: NDArray[Any]) -> float:
    """Integrated density of a single signal of a slide and probe.

    That of the lowest of the peaks that stand out in the distribution of its logarithm: where most signals
    are clusters their median is one, but clusters spread over octaves and single signals do not.

    Parameters
    ----------
    integrated
        ``(n,)``, integrated density of all signals of the probe.

    Returns
    -------
    NaN without signals.
    """
    values = np.asarray(integrated, np.float64)
    octaves = np.log2(values[values > 0])
    if not len(octaves):
        return float("nan")
    reach = round(REACH_SIGMAS * PEAK_OCTAVES * SINGLE_BINS)
    start = np.floor(octaves.min()) - reach / SINGLE_BINS
    bins = ((octaves - start) * SINGLE_BINS).astype(np.int64)
    counts = np.bincount(bins, minlength=int(bins.max()) + reach + 1).astype(np.float64)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (PEAK_OCTAVES * SINGLE_BINS)) ** 2)
    density = np.convolve(counts, kernel, "same")
    inner = density[1:-1]
    peaks = (inner >= density[:-2]) & (inner > density[2:]) & (inner >= PEAK_SHARE * density.max())
    mode = start + (1 + int(np.flatnonzero(peaks)[0]) + 0.5) / SINGLE_BINS
    return float(2.0 ** np.median(octaves[np.abs(octaves - mode) <= AROUND_PEAK_OCTAVES]))


def cluster_copies(integrated: NDArray[Any], single: float) -> NDArray[np.int64]:
    """Copies that every signal stands for: ``round(integrated / single)`` of a cluster, else one (spec §8.1).

    The density of single signals varies up to fourfold with focus, and two or three that touch count once
    anyway: only what has `CLUSTER` times the density of a single one is a cluster.
    """
    if not single > 0:
        return np.ones(len(integrated), np.int64)
    times = np.asarray(integrated, np.float64) / single
    return np.where(times < CLUSTER, 1, np.floor(times + 0.5)).astype(np.int64)
