"""Worker processes on this machine, which end with the run."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.resource_tracker import ensure_running

import dask
from distributed import Client, LocalCluster

from flows.clusters.base import SETTINGS, quieten


@dataclass(frozen=True, slots=True)
class LocalMachine:
    """A cluster of ``workers`` processes here; one a core by default."""

    workers: int | None = None
    title: str = "this machine"
    count: int = 1

    @contextmanager
    def connect(self) -> Iterator[Client]:
        """See `flows.clusters.base.Cluster`."""
        quieten()
        with (
            dask.config.set(SETTINGS),
            _local_cluster(self.workers or os.cpu_count() or 1) as local,
            Client(local) as client,  # type: ignore[no-untyped-call]
        ):
            yield client

    def check(self) -> None:
        """A machine always has workers."""


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
