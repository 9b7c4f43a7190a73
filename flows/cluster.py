"""The one Dask client of a run: an embedded local cluster, or an existing scheduler by address."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing.resource_tracker import ensure_running
from urllib.parse import urlsplit

import dask
from distributed import Client, LocalCluster

from her2core.errors import ClusterError, ConfigError
from her2core.stages.steps import WorkerFacts, worker_facts
from her2core.text import shown

log = logging.getLogger("her2core.cluster")

PACKAGE = "her2cohort"
WORKER_ENVIRONMENT = {
    # Giving freed pages back at once makes every reused buffer a fresh page fault.
    "MALLOC_TRIM_THRESHOLD_": 1 << 30,
    "MALLOC_MMAP_THRESHOLD_": 1 << 30,
    # Chunk work is single-threaded by design; nested thread pools would only fight over cores.
    "OMP_NUM_THREADS": 1,
    "OPENBLAS_NUM_THREADS": 1,
    "NUMBA_NUM_THREADS": 1,
}
"""What a worker's environment holds before it starts."""

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
    # and without a dashboard nobody sees it.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in WORKER_ENVIRONMENT.items()},
}


CHECK_S = 10
"""Patience for a scheduler of which only is asked whether it is there. Ours."""


def check_address(cluster: str) -> None:
    """Refuse what is neither ``local`` nor a scheduler's address, with `ConfigError`."""
    if cluster == "local":
        return
    expected = "expected local, tcp://HOST:PORT or tls://HOST:PORT"
    if "@" in cluster or "?" in cluster:
        raise ConfigError(f"cluster carries a user name or a query; {expected}")
    try:
        parts = urlsplit(cluster)
        whole = parts.scheme in ("tcp", "tls") and parts.hostname and parts.port and parts.path in ("", "/")
    except ValueError:  # a port that is none
        whole = False
    if not whole:
        raise ConfigError(f"cluster is {shown(cluster)}; {expected}")


def check_scheduler(cluster: str) -> None:
    """See that somebody answers at a scheduler's address, for a run that is only planned.

    Raises
    ------
    ConfigError, ClusterError
        As `connect` does.
    """
    check_address(cluster)
    if cluster != "local":
        with connect(cluster, timeout_s=CHECK_S):
            pass


def _local_cluster(workers: int) -> LocalCluster:
    """Worker processes that a terminal's signals do not reach: the run ends them.

    A thread and a process begin with the blocked signals of the thread that starts them, so that this holds
    for workers that are started again as well.
    """
    ensure_running()  # multiprocessing's tracker unblocks signals where it is started
    mine = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        with warnings.catch_warnings():  # where its usual port is taken, Dask says so and takes another one
            warnings.filterwarnings("ignore", message="(?s)Port .* is already in use")
            return LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mine)


@contextmanager
def connect(cluster: str, workers: int | None = None, timeout_s: int = 60) -> Iterator[Client]:
    """Yield the client of a run.

    Parameters
    ----------
    cluster
        ``local`` for worker processes on this machine, or the address of a scheduler
        (``tcp://host:8786``, ``tls://host:8786``; TLS files come from Dask's own configuration).
    workers
        Worker processes of a local cluster; one a core by default.
    timeout_s
        Patience for the scheduler's answer.

    Raises
    ------
    ConfigError
        If the address is neither.
    ClusterError
        If nobody answers there.
    """
    check_address(cluster)
    # What happens to workers and scheduler a run tells in its own words; Dask adds tracebacks.
    for name in ("asyncio", "distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if cluster == "local":
        with (
            dask.config.set(SETTINGS),
            _local_cluster(workers or os.cpu_count() or 1) as local,
            Client(local) as client,  # type: ignore[no-untyped-call]
        ):
            yield client
    else:
        try:
            client = Client(cluster, timeout=f"{timeout_s}s", set_as_default=False)  # type: ignore[no-untyped-call]
        except OSError as error:
            raise ClusterError(
                f"no Dask scheduler answers at {cluster} ({error}); start one, or use --cluster local"
            ) from error
        with client:
            check_workers(client, cluster)
            yield client


def check_workers(client: Client, address: str) -> None:
    """Look at a cluster that is not ours: refuse what would give wrong results, tell what costs time.

    A missing time limit for workers needs no look: the run has its own (`NO_WORKERS_S`).

    Raises
    ------
    ClusterError
        If workers do not have this package, or another version of it.
    """
    try:
        found: dict[str, WorkerFacts] = client.run(worker_facts, tuple(WORKER_ENVIRONMENT))
    except (ImportError, AttributeError) as error:
        raise ClusterError(
            f"workers at {address} cannot run {PACKAGE} ({error}); install {PACKAGE} {version(PACKAGE)} there"
        ) from None
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
    """Whether a worker's variable is what we want: thresholds may be higher, thread counts are 1."""
    wanted = WORKER_ENVIRONMENT[variable]
    if is_set is None or not is_set.isdecimal():
        return False
    return int(is_set) >= wanted if variable.startswith("MALLOC") else int(is_set) == wanted
