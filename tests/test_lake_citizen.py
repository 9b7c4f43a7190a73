"""What others need to use the tables: contracts, lineage, catalogs, and their own readers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pytest
import yaml

from her2core.lake.contract import as_yaml, contract
from her2core.lake.register import registered
from her2core.lake.schema import TABLES
from her2core.publish import Publisher
from her2core.stages.names import Names
from her2core.storage.lease import held
from her2core.storage.store import Store
from tests.conftest import Bucket
from tests.test_publish import ROWS, made, quick, result
from tests.tools.helm import FOLDER as TOOLS

__all__ = ["quick"]

LOGICAL = {"string", "date", "timestamp", "time", "number", "integer", "object", "array", "boolean"}
"""Logical types of ODCS 3.1."""
ELEMENT = {
    *("name", "physicalName", "physicalType", "logicalType", "description", "properties", "required"),
    *("primaryKey", "primaryKeyPosition", "customProperties", "items", "dataGranularityDescription"),
}
"""Those of its keys that we use: the standard allows no others that it does not know."""


@pytest.mark.parametrize("name", TABLES)
def test_a_contract_says_what_the_schema_writes(name: str) -> None:
    table = TABLES[name]
    found = yaml.safe_load(as_yaml(table))
    assert found == contract(table)
    assert {"apiVersion", "kind", "id", "version", "status"} <= found.keys()  # what the standard requires
    assert (found["apiVersion"], found["kind"]) == ("v3.1.0", "DataContract")
    (element,) = found["schema"]
    assert [each["name"] for each in element["properties"]] == table.schema.names
    keys = {e["name"]: e["primaryKeyPosition"] for e in element["properties"] if e.get("primaryKey")}
    assert sorted(keys, key=lambda name: keys[name]) == list(table.key)

    def check(each: dict[str, Any]) -> None:
        assert each.keys() <= ELEMENT
        assert each["logicalType"] in LOGICAL
        for inner in [*each.get("properties", ()), *([each["items"]] if "items" in each else ())]:
            check(inner)

    check(element)
    for each, field in zip(element["properties"], table.schema, strict=True):
        assert each["required"] is not field.nullable
        unit = {c["property"]: c["value"] for c in each.get("customProperties", ())}.get("unit")
        assert unit == (field.metadata.get(b"unit") or b"").decode() or unit is None
    assert "Research use only" in found["description"]["limitations"]


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, str | None, dict[str, Any]]]]]:
    """A server that keeps the events that are sent to it."""
    got: list[tuple[str, str | None, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, self.headers["Authorization"], json.loads(body)))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", got
        server.shutdown()
        thread.join()


def run(store: Store, run_id: str) -> None:
    with held(store, run_id) as lease:
        publisher = Publisher(made(run_id, store, ROWS), lease)
        publisher.begin()
        for row in ROWS:
            publisher.add(result(store, row))
        publisher.finish()


def test_a_run_says_where_its_tables_come_from(
    tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, got = server
    monkeypatch.setenv("OPENLINEAGE_URL", url)
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "secret-key")
    store = Store(tmp_path / "out")
    with held(store, "r0") as lease:
        Publisher(made("r0", store, ROWS), lease).begin()  # and dies
    run(store, "r1")
    kinds = [(said["eventType"], said["run"]["runId"]) for _, _, said in got]
    assert [kind for kind, _ in kinds] == ["START", "ABORT", "START", "COMPLETE"]
    assert kinds[0][1] == kinds[1][1] != kinds[2][1] == kinds[3][1]
    assert {(path, key) for path, key, _ in got} == {("/api/v1/lineage", "Bearer secret-key")}
    said = got[-1][2]
    assert said == store.read_json("lineage/r1/complete.json")
    UUID(said["run"]["runId"])
    assert said["inputs"][0]["name"].endswith("/m.csv")
    outputs = {Path(each["name"]).name: each for each in said["outputs"]}
    assert set(outputs) == set(TABLES) - {"runs"}
    version = outputs["slides"]["facets"]["version"]["datasetVersion"]
    assert version == str(pl.read_delta(store.uri("tables/runs")).sort("finished_at")["slides_version"][-1])
    assert all("_producer" in facet for each in said["outputs"] for facet in each["facets"].values())


def test_where_places_are_hidden_lineage_names_none(tmp_path: Path) -> None:
    store = Store(tmp_path / "Mueller" / "out")
    run = replace(made("r1", store, ROWS), names=Names({"m.csv": "file-1.csv"}))
    Publisher(run).begin()
    text = store.read_bytes("lineage/r1/start.json").decode()
    assert "Mueller" not in text
    assert "m.csv" not in text
    assert json.loads(text)["inputs"][0]["name"] == "file-1.csv"


def test_a_server_of_lineage_that_is_gone_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:9")
    run(Store(tmp_path / "out"), "r1")
    assert "lineage was not sent" in caplog.text


def test_polars_reads_every_table_where_it_lies(s3: Bucket) -> None:
    store = Store(f"{s3.uri}/out")
    run(store, "r1")
    found = {each.name: each for each in registered(store)}
    assert set(found) == set(TABLES)
    options = store.storage_options()
    for name, each in found.items():
        frame = pl.scan_delta(each.location, storage_options=options).collect()
        assert frame.columns[: len(TABLES[name].columns)] == TABLES[name].schema.names
    assert pl.scan_delta(found["slides"].location, storage_options=options).collect().height == len(ROWS)
    assert found["slides"].spark("her2").endswith(f"LOCATION '{s3.uri}/out/tables/slides';")
    assert "register_table" in found["slides"].trino("her2")


DELTA_SCAN = """
import json, sys
from pathlib import Path
import duckdb

tools, endpoint, access, secret, view, *places = sys.argv[1:]
connection = duckdb.connect()
for name in ("delta", "httpfs"):
    (extension,) = Path(tools).glob(f"duckdb_extension_{name}/extensions/*/*.duckdb_extension")
    connection.execute(f"LOAD '{extension}'")
connection.execute(
    f"CREATE SECRET (TYPE s3, KEY_ID '{access}', SECRET '{secret}', REGION 'us-east-1', "
    f"ENDPOINT '{endpoint}', URL_STYLE 'path', USE_SSL false)"
)
connection.execute(view)
counted = [connection.execute(f"SELECT count(*) FROM delta_scan('{p}')").fetchone()[0] for p in places]
print(json.dumps(counted))
"""
"""Run by an older DuckDB, for which its extensions are there as wheels."""


def test_duckdb_s_own_delta_scan_reads_every_table_where_it_lies(s3: Bucket) -> None:
    if not list(TOOLS.glob("duckdb_extension_delta")):
        pytest.skip(f"DuckDB's extension delta is not at {TOOLS}; make tools installs it")
    store = Store(f"{s3.uri}/out")
    run(store, "r1")
    found = {each.name: each for each in registered(store)}
    places = {name: each.location for name, each in found.items()}
    keys = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    words = [str(TOOLS), s3.endpoint_url.partition("://")[2], *keys]
    words += [found["slides"].duckdb("main"), *places.values()]
    asked = [sys.executable, "-c", DELTA_SCAN, *words]
    environment = os.environ | {"PYTHONPATH": str(TOOLS)}
    done = subprocess.run(asked, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [
        pl.scan_delta(p, storage_options=store.storage_options()).collect().height for p in places.values()
    ]
    assert json.loads(done.stdout) == rows
    assert dict(zip(places, rows, strict=True))["slides"] == len(ROWS)
