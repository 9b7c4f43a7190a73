"""The Prefect server of a run: the one that ``PREFECT_API_URL`` names, or an embedded one that ends with it.

Prefect's own embedded server shares the process group of the run, so that Ctrl-C in a terminal ends it first
and the run then waits for it; and it outlives a run that is killed. Ours does neither.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from flows import server_process
from flows.environment import ServerError, check_server

if TYPE_CHECKING:
    from prefect.settings import Settings

POLL_S = 0.2
ENDING_S = 5.0
"""How long the server may take to end before it is killed. Ours."""


EMBEDDED = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    # Kinds of blocks, of which a run uses none: to look for them is to load what talks to Kubernetes.
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
}
"""Settings of the embedded server, unless a user set them."""


DATABASE_BYTES = 10 * 2**20
"""What Prefect's database and its journal take for a run. Ours: 5.5 MB were seen for six slides."""


@contextmanager
def prefect_server() -> Iterator[Callable[[], None]]:
    """Let Prefect use the named server, or an embedded one.

    An embedded one takes seconds to load, in which others can begin; it opens nothing before it is waited
    for.

    Yields
    ------
    callable
        Waits until the server answers.

    Raises
    ------
    ServerError
        If it cannot be reached, or does not start.
    """
    import httpx
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    try:
        if get_current_settings().api.url is not None:
            yield check_server
        else:
            with _embedded() as (address, wait), temporary_settings({PREFECT_API_URL: address}):
                yield wait
    except httpx.HTTPError as error:
        raise ServerError(
            f"the Prefect server does not answer any more ({type(error).__name__}); what was scored is kept: "
            "start it, and run the same command again to resume"
        ) from error


@contextmanager
def _embedded() -> Iterator[tuple[str, Callable[[], None]]]:
    """A server that loads: its address, and what has it begin and waits for it."""
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    with socket.create_server(("127.0.0.1", 0)) as listening, tempfile.TemporaryFile() as output:
        told, telling = os.pipe()
        try:
            process = _start(listening.fileno(), told, telling, output.fileno(), _environment(settings))
        finally:
            os.close(told)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        deadline = time.monotonic() + settings.server.ephemeral.startup_timeout_seconds

        def wait() -> None:
            with suppress(BrokenPipeError):  # it has ended, which is reported below
                os.write(telling, b"!")
            if not _answers(address, process, deadline):
                output.seek(0)
                last = output.read().decode(errors="replace").strip().splitlines()[-1:]
                why = " ".join(last) or "it printed nothing"
                raise ServerError(not_started(why, settings.home, ended=process.exitcode is not None))

        try:
            yield address, wait
        finally:
            os.close(telling)  # the server ends with it
            process.join(ENDING_S)
            if process.exitcode is None:
                process.kill()
                process.join()


class _Program(subprocess.Popen[bytes]):
    """A program, with the words that `multiprocessing` has for a process."""

    @property
    def exitcode(self) -> int | None:
        return self.poll()

    def join(self, timeout: float | None = None) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(timeout)


def _start(
    listening: int, told: int, telling: int, output: int, environment: dict[str, str]
) -> _Program | BaseProcess:
    """Start the server: forked from this process, which has imported Prefect, or as a program.

    A process of several threads cannot be forked with safety: any of them may hold a lock.
    """
    if _threads() != 1:
        return _Program(
            [sys.executable, "-P", server_process.__file__, str(listening)],
            stdin=told,
            stdout=subprocess.DEVNULL,
            stderr=output,
            env=environment,
            pass_fds=[listening],
            start_new_session=True,
        )
    process = get_context("fork").Process(
        target=server_process.serve_forked, args=(listening, told, telling, output, environment), daemon=True
    )
    blocked = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}  # until it has set up how it takes them
    mine = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mine)
    return process


def _threads() -> int | None:
    """Threads of this process, also those of libraries; None where the system does not list them."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return None


def _environment(settings: Settings) -> dict[str, str]:
    """Environment of the embedded server: ours, and above it what a user set."""
    return {**os.environ, **EMBEDDED, **settings.to_environment_variables(exclude_unset=True)}


def not_started(why: str, home: Path, *, ended: bool) -> str:
    """The error where the embedded server is not there: it ended, or is slow.

    Parameters
    ----------
    home
        Prefect's folder, which holds its database.
    """
    with suppress(OSError):
        if (free := shutil.disk_usage(home).free) < DATABASE_BYTES:
            return (
                f"the embedded Prefect server cannot start: {free} bytes are free on the disk of its folder "
                f"{home}, and its database needs {DATABASE_BYTES}; free some, or set PREFECT_HOME to a "
                "folder with space"
            )
    how = "ended at its start" if ended else "did not start in time"
    return (
        f"the embedded Prefect server {how} ({why}); start one (prefect server start) and set "
        "PREFECT_API_URL, or raise PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"
    )


def _answers(address: str, process: _Program | BaseProcess, deadline: float) -> bool:
    """Whether the server is healthy before the deadline."""
    import httpx

    while time.monotonic() < deadline and process.exitcode is None:
        try:
            if (
                httpx.get(f"{address}/health", timeout=POLL_S * 10, trust_env=False).status_code
                == httpx.codes.OK
            ):
                return True
        except httpx.TransportError:
            pass
        time.sleep(POLL_S)
    return False
