"""How the blocks or slides of a specimen, or the lesions of a patient, differ from each other.

What is compared is a unit: all evaluable tumour cells (ISH: nuclei) of a block, slide or lesion together.
Cells of two units are set side by side here and never added up to a score. Units of few cells take no part,
and fewer than two units give no value.

::

    variance of all cells = between units + within units      eta2 is the first share
    entropy of all scores = between units + within units      the first part is the Jensen-Shannon divergence

References
----------
HER2 over the tumour beside that of neighbouring cells: Potts SJ et al. Lab Invest 2012;92:1342-1357. Cores of
one tumour, scored by machine: Allott EH et al. Breast Cancer Res 2016;18:68. Two biopsy sites of one tumour:
Filho OM et al. Cancer Discov 2021;11:2474-2487.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from her2core.heterogeneity.bootstrap import MIN_BLOCKS, UNIT
from her2core.heterogeneity.metrics import Metric, insufficient, measured
from her2core.heterogeneity.units import CELL_SUMS, MIN_UNITS, NUCLEUS_SUMS, Unit
from her2core.statistics import TAILS

Reals = NDArray[np.float64]
Statistic = Callable[[Reals], Reals]


@dataclass(frozen=True, slots=True)
class ComparedMetric:
    """A metric of units, whose ``n`` is their number.

    Attributes
    ----------
    units
        Names of the units that took part, sorted.
    cells
        Cells or nuclei in them.
    """

    metric: Metric
    units: tuple[str, ...]
    cells: int


def eta2(units: Reals) -> Reals:
    """Share of the variance of OD, or of copies, that lies between units: ``SS_between / SS_total``.

    Parameters
    ----------
    units
        Number, sum and sum of squares come first, shape ``(units, ..., k)``.

    Returns
    -------
    NDArray
        Shape ``(...)``, 0 to 1; NaN where all values are equal.
    """
    n, total, squares = (units[..., i] for i in range(3))
    mean = total / n
    away = mean - total.sum(axis=0) / n.sum(axis=0)
    between = np.sum(n * away**2, axis=0)
    within = np.sum(np.maximum(squares - total * mean, 0.0), axis=0)
    all_of_it = between + within
    varied = all_of_it > n.sum(axis=0) * UNIT  # below that, squares are rounded
    share: Reals = between / np.where(varied, all_of_it, np.nan)
    return share


def js_divergence(units: Reals) -> Reals:
    """Jensen-Shannon divergence of the units' scores, each unit weighing the same: 0 to ln(units), in nats.

    It is the entropy of the units' mean distribution less the mean of their entropies: beta diversity.

    Parameters
    ----------
    units
        `CELL_SUMS`, shape ``(units, ..., k)``.

    References
    ----------
    Lin J. Divergence measures based on the Shannon entropy. IEEE Trans Inf Theory 1991;37:145-151. Lande R.
    Statistics and partitioning of species diversity. Oikos 1996;76:5-13.
    """
    p = units[..., 3:] / units[..., :1]
    divergence: Reals = _entropy(p.mean(axis=0)) - _entropy(p).mean(axis=0)
    return np.maximum(divergence, 0.0)


def _entropy(p: Reals) -> Reals:
    entropy: Reals = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)
    return entropy


def _column(name: str, *, percent: bool = False) -> Statistic:
    """Mean of a sum of the nuclei or cells."""
    names = NUCLEUS_SUMS if name in NUCLEUS_SUMS else CELL_SUMS
    at, times = names.index(name), 100 if percent else 1
    return lambda units: np.asarray(times * units[..., at] / units[..., 0])


def _at_least_2(units: Reals) -> Reals:
    share: Reals = 100 * (units[..., 5] + units[..., 6]) / units[..., 0]
    return share


def _ratio(units: Reals) -> Reals:
    ratio: Reals = units[..., 1] / np.where(units[..., 3] > 0, units[..., 3], np.nan)
    return ratio


OF_CELLS: Mapping[str, tuple[Statistic, float]] = {
    "p3_pct": (_column("score_3", percent=True), 100.0),
    "p2_pct": (_at_least_2, 100.0),
    "membrane_od_mean": (_column("od"), math.inf),
}
"""Numbers of a unit's cells that are compared, and their upper bound; named as in the table ``slides``."""
OF_NUCLEI: Mapping[str, tuple[Statistic, float]] = {
    "copies_mean": (_column("her2"), math.inf),
    "ratio": (_ratio, math.inf),
    "amplified": (_column("amplified"), 1.0),
}
"""The same of nuclei; ``ratio`` is of two probes."""


def cells_between(prefix: str, units: Sequence[Unit], min_cells: int) -> Iterator[ComparedMetric]:
    """How the cells of units differ.

    Parameters
    ----------
    prefix
        What the units are: ``slides``, ``blocks`` or ``lesions``; metrics' names begin with it.
    min_cells
        Units of fewer evaluable tumour cells take no part.
    """
    taking = _taking(units, min_cells)
    top = math.log(max(len(taking), MIN_UNITS))
    yield _squared(f"{prefix}_eta2_od", taking, eta2, 1.0)
    yield _squared(f"{prefix}_js_divergence", taking, js_divergence, top)
    for name, (number, _) in OF_CELLS.items():
        yield from _spread(f"{prefix}_{name}", taking, number)
    h = _h_scores(taking)
    yield _plain(f"{prefix}_h_score_sd", taking, lambda: math.sqrt(_variance(h)))
    yield _plain(f"{prefix}_h_score_range", taking, lambda: float(np.ptp(h)))
    scored = sorted((unit for unit in units if unit.score is not None), key=lambda unit: unit.name)
    ranks = [unit.score for unit in scored if unit.score is not None]
    yield _plain(f"{prefix}_score_range", scored, lambda: float(max(ranks) - min(ranks)))


def nuclei_between(
    prefix: str, units: Sequence[Unit], min_nuclei: int, *, dual: bool
) -> Iterator[ComparedMetric]:
    """How the nuclei of units differ; ``dual`` if all of them show two probes."""
    taking = _taking(units, min_nuclei)
    yield _squared(f"{prefix}_eta2_copies", taking, eta2, 1.0)
    for name, (number, _) in OF_NUCLEI.items():
        if dual or name != "ratio":
            yield from _spread(f"{prefix}_{name}", taking, number)


def change_of_cells(
    prefix: str, before: Unit | None, after: Unit | None, min_cells: int
) -> Iterator[ComparedMetric]:
    """Numbers of the cells of one unit less those of another: above 0 is a rise."""
    given = [unit for unit in (before, after) if unit and unit.n >= min_cells]
    for name, (number, top) in OF_CELLS.items():
        yield _difference(f"{prefix}_{name}", given, number, top)
    h = _h_scores(given)
    yield _plain(f"{prefix}_h_score", given, lambda: float(h[1] - h[0]))
    scored = [unit for unit in (before, after) if unit and unit.score is not None]
    ranks = [unit.score for unit in scored if unit.score is not None]
    yield _plain(f"{prefix}_score", scored, lambda: float(ranks[1] - ranks[0]))


def change_of_nuclei(
    prefix: str, before: Unit | None, after: Unit | None, min_nuclei: int, *, dual: bool
) -> Iterator[ComparedMetric]:
    """The same of nuclei."""
    given = [unit for unit in (before, after) if unit and unit.n >= min_nuclei]
    for name, (number, top) in OF_NUCLEI.items():
        if dual or name != "ratio":
            yield _difference(f"{prefix}_{name}", given, number, top)


def _taking(units: Sequence[Unit], least: int) -> list[Unit]:
    """Units of cells enough, by name, so that sums do not depend on the order they came in."""
    return sorted((unit for unit in units if unit.n >= least), key=lambda unit: unit.name)


def _stacked(units: Sequence[Unit]) -> tuple[Reals, Reals | None]:
    """Totals, shape ``(units, k)``, and replicates, ``(units, replicates, k)``, unless one unit has none."""
    sums = [unit.sums for unit in units if unit.sums]
    drawn = [each.replicates for each in sums if each.replicates is not None]
    return np.stack([each.total for each in sums]), np.stack(drawn) if len(drawn) == len(sums) else None


def _h_scores(units: Sequence[Unit]) -> Reals:
    return np.array([np.nan if unit.h_score is None else unit.h_score for unit in units])


def _compared(metric: Metric, units: Sequence[Unit]) -> ComparedMetric:
    return ComparedMetric(metric, tuple(unit.name for unit in units), sum(unit.n for unit in units))


def _plain(name: str, units: Sequence[Unit], value: Callable[[], float]) -> ComparedMetric:
    """A metric without an interval."""
    n = len(units)
    return _compared(measured(name, value(), n) if n >= MIN_UNITS else insufficient(name, n), units)


def _squared(name: str, units: Sequence[Unit], statistic: Statistic, top: float) -> ComparedMetric:
    """A metric that is a squared distance of units: 0 if they are alike, and drawn units never are."""
    n = len(units)
    if n < MIN_UNITS:
        return _compared(insufficient(name, n), units)
    totals, drawn = _stacked(units)
    value = float(statistic(totals))
    ends = None if drawn is None else unbiased_interval(value, statistic(drawn), top)
    return _compared(measured(name, value, n, interval=ends), units)


def _spread(name: str, units: Sequence[Unit], number: Statistic) -> Iterator[ComparedMetric]:
    """Standard deviation and range of one number of the units."""
    n = len(units)
    if n < MIN_UNITS:
        yield from (_compared(insufficient(f"{name}_{kind}", n), units) for kind in ("sd", "range"))
        return
    totals, drawn = _stacked(units)
    found = number(totals)
    variance, ends = float(_variance(found)), None
    if drawn is not None:
        squares = unbiased_interval(variance, _variance(number(drawn)), math.inf)
        ends = squares and (math.sqrt(squares[0]), math.sqrt(squares[1]))
    yield _compared(measured(f"{name}_sd", math.sqrt(variance), n, interval=ends), units)
    yield _compared(measured(f"{name}_range", float(np.ptp(found)), n), units)


def _variance(found: Reals) -> Reals:
    """Variance over the first axis, from pairs: of equal numbers it is 0 and nothing is rounded."""
    first, second = np.triu_indices(len(found), 1)
    variance: Reals = np.mean((found[first] - found[second]) ** 2, axis=0) / 2
    return variance


def _difference(name: str, units: Sequence[Unit], number: Statistic, top: float) -> ComparedMetric:
    """The second unit's number less the first's, with the percentile interval."""
    if len(units) < MIN_UNITS:
        return _compared(insufficient(name, len(units)), units)
    totals, drawn = _stacked(units)
    value, ends = float(np.diff(number(totals))[0]), None
    if drawn is not None:
        low, high = np.clip(np.quantile(np.diff(number(drawn), axis=0)[0], TAILS), -top, top).tolist()
        ends = (min(low, value), max(high, value)) if low < high else None
    return _compared(measured(name, value, len(units), interval=ends), units)


def unbiased_interval(value: float, drawn: Reals, top: float) -> tuple[float, float] | None:
    """95 % interval of a squared distance, from 0 to ``top``, widened to hold the value.

    Chance makes units differ, in what was measured and once more in what is drawn from it. A plain percentile
    interval of units that are alike would therefore never hold 0. So the bias of the draws is taken off
    twice: with 12 hexagons a unit and more, 88 to 100 % of such intervals hold the truth (simulated for 2, 3
    and 5 units, alike and not), against 0 to 99 % of percentile intervals.

    References
    ----------
    Davison AC, Hinkley DV. Bootstrap Methods and their Application. 1997, section 5.2 (bias of the draws).
    """
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < MIN_BLOCKS or not math.isfinite(value) or not np.ptp(drawn):
        return None  # draws that are all the same show nothing of chance
    bias = float(drawn.mean()) - value
    low, high = np.clip(np.quantile(drawn, TAILS) - 2 * bias, 0.0, top).tolist()
    return min(low, value), max(high, value)
