"""Run one function over many items on a Dask cluster, a bounded number at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from distributed import Client, Future, as_completed

Item = TypeVar("Item")
Result = TypeVar("Result")


def fan_out(
    client: Client,
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    keys: Sequence[str],
    window: int,
    deadline: float,
) -> Iterator[Result]:
    """Yield ``function(item)`` as items finish, with at most ``window`` on the cluster at once.

    Parameters
    ----------
    client
        The run's client; may be shared between threads.
    function
        Idempotent: it runs again when its worker is lost.
    items
        Small picklable values.
    keys
        One stable name an item: equal keys in flight are computed once.
    window
        Bounds the scheduler's memory and what is lost when the driver dies.
    deadline
        `time.monotonic` value after which the rest is given up.

    Raises
    ------
    TimeoutError
        If the deadline passes; what is still in flight is cancelled.
    Exception
        The first error of any item, after the rest is cancelled.
    """
    waiting = iter(zip(items, keys, strict=True))
    running: set[Future[Result]] = set()
    left_s = max(deadline - time.monotonic(), 0.001)
    finished = as_completed(loop=client.loop, timeout=left_s)  # type: ignore[no-untyped-call]

    def submit_next() -> None:
        for item, key in waiting:
            future = client.submit(function, item, key=key, pure=False)
            running.add(future)
            finished.add(future)  # type: ignore[no-untyped-call]
            return

    try:
        for _ in range(window):
            submit_next()
        while running:
            future = next(finished)
            running.discard(future)
            result: Result = future.result()
            future.release()
            submit_next()
            yield result
    finally:
        for future in running:
            future.release()  # type: ignore[no-untyped-call]
