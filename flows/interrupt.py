"""Ctrl-C, SIGTERM and a closed terminal: one way out, within seconds, with the last word ours.

All that a run leaves is written whole, and its workers and its embedded server end when it does. So a run
that has not come to its end in time after a signal may simply stop.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_S = 8.0
"""How long an orderly end may take. Ours."""

_handler: Callable[[int, FrameType | None], None] | None = None


@contextmanager
def ending_quickly(code: int, announce: Callable[[], None]) -> Iterator[None]:
    """Raise KeyboardInterrupt at the first signal; end what still hangs after `PATIENCE_S`, or at a second.

    Parameters
    ----------
    code
        Exit code of a process that did not end by itself.
    announce
        Prints the last line.
    """
    global _handler
    requested = threading.Event()

    def stop() -> None:
        announce()
        leave(code)

    def handle(number: int, frame: FrameType | None) -> None:
        if requested.is_set():
            stop()
        requested.set()
        watchdog = threading.Timer(PATIENCE_S, stop)
        watchdog.daemon = True
        watchdog.start()
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in SIGNALS}
    _handler = handle
    rearm()
    try:
        yield
    except Exception:
        if requested.is_set():  # what breaks because everything ends is no news
            raise KeyboardInterrupt from None
        raise
    finally:
        _handler = None
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)


def leave(code: int) -> NoReturn:
    """End now, workers of this machine first, without waiting for threads that are no longer needed."""
    sys.stderr.flush()
    for worker in active_children():
        worker.kill()
    os._exit(code)


def rearm() -> None:
    """Take the signals again that a library has taken meanwhile; nothing outside `ending_quickly`."""
    if _handler is None or threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _handler)
