"""What a run asks of a Dask cluster that is not its own."""

from __future__ import annotations

import os
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import pytest
from distributed import Client, LocalCluster
from distributed.comm.core import CommClosedError

from flows.clusters import local, open_clusters
from flows.clusters.base import check_workers, costs
from flows.clusters.local import WORKER_BYTES, useful_workers
from flows.environment import WORKER_ENVIRONMENT
from her2core.errors import ClusterError, ConfigError
from her2core.records import Assay, SlideRow
from her2core.stages.workers import WorkerFacts

GOOD = {name: str(value) for name, value in WORKER_ENVIRONMENT.items()}


def test_a_cluster_like_ours_costs_nothing() -> None:
    assert list(costs([WorkerFacts("1", GOOD)], [1, 1], 1)) == []
    more = GOOD | {"MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
    assert list(costs([WorkerFacts("1", more)], [1], None)) == []


@pytest.mark.parametrize(
    ("environment", "threads", "failures", "says"),
    [
        ({}, 4, 1, "--nthreads 1"),
        ({}, 1, 3, "ALLOWED_FAILURES=1"),
        ({"MALLOC_TRIM_THRESHOLD_": "65536"}, 1, 1, "MALLOC_TRIM_THRESHOLD_=1073741824"),
        ({"OMP_NUM_THREADS": None}, 1, 1, "OMP_NUM_THREADS=1"),
    ],
)
def test_what_costs_time_is_told_with_its_remedy(
    environment: dict[str, str | None], threads: int, failures: int, says: str
) -> None:
    facts = [WorkerFacts("1", GOOD), WorkerFacts("1", GOOD | environment)]
    (line,) = costs(facts, [1, threads], failures)
    assert says in line


@pytest.mark.filterwarnings("ignore:Port .* is already in use")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_workers_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = {"dashboard_address": None, "silence_logs": 50, "processes": False}
    with LocalCluster(1, **quiet) as local, Client(local) as client:  # type: ignore[no-untyped-call]
        check_workers(client, "tcp://there")
        monkeypatch.setattr("flows.clusters.base.version", lambda name: "9.9")
        with pytest.raises(ClusterError, match=r"and this is 9\.9"):
            check_workers(client, "tcp://there")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (CommClosedError("reset by peer"), None),
        (ModuleNotFoundError("No module named 'her2core'"), "install her2cohort"),
        (KeyError("odd"), "odd"),
    ],
)
def test_a_worker_that_dies_while_it_is_asked_is_left_out(answer: Exception, says: str | None) -> None:
    class Asked:
        def run(self, *_: object, **__: object) -> dict[str, object]:
            return {"a": answer, "b": WorkerFacts(version("her2cohort"), GOOD)}

        def nthreads(self) -> dict[str, int]:
            return {"b": 1}

        def run_on_scheduler(self, *_: object) -> int:
            return 1

    with nullcontext() if says is None else pytest.raises((ClusterError, KeyError), match=says):
        check_workers(Asked(), "tcp://there")  # type: ignore[arg-type]


def test_several_schedulers_share_a_run_by_one_parameter() -> None:
    named = open_clusters("tcp://a:8786,tls://b:8786")
    assert [one.title for one in named] == ["tcp://a:8786", "tls://b:8786"]
    for wrong in ("tcp://a:8786,tcp://a:8786", "local,tcp://a:8786", "tcp://a:8786,"):
        with pytest.raises(ConfigError, match="each once"):
            open_clusters(wrong)
    with pytest.raises(ConfigError, match="expected local"):
        open_clusters("tcp://a:8786,tcp://b")


def test_a_small_slide_starts_no_worker_that_would_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "cpu_count", lambda: 8)

    def rows(*names: str, exclude: str | None = None) -> list[SlideRow]:
        return [SlideRow(name, "c", str(tmp_path / name), Assay.IHC, exclude=exclude) for name in names]

    for name, size in (("a.tif", 1000), ("b.SVS", 3 * WORKER_BYTES + 1), ("c.mrxs", 1000)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    assert useful_workers(rows("a.tif")) == 1
    assert useful_workers(rows("a.tif", "a.tif")) == 2
    assert useful_workers(rows("b.SVS")) == 4
    assert useful_workers(rows(*(["b.SVS"] * 9))) == 8
    assert useful_workers(rows("a.tif", "c.mrxs")) is None  # its pixels lie in other files
    assert useful_workers(rows("a.tif", "gone.tif")) is None
    assert useful_workers(rows("c.mrxs", exclude="broken") + rows("a.tif")) == 1


def test_processors_are_those_that_are_left_to_us(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    rows = [SlideRow(name, "c", str(tmp_path / "a.tif"), Assay.IHC) for name in "abcdefgh"]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert useful_workers(rows) == 1
    finally:
        os.sched_setaffinity(0, before)
