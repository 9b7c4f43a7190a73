"""The S3 client that outlasts an outage. Apart, because s3fs takes a second to import."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

from her2core.storage.patience import FIRST_PAUSE_S, LONGEST_PAUSE_S, Gate, in_trouble

READING = ("get_", "head_", "list_")
"""How the names of requests begin that change nothing."""


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

    call_s3 = sync_wrapper(_call_s3)
