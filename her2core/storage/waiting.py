"""What waits for a server goes on beside what computes: reads begun ahead, uploads in the background.

A folder does not wait, so there everything happens at once and in its order.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import TypeVar

from her2core.storage.store import Store

T = TypeVar("T")

UPLOAD_BYTES = 128 * 2**20
"""Most bytes of objects that wait to be stored: bounds a worker's memory. Ours."""
UPLOADS = 4
"""Uploads of one task that go on at the same time. Ours: three keep 60 MB/s a connection ahead of a core."""
READS = 4
"""Reads that a process begins ahead at the same time. Ours: one a worker's thread, and some to spare."""

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


def begin(read: Callable[[], T]) -> Future[T]:
    """Begin a read in the background; it must not begin another one and wait for it."""
    with _lock:
        pid = os.getpid()  # a forked child has none of its parent's threads
        if pid not in _pools:
            _pools[pid] = ThreadPoolExecutor(READS, thread_name_prefix="her2-ahead")
        return _pools[pid].submit(read)


def side_by_side(store: Store, jobs: Sequence[Callable[[], T]], most: int | None = None) -> list[T]:
    """Do what does not depend on one another; when it returns, or raises the first error, all have ended.

    Parameters
    ----------
    most
        How many at the same time; all by default.
    """
    if store.is_local or len(jobs) < 2:
        return [job() for job in jobs]
    with ThreadPoolExecutor(min(most or len(jobs), len(jobs)), thread_name_prefix="her2-beside") as pool:
        begun = [pool.submit(job) for job in jobs]
    return [each.result() for each in begun]


class Uploads:
    """Objects that are stored while the next ones are made, in a bounded number of bytes.

    Leave the block to have all of them stored: an error of any is raised there, or by the next `put`. After
    an error nothing more is begun, and what is in flight has ended.

    Parameters
    ----------
    most
        As `UPLOAD_BYTES`. A larger object waits until it is alone.
    """

    def __init__(self, store: Store, most: int = UPLOAD_BYTES) -> None:
        self._store, self._most = store, most
        self._pool: ThreadPoolExecutor | None = None
        self._change = threading.Condition()
        self._begun: list[Future[None]] = []
        self._bytes = 0
        self._error: BaseException | None = None

    def put(self, objects: Mapping[str, bytes | memoryview], *, last: bool = False) -> None:
        """Store objects; their buffers may be used again when this returns.

        Parameters
        ----------
        last
            Not before everything that was put earlier is stored.
        """
        if self._store.is_local:
            self._store.write_many(objects)
            return
        size = sum(map(len, objects.values()))
        with self._change:
            self._change.wait_for(lambda: self._error or not self._bytes or self._bytes + size <= self._most)
            if self._error is not None:
                raise self._error
            self._bytes += size
        bodies = {path: bytes(body) for path, body in objects.items()}
        if self._pool is None:
            self._pool = ThreadPoolExecutor(UPLOADS, thread_name_prefix="her2-upload")
        self._begun = [job for job in self._begun if not job.done()]
        before = tuple(self._begun) if last else ()  # they have threads: those go in the order of `put`
        self._begun.append(self._pool.submit(self._upload, bodies, size, before))

    def _upload(self, bodies: Mapping[str, bytes], size: int, before: Sequence[Future[None]]) -> None:
        try:
            wait(before)
            if self._error is None:
                self._store.write_many(bodies)
        except BaseException as error:  # noqa: BLE001, raised in the thread that waits for it
            with self._change:
                self._error = self._error or error
        finally:
            with self._change:
                self._bytes -= size
                self._change.notify_all()

    def __enter__(self) -> Uploads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._change:
            self._error = self._error or error
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        if error is None and self._error is not None:
            raise self._error
