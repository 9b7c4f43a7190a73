"""A file of cohorts on a schedule, and what Prefect is given of it."""

from __future__ import annotations

import inspect
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from flows.deployments import TAG, Served, deployment_file, read_cohorts
from flows.environment import ServerError
from her2core.errors import ConfigError
from tests.conftest import ROOT

INGEST = {"place": "s3://b/incoming", "cron": "*/15 * * * *", "rule": "(?P<case_id>[^_]+)"}
COHORT = {"name": "nightly", "manifest": "/data/m.csv", "out": "s3://b/out", "cron": "0 1 * * *"}


def written(folder: Path, content: object) -> str:
    file = folder / "cohorts.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(file)


def test_a_cohort_becomes_a_deployment_that_the_flow_understands(tmp_path: Path) -> None:
    from prefect.cli.deploy._models import PrefectYamlModel
    from prefect.flows import load_flow_from_entrypoint

    more = {"config": "s3://b/c.yaml", "timezone": "Europe/Zurich", "active": False, "name": "weekly"}
    file = deployment_file(read_cohorts(written(tmp_path, [COHORT | {"ingest": INGEST}, COHORT | more])))
    PrefectYamlModel.model_validate(file)
    first, second, taken = file["deployments"]
    flow = load_flow_from_entrypoint(first["entrypoint"])
    assert set(first["parameters"]) == set(inspect.signature(flow.fn).parameters)
    assert first["schedules"] == [{"cron": "0 1 * * *", "timezone": "UTC", "active": True}]
    assert second["schedules"] == [{"cron": "0 1 * * *", "timezone": "Europe/Zurich", "active": False}]
    assert second["parameters"]["config"] == "s3://b/c.yaml"
    assert TAG in first["tags"]
    assert (taken["name"], taken["parameters"]["deployment"]) == ("nightly-ingest", "her2-cohort/nightly")
    given = inspect.signature(load_flow_from_entrypoint(taken["entrypoint"]).fn).bind(**taken["parameters"])
    assert given.arguments["place"] == "s3://b/incoming"
    assert taken["schedules"][0]["cron"] == "*/15 * * * *"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "expected a list of cohorts"),
        ([], "expected a list of cohorts"),
        ([COHORT | {"cron": "at night"}], "cohort 1: cron"),
        ([COHORT | {"cohort": 1}], "cohort 1: cohort"),
        ([COHORT, dict(COHORT)], "nightly is named twice"),
        ([COHORT, COHORT | {"name": "b", "out": "out"}], "cohort 2: 'out' is relative"),
        ([{"name": "x"}], "cohort 1: manifest"),
        ([COHORT | {"ingest": INGEST | {"place": "in"}}], "cohort 1: 'in' is relative"),
        ("[", "cannot be read"),
        ("- name: a\n  manifest: /m.csv\n  manifest: /n.csv\n", "line 3: manifest is given twice"),
        ("- name: a\n  active: no\n", "line 2: 'no' means different things"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(tmp_path: Path, content: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_cohorts(written(tmp_path, content))


def test_a_part_of_prefect_that_ends_by_itself_ends_the_service(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as part:
        part.wait()
        with pytest.raises(ServerError, match=str(tmp_path)):
            Served("http://localhost/api", tmp_path, [part]).watch()


def test_the_unit_starts_what_the_command_line_has() -> None:
    from typer.main import get_command

    import her2cli

    unit = (ROOT / "deploy" / "her2.service").read_text()
    (line,) = (line for line in unit.splitlines() if line.startswith("ExecStart="))
    program, verb, *words = line.removeprefix("ExecStart=").split()
    assert program.endswith("/her2")
    get_command(her2cli.app).commands[verb].make_context(verb, words)  # type: ignore[attr-defined]


def test_metrics_are_served_until_a_signal_and_what_hinders_a_store_is_said(tmp_path: Path) -> None:
    from tests.helpers import cohorts

    log = tmp_path / "tables" / "runs" / "_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020}.json").write_text("broken")
    words = cohorts.command("metrics", str(tmp_path), "--port", "0")
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("metrics on http://127.0.0.1:")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(line.removeprefix("metrics on ").strip(), timeout=20) as reply:
            assert b"her2_store_up{" in reply.read()
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert time.monotonic() - begun < 20
        assert f"warning {tmp_path}: " in process.stderr.read()
