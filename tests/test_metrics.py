"""Metrics and JSON lines from what a run reports, and from what a store's tables hold."""

from __future__ import annotations

import io
import json
import logging
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from prometheus_client import CollectorRegistry, generate_latest

from flows.metrics import JsonLines, RunMetrics, StoreMetrics, serving
from her2core.lake.schema import RUNS
from her2core.lake.tables import commit_rows, read_rows
from her2core.lake.views import create_views
from her2core.stages.progress import COHORT, ENDED, SLIDES, Published, report, report_published
from her2core.storage.store import Store
from tests.conftest import ROOT

NOW = 1_800_000_000.0


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("her2core")
    before, handlers = logger.level, list(logger.handlers)
    logger.setLevel(logging.INFO)
    yield logger
    logger.setLevel(before)
    logger.handlers[:] = handlers


def values(registry: CollectorRegistry) -> dict[str, float]:
    """Every sample that a scrape shows, by name and labels."""
    lines = generate_latest(registry).decode().splitlines()
    found = (line.rpartition(" ") for line in lines if not line.startswith("#") and "_created" not in line)
    return {name: float(value) for name, _, value in found}


def test_a_run_is_counted_by_state_stage_and_try(logger: logging.Logger) -> None:
    registry = CollectorRegistry()
    logger.addHandler(RunMetrics(registry, 9))  # of which the run works on four
    report(COHORT, SLIDES, 0, 4)
    for slide in ("a", "b", "c"):
        report(slide, "inspect", 0, 1)
    report_published(Published("a", "pyramid", "k1", 2.5, 1000))
    report_published(Published("b", "pyramid", "k2", 1.5, 500))
    report("a", ENDED, 1, 1, "scored")
    report("c", ENDED, 1, 1, "quarantined")
    report("b", "inspect", 0, 1)
    found = values(registry)
    for state in ("waiting", "running", "scored", "quarantined"):
        assert found[f'her2_slides{{state="{state}"}}'] == 1
    assert (
        found['her2_stage_seconds_sum{stage="pyramid"}'],
        found['her2_stage_seconds_count{stage="pyramid"}'],
    ) == (4, 2)
    assert found['her2_stage_bytes_total{stage="pyramid"}'] == 1500
    assert found["her2_retries_total"] == 1
    assert not any(slide in "".join(found) for slide in ('"a"', '"b"', '"c"'))


def test_a_line_of_the_log_says_run_slide_stage_key_and_duration_and_no_secret(
    logger: logging.Logger,
) -> None:
    stream = io.StringIO()
    logger.addHandler(JsonLines("run-1", stream, hide=lambda text: text.replace("Jane Doe", "…")))
    report_published(Published("a", "cells", "k1", 2.51234, 10))
    report("a", ENDED, 1, 1, "scored")
    logger.warning("a: failed", extra={"slide_id": "a"})
    try:
        raise ValueError("s3://user:secret@host/Jane Doe")
    except ValueError:
        logger.exception("at /home/x/secret-folder/Jane Doe")
    published, ended, warned, failed = map(json.loads, stream.getvalue().splitlines())
    assert published.items() >= {
        "run": "run-1", "slide": "a", "stage": "cells", "key": "k1", "seconds": 2.512, "level": "info",
    }.items()  # fmt: skip
    assert (ended["slide"], ended["state"]) == ("a", "scored")
    assert (warned["slide"], warned["level"]) == ("a", "warning")
    assert "ValueError" in failed["traceback"]
    assert not any(word in stream.getvalue() for word in ("Jane", "user:secret", str(ROOT)))


def run_row(cohort: str, state: str, age_s: float, **counts: int) -> dict[str, Any]:
    kinds = {"string": "", "int64": 0}
    row: dict[str, Any] = {f.name: None if f.nullable else kinds.get(str(f.type), 0) for f in RUNS.schema}
    ended = datetime.fromtimestamp(NOW - age_s, UTC)
    return row | {
        "run_id": f"{cohort}-{age_s}", "started_at": ended, "finished_at": ended, "state": state,
        "cohort": cohort,
        **{f"n_{name}": count for name, count in counts.items()},
    }  # fmt: skip


def test_a_store_tells_how_long_ago_each_cohort_was_done_without_a_failure(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for row in (
        run_row("x", "complete", 900, scored=5),
        run_row("x", "partial", 600, scored=4, quarantined=1),
        run_row("x", "partial", 60, scored=3, quarantined=1, failed=1),
        run_row("y", "complete", 30, scored=2),
    ):
        commit_rows(store, RUNS, [row], [row["run_id"]])
    registry = CollectorRegistry()
    registry.register(StoreMetrics([store], now=lambda: NOW))
    found = values(registry)
    name = f'cohort="x",store="{store.uri()}"'
    assert found[f"her2_last_success_age_seconds{{{name}}}"] == 600
    assert found[f"her2_last_run_age_seconds{{{name}}}"] == 60
    assert found[f'her2_last_run_slides{{cohort="x",state="failed",store="{store.uri()}"}}'] == 1
    assert found[f'her2_last_success_age_seconds{{cohort="y",store="{store.uri()}"}}'] == 30
    assert found[f'her2_store_up{{store="{store.uri()}"}}'] == 1


def test_a_store_that_breaks_is_shown_and_one_without_a_run_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = CollectorRegistry()
    registry.register(StoreMetrics([Store(str(tmp_path))], ask_every_s=-1))
    up = f'her2_store_up{{store="{Store(str(tmp_path)).uri()}"}}'
    assert values(registry) == {up: 1}

    def broken(*_: object) -> None:
        raise OSError("gone")

    monkeypatch.setattr("flows.metrics.read_present", broken)
    assert values(registry) == {up: 0}


def test_runs_of_an_older_version_are_metrics_and_views_too(tmp_path: Path) -> None:
    """That version's table lacks columns: what it did not write is not known, and all else is."""
    store = Store(str(tmp_path))
    row = run_row("x", "complete", 900, scored=5)
    older = pa.Table.from_pylist([row], schema=RUNS.schema).drop_columns(["n_skipped", "patients_version"])
    write_deltalake(str(tmp_path / "tables" / "runs"), older)
    registry = CollectorRegistry()
    registry.register(StoreMetrics([store], now=lambda: NOW))
    found = values(registry)
    of = f'cohort="x",state="{{}}",store="{store.uri()}"'
    assert found[f"her2_last_run_slides{{{of.format('scored')}}}"] == 5
    assert f"her2_last_run_slides{{{of.format('skipped')}}}" not in found
    connection = duckdb.connect()
    assert create_views(connection, store) == row["run_id"]
    assert connection.execute("SELECT n_scored, n_skipped, patients_version FROM run").fetchall() == [
        (5, None, None)
    ]
    with pytest.raises(OSError, match="No field named n_skipped"):
        read_rows(store, RUNS, ["n_skipped"])


def test_metrics_are_answered_on_one_port() -> None:
    registry = CollectorRegistry()
    RunMetrics(registry, 3)
    with serving(0, registry, "127.0.0.1") as port:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
            assert b'her2_slides{state="waiting"} 3.0' in reply.read()
    with pytest.raises(OSError), opener.open(f"http://127.0.0.1:{port}/metrics", timeout=1):
        pass


def test_alerts_and_dashboard_ask_for_metrics_that_exist(tmp_path: Path) -> None:
    """Names in the chart against those that are exported."""
    import re

    registry = CollectorRegistry()
    metrics = RunMetrics(registry, 1)
    metrics.seconds.labels("x").observe(1)
    metrics.bytes.labels("x").inc()
    store = Store(str(tmp_path))
    commit_rows(store, RUNS, [run_row("x", "complete", 1)], ["x"])
    registry.register(StoreMetrics([store]))
    exported = {name.partition("{")[0] for name in values(registry)}
    for file in ("rules.yaml", "dashboard.json"):
        text = (ROOT / "deploy" / "helm" / "files" / file).read_text()
        asked = set(re.findall(r"\bher2_\w+", text))
        assert asked
        assert asked <= exported, file
