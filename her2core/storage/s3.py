"""S3 connections: one client a process and endpoint, the standard credential chain, a patient retry budget.

Nothing here keeps or prints a credential: they are looked up when a connection is made.
"""

from __future__ import annotations

import os
import threading
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError, ProfileNotFound

from her2core.errors import StoreError
from her2core.text import shown

RETRIES = 7
"""Repetitions of a request by a client of botocore alone, after 0.5, 1, 2, ... s on average. Ours."""
TRY_RETRIES = 2
"""The same within one try of `patient_s3.PatientS3FileSystem`, which has pauses of its own; s3fs makes five
tries of one if the server answers SlowDown. Ours."""

ANY_REGION = "us-east-1"
"""For clients that insist on a region; S3-compatible servers take any."""
CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
CONNECTIONS = 32
"""Connections that a process keeps to one server, above the requests that a task has in flight. Ours."""

_filesystems: dict[tuple[Any, ...], Any] = {}
_lock = threading.Lock()


OWN_LOOKUP = frozenset({"env", "iam-role", "container-role", "assume-role-with-web-identity"})
"""Credential sources of botocore that the store behind Delta Lake finds (and refreshes) by itself."""


def endpoint_from_environment(option: str | None = None) -> str | None:
    """The endpoint to use: the option, the AWS variables, the AWS profile's; None is AWS itself."""
    given = option or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if given:
        return given
    import botocore.session  # slow to import: not where everything lies in folders

    try:
        found: str | None = botocore.session.Session().get_scoped_config().get("endpoint_url")
    except ProfileNotFound as error:
        raise StoreError(f"{error}; correct AWS_PROFILE or the AWS configuration file.") from None
    return found


def check_endpoint(endpoint_url: str, name: str = "endpoint_url") -> None:
    """Refuse what is no plain address of a server, without repeating it: it may hold credentials.

    Parameters
    ----------
    name
        What the message calls it.

    Raises
    ------
    ValueError
        In words.
    """
    try:
        parts = urlsplit(endpoint_url)
        port = parts.port
    except ValueError:
        raise ValueError(f"{name} cannot be read; expected http(s)://host[:port]") from None
    if parts.username is not None or "@" in endpoint_url:
        raise ValueError(f"{name} carries credentials; give those by the standard AWS chain")
    if parts.query or parts.fragment or "?" in endpoint_url:
        raise ValueError(f"{name} carries a query; expected http(s)://host[:port] alone")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(f"{name} is {shown(endpoint_url)}; expected http(s)://host[:port]")


def s3_filesystem(endpoint_url: str | None) -> Any:
    """The process's s3fs file system for an endpoint, which outlasts outages (see `patient_s3`).

    It is shared by all threads (s3fs runs its requests on one event loop of its own) and opened anew in a
    forked child, where the parent's loop does not run.
    """
    from her2core.storage.patient_s3 import PatientS3FileSystem

    key = (os.getpid(), endpoint_url)
    with _lock:
        if key not in _filesystems:
            _filesystems[key] = PatientS3FileSystem(
                endpoint_url=endpoint_url,
                use_listings_cache=False,
                config_kwargs={
                    "retries": {"max_attempts": TRY_RETRIES, "mode": "legacy"},
                    "connect_timeout": CONNECT_TIMEOUT_S,
                    "read_timeout": READ_TIMEOUT_S,
                    "max_pool_connections": CONNECTIONS,
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
    """Storage options of ``deltalake`` for a bucket; to be used at once and never kept.

    Its Rust client uses the environment and the roles of machines and containers. What else the standard
    chain finds (a profile, single sign-on, an assumed role) is looked up here and handed over.
    """
    import botocore.session

    session = botocore.session.Session()
    options = {"region": session.get_config_variable("region") or ANY_REGION, "conditional_put": "etag"}
    if endpoint_url:
        options |= {
            "endpoint": endpoint_url,
            "allow_http": str(endpoint_url.startswith("http://")).lower(),
            "virtual_hosted_style_request": "false",
        }
    credentials = session.get_credentials()
    if credentials is not None and credentials.method not in OWN_LOOKUP:
        frozen = credentials.get_frozen_credentials()
        options |= {"access_key_id": frozen.access_key, "secret_access_key": frozen.secret_key}
        if frozen.token:
            options["session_token"] = frozen.token
    return options
