"""The one Dask client of a run: an embedded local cluster, or an existing scheduler by address."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster

from her2core.errors import ClusterError, ConfigError

SETTINGS = {
    # A worker takes 10-20 s to import what it needs on a busy machine; the default drops it after 15 s.
    "distributed.deploy.lost-worker-timeout": "5 minutes",
    # Without this a run waits for ever when its last worker is gone.
    "distributed.scheduler.no-workers-timeout": "10 minutes",
    # A task that kills two workers is the cause; with one thread a worker no innocent is blamed.
    "distributed.scheduler.allowed-failures": 1,
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
        count = workers or os.cpu_count() or 1
        with (
            dask.config.set(SETTINGS),
            LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=count,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            ) as local,
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
