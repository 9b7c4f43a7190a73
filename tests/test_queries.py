"""The example queries, on a small lake in a folder and on S3."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from her2core.config import Config
from her2core.errors import ConfigError
from her2core.lake.schema import (
    CASES,
    CELLS,
    HETEROGENEITY_WIDE,
    PATIENT_HETEROGENEITY_WIDE,
    PATIENTS,
    RUNS,
    SLIDES,
    TABLES,
)
from her2core.lake.tables import commit_rows
from her2core.lake.views import create_views
from her2core.storage.store import Store
from tests.conftest import ROOT, Bucket
from tests.helpers.report_run import blank

DOC = (ROOT / "docs" / "queries.md").read_text()
QUERIES = {
    int(number): sql
    for number, sql in re.findall(r"^## (\d+)\. .*?^```sql\n(.*?)^```", DOC, re.DOTALL | re.MULTILINE)
}
RUN = "20260102T030000Z-abcdef"

EXPECTED: dict[int, list[tuple[Any, ...]]] = {
    1: [("metastasis", 2, 1, 1, 100.0), ("not given", 1, 1, 0, None), ("primary", 4, 1, 1, 33.3)],
    2: [
        ("c3", None, "primary", 800, 8.0, 6.3, 10.1, ["0", "1+"], False),
        ("c4", None, "primary", 900, 2.0, 1.3, 3.1, ["0", "1+"], True),
    ],
    3: [
        ("c2", None, "primary", "2021-05-01", 30.0, None, None),
        ("c1", None, "metastasis", None, 25.0, "2", "PENDING_RECOUNT"),
    ],
    4: [("c5", None, "1+", 2, ["A 2+", "B 0"])],
    5: [("1+", 2, 0.2, 0.3, 0.25), ("2+", 1, 0.5, 0.1, 0.08)],
    6: [("S2", 2, 1, 0, 1, 100.0), ("S1", 2, 0, 1, 0, 0.0), ("not given", 2, 0, 0, 0, 0.0)],
    7: [("0", "1+", 1), ("0_unspecified", "none", 1), ("1+", "1+", 1), ("2+", "0+", 1)],
    8: [
        ("discordant, tiers open", 1, None, ["p4"]),
        ("low to positive", 1, 0.25, ["p1"]),
        ("zero to zero", 1, None, ["p2"]),
    ],
    9: [("s1", 4, 25.0, 50.0), ("s2", 1, 0.0, 0.0)],
    10: [("c3", None, "0", ["0", "1+"], ["10 % of class 1 or higher"], ["background_guessed"]),
         ("c4", None, "0", ["0", "1+"], [], [])],
}  # fmt: skip


CASE_ROWS: tuple[dict[str, Any], ...] = (
    {
        "case_id": "c1",
        "site": "metastasis",
        "score": "2+",
        "her2_status": "Equivocal",
        "her2_class": "equivocal",
        "p2_pct": 25.0,
        "ish_group": "2",
        "pending": "PENDING_RECOUNT",
    },
    {
        "case_id": "c2",
        "site": "primary",
        "score": "2+",
        "her2_status": "Equivocal",
        "her2_class": "equivocal",
        "p2_pct": 30.0,
        "collection_date": "2021-05-01",
    },
    {
        "case_id": "c3",
        "site": "primary",
        "score": "0",
        "her2_class": "ultralow",
        "n_scored": 800,
        "p_any_pct": 8.0,
        "p_any_low_pct": 6.3,
        "p_any_high_pct": 10.1,
        "possible_scores": ["0", "1+"],
        "borderline": True,
        "low_end_unreliable": False,
        "reasons": ["background_guessed"],
    },
    {
        "case_id": "c4",
        "site": "primary",
        "score": "0",
        "her2_class": "ultralow",
        "n_scored": 900,
        "p_any_pct": 2.0,
        "p_any_low_pct": 1.3,
        "p_any_high_pct": 3.1,
        "possible_scores": ["0", "1+"],
        "borderline": True,
        "low_end_unreliable": True,
        "reasons": [],
    },
    {
        "case_id": "c5",
        "site": "primary",
        "score": "1+",
        "her2_class": "low_1plus",
        "block_discordance": 2,
        "slides_pooled": ["s1", "s2"],
    },
    {"case_id": "c6", "site": "metastasis", "score": "2+", "her2_class": "low_2plus", "block_discordance": 0},
    {"case_id": "c7", "her2_status": "Indeterminate", "her2_class": "indeterminate"},
)
SLIDE_ROWS: tuple[dict[str, Any], ...] = (
    {
        "slide_id": "s1",
        "case_id": "c5",
        "block_id": "A",
        "score": "2+",
        "consensus_score": "2+",
        "scanner": "S1",
        "qc_verdict": "pass",
        "membrane_od_mean": 0.5,
    },
    {
        "slide_id": "s2",
        "case_id": "c5",
        "block_id": "B",
        "score": "0",
        "consensus_score": "0+",
        "reader_consensus": "2+",
        "scanner": "S1",
        "qc_verdict": "warn",
        "membrane_od_mean": 0.1,
    },
    {
        "slide_id": "s3",
        "state": "indeterminate",
        "reader_consensus": "0_unspecified",
        "scanner": "S2",
        "qc_verdict": "fail",
    },
    {"slide_id": "s4", "state": "quarantined", "scanner": "S2"},
    {
        "slide_id": "s5",
        "score": "1+",
        "consensus_score": "1+",
        "reader_consensus": "1+",
        "qc_verdict": "pass",
        "membrane_od_mean": 0.2,
    },
    {
        "slide_id": "s6",
        "score": "1+",
        "consensus_score": "1+",
        "reader_consensus": "0",
        "qc_verdict": "pass",
        "membrane_od_mean": 0.2,
    },
    {"slide_id": "s7", "state": "skipped", "reader_consensus": "0", "scanner": "S1"},
)
SPREAD = (("s1", 0.10, 0.02), ("s5", 0.30, 0.05), ("s6", 0.30, 0.05), ("s2", None, None))
CELL_OD = (("s1", 0.41), ("s1", 0.59), ("s1", 0.61), ("s1", 0.2), ("s2", 0.7), ("s3", 0.4))


def write_lake(store: Store) -> None:
    """A run's tables, and what a later run has written so far."""
    rows = {
        CASES: [{"her2_status": "Negative"} | one for one in CASE_ROWS],
        SLIDES: [{"assay": "HER2-IHC", "state": "scored"} | one for one in SLIDE_ROWS],
        HETEROGENEITY_WIDE: [
            {"slide_id": slide, "eta2_250um": eta2, "eta2_expected_250um": expected}
            for slide, eta2, expected in SPREAD
        ],
        PATIENTS: [
            {
                "patient_id": "p1",
                "primary_metastasis": "discordant",
                "primary_metastasis_change": "low to positive",
            },
            {
                "patient_id": "p2",
                "primary_metastasis": "concordant",
                "primary_metastasis_change": "zero to zero",
            },
            {"patient_id": "p3"},
            {"patient_id": "p4", "primary_metastasis": "discordant"},
        ],
        PATIENT_HETEROGENEITY_WIDE: [{"patient_id": "p1", "metastasis_less_primary_membrane_od_mean": 0.25}],
        CELLS: [
            {
                "slide_id": slide,
                "cell_id": k,
                "is_tumour": slide != "s3",
                "cell_class": "2",
                "membrane_od_median": od,
            }
            for k, (slide, od) in enumerate(CELL_OD)
        ],
    }
    versions = {t.name: commit_rows(store, t, [blank(t, **one) for one in own]) for t, own in rows.items()}
    ran = {
        "run_id": RUN,
        "state": "complete",
        "started_at": datetime(2026, 1, 2, 3, tzinfo=UTC),
        "finished_at": datetime(2026, 1, 2, 4, tzinfo=UTC),
        "configuration": json.dumps(Config().resolved()),
        **{f"{name}_version": version for name, version in versions.items()},
    }
    at_work = ran | {"run_id": "later", "state": "running", "finished_at": datetime(2026, 1, 3, tzinfo=UTC)}
    commit_rows(store, RUNS, [blank(RUNS, **ran), blank(RUNS, **at_work)])
    commit_rows(store, CASES, [blank(CASES, case_id="c3", her2_status="Positive", her2_class="pos_IHC3")])


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("lake") / "it's [1] of *")
    write_lake(store)
    return store


@pytest.fixture(scope="module")
def connection(lake: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        assert create_views(opened, lake) == create_views(opened, lake, RUN) == RUN  # again, as after a run
        yield opened


def test_there_are_ten_queries() -> None:
    assert list(QUERIES) == list(EXPECTED) == list(range(1, 11))
    assert DOC.count("```sql") == 10


@pytest.mark.parametrize("number", EXPECTED)
def test_a_query_answers_its_question(number: int, connection: duckdb.DuckDBPyConnection) -> None:
    assert connection.execute(QUERIES[number]).fetchall() == EXPECTED[number]


def test_the_queries_answer_over_s3(lake: Store, s3: Bucket) -> None:
    store = Store(f"{s3.uri}/out")
    for file in Path(lake.root).rglob("*"):
        if file.is_file():
            store.write_bytes(str(file.relative_to(lake.root)), file.read_bytes())
    with duckdb.connect() as connection:
        connection.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false")
        create_views(connection, store)
        assert {n: connection.execute(sql).fetchall() for n, sql in QUERIES.items()} == EXPECTED


def test_views_have_every_column_also_of_tables_that_the_run_did_not_write(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    for name, table in TABLES.items():
        view = connection.execute(f"SELECT * FROM {name}")
        assert [column[0] for column in view.description or ()] == table.schema.names
    assert connection.execute("SELECT count(*) FROM nuclei").fetchall() == [(0,)]
    assert connection.execute("SELECT run_id FROM run").fetchall() == [(RUN,)]


def test_an_output_without_that_run_is_reported(lake: Store, tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        with pytest.raises(ConfigError, match="no finished run; start one with"):
            create_views(connection, Store(tmp_path / "none"))
        with pytest.raises(ConfigError, match=f"no finished run later; the last ones are {RUN}"):
            create_views(connection, lake, "later")
