"""Survival by statsmodels and lifelines, with left truncation everywhere, and in words where nothing can be
estimated.

Every time is counted from the start of a therapy; a patient is at risk from ``entry`` on, and not before. The
needed packages are the extra ``analysis``.

References
----------
Grambsch PM, Therneau TM. Proportional hazards tests and diagnostics based on weighted residuals. Biometrika
1994;81:515-526.
Royston P, Parmar MK. Restricted mean survival time. BMC Med Res Methodol 2013;13:152.
Harrell FE. Regression modeling strategies. Springer 2015 (restricted cubic splines, optimism).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, norm, rankdata

from her2core.analysis.resampling import SEED, Floats
from her2core.statistics import Z95

MIN_EVENTS = 5.0
"""Fewer events a coefficient are refused (Vittinghoff E, McCulloch CE. Am J Epidemiol 2007;165:710-718)."""
FEW_EVENTS = 10.0
"""Fewer events a coefficient are reported as few (Peduzzi P et al. J Clin Epidemiol 1995;48:1503-1510)."""
MAX_SE = 5.0
"""A log hazard or odds ratio whose standard error is larger is not estimated: one side has no event. Ours."""
KNOTS = (0.05, 0.35, 0.65, 0.95)
"""Quantiles at which a spline has its knots (Harrell)."""
CUT_RANGE = (0.2, 0.8)
"""Quantiles between which a cut-point is searched. Ours."""
CUTS = 25
"""Cut-points tried. Ours."""
CUT_DRAWS = 200
"""Bootstrap draws by which a cut-point's optimism is estimated. Ours."""


class NotEstimableError(ValueError):
    """Why a model gives no number; a sentence."""


@dataclass(frozen=True, slots=True)
class Times:
    """When patients came under observation, how long they were followed, and whether the event ended it.

    Shapes ``(n,)``; in days from the start of therapy, ``entry < time``.
    """

    entry: Floats
    time: Floats
    event: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.time)

    def of(self, which: NDArray[Any]) -> Times:
        """These patients."""
        return Times(self.entry[which], self.time[which], self.event[which])

    def at_risk(self, at: float) -> int:
        """Patients under observation just before a time; at 0, just after."""
        return int(((self.entry < max(at, 1e-9)) & (self.time >= at)).sum())

    def after(self, since: float) -> Times:
        """Patients still under observation without the event at a time, as observed from then on."""
        later = self.of(self.time > since)
        return Times(np.maximum(later.entry, since), later.time, later.event)

    def since(self, fewest: int) -> float:
        """Last event, while patients are still entering, of which fewer than these were at risk; else 0.

        The first to enter are few. An event of the only one at risk would bring a curve down to 0 for good,
        whoever enters later; from here on there are enough, and the curve is of those who came so far.
        """
        steps = np.unique(self.time[self.event])
        at_risk = np.array([self.at_risk(t) for t in steps])
        entering = steps <= self.entry.max() if len(self) else np.zeros(0, np.bool_)
        few = steps[entering & (at_risk < fewest)]
        return float(few[-1]) if len(few) else 0.0

    @property
    def events(self) -> int:
        """How many had the event."""
        return int(self.event.sum())


@dataclass(frozen=True, slots=True)
class Curve:
    """A Kaplan-Meier curve.

    Attributes
    ----------
    time, survival, low, high
        Steps, and the pointwise 95 % interval (log-log).
    median
        With its interval; infinite where the curve does not come down to a half.
    """

    time: Floats
    survival: Floats
    low: Floats
    high: Floats
    median: tuple[float, float, float]
    times: Times

    def at(self, t: float) -> tuple[float, float, float]:
        """Survival at a time, with its interval."""
        i = int(np.searchsorted(self.time, t, side="right")) - 1
        if i < 0:  # before the first came under observation
            return 1.0, 1.0, 1.0
        return float(self.survival[i]), float(self.low[i]), float(self.high[i])


def kaplan_meier(times: Times) -> Curve:
    """Kaplan-Meier curve by lifelines, from each patient's entry on.

    Raises
    ------
    NotEstimableError
        If all who are at risk have the event while others are still to enter.
    """
    from lifelines import KaplanMeierFitter
    from lifelines.exceptions import StatError
    from lifelines.utils import median_survival_times

    entry = times.entry if times.entry.any() else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of future pandas; few at risk shows in the numbers at risk
        try:
            fit = KaplanMeierFitter().fit(times.time, times.event, entry=entry)
        except StatError:
            raise NotEstimableError("all at risk had the event while others were still to enter") from None
        ends = fit.confidence_interval_
        median = median_survival_times(ends).to_numpy().ravel()
    survival = fit.survival_function_
    return Curve(
        survival.index.to_numpy(np.float64),
        survival.iloc[:, 0].to_numpy(np.float64),
        ends.iloc[:, 0].to_numpy(np.float64),
        ends.iloc[:, 1].to_numpy(np.float64),
        (float(fit.median_survival_time_), float(median.min()), float(median.max())),
        times,
    )


def restricted_mean(times: Times, until: float) -> tuple[float, float]:
    """Mean time without the event up to a horizon, and its standard error (Greenwood).

    The area under the curve up to ``until``; its variance is ``sum d / (n (n - d)) A(t)²`` over the times of
    events, with n at risk, d events, and A the area from there on.
    """
    steps = np.unique(times.time[times.event & (times.time <= until)])
    at_risk = np.array([times.at_risk(t) for t in steps], np.float64)
    died = np.array([((times.time == t) & times.event).sum() for t in steps], np.float64)
    survival = np.cumprod(1 - died / at_risk) if len(steps) else np.ones(0)
    widths = np.diff(np.concatenate([[0.0], steps, [until]]))
    areas = widths * np.concatenate([[1.0], survival])
    left = np.cumsum(areas[::-1])[::-1][1:]
    spread = at_risk * (at_risk - died)
    variance = float(np.sum(np.where(spread > 0, died / np.where(spread > 0, spread, 1) * left**2, 0.0)))
    return float(areas.sum()), variance**0.5


@dataclass(frozen=True, slots=True)
class Effect:
    """A hazard or odds ratio."""

    ratio: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted model: log ratios in the order of its columns."""

    names: tuple[str, ...]
    coefficients: Floats
    covariance: Floats
    log_likelihood: float
    n: int
    events: int

    def effect(self, name: str) -> Effect:
        """One column's ratio."""
        return self.contrast(np.array([float(n == name) for n in self.names]))

    def contrast(self, weights: Floats) -> Effect:
        """Ratio of a weighted sum of coefficients."""
        value, se = float(weights @ self.coefficients), float((weights @ self.covariance @ weights) ** 0.5)
        p = float(2 * norm.sf(abs(value) / se))
        return Effect(
            float(np.exp(value)), float(np.exp(value - Z95 * se)), float(np.exp(value + Z95 * se)), p
        )


def cox(times: Times, columns: dict[str, Floats], strata: NDArray[Any] | None = None) -> Fitted:
    """Cox's model by statsmodels (Efron's ties), with entry times and a baseline hazard of every stratum.

    Raises
    ------
    NotEstimableError
        Too few events, columns that do not vary or follow from each other, or a side without events.
    """
    from statsmodels.duration.hazard_regression import PHReg

    names, design = _checked(columns, times.events, "events")
    tied = len(np.unique(times.time[times.event])) < times.events
    model = PHReg(
        times.time,
        design,
        status=times.event.astype(np.int64),
        entry=times.entry if times.entry.any() else None,
        strata=None if strata is None else np.unique(strata, return_inverse=True)[1],
        ties="efron" if tied else "breslow",  # the same without ties, and half the work
    )
    fit = _fitted(model.fit)
    _check_errors(names, np.asarray(fit.bse))
    return Fitted(
        names, np.asarray(fit.params), np.asarray(fit.cov_params()), float(fit.llf), len(times), times.events
    )


def logistic(outcome: NDArray[np.bool_], columns: dict[str, Floats]) -> Fitted:
    """Logistic model with an intercept, by statsmodels; see `cox`."""
    from statsmodels.discrete.discrete_model import Logit

    fewer = int(min(outcome.sum(), (~outcome).sum()))
    names, design = _checked(columns, fewer, "patients with the rarer outcome")
    fit = _fitted(lambda: Logit(outcome.astype(np.float64), np.c_[np.ones(len(outcome)), design]).fit(disp=0))
    _check_errors(names, np.asarray(fit.bse)[1:])
    covariance = np.asarray(fit.cov_params())[1:, 1:]
    params = np.asarray(fit.params)[1:]
    return Fitted(names, params, covariance, float(fit.llf), len(outcome), int(outcome.sum()))


def _checked(columns: dict[str, Floats], events: int, what: str) -> tuple[tuple[str, ...], Floats]:
    names, design = tuple(columns), np.column_stack(list(columns.values()))
    if events < MIN_EVENTS * len(names):
        raise NotEstimableError(
            f"{events} {what}; {MIN_EVENTS * len(names):g} are needed ({MIN_EVENTS:g} a coefficient)"
        )
    still = [name for name, column in columns.items() if np.ptp(column) == 0]
    if still:
        raise NotEstimableError(f"{', '.join(still)} is the same in all patients")
    if np.linalg.matrix_rank(design - design.mean(0)) < len(names):
        raise NotEstimableError(f"{', '.join(names)} follow from each other")
    return names, design


def _fitted(fit: Callable[[], Any]) -> Any:
    from statsmodels.tools.sm_exceptions import PerfectSeparationError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what does not converge has a standard error beyond all bounds
        try:
            return fit()
        except (np.linalg.LinAlgError, PerfectSeparationError, ZeroDivisionError) as error:
            raise NotEstimableError(f"the model cannot be fitted ({error})") from error


def _check_errors(names: Sequence[str], errors: Floats) -> None:
    wide = [name for name, e in zip(names, errors, strict=True) if not np.isfinite(e) or e > MAX_SE]
    if wide:
        raise NotEstimableError(f"no ratio for {', '.join(wide)}: one side has no event, or all of them")


def likelihood_ratio(larger: Fitted, smaller: Fitted) -> float:
    """p of the larger model's further coefficients."""
    more = len(larger.names) - len(smaller.names)
    return float(chi2.sf(max(2 * (larger.log_likelihood - smaller.log_likelihood), 0.0), more))


def proportional_hazards(
    times: Times, columns: dict[str, Floats], fit: Fitted, strata: NDArray[Any] | None = None
) -> dict[str, float]:
    """p of the test that a coefficient does not change with (the rank of) time; Schoenfeld residuals.

    lifelines has this test, and not for patients who enter late; without them they agree
    (`tests/test_survival.py`).
    """
    design = np.column_stack([columns[name] for name in fit.names])
    weight = np.exp((design - design.mean(0)) @ fit.coefficients)
    group = np.zeros(len(times), np.int64) if strata is None else np.unique(strata, return_inverse=True)[1]
    rows = np.flatnonzero(times.event)
    residuals = np.empty((len(rows), design.shape[1]))
    for place, i in enumerate(rows):
        t = times.time[i]
        risk = (times.entry < t) & (times.time >= t) & (group == group[i])
        died = risk & times.event & (times.time == t)
        # Efron: of d events at once, each next one sees less of the others
        share = np.where(died, 1 - np.arange(died.sum())[:, None] / died.sum(), 1.0) * (weight * risk)
        mean = ((share @ design) / share.sum(1, keepdims=True)).mean(0)
        residuals[place] = design[i] - mean
    scaled = len(rows) * residuals @ fit.covariance
    g = rankdata(times.time[rows])
    g -= g.mean()
    if not g.any():
        return dict.fromkeys(fit.names, float("nan"))
    tested = (g @ scaled) ** 2 / (len(rows) * np.diag(fit.covariance) * (g @ g))
    return dict(zip(fit.names, chi2.sf(tested, 1).tolist(), strict=True))


def spline(x: Floats, knots: Floats) -> Floats:
    """Restricted cubic spline's terms beside the linear one, shape ``(n, knots - 2)``; linear beyond the
    ends."""

    def cube(k: float) -> Floats:
        return np.maximum(x - k, 0.0) ** 3

    last, before, span = knots[-1], knots[-2], (knots[-1] - knots[0]) ** 2
    terms = [
        (cube(k) - cube(before) * (last - k) / (last - before) + cube(last) * (before - k) / (last - before))
        / span
        for k in knots[:-2]
    ]
    return np.column_stack(terms)


@dataclass(frozen=True, slots=True)
class CutPoint:
    """The cut-point with the largest difference, and how much of it chance makes.

    Attributes
    ----------
    apparent, corrected
        Hazard ratio above it, as found and with the optimism of the search taken off.
    p
        Chance that some cut of shuffled values separates as much.
    """

    cut: float
    above: int
    apparent: float
    corrected: float
    optimism: float
    p: float


def search_cut_point(times: Times, x: Floats) -> CutPoint:
    """Search a cut-point, and correct its hazard ratio by a bootstrap of the whole search.

    The ratio of a cut is the one-step estimate ``exp((O - E) / V)`` of the log-rank test, which a search can
    compute for all cuts at once. Optimism is the mean, over draws of patients, of the log ratio of the cut
    found in a draw there less that in all patients (Harrell).

    Raises
    ------
    NotEstimableError
        With fewer than 20 events, or fewer than 10 values.
    """
    if times.events < 20 or len(np.unique(x)) < 10:
        raise NotEstimableError(
            f"{times.events} events and {len(np.unique(x))} values; a cut-point needs 20 events and 10 values"
        )
    cuts = np.unique(np.quantile(x, np.linspace(*CUT_RANGE, CUTS)))
    rng = np.random.default_rng(SEED)
    best, log_ratio, strength = _best(times, x, cuts)
    optimism, shuffled = [], []
    for _ in range(CUT_DRAWS):
        drawn = rng.integers(0, len(x), len(x))
        sample = times.of(drawn)
        if sample.events < 5:
            continue
        place, there, _ = _best(sample, x[drawn], cuts)
        here = _log_rank(times, x[:, None] > cuts[place])[0][0]
        sign = np.sign(there)  # towards 1 is less
        optimism.append(sign * (there - here))
        shuffled.append(_best(times, rng.permutation(x), cuts)[2])
    lost = float(np.mean(optimism))
    corrected = float(np.sign(log_ratio) * max(abs(log_ratio) - lost, 0.0))
    p = (1 + int(np.sum(np.array(shuffled) >= strength))) / (1 + len(shuffled))
    return CutPoint(
        float(cuts[best]),
        int((x > cuts[best]).sum()),
        float(np.exp(log_ratio)),
        float(np.exp(corrected)),
        lost,
        p,
    )


def _best(times: Times, x: Floats, cuts: Floats) -> tuple[int, float, float]:
    ratios, strengths = _log_rank(times, x[:, None] > cuts)
    best = int(np.argmax(np.nan_to_num(strengths, nan=-1.0)))
    return best, float(ratios[best]), float(strengths[best])


def _log_rank(times: Times, above: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """One-step log hazard ratios of groups, shape ``(n, k)``, and their chi squared."""
    steps = np.unique(times.time[times.event])
    risk = (times.entry[None] < steps[:, None]) & (times.time[None] >= steps[:, None])
    died = (times.time[None] == steps[:, None]) & times.event[None]
    n, d = risk.sum(1)[:, None].astype(np.float64), died.sum(1)[:, None].astype(np.float64)
    of = above.astype(np.float64)
    n1, d1 = risk.astype(np.float64) @ of, died.astype(np.float64) @ of
    less = (d1 - d * n1 / n).sum(0)
    variance = (d * (n1 / n) * (1 - n1 / n) * (n - d) / np.maximum(n - 1, 1)).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return less / variance, less**2 / variance


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """Adjusted p of a family, NaN where there is none (statsmodels)."""
    from statsmodels.stats.multitest import multipletests

    known = np.isfinite(ps)
    out = np.full(len(ps), np.nan)
    if known.any():
        out[known] = multipletests(np.asarray(ps)[known], method="fdr_bh")[1]
    return [float(p) for p in out]
