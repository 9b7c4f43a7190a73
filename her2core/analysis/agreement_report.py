"""Agreement in tables, figures and words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from her2core.analysis.agreement import CAP_SOURCE, MAJORITY, PANEL_SHARE, SCHEMES, Agreement, Pair, Panel
from her2core.analysis.anchors import AGREEMENT, anchor_table, anchor_text
from her2core.analysis.reads import FIVE
from her2core.analysis.resampling import MIN_PATIENTS, REPLICATES, Estimate
from her2core.analysis.results import (
    COLOURS,
    RESEARCH_ONLY,
    Answer,
    ResultTable,
    count_column,
    estimate_columns,
    estimated,
    interval,
    markdown,
    percent,
    spread,
    text_column,
)
from her2core.lake.schema import FLAG, Column
from her2core.pictures.canvas import INK, png_bytes
from her2core.text import counted


def report_agreement(found: Agreement) -> Answer:
    """Tables, figures and the summary of an agreement."""
    return Answer("Agreement on HER2", _text(found), tuple(_tables(found)), dict(_figures(found)))


_RATERS = (text_column("rater_a", "First rater."), text_column("rater_b", "Second rater."))
_SCHEME = text_column("scheme", "four tiers (0 to 3+) or five (0 split into null and ultralow).")
_MEASURES = (
    count_column("n", "Slides."),
    count_column("n_patients", "Patients of these slides."),
    *estimate_columns("agreement", "Overall agreement", "fraction"),
    *estimate_columns("kappa_linear", "Cohen's kappa, linear weights"),
    *estimate_columns("kappa_quadratic", "Cohen's kappa, quadratic weights"),
)


def _tables(found: Agreement) -> Iterable[ResultTable]:
    yield ResultTable(
        "counts",
        "What became of every slide with a rater; 0 is a zero not split into null and ultralow.",
        (
            text_column("rater", "Reader or machine."),
            text_column("kind", "reader, assisted reader or machine."),
            text_column("level", "Level given; else why there is none: indeterminate, failed, not read, ..."),
            count_column("n", "Slides."),
        ),
        [
            {"rater": r, "kind": k, "level": level, "n": n}
            for r, k, levels in found.counts
            for level, n in levels.items()
        ],
    )
    yield ResultTable(
        "pairs",
        "Every two raters: agreement and weighted kappas on slides that both gave a level.",
        (
            *_RATERS,
            _SCHEME,
            *_MEASURES,
        ),
        [{"rater_a": p.a, "rater_b": p.b, "scheme": p.scheme} | _measures(p) for p in found.pairs],
    )
    yield ResultTable(
        "confusion",
        "How often one rater gave one level and the other another.",
        (
            *_RATERS,
            _SCHEME,
            text_column("level_a", "Level by the first."),
            text_column("level_b", "Level by the second."),
            count_column("n", "Slides."),
        ),
        [
            {
                "rater_a": p.a,
                "rater_b": p.b,
                "scheme": p.scheme,
                "level_a": x,
                "level_b": y,
                "n": int(p.matrix[i, j]),
            }
            for p in found.pairs
            for i, x in enumerate(SCHEMES[p.scheme][0])
            for j, y in enumerate(SCHEMES[p.scheme][0])
        ],
    )
    yield ResultTable(
        "cuts",
        "Agreement of a rater with the reference at each cut: above it or not.",
        (
            text_column("reference", "Whose levels count as true."),
            text_column("rater", "Who is compared with it."),
            text_column("cut", "The two levels between which the cut lies."),
            count_column("n", "Slides on a known side by both."),
            count_column("unsplit", "Slides left out because a 0 was not split into null and ultralow."),
            *estimate_columns("opa", "Overall percent agreement", "fraction"),
            count_column("n_positive", "Slides above the cut by the reference."),
            *estimate_columns("ppa", "Positive percent agreement", "fraction"),
            count_column("n_negative", "Slides below the cut by the reference."),
            *estimate_columns("npa", "Negative percent agreement", "fraction"),
        ),
        [
            {"reference": c.reference, "rater": c.rater, "cut": c.cut, "n": c.overall.n, "unsplit": c.unsplit}
            | spread("opa", c.overall)
            | {"n_positive": c.positive.n}
            | spread("ppa", c.positive)
            | {"n_negative": c.negative.n}
            | spread("npa", c.negative)
            for c in found.cuts
        ],
    )
    yield ResultTable(
        "ultralow_as_null",
        "What raters call the slides that the reference calls ultralow; the rate is of those that the rater "
        "split.",
        (
            text_column("reference", "Whose levels count as true."),
            text_column("rater", "Who is compared with it."),
            count_column(
                "n", "Slides that the reference calls ultralow and the rater gave a level with a split 0."
            ),
            *estimate_columns("read_as_null", "Share that the rater calls null", "fraction"),
            count_column("unsplit", "Of the reference's ultralow slides, those that the rater called 0."),
        ),
        [
            {"reference": u.reference, "rater": u.rater, "n": u.null.n, "unsplit": u.called.get("0", 0)}
            | spread("read_as_null", u.null)
            for u in found.ultralow
        ],
    )
    yield ResultTable(
        "panels",
        "Several raters at once, on slides to which all of them gave a level.",
        (
            text_column("panel", "readers, readers with assistance, or machines."),
            _SCHEME,
            count_column("raters", "How many."),
            text_column("absent", "Raters who gave too few levels to be in it; empty if none."),
            count_column("n", "Slides with a level of every rater."),
            count_column("left_out", "Slides that one of them gave no level."),
            *estimate_columns("fleiss_kappa", "Fleiss' kappa"),
            *estimate_columns("icc", "ICC(2,1), absolute agreement, levels as 0, 1, 2, ..."),
            *estimate_columns("all_agree", "Share of slides on which all agree", "fraction"),
        ),
        [
            {"panel": p.name, "scheme": p.scheme, "raters": len(p.raters), "n": p.n, "left_out": p.left_out}
            | {"absent": "; ".join(p.absent) or None}
            | spread("fleiss_kappa", p.fleiss)
            | spread("icc", p.icc)
            | spread("all_agree", p.agree_all)
            for p in found.panels
        ],
    )
    yield ResultTable(
        "onest",
        "Chance that so many raters of a panel all agree, over all choices of them (ONEST).",
        (
            text_column("panel", "Which raters."),
            _SCHEME,
            count_column("raters", "How many of them."),
            *estimate_columns("agreement", "Share of slides on which these agree", "fraction"),
        ),
        [
            {"panel": p.name, "scheme": p.scheme, "raters": k} | spread("agreement", value)
            for p in found.panels
            for k, value in p.onest
        ],
    )
    yield ResultTable(
        "levels_all_agree",
        "Of the slides that at least one rater of a panel gave a level, those on which all agree.",
        (
            text_column("panel", "Which raters."),
            _SCHEME,
            text_column("level", "The level."),
            count_column("n", "Slides that at least one rater gave it."),
            *estimate_columns("all_agree", "Share on which all raters gave it", "fraction"),
        ),
        [
            {"panel": p.name, "scheme": p.scheme, "level": level, "n": value.n} | spread("all_agree", value)
            for p in found.panels
            for level, value in p.by_level.items()
        ],
    )
    yield ResultTable(
        "leave_one_out",
        "Each reader, and each machine in that reader's place, against the majority of the other readers "
        "(four tiers).",
        (
            text_column("rater", "Who is compared."),
            text_column("without", "The reader whom the majority is without."),
            count_column("no_majority", "Slides of which the others have no majority."),
            *_MEASURES,
        ),
        [
            {"rater": o.rater, "without": o.without, "no_majority": o.no_majority} | _measures(o.pair)
            for o in found.left_out
        ],
    )
    yield ResultTable(
        "intra_reader",
        "A reader's second read of a slide against the first.",
        (
            text_column("reader", "Who read twice."),
            Column("washed_out", FLAG, "", "Whether two weeks or more lie between; null without dates."),
            text_column("modalities", "Modalities of first and second read."),
            _SCHEME,
            *_MEASURES,
        ),
        [
            {
                "reader": i.reader,
                "washed_out": i.washed_out,
                "modalities": "; ".join(i.modalities),
                "scheme": i.pair.scheme,
            }
            | _measures(i.pair)
            for i in found.intra
        ],
    )
    yield ResultTable(
        "cap_validation",
        f"Repeated reads beside what a validation requires: {CAP_SOURCE}.",
        (
            text_column("requirement", "The requirement."),
            text_column("found", "What these reads have."),
            Column("met", FLAG, "", "Whether it is met; null where these tables cannot show it."),
        ),
        [{"requirement": c.requirement, "found": c.found, "met": c.met} for c in found.cap],
    )
    yield anchor_table(AGREEMENT)


def _measures(p: Pair) -> dict[str, Any]:
    """Cells of `_MEASURES`."""
    return (
        {"n": p.n, "n_patients": p.n_patients}
        | spread("agreement", p.agreement)
        | spread("kappa_linear", p.linear)
        | spread("kappa_quadratic", p.quadratic)
    )


# --- words --------------------------------------------------------------------------------------------------


def _rate(value: Estimate) -> str:
    if not value.n:
        return "–"
    return f"{percent(value.value)} ({interval(value.low, value.high, 1, 100)}; n {value.n})"


def _text(found: Agreement) -> str:
    parts = ["# Agreement on HER2", RESEARCH_ONLY, _who(found)]
    parts += ["## What became of the slides", _counts(found)]
    if found.pairs:
        parts += [f"## Against the reference: {found.reference}", f"The reference is {found.reference_note}."]
        if found.no_reference:
            parts.append(
                f"Without a majority, so without a reference and in no rate: "
                f"{counted(found.no_reference, 'slide')}."
            )
        if found.reference == MAJORITY:
            parts.append(
                "Every reader is also one of the majority, and so looks better here than beside the others "
                "alone; see *Leaving one reader out*."
            )
        parts += [
            _pairs(found),
            "### At each cut",
            _cuts(found),
            "### Ultralow read as null",
            _ultralow(found),
        ]
    else:
        parts.append("No two raters gave a level to the same slide: nothing can be compared.")
    if found.panels:
        parts += ["## Several raters at once", _panels(found.panels)]
    if found.left_out:
        parts += ["## Leaving one reader out", _left_out(found)]
    if found.intra:
        parts += ["## Readers against themselves", _intra(found)]
    parts += [
        "## Is this a validation by CAP's sizes?",
        _cap(found),
        "## Published figures",
        anchor_text(AGREEMENT),
    ]
    parts += [
        "## How this was computed",
        f"Intervals are 95 %, percentiles of {REPLICATES} draws of patients with their slides; where all or "
        f"no slides agree, Wilson's interval with a patient as one trial. Fewer than {MIN_PATIENTS} "
        "patients give no interval. Kappas state their weights. Of several reads by one person the "
        "first counts; later ones are compared with it alone. A slide without a score is in the counts and "
        "in no rate. Agreement with a reader is not accuracy, and low and ultralow are no result "
        "categories of ASCO/CAP.",
    ]
    return "\n\n".join(parts) + "\n"


def _who(found: Agreement) -> str:
    reads = found.reads
    patients = len(set(reads.patients.values()))
    people = ", ".join(reads.people) or "none"
    return (
        f"{counted(len(reads.patients), 'IHC slide')} of {counted(patients, 'patient')}. Readers: {people}. "
        f"Machines: {', '.join(reads.machines) or 'none'}."
    )


def _counts(found: Agreement) -> str:
    levels = (*FIVE, "0")
    others = sorted({x for *_, counts in found.counts for x in counts if x not in levels})
    names = ("rater", "kind", *("0, not split" if x == "0" else x for x in levels), *others)
    return markdown(
        names, [(r, k, *(str(c.get(x, 0)) for x in (*levels, *others))) for r, k, c in found.counts]
    )


def _pairs(found: Agreement) -> str:
    rows = [
        (
            p.b if p.a == found.reference else p.a,
            p.scheme,
            str(p.n),
            _rate(p.agreement),
            estimated(p.linear),
            estimated(p.quadratic),
        )
        for p in found.pairs
        if found.reference in (p.a, p.b)
    ]
    others = sum(found.reference not in (p.a, p.b) for p in found.pairs)
    table = markdown(("rater", "scheme", "n", "agreement", "linear κ", "quadratic κ"), rows)
    return table + (f"\n\n`pairs.csv` has {counted(others, 'more comparison')}." if others else "")


def _cuts(found: Agreement) -> str:
    rows = [
        (
            c.rater,
            c.cut.replace("|", " | "),
            _rate(c.overall),
            _rate(c.positive),
            _rate(c.negative),
            str(c.unsplit),
        )
        for c in found.cuts
    ]
    return markdown(("rater", "cut", "OPA", "PPA", "NPA", "0 not split"), rows)


def _ultralow(found: Agreement) -> str:
    rows = [
        (u.rater, str(sum(u.called.values())), _rate(u.null), str(u.called.get("0", 0)))
        for u in found.ultralow
    ]
    if not any(u.called for u in found.ultralow):
        return "The reference calls no slide ultralow that another rater gave a level: no figure."
    return (
        markdown(("rater", "ultralow by the reference", "read as null", "read as 0, not split"), rows)
        + "\n\nPublished: 29.5 % by pathologists alone, 4.0 % with assistance (ASCO 2025)."
    )


def _panels(panels: Sequence[Panel]) -> str:
    rows = [
        (
            p.name,
            p.scheme,
            str(len(p.raters)),
            str(p.n),
            str(p.left_out),
            _rate(p.agree_all),
            estimated(p.fleiss),
            estimated(p.icc),
        )
        for p in panels
    ]
    names = ("panel", "scheme", "raters", "slides", "left out", "all agree", "Fleiss' κ", "ICC(2,1)")
    absent = dict.fromkeys(f"{rater} ({p.scheme})" for p in panels for rater in p.absent)
    note = (
        f"\n\nIn no panel, with a level of fewer than {PANEL_SHARE:.0%} of the slides of the busiest rater: "
        f"{', '.join(absent)}."
        if absent
        else ""
    )
    return (
        markdown(names, rows)
        + note
        + "\n\nThat all agree becomes rarer with every rater: compare it with the published 28.8 % of 18 "
        "readers only along the ONEST curve (`onest.csv`)."
    )


def _left_out(found: Agreement) -> str:
    rows = [
        (o.rater, o.without, str(o.pair.n), _rate(o.pair.agreement), estimated(o.pair.quadratic))
        for o in found.left_out
    ]
    return markdown(("rater", "majority without", "n", "agreement", "quadratic κ"), rows)


def _intra(found: Agreement) -> str:
    washed = {True: "yes", False: "no", None: "no dates"}
    rows = [
        (
            i.reader,
            washed[i.washed_out],
            i.pair.scheme,
            str(i.pair.n),
            _rate(i.pair.agreement),
            estimated(i.pair.quadratic),
        )
        for i in found.intra
    ]
    return markdown(("reader", "two weeks apart", "scheme", "n", "agreement", "quadratic κ"), rows)


def _cap(found: Agreement) -> str:
    met = {True: "met", False: "**not met**", None: "unknown"}
    table = markdown(("required", "found", ""), [(c.requirement, c.found, met[c.met]) for c in found.cap])
    all_met = all(c.met is not False for c in found.cap)
    verdict = (
        "These reads have the size that the guideline requires."
        if all_met
        else "**These reads are no validation by these sizes.**"
    )
    return (
        f"{verdict} The guideline is on one reader's glass and digital reads ({CAP_SOURCE}), "
        f"and sets no sizes for machines.\n\n{table}"
    )


# --- figures ------------------------------------------------------------------------------------------------


def _figures(found: Agreement) -> Iterable[tuple[str, bytes]]:
    machines = found.reads.machines
    shown = [p for p in found.pairs if found.reference in (p.a, p.b)]
    shown.sort(key=lambda p: not {p.a, p.b} & set(machines))
    for scheme in SCHEMES:
        of = [p for p in shown if p.scheme == scheme][:6]
        if of:
            yield f"confusion_{scheme.replace(' ', '_')}", png_bytes(_confusions(of, found.reference))
    if shown:
        yield "kappas", png_bytes(_forest(shown, found.reference))
    if any(len(p.raters) > 2 for p in found.panels):
        yield "onest", png_bytes(_onest([p for p in found.panels if len(p.raters) > 2]))


def _confusions(pairs: Sequence[Pair], reference: str) -> Figure:
    across = min(len(pairs), 3)
    down = -(-len(pairs) // across)
    figure = Figure((3.6 * across + 0.4, 3.9 * down + 0.2), dpi=100, layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes in grid[len(pairs) :]:
        axes.set_axis_off()
    for axes, p in zip(grid, pairs, strict=False):
        names = SCHEMES[p.scheme][0]
        matrix, other = (p.matrix, p.b) if p.a == reference else (p.matrix.T, p.a)
        share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1.15)
        for i, j in np.ndindex(matrix.shape):
            axes.text(
                j, i, str(matrix[i, j]), ha="center", va="center", color="white" if share[i, j] > 0.6 else INK
            )
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel(other, parse_math=False)
        axes.set_ylabel("majority of readers" if reference == MAJORITY else reference, parse_math=False)
        axes.set_title(f"{p.scheme}, n {p.n}", fontsize=10)
    return figure


def _forest(pairs: Sequence[Pair], reference: str) -> Figure:
    rows = [(p.b if p.a == reference else p.a, p) for p in pairs]
    figure = Figure((7.5, 1.3 + 0.32 * len(rows)), dpi=100, layout="constrained")
    axes = figure.subplots()
    for place, (_name, p) in enumerate(reversed(rows)):
        value = p.quadratic
        colour = COLOURS[list(SCHEMES).index(p.scheme)]
        if np.isfinite(value.low):
            axes.plot([value.low, value.high], [place, place], color=colour, lw=2)
        axes.plot([value.value], [place], "o", color=colour)
    axes.set_yticks(range(len(rows)), [f"{name}, {p.scheme}, n {p.n}" for name, p in reversed(rows)])
    axes.set_xlabel(f"quadratic-weighted κ with {reference}", parse_math=False)
    low = min([0.0, *(p.quadratic.low for _, p in rows if np.isfinite(p.quadratic.low))])
    axes.set_xlim(max(low, -1) - 0.02, 1.02)
    axes.grid(axis="x", color="#DDDDDD")
    return figure


def _onest(panels: Sequence[Panel]) -> Figure:
    figure = Figure((6.5, 4.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    for colour, p in zip(COLOURS, panels, strict=False):
        k = [x for x, _ in p.onest]
        axes.plot(
            k, [100 * v.value for _, v in p.onest], "o-", color=colour, label=f"{p.name}, {p.scheme}, n {p.n}"
        )
        axes.fill_between(
            k,
            [100 * v.low for _, v in p.onest],
            [100 * v.high for _, v in p.onest],
            color=colour,
            alpha=0.15,
            lw=0,
        )
    axes.set_xticks(sorted({k for p in panels for k, _ in p.onest}))
    axes.set_xlabel("readers")
    axes.set_ylabel("slides on which all agree, %")
    axes.set_ylim(0, 100)
    axes.grid(color="#DDDDDD")
    axes.legend(frameon=False, fontsize=9)
    return figure
