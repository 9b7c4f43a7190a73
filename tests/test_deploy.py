"""The scheduled deployment, as an operator starts it: a real Prefect server and a real process worker."""

from __future__ import annotations

import inspect
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

PREFECT = str(Path(sys.executable).parent / "prefect")
DEPLOYMENT = yaml.safe_load((ROOT / "deploy" / "prefect.yaml").read_text())["deployments"][0]


def test_the_deployment_names_the_flow_and_its_parameters() -> None:
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.flows import load_flow_from_entrypoint

    flow = load_flow_from_entrypoint(DEPLOYMENT["entrypoint"])
    assert set(DEPLOYMENT["parameters"]) == set(inspect.signature(flow.fn).parameters)
    (schedule,) = DEPLOYMENT["schedules"]
    CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])


@contextmanager
def running(words: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with open(log, "wb") as out:
        process = subprocess.Popen(
            words, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=log.parent
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask(api: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{api}/{path}", json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


def until(what: str, ready: Any, log: Path, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := ready():
                return found
        except OSError:
            pass
        time.sleep(1)
    raise AssertionError(f"{what} not within {seconds} s:\n{log.read_text(errors='replace')[-3000:]}")


@pytest.mark.timeout(900)
def test_a_process_worker_scores_a_cohort_and_the_schedule_fires(tmp_path: Path) -> None:
    from her2core.phantom import synth_cohort
    from her2core.phantom.cohort import PLAN
    from her2core.storage import Store

    manifest = synth_cohort(tmp_path / "slides", side_px=1024, plan=PLAN[:1])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    environment = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
    }
    server = [PREFECT, "server", "start", "--no-ui", "--host", "127.0.0.1", "--port", str(port)]
    worker = [PREFECT, "worker", "start", "--pool", DEPLOYMENT["work_pool"]["name"]]

    def cli(*words: str) -> None:
        done = subprocess.run([PREFECT, *words], env=environment, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def runs(state: str) -> Any:
        return ask(api, "flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": [state]}}}})

    server_log, worker_log = tmp_path / "server.log", tmp_path / "worker.log"
    with running(server, server_log, environment):
        until("server", lambda: urllib.request.urlopen(f"{api}/health", timeout=5).read(), server_log, 180)
        cli("work-pool", "create", "--type", "process", "her2")
        cli("--no-prompt", "deploy", "--all", "--prefect-file", "deploy/prefect.yaml")
        until("scheduled run", lambda: runs("SCHEDULED"), server_log, 120)
        with running(worker, worker_log, environment):
            cli("deployment", "run", f"her2-cohort/{DEPLOYMENT['name']}",
                "-p", f"manifest={manifest}", "-p", f"out={tmp_path / 'out'}")  # fmt: skip
            until("completed run", lambda: runs("COMPLETED"), worker_log, 480)
    assert Store(tmp_path / "out").list("tables") == [
        "tables/cases",
        "tables/cells",
        "tables/runs",
        "tables/slides",
    ]
