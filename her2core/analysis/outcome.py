"""How HER2 expression and its heterogeneity relate to what became of patients under each class of therapy.

Every patient enters a comparison once, with the first line that belongs to it; every measure is of the sample
before that line. Associations of one cohort: therapy was not assigned by chance, and no number here says that
a therapy works.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from her2core.analysis.resampling import Floats
from her2core.analysis.samples import GROUP_ORDER, Joined
from her2core.analysis.survival import (
    FEW_EVENTS,
    KNOTS,
    Curve,
    CutPoint,
    Effect,
    Fitted,
    NotEstimableError,
    Times,
    benjamini_hochberg,
    cox,
    kaplan_meier,
    likelihood_ratio,
    logistic,
    proportional_hazards,
    restricted_mean,
    search_cut_point,
    spline,
)
from her2core.analysis.treatments import ANTI_HER2, CLASSES, ENDPOINTS
from her2core.statistics import Z95

ALL = "all"
"""All classes of therapy together."""
UNADJUSTED = "nothing"
"""What a model without covariates is adjusted for."""
MEAN = "membrane_od_mean"
DEFAULT_METRICS = ("rao_q", "eta2_250um")
"""Measures of heterogeneity that are looked at where none is named: of cells, and between regions."""
MIN_GROUP = 5
"""Smaller groups have no curve: it would be of single patients. Ours."""
RESPONSES = ("pcr", "response")
FIRST_ZERO = ("ultralow", "null")
SPLINE_POINTS = 60


@dataclass(frozen=True, slots=True)
class GroupCurve:
    """Kaplan-Meier of one group, and its restricted mean survival.

    Attributes
    ----------
    by
        What the groups are of: HER2 class, therapy, or the median of a measure.
    until, mean, mean_se
        Horizon in days, which all groups of a comparison share; mean time without the event up to it.
    """

    endpoint: str
    therapy: str
    by: str
    group: str
    curve: Curve
    until: float
    mean: float
    mean_se: float


@dataclass(frozen=True, slots=True)
class Model:
    """One coefficient of one model, or why there is none.

    Attributes
    ----------
    kind
        hazard or odds.
    question
        What is compared; `term` is the coefficient, of which the first answers it.
    adjusted, strata
        For what else the model accounts, and what has a baseline hazard of its own.
    left_out
        Patients with the endpoint who lack a measure that the model needs.
    p_family
        Benjamini and Hochberg's p among the adjusted coefficients of all measures; NaN for others.
    p_proportional
        Of the test that the hazards are proportional.
    status
        ok, few_events (fewer than ten a coefficient) or not_estimable; `note` says why.
    """

    endpoint: str
    therapy: str
    kind: str
    question: str
    adjusted: str
    strata: str
    term: str
    n: int
    events: int
    left_out: int
    effect: Effect | None
    status: str
    note: str = ""
    p_family: float = float("nan")
    p_proportional: float = float("nan")
    family: bool = False


@dataclass(frozen=True, slots=True)
class Interaction:
    """Whether a measure means another thing under another class of therapy."""

    endpoint: str
    measure: str
    n: int
    events: int
    p: float
    by_class: tuple[tuple[str, Effect], ...]
    note: str = ""
    p_family: float = float("nan")


@dataclass(frozen=True, slots=True)
class Spline:
    """Hazard ratio of a measure against its median, not held to a line."""

    endpoint: str
    therapy: str
    measure: str
    n: int
    events: int
    p_nonlinear: float
    x: Floats
    ratio: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True)
class Searched:
    """A cut-point that was searched, or why not."""

    endpoint: str
    therapy: str
    measure: str
    found: CutPoint | None
    note: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that is computed; see the classes of its parts."""

    joined: tuple[Joined, ...]
    metrics: tuple[str, ...]
    endpoints: tuple[str, ...]
    excluded: Mapping[str, int]
    curves: tuple[GroupCurve, ...]
    small: tuple[str, ...]
    models: tuple[Model, ...]
    interactions: tuple[Interaction, ...]
    splines: tuple[Spline, ...]
    cut_points: tuple[Searched, ...]


def compute_outcome(
    joined: Sequence[Joined], metrics: Sequence[str] = DEFAULT_METRICS, cut_points: Sequence[str] = ()
) -> Outcome:
    """Curves, models, interactions and splines of lines of therapy with the sample before each.

    Parameters
    ----------
    metrics
        Measures of heterogeneity.
    cut_points
        Measures whose cut-point is searched; none by default, since every search finds one.
    """
    excluded = Counter(one.why for one in joined if one.sample is None)
    used = [one for one in joined if one.sample is not None]
    endpoints = [e for e in ENDPOINTS if any(e in (one.line.ends or {}) for one in used)]
    sets: list[tuple[str, str, list[Joined]]] = []
    for endpoint in endpoints:
        for therapy in (ALL, *CLASSES):
            at_risk, dropped = _first_lines(used, therapy, endpoint)
            if therapy == ALL:
                excluded[f"entry_after_end ({endpoint})"] += dropped["entry_after_end"]
                excluded[f"later_line ({endpoint})"] += dropped["later_line"]
            if at_risk:
                sets.append((endpoint, therapy, at_risk))
    curves: list[GroupCurve] = []
    small: list[str] = []
    models: list[Model] = []
    splines: list[Spline] = []
    for endpoint, therapy, of in sets:
        found, few = _curves(endpoint, therapy, of, metrics)
        curves += found
        small += few
        models += hazard_models(endpoint, therapy, of, metrics)
        splines += _splines(endpoint, therapy, of, (MEAN, *metrics))
    for response in RESPONSES:
        for therapy in CLASSES:
            models += odds_models(response, therapy, _responders(used, therapy, response), metrics)
    interactions = [
        one
        for endpoint in endpoints
        for metric in (MEAN, *metrics)
        if (one := interaction_of(endpoint, used, metric)) is not None
    ]
    searched = [
        _searched(endpoint, therapy, of, measure) for endpoint, therapy, of in sets for measure in cut_points
    ]
    return Outcome(
        tuple(joined),
        tuple(metrics),
        tuple(endpoints),
        {why: n for why, n in sorted(excluded.items()) if n},
        tuple(curves),
        tuple(small),
        tuple(_with_family(models)),
        tuple(_family_of(interactions)),
        tuple(splines),
        tuple(searched),
    )


def _first_lines(used: Sequence[Joined], therapy: str, endpoint: str) -> tuple[list[Joined], Counter[str]]:
    """Each patient's first line of a class that has the endpoint and whose patient was at risk."""
    dropped: Counter[str] = Counter()
    found: dict[str, Joined] = {}
    for one in used:
        ends = one.line.ends or {}
        if endpoint not in ends or (therapy != ALL and one.line.therapy_class != therapy):
            continue
        if one.line.patient_id in found:
            dropped["later_line"] += 1
        elif ends[endpoint][0] <= one.line.entry_days:
            dropped["entry_after_end"] += 1
        else:
            found[one.line.patient_id] = one
    return list(found.values()), dropped


def _responders(used: Sequence[Joined], therapy: str, response: str) -> list[Joined]:
    """Each patient's first line of a class whose response is known."""
    found: dict[str, Joined] = {}
    for one in used:
        if one.line.therapy_class == therapy and _response(one, response) is not None:
            found.setdefault(one.line.patient_id, one)
    return list(found.values())


def _response(one: Joined, name: str) -> bool | None:
    return one.line.pcr if name == "pcr" else one.line.responded


def times_of(of: Sequence[Joined], endpoint: str) -> Times:
    """Times of patients to an endpoint."""
    ends = [(one.line.ends or {})[endpoint] for one in of]
    return Times(
        np.array([one.line.entry_days for one in of], np.float64),
        np.array([days for days, _ in ends], np.float64),
        np.array([event for _, event in ends], np.bool_),
    )


def _value(one: Joined, name: str) -> float:
    return one.sample.values.get(name, np.nan) if one.sample else np.nan


def _group(one: Joined) -> str | None:
    return one.sample.group if one.sample else None


# --- curves ------------------------------------------------------------------------------------------------


def _curves(
    endpoint: str, therapy: str, of: Sequence[Joined], metrics: Sequence[str]
) -> tuple[list[GroupCurve], list[str]]:
    found: list[GroupCurve] = []
    small: list[str] = []
    groupings: list[tuple[str, dict[str, list[Joined]]]] = [
        ("HER2 class", {g: [one for one in of if _group(one) == g] for g in GROUP_ORDER})
    ]
    if therapy == ALL:
        groupings.append(("therapy", {c: [o for o in of if o.line.therapy_class == c] for c in CLASSES}))
    for metric in metrics:
        values = np.array([_value(one, metric) for one in of])
        if np.isfinite(values).sum() < 2 * MIN_GROUP:
            continue
        middle = float(np.nanmedian(values))
        halves = {
            f"{metric} up to {middle:.3g}": [o for o, v in zip(of, values, strict=True) if v <= middle],
            f"{metric} above {middle:.3g}": [o for o, v in zip(of, values, strict=True) if v > middle],
        }
        groupings.append((f"median of {metric}", halves))
    for by, groups in groupings:
        few = [name for name, each in groups.items() if 0 < len(each) < MIN_GROUP]
        small += [f"{endpoint}, {therapy}, {by}: {name} ({len(groups[name])})" for name in few]
        large = {name: times_of(each, endpoint) for name, each in groups.items() if len(each) >= MIN_GROUP}
        if not large:
            continue
        until = float(min(times.time.max() for times in large.values()))
        for name, times in large.items():
            mean, se = restricted_mean(times, until)
            found.append(GroupCurve(endpoint, therapy, by, name, kaplan_meier(times), until, mean, se))
    return found, small


# --- models ------------------------------------------------------------------------------------------------

Columns = dict[str, Floats]
Fit = Callable[[NDArray[np.bool_], Columns], tuple[Fitted, dict[str, float]]]
"""Fits a model to the patients that are chosen; with p of proportional hazards by column."""
CLASS_QUESTIONS = (
    ("3+ against 2+/ISH+", ("3+",), ("2+/ISH+",)),
    ("low against 0", ("low",), FIRST_ZERO),
    ("ultralow against null", ("ultralow",), ("null",)),
)


@dataclass(frozen=True, slots=True)
class _Question:
    """What is compared: a column, the patients whom it concerns, and the covariates of the adjusted model."""

    name: str
    term: str
    column: Floats
    within: NDArray[np.bool_]
    covariates: tuple[str, ...]
    family: bool


@dataclass(frozen=True, slots=True)
class _Asked:
    """An endpoint in patients, how a model of it is fitted, and what it is stratified by."""

    endpoint: str
    therapy: str
    kind: str
    of: Sequence[Joined]
    events: NDArray[np.bool_]
    fit: Fit
    strata: tuple[str, ...] = ()

    def models(self, metrics: Sequence[str]) -> Iterator[Model]:
        """Models of the mean, of each metric alone and beside mean and ER, and of classes."""
        for question in self._questions(metrics):
            for covariates in ((), question.covariates):
                yield from self._ask(question, covariates)

    def _questions(self, metrics: Sequence[str]) -> Iterator[_Question]:
        everyone = np.ones(len(self.of), np.bool_)
        for name in (MEAN, *metrics):
            values = np.array([_value(one, name) for one in self.of])
            covariates = (_ER,) if name == MEAN else (f"{MEAN}, per SD", _ER)
            yield _Question(name, f"{name}, per SD", values, everyone, covariates, name != MEAN)
        group = np.array([_group(one) or "" for one in self.of])
        for name, high, low in CLASS_QUESTIONS:
            above, below = np.isin(group, high), np.isin(group, low)
            if above.any() and below.any():
                yield _Question(name, name, above.astype(np.float64), above | below, (_ER,), False)

    def _ask(self, question: _Question, covariates: Sequence[str]) -> Iterator[Model]:
        columns, note = _usable(question, {name: self._covariate(name) for name in covariates})
        if covariates and len(columns) == 1:
            return  # nothing to adjust for: the model is the one before
        rows = question.within & np.all([np.isfinite(c) for c in columns.values()], axis=0)
        scaled = {n: _scaled(c[rows]) if n.endswith("per SD") else c[rows] for n, c in columns.items()}
        whole = Model(
            self.endpoint,
            self.therapy,
            self.kind,
            question.name,
            ", ".join(map(_short, list(columns)[1:])) or UNADJUSTED,
            ", ".join(self.strata),
            question.term,
            n=int(rows.sum()),
            events=int(self.events[rows].sum()),
            left_out=int(question.within.sum() - rows.sum()),
            effect=None,
            status="not_estimable",
            note=note,
        )
        try:
            fitted, ph = self.fit(rows, scaled)
        except NotEstimableError as error:
            yield replace(whole, note=f"{note}{error}")
            return
        rarer = whole.events if self.kind == "hazard" else min(whole.events, whole.n - whole.events)
        status = "ok" if rarer >= FEW_EVENTS * len(columns) else "few_events"
        for name in fitted.names:
            yield replace(
                whole,
                term=name,
                effect=fitted.effect(name),
                status=status,
                p_proportional=ph.get(name, float("nan")),
                family=question.family and bool(covariates) and name == question.term,
            )

    def _covariate(self, name: str) -> Floats:
        if name == _ER:
            known = (one.line.er_positive for one in self.of)
            return np.array([np.nan if er is None else float(er) for er in known])
        return np.array([_value(one, MEAN) for one in self.of])


_ER = "ER positive"


def hazard_models(
    endpoint: str, therapy: str, of: Sequence[Joined], metrics: Sequence[str]
) -> Iterator[Model]:
    """Cox models of an endpoint; baseline hazards of their own for centre, therapy and intent."""
    times = times_of(of, endpoint)
    named, strata = _strata(of)

    def fit(rows: NDArray[np.bool_], columns: Columns) -> tuple[Fitted, dict[str, float]]:
        layers = None if strata is None else strata[rows]
        fitted = cox(times.of(rows), columns, layers)
        return fitted, proportional_hazards(times.of(rows), columns, fitted, layers)

    yield from _Asked(endpoint, therapy, "hazard", of, times.event, fit, named).models(metrics)


def odds_models(endpoint: str, therapy: str, of: Sequence[Joined], metrics: Sequence[str]) -> Iterator[Model]:
    """Logistic models of a response, ``pcr`` or ``response``."""
    if not of:
        return
    outcome = np.array([bool(_response(one, endpoint)) for one in of])

    def fit(rows: NDArray[np.bool_], columns: Columns) -> tuple[Fitted, dict[str, float]]:
        return logistic(outcome[rows], columns), {}

    yield from _Asked(endpoint, therapy, "odds", of, outcome, fit).models(metrics)


def site_kind(one: Joined) -> str:
    """Kind of site that the sample is of: primary, metastasis, ...; without the organ."""
    return ((one.sample.site if one.sample else None) or "unknown").partition(":")[0]


def _strata(of: Sequence[Joined], therapy: bool = True) -> tuple[tuple[str, ...], NDArray[np.str_] | None]:
    """What baseline hazards differ by, as far as patients do: centre, the sample's site, therapy, intent."""
    every = {
        "centre": [one.line.centre or "unknown" for one in of],
        "site": [site_kind(one) for one in of],
        "therapy": [one.line.therapy_class if therapy else "" for one in of],
        "intent": [one.line.intent or "unknown" for one in of],
    }
    named = tuple(name for name, values in every.items() if len(set(values)) > 1)
    if not named:
        return (), None
    return named, np.array(["|".join(values) for values in zip(*(every[n] for n in named), strict=True)])


def _short(column: str) -> str:
    return column.removesuffix(", per SD").removesuffix(" positive")


def _scaled(x: Floats) -> Floats:
    sd = float(np.std(x, ddof=1)) if len(x) > 1 else 0.0
    return (x - x.mean()) / sd if sd > 0 else x - x.mean() if len(x) else x


def _usable(question: _Question, covariates: Columns) -> tuple[Columns, str]:
    """The question's column with the covariates that vary among its patients; what was dropped, in words."""
    kept, dropped = {question.term: question.column}, []
    for name, column in covariates.items():
        known = column[question.within & np.isfinite(column)]
        if len(known) == 0 or np.ptp(known) == 0:
            dropped.append(f"{_short(name)} is {'missing' if len(known) == 0 else 'the same'} in all")
        else:
            kept[name] = column
    return kept, f"{', '.join(dropped)}. " if dropped else ""


def _with_family(models: Sequence[Model]) -> list[Model]:
    ps = [m.effect.p if m.family and m.effect else float("nan") for m in models]
    return [replace(m, p_family=p) for m, p in zip(models, benjamini_hochberg(ps), strict=True)]


def _family_of(found: Sequence[Interaction]) -> list[Interaction]:
    return [
        replace(i, p_family=p) for i, p in zip(found, benjamini_hochberg([i.p for i in found]), strict=True)
    ]


def interaction_of(endpoint: str, used: Sequence[Joined], measure: str) -> Interaction | None:
    """A measure under each class against HER2; None with fewer than two classes."""
    anti = [one for one in used if one.line.therapy_class in ANTI_HER2]
    of, _ = _first_lines(anti, ALL, endpoint)
    rows = [one for one in of if np.isfinite(_value(one, measure)) and np.isfinite(_value(one, MEAN))]
    sizes = Counter(one.line.therapy_class for one in rows)
    classes = [c for c in ANTI_HER2 if sizes[c] >= MIN_GROUP]
    if len(classes) < 2:
        return None
    rows = [one for one in rows if one.line.therapy_class in classes]
    er_known = [one for one in rows if one.line.er_positive is not None]
    note = ""
    with_er = len({one.line.er_positive for one in er_known}) == 2
    if with_er:
        note = f"{len(rows) - len(er_known)} without ER left out" if len(rows) > len(er_known) else ""
        rows = er_known
    else:
        note = "not adjusted for ER, which is missing or the same in all"
    times = times_of(rows, endpoint)
    x = _scaled(np.array([_value(one, measure) for one in rows]))
    kind = np.array([one.line.therapy_class for one in rows])
    base: dict[str, Floats] = {measure: x}
    base |= {c: (kind == c).astype(np.float64) for c in classes[1:]}
    if measure != MEAN:
        base[f"{MEAN} beside"] = _scaled(np.array([_value(one, MEAN) for one in rows]))
    if with_er:
        base["ER"] = np.array([float(bool(one.line.er_positive)) for one in rows])
    products = {f"{measure} x {c}": x * (kind == c) for c in classes[1:]}
    _, strata = _strata(rows, therapy=False)
    try:
        small, large = cox(times, base, strata), cox(times, base | products, strata)
    except NotEstimableError as error:
        return Interaction(endpoint, measure, len(rows), times.events, float("nan"), (), str(error))
    effects = []
    for c in classes:
        weights = np.array([float(n in (measure, f"{measure} x {c}")) for n in large.names])
        effects.append((c, large.contrast(weights)))
    return Interaction(
        endpoint, measure, len(rows), times.events, likelihood_ratio(large, small), tuple(effects), note
    )


def _splines(endpoint: str, therapy: str, of: Sequence[Joined], measures: Sequence[str]) -> Iterator[Spline]:
    """Splines of measures with enough events; refused without a word elsewhere, since the line is in
    `models`."""
    for measure in measures:
        values = np.array([_value(one, measure) for one in of])
        rows = np.isfinite(values)
        x, times = values[rows], times_of(of, endpoint).of(rows)
        knots = np.unique(np.quantile(x, KNOTS)) if len(x) else np.zeros(0)
        if len(knots) < len(KNOTS):
            continue
        terms = spline(x, knots)
        centre, sd = float(np.median(x)), float(np.std(x))
        columns = {"linear": (x - centre) / sd, **{f"bend {i}": t / sd for i, t in enumerate(terms.T)}}
        try:
            line = cox(times, {"linear": columns["linear"]})
            bent = cox(times, columns)
        except NotEstimableError:
            continue
        first, last = np.quantile(x, (0.02, 0.98))
        grid = np.linspace(float(first), float(last), SPLINE_POINTS)
        at = np.column_stack([(grid - centre) / sd, spline(grid, knots) / sd])
        here = np.concatenate([[0.0], spline(np.array([centre]), knots)[0] / sd])
        apart = at - here
        value, se = (
            apart @ bent.coefficients,
            np.sqrt(np.einsum("ij,jk,ik->i", apart, bent.covariance, apart)),
        )
        yield Spline(
            endpoint, therapy, measure, len(x), times.events, likelihood_ratio(bent, line), grid,
            np.exp(value), np.exp(value - Z95 * se), np.exp(value + Z95 * se),
        )  # fmt: skip


def _searched(endpoint: str, therapy: str, of: Sequence[Joined], measure: str) -> Searched:
    values = np.array([_value(one, measure) for one in of])
    rows = np.isfinite(values)
    try:
        found = search_cut_point(times_of(of, endpoint).of(rows), values[rows])
    except NotEstimableError as error:
        return Searched(endpoint, therapy, measure, None, str(error))
    return Searched(endpoint, therapy, measure, found, "")
