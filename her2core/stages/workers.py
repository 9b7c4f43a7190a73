"""What a run requires of its workers beside their tasks, and the one function that runs every task."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeVar

from her2core.storage.sources import Scratch

T = TypeVar("T")


def dask_setup(worker: object) -> None:
    """What Dask calls in every worker of a cluster of ours at its start (``distributed.worker.preload``)."""
    from her2core.lake.arrow_alone import leave_pandas_out

    leave_pandas_out()


def clear_scratch(scratch: Scratch) -> None:
    """Remove this machine's staged slides that no task uses."""
    scratch.clear()


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What a run checks of a worker: the version of this package, and some of its environment."""

    version: str
    environment: Mapping[str, str | None]


def worker_facts(variables: Sequence[str]) -> WorkerFacts:
    """What this worker is."""
    return WorkerFacts(version("her2cohort"), {name: os.environ.get(name) for name in variables})


def run_task(job: Callable[[], T]) -> T:
    """Run one task: the one function that is sent to the cluster."""
    return job()
