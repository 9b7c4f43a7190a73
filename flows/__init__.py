"""Prefect flows over `her2core`: what runs when, how often, how many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from her2core.cohort import CohortSummary


def run_cohort(manifest: str, out: str, config: str | None = None, cluster: str = "local") -> CohortSummary:
    """Score a cohort from Python: ``her2 run`` without its terminal. See `flows.cohort.cohort`."""
    from flows.environment import prepare_environment

    prepare_environment()
    from flows.cohort import cohort

    return cohort(manifest=manifest, out=out, config=config, cluster=cluster)
