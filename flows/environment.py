"""Prefect's environment for an embedded run, set before Prefect is imported; what a user set stays."""

from __future__ import annotations

import os

DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # The embedded server takes 20-40 s to start on a busy machine; Prefect gives up after 20.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    # A slide that fails is told by our own log and its row; Prefect would add a traceback for each.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


def prepare_environment() -> None:
    """Turn telemetry off, be patient with the embedded server, and leave the console to our own log."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
