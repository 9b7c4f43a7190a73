"""Run one function over many items on a Dask cluster: a bounded number at a time, blaming no innocent.

A worker that dies accuses nobody: machines are taken away, and neighbours use memory up. A task whose workers
died too often becomes a suspect, and is tried again when nothing else runs on the cluster. Only what ends its
workers then as well, while no other worker dies, is the cause.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from distributed import Client, Future, KilledWorker
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError

from her2core.errors import ClusterError, Her2Error

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

CONVICTIONS = 3
"""A suspect is the cause when it alone has ended its workers this often (each time `allowed-failures` + 1 of
them) and no other worker died meanwhile. Ours: an outside hand would have to hit it every time."""
MOST_TRIES = 6
"""Tries alone, counted or not, after which the cause of the workers' deaths counts as unknown. Ours."""
ALONE_PAUSE_S = 10.0
"""Pause before the second try alone, twice that before the third and so on, while the others go on. Ours."""
SHARES = 4
"""Tasks for every worker that a slide has to itself: an uneven end idles some a quarter of a stage. Ours."""
LEAST_SLIDES = 4
"""Slides in flight on any cluster: one waits for the driver while others compute. Ours."""
MOST_SLIDES = 1024
"""Slides in flight on one cluster, each a thread of the driver. Ours."""
WATCH_S = 5.0
"""How often the cluster is looked at."""
NO_WORKERS_S = 600.0
"""A cluster without a worker for so long is given up. Ours: longer than a node takes to come up."""

LOST = (CancelledError, ClosedClientError, CommClosedError)
"""What an unfinished task raises when the scheduler is gone."""


class RunOverError(Her2Error):
    """The run is over; what is not done is left to the next one."""


class TooLongError(Exception):
    """The deadline passed. Not a `TimeoutError`: connections raise that, and it may pass.

    Parameters
    ----------
    at_work
        Whether a worker was busy with it; else it had only waited behind others.
    """

    def __init__(self, at_work: bool = True) -> None:
        super().__init__(at_work)
        self.at_work = at_work


class WorkersDiedError(Exception):
    """An item's workers died, again and again.

    Parameters
    ----------
    index
        Which item.
    deaths
        Workers that died with it.
    alone
        How often it was tried when nothing else ran.
    guilty
        Whether nothing else can be the cause; otherwise workers died beside it as well.
    """

    def __init__(self, index: int, deaths: int, alone: int, *, guilty: bool) -> None:
        super().__init__(index, deaths, alone, guilty)
        self.index, self.deaths, self.alone, self.guilty = index, deaths, alone, guilty


class Workers:
    """The Dask cluster of a run as its slides share it: who may send tasks now, and whether it is over.

    Parameters
    ----------
    client
        The run's client; shared between threads.
    address
        What messages call the cluster.
    pause_s
        As `ALONE_PAUSE_S`.
    """

    def __init__(
        self, client: Client, address: str = "the local cluster", *, pause_s: float = ALONE_PAUSE_S
    ) -> None:
        self.client, self.address, self.pause_s = client, address, pause_s
        self.over: Her2Error | None = None
        self.size = 1
        self.slides = 0
        self.when_resized: Callable[[], None] | None = None
        self._turn = threading.Condition()
        self._running: set[Future[Any]] = set()
        self._alone: threading.Thread | None = None
        self._arrivals: set[SimpleQueue[Future[Any] | None]] = set()
        self._closed = threading.Event()

    def stop(self, why: Her2Error) -> None:
        """End all that runs: every `fan_out` raises ``why``, now and from now on."""
        with self._turn:
            self.over = self.over or why
            for arrivals in self._arrivals:
                arrivals.put(None)
            self._turn.notify_all()
        self._closed.set()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look after the cluster: a lost scheduler or missing workers stop the run with `ClusterError`."""
        with suppress(Exception):
            self._count()
        watch = threading.Thread(target=self._watch, name="her2-watch", daemon=True)
        watch.start()
        try:
            yield
        finally:
            self._closed.set()
            watch.join(WATCH_S)

    def _watch(self) -> None:
        seen = time.monotonic()
        while not self._closed.wait(WATCH_S):
            if self.client.status != "running":
                self.stop(self.lost())
                return
            with suppress(Exception):  # a slow answer is no answer yet; a lost scheduler is reported above
                if self._count():
                    seen = time.monotonic()
            if time.monotonic() - seen > NO_WORKERS_S:
                self.stop(
                    ClusterError(
                        f"no Dask worker at {self.address} for {NO_WORKERS_S:.0f} s; start some (dask worker "
                        "ADDRESS --nthreads 1), and run the same command again to resume"
                    )
                )
                return

    def _count(self) -> int:
        """Count the workers, and notify the listener when their number has changed."""
        found = int(self.client.scheduler_info(n_workers=0)["n_workers"])
        if found and found != self.size:
            self.size = found
            if self.when_resized is not None:
                self.when_resized()
        return found

    @property
    def wanted(self) -> int:
        """Slides to be in flight: as many as there are workers, within bounds."""
        return min(max(self.size, LEAST_SLIDES), MOST_SLIDES)

    def tasks_a_slide(self) -> int:
        """Tasks that one slide should have on the cluster now."""
        return max(SHARES * self.size // max(self.slides, 1), SHARES)

    def lost(self) -> ClusterError:
        """The error to report when the scheduler is gone."""
        return ClusterError(
            f"the Dask scheduler at {self.address} is gone (ended, or cut off by the network); start it, and "
            "run the same command again to resume"
        )

    def tidy(self, function: Callable[..., None], *given: object) -> None:
        """Have every worker clear up; one that dies meanwhile, or a lost scheduler, costs no result."""
        with suppress(Exception):  # what is left is cleared by the next run
            if self.over is None:
                self.client.run(function, *given, on_error="ignore")

    # turns

    def submit(self, function: Callable[[Any], Any], item: Any, key: str, arrivals: Any) -> Future[Any]:
        """Send one task when no other waits to run alone; its future goes to ``arrivals`` when it ends."""
        with self._turn:
            me = threading.current_thread()
            self._turn.wait_for(lambda: self.over or self._alone in (None, me))
            self._check()
            try:
                future = self.client.submit(function, item, key=key, pure=False)
            except LOST:
                raise self.lost() from None
            self._running.add(future)

        def ended(future: Future[Any]) -> None:
            with self._turn:
                self._running.discard(future)
                self._turn.notify_all()
            arrivals.put(future)

        future.add_done_callback(ended)  # type: ignore[no-untyped-call]
        return future

    def forget(self, future: Future[Any]) -> None:
        """Give up a task that may still run."""
        with self._turn:
            self._running.discard(future)
            self._turn.notify_all()
        with suppress(*LOST):
            future.release()  # type: ignore[no-untyped-call]

    @contextmanager
    def alone(self, deadline: float) -> Iterator[None]:
        """Wait until nothing runs, and let nobody else begin anything before the block ends."""
        me = threading.current_thread()
        with self._turn:
            free = self._turn.wait_for(lambda: self.over or self._alone is None, _left(deadline))
            self._check()
            if not free:
                raise TooLongError
            self._alone = me
        try:
            with self._turn:
                empty = self._turn.wait_for(lambda: self.over or not self._running, _left(deadline))
                self._check()
            if not empty:
                raise TooLongError
            yield
        finally:
            with self._turn:
                self._alone = None
                self._turn.notify_all()

    @contextmanager
    def arrivals(self) -> Iterator[SimpleQueue[Future[Any] | None]]:
        """A queue of futures that have ended; None in it ends the run."""
        queue: SimpleQueue[Future[Any] | None] = SimpleQueue()
        with self._turn:
            self._check()
            self._arrivals.add(queue)
        try:
            yield queue
        finally:
            with self._turn:
                self._arrivals.discard(queue)

    def _check(self) -> None:
        if self.over is not None:
            raise self.over

    def pause(self, seconds: float) -> None:
        """Wait, unless the run ends meanwhile."""
        self._closed.wait(seconds)
        self._check()

    # deaths

    def deaths(self) -> dict[str, frozenset[str]]:
        """Workers that left this cluster: what identifies each of these events, and the tasks it had."""
        events = self.client.get_events("all")
        return {
            str(event["stimulus_id"]): frozenset(map(str, event["processing-tasks"]))
            for _, event in events
            if isinstance(event, dict)
            and event.get("action") == "remove-worker"
            and not event.get("expected")
        }

    def end_hanging(self, keys: set[str]) -> bool:
        """End the workers that are busy with tasks nobody waits for; returns whether there were any."""
        with suppress(Exception):  # a cluster that does not answer is reported elsewhere
            stacks = self.client.call_stack(keys=sorted(keys)) if keys else {}  # type: ignore[no-untyped-call]
            busy = [worker for worker, tasks in stacks.items() if keys & set(map(str, tasks))]
            if busy:
                log.warning("ending %d workers whose tasks did not end in time", len(busy))
                self.client.run(_end_process, workers=busy, wait=False, on_error="ignore")
            return bool(busy)
        return True


class Crews:
    """The clusters of a run, among which its slides are dealt: one, or several for a large cohort.

    Not shared between threads: the run's main thread deals.

    Parameters
    ----------
    in_flight
        Slides at the same time on each; if None, as many as a cluster has workers.
    """

    def __init__(self, crews: Sequence[Workers], in_flight: int | None = None) -> None:
        self._crews, self._in_flight = list(crews), in_flight

    @property
    def over(self) -> Her2Error | None:
        """Why the run ends, if it does: what ends one cluster's part ends all, and the next run resumes."""
        return next((crew.over for crew in self._crews if crew.over is not None), None)

    def stop(self, why: Her2Error) -> None:
        """End all that runs."""
        for crew in self._crews:
            crew.stop(why)

    def take(self) -> Workers | None:
        """The cluster that lacks most slides, which gets one more; None if none lacks any."""
        crew = max(self._crews, key=self._lacking)
        if self._lacking(crew) < 1:
            return None
        crew.slides += 1
        return crew

    def give_back(self, crew: Workers) -> None:
        """A slide of this cluster has ended."""
        crew.slides -= 1

    def when_resized(self, notify: Callable[[], None] | None) -> None:
        """Set what is called, from another thread, when workers came or went."""
        for crew in self._crews:
            crew.when_resized = notify

    def _lacking(self, crew: Workers) -> int:
        return (crew.wanted if self._in_flight is None else self._in_flight) - crew.slides


def fan_out(
    workers: Workers,
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    keys: Sequence[str],
    window: int,
    deadline: float,
) -> Iterator[Result]:
    """Yield ``function(item)`` as items finish, with at most ``window`` on the cluster at once.

    Parameters
    ----------
    workers
        The run's cluster; shared between threads.
    function
        Idempotent: it runs again when its worker is lost.
    items
        Small picklable values.
    keys
        One stable name an item: equal keys in flight are computed once.
    window
        Bounds the scheduler's memory and what is lost when the driver dies.
    deadline
        `time.monotonic` value after which the rest is given up.

    Raises
    ------
    TooLongError
        If the deadline passes; what is still in flight is cancelled, and workers that hang are restarted.
    WorkersDiedError
        If an item's workers died, also when nothing else ran.
    ClusterError
        If the scheduler is gone.
    Exception
        The first error of any item, after the rest is cancelled.
    """
    waiting = iter(enumerate(items))
    running: dict[Future[Result], int] = {}
    with workers.arrivals() as arrivals:

        def submit_next() -> None:
            for index, item in waiting:
                running[workers.submit(function, item, keys[index], arrivals)] = index
                return

        try:
            for _ in range(window):
                submit_next()
            while running:
                future = _next(workers, arrivals, deadline)
                index = running.pop(future)
                try:
                    result: Result = _result(workers, future)
                except KilledWorker as killed:
                    # Futures of ours that have ended lie in the queue; those that have not still run.
                    deaths = killed.allowed_failures + 1
                    workers.forget(future)
                    result = _try_alone(workers, function, items[index], index, keys[index], deaths, deadline)
                workers.forget(future)
                submit_next()
                yield result
        except TooLongError:
            at_work = workers.end_hanging({str(future.key) for future in running})
            raise TooLongError(at_work) from None
        finally:
            for future in running:
                workers.forget(future)


async def _end_process() -> None:
    """End a worker from its event loop, which answers while its only thread hangs."""
    await asyncio.sleep(0.1)  # for the answer to go out
    os._exit(1)


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)


def _next(workers: Workers, arrivals: SimpleQueue[Future[Any] | None], deadline: float) -> Future[Any]:
    """The next future that has ended."""
    try:
        future = arrivals.get(timeout=_left(deadline))
    except Empty:
        raise TooLongError from None
    if future is None:
        raise workers.over or RunOverError("the run is over")
    return future


def _result(workers: Workers, future: Future[Result]) -> Result:
    """Result of a future that has ended; a cancelled one means that the scheduler is gone."""
    while True:
        try:
            return future.result(timeout=None if future.status == "error" else WATCH_S)
        except LOST:
            raise workers.over or workers.lost() from None
        except TimeoutError:  # the worker died with the result, and computes it again, or will never
            if future.status == "error" or workers.over:
                raise


def _try_alone(
    workers: Workers,
    function: Callable[[Item], Result],
    item: Item,
    index: int,
    key: str,
    deaths: int,
    deadline: float,
) -> Result:
    """Run a suspect when nothing else runs, until it is cleared, convicted, or the cause stays unknown."""
    log.warning("%s: its workers died %d times; it is tried again alone", key, deaths)
    counted = 0
    for tried in range(MOST_TRIES):
        if tried:
            workers.pause(min(workers.pause_s * tried, _left(deadline)))
        with workers.alone(deadline), workers.arrivals() as arrivals:
            name = f"{key}-alone-{tried}"
            before = workers.deaths()
            future = workers.submit(function, item, name, arrivals)
            try:
                _next(workers, arrivals, deadline)
                result: Result = _result(workers, future)
            except KilledWorker as killed:
                deaths += killed.allowed_failures + 1
            except TooLongError:
                workers.end_hanging({name})
                raise
            else:
                return result
            finally:
                workers.forget(future)
            new = [tasks for event, tasks in workers.deaths().items() if event not in before]
            counted += all(name in tasks for tasks in new)
        if counted == CONVICTIONS:
            raise WorkersDiedError(index, deaths, tried + 1, guilty=True)
    raise WorkersDiedError(index, deaths, MOST_TRIES, guilty=False)
