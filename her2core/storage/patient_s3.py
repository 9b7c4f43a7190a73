"""The S3 client that outlasts an outage. Apart, because s3fs takes a second to import."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import FlexibleChecksumError
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem
from s3fs.core import add_retryable_error

from her2core.storage.patience import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    BrokenReplyError,
    Gate,
    in_trouble,
)

READING = ("get_", "head_", "list_")
"""How the names of requests begin that change nothing."""
EMPTY_ETAG = "d41d8cd98f00b204e9800998ecf8427e"
"""MD5 of nothing: the ETag of an object without a byte, unless it is encrypted."""
ALWAYS_THERE = {
    "list_objects_v2": {"Name", "KeyCount", "IsTruncated"},
    "create_multipart_upload": {"UploadId"},
}
"""Fields of which every genuine reply holds at least one."""
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def is_whole(method: str, request: Mapping[str, Any], answer: Any) -> bool | None:
    """Whether a reply is what was requested, as far as its head shows; None if that takes the object's size.

    A proxy between us and the store may end a reply early and state that it is complete. What is
    cut short within what its head announces is an error of the connection already.
    """
    if method in ALWAYS_THERE:
        return not ALWAYS_THERE[method].isdisjoint(answer)
    if method != "get_object":
        return True
    length = answer.get("ContentLength")
    if (wanted := _RANGE.fullmatch(str(request.get("Range", "")))) is None:
        return True if length or str(answer.get("ETag", "")).strip('"') == EMPTY_ETAG else None
    got = _CONTENT_RANGE.match(str(answer.get("ContentRange", "")))
    if got is None:
        return False
    first, last = int(got[1]), int(got[2])
    end = last if got[3] == "*" else int(got[3]) - 1
    if wanted[1]:
        begin, end = int(wanted[1]), min(end, int(wanted[2] or end))
    else:  # so many from the end
        begin = max(end + 1 - int(wanted[2]), 0)
    return (first, last, length) == (begin, end, end - begin + 1)


add_retryable_error(FlexibleChecksumError)  # of a body that was changed or cut short on its way


class PatientS3FileSystem(S3FileSystem):  # type: ignore[misc]
    """s3fs that outlasts an outage; whatever reads and writes S3 through fsspec goes through `_call_s3`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        name = f"the store at {self.endpoint_url or 'AWS'}"
        self._gates = {deed: Gate(name, deed) for deed in ("read", "write")}

    async def _call_s3(self, method: str, *given: Any, **options: Any) -> Any:
        gate = self._gates["read" if method.startswith(READING) else "write"]
        begun, pause_s = time.monotonic(), FIRST_PAUSE_S
        while True:
            try:
                answer = await super()._call_s3(method, *given, **options)
                await self._require_whole(method, options, answer)
            except Exception as error:
                if not in_trouble(error):
                    gate.let_through()
                    raise
                if not gate.is_worth_waiting(begun, error):
                    raise
            else:
                gate.let_through()
                return answer
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _require_whole(self, method: str, request: Mapping[str, Any], answer: Any) -> None:
        whole = is_whole(method, request, answer)
        if whole is None:
            same = {name: request[name] for name in ("Bucket", "Key", "VersionId") if name in request}
            whole = not (await super()._call_s3("head_object", **same))["ContentLength"]
        if not whole:
            if method == "get_object":
                answer["Body"].close()
            raise BrokenReplyError(f"the reply to {method} is not whole")

    call_s3 = sync_wrapper(_call_s3)
