"""Survival statistics against lifelines, closed forms and brute force."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from her2core.analysis.resampling import Floats
from her2core.analysis.survival import (
    NotEstimableError,
    Times,
    benjamini_hochberg,
    cox,
    kaplan_meier,
    logistic,
    proportional_hazards,
    restricted_mean,
    search_cut_point,
    spline,
)


def cohort(
    n: int = 120, seed: int = 0, log_ratio: float = 0.6, late: bool = False, ties: bool = False
) -> tuple[Times, dict[str, Floats]]:
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=n), rng.integers(0, 2, n).astype(np.float64)
    days, end = rng.exponential(300 * np.exp(-log_ratio * x)), rng.uniform(100, 900, n)
    time = np.minimum(days, end)
    time = np.ceil(time / 20) * 20 if ties else time
    entry = rng.uniform(0, 60, n) * (rng.random(n) < 0.5) if late else np.zeros(n)
    seen = time > entry
    times = Times(entry[seen], time[seen], (days <= end)[seen])
    return times, {"x": x[seen], "z": z[seen]}


def theirs(times: Times, columns: dict[str, Floats], strata: Any = None) -> Any:
    import pandas as pd
    from lifelines import CoxPHFitter

    frame = pd.DataFrame({**columns, "T": times.time, "E": times.event.astype(int)})
    how: dict[str, Any] = {}
    if times.entry.any():
        frame["entry"] = times.entry
        how["entry_col"] = "entry"
    if strata is not None:
        frame["s"] = strata
        how["strata"] = ["s"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CoxPHFitter().fit(frame, "T", "E", **how), frame


@pytest.mark.parametrize("late", [False, True], ids=["from start", "late entry"])
@pytest.mark.parametrize("ties", [False, True], ids=["no ties", "ties"])
def test_cox_is_that_of_lifelines(late: bool, ties: bool) -> None:
    times, columns = cohort(late=late, ties=ties)
    strata = np.arange(len(times)) % 2
    ours = cox(times, columns, strata)
    fit, _ = theirs(times, columns, strata)
    assert ours.coefficients == pytest.approx(fit.params_.to_numpy(), abs=2e-4)
    assert np.sqrt(np.diag(ours.covariance)) == pytest.approx(fit.standard_errors_.to_numpy(), abs=2e-4)
    assert ours.effect("x").p == pytest.approx(float(fit.summary.loc["x", "p"]), rel=1e-2)


def test_the_test_of_proportional_hazards_is_that_of_lifelines() -> None:
    from lifelines.statistics import proportional_hazard_test

    times, columns = cohort()
    ours = proportional_hazards(times, columns, cox(times, columns))
    fit, frame = theirs(times, columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = proportional_hazard_test(fit, frame, time_transform="rank").summary["p"]
    assert ours == pytest.approx({name: float(found[name]) for name in columns}, rel=1e-2)


def test_hazards_that_cross_are_noticed() -> None:
    rng = np.random.default_rng(0)
    x = (np.arange(300) % 2).astype(np.float64)
    time = np.where(x == 1, 300 * rng.weibull(4, 300), rng.exponential(300, 300))
    times, columns = Times(np.zeros(300), time, np.ones(300, np.bool_)), {"x": x}
    assert proportional_hazards(times, columns, cox(times, columns))["x"] < 1e-4


def test_kaplan_meier_and_restricted_mean_by_hand() -> None:
    """Freireich's 6-MP arm: median 23 weeks (Freireich 1963, Gehan 1965); S(6) = 0.857, S(10) = 0.753."""
    weeks = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
    event = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    times = Times(np.zeros(21), np.array(weeks, np.float64), np.array(event, np.bool_))
    curve = kaplan_meier(times)
    assert curve.median[0] == 23
    assert curve.at(6)[0] == pytest.approx(0.857, abs=5e-4)
    assert curve.at(10)[0] == pytest.approx(0.753, abs=5e-4)
    assert (times.at_risk(0), times.at_risk(10), times.at_risk(24)) == (21, 15, 5)
    mean, se = restricted_mean(times, 10)
    assert mean == pytest.approx(6 + 0.857143 * 1 + 0.806723 * 3, abs=1e-5)
    assert 0.2 < se < 0.5


def test_the_error_of_a_restricted_mean_is_that_of_drawing_again() -> None:
    """Without censoring it is the mean of min(T, 100), whose error is sd / sqrt(n)."""
    rng = np.random.default_rng(0)
    time = rng.exponential(100, 400)
    mean, se = restricted_mean(Times(np.zeros(400), time, np.ones(400, np.bool_)), 100)
    assert mean == pytest.approx(np.minimum(time, 100).mean())
    assert se == pytest.approx(np.minimum(time, 100).std() / 20, rel=1e-6)


def test_who_enters_late_is_not_at_risk_before() -> None:
    """A patient who is only seen from day 50 on must not make the first 50 days look safe."""
    times = Times(np.array([0.0, 0.0, 50.0]), np.array([20.0, 90.0, 80.0]), np.ones(3, np.bool_))
    assert times.at_risk(20) == 2
    assert kaplan_meier(times).at(20)[0] == pytest.approx(0.5)
    assert restricted_mean(times, 50)[0] == pytest.approx(20 + 30 * 0.5)


def test_logistic_is_the_odds_ratio_of_a_table() -> None:
    """30 of 40 against 10 of 40: odds ratio 9, standard error of its logarithm sqrt(1/30 + 1/10 + 1/10 +
    1/30)."""
    x = np.repeat([1.0, 0.0], 40)
    outcome = np.r_[np.arange(40) < 30, np.arange(40) < 10]
    fit = logistic(outcome, {"x": x})
    assert fit.effect("x").ratio == pytest.approx(9, rel=1e-6)
    assert fit.covariance[0, 0] == pytest.approx(1 / 30 + 1 / 10 + 1 / 10 + 1 / 30, rel=1e-4)


def test_a_spline_is_linear_beyond_its_ends_and_bends_within() -> None:
    x = np.linspace(-3, 3, 61)
    terms = spline(x, np.array([-1.0, -0.3, 0.3, 1.0]))
    assert terms.shape == (61, 2)
    curved = np.diff(terms, 2, axis=0)
    assert abs(curved[x[1:-1] < -1.1]).max() < 1e-12
    assert abs(curved[x[1:-1] > 1.1]).max() < 1e-9
    assert abs(curved[abs(x[1:-1]) < 0.9]).max() > 1e-3


@pytest.mark.parametrize(
    ("columns", "events", "said"),
    [
        ({"x": np.arange(40.0), "z": np.arange(40.0) ** 2}, 8, "8 events; 10 are needed"),
        ({"x": np.ones(40)}, 20, "x is the same in all patients"),
        ({"x": np.arange(40.0), "z": 2 * np.arange(40.0)}, 20, "x, z follow from each other"),
        ({"x": (np.arange(40) < 20).astype(float)}, 20, "no ratio for x: one side has no event"),
    ],
)
def test_what_cannot_be_estimated_is_a_sentence(columns: dict[str, Floats], events: int, said: str) -> None:
    times = Times(np.zeros(40), np.arange(1.0, 41.0), np.arange(40) < events)
    with pytest.raises(NotEstimableError, match=said):
        cox(times, columns)


def test_a_cut_point_where_there_is_none_is_taken_back() -> None:
    times, _ = cohort(100, seed=3, log_ratio=0.0)
    found = search_cut_point(times, np.random.default_rng(8).normal(size=len(times)))
    assert found.optimism > 0.2
    assert abs(np.log(found.corrected)) == pytest.approx(abs(np.log(found.apparent)) - found.optimism)
    assert found.p > 0.05


def test_a_cut_point_that_is_there_is_found() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, 200)
    days = rng.exponential(np.where(x > 0.6, 60, 300))
    found = search_cut_point(Times(np.zeros(200), days, np.ones(200, np.bool_)), x)
    assert found.cut == pytest.approx(0.6, abs=0.06)
    assert 2.5 < found.corrected <= found.apparent
    assert found.p < 0.01


def test_benjamini_and_hochberg_1995() -> None:
    """The paper's example: of 15 p, the four smallest are below 0.05 after adjustment."""
    ps = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719,
          0.6528, 0.7590, 1.0]  # fmt: skip
    adjusted = benjamini_hochberg([*ps, float("nan")])
    assert sum(p <= 0.05 for p in adjusted[:-1]) == 4
    assert np.isnan(adjusted[-1])
