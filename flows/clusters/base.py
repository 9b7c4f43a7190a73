"""What every Dask cluster of a run has: settings, requirements on its workers, and the Protocol."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import Protocol

import dask
from distributed import Client

from flows.environment import WORKER_ENVIRONMENT
from her2core.errors import ClusterError
from her2core.stages.workers import WorkerFacts, dask_setup, worker_facts

log = logging.getLogger("her2core.cluster")

PACKAGE = "her2cohort"
SETTINGS = {
    # A worker takes 10-20 s to import what it needs on a busy machine; the default drops it after 15 s.
    "distributed.deploy.lost-worker-timeout": "5 minutes",
    # Without this a run waits for ever when its last worker is gone.
    "distributed.scheduler.no-workers-timeout": "10 minutes",
    # A task that two workers died with is a suspect; it is tried again alone before it is blamed.
    "distributed.scheduler.allowed-failures": 1,
    # A worker holds the one task that it works on, so that no other is suspected with it.
    "distributed.scheduler.worker-saturation": 1.0,
    # Dask's look at itself, 100 stacks and 50 clock ticks a second, is a twentieth of a run's processor time,
    # and without a dashboard it is not seen.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.worker.preload": [dask_setup.__module__],
    **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in WORKER_ENVIRONMENT.items()},
}
"""Dask's configuration of a cluster that is ours, by dotted names."""

CHECK_S = 10
"""Patience for a scheduler that is only checked for being there. Ours."""


class Cluster(Protocol):
    """Where the chunk tasks of a run go.

    Attributes
    ----------
    title
        What messages call it.
    count
        How many clusters of this kind share a run's slides.
    """

    @property
    def title(self) -> str: ...

    @property
    def count(self) -> int: ...

    def connect(self) -> AbstractContextManager[Client]:
        """The run's one client; whatever was started for it is gone when the block ends.

        Raises
        ------
        ClusterError
            If the cluster cannot be had.
        """
        ...

    def check(self) -> None:
        """See whether the cluster could be had, for a run that is only planned.

        Raises
        ------
        ConfigError, ClusterError
            As `connect` does.
        """
        ...


def quieten() -> None:
    """Leave it to the run to report what happens to workers and scheduler; Dask adds tracebacks."""
    for name in ("asyncio", "distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def check_workers(client: Client, address: str) -> None:
    """Refuse workers that would give wrong results, and warn of settings that cost time.

    A missing time limit for workers needs no look: the run has its own (`NO_WORKERS_S`).

    Raises
    ------
    ClusterError
        If workers do not have this package, or another version of it.
    """
    answers: dict[str, WorkerFacts | Exception] = client.run(
        worker_facts, tuple(WORKER_ENVIRONMENT), on_error="return"
    )
    found: dict[str, WorkerFacts] = {}
    for name, answer in answers.items():
        if isinstance(answer, (ImportError, AttributeError)):
            raise ClusterError(
                f"workers at {address} cannot run {PACKAGE} ({answer}); install {PACKAGE} {version(PACKAGE)} "
                "there"
            )
        if isinstance(answer, WorkerFacts):
            found[name] = answer
        elif not isinstance(answer, OSError):  # of a worker that died just now
            raise answer
    for name, facts in found.items():
        if facts.version != version(PACKAGE):
            raise ClusterError(
                f"worker {name} at {address} has {PACKAGE} {facts.version}, and this is {version(PACKAGE)}: "
                "results would be filed under the wrong version; install the same one everywhere"
            )
    threads: dict[str, int] = client.nthreads()  # type: ignore[no-untyped-call]
    failures = client.run_on_scheduler(  # type: ignore[no-untyped-call]
        dask.config.get, "distributed.scheduler.allowed-failures", None
    )
    for line in costs(found.values(), threads.values(), failures):
        log.warning("cluster %s: %s", address, line)


def costs(found: Iterable[WorkerFacts], threads: Iterable[int], failures: object) -> Iterator[str]:
    """What is set otherwise than on a local cluster, what that costs, and what to set."""
    if any(count > 1 for count in threads):
        yield "workers have several threads, which share memory and die together; use --nthreads 1"
    if failures not in (None, 1):
        yield (
            f"allowed-failures is {failures}: a slide that ends its workers ends many before it is named; "
            "set DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=1 for the scheduler"
        )
    settings = {setting for facts in found for setting in facts.environment.items()}
    missing = sorted({name for name, is_set in settings if not _serves(name, is_set)})
    if missing:
        wanted = " ".join(f"{name}={WORKER_ENVIRONMENT[name]}" for name in missing)
        yield f"workers take more time or memory than they need; start them with {wanted}"


def _serves(variable: str, is_set: str | None) -> bool:
    """Whether a worker's variable is what we require: thresholds may be higher, thread counts are 1."""
    wanted = WORKER_ENVIRONMENT[variable]
    if is_set is None or not is_set.isdecimal():
        return False
    return int(is_set) >= wanted if variable.startswith("MALLOC") else int(is_set) == wanted
