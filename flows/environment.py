"""Environment of the processes of a run: Prefect's, set before it is imported, and that of workers."""

from __future__ import annotations

import os

from her2core.errors import Her2Error

DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # The embedded server takes 20-40 s to start on a busy machine; Prefect gives up after 20.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    # A slide that fails is reported by our own log and its row; Prefect would add a traceback for each.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # Prefect's root handler would print Dask's notes on its workers, and its tracebacks of a lost scheduler.
    "DASK_LOGGING__DISTRIBUTED": "critical",
    # Where a run is ended by force, multiprocessing clears up behind it, and would have the last word.
    "PYTHONWARNINGS": "ignore::UserWarning:multiprocessing.resource_tracker",
}


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


def prepare_environment() -> None:
    """Turn telemetry off, be patient with the embedded server, and leave the console to our own log.

    What a user set stays.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


class ServerError(Her2Error):
    """The Prefect server of ``PREFECT_API_URL`` cannot be reached or used."""


def check_server() -> None:
    """Check that the Prefect server, if one is named, is there; without one the embedded server is used.

    Raises
    ------
    ServerError
        If no server answers, or another one does.
    """
    from prefect import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is None:
        return
    with get_client(sync_client=True) as client:
        try:
            client.raise_for_api_version_mismatch()
        except (RuntimeError, PrefectHTTPStatusError) as error:
            raise ServerError(
                f"no usable Prefect server at PREFECT_API_URL: {error} ({error.__cause__ or 'refused'}); "
                "start it (prefect server start), correct the address, which ends in /api, or unset it for "
                "the embedded server"
            ) from error
