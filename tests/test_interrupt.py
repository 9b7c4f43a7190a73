"""How a run is ended by a signal: no process of it stays, and the last word is its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = """
import multiprocessing, os, signal, time
from flows.environment import prepare_environment
from flows.interrupt import ending_quickly, leave

prepare_environment()
spawn = multiprocessing.get_context("spawn")
kept = spawn.Queue()  # its semaphores are what multiprocessing clears up behind us
worker = spawn.Process(target=time.sleep, args=(1000,))
with ending_quickly(130, lambda: None):
    try:
        worker.start()
        print(worker.pid, flush=True)
        time.sleep(1000)
    except KeyboardInterrupt:
        os.write(2, b"interrupted\\n")
        leave(130)
"""


def test_workers_end_before_the_run_does_and_nothing_is_printed_behind_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)  # until multiprocessing's tracker has closed its end too
        assert time.monotonic() - begun < 30
    assert (process.returncode, said) == (130, "interrupted\n")
    assert not Path(f"/proc/{worker}").exists() or _state(worker) in "ZX"


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
