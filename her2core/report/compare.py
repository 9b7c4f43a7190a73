"""What changed between two runs: slides and specimens with another result, and their distributions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from her2core.errors import ConfigError
from her2core.params import RENAMED
from her2core.report.build import FOLDER, data_folder, run_facts, vocabulary
from her2core.report.data_files import table_of, write_tables
from her2core.report.page import assemble, columns, rounded
from her2core.report.run_tables import Row, RunTables, read_run, specimen_key
from her2core.report.slides import class_words, how_far
from her2core.report.specimens import specimen_name
from her2core.report.words import HER2_CLASSES, ISH_GROUPS, NO_CLASS, STAGES, STATES
from her2core.scoring.tumour import load_model
from her2core.storage.store import Store

SCRIPTS = ("page.js", "figures.js", "paged.js", "compare.js")
TUMOUR_MODEL = "ihc_score.tumour_model"
"""Setting that may hold a whole model."""
RESULTS = ("state", "her2_class", "score", "ish_group")
"""What of a slide is its result."""
CALLS = ("her2_status", "her2_class", "score", "ish_group")
"""What of a specimen is its result."""
NUMBERS = {
    "membrane_od_mean": "membrane OD",
    "p_any_pct": "stained %",
    "p2_pct": "≥2+ %",
    "p3_pct": "3+ %",
    "h_score": "H-score",
    "n_scored": "tumour cells",
    "ish_ratio": "HER2/CEP17",
    "ish_her2_mean": "HER2 copies",
}
"""Measures of a slide whose differences are shown."""
_CHANGE = ("what", "name", "change", "before", "after")
_SETTING = ("kind", "name", "before", "after")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison that was written: addresses of its page and data, and how much changed."""

    uri: str
    data_uri: str
    size_bytes: int
    slides_changed: int
    specimens_changed: int


def write_comparison(
    before: tuple[Store, str | None], after: tuple[Store, str | None], into: Store | None = None
) -> Comparison:
    """Write the page that compares two runs, and its data beside it.

    Parameters
    ----------
    before, after
        Outputs and runs; None for the last of an output.
    into
        Folder for the page and its data; ``report/AFTER/against-BEFORE`` of the later output if None.

    Raises
    ------
    ConfigError
        If an output holds no such run.
    """
    first, second = read_run(*before), read_run(*after)
    tables = comparison_tables(first, second)
    page = comparison_page(first, second, tables)
    target = after[0] if into is None else into
    folder = f"{FOLDER}/{second.run_id}/against-{first.run_id}/" if into is None else ""
    name = f"her2-compare-{first.run_id}-{second.run_id}.html"
    data = f"{folder}{data_folder(name, into is None)}"
    write_tables(target, data, tables)
    path = f"{folder}{name}"
    target.write_bytes(path, page)
    changed = Counter(row["what"] for row in tables["changes"].to_pylist())
    return Comparison(target.uri(path), target.uri(data), len(page), changed["slide"], changed["specimen"])


def comparison_tables(before: RunTables, after: RunTables) -> dict[str, pa.Table]:
    """The tables of a comparison, by the name of their files."""
    return {
        "changes": table_of(
            [*slide_changes(before, after), *specimen_changes(before, after)], _CHANGE, pa.string()
        ),
        "transitions": table_of(transitions(before, after), ("before", "after", "specimens")),
        "numbers": table_of(number_changes(before, after), ("slide_id", *NUMBERS)),
        "distributions": table_of(
            distributions(before, after), ("of", "value", "meaning", "before", "after")
        ),
        "settings": table_of(setting_changes(before.run, after.run), _SETTING, pa.string()),
    }


def slide_changes(before: RunTables, after: RunTables) -> list[Row]:
    """Slides with another result, or in one of the runs alone."""
    return _changes("slide", before.slides, after.slides, _slide_id, _slide_id, RESULTS)


def specimen_changes(before: RunTables, after: RunTables) -> list[Row]:
    """Specimens with another result, or in one of the runs alone."""
    return _changes("specimen", before.cases, after.cases, specimen_key, specimen_name, CALLS)


def _slide_id(row: Row) -> str:
    return str(row["slide_id"])


def _changes(
    what: str,
    before: Iterable[Row],
    after: Iterable[Row],
    key: Callable[[Row], Any],
    name: Callable[[Row], str],
    results: Sequence[str],
) -> list[Row]:
    old, new = ({key(row): row for row in rows} for rows in (before, after))
    found = []
    for which in sorted(old.keys() | new.keys()):
        one, other = old.get(which), new.get(which)
        if one is not None and other is not None:
            differ = [result for result in results if one[result] != other[result]]
            change = ", ".join(_result_words(result) for result in differ)
        else:
            change = "gone" if other is None else "new"
        if change:
            named = other or one or {}
            texts = [None if row is None else _in_words(row, results) for row in (one, other)]
            found.append(
                {"what": what, "name": name(named), "change": change, "before": texts[0], "after": texts[1]}
            )
    return found


def _result_words(result: str) -> str:
    return {"her2_status": "status", "her2_class": "class", "ish_group": "ISH group", "score": "IHC"}.get(
        result, result
    )


def _in_words(row: Row, results: Sequence[str]) -> str:
    """A result in words, as ``Positive, positive, IHC 3+``; a score that its class names is not repeated."""
    score = row["score"] and f"IHC {row['score']}"
    named = row["her2_class"] and class_words(row["her2_class"])
    words = {
        "state": None if row.get("state") in (None, "scored") else STATES[row["state"]],
        "her2_status": row.get("her2_status"),
        "her2_class": named,
        "score": None if named and score and score in named else score,
        "ish_group": row["ish_group"] and f"ISH {ISH_GROUPS.get(row['ish_group'], row['ish_group'])}",
    }
    return ", ".join(str(words[result]) for result in results if words[result])


def transitions(before: RunTables, after: RunTables) -> list[Row]:
    """Specimens of both runs by their class before and after, in the order of the classes."""
    old = {specimen_key(case): case for case in before.cases}
    counts = Counter(
        (old[specimen_key(case)]["her2_class"] or NO_CLASS, case["her2_class"] or NO_CLASS)
        for case in after.cases
        if specimen_key(case) in old
    )
    order = [*HER2_CLASSES, NO_CLASS]
    rows = [{"before": one, "after": other, "specimens": n} for (one, other), n in counts.items()]
    return sorted(rows, key=lambda row: (order.index(row["before"]), order.index(row["after"])))


def number_changes(before: RunTables, after: RunTables) -> list[Row]:
    """Later less earlier of every measure, of the slides that both runs measured."""
    old = {row["slide_id"]: row for row in before.slides}
    rows = []
    for row in after.slides:
        was = old.get(row["slide_id"])
        if was is not None:
            rows.append(
                {"slide_id": row["slide_id"]} | {name: _less(row[name], was[name]) for name in NUMBERS}
            )
    return rows


def _less(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else float(after) - float(before)


def distributions(before: RunTables, after: RunTables) -> list[Row]:
    """Counts of the two runs side by side: how far slides came, and what specimens are."""
    rows: list[Row] = []
    sides = [_counts(before), _counts(after)]
    for of, words in _VALUES.items():
        known = [*words, *sorted({value for side in sides for value in side[of]} - words.keys())]
        for value in known:
            counts = [side[of][value] for side in sides]
            if any(counts):
                rows.append(
                    {"of": of, "value": value, "meaning": words.get(value, value)}
                    | dict(zip(("before", "after"), counts, strict=True))
                )
    return rows


_VALUES: dict[str, Mapping[str, str]] = {
    "slides": {stage: stage for stage in STAGES},
    "HER2 class": HER2_CLASSES,
    "IHC score": {score: f"IHC {score}" for score in ("3+", "2+", "1+", "0")},
    "ISH group": ISH_GROUPS,
}


def _counts(tables: RunTables) -> dict[str, Counter[str]]:
    cases = {specimen_key(case): case for case in tables.cases}
    return {
        "slides": Counter(STAGES[how_far(row, cases.get(specimen_key(row)))[0]] for row in tables.slides),
        "HER2 class": Counter(case["her2_class"] or NO_CLASS for case in tables.cases),
        "IHC score": Counter(case["score"] or "none" for case in tables.cases),
        "ISH group": Counter(case["ish_group"] or "none" for case in tables.cases),
    }


def setting_changes(before: Row, after: Row) -> list[Row]:
    """Settings and versions that differ; of a run's own settings, which change no result, none."""
    rows = []
    for kind, column in (("setting", "configuration"), ("version", "versions")):
        old, new = (_flat(_renamed(json.loads(run[column]))) for run in (before, after))
        rows += [
            {"kind": kind, "name": name, "before": old.get(name), "after": new.get(name)}
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name) and not name.startswith("run.")
        ]
    return rows


def _renamed(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of a configuration by their names of today."""
    return {RENAMED.get(name, name): section for name, section in sections.items()}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            found |= _flat(inner, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = inner if isinstance(inner, str) else json.dumps(inner)
    if found.get(TUMOUR_MODEL, "").startswith("{"):
        with suppress(ConfigError):  # of another version: shown as it is
            found[TUMOUR_MODEL] = load_model(found[TUMOUR_MODEL]).label
    return found


def comparison_page(before: RunTables, after: RunTables, tables: Mapping[str, pa.Table]) -> bytes:
    """The page of two runs."""
    numbers = tables["numbers"].to_pylist()
    data = {
        "report": {
            "before": run_facts(before.run),
            "after": run_facts(after.run),
            "vocabulary": vocabulary() | {"numbers": NUMBERS},
            "numbers": columns(numbers, ("slide_id", *NUMBERS)),
            **{
                name: [
                    {key: rounded(value) for key, value in row.items()} for row in tables[name].to_pylist()
                ]
                for name in ("changes", "transitions", "distributions", "settings")
            },
        }
    }
    title = f"HER2 runs {before.run_id} and {after.run_id} compared"
    return assemble("compare.html", "HER2 runs compared", title, SCRIPTS, data)
