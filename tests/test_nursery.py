"""What is forked from a run's nursery has loaded what it needs, has the environment of workers, and hears no
signals of a terminal; the nursery ends with the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.environment import WORKER_ENVIRONMENT
from flows.nursery import MODULES

SCRIPT = """
import json, os, signal, sys, threading
from multiprocessing import get_context
from flows import nursery

def look(answer):
    blocked = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
    answer.send([os.getppid(), list(sys.modules), dict(os.environ), blocked, threading.active_count()])

if __name__ == "__main__":
    nursery.open_nursery(also=["colorsys"]).__enter__()
    context = get_context(nursery.METHOD)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=look, args=(theirs,))
    process.start()
    json.dump([ours.recv(), list(sys.modules), dict(os.environ)], sys.stdout)
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux lists them")
def test_what_is_forked_is_ready_and_the_nursery_ends_with_a_run_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name not in WORKER_ENVIRONMENT}
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    (nursery, loaded, has, blocked, threads), driver_loaded, driver_has = json.loads(done.stdout)
    assert {*MODULES, "colorsys"} <= set(loaded)
    assert not {"distributed", "numpy", "prefect"} & set(
        driver_loaded
    )  # it loads beside the driver, not in it
    assert {name: has[name] for name in WORKER_ENVIRONMENT} == {
        name: str(value) for name, value in WORKER_ENVIRONMENT.items()
    }
    assert not set(WORKER_ENVIRONMENT) & set(driver_has)
    assert set(blocked) == {signal.SIGINT, signal.SIGHUP}
    assert threads == 1
    deadline = time.monotonic() + 20
    while Path(f"/proc/{nursery}/cmdline").exists() and Path(f"/proc/{nursery}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the nursery outlives the run"
        time.sleep(0.02)
