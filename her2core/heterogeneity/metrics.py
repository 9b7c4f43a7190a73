"""One number of heterogeneity, never without what it rests on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Whether a metric has a value, and why not."""

    OK = "ok"
    INSUFFICIENT = "insufficient"
    """Fewer cells, regions or pairs than the metric needs."""
    DEGENERATE = "degenerate"
    """Enough of them, but the metric is not defined for these: no variance, one population, no sill."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of one slide at one scale.

    Attributes
    ----------
    name
        See docs/heterogeneity.md.
    value
        None unless ``status`` is ``ok``: what could not be measured is never 0.
    low, high
        95 % interval; None where none is given.
    n
        Cells, nuclei or regions that the value rests on.
    scale_um
        Size of the regions, or reach of the metric, in µm; None for what has no scale.
    label
        The word that goes with the number: a pattern's name, ``unimodal``, ``range>max``.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    scale_um: float | None
    status: Status
    label: str | None = None

    def __post_init__(self) -> None:
        if (self.status is Status.OK) != (self.value is not None):
            raise ValueError(f"{self.name}: found {self.value} with status {self.status}")
        numbers = [x for x in (self.value, self.low, self.high) if x is not None]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"{self.name}: found {numbers}, expected finite numbers")


def measured(
    name: str,
    value: float | None,
    n: int,
    *,
    scale_um: float | None = None,
    interval: tuple[float, float] | None = None,
    label: str | None = None,
) -> Metric:
    """A metric with a value, or ``degenerate`` if the value is None or NaN."""
    if value is None or not math.isfinite(value):
        return Metric(name, None, None, None, n, scale_um, Status.DEGENERATE, label)
    low, high = interval or (None, None)
    return Metric(name, float(value), low, high, n, scale_um, Status.OK, label)


def insufficient(name: str, n: int, *, scale_um: float | None = None) -> Metric:
    """A metric that ``n`` cells, regions or pairs do not give."""
    return Metric(name, None, None, None, n, scale_um, Status.INSUFFICIENT)
