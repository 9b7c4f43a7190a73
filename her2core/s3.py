"""S3 connections: one client a process and endpoint, the standard credential chain, a patient retry budget.

Nothing here takes, keeps or prints a credential: botocore and the Rust object store behind Delta Lake each
look them up when they connect (environment, profile, container or instance role).
"""

from __future__ import annotations

import os
import threading
from typing import Any

import fsspec
from botocore.exceptions import ClientError

RETRIES = 7
"""Attempts a request inside botocore (0.5 + 1 + 2 + ... s on average), each again up to five times by s3fs
when the server says SlowDown: a store that answers 503 for two minutes is waited for. Ours."""

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60

_filesystems: dict[tuple[Any, ...], Any] = {}
_lock = threading.Lock()


def endpoint_from_environment(option: str | None = None) -> str | None:
    """The endpoint to use: the option, ``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``; None is AWS itself."""
    return option or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def region_from_environment() -> str:
    """Region for a client that insists on one; S3-compatible servers take any."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def s3_filesystem(endpoint_url: str | None, *, retries: int = RETRIES) -> Any:
    """The process's s3fs file system for an endpoint.

    It is shared by all threads (s3fs runs its requests on one event loop of its own) and opened anew in a
    forked child, where the parent's loop does not run.
    """
    key = (os.getpid(), endpoint_url, retries)
    with _lock:
        if key not in _filesystems:
            _filesystems[key] = fsspec.filesystem(
                "s3",
                endpoint_url=endpoint_url,
                use_listings_cache=False,
                config_kwargs={
                    "retries": {"max_attempts": retries, "mode": "legacy"},
                    "connect_timeout": CONNECT_TIMEOUT_S,
                    "read_timeout": READ_TIMEOUT_S,
                    "max_pool_connections": 32,
                },
            )
        return _filesystems[key]


def http_status(error: BaseException | None) -> int | None:
    """HTTP status behind an error of s3fs (it hides botocore's in ``__cause__``), or None."""
    while error is not None:
        if isinstance(error, ClientError):
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return int(status) if status is not None else None
        error = error.__cause__
    return None


def delta_options(endpoint_url: str | None) -> dict[str, str]:
    """Storage options of ``deltalake`` for a bucket. No credential is among them: it finds them as we do."""
    options = {"region": region_from_environment(), "conditional_put": "etag"}
    if endpoint_url:
        options |= {
            "endpoint": endpoint_url,
            "allow_http": str(endpoint_url.startswith("http://")).lower(),
            "virtual_hosted_style_request": "false",
        }
    return options
