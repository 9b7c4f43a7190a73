"""Tasks on a real cluster while workers die, hang and lose their scheduler; and who is blamed for it."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster
from distributed.comm.core import CommClosedError

from flows.clusters import SETTINGS
from her2core.errors import ClusterError
from her2core.pipeline import shares
from her2core.stages.fanout import (
    CONVICTIONS,
    LEAST_SLIDES,
    MOST_SLIDES,
    MOST_TRIES,
    Crews,
    RunOverError,
    TooLongError,
    Workers,
    WorkersDiedError,
    fan_out,
)
from her2core.stages.tasks import Share

pytestmark = [
    pytest.mark.timeout(120),
    # Dask leaves the socket open that it tried first.
    pytest.mark.filterwarnings("ignore:Port .* is already in use"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def work(item: str) -> str:
    """What the worker does: dies, hangs, fails, or gives the item back."""
    match item.split():
        case ["poison"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["hang"]:
            time.sleep(3600)
        case ["slow", seconds]:
            time.sleep(float(seconds))
        case ["deadly", folder, times]:  # dies that often, then works: somebody else was to blame
            deaths = len(list(Path(folder).iterdir()))
            if deaths < int(times):
                (Path(folder) / str(deaths)).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        case ["timeout"]:
            raise TimeoutError("a connection's")
    return item


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    quiet = {"dashboard_address": None, "silence_logs": 50}
    with (
        dask.config.set(SETTINGS),
        LocalCluster(2, threads_per_worker=1, **quiet) as local,  # type: ignore[no-untyped-call]
    ):
        yield local


@pytest.fixture
def workers(cluster: LocalCluster) -> Iterator[Workers]:
    with Client(cluster) as client:  # type: ignore[no-untyped-call]
        client.wait_for_workers(2)  # type: ignore[no-untyped-call]
        yield Workers(client, pause_s=0.1)


def run(workers: Workers, items: Sequence[str], name: str = "task", for_s: float = 120) -> list[str]:
    keys = [f"{name}-{i}-{random.random()}" for i in range(len(items))]
    deadline = time.monotonic() + for_s
    return sorted(fan_out(workers, work, items, keys=keys, window=3, deadline=deadline))


def test_every_item_comes_back(workers: Workers) -> None:
    items = [str(i) for i in range(10)]
    assert run(workers, items) == items
    assert run(workers, []) == []


def test_the_poison_is_named_and_its_neighbours_are_not(workers: Workers) -> None:
    """Another slide works on beside it, and loses workers to nobody's blame."""
    beside: list[str] = []
    items = [f"slow 0.{i}" for i in range(1, 9)]
    other = threading.Thread(target=lambda: beside.extend(run(workers, items, "other")))
    other.start()
    with pytest.raises(WorkersDiedError) as caught:
        run(workers, ["a", "poison", "b"])
    other.join()
    assert beside == items
    died = caught.value
    assert (died.index, died.guilty, died.alone) == (1, True, CONVICTIONS)
    assert died.deaths == 2 + 2 * CONVICTIONS


def test_who_died_by_an_outside_hand_is_scored(workers: Workers, tmp_path: Path) -> None:
    assert CONVICTIONS > 1
    items = ["a", f"deadly {tmp_path} 3", "b"]
    assert run(workers, items) == sorted(items)


def test_nobody_is_blamed_while_other_workers_die(
    workers: Workers, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other worker is seen to die in every try: something else than the task is at work."""
    seen = iter(range(1000))
    real = Workers.deaths

    def deaths(self: Workers) -> dict[str, frozenset[str]]:
        return real(self) | {f"elsewhere-{next(seen)}": frozenset()}

    monkeypatch.setattr(Workers, "deaths", deaths)
    monkeypatch.setattr("her2core.stages.fanout.MOST_TRIES", 2)
    assert MOST_TRIES > CONVICTIONS
    with pytest.raises(WorkersDiedError) as caught:
        run(workers, ["poison"])
    assert not caught.value.guilty


def test_a_task_that_hangs_frees_its_worker(workers: Workers) -> None:
    behind: list[bool] = []

    def wait() -> None:
        try:
            run(workers, ["a"], "behind", for_s=2)
        except TooLongError as error:
            behind.append(error.at_work)

    other = threading.Timer(1, wait)
    other.start()
    with pytest.raises(TooLongError) as caught:
        run(workers, ["hang", "hang", "hang"], for_s=4)
    assert caught.value.at_work
    other.join()
    assert behind == [False]
    assert run(workers, ["a", "b", "c"], for_s=60) == ["a", "b", "c"]


def test_a_timeout_of_the_task_itself_is_no_deadline(workers: Workers) -> None:
    with pytest.raises(TimeoutError, match="a connection's"):
        run(workers, ["timeout"])


def test_a_run_that_is_over_ends_at_once(workers: Workers) -> None:
    threading.Timer(0.5, lambda: workers.stop(RunOverError("interrupted"))).start()
    began = time.monotonic()
    with pytest.raises(RunOverError, match="interrupted"):
        run(workers, ["slow 20", "slow 20", "slow 20"])
    assert time.monotonic() - began < 10
    with pytest.raises(RunOverError):
        run(workers, ["a"])


def test_a_lost_scheduler_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("her2core.stages.fanout.WATCH_S", 0.2)
    quiet = {"dashboard_address": None, "silence_logs": 50, "processes": False}
    local = LocalCluster(n_workers=1, **quiet)  # type: ignore[no-untyped-call]
    client = Client(local.scheduler_address, timeout=1, set_as_default=False)  # type: ignore[no-untyped-call]
    workers = Workers(client, "tcp://there:8786")
    threading.Timer(1.0, local.close).start()
    with workers.watched(), pytest.raises(ClusterError, match="scheduler at tcp://there:8786 is gone"):
        run(workers, ["slow 2", "slow 2"])
    client.close()  # type: ignore[no-untyped-call]


def test_a_worker_that_dies_while_it_clears_up_costs_nothing() -> None:
    """As one that is ended since its task hung, when that was the last of a run."""
    asked: list[dict[str, object]] = []

    class Dying:
        status = "running"

        def run(self, function: object, *given: object, **how: object) -> None:
            asked.append(how)
            raise CommClosedError("in <TCP (closed) Scheduler Broadcast>: Connection reset by peer")

    workers = Workers(Dying())  # type: ignore[arg-type]
    workers.tidy(print, "scratch")
    assert asked == [{"on_error": "ignore"}]
    workers.stop(RunOverError("interrupted"))
    workers.tidy(print, "scratch")
    assert len(asked) == 1


def test_a_cluster_without_workers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("her2core.stages.fanout.WATCH_S", 0.1)
    monkeypatch.setattr("her2core.stages.fanout.NO_WORKERS_S", 0.5)
    quiet = {"dashboard_address": None, "silence_logs": 50, "processes": False}
    with LocalCluster(n_workers=0, **quiet) as local, Client(local) as client:  # type: ignore[no-untyped-call]
        workers = Workers(client)
        with workers.watched(), pytest.raises(ClusterError, match="no Dask worker"):
            run(workers, ["a"])


def test_slides_are_dealt_to_the_cluster_that_has_the_fewest_and_what_ends_one_ends_all() -> None:
    class Idle(Workers):
        def __init__(self) -> None:
            super().__init__(None)

    first, second = Idle(), Idle()
    crews = Crews([first, second], in_flight=2)
    taken = [crews.take() for _ in range(5)]
    assert [taken.count(crew) for crew in (first, second, None)] == [2, 2, 1]
    crews.give_back(second)
    assert crews.take() is second
    assert crews.over is None
    second.stop(why := ClusterError("gone"))
    assert crews.over is why
    crews.stop(RunOverError("ended"))
    assert second.over is why
    assert isinstance(first.over, RunOverError)


def test_slides_in_flight_follow_the_workers_and_a_slide_alone_gets_them_all() -> None:
    class Growing(Workers):
        def __init__(self) -> None:
            super().__init__(None)

    crew = Growing()
    crews = Crews([crew])
    found = []
    for crew.size in (2, 100, 40, 5000):
        while crews.take() is not None:
            pass
        found.append((crew.slides, crew.tasks_a_slide()))
    assert found == [(LEAST_SLIDES, 4), (100, 4), (100, 4), (MOST_SLIDES, 19)]
    crew.slides = 1
    crew.size = 16
    assert crew.tasks_a_slide() == 64


def test_workers_that_come_and_go_are_counted_and_told_of(workers: Workers) -> None:
    told: list[int] = []
    workers.when_resized = lambda: told.append(workers.size)
    with workers.watched():
        assert told == [2]
        assert workers.wanted == LEAST_SLIDES


@pytest.mark.parametrize(
    ("items", "most", "tasks_a_slide", "count"),
    [(121, 32, 4, 4), (121, 12, 4, 11), (121, 12, 64, 64), (3, 32, 8, 3), (0, 32, 4, 1)],
)
def test_a_slide_is_cut_into_as_many_tasks_as_there_is_room_for(
    items: int, most: int, tasks_a_slide: int, count: int
) -> None:
    assert shares(items, most, tasks_a_slide) == count
    work = list(range(items))
    for cut in (Share.slice, Share.deal):
        given = [cut(Share(number, count), work) for number in range(count)]
        assert sorted(item for share in given for item in share) == work
        assert max(map(len, given)) - min(map(len, given)) <= 1
