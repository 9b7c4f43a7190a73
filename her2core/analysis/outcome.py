"""How HER2 expression and its heterogeneity relate to what became of patients under each class of therapy.

Every patient enters a comparison once, with the first line that belongs to it; every measure is of the sample
before that line. Associations of one cohort: therapy was not assigned by chance, no number here shows that
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
MIN_KNOWN = 0.8
"""Share of a comparison's patients in whom grade, age or stage must be known to enter its further model,
which leaves the others out. Ours."""
RESPONSES = ("pcr", "response")
FIRST_ZERO = ("ultralow", "null")
SPLINE_POINTS = 60
SPLINE_ENDS = (0.02, 0.98)
"""Quantiles of the measure between which a curve is drawn: beyond them it rests on few patients. Ours."""


@dataclass(frozen=True, slots=True)
class GroupCurve:
    """Kaplan-Meier of one group, and its restricted mean survival.

    Attributes
    ----------
    by
        What the groups are of: HER2 class, therapy, or the median of a measure.
    since, until
        Days which all groups of a comparison share: the curve is of patients without the event at ``since``,
        0 unless too few were under observation before; the horizon of the mean.
    mean, mean_se
        Mean time without the event between the two.
    """

    endpoint: str
    therapy: str
    by: str
    group: str
    curve: Curve
    since: float
    until: float
    mean: float
    mean_se: float

    def at_risk(self, at: float) -> int:
        """Patients under observation just before a time; where the curve begins, just after."""
        return self.curve.times.at_risk(max(at, self.since + 1e-9))


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
        ok, few_events (fewer than ten a coefficient) or not_estimable; `note` gives the reason.
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
    adjusted: str
    strata: str
    n: int
    events: int
    left_out: int
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
        since = max((times.since(MIN_GROUP) for times in large.values()), default=0.0)
        large = {name: times.after(since) for name, times in large.items()}
        gone = [name for name, times in large.items() if len(times) < MIN_GROUP]
        small += [f"{endpoint}, {therapy}, {by}: {n} ({len(large[n])} from day {since:g} on)" for n in gone]
        large = {name: times for name, times in large.items() if name not in gone}
        if not large:
            continue
        until = float(min(times.time.max() for times in large.values()))
        for name, times in large.items():
            try:
                curve = kaplan_meier(times)
            except NotEstimableError as error:
                small.append(f"{endpoint}, {therapy}, {by}: {name} ({error})")
                continue
            area, se = restricted_mean(times, until)
            found.append(GroupCurve(endpoint, therapy, by, name, curve, since, until, area - since, se))
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
class _Design:
    """Columns of a model, the question's first, with the patients in whom all are known."""

    columns: Columns
    rows: NDArray[np.bool_]
    notes: tuple[str, ...]

    def adjusted(self, own: int = 1) -> str:
        """What else than the first ``own`` columns the model accounts for."""
        return ", ".join(dict.fromkeys(map(_short, list(self.columns)[own:]))) or UNADJUSTED


@dataclass(frozen=True, slots=True)
class _Asked:
    """An endpoint in patients, how a model of it is fitted, and what it is stratified by.

    ``sites`` states whether the site of the sample is a covariate, where it is no stratum.
    """

    endpoint: str
    therapy: str
    kind: str
    of: Sequence[Joined]
    events: NDArray[np.bool_]
    fit: Fit
    strata: tuple[str, ...] = ()
    sites: bool = False

    def models(self, metrics: Sequence[str]) -> Iterator[Model]:
        """Models of the mean, of each metric and of classes: alone, beside mean, ER and site, and beside
        grade, age and stage too."""
        for question in self._questions(metrics):
            designs: list[_Design] = []
            for covariates in ((), question.covariates, (*question.covariates, *FURTHER)):
                design = self._design(question, covariates)
                if designs and len(design.columns) == len(designs[-1].columns):  # the model is the one before
                    designs[-1] = replace(designs[-1], notes=design.notes)
                else:
                    designs.append(design)
            for design in designs:
                primary = question.family and design is designs[min(1, len(designs) - 1)]
                yield from self._fit(question, design, family=primary and len(design.columns) > 1)

    def _questions(self, metrics: Sequence[str]) -> Iterator[_Question]:
        everyone = np.ones(len(self.of), np.bool_)
        for name in (MEAN, *metrics):
            values = np.array([_value(one, name) for one in self.of])
            yield _Question(name, f"{name}, per SD", values, everyone, _beside(name), name != MEAN)
        group = np.array([_group(one) or "" for one in self.of])
        for name, high, low in CLASS_QUESTIONS:
            above, below = np.isin(group, high), np.isin(group, low)
            if above.any() and below.any():
                yield _Question(name, name, above.astype(np.float64), above | below, (_ER,), False)

    def _design(self, question: _Question, covariates: Sequence[str]) -> _Design:
        named = {name: _covariate(self.of, name) for name in covariates}
        found = _usable({question.term: question.column}, question.within, named)
        if not (self.sites and covariates):
            return found
        columns, notes = _site_columns([site_kind(one) for one in self.of], found.rows)
        return _Design(found.columns | columns, found.rows, (*found.notes, *notes))

    def _fit(self, question: _Question, design: _Design, *, family: bool) -> Iterator[Model]:
        rows = design.rows
        scaled = _scaled_columns(design)
        note = f"{', '.join(design.notes)}. " if design.notes else ""
        whole = Model(
            self.endpoint,
            self.therapy,
            self.kind,
            question.name,
            design.adjusted(),
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
        status = "ok" if rarer >= FEW_EVENTS * len(scaled) else "few_events"
        for name in fitted.names:
            yield replace(
                whole,
                term=name,
                effect=fitted.effect(name),
                status=status,
                p_proportional=ph.get(name, float("nan")),
                family=family and name == question.term,
            )


_ER, _MEAN = "ER positive", f"{MEAN}, per SD"
_GRADE, _AGE, _STAGE = "grade, per step", "age, per 10 years", "stage, per step"
FURTHER = (_GRADE, _AGE, _STAGE)
"""Covariates of the further model, as far as the clinical table has them."""
_SITE = "site "


def _beside(measure: str) -> tuple[str, ...]:
    """What a measure is adjusted for: ER, and the mean level unless it is that."""
    return (_ER,) if measure == MEAN else (_MEAN, _ER)


def _covariate(of: Sequence[Joined], name: str) -> Floats:
    """A covariate of patients; NaN where it is unknown."""
    known: list[float | None] = [None] * len(of)
    if name == _ER:
        known = [None if one.line.er_positive is None else float(one.line.er_positive) for one in of]
    elif name == _MEAN:
        known = [_value(one, MEAN) for one in of]
    elif name == _GRADE:
        known = [one.line.grade for one in of]
    elif name == _AGE:
        known = [None if one.line.age_years is None else one.line.age_years / 10 for one in of]
    elif name == _STAGE:
        known = [one.line.stage for one in of]
    return np.array([np.nan if value is None else value for value in known], np.float64)


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

    yield from _Asked(endpoint, therapy, "odds", of, outcome, fit, sites=True).models(metrics)


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
    if column.startswith(_SITE):
        return _SITE.strip()
    return column.partition(",")[0].removesuffix(" positive")


def _scaled(x: Floats) -> Floats:
    sd = float(np.std(x, ddof=1)) if len(x) > 1 else 0.0
    return (x - x.mean()) / sd if sd > 0 else x - x.mean() if len(x) else x


def _centred(x: Floats) -> Floats:
    out: Floats = x - x.mean(axis=0)
    return out


def _scaled_columns(design: _Design) -> Columns:
    """Columns of the patients of a model, measures per standard deviation."""
    of = {name: column[design.rows] for name, column in design.columns.items()}
    return {name: _scaled(column) if name.endswith("per SD") else column for name, column in of.items()}


def _usable(question: Columns, within: NDArray[np.bool_], covariates: Columns) -> _Design:
    """The question's columns with the covariates that can be used; what was dropped, in words.

    Patients in whom one that is used is unknown are left out. Mean and ER are used wherever they are known,
    `FURTHER` ones from `MIN_KNOWN` on. What is the same in all who are left is none.
    """
    kept, dropped = dict(question), []
    for name, column in covariates.items():
        known = int((within & np.isfinite(column)).sum())
        if known == 0:
            if name not in FURTHER:
                dropped.append(f"{_short(name)} is missing in all")
        elif name in FURTHER and known < MIN_KNOWN * within.sum():
            dropped.append(f"{_short(name)} is known in {known} of {within.sum()} and not used")
        else:
            kept[name] = column
    while True:
        rows = within & np.all([np.isfinite(c) for c in kept.values()], axis=0)
        still = [n for n in kept if n in covariates and (not rows.any() or np.ptp(kept[n][rows]) == 0)]
        if not still:
            return _Design(kept, rows, tuple(dropped))
        del kept[still[-1]]
        dropped.append(f"{_short(still[-1])} is the same in all")


def _site_columns(kinds: Sequence[str], rows: NDArray[np.bool_]) -> tuple[Columns, tuple[str, ...]]:
    """Columns of the kinds of site against the most frequent one, with which kinds of fewer than `MIN_GROUP`
    patients are counted."""
    sizes = Counter(kind for kind, row in zip(kinds, rows, strict=True) if row)
    (reference, _), *others = sorted(sizes.items(), key=lambda item: (-item[1], item[0])) or [("", 0)]
    few = [f"{kind} ({n})" for kind, n in others if n < MIN_GROUP]
    columns = {
        f"{_SITE}{kind}": np.array([float(k == kind) for k in kinds]) for kind, n in others if n >= MIN_GROUP
    }
    return columns, ((f"site {', '.join(few)} counted with {reference}",) if few else ())


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
    """Splines of measures with enough events, adjusted and stratified as their line in `models`; refused
    without a word elsewhere."""
    named, strata = _strata(of)
    for measure in measures:
        values = np.array([_value(one, measure) for one in of])
        known = np.isfinite(values)
        knots = np.unique(np.quantile(values[known], KNOTS)) if known.any() else np.zeros(0)
        if len(knots) < len(KNOTS):
            continue
        terms = {"linear": values} | {f"bend {i}": t for i, t in enumerate(spline(values, knots).T)}
        covariates = {name: _covariate(of, name) for name in _beside(measure)}
        design = _usable(terms, np.ones(len(of), np.bool_), covariates)
        rows = design.rows
        if rows.sum() <= len(design.columns):
            continue
        # of any scale and alike, the terms would have meaningless errors; their orthogonal form has none
        own, turn = np.linalg.qr(_centred(np.column_stack([design.columns[name][rows] for name in terms])))
        columns = _scaled_columns(design) | dict(zip(terms, (own * len(own) ** 0.5).T, strict=True))
        straight = {name: column for name, column in columns.items() if not name.startswith("bend ")}
        layers = None if strata is None else strata[rows]
        times = times_of(of, endpoint).of(rows)
        try:
            line, bent = cox(times, straight, layers), cox(times, columns, layers)
        except NotEstimableError:
            continue
        centre = float(np.median(values[rows]))
        first, last = np.quantile(values[rows], SPLINE_ENDS)
        grid = np.linspace(float(first), float(last), SPLINE_POINTS)

        at, here = (np.column_stack([x, spline(x, knots)]) for x in (grid, np.array([centre])))
        apart = np.linalg.solve(turn.T, (at - here).T).T * len(own) ** 0.5
        first_terms = slice(0, len(terms))
        value = apart @ bent.coefficients[first_terms]
        se = np.sqrt(np.einsum("ij,jk,ik->i", apart, bent.covariance[first_terms, first_terms], apart))
        yield Spline(
            endpoint, therapy, measure, design.adjusted(len(terms)), ", ".join(named), len(times),
            times.events, len(of) - len(times), likelihood_ratio(bent, line), grid, np.exp(value),
            np.exp(value - Z95 * se), np.exp(value + Z95 * se),
        )  # fmt: skip


def _searched(endpoint: str, therapy: str, of: Sequence[Joined], measure: str) -> Searched:
    values = np.array([_value(one, measure) for one in of])
    rows = np.isfinite(values)
    try:
        found = search_cut_point(times_of(of, endpoint).of(rows), values[rows])
    except NotEstimableError as error:
        return Searched(endpoint, therapy, measure, None, str(error))
    return Searched(endpoint, therapy, measure, found, "")
