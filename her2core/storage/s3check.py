"""Whether a bucket can be reached at all, within seconds: which server, which request, and the remedy.

The clients that read and write are patient, for a store that is overloaded comes back. A wrong address or key
never does, and nobody should wait minutes to hear of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    SSOError,
    TokenRetrievalError,
)

from her2core.errors import StoreError
from her2core.storage.patience import FIRST_PAUSE_S, LONGEST_PAUSE_S, TROUBLE, TROUBLE_CODES, in_trouble
from her2core.storage.s3 import ANY_REGION, endpoint_from_environment
from her2core.text import CARRIES_SECRET, carries_secret, cleaned, cut

CONNECT_S, READ_S = 3, 4
"""Patience for one connection and one answer; a second attempt is made."""
DEADLINE_S = 10.0
"""Patience for all of it, looking up names and credentials included. Ours."""
OVERLOAD_S = 45.0
"""Patience with a server that answers that it is overloaded, before anything is begun. Ours."""
MAX_WORDS = 200
"""Most characters of a library's own words in a message. Ours."""

GIVE_CREDENTIALS = (
    "give them by the standard AWS chain: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role"
)
REFUSED = {
    "InvalidAccessKeyId": "the access key is not known there; correct AWS_ACCESS_KEY_ID, the profile or the "
    "endpoint",
    "SignatureDoesNotMatch": "the secret key is not that of the access key; correct AWS_SECRET_ACCESS_KEY or "
    "the profile",
    "ExpiredToken": "the session has expired; log in again",
    "ExpiredTokenException": "the session has expired; log in again",
    "InvalidToken": "the session token is not valid; correct AWS_SESSION_TOKEN or unset it",
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set it",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_REGION to it",
    "PermanentRedirect": "the bucket is in another region or at another endpoint; set AWS_REGION or "
    "AWS_ENDPOINT_URL",
}
"""What S3 answers to credentials and addresses that will never do, and the remedy."""
NO_BUCKET = "NoSuchBucket"
KINDS: dict[type, str] = {
    EndpointConnectionError: "no connection",
    ConnectTimeoutError: "no connection in time",
    ReadTimeoutError: "no answer in time",
    ConnectionClosedError: "the connection was closed",
}
_reached: set[tuple[str, str | None]] = set()


class BucketError(StoreError):
    """There is no such bucket; other buckets of the server may be there."""


def named(uri: str, endpoint_url: str | None) -> str:
    """The address with the server that answers for it."""
    return f"{uri} at {endpoint_url or 'AWS (no endpoint is set)'}"


def with_server(uri: str, endpoint_url: str | None) -> str:
    """A remote address with its server; a local one as it is."""
    if not uri.startswith("s3://"):
        return uri
    return named(uri, endpoint_from_environment(endpoint_url))


def check_bucket(uri: str, endpoint_url: str | None = None, *, to: str = "read") -> None:
    """Check that the server of an ``s3://`` address answers, takes our key, and has the bucket; others pass.

    A bucket that may not be listed passes. A server that is overloaded is waited for, `OVERLOAD_S`. Once
    reached, a bucket is not checked again.

    Parameters
    ----------
    to
        What is wanted of it, for the message.

    Raises
    ------
    StoreError
        In one line; `BucketError` if the server is well and the bucket is not there.
    """
    if carries_secret(uri):
        raise StoreError(f"an address {CARRIES_SECRET}; see docs/s3.md.")
    if not uri.startswith("s3://"):
        return
    endpoint = endpoint_from_environment(endpoint_url)
    bucket = uri.removeprefix("s3://").partition("/")[0]
    if (bucket, endpoint) in _reached:
        return
    begun, pause_s = time.monotonic(), FIRST_PAUSE_S
    while (error := _listing_error(bucket, endpoint)) is not None:
        overloaded = isinstance(error, ClientError) and _is_overload(_code(error))
        if not overloaded or time.monotonic() - begun > OVERLOAD_S:
            raise explained(uri, endpoint, error, to=to)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    _reached.add((bucket, endpoint))


def check_some(groups: Sequence[Sequence[str]], endpoint_url: str | None = None) -> list[StoreError]:
    """See that some of several groups of addresses can be reached; the first trouble of each that cannot.

    Raises
    ------
    StoreError
        If none can.
    """

    def trouble(uris: Sequence[str]) -> StoreError | None:
        try:
            for uri in uris:
                check_bucket(uri, endpoint_url)
        except StoreError as error:
            return error
        return None

    with ThreadPoolExecutor(max(len(groups), 1)) as pool:
        found = [error for error in pool.map(trouble, groups) if error is not None]
    if found and len(found) == len(groups):
        raise found[0]
    return found


def _listing_error(bucket: str, endpoint: str | None) -> Exception | None:
    """The error that one listing of the bucket ends with, if it means that the bucket cannot be used now."""
    ended: list[Exception | None] = []

    def list_once() -> None:
        try:
            _list(bucket, endpoint)
            ended.append(None)
        except (BotoCoreError, ClientError, OSError, ValueError) as error:
            ended.append(error)

    listing = threading.Thread(target=list_once, daemon=True)  # names are looked up without any time limit
    listing.start()
    listing.join(DEADLINE_S)
    if not ended:
        return TimeoutError(f"no answer within {DEADLINE_S:.0f} s")
    error = ended[0]
    if isinstance(error, ClientError):
        code = _code(error)
        return (
            error if code in REFUSED or code == NO_BUCKET or _is_overload(code) or _is_no_s3(code) else None
        )
    return error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _is_overload(code: str) -> bool:
    """Whether the same request may go well later."""
    return code in TROUBLE_CODES or (code.isdecimal() and int(code) in TROUBLE)


def _is_no_s3(code: str) -> bool:
    """Whether the answer is a bare HTTP status of a server that has no S3, and not of one in trouble."""
    return code.isdecimal() and code != "403" and int(code) not in TROUBLE


def _list(bucket: str, endpoint: str | None) -> None:
    import botocore.config  # slow to import: not where everything lies in folders
    import botocore.session

    session = botocore.session.Session()
    config = botocore.config.Config(
        connect_timeout=CONNECT_S, read_timeout=READ_S, retries={"max_attempts": 1, "mode": "legacy"}
    )
    region = session.get_config_variable("region") or ANY_REGION
    client: Any = session.create_client("s3", region_name=region, endpoint_url=endpoint, config=config)
    try:
        client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    finally:
        client.close()


def outage(error: BaseException, uri: str, endpoint: str | None) -> StoreError | None:
    """The message for a request that failed for a server in trouble or gone; None for any other error."""
    return explained(uri, endpoint, error, to="use") if in_trouble(error) else None


def refusal(error: BaseException, uri: str, endpoint: str | None) -> StoreError | None:
    """The message where a server refuses a request, or has no such bucket; None for any other error."""
    cause = _cause(error)
    if not isinstance(cause, BotoCoreError | ClientError):
        return None
    if isinstance(cause, ClientError) and _code(cause) in ("404", "NoSuchKey"):
        return None  # an object that is not there is for the caller
    return explained(uri, endpoint, error, to="use")


def explained(uri: str, endpoint: str | None, error: BaseException, *, to: str = "read") -> StoreError:
    """What a library's error of S3 means, in one line."""
    place, cause = named(uri, endpoint), _cause(error)
    if isinstance(cause, NoCredentialsError | PartialCredentialsError):
        return StoreError(f"{place} refuses us: tried to {to} it without credentials; {GIVE_CREDENTIALS}.")
    if isinstance(cause, CredentialRetrievalError | TokenRetrievalError | SSOError):
        return StoreError(f"{place} refuses us: there are no credentials ({_words(cause)}); log in again.")
    if isinstance(cause, ProfileNotFound | ConfigNotFound | ConfigParseError):
        return StoreError(
            f"{place} cannot be used: {_words(cause)}; correct AWS_PROFILE or the AWS configuration file."
        )
    if isinstance(cause, ParamValidationError):
        return StoreError(f"{place} cannot be used: that is no name of a bucket; correct the address.")
    if isinstance(cause, ClientError):
        code = _code(cause)
        if _is_no_s3(code):
            return _nobody(place, to, f"it answers HTTP {code}")
        if code == NO_BUCKET:
            return BucketError(
                f"{place}: tried to {to} it, and the bucket does not exist; create it, or correct the "
                "address or the endpoint."
            )
        if _is_overload(code):
            return StoreError(
                f"{place} is overloaded: tried to {to} it, and it answers {cut(code, 40)}; run the "
                "same command again later."
            )
        remedy = REFUSED.get(code, "check the credentials and the bucket's policy")
        return StoreError(f"{place} refuses us: tried to {to} it, and {remedy} ({cut(code, 40)}).")
    if isinstance(cause, PermissionError):
        return StoreError(
            f"{place} refuses us: tried to {to} it ({_words(cause)}); check the credentials and the bucket's "
            "policy."
        )
    return _nobody(place, to, KINDS.get(type(cause), "") or _words(cause))


def _nobody(place: str, to: str, why: str) -> StoreError:
    return StoreError(
        f"{place} cannot be used: tried to {to} it, and nobody answers as S3 does ({why}); correct "
        "AWS_ENDPOINT_URL (or run.endpoint_url), or start the server."
    )


def _cause(error: BaseException) -> BaseException:
    """The error of botocore behind that of s3fs."""
    seen = error
    while seen.__cause__ is not None and not isinstance(seen, BotoCoreError | ClientError):
        seen = seen.__cause__
    return seen if isinstance(seen, BotoCoreError | ClientError) else error


def _words(error: BaseException) -> str:
    return cut(cleaned(" ".join(str(error).split())) or type(error).__name__, MAX_WORDS)
