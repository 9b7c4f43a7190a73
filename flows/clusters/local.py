"""Worker processes on this machine, which end with the run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import dask
import distributed.utils
from dask.system import cpu_count
from distributed import Client, LocalCluster

from flows import nursery
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
            _started_as_can_be(),
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


def _started_as_can_be() -> AbstractContextManager[object]:
    """Have Dask fork its workers from the run's nursery, if that is open."""
    if not nursery.is_open():
        return nullcontext()
    distributed.utils._forkserver_preload_set = True  # else Dask has others loaded there, and pandas here
    return dask.config.set({"distributed.worker.multiprocessing-method": nursery.METHOD})


def _local_cluster(workers: int) -> LocalCluster:
    """Worker processes that a terminal's signals do not reach: the run ends them.

    A thread begins with the blocked signals of the one that starts it, so that this holds for workers that
    are started again as well.
    """
    try:
        # Where its usual port is taken, Dask warns and takes another one.
        with nursery.terminal_signals_blocked(), warnings.catch_warnings():
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
