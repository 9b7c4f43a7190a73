"""A file of cohorts on a schedule, and what Prefect is given of it."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from flows import deployments
from flows.deployments import LEASES, TAG, ScheduledCohort, Served, deployment_file, owner, read_cohorts
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


class Prefect:
    """What of a Prefect server registering needs: deployments by name, with their tags."""

    def __init__(self) -> None:
        self.tags: dict[str, list[str]] = {}

    def deploy(self, words: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        if "deploy" in words:
            file = yaml.safe_load(Path(words[-1]).read_text())
            self.tags |= {entry["name"]: entry["tags"] for entry in file["deployments"]}
        return subprocess.CompletedProcess(words, 0, "", "")

    @contextmanager
    def asking(self, api: str) -> Iterator[tuple[Any, list[Any]]]:
        found = [SimpleNamespace(id=name, name=name, tags=tags) for name, tags in self.tags.items()]
        yield SimpleNamespace(delete_deployment=self.tags.pop), found


def test_a_second_file_of_cohorts_takes_nothing_of_the_first_off_the_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Prefect()
    monkeypatch.setattr(deployments, "_asking", server.asking)
    monkeypatch.setattr(deployments.subprocess, "run", server.deploy)

    def serve(file: str, *names: str) -> None:
        cohorts = [ScheduledCohort.model_validate(COHORT | {"name": name}) for name in names]
        deployments._register(cohorts, owner(tmp_path, file), {"PREFECT_API_URL": ""}, tmp_path)

    server.tags["old"] = ["her2", TAG]  # as earlier versions made them
    serve("a.yaml", "breast", "gastric")
    serve("b.yaml", "trial", "old")
    assert set(server.tags) == {"breast", "gastric", "trial", "old"}
    serve("a.yaml", "breast")  # its file names the other no longer
    assert set(server.tags) == {"breast", "trial", "old"}
    with pytest.raises(ServerError, match="breast: on this Prefect server another her2 serve"):
        serve("b.yaml", "trial", "breast")
    assert owner(tmp_path, "a.yaml") in server.tags["breast"]


def test_a_run_waits_for_another_of_its_deployment_also_when_the_server_was_away(tmp_path: Path) -> None:
    from prefect.server.concurrency.lease_storage import filesystem

    file = deployment_file(read_cohorts(written(tmp_path, [COHORT | {"ingest": INGEST}])))
    limits = [entry["concurrency_limit"] for entry in file["deployments"]]
    assert limits == [{"limit": 1, "collision_strategy": "ENQUEUE"}] * 2
    assert filesystem.__name__ == LEASES


def test_a_part_of_prefect_that_ends_by_itself_ends_the_service(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as part:
        part.wait()
        with pytest.raises(ServerError, match=str(tmp_path)):
            Served("http://localhost/api", tmp_path, [part]).watch()


KILLED = """
import os
from pathlib import Path
from flows import deployments
deployments._prefect = lambda *words: ["sleep", "1000"]
with deployments._running([], dict(os.environ), Path("log").absolute()) as part:
    print(part.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_prefect_ends_with_a_service_that_is_killed(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    deadline = time.monotonic() + 20
    while Path(f"/proc/{int(done.stdout)}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


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
