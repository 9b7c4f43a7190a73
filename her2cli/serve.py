"""The verb that runs schedules on one machine: ``serve``."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from her2cli.common import EXIT_CODES, app, complain, ending_in_order, say

HOME = Path("~/.her2")


@app.command("serve", epilog=EXIT_CODES)
def serve_command(
    cohorts: Annotated[str, typer.Argument(metavar="COHORTS", help="YAML list of cohorts and schedules.")],
    home: Annotated[Path, typer.Option(help="Folder of Prefect's database and logs.")] = HOME,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Prefect's server and pages.")] = 4200,
) -> None:
    """Score cohorts on a schedule on this machine: Prefect's server, schedules and worker, until stopped."""
    from flows.deployments import read_cohorts, served
    from flows.environment import prepare_environment
    from her2core.storage.s3check import check_some

    named = read_cohorts(cohorts)
    for trouble in check_some([cohort.addresses() for cohort in named]):
        complain("warning", str(trouble))
    prepare_environment()
    say("starting Prefect")
    with (
        ending_in_order(),
        suppress(KeyboardInterrupt),
        served(named, home.expanduser(), port, cohorts) as running,
    ):
        for cohort in named:
            when = f"{cohort.cron} {cohort.timezone}" if cohort.active else "paused"
            say(f"{cohort.name}: {when}")
        say(f"Prefect: {running.api.removesuffix('/api')}; logs: {running.home}")
        running.watch()
    say("stopped")
