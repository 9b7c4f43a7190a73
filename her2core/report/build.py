"""The report of one run: the page, and the data behind its figures beside it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from her2core.lake.schema import HETEROGENEITY_WIDE
from her2core.pictures.colours import (
    CLASS_COLOURS,
    HER2_CLASS_COLOURS,
    ISH_COLOURS,
    OTHER_COLOUR,
    SCORE_COLOURS,
    STATUS_COLOURS,
)
from her2core.report import batches, quality
from her2core.report.coverage import Linked, outcomes, rna
from her2core.report.data_files import write_tables
from her2core.report.figures import Views, exclusions, figure_tables, funnel, views
from her2core.report.inlined import KINDS as PICTURES
from her2core.report.inlined import PICTURE_BYTES, Inlined, inline_pictures
from her2core.report.page import assemble, columns, rounded
from her2core.report.run_tables import MEASURES, Row, read_run
from her2core.report.slides import ASKED, INTERVALS, SHARES
from her2core.report.specimens import KINDS, STEPS, TAKEN, group_words
from her2core.report.words import HER2_CLASSES, ISH_GROUPS, NO_CLASS, STAGE_MEANING, STAGES
from her2core.storage.store import Store
from her2core.text import check_viewer

if TYPE_CHECKING:
    from her2core.analysis.rna import RnaValue
    from her2core.analysis.treatments import Line

FOLDER = "report"
"""Folder of the reports in a run's output."""
SCRIPTS = tuple(
    f"{name}.js"
    for name in ("page", "data", "figures", "paged", "tools", "charts", "tables", "cards", "report")
)
DATA = "data"
"""Folder of the tables beside the page; elsewhere than in the output it begins with the page's name, so that
pages of several runs stand in one folder with their own data."""
ISH_MEASURES = ("copies_cv", "amplified_ratio_arm")
_DIGEST = re.compile(r"manifest-[0-9a-f]{12}")
"""What stands in the place of a cohort's name where the configuration gives none."""
_SLIDE = (*ASKED, *SHARES, *INTERVALS, *MEASURES, "specimen_row", "stage", "left", "state_words", "notes",
          "message", "reader", "machine", "possible", "calibrated", "borderline", "ish_elsewhere",
          "preanalytic")  # fmt: skip
_SPECIMEN = (*TAKEN, "name", "class_words", "slide_rows", "called", "why", "possible", "elsewhere", "review",
             "disagreements")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was written.

    Attributes
    ----------
    path
        The page, relative to the store it was written to.
    uri, data_uri
        Full addresses of the page and of the folder of its data.
    size_bytes
        Of the page.
    n_pictured, n_thumbnails, n_full
        Slides that have pictures; those whose thumbnail, and whose pictures at full size, the page carries.
    linked
        What tables beside the run have of its specimens.
    """

    run_id: str
    path: str
    uri: str
    data_uri: str
    size_bytes: int
    n_pictured: int
    n_thumbnails: int
    n_full: int
    linked: Mapping[str, Linked] = field(default_factory=dict)


def page_name(run_id: str) -> str:
    """Name of the page of a run."""
    return f"her2-report-{run_id}.html"


def data_folder(page: str, own: bool) -> str:
    """Folder of the data beside a page, which has a folder of its ``own`` or shares one."""
    return DATA if own else f"{page.removesuffix('.html')}-{DATA}"


def page_path(run_id: str) -> str:
    """Where the page of a run lies in its output, by default."""
    return f"{FOLDER}/{run_id}/{page_name(run_id)}"


def write_report(
    store: Store,
    run_id: str | None = None,
    into: Store | None = None,
    picture_bytes: int = PICTURE_BYTES,
    lines: Sequence[Line] | None = None,
    values: Sequence[RnaValue] | None = None,
    viewer: str | None = None,
) -> Report:
    """Write the report of a run.

    Parameters
    ----------
    store
        Output of the run.
    run_id
        Which run; the last one that finished if None.
    into
        Folder for the page and its data; ``report/RUN`` of the output if None.
    picture_bytes
        Pictures at full size that the page carries; to others it refers by their place in the output.
    lines, values
        Lines of therapy and values of RNA of these patients, of which the page shows who has any.
    viewer
        Address of a viewer with ``{slide_id}`` in it, for links; that of the run's configuration if None.

    Raises
    ------
    ConfigError
        If the output holds no such run.
    """
    tables = read_run(store, run_id)
    linked = {} if lines is None else {"outcome": outcomes(tables, lines)}
    linked |= {} if values is None else {"RNA": rna(tables, values)}
    made = views(tables, linked)
    inlined = inline_pictures(store, tables.slides, review_order(made), picture_bytes)
    data = data_folder(page_name(tables.run_id), into is None)
    page = report_page(
        made, inlined, pictures_at="../../" if into is None else None, data=data, viewer=viewer
    )
    target = store if into is None else into
    folder = f"{FOLDER}/{tables.run_id}/" if into is None else ""
    write_tables(target, f"{folder}{data}", figure_tables(made))
    path = f"{folder}{page_name(tables.run_id)}"
    target.write_bytes(path, page)
    return Report(
        tables.run_id,
        path,
        target.uri(path),
        target.uri(f"{folder}{data}"),
        len(page),
        inlined.n_slides,
        len(inlined.thumbnails),
        len(inlined.pictures),
        linked,
    )


def review_order(made: Views) -> list[int]:
    """Places of the slides in the order of the page's cards: what a person should look at first."""

    def rank(at: int) -> tuple[bool, int, int]:
        place = made.slides[at]["specimen_row"]
        if place is None:
            return True, len(made.specimens), at
        return not made.specimens[place]["review"], place, at

    return sorted(range(len(made.slides)), key=rank)


def report_page(
    made: Views, inlined: Inlined, pictures_at: str | None, data: str = DATA, viewer: str | None = None
) -> bytes:
    """The page.

    Parameters
    ----------
    pictures_at
        Where the output lies as seen from the page; None if that is unknown.
    data
        Folder of the data beside the page.
    viewer
        See `write_report`.
    """
    run = made.tables.run
    inside = {
        "report": {
            "run": run_facts(run)
            | {
                "pictures_at": pictures_at,
                "data_at": data,
                "n_thumbnails": len(inlined.thumbnails),
                "n_full": len(inlined.pictures),
            },
            "vocabulary": vocabulary() | {"coverage": list(made.items)},
            "slides": _slides(made),
            "specimens": columns(made.specimens, _SPECIMEN) | {"covered": _bits(made.covered)},
            "tests": [{name: rounded(value) for name, value in test.items()} for test in made.batches],
        },
        "thumbnails": inlined.thumbnails,
        "pictures": inlined.pictures,
    }
    title = f"HER2 cohort report, run {run['run_id']}"
    blocks = {"summary": _summary(made.slides)}
    return assemble(
        "report.html", "HER2 cohort report", title, SCRIPTS, inside, blocks, viewer or viewer_of(run)
    )


def viewer_of(run: Row) -> str | None:
    """Address of the viewer that a run's configuration names."""
    address = json.loads(run["configuration"]).get("run", {}).get("viewer_url")
    if address is None:
        return None
    check_viewer(address, "viewer_url")
    return str(address)


def run_facts(run: Row) -> Row:
    """What the page shows of the run; no address, and no name of a file but the manifest's."""
    manifest = run["manifest_uri"].rstrip("/").rpartition("/")[2]
    unnamed = not run["cohort"] or _DIGEST.fullmatch(run["cohort"])
    return {
        "id": run["run_id"],
        "cohort": f"Cohort of {manifest}" if unnamed else run["cohort"],
        "state": run["state"],
        "finished": f"{run['finished_at']:%Y-%m-%d %H:%M} UTC",
        "manifest": manifest,
        "manifest_sha256": run["manifest_sha256"],
        "n_cells": run["n_cells"],
        "n_nuclei": run["n_nuclei"],
        "versions": json.loads(run["versions"]),
    }


def vocabulary() -> dict[str, Any]:
    """Words and colours, in the order of the page."""
    metrics = {metric.name: metric.description for metric in HETEROGENEITY_WIDE.columns}
    return {
        "classes": [_term(key, words, HER2_CLASS_COLOURS[key]) for key, words in HER2_CLASSES.items()],
        "no_class": NO_CLASS,
        "scores": [_term(step, f"IHC {step}", SCORE_COLOURS[step]) for step in STEPS],
        "groups": [_term(key, group_words(key), ISH_COLOURS.get(key, OTHER_COLOUR)) for key in ISH_GROUPS],
        "statuses": [_term(key, key, colour) for key, colour in STATUS_COLOURS.items()],
        "cells": [
            _term(name, f"class {kind.label}", CLASS_COLOURS[kind])
            for name, kind in zip(SHARES, CLASS_COLOURS, strict=True)
        ],
        "other": OTHER_COLOUR,
        "stages": [
            {"key": stage, "meaning": meaning} for stage, meaning in zip(STAGES, STAGE_MEANING, strict=True)
        ],
        "kinds": KINDS,
        "headings": ASKED,
        "measures": [
            {"key": key, "words": metrics[key].rstrip("."), "ish": key in ISH_MEASURES} for key in MEASURES
        ],
        "quality": [{"words": measure.words, "unit": measure.unit} for measure in quality.MEASURES],
        "outlying": quality.OUTLYING,
        "factors": [{"key": f"f_{factor.key}", "words": factor.words} for factor in batches.FACTORS],
        "batch_measures": [{"key": key, "words": words} for key, words in batches.MEASURES.items()],
        "pictures": list(PICTURES.values()),
    }


def _term(key: str, words: str, colour: str) -> dict[str, str]:
    return {"key": key, "words": words, "colour": colour}


def _slides(made: Views) -> dict[str, Any]:
    """Columns of the slides: those of the page, of quality control, of batches, and their pictures."""
    names = [measure.words for measure in quality.MEASURES]
    at = {row["slide_id"]: place for place, row in enumerate(made.slides)}
    values: list[list[float | None]] = [[None] * len(at) for _ in names]
    scores: list[list[float | None]] = [[None] * len(at) for _ in names]
    for row in made.quality:
        which, place = names.index(row["measure"]), at[row["slide_id"]]
        values[which][place], scores[which][place] = rounded(row["value"]), rounded(row["score"])
    source = made.tables.slides
    groups = {f.key: [f.group(row) for row in source] for f in batches.FACTORS}
    rows = [{f"f_{key}": of[place] for key, of in groups.items()} for place in range(len(source))]
    also = [name for name in batches.MEASURES if name not in ASKED]
    return (
        columns(made.slides, _SLIDE)
        | columns(rows, [f"f_{key}" for key in groups])
        | columns(source, [*also, *PICTURES])
        | {"quality_values": values, "quality_scores": scores}
    )


def _bits(covered: Sequence[Sequence[bool]]) -> list[int]:
    """Which items a specimen has, as the bits of a number, the first item lowest."""
    return [sum(has << place for place, has in enumerate(row)) for row in covered]


def _summary(slides: Sequence[Row]) -> str:
    """The funnel as markup, for readers without scripts."""
    rows = "".join(
        f"<tr><th>{row['stage']}</th><td>{row['meaning']}</td><td>{row['slides']:,}</td>"
        f"<td>{row['specimens']:,}</td><td>{row['patients']:,}</td></tr>"
        for row in funnel(slides)
    )
    causes = "".join(
        f"<li>{row['stage']}, no further: {html.escape(row['why'])} ({row['slides']:,})</li>"
        for row in exclusions(slides)
    )
    return (
        "<table><thead><tr><th></th><th></th><th>slides</th><th>specimens</th><th>patients</th></tr></thead>"
        f"<tbody>{rows}</tbody></table><ul>{causes}</ul>"
    )
