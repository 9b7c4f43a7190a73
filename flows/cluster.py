"""The one Dask client of a run: an embedded local cluster, or an existing scheduler by address."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.resource_tracker import ensure_running

import dask
from distributed import Client, LocalCluster

from her2core.errors import ClusterError, ConfigError

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
    # Giving freed pages back at once makes every reused buffer a fresh page fault.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 1 << 30,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 1 << 30,
    # Chunk work is single-threaded by design; nested thread pools would only fight over cores.
    "distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": 1,
    "distributed.nanny.pre-spawn-environ.OPENBLAS_NUM_THREADS": 1,
    "distributed.nanny.pre-spawn-environ.NUMBA_NUM_THREADS": 1,
}


def check_address(cluster: str) -> None:
    """Refuse what is neither ``local`` nor a scheduler's address, with `ConfigError`."""
    if cluster != "local" and not cluster.startswith(("tcp://", "tls://")):
        raise ConfigError(f"cluster is {cluster!r}; expected local, tcp://HOST:PORT or tls://HOST:PORT")


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
def connect(cluster: str, workers: int | None = None) -> Iterator[Client]:
    """Yield the client of a run.

    Parameters
    ----------
    cluster
        ``local`` for worker processes on this machine, or the address of a scheduler
        (``tcp://host:8786``, ``tls://host:8786``; TLS files come from Dask's own configuration).
    workers
        Worker processes of a local cluster; one a core by default.

    Raises
    ------
    ConfigError
        If the address is neither.
    ClusterError
        If nobody answers there.
    """
    check_address(cluster)
    if cluster == "local":
        with (
            dask.config.set(SETTINGS),
            _local_cluster(workers or os.cpu_count() or 1) as local,
            Client(local) as client,  # type: ignore[no-untyped-call]
        ):
            yield client
    else:
        try:
            client = Client(cluster, timeout="60s", set_as_default=False)  # type: ignore[no-untyped-call]
        except OSError as error:
            raise ClusterError(
                f"no Dask scheduler answers at {cluster} ({error}); start one, or use --cluster local"
            ) from error
        with client:
            yield client
