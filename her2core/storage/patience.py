"""How long a store that answers nothing is waited for: an outage of minutes is outlasted, and ends once.

A request that meets a server in trouble, or none, is made again with growing pauses, for `PATIENCE_S`. Each
request would wait as long by itself, one after the other; so who has given up shuts the gate for the others
of this process: as long as the server answers none of them, each is made only once more.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass, field
from http import HTTPStatus

from botocore.exceptions import (
    ClientError,
    ConnectionError,  # botocore's
    FlexibleChecksumError,
    HTTPClientError,
    SSLError,
)

from her2core.text import cleaned, cut

log = logging.getLogger(__name__)

PATIENCE_S = 600.0
"""How long a store that answers nothing is waited for. Ours: a server that starts again or changes its
primary is back within; a slide may take `run.slide_timeout_s`, 36 times as long."""
ALONE_S = 240.0
"""How long one request is made again while the store answers others. Ours."""
LATELY_S = 60.0
"""A store that has answered within this time answers others. Ours: four of the longest pauses; requests that
were on their way when an outage began, beside one that was answered, are not taken for odd ones."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
"""Pauses between tries, beside those of botocore within a try. Ours."""
REPORT_AFTER_S, REPORT_EVERY_S = 20.0, 120.0
"""When the log reports that a store is waited for, and how often again. Ours."""
TROUBLE = frozenset({
    HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT,
})  # fmt: skip
"""HTTP statuses of a server that is there and in trouble."""
TROUBLE_CODES = frozenset({"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout"})
"""What S3 calls it, also in a reply that began well."""
LONGEST_WORDS = 120
"""Most characters of a library's own words in the log. Ours."""


class BrokenReplyError(OSError):
    """A reply that began well and is not whole, or not what was requested; the next one may be."""


PASSING = (
    ConnectionError, HTTPClientError, TimeoutError, FlexibleChecksumError, BrokenReplyError,
)  # fmt: skip
"""What befalls a request on its way, beside a reply that botocore cannot read."""


def in_trouble(error: BaseException | None) -> bool:
    """Whether a request failed for a server that is in trouble or not there; the same may go well later."""
    while error is not None:
        if isinstance(error, ClientError):
            answer = error.response
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status in TROUBLE or answer.get("Error", {}).get("Code") in TROUBLE_CODES
        if isinstance(error, SSLError):
            return False
        if isinstance(error, PASSING) or _cannot_be_read(error):
            return True
        error = error.__cause__
    return False


def _cannot_be_read(error: BaseException) -> bool:
    """Whether an error is of botocore's parsers, which are slow to import: where they are not, none is."""
    parsers = sys.modules.get("botocore.parsers")
    return parsers is not None and isinstance(error, parsers.ResponseParserError)


@dataclass(slots=True)
class Gate:
    """What this process has seen of a server, for reading or for writing.

    Attributes
    ----------
    name, deed
        What messages call the server, and what is requested of it.
    """

    name: str
    deed: str
    answered: float = field(default_factory=time.monotonic)
    reported: float | None = None
    shut: bool = False

    def let_through(self) -> None:
        """The server has answered, be it with a refusal."""
        if self.reported is not None or self.shut:
            log.warning("%s lets us %s again", self.name, self.deed)
        self.answered, self.reported, self.shut = time.monotonic(), None, False

    def is_worth_waiting(self, begun: float, error: BaseException) -> bool:
        """Whether a request is to be made again; the log reports it now and then.

        Parameters
        ----------
        begun
            When it was made first.
        """
        now = time.monotonic()
        since, silent = now - begun, now - max(begun, self.answered)
        if self.shut:
            return False
        if silent > PATIENCE_S:
            self.shut = True
            log.warning(
                "%s has let us %s nothing for %.0f s (%s), and is given up",
                self.name, self.deed, silent, _words(error),
            )  # fmt: skip
            return False
        if since > ALONE_S and silent < LATELY_S:
            log.warning(
                "%s answers others, but one request to %s has failed for %.0f s (%s), and is given up",
                self.name, self.deed, since, _words(error),
            )  # fmt: skip
            return False
        if silent > REPORT_AFTER_S and (self.reported is None or now - self.reported > REPORT_EVERY_S):
            self.reported = now
            log.warning(
                "%s has let us %s nothing for %.0f s (%s); it is waited for up to %.0f s",
                self.name, self.deed, silent, _words(error), PATIENCE_S,
            )  # fmt: skip
        return True


def _words(error: BaseException) -> str:
    """S3's code of the error, or else the library's message."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ClientError):
        cause = cause.__cause__
    reported = str(error) if cause is None else str(cause.response.get("Error", {}).get("Code", cause))
    return cut(cleaned(" ".join(reported.split())) or type(error).__name__, LONGEST_WORDS)
