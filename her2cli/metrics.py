"""The verb that answers Prometheus for stores: ``metrics``."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from her2cli.common import EXIT_CODES, Endpoint, app, complain, say, showing_warnings

PORT = 9464
"""Usual port of Prometheus exporters of OpenTelemetry, and ours."""


@app.command("metrics", epilog=EXIT_CODES)
def metrics_command(
    outs: Annotated[
        list[str], typer.Argument(metavar="URI...", help="Outputs of runs: folders or s3:// URIs.")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")] = PORT,
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    endpoint_url: Endpoint = None,
) -> None:
    """Answer Prometheus: how each cohort's last run ended and how long ago, from the tables alone."""
    from flows.metrics import StoreMetrics, prometheus, serving
    from her2core.storage.s3check import check_some
    from her2core.storage.store import Store

    for trouble in check_some([[out] for out in outs], endpoint_url):
        complain("warning", str(trouble))
    registry = prometheus().CollectorRegistry()
    registry.register(StoreMetrics([Store(out, endpoint_url=endpoint_url) for out in outs]))
    stops = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # before the threads that answer, which inherit it
    with showing_warnings(), serving(port, registry, address) as found:
        say(f"metrics on http://{address}:{found}/metrics")
        signal.sigwait(stops)
