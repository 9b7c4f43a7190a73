"""Prefect's environment for an embedded run, set before Prefect is imported; what a user set stays."""

from __future__ import annotations

import os

DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # The embedded server takes 20-40 s to start on a busy machine; Prefect gives up after 20.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


def prepare_environment() -> None:
    """Turn telemetry off, be patient with the embedded server, and keep Prefect's console log to warnings."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
