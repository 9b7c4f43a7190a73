"""The picture of a cohort: its specimens, positive ones first, with their class, cells, ratio and copies.

The bar of a specimen is stacked from the strongest class on, so that its edges are the percentages that rules
look at: 3+, 2+ or more, any stain. Every number has its 95 % interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

from her2core.guidelines.rules_case import HER2_CLASSES, STATUSES
from her2core.guidelines.rules_ihc import CellClass
from her2core.pictures.canvas import CLASS_MEANING, DPI, INK, heading, png_bytes, shortened
from her2core.pictures.colours import CLASS_COLOURS, HER2_CLASS_COLOURS, ink_on
from her2core.pictures.letters import Key, Legend, Words
from her2core.text import counted, joined_name

Row = dict[str, Any]
Reals = npt.NDArray[np.float64]

MOST_NAMED = 100
"""Specimens that are named and numbered; of more only the shapes are drawn."""
ROW_IN, CROWD_IN = 0.3, 12.0  # height of a named row; of all rows where there are more
NAME_IN, CHIP_IN, BAR_IN, AXIS_IN, NOTE_IN, GAP_IN = 2.3, 1.25, 4.6, 1.9, 1.6, 0.28
TOP_IN, BOTTOM_IN = 1.1, 0.95
PALE, MUTED, GRID = "#EEEEEE", "#666666", "#C8C8C8"
STACK = (CellClass.C3, CellClass.C2, CellClass.C2U, CellClass.C1, CellClass.C0)
COUNTS = ("n3", "n2", "n2u", "n1", "n0")
EDGES = ("p3", "p2", "p_any")
CUT_PCT = 10.0  # the cut-off of most scoring rules
RATIO = ("ish_ratio", "HER2/CEP17", (0.5, 8.0), (0.5, 1, 2, 4, 8), (2.0,))
COPIES = ("ish_her2_mean", "HER2 copies", (1.0, 16.0), (1, 2, 4, 6, 16), (4.0, 6.0))
"""Column, words, range, ticks and the cut-offs of the ISH rules."""
CHIP_WORDS = {
    "pos_IHC3": "3+",
    "pos_IHC2_ISHpos": "2+ / ISH+",
    "pos_ISH_only": "ISH+",
    "equivocal": "equivocal",
    "low_2plus": "low, 2+",
    "low_1plus": "low, 1+",
    "ultralow": "ultralow",
    "0_unresolved": "0, unresolved",
    "null": "null",
    "negative": "negative",
    "indeterminate": "indeterminate",
}
CHIPS = {name: (words, HER2_CLASS_COLOURS[name]) for name, words in CHIP_WORDS.items()} | {
    "indeterminate": ("indeterminate", PALE)
}
"""Words and colour of every class of a specimen."""
WAITS = {
    "PENDING_IHC": "waits for IHC",
    "PENDING_RECOUNT": "waits for a recount",
    "PENDING_DUAL_PROBE": "waits for a dual probe",
    "ADJUDICATE": "a person must judge",
}
LEAST_SHARE = 9.0  # percent of a bar that has space for its number
COLUMNS = (
    *("case_id", "specimen_id", "site", "her2_class", "her2_status", "score", "h_score", "reasons"),
    *("pending", "n_slides", "slides_indeterminate", "slides_failed", "slides_skipped"),
    *("ish_group", "ish_arm_source"),
    *COUNTS,
    *(f"{edge}_{end}_pct" for edge in EDGES for end in ("low", "high")),
    *(f"{name}{end}" for name, *_ in (RATIO, COPIES) for end in ("", "_low", "_high")),
)
"""What is looked at of the table ``cases``."""


def cohort_picture(cases: Sequence[Row]) -> bytes:
    """PNG of a cohort, one line a specimen.

    Parameters
    ----------
    cases
        Rows of the table ``cases``, in any order, with `COLUMNS` at least.
    """
    rows = sorted(cases, key=_rank)
    named, ish = len(rows) <= MOST_NAMED, any(row["ish_her2_mean"] is not None for row in rows)
    body = max(len(rows), 1) * ROW_IN if named else CROWD_IN
    wide = NAME_IN + CHIP_IN + BAR_IN + 4 * GAP_IN + NOTE_IN + (2 * (AXIS_IN + GAP_IN) if ish else 0)
    high = TOP_IN + body + BOTTOM_IN
    figure = Figure(figsize=(wide, high), dpi=DPI, facecolor="white")

    def panel(left: float, width: float) -> Axes:
        axes = figure.add_axes((left / wide, BOTTOM_IN / high, width / wide, body / high))
        axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
        axes.set_yticks([])
        axes.tick_params(labelsize=8, length=2, color=GRID)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(GRID)
        return axes

    left = GAP_IN + NAME_IN
    _chips(panel(left, CHIP_IN), rows, named=named)
    left += CHIP_IN + GAP_IN
    bars = panel(left, BAR_IN)
    _bars(bars, rows, named=named)
    left += BAR_IN + GAP_IN
    for column in (RATIO, COPIES) if ish else ():
        _dots(panel(left, AXIS_IN), rows, *column)
        left += AXIS_IN + GAP_IN
    if named:
        _words(panel(left, NOTE_IN), rows)
    _heading(figure, rows, wide)
    keys = [Key(CLASS_COLOURS[kind], CLASS_MEANING[kind]) for kind in STACK]
    Legend(figure, keys, (wide / 2, 0.16), 8.5, len(keys), centred=True, apart=1.4, pad=0.8)
    return png_bytes(figure)


def _rank(row: Row) -> tuple[int, float, float, str]:
    """Highest class first, within a class the more stained or amplified."""
    known = row["her2_class"] in HER2_CLASSES
    place = HER2_CLASSES.index(row["her2_class"]) if known else len(HER2_CLASSES)
    return place, -(row["h_score"] or 0.0), -(row["ish_her2_mean"] or 0.0), joined_name(row)


def _write(axes: Axes, x: float, y: float, text: str, points: float, colour: str, **how: Any) -> None:
    """Write a line at the height of a specimen."""
    words = Words(x, y, text, points, colour, up="center", **how)
    words.set_transform(axes.transData)
    axes.add_artist(words)


def _chips(axes: Axes, rows: Sequence[Row], *, named: bool) -> None:
    """The class of every specimen in words on its colour, and its name; of too many, how many a class has."""
    axes.set_xlim(0, 1)
    axes.axis("off")
    chips = [CHIPS.get(row["her2_class"], (row["her2_status"].lower(), PALE)) for row in rows]
    _boxes(axes, np.zeros(len(rows)), np.ones(len(rows)), [colour for _, colour in chips], named=named)
    if not named:
        for (words, _), count in Counter(chips).items():
            first = next(y for y, chip in enumerate(chips) if chip[0] == words)
            _write(axes, -0.06, first + (count - 1) / 2, f"{words}: {count:,}", 9, INK, across="right")
        return
    for y, (row, (words, colour)) in enumerate(zip(rows, chips, strict=True)):
        _write(axes, 0.5, y, words, 9, ink_on(colour), across="center", bold=True)
        _write(axes, -0.06, y, shortened(joined_name(row), 32), 9, INK, across="right")


def _bars(axes: Axes, rows: Sequence[Row], *, named: bool) -> None:
    """Tumour cells by class, strongest first, and the intervals of the edges."""
    axes.set_xlim(0, 100)
    axes.set_xlabel("tumour cells, %", fontsize=8.5, color=MUTED)
    counts = np.array([[row[name] for name in COUNTS] for row in rows], float).reshape(-1, len(COUNTS))
    evaluable = counts.sum(axis=1) > 0
    edges = 100 * np.cumsum(counts, axis=1) / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    starts = np.concatenate([np.zeros((len(rows), 1)), edges[:, :-1]], axis=1)
    for k, kind in enumerate(STACK):
        _boxes(axes, starts[:, k], edges[:, k], [CLASS_COLOURS[kind]] * len(rows), named=named)
    _boxes(axes, np.zeros(len(rows)), 100.0 * ~evaluable, [PALE] * len(rows), named=named)
    axes.axvline(CUT_PCT, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
    if not named:
        return
    for y, k in zip(*np.nonzero(edges - starts >= LEAST_SHARE), strict=True):
        middle, share = (starts[y, k] + edges[y, k]) / 2, edges[y, k] - starts[y, k]
        ink = ink_on(CLASS_COLOURS[STACK[k]])
        _write(axes, middle, y, f"{share:.0f} %", 8, ink, across="center")
    for y, row in enumerate(rows):
        if not evaluable[y]:
            _write(axes, CUT_PCT + 2, y, _without(row), 8.5, MUTED)
            continue
        spans = [[(row[f"{edge}_low_pct"], y), (row[f"{edge}_high_pct"], y)] for edge in EDGES]
        axes.add_collection(LineCollection(spans, colors="white", linewidths=3.6), autolim=False)
        axes.add_collection(LineCollection(spans, colors=INK, linewidths=1.6), autolim=False)


def _without(row: Row) -> str:
    """Why there are no cells."""
    return ", ".join(row["reasons"]) if row["slides_indeterminate"] else "no IHC that can be read"


def _dots(
    axes: Axes,
    rows: Sequence[Row],
    name: str,
    words: str,
    span: tuple[float, float],
    ticks: Sequence[float],
    cuts: Sequence[float],
) -> None:
    """One number of ISH with its interval, on a logarithmic scale; beyond the scale drawn at its end."""
    axes.set_xscale("log")
    axes.set_xlim(*span)
    axes.set_xlabel(words, fontsize=8.5, color=MUTED)
    axes.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    for cut in cuts:
        axes.axvline(cut, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
    if len(rows) <= MOST_NAMED:
        axes.hlines(range(len(rows)), *span, color=PALE, linewidth=0.8)
    known = [(y, row) for y, row in enumerate(rows) if row[name] is not None]
    lines = [[(row[name + end], y) for end in ("_low", "_high")] for y, row in known]
    clipped = np.clip(np.array(lines, float).reshape(-1, 2, 2), (span[0], 0), (span[1], len(rows)))
    axes.add_collection(LineCollection(list(clipped), colors=INK, linewidths=1.6), autolim=False)
    points = np.clip([row[name] for _, row in known], *span)
    axes.scatter(
        points,
        [y for y, _ in known],
        s=22 if len(rows) <= MOST_NAMED else 3,
        color=INK,
        zorder=3,
        clip_on=False,
        linewidths=0,
    )


def _words(axes: Axes, rows: Sequence[Row]) -> None:
    """Scores, and what is open, in words."""
    axes.set_xlim(0, 1)
    axes.axis("off")
    for y, row in enumerate(rows):
        words = [f"IHC {row['score']}" if row["score"] else "", _group(row["ish_group"])]
        if (row["ish_arm_source"] or "").startswith("external"):
            words.append("ISH reported")
        if row["pending"]:
            words.append(WAITS[row["pending"]])
        if missing := len(row["slides_failed"]) + len(row["slides_skipped"]):
            words.append(f"{missing} of {row['n_slides']} slides missing")
        text = shortened(", ".join(filter(None, words)) or "–", 34)
        _write(axes, 0, y, text, 8.5, INK)


def _group(group: str | None) -> str:
    if group is None:
        return ""
    if group.startswith("single_"):
        return group.replace("_", " probe ")
    return f"ISH group {group}" if group.isdigit() else f"ISH {group.replace('_', ' ')}"


def _boxes(axes: Axes, left: Reals, right: Reals, colours: Sequence[str], *, named: bool) -> None:
    """One box a row from ``left`` to ``right``; those of no width are left out."""
    wide = np.flatnonzero(right > left)
    half = 0.4 if named else 0.5
    low, high = wide - half, wide + half
    corners = [(left[wide], low), (right[wide], low), (right[wide], high), (left[wide], high)]
    boxes = np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)
    axes.add_collection(
        PolyCollection(list(boxes), facecolors=[colours[k] for k in wide.tolist()], linewidths=0),
        autolim=False,
    )


def _heading(figure: Figure, rows: Sequence[Row], wide: float) -> None:
    found = Counter(row["her2_status"] for row in rows)
    states = [f"{found[status]:,} {status.lower()}" for status in STATUSES if found[status]]
    title = f"HER2 of {counted(len(rows), 'specimen')}"
    line = [*states, "black: 95 % intervals", "dashed: cut-offs of the rules"]
    heading(figure, GAP_IN / wide, title, "   ·   ".join(line))
