"""Outcome in tables, figures and words; what the data do not support is a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from her2core.analysis.anchors import OUTCOME, anchor_table, anchor_text
from her2core.analysis.outcome import (
    ALL,
    MEAN,
    MIN_GROUP,
    MIN_KNOWN,
    UNADJUSTED,
    GroupCurve,
    Model,
    Outcome,
    Spline,
)
from her2core.analysis.results import (
    COLOURS,
    RESEARCH_ONLY,
    Answer,
    ResultTable,
    count_column,
    interval,
    markdown,
    number,
    text_column,
)
from her2core.analysis.survival import CUT_DRAWS, FEW_EVENTS, MIN_EVENTS, Effect
from her2core.lake.schema import FLAG, REAL, Column
from her2core.pictures.canvas import INK, png_bytes
from her2core.statistics import Z95
from her2core.text import counted

NOT_PROPORTIONAL_P = 0.05
"""P of the test of proportional hazards (Grambsch and Therneau 1994) below which a model is marked."""
TIMES_SHOWN = 6
"""Times at which numbers at risk stand. Ours."""
EXCLUSIONS = {
    "no_sample": "the patient has no specimen in the run",
    "sample_after_start": "every sample was taken after the line began",
    "sample_date_missing": "it is unknown when a sample was taken",
    "sample_date_ambiguous": "a sample may be of before or after the start: its date has no day",
    "sample_date_tied": "several samples share the last date before the start",
    "sample_indeterminate": "the sample before the start has no HER2 result",
    "entry_after_end": "followed no longer than until observation began",
    "later_line": "a later line of a patient who is counted with an earlier one",
}


def report_outcome(found: Outcome) -> Answer:
    """Tables, figures and the summary of an outcome analysis."""
    return Answer("Outcome by HER2", _text(found), tuple(_tables(found)), dict(_figures(found)))


# --- tables ------------------------------------------------------------------------------------------------


def _tables(found: Outcome) -> Iterator[ResultTable]:
    measures = (MEAN, *found.metrics)
    yield ResultTable(
        "lines",
        "Every line of therapy with the sample before it, or why it has none.",
        (
            count_column("row", "Row of the clinical table, as a spreadsheet counts it."),
            text_column("patient_id", "Patient."),
            text_column("therapy_class", "Class of therapy."),
            text_column("start", "Start of the line."),
            text_column("sample", "Specimen that stands before it."),
            text_column("sample_taken", "When that was taken."),
            text_column("her2_class", "Its class."),
            text_column("excluded", "Why the line is in no comparison; empty if it is."),
            Column("therapy_between", FLAG, "", "Another line began between sample and start."),
            *(Column(m, REAL, "", f"{m} of the sample.") for m in measures),
        ),
        [
            {
                "row": one.line.row,
                "patient_id": one.line.patient_id,
                "therapy_class": one.line.therapy_class,
                "start": one.line.start,
                "sample": one.sample.name if one.sample else None,
                "sample_taken": one.sample.taken if one.sample else None,
                "her2_class": one.sample.her2_class if one.sample else None,
                "excluded": one.why or None,
                "therapy_between": one.therapy_between,
            }
            | {m: one.sample.values.get(m) if one.sample else None for m in measures}
            for one in found.joined
        ],
    )
    yield ResultTable(
        "excluded",
        "Lines of therapy that are in no comparison, by reason.",
        (text_column("reason", "Why."), count_column("lines", "How many.")),
        [{"reason": why, "lines": n} for why, n in found.excluded.items()],
    )
    yield ResultTable("curves", "Kaplan-Meier curves in numbers, a row a group.", _CURVE_COLUMNS, [
        _curve_row(c) for c in found.curves
    ])  # fmt: skip
    yield ResultTable(
        "at_risk",
        "Patients under observation just before a time, and the curve there.",
        (
            *_GROUP_COLUMNS,
            Column("days", REAL, "day", "Time from the start of the line."),
            count_column("at_risk", "Patients under observation."),
            Column("survival", REAL, "fraction", "Without the event."),
            Column("survival_low", REAL, "fraction", "Lower end of its 95 % interval."),
            Column("survival_high", REAL, "fraction", "Upper end of its 95 % interval."),
        ),
        [
            _curve_keys(c)
            | {"days": t, "at_risk": c.at_risk(t)}
            | dict(zip(("survival", "survival_low", "survival_high"), c.curve.at(t), strict=True))
            for c in found.curves
            for t in _ticks(c.until, c.since)
        ],
    )
    yield ResultTable(
        "models",
        "Every coefficient of every Cox (hazard) and logistic (odds) model, also those that could not be "
        "estimated.",
        (
            text_column("endpoint", "pfs, dfs, os, pcr or response."),
            text_column("therapy", "Class of therapy; all is all of them, each with its own baseline."),
            text_column("kind", "hazard or odds: what the ratio is of."),
            text_column("question", "What is compared."),
            text_column("adjusted", "For what else the model accounts."),
            text_column("strata", "What has a baseline hazard of its own."),
            text_column("term", "The coefficient; the first of a model answers the question."),
            count_column("n", "Patients."),
            count_column("events", "Events, or responses."),
            count_column("left_out", "Patients with the endpoint who lack a measure of the model."),
            *_ratio_columns(),
            Column("p_family", REAL, "probability", "Benjamini and Hochberg's p among all adjusted metrics."),
            Column("p_proportional", REAL, "probability", "Of the test that the hazards are proportional."),
            text_column("status", "ok, few_events (fewer than ten a coefficient) or not_estimable."),
            text_column("note", "Why, or what the model lacks."),
        ),
        [_model_row(m) for m in found.models],
    )
    yield ResultTable(
        "interactions",
        "Whether a measure means another thing under another class of therapy against HER2.",
        (
            _ENDPOINT,
            text_column("measure", "Measure, per standard deviation."),
            text_column("therapy", "Class; empty where nothing could be estimated."),
            count_column("n", "Patients of all classes."),
            count_column("events", "Their events."),
            *_ratio_columns(),
            Column("p_interaction", REAL, "probability", "Of all products with therapy together."),
            Column("p_family", REAL, "probability", "Benjamini and Hochberg's among the interactions."),
            text_column("note", "Why there is none, or what the model lacks."),
        ),
        [
            {"endpoint": i.endpoint, "measure": i.measure, "therapy": c, "n": i.n, "events": i.events}
            | _ratio(e)
            | {"p_interaction": i.p, "p_family": i.p_family, "note": i.note or None}
            for i in found.interactions
            for c, e in (i.by_class or ((None, None),))
        ],
    )
    yield ResultTable(
        "splines",
        "Hazard ratio of a measure against its median, by a restricted cubic spline with four knots.",
        (
            *_MEASURED,
            Column("x", REAL, "", "Its value."),
            Column("ratio", REAL, "", "Hazard ratio."),
            Column("ratio_low", REAL, "", "Lower end of its 95 % interval."),
            Column("ratio_high", REAL, "", "Upper end of its 95 % interval."),
            Column("p_nonlinear", REAL, "probability", "Of the curve against a line."),
            text_column("adjusted", "For what else the model accounts."),
            text_column("strata", "What has a baseline hazard of its own."),
            count_column("n", "Patients."),
            count_column("left_out", "Patients with the endpoint who lack a measure of the model."),
        ),
        [
            {
                "endpoint": s.endpoint, "therapy": s.therapy, "measure": s.measure, "x": float(s.x[i]),
                "ratio": float(s.ratio[i]), "ratio_low": float(s.low[i]), "ratio_high": float(s.high[i]),
                "p_nonlinear": s.p_nonlinear, "adjusted": s.adjusted, "strata": s.strata or None, "n": s.n,
                "left_out": s.left_out,
            }
            for s in found.splines
            for i in range(len(s.x))
        ],
    )  # fmt: skip
    yield ResultTable(
        "cut_points",
        "Cut-points that were searched, with the optimism of the search taken off; none unless requested.",
        (
            *_MEASURED,
            Column("cut", REAL, "", "Value with the largest difference."),
            count_column("above", "Patients above it."),
            Column("ratio_apparent", REAL, "", "Hazard ratio above it, as found (log-rank, one step)."),
            Column("ratio_corrected", REAL, "", "The same with the optimism taken off."),
            Column("optimism", REAL, "", "Mean optimism of the log ratio."),
            Column("p", REAL, "probability", "Chance that a cut of shuffled values separates as much."),
            text_column("note", "Why there is none."),
        ),
        [
            {
                "endpoint": s.endpoint, "therapy": s.therapy, "measure": s.measure,
                "cut": s.found.cut if s.found else None,
                "above": s.found.above if s.found else None,
                "ratio_apparent": s.found.apparent if s.found else None,
                "ratio_corrected": s.found.corrected if s.found else None,
                "optimism": s.found.optimism if s.found else None,
                "p": s.found.p if s.found else None,
                "note": s.note or None,
            }
            for s in found.cut_points
        ],
    )  # fmt: skip
    yield ResultTable(
        "claims",
        "Claims in circulation beside what this cohort shows of them.",
        (text_column("claim", "The claim."), text_column("elsewhere", "Pooled data."),
         text_column("here", "What these data show, or why they do not.")),
        [dict(zip(("claim", "elsewhere", "here"), c, strict=True)) for c in _claims(found)],
    )  # fmt: skip
    yield anchor_table(OUTCOME)


_ENDPOINT = text_column("endpoint", "pfs, dfs or os.")
_THERAPY = text_column("therapy", "Class of therapy.")
_MEASURED = (_ENDPOINT, _THERAPY, text_column("measure", "Measure."))
_GROUP_COLUMNS = (
    _ENDPOINT,
    _THERAPY,
    text_column("by", "What the groups are of."),
    text_column("group", "The group."),
)
_CURVE_COLUMNS = (
    *_GROUP_COLUMNS,
    count_column("n", "Patients."),
    count_column("events", "Events."),
    Column("median", REAL, "day", "Median; null where the curve does not come down to a half."),
    Column("median_low", REAL, "day", "Lower end of its 95 % interval."),
    Column("median_high", REAL, "day", "Upper end of its 95 % interval; null where it is not reached."),
    Column(
        "since",
        REAL,
        "day",
        "The curve is of patients without the event at this time; 0 unless fewer "
        f"than {MIN_GROUP} were under observation before.",
    ),
    Column("until", REAL, "day", "Horizon of the restricted mean, shared by the groups of a comparison."),
    Column("restricted_mean", REAL, "day", "Mean time without the event from since to the horizon."),
    Column("restricted_mean_low", REAL, "day", "Lower end of its 95 % interval."),
    Column("restricted_mean_high", REAL, "day", "Upper end of its 95 % interval."),
)


def _curve_keys(c: GroupCurve) -> dict[str, Any]:
    return {"endpoint": c.endpoint, "therapy": c.therapy, "by": c.by, "group": c.group}


def _curve_row(c: GroupCurve) -> dict[str, Any]:
    median = [x if np.isfinite(x) else None for x in c.curve.median]
    return (
        _curve_keys(c)
        | {"n": len(c.curve.times), "events": c.curve.times.events}
        | dict(zip(("median", "median_low", "median_high"), median, strict=True))
        | {"since": c.since, "until": c.until, "restricted_mean": c.mean}
        | {"restricted_mean_low": c.mean - Z95 * c.mean_se, "restricted_mean_high": c.mean + Z95 * c.mean_se}
    )


def _ratio_columns() -> tuple[Column, ...]:
    return (
        Column("ratio", REAL, "", "Hazard or odds ratio; null where it cannot be estimated."),
        Column("ratio_low", REAL, "", "Lower end of its 95 % interval."),
        Column("ratio_high", REAL, "", "Upper end of its 95 % interval."),
        Column("p", REAL, "probability", "Two-sided, of this coefficient alone (Wald)."),
    )


def _ratio(e: Effect | None) -> dict[str, Any]:
    values = (e.ratio, e.low, e.high, e.p) if e else (None,) * 4
    return dict(zip(("ratio", "ratio_low", "ratio_high", "p"), values, strict=True))


def _model_row(m: Model) -> dict[str, Any]:
    return (
        {"endpoint": m.endpoint, "therapy": m.therapy, "kind": m.kind, "question": m.question}
        | {
            "adjusted": m.adjusted,
            "strata": m.strata or None,
            "term": m.term,
            "n": m.n,
            "events": m.events,
            "left_out": m.left_out,
        }
        | _ratio(m.effect)
        | {"p_family": m.p_family, "p_proportional": m.p_proportional, "status": m.status}
        | {"note": m.note or None}
    )


# --- words -------------------------------------------------------------------------------------------------


def _text(found: Outcome) -> str:
    used = [one for one in found.joined if one.sample]
    patients = len({one.line.patient_id for one in found.joined})
    parts = [
        "# Outcome by HER2",
        f"{RESEARCH_ONLY} Associations of one cohort: therapy was not assigned by chance, and no number "
        "here shows that a therapy works, or fails, because of HER2.",
        f"{counted(len(found.joined), 'line')} of therapy of {counted(patients, 'patient')}; of {len(used)} "
        f"a sample was surely taken before. Endpoints: {', '.join(found.endpoints) or 'none'}. Measures: "
        f"{', '.join((MEAN, *found.metrics))}.",
        "## Who is not compared",
        _excluded(found),
        *_cautions(found),
    ]
    if found.curves:
        parts += ["## Curves", _curves(found)]
    if found.models:
        parts += ["## Measures and classes", _models(found)]
    if found.interactions:
        parts += ["## Another effect under another therapy?", _interactions(found)]
    if found.splines:
        parts += ["## Lines and bends", _splines(found)]
    if found.cut_points:
        parts += ["## Cut-points", _cut_points(found)]
    parts += [
        "## Claims in circulation",
        markdown(("claim", "pooled data", "here"), _claims(found)),
        "## Published figures",
        anchor_text(OUTCOME),
        "## How this was computed",
        "Time runs from the start of a line. A patient is at risk from `entry_days` on and enters a "
        "comparison once, with the first line that belongs to it. A sample counts if it was surely taken "
        "by the day of the start; of several the last. Cox's models (statsmodels, Efron's ties) have "
        "baseline hazards of their own for centre, kind of site of the sample, class of therapy and intent "
        "where patients differ in them; logistic models have the kind of site as a covariate. Measures are "
        "per standard deviation. Adjusted means beside the mean membrane OD and ER, since heterogeneity "
        "follows from the mean; a further model adds grade (a step), age (10 years) and stage (a step, 0 to "
        f"IV), each where it is known in at least {MIN_KNOWN:.0%} of the comparison. Patients in whom a "
        "covariate of a model is unknown are left out of it and counted; nothing is imputed. Proportional "
        "hazards are tested by Schoenfeld residuals against the rank of time; where that p is small read the "
        "restricted means. p of all adjusted metrics are one family of Benjamini and Hochberg. Fewer than "
        f"{MIN_EVENTS:g} events a coefficient are refused, fewer than {FEW_EVENTS:g} marked. A metric of "
        "several slides is their mean, weighted by cells.",
    ]
    return "\n\n".join(parts) + "\n"


def _excluded(found: Outcome) -> str:
    if not found.excluded:
        return "Nobody: every line has a sample before it."
    rows = []
    for why, n in found.excluded.items():
        stem, _, where = why.partition(" (")
        rows.append((f"{EXCLUSIONS.get(stem, stem)}{f' ({where}' if where else ''}", str(n)))
    return markdown(("why", "lines"), rows)


def _cautions(found: Outcome) -> Iterator[str]:
    used = [one for one in found.joined if one.sample]
    if used and not any(one.line.entry_days for one in used):
        yield (
            "**No row has `entry_days`**: patients count as observed from the start of their line. If they "
            "were enrolled later, those who died before are missing and survival is too long."
        )
    if between := sum(one.therapy_between for one in used):
        yield (
            f"{counted(between, 'line')} began after another therapy that came later than the sample: HER2 "
            "may have changed since."
        )
    unclassed = sum(one.sample.group is None for one in used if one.sample)
    if unclassed:
        yield (
            f"Of a class that is no group here (equivocal, 0_unresolved, negative of rules without low): "
            f"{counted(unclassed, 'sample')}, in no comparison of classes."
        )
    if any(c.since for c in found.curves):
        yield (
            f"While patients are still entering, events of which fewer than {MIN_GROUP} were at risk stand "
            "in no curve: such a curve is of patients who came to the day `since` of `curves.csv` without "
            "the event, and so are its median, restricted mean and numbers at risk."
        )
    if found.small:
        yield (f"Groups of fewer than {MIN_GROUP} patients have no curve: {'; '.join(found.small)}.")


def _days(x: float) -> str:
    return number(x, 0) if np.isfinite(x) else "not reached"


def _curves(found: Outcome) -> str:
    rows = [
        (
            c.endpoint, c.therapy, c.group, str(len(c.curve.times)), str(c.curve.times.events),
            f"{_days(c.curve.median[0])} ({_days(c.curve.median[1])} to {_days(c.curve.median[2])})",
            f"{c.mean:.0f} ({c.mean - Z95 * c.mean_se:.0f} to {c.mean + Z95 * c.mean_se:.0f}) of "
            f"{c.until - c.since:.0f}{f' from day {c.since:.0f} on' if c.since else ''}",
        )
        for c in found.curves
        if c.by in ("HER2 class", "therapy") or c.therapy == ALL
    ]  # fmt: skip
    names = ("endpoint", "therapy", "group", "n", "events", "median, days", "restricted mean, days")
    return (
        markdown(names, rows)
        + "\n\nAll groups stand in `curves.csv`. Numbers at risk stand below each curve and in `at_risk.csv`."
    )


def ratio_words(e: Effect | None) -> str:
    """A ratio and its interval for a text."""
    return "–" if e is None else f"{e.ratio:.2f} ({interval(e.low, e.high)})"


def _first_terms(found: Outcome) -> list[Model]:
    """The coefficients that answer their model's question, and models that have none."""
    return [m for m in found.models if m.effect is None or m.term in (m.question, f"{m.question}, per SD")]


def _shown(found: Outcome, model: Model) -> bool:
    """Whether a model stands in the text: adjusted, or all that gave a ratio to its question."""
    return model.adjusted != UNADJUSTED or not any(
        m.effect and m.adjusted != UNADJUSTED and _question(m) == _question(model) for m in found.models
    )


def _primary(found: Outcome, model: Model) -> bool:
    """Whether a model stands in the forest: of those in the text its question's first that gave a ratio."""
    of = [
        m for m in _first_terms(found) if m.effect and _question(m) == _question(model) and _shown(found, m)
    ]
    return bool(of) and of[0] is model


def _question(m: Model) -> tuple[str, str, str]:
    return m.endpoint, m.therapy, m.question


MODEL_HEADINGS = (
    *("endpoint", "therapy", "question", "adjusted for"),
    *("n / events", "left out", "ratio", "p", "p, family"),
)


def _models(found: Outcome) -> str:
    rows, refused, notes = [], [], []
    for m in _first_terms(found):
        model = f"{m.endpoint}, {m.therapy}, {m.question}, adjusted for {m.adjusted}"
        if m.effect is None:
            refused.append(f"{model}: {m.note}")
            continue
        if not _shown(found, m):
            continue
        marks = "few events. " if m.status == "few_events" else ""
        if m.p_proportional < NOT_PROPORTIONAL_P:
            marks += "hazards not proportional. "
        rows.append((
            m.endpoint, m.therapy, m.question, m.adjusted, f"{m.n} / {m.events}", str(m.left_out),
            ratio_words(m.effect), number(m.effect.p, 3), number(m.p_family, 3),
        ))  # fmt: skip
        if marks or m.note:
            notes.append(f"{model}: {marks}{m.note}".strip())
    text = (
        "Ratios of hazards (pfs, dfs, os: above 1 is worse) and of odds (pcr, response: above 1 is better), "
        "adjusted where they could be: for mean and ER (and, of odds, for the kind of site; hazards are "
        "stratified by it), and, where the table has them, for grade, age and stage too. All stand in "
        f"`models.csv`. 3+ is never one group with 2+/ISH+.\n\n{markdown(MODEL_HEADINGS, rows)}"
    )
    if notes:
        text += "\n\nTo note:\n\n" + "\n".join(f"- {line}" for line in notes)
    if refused:
        text += "\n\nNot estimated:\n\n" + "\n".join(f"- {line}" for line in refused)
    return text


def _interactions(found: Outcome) -> str:
    rows = [
        (
            i.endpoint, i.measure, f"{i.n} / {i.events}",
            "; ".join(f"{c} {ratio_words(e)}" for c, e in i.by_class) or "–",
            number(i.p, 3), number(i.p_family, 3), i.note,
        )
        for i in found.interactions
    ]  # fmt: skip
    names = ("endpoint", "measure", "n / events", "hazard ratio per SD by therapy", "p", "p, family", "note")
    return (
        "Whether the ratios differ is the p, not whether one of them alone is significant. Therapies were "
        f"chosen for patients, often by HER2 itself.\n\n{markdown(names, rows)}"
    )


def _splines(found: Outcome) -> str:
    rows = [
        (s.endpoint, s.therapy, s.measure, s.adjusted, f"{s.n} / {s.events}", number(s.p_nonlinear, 3))
        for s in found.splines
    ]
    return markdown(("endpoint", "therapy", "measure", "adjusted for", "n / events", "p of a bend"), rows)


def _cut_points(found: Outcome) -> str:
    rows = []
    for s in found.cut_points:
        if s.found is None:
            rows.append((s.endpoint, s.therapy, s.measure, "–", "–", "–", s.note))
        else:
            p = number(s.found.p, 3)
            ratios = number(s.found.apparent), number(s.found.corrected)
            rows.append((s.endpoint, s.therapy, s.measure, f"{s.found.cut:.3g}", *ratios, p))
    names = ("endpoint", "therapy", "measure", "cut", "ratio as found", "ratio corrected", "p of the search")
    return (
        f"Every search finds a cut. The corrected ratio has its optimism taken off by {CUT_DRAWS} draws; a "
        f"cut needs another cohort before it means anything.\n\n{markdown(names, rows)}"
    )


def _claims(found: Outcome) -> list[tuple[str, str, str]]:
    return [
        (
            "HER2-low has a poorer prognosis than 0",
            "no: DFS HR 0.86, OS HR 0.90 (early), 0.94 (metastatic), and confounded by hormone receptors",
            _answer(found, "low against 0", ("dfs", "os"), ALL),
        ),
        (
            "T-DM1 works alike whatever the level and its heterogeneity",
            "disputed: pCR 0 against 55 % with genetic heterogeneity (Filho 2021)",
            "; ".join(
                _answer(found, q, ("pfs", "dfs", "os", "pcr"), "T-DM1") for q in (MEAN, *found.metrics)
            ),
        ),
        (
            "Heterogeneity is bad",
            "not everywhere: HR 0.37 for higher entropy of completeness in 2+ not amplified (Radziuviene "
            "2021)",
            "; ".join(_answer(found, q, ("pfs", "dfs", "os"), ALL) for q in found.metrics),
        ),
        (
            "Expression is yes or no, not a matter of degree",
            "conflicts with low and ultralow",
            _answer(found, MEAN, ("pfs", "dfs", "os"), ALL),
        ),
    ]


def _answer(found: Outcome, question: str, endpoints: Sequence[str], therapy: str) -> str:
    """The most adjusted answer to a question, in words."""
    words = []
    for endpoint in endpoints:
        of = [
            m
            for m in _first_terms(found)
            if (m.endpoint, m.question, m.therapy) == (endpoint, question, therapy)
        ]
        if not of:
            continue
        m = next((m for m in reversed(of) if m.effect), of[-1])
        if m.effect is None:
            words.append(f"{endpoint}: not estimable ({m.note})")
            continue
        what = "worse" if (m.effect.ratio > 1) == (m.kind == "hazard") else "better"
        open_ = m.effect.low <= 1 <= m.effect.high
        verdict = "not decided: the interval holds 1" if open_ else f"{what} here"
        words.append(f"{endpoint}: {ratio_words(m.effect)} adjusted for {m.adjusted}, {verdict}")
    return f"{question}: {'; '.join(words)}" if words else f"{question}: no data"


# --- figures -----------------------------------------------------------------------------------------------


def _figures(found: Outcome) -> Iterator[tuple[str, bytes]]:
    groups: dict[tuple[str, str, str], list[GroupCurve]] = {}
    for c in found.curves:
        groups.setdefault((c.endpoint, c.therapy, c.by), []).append(c)
    for (endpoint, therapy, by), curves in groups.items():
        if len(curves) > 1:
            yield _slug("km", endpoint, therapy, by), png_bytes(_kaplan_meier(curves))
    for endpoint in dict.fromkeys(m.endpoint for m in found.models):
        of = [m for m in _first_terms(found) if m.endpoint == endpoint and m.effect and _primary(found, m)]
        if of:
            yield _slug("forest", endpoint), png_bytes(_forest(of))
    for s in found.splines:
        if s.therapy == ALL or len({x.therapy for x in found.splines}) == 1:
            yield _slug("spline", s.endpoint, s.therapy, s.measure), png_bytes(_spline(s))


def _slug(*words: str) -> str:
    return "_".join("".join(c if c.isalnum() else "-" for c in word.casefold()) for word in words)


def _ticks(until: float, since: float) -> list[float]:
    return [float(t) for t in np.round(np.linspace(since, until, TIMES_SHOWN))]


def _kaplan_meier(curves: Sequence[GroupCurve]) -> Figure:
    figure = Figure((7.5, 4.6 + 0.24 * len(curves)), dpi=100, layout="constrained")
    axes, table = figure.subplots(2, 1, sharex=True, height_ratios=(10, 1.1 * len(curves) + 0.6))
    until = max(float(c.curve.times.time.max()) for c in curves)
    ticks = _ticks(until, curves[0].since)
    for place, (colour, c) in enumerate(zip(COLOURS, curves, strict=False)):
        k, on = c.curve, c.curve.time >= c.since
        axes.step(
            k.time[on], 100 * k.survival[on], where="post", color=colour, lw=1.8,
            label=f"{c.group}, n {len(k.times)}",
        )  # fmt: skip
        axes.fill_between(
            k.time[on], 100 * k.low[on], 100 * k.high[on], step="post", color=colour, alpha=0.12, lw=0
        )
        for t in ticks:
            table.text(t, place, str(c.at_risk(t)), ha="center", va="center", color=colour, fontsize=9)
    first = curves[0]
    axes.set_ylabel(f"without {first.endpoint.upper()} event, %")
    axes.set_ylim(0, 101)
    axes.grid(color="#E5E5E5")
    axes.legend(frameon=False, fontsize=9)
    axes.set_title(f"{first.endpoint.upper()}, {first.therapy}, by {first.by}", fontsize=11, parse_math=False)
    table.set_ylim(len(curves) - 0.5, -0.9)
    table.set_yticks(range(len(curves)), [c.group for c in curves], fontsize=9)
    table.set_xticks(ticks)
    given = f"; without the event at day {first.since:.0f}" if first.since else ""
    table.set_xlabel(f"days from the start of the line (numbers at risk above){given}")
    for side in ("top", "right", "left"):
        table.spines[side].set_visible(False)
    table.tick_params(axis="y", length=0)
    return figure


def _forest(models: Sequence[Model]) -> Figure:
    figure = Figure((9.5, 1.2 + 0.3 * len(models)), dpi=100, layout="constrained")
    axes = figure.subplots()
    for place, m in enumerate(reversed(models)):
        e = m.effect
        if e is None:
            continue
        colour = COLOURS[0] if m.status == "ok" else "#999999"
        axes.plot([e.low, e.high], [place, place], color=colour, lw=1.8)
        axes.plot([e.ratio], [place], "s", color=colour, ms=5)
    labels = [f"{m.therapy}: {m.question}, {m.n} / {m.events}" for m in reversed(models)]
    axes.set_yticks(range(len(models)), labels, fontsize=8.5)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(models)), [ratio_words(m.effect) for m in reversed(models)], fontsize=8.5)
    _log(axes.set_xscale, axes.xaxis)
    axes.axvline(1, color=INK, lw=1)
    axes.set_ylim(-0.7, len(models) - 0.3)
    axes.set_xlabel(
        f"{models[0].kind} ratio of {models[0].endpoint.upper()}, beside mean and ER where known "
        "(grey: few events); left: patients / events"
    )
    axes.grid(axis="x", color="#E5E5E5")
    return figure


def _log(set_scale: Callable[[str], None], axis: Axis) -> None:
    """A logarithmic axis of ratios with plain numbers."""
    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _spline(s: Spline) -> Figure:
    figure = Figure((6, 4.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.plot(s.x, s.ratio, color=COLOURS[0])
    axes.fill_between(s.x, s.low, s.high, color=COLOURS[0], alpha=0.15, lw=0)
    axes.axhline(1, color=INK, lw=0.8)
    _log(axes.set_yscale, axes.yaxis)
    axes.set_xlabel(s.measure, parse_math=False)
    axes.set_ylabel("hazard ratio against the median")
    axes.set_title(
        f"{s.endpoint.upper()}, {s.therapy}, n {s.n}, p of a bend {s.p_nonlinear:.2g}\n"
        f"adjusted for {s.adjusted}",
        fontsize=10,
        parse_math=False,
    )
    axes.grid(color="#E5E5E5")
    return figure
