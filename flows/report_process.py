"""The report of a run, written in a process of its own that ends: its memory is none of the driver's.

It is forked from the run's nursery, if that is open. Else it is a program, which reads what to write from its
standard input and writes the path to its standard output, so that no address of an output stands in the
machine's list of processes. It ends with the driver, however that ends: who has taken over the output writes
the report.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from flows import nursery
from her2core.storage.store import Store
from her2core.text import cleaned

FAILED = 1


class ReportError(Exception):
    """A report that could not be written, in the words of the process that tried."""


def write_apart(store: Store, run_id: str) -> str:
    """Write the report of a run beside its outputs: the path of its page.

    Raises
    ------
    ReportError
        If it could not be written.
    """
    if nursery.is_open():
        return _forked(store, run_id)
    theirs, ours = os.pipe()  # nothing is written to it; the system closes it when this process ends
    about = {"uri": store.uri(), "endpoint_url": store.endpoint_url, "run_id": run_id, "driver": theirs}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=json.dumps(about),
            capture_output=True,
            text=True,
            check=False,
            pass_fds=(theirs,),
        )
    finally:
        os.close(theirs)
        os.close(ours)
    if done.returncode:  # also before `main` began: a package that cannot be imported
        lines = done.stderr.strip().splitlines()
        raise ReportError(cleaned(lines[-1]) if lines else f"its process ended with {done.returncode}")
    return str(json.loads(done.stdout.splitlines()[-1])["path"])


def main() -> int:
    """Write the report that standard input names."""
    from flows.memory import give_memory_back

    give_memory_back()
    request = json.loads(sys.stdin.read())
    threading.Thread(target=_end_with, args=(request["driver"],), daemon=True).start()
    store = Store(request["uri"], endpoint_url=request["endpoint_url"])
    path, words = _written(store, request["run_id"])
    if path is None:
        sys.stderr.write(f"{words}\n")
        return FAILED
    sys.stdout.write(json.dumps({"path": path}) + "\n")
    return 0


def _written(store: Store, run_id: str) -> tuple[str | None, str]:
    """The path of the report, or what hindered it."""
    try:
        from her2core.lake.arrow_alone import leave_pandas_out
        from her2core.report.build import write_report

        leave_pandas_out()
        return write_report(store, run_id).path, ""
    except Exception as error:  # noqa: BLE001, the driver logs its words
        return None, " ".join(f"{type(error).__name__}: {error}".split())


def _forked(store: Store, run_id: str) -> str:
    """As `write_apart`, by a process that is forked from the nursery."""
    context = get_context(nursery.METHOD)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_answer, args=(theirs, store.uri(), store.endpoint_url, run_id), daemon=True
    )
    with ours:
        with theirs:
            process.start()
        try:
            path, words = ours.recv()
        except EOFError:
            path, words = None, ""
    process.join()
    if path is None:
        raise ReportError(cleaned(words) or f"its process ended with {process.exitcode}")
    return str(path)


def _answer(asked: Connection, uri: str, endpoint_url: str | None, run_id: str) -> None:
    """Write the report that a driver asks for, and end if the driver does."""
    from flows.memory import give_memory_back

    give_memory_back()
    driver = parent_process()
    assert driver is not None
    threading.Thread(target=_end_after, args=(driver,), daemon=True).start()
    asked.send(_written(Store(uri, endpoint_url=endpoint_url), run_id))


def _end_after(driver: BaseProcess) -> None:
    driver.join()
    os._exit(FAILED)


def _end_with(driver: int) -> None:
    """End this process once the driver has: nobody has the other end of its pipe any more."""
    os.read(driver, 1)
    os._exit(FAILED)


if __name__ == "__main__":
    sys.exit(main())
