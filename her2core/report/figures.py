"""The table behind every figure of the report, over the whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from her2core.report import batches, quality
from her2core.report.coverage import ITEMS, Linked, combinations, coverage
from her2core.report.data_files import table_of
from her2core.report.run_tables import MEASURES, Row, RunTables, patient_key, specimen_key
from her2core.report.slides import ASKED, slide_views
from her2core.report.specimens import KINDS, STEPS, TAKEN, specimen_views
from her2core.report.words import HER2_CLASSES, ISH_GROUPS, STAGE_MEANING, STAGES


@dataclass(frozen=True, slots=True)
class Views:
    """What the page and the data files are made of.

    Attributes
    ----------
    slides, specimens
        `slide_views` and `specimen_views`.
    items, covered
        What a specimen may have, and `coverage` of the specimens.
    quality, batches
        `quality_rows` and `batch_tests`.
    """

    tables: RunTables
    slides: tuple[Row, ...]
    specimens: tuple[Row, ...]
    items: tuple[str, ...]
    covered: list[list[bool]]
    quality: list[Row]
    batches: list[Row]


def views(tables: RunTables, linked: Mapping[str, Linked] | None = None) -> Views:
    """Everything that is derived from a run's tables, and from those beside it."""
    return Views(
        tables=tables,
        slides=slide_views(tables),
        specimens=specimen_views(tables),
        items=(*ITEMS, *(linked or {})),
        covered=coverage(tables, linked),
        quality=quality.quality_rows(tables.slides),
        batches=batches.batch_tests(tables.slides),
    )


def figure_tables(of: Views) -> dict[str, pa.Table]:
    """The tables behind the figures, by the name of their files."""
    slides, specimens = of.slides, of.specimens
    return {
        "slides": table_of([_slide_row(row) for row in slides]),
        "specimens": table_of([_specimen_row(row) for row in specimens]),
        "funnel": table_of(funnel(slides)),
        "exclusions": table_of(exclusions(slides), ("stage", "why", "slides")),
        "her2_classes": table_of(counted(specimens, "her2_class", HER2_CLASSES)),
        "ihc_scores": table_of(counted(specimens, "score", {step: f"IHC {step}" for step in STEPS})),
        "ish_groups": table_of(counted(specimens, "ish_group", ISH_GROUPS)),
        "expression": table_of([_picked(row, _EXPRESSION) for row in slides], _EXPRESSION),
        "coverage": table_of(combinations(of.covered, of.items), ("specimens",)),
        "heterogeneity": table_of([_picked(row, _HETEROGENEITY) for row in slides], _HETEROGENEITY),
        "quality": table_of(
            of.quality, ("slide_id", "assay", "measure", "unit", "value", "score", "outlier")
        ),
        "batches": table_of([_batch_row(row) for row in of.tables.slides]),
        "batch_tests": table_of(of.batches, ("factor", "measure", "groups", "n", "effect", "p", "q")),
        "disagreements": table_of(
            [
                {"specimen": row["name"], "between": KINDS[kind], "what": words}
                for row in specimens
                for kind, words in row["disagreements"]
            ],
            ("specimen", "between", "what"),
        ),
        "reader_machine": table_of(reader_machine(slides), ("reader", "machine", "slides")),
    }


_EXPRESSION = ("slide_id", "assay", "score", "her2_class", "membrane_od_mean", "h_score", "p3_pct", "p2_pct",
               "p_any_pct", "completeness_mean", "ish_group", "ish_ratio", "ish_her2_mean")  # fmt: skip
_HETEROGENEITY = ("slide_id", "assay", "score", "ish_group", "membrane_od_mean", "ish_her2_mean", *MEASURES)


def funnel(slides: Sequence[Row]) -> list[Row]:
    """Slides, specimens and patients that reached each stage."""
    rows = []
    for at, (stage, meaning) in enumerate(zip(STAGES, STAGE_MEANING, strict=True)):
        reached = [row for row in slides if row["stage"] >= at]
        rows.append(
            {
                "stage": stage,
                "meaning": meaning,
                "slides": len(reached),
                "specimens": len({specimen_key(row) for row in reached}),
                "patients": len({patient_key(row) for row in reached}),
            }
        )
    return rows


def exclusions(slides: Sequence[Row]) -> list[Row]:
    """Why slides came no further, by the stage they reached, the commonest first."""
    counts = Counter((row["stage"], row["left"]) for row in slides if row["left"])
    ordered = sorted(counts.items(), key=lambda item: (item[0][0], -item[1], item[0][1]))
    return [{"stage": STAGES[stage], "why": why, "slides": count} for (stage, why), count in ordered]


def counted(rows: Sequence[Row], column: str, words: Mapping[str, str]) -> list[Row]:
    """How many rows have each value, also values without a row, and last how many have none."""
    counts = Counter(row[column] for row in rows)
    known = [*words, *sorted(value for value in counts if value is not None and value not in words)]
    found = [
        {"value": value, "meaning": words.get(value, value), "specimens": counts[value]} for value in known
    ]
    return [*found, {"value": None, "meaning": "none", "specimens": counts[None]}]


def reader_machine(slides: Sequence[Row]) -> list[Row]:
    """Slides by the score of the reader and of the machine, the 0 as far as it is split."""
    counts = Counter((row["reader"], row["machine"]) for row in slides if row["reader"] and row["machine"])
    return [
        {"reader": reader, "machine": machine, "slides": count}
        for (reader, machine), count in sorted(counts.items())
    ]


def _slide_row(row: Row) -> Row:
    return {
        **{name: row[name] for name in ASKED},
        "stage": STAGES[row["stage"]],
        "why": row["left"],
        "notes": "; ".join(row["notes"]),
        "message": row["message"],
    }


def _specimen_row(row: Row) -> Row:
    disagreements = [f"{KINDS[kind]}: {words}" for kind, words in row["disagreements"]]
    return {
        "name": row["name"],
        **{name: row[name] for name in TAKEN},
        "possible_scores": row["possible"],
        "review": row["review"],
        "why": "; ".join(row["why"]),
        "disagreements": "; ".join(disagreements),
        "reported_ish": "; ".join(row["elsewhere"]),
    }


def _picked(row: Row, names: Sequence[str]) -> Row:
    return {name: row[name] for name in names}


def _batch_row(row: Row) -> Row:
    groups = {factor.key: factor.group(row) for factor in batches.FACTORS}
    return {"slide_id": row["slide_id"]} | groups | {name: row.get(name) for name in batches.MEASURES}
