"""The embedded Prefect server as a process of its own; `flows.server` starts it.

It ends when its standard input does: that is a pipe whose other end the run holds, so that it never outlives
the run, however that ends. Signals do not end it: who sends them to every process of a run (a terminal,
systemd, a container's runtime) would have the run lose its server before it can end in order. Nothing but
this file and Prefect is imported.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LAST_WORDS_S = 1.0
"""How long the server may take to end by itself. Ours."""


def _end_with_input(requested: threading.Event) -> None:
    os.read(sys.stdin.fileno(), 1)
    requested.set()
    threading.Event().wait(LAST_WORDS_S)
    os._exit(0)


def main() -> None:
    """Serve Prefect's API on a socket that was opened before, given as a file descriptor."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    requested = threading.Event()
    threading.Thread(target=_end_with_input, args=(requested,), daemon=True).start()
    import uvicorn

    class Server(uvicorn.Server):
        """Uvicorn's, which ends with our input and leaves signals alone."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def on_tick(self, counter: int) -> bool:
            self.should_exit = self.should_exit or requested.is_set()
            return await super().on_tick(counter)

    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        log_level="error",
        lifespan="on",
        timeout_graceful_shutdown=1,
    )
    Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
    os._exit(0)  # taking Prefect down module by module takes seconds more


if __name__ == "__main__":
    main()
