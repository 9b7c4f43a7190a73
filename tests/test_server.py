"""The cohort flow as an operator runs it: a real Prefect server, a process worker, a scheduled deployment."""

from __future__ import annotations

import base64
import inspect
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import polars as pl
import pytest
import yaml

from flows.environment import ServerError, check_server
from tests.conftest import ROOT
from tests.helpers import cohorts

pytestmark = pytest.mark.timeout(900)

PREFECT = str(Path(sys.executable).parent / "prefect")
FILE = "deploy/prefect.yaml"
DEPLOYMENT = yaml.safe_load((ROOT / FILE).read_text())["deployments"][0]
POOL = DEPLOYMENT["work_pool"]["name"]
SCORED, BAD, EXCLUDED = {"two": "2+", "fish": "–"}, ("broken", "missing"), ("unused",)
"""Slides of the cohort, with the score of those that have one."""
SLIDES = {*SCORED, *BAD, *EXCLUDED}
PATIENCE_S = 300

T = TypeVar("T")


@dataclass(frozen=True)
class Server:
    """A Prefect server on loopback with a home of its own."""

    api: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.api,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "HER2_RUN__WORKERS": "1",
        }

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Answer of the API; asked again while SQLite is locked (503), as Prefect's own client does."""
        for pause_s in (0.5, 1, 2, 4, 8, 0):
            reply = httpx.request(method, f"{self.api}/{path}", json=body, timeout=60)
            if reply.status_code != 503:
                break
            time.sleep(pause_s)
        reply.raise_for_status()
        return reply.json() if reply.content else None

    def runs(self, kind: str, **filters: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("POST", f"{kind}/filter", filters)
        return found

    def cli(self, *words: str) -> None:
        done = subprocess.run(
            [PREFECT, "--no-prompt", *words], env=self.environment, cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def running(words: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """A process group of its own, with its output in a file; all of it is gone at the end."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            words,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(what: str, ready: Callable[[], T], *logs: Path) -> T:
    """Wait for something true; what is refused meanwhile is not there yet."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if found := ready():
                return found
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    tails = "\n".join(log.read_text(errors="replace")[-4000:] for log in logs)
    raise AssertionError(f"{what}: not within {PATIENCE_S} s\n{tails}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("prefect")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}/api", home)
    words = [PREFECT, "server", "start", "--no-ui", "--host", "127.0.0.1", "--port", str(port)]
    log = home / "server.log"
    with running(words, server.environment, log):
        until("server", lambda: server.ask("GET", "health"), log)
        yield server


@pytest.fixture(scope="module")
def worker(server: Server) -> Iterator[Path]:
    """A process worker, which makes its pool; yields its log."""
    log = server.home / "worker.log"
    words = [PREFECT, "worker", "start", "--pool", POOL, "--type", "process"]
    with running(words, server.environment, log):
        pools = {"work_pools": {"name": {"any_": [POOL]}}}
        until("work pool", lambda: server.ask("POST", "work_pools/filter", pools), log)
        yield log


@pytest.fixture(scope="module")
def deployment(server: Server, worker: Path) -> dict[str, Any]:
    """The deployment, made from the checkout's own file as the documentation says."""
    server.cli("deploy", "--all", "--prefect-file", FILE)
    made: dict[str, Any] = server.ask("GET", f"deployments/name/her2-cohort/{DEPLOYMENT['name']}")
    return made


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cohorts.write_cohort(tmp_path_factory.mktemp("cohort"), (*SCORED, *BAD, *EXCLUDED))


@pytest.fixture(scope="module")
def finished(
    server: Server, worker: Path, deployment: dict[str, Any], manifest: Path, out: Path
) -> dict[str, Any]:
    """The flow run that a second schedule, every 15 s, started on the worker; it was then paused."""
    parameters = {"manifest": str(manifest), "out": str(out), "config": str(manifest.parent / "config.yaml")}
    schedule = {"interval": 15, "anchor_date": datetime.now(UTC).isoformat(), "timezone": "UTC"}
    (made,) = server.ask(
        "POST",
        f"deployments/{deployment['id']}/schedules",
        [{"active": True, "schedule": schedule, "parameters": parameters}],
    )

    def in_state(*states: str) -> list[dict[str, Any]]:
        runs = server.runs("flow_runs", flow_runs={"state": {"type": {"any_": list(states)}}})
        return [run for run in runs if run["parameters"].get("out") == str(out)]

    ended = ("COMPLETED", "FAILED", "CRASHED")
    until("start of a scheduled run", lambda: in_state("RUNNING", *ended), worker)
    server.ask("PATCH", f"deployments/{deployment['id']}/schedules/{made['id']}", {"active": False})
    (run,) = until("end of the scheduled run", lambda: in_state(*ended), worker)
    return run


def test_the_file_names_the_flow_and_its_parameters_and_no_machine() -> None:
    from prefect.flows import load_flow_from_entrypoint

    flow = load_flow_from_entrypoint(DEPLOYMENT["entrypoint"])
    assert set(DEPLOYMENT["parameters"]) == set(inspect.signature(flow.fn).parameters)
    text = (ROOT / FILE).read_text()
    assert str(ROOT) not in text
    assert str(Path.home()) not in text


def test_the_schedule_is_active_and_makes_runs(server: Server, deployment: dict[str, Any]) -> None:
    assert deployment["tags"] == DEPLOYMENT["tags"]
    assert str(ROOT) not in json.dumps(deployment)
    cron = next(s for s in deployment["schedules"] if "cron" in s["schedule"])
    assert (cron["active"], cron["schedule"]["cron"]) == (True, DEPLOYMENT["schedules"][0]["cron"])

    def nightly() -> list[dict[str, Any]]:
        runs = server.runs("flow_runs", flow_runs={"state": {"type": {"any_": ["SCHEDULED"]}}})
        return [
            run for run in runs if run["auto_scheduled"] and run["parameters"] == DEPLOYMENT["parameters"]
        ]

    runs = until("scheduled runs", nightly)
    assert {datetime.fromisoformat(r["expected_start_time"]).strftime("%H:%M") for r in runs} == {"01:00"}


def test_a_run_that_the_schedule_started_says_how_its_slides_ended(finished: dict[str, Any]) -> None:
    """Completed, because all that can be had is published; Partial, because two slides cannot be read."""
    assert finished["auto_scheduled"]
    assert set(finished["tags"]) == {"her2", "auto-scheduled"}
    state = finished["state"]
    assert (state["type"], state["name"]) == ("COMPLETED", "Partial")
    assert state["message"] == "5 slides: 2 scored, 2 quarantined, 1 skipped"


def test_tables_and_pictures_are_written(finished: dict[str, Any], out: Path) -> None:
    tables = cohorts.tables(str(out))
    states = dict(tables["slides"].select("slide_id", "state").iter_rows())
    ends = ((SCORED, "scored"), (BAD, "quarantined"), (EXCLUDED, "skipped"))
    assert states == {name: state for names, state in ends for name in names}
    counts = dict(tables["cells"].group_by("slide_id").len().iter_rows())
    assert set(counts) == {"two"}
    assert min(counts.values()) > 100
    (run,) = pl.read_delta(f"{out}/tables/runs").to_dicts()
    assert (run["state"], run["n_scored"]) == ("partial", 2)


def test_one_task_run_a_slide_and_none_a_chunk(server: Server, finished: dict[str, Any]) -> None:
    def all_ended() -> list[dict[str, Any]]:  # the server records task runs a moment later
        runs = server.runs("task_runs", task_runs={"flow_run_id": {"any_": [finished["id"]]}})
        return runs if len(runs) > len(SLIDES) and all(r["state_type"] != "RUNNING" for r in runs) else []

    runs = until("task runs", all_ended)
    slides = {run["name"]: run for run in runs if run["task_key"].startswith("slide")}
    assert set(slides) == SLIDES
    kinds = Counter(run["task_key"].split("-")[0] for run in runs)
    assert kinds == {"slide": len(SLIDES), "tables": 1, "report": 1}
    assert all(run["tags"] == ["her2"] for run in runs)
    assert {n for n, run in slides.items() if run["state_type"] == "COMPLETED"} == SLIDES - set(BAD)
    assert {n for n, run in slides.items() if run["state_type"] == "FAILED"} == set(BAD)
    assert cohorts.BAD["broken"] in slides["broken"]["state"]["message"]


def test_artifacts_show_progress_table_and_pictures(
    server: Server, finished: dict[str, Any], out: Path
) -> None:
    found = server.runs("artifacts", artifacts={"flow_run_id": {"any_": [finished["id"]]}})
    by_key = {artifact["key"]: artifact for artifact in found}
    assert {key: artifact["type"] for key, artifact in by_key.items()} == {
        "her2-progress": "progress",
        "her2-cohort": "table",
        "her2-cases": "table",
        "her2-pictures": "markdown",
        "her2-report": "markdown",
    }
    assert len(found) == 5
    (report,) = (out / "report").glob("*/her2-report-*.html")
    assert f"(file://{report})" in by_key["her2-report"]["data"]
    assert by_key["her2-progress"]["data"] == 100.0
    rows = json.loads(by_key["her2-cohort"]["data"])
    assert {row["slide"]: row["score"] for row in rows} == dict.fromkeys(SLIDES, "–") | SCORED
    assert "broken.tif" in next(row["why"] for row in rows if row["slide"] == "broken")
    page = by_key["her2-pictures"]["data"]
    pictures = [
        path
        for path in (*(out / "pictures").glob("*.jpg"), out / "pictures" / "cohort.png")
        if not re.search("-(regions|fields)-", path.name)
    ]
    assert len(pictures) == len(SCORED) + 1
    assert all(f"(file://{picture})" in page for picture in pictures)
    inside = base64.b64encode((out / "pictures" / "cohort.png").read_bytes()).decode()
    assert f"(data:image/png;base64,{inside})" in page
    cases = {row["case"]: row["HER2 status"] for row in json.loads(by_key["her2-cases"]["data"])}
    assert (cases["case-two"], cases["case-broken"]) == ("Positive", "Indeterminate")


def test_the_log_of_a_slide_is_in_the_server(server: Server, finished: dict[str, Any]) -> None:
    logs = server.runs("logs", logs={"flow_run_id": {"any_": [finished["id"]]}})
    for stage in ("two: cells", "fish: nuclei"):
        (line,) = [entry for entry in logs if re.fullmatch(rf"{stage} (\d+)/\1", entry["message"])]
        assert line["task_run_id"]


def test_her2_run_uses_the_server_and_a_cohort_without_a_score_is_failed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("slide_id,case_id,uri,assay\ngone,c1,gone.tif,HER2-IHC\n")
    monkeypatch.setenv("PREFECT_API_URL", server.api)
    monkeypatch.setenv("HER2_RUN__WORKERS", "1")
    done = cohorts.her2("run", str(manifest), "--out", str(tmp_path / "out"), "--json")
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["states"] == {"quarantined": 1}
    (run,) = server.runs("flow_runs", flow_runs={"deployment_id": {"is_null_": True}})
    assert (run["state_type"], run["state"]["message"]) == ("FAILED", "1 slide: 1 quarantined")


def test_a_server_that_is_not_there_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("slide_id,case_id,uri,assay\ngone,c1,gone.tif,HER2-IHC\n")
    monkeypatch.setenv("PREFECT_API_URL", "http://user:secret@127.0.0.1:9/api")
    done = cohorts.her2("run", str(manifest), "--out", str(tmp_path / "out"))
    assert done.returncode == 3, done.stderr
    assert "no usable Prefect server at PREFECT_API_URL" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
    assert not (tmp_path / "out" / "journal").exists()


def test_an_address_without_api_is_told(server: Server) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with (
        temporary_settings({PREFECT_API_URL: server.api.removesuffix("/api")}),
        pytest.raises(ServerError, match="ends in /api"),
    ):
        check_server()
    with temporary_settings({PREFECT_API_URL: server.api}):
        check_server()


def test_a_run_whose_pod_is_told_to_end_is_scheduled_anew_and_resumes(
    server: Server, deployment: dict[str, Any], manifest: Path, tmp_path: Path
) -> None:
    """As an evicted pod has it: SIGTERM to its one process, and another pod that executes the same run."""
    slides = cohorts.write_manifest(manifest.parent / "evicted.csv", "fish", "two")
    out, config = tmp_path / "out", str(manifest.parent / "config.yaml")
    server.ask("POST", "work_pools/", {"name": "elsewhere", "type": "process"})
    same = ("flow_id", "entrypoint", "path", "pull_steps", "tags", "concurrency_options")
    limit = {"concurrency_limit": deployment["global_concurrency_limit"]["limit"]}
    own = {"name": "evicted", "work_pool_name": "elsewhere"} | limit
    elsewhere = server.ask("POST", "deployments/", {name: deployment[name] for name in same} | own)
    parameters = {"manifest": str(slides), "out": str(out), "config": config, "cluster": "local", "only": []}
    run = server.ask("POST", f"deployments/{elsewhere['id']}/create_flow_run", {"parameters": parameters})
    environment = server.environment | {
        "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "reschedule",  # Prefect's worker sets it, see the chart
        "HER2_RUN__SLIDES_IN_FLIGHT": "1",
    }
    words, log = [PREFECT, "flow-run", "execute", run["id"]], tmp_path / "log"
    with log.open("wb") as said:
        pod = subprocess.Popen(words, env=environment, cwd=tmp_path, stdout=said, stderr=said)
    try:
        until("a finished slide", lambda: list(out.glob("stages/slide/*.json")), log)
        pod.terminate()
        assert pod.wait(120) == 0, log.read_text()
    finally:
        pod.kill()
    state = server.ask("GET", f"flow_runs/{run['id']}")["state"]
    assert state["type"] == "SCHEDULED", log.read_text()
    before = cohorts.published(out)
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True)
    state = server.ask("GET", f"flow_runs/{run['id']}")["state"]
    assert (state["type"], state["message"]) == ("COMPLETED", "2 slides: 2 scored"), done.stderr
    assert before.items() <= cohorts.published(out).items()
