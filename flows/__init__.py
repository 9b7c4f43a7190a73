"""Prefect flows over `her2core`: what runs when, how often, how many at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flows.memory import choose_allocators, loading

if TYPE_CHECKING:
    from her2core.cohort import CohortSummary

choose_allocators()


def run_cohort(
    manifest: str,
    out: str,
    config: str | None = None,
    cluster: str = "local",
    only: Sequence[str] = (),
    new_only: bool = False,
) -> CohortSummary:
    """Score a cohort from Python: ``her2 run`` without its terminal. See `flows.cohort.cohort`.

    Raises
    ------
    Her2Error
        If the run cannot be carried out. Slides that fail are rows of the summary.
    """
    from flows.environment import prepare_environment

    prepare_environment()
    from flows.server import prefect_server

    with prefect_server() as wait_for_it:
        return run_with(wait_for_it, manifest, out, config, cluster, only, new_only)


def run_with(
    wait_for_server: Callable[[], None],
    manifest: str,
    out: str,
    config: str | None,
    cluster: str,
    only: Sequence[str],
    new_only: bool,
) -> CohortSummary:
    """Score a cohort with a Prefect server that may still be loading (`flows.server.prefect_server`)."""
    with loading():
        from flows.cohort import cohort, stand_in  # while the server loads
    from her2core.config import load_config

    if load_config(config).run.pseudonyms:  # a flow's arguments stand in Prefect's database
        manifest, out, config = stand_in(manifest), stand_in(out), config and stand_in(config)
    wait_for_server()
    state: Any = cohort(
        manifest=manifest,
        out=out,
        config=config,
        cluster=cluster,
        only=list(only),
        new_only=new_only,
        return_state=True,
    )
    summary: CohortSummary | Exception = state.result(raise_on_failure=False)
    if isinstance(summary, Exception):
        raise summary
    return summary
