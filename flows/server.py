"""The Prefect server of a run: the one that ``PREFECT_API_URL`` names, or an embedded one that ends with it.

Prefect's own embedded server shares the process group of the run, so that Ctrl-C in a terminal ends it first
and the run then waits for it; and it outlives a run that is killed. Ours does neither.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flows.environment import ServerError, check_server

if TYPE_CHECKING:
    from prefect.settings import Settings

PROCESS = Path(__file__).with_name("server_process.py")
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
    """Let Prefect use the named server, after asking it whether it is there, or an embedded one.

    Yields
    ------
    callable
        Waits until the server answers: an embedded one takes seconds to start, in which others can begin.

    Raises
    ------
    ServerError
        If it cannot be reached, or does not start.
    """
    import httpx
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    try:
        if get_current_settings().api.url is not None:
            check_server()
            yield _there
        else:
            with _embedded() as (address, wait), temporary_settings({PREFECT_API_URL: address}):
                yield wait
    except httpx.HTTPError as error:
        raise ServerError(
            f"the Prefect server does not answer any more ({type(error).__name__}); what was scored is kept: "
            "start it, and run the same command again to resume"
        ) from error


def _there() -> None:
    """A server that was checked needs no waiting for."""


@contextmanager
def _embedded() -> Iterator[tuple[str, Callable[[], None]]]:
    """A server that starts: its address, and what waits for it."""
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            [sys.executable, "-P", str(PROCESS), str(listening.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=output,
            env=_environment(settings),
            pass_fds=[listening.fileno()],
            start_new_session=True,
        ) as process,
    ):
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        deadline = time.monotonic() + settings.server.ephemeral.startup_timeout_seconds

        def wait() -> None:
            if not _answers(address, process, deadline):
                output.seek(0)
                last = output.read().decode(errors="replace").strip().splitlines()[-1:]
                why = " ".join(last) or "it printed nothing"
                raise ServerError(not_started(why, settings.home, ended=process.poll() is not None))

        try:
            yield address, wait
        finally:
            process.stdin.close()  # type: ignore[union-attr]  # it is a pipe; the server ends with it
            try:
                process.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                process.kill()


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


def _answers(address: str, process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Whether the server is healthy before the deadline."""
    import httpx

    while time.monotonic() < deadline and process.poll() is None:
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
