"""The embedded Prefect server as a process of its own; `flows.server` starts it.

It loads what it needs, and opens nothing before something comes from its standard input. That is a pipe
whose other end the run holds, and when it ends the server does, so that it never outlives the run, however
that ends. Signals do not end it: who sends them to every process of a run (a terminal, systemd, a container's
runtime) would have the run lose its server before it can end in order. It imports nothing but Prefect.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NAME = "her2-prefect"
"""What the system's list of processes calls it."""
LAST_WORDS_S = 1.0
"""How long the server may take to end by itself. Ours."""
ASKED_FOR = ("/admin", "/csrf-token", "/flows", "/flow_runs", "/v2/concurrency_limits", "/artifacts")
"""What a run asks a server for. FastAPI readies routes one after another until one matches, so that these
come first and the others, half of the work, only if someone asks for them."""


def _heed_input(begun: threading.Event, requested: threading.Event) -> None:
    """Begin when something comes, and end with the input."""
    while os.read(0, 1):
        begun.set()
    requested.set()
    if begun.is_set():
        threading.Event().wait(LAST_WORDS_S)
    os._exit(0)


def serve(listening: int) -> None:
    """Serve Prefect's API on a socket that was opened before, given as a file descriptor."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # what our parent blocked until they are ignored
    with suppress(OSError):  # of a system without it
        Path("/proc/self/comm").write_text(NAME)
    begun, requested = threading.Event(), threading.Event()
    threading.Thread(target=_heed_input, args=(begun, requested), daemon=True).start()
    gc.disable()  # all that is made until the server serves is there to stay
    import uvicorn
    from prefect.server.api import server

    class Server(uvicorn.Server):
        """Uvicorn's, which ends with our input and leaves signals alone."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def on_tick(self, counter: int) -> bool:
            self.should_exit = self.should_exit or requested.is_set()
            return await super().on_tick(counter)

    routers: Any = sorted(server.API_ROUTERS, key=lambda router: not router.prefix.startswith(ASKED_FOR))
    server.API_ROUTERS = tuple(routers)
    config = uvicorn.Config(
        server.create_app(), log_level="error", lifespan="on", timeout_graceful_shutdown=1
    )
    config.load()
    gc.freeze()
    gc.enable()
    begun.wait()
    Server(config).run(sockets=[socket.socket(fileno=listening)])
    os._exit(0)  # taking Prefect down module by module takes seconds more


def serve_forked(
    listening: int, told: int, telling: int, output: int, environment: Mapping[str, str]
) -> None:
    """Serve in a process that was forked from one that had imported Prefect.

    Parameters
    ----------
    told, telling
        Both ends of the pipe that becomes our input.
    output
        What becomes our standard error.
    environment
        What becomes our environment.
    """
    os.setsid()
    os.close(telling)
    with Path(os.devnull).open("wb") as nothing:
        for number, file in enumerate((told, nothing.fileno(), output)):
            os.dup2(file, number)
    os.environ.clear()
    os.environ.update(environment)
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()
    serve(listening)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
