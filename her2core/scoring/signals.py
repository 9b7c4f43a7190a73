"""Nuclei counted by how many signals they show, and the numbers that follow: sums, ratio, means, intervals.

These counts are all that ISH group, recount and heterogeneity are made of. So slides of a specimen pool by
``+``, in any order the same, and a group is given again without a pixel.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SEED = 20260301
"""Key of the bootstrap's random numbers: intervals depend on the counts alone."""


@dataclass(frozen=True, slots=True)
class SignalCounts:
    """Nuclei by their numbers of signals.

    Attributes
    ----------
    dual
        Whether there is a CEP17 probe beside HER2.
    nuclei
        ``(her2, cep17, nuclei)``, ascending: how many nuclei show these signals; cep17 is 0 for one probe.
    """

    dual: bool
    nuclei: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def of(cls, her2: NDArray[np.integer], cep17: NDArray[np.integer] | None) -> SignalCounts:
        """Count nuclei, from their signals, shape ``(n,)`` each."""
        second = np.zeros(len(her2), np.int64) if cep17 is None else cep17
        counted = Counter(zip(her2.tolist(), second.tolist(), strict=True))
        return cls(cep17 is not None, tuple((h, c, k) for (h, c), k in sorted(counted.items())))

    @property
    def n(self) -> int:
        """Nuclei."""
        return sum(k for _, _, k in self.nuclei)

    @property
    def her2(self) -> int:
        """HER2 signals of all nuclei."""
        return sum(h * k for h, _, k in self.nuclei)

    @property
    def cep17(self) -> int | None:
        """CEP17 signals of all nuclei; None for a single probe."""
        return sum(c * k for _, c, k in self.nuclei) if self.dual else None

    @property
    def ratio(self) -> float | None:
        """HER2 signals over CEP17 signals: a ratio of sums, never a mean of ratios."""
        return self.her2 / self.cep17 if self.cep17 else None

    @property
    def her2_mean(self) -> float | None:
        return self.her2 / self.n if self.nuclei else None

    @property
    def cep17_mean(self) -> float | None:
        return self.cep17 / self.n if self.cep17 else None

    def __add__(self, other: SignalCounts) -> SignalCounts:
        """Nuclei of both.

        Raises
        ------
        ValueError
            If one has two probes and the other has one.
        """
        if self.dual != other.dual:
            raise ValueError("counts of a dual and of a single probe cannot be pooled")
        together: Counter[tuple[int, int]] = Counter()
        for h, c, k in self.nuclei + other.nuclei:
            together[h, c] += k
        return SignalCounts(self.dual, tuple((h, c, k) for (h, c), k in sorted(together.items())))

    def beyond(self, above: tuple[int, int], *, ratio: bool) -> int:
        """Nuclei whose ratio (or HER2 copies) exceeds ``numerator / denominator``, compared as integers."""
        numerator, denominator = above
        return sum(k for h, c, k in self.nuclei if denominator * h > numerator * (c if ratio else 1))


@dataclass(frozen=True, slots=True)
class ISHCounts:
    """Evaluable nuclei in two independent samples; what slides of a specimen pool by ``+``.

    Attributes
    ----------
    first, reserve
        Nuclei for the first count, and those kept for a recount.
    """

    first: SignalCounts
    reserve: SignalCounts

    @property
    def dual(self) -> bool:
        return self.first.dual

    @property
    def all(self) -> SignalCounts:
        """Both samples together."""
        return self.first + self.reserve

    def split(self, min_nuclei: int) -> tuple[SignalCounts, SignalCounts | None]:
        """First count and recount, if both have nuclei enough; else all nuclei, and no recount."""
        if min(self.first.n, self.reserve.n) >= min_nuclei:
            return self.first, self.reserve
        return self.all, None

    def __add__(self, other: ISHCounts) -> ISHCounts:
        return ISHCounts(self.first + other.first, self.reserve + other.reserve)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def range(self) -> tuple[float, float]:
        return self.low, self.high


@dataclass(frozen=True, slots=True)
class ISHEstimates:
    """Ratio of sums and mean signals a nucleus; ``ratio`` and ``cep17`` are None for a single probe."""

    ratio: Estimate | None
    her2: Estimate
    cep17: Estimate | None


def estimate(counts: SignalCounts, replicates: int) -> ISHEstimates | None:
    """Ratio and means with percentile bootstrap intervals over nuclei; None without nuclei.

    Nuclei are drawn with replacement, as counts of equal nuclei (a multinomial): the same intervals for any
    order of nuclei and slides.

    References
    ----------
    Efron B, Tibshirani RJ. An Introduction to the Bootstrap. 1993, chapter 13. Random numbers: Philox, Salmon
    et al., SC 2011.
    """
    n, her2_mean = counts.n, counts.her2_mean
    if her2_mean is None:
        return None
    table = np.array(counts.nuclei, np.int64)
    random = np.random.Generator(np.random.Philox(key=_SEED))
    drawn = random.multinomial(n, table[:, 2] / n, size=replicates)
    her2, cep17 = drawn @ table[:, 0], drawn @ table[:, 1]
    means = _interval(her2_mean, her2 / n)
    if counts.ratio is None or counts.cep17_mean is None:
        return ISHEstimates(None, means, None)
    return ISHEstimates(_interval(counts.ratio, her2 / cep17), means, _interval(counts.cep17_mean, cep17 / n))


def _interval(value: float, replicates: NDArray[np.float64]) -> Estimate:
    """Percentile interval: the same number of replicates lies beyond either end."""
    beyond = len(replicates) // 40
    ordered = np.sort(replicates)
    return Estimate(value, float(ordered[beyond]), float(ordered[-1 - beyond]))
