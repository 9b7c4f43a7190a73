"""Worker processes on this machine, which end with the run."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path

import dask
from dask.system import cpu_count
from distributed import Client, LocalCluster

from flows.clusters.base import SETTINGS, quieten
from her2core.errors import ClusterError, Her2Error
from her2core.records import SlideRow
from her2core.storage.temporary import full, temporary_place
from her2core.text import cleaned

WORKER_BYTES = 2**20
"""Bytes of a slide that are work for as long as another worker takes to start. Ours: some 5 megapixels."""
ONE_FILE = (".svs", ".ndpi", ".tif", ".tiff")
"""Endings of slides whose size is that of their file."""


@dataclass(frozen=True, slots=True)
class LocalMachine:
    """A cluster of ``workers`` processes here; one a processor by default, of those that the container or
    whoever started us leaves us."""

    workers: int | None = None
    title: str = "this machine"
    count: int = 1

    @contextmanager
    def connect(self) -> Iterator[Client]:
        """See `flows.clusters.base.Cluster`."""
        quieten()
        with (
            dask.config.set(SETTINGS),
            _local_cluster(self.workers or cpu_count()) as local,
            Client(local) as client,  # type: ignore[no-untyped-call]
        ):
            yield client

    def check(self) -> None:
        """A machine always has workers."""


def useful_workers(rows: Sequence[SlideRow]) -> int | None:
    """Local workers that could all have something to do; None: as many as there are processors.

    A worker takes seconds to start, which one small slide does not need of several.
    """
    size, slides = 0, [row for row in rows if not row.exclude]
    for row in slides:
        path = Path(row.uri.removeprefix("file://"))
        if path.suffix.lower() not in ONE_FILE or not path.is_file():
            return None  # a remote one, or one of several files: its size is not known
        size += path.stat().st_size
    most = max(len(slides), -(-size // WORKER_BYTES), 1)
    return min(most, cpu_count())


def not_started(error: BaseException) -> Her2Error:
    """The error where Dask cannot start its processes here; mostly it is their folder."""
    place = Path(dask.config.get("temporary-directory") or temporary_place())
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and (reason := full(cause, place, "some kB a worker")):
            return reason
        cause = cause.__cause__
    return ClusterError(
        f"the Dask workers of this machine cannot be started ({cleaned(str(error))}); see that {place} can "
        "be written to, or give fewer run.workers"
    )


def _local_cluster(workers: int) -> LocalCluster:
    """Worker processes that a terminal's signals do not reach: the run ends them.

    A thread and a process begin with the blocked signals of the thread that starts them, so that this holds
    for workers that are started again as well.
    """
    ensure_running()  # multiprocessing's tracker unblocks signals where it is started
    mine = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        with warnings.catch_warnings():  # where its usual port is taken, Dask warns and takes another one
            warnings.filterwarnings("ignore", message="(?s)Port .* is already in use")
            return LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
    except (OSError, RuntimeError) as error:
        raise not_started(error) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mine)
