"""The embedded Prefect server loads what a run uses, and what a user sets stands above that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.server import EMBEDDED, _environment
from flows.server_process import NAME

FORKED = """
import os, signal
from flows.environment import prepare_environment
prepare_environment()
from flows.server import prefect_server
own = open("/proc/self/comm").read()
with prefect_server():
    child = open(f"/proc/self/task/{os.getpid()}/children").read().split()[0]
    while open(f"/proc/{child}/comm").read() == own:
        pass
    os.kill(int(child), signal.SIGINT)
    print(child, open(f"/proc/{child}/comm").read())
"""


def test_the_embedded_server_leaves_blocks_alone_unless_a_user_wants_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prefect.settings import Settings

    for name in EMBEDDED:
        monkeypatch.delenv(name, raising=False)
    for name, value in _environment(Settings()).items():
        monkeypatch.setenv(name, value)
    server = Settings().server
    assert (server.register_blocks_on_start, server.memoize_block_auto_registration) == (False, False)
    for name in EMBEDDED:
        monkeypatch.delenv(name)

    monkeypatch.setenv("PREFECT_API_BLOCKS_REGISTER_ON_START", "true")  # its other name
    for name, value in _environment(Settings()).items():
        monkeypatch.setenv(name, value)
    assert Settings().server.register_blocks_on_start


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux lists them")
def test_a_server_that_is_not_waited_for_is_forked_begins_nothing_and_ends_with_the_run(
    tmp_path: Path,
) -> None:
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path), "PYTHONWARNINGS": "error"}
    environment.pop("PREFECT_API_URL", None)
    done = subprocess.run(
        [sys.executable, "-c", FORKED], env=environment, capture_output=True, text=True, check=True
    )
    child, name = done.stdout.split()
    assert name == NAME
    assert not Path(f"/proc/{child}").exists()
    assert not list(tmp_path.glob("*.db*"))
