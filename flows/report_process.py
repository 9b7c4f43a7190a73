"""The report of a run, written in a process of its own that ends: its memory is none of the driver's.

It reads what to write from its standard input and writes the path to its standard output, so that no
address of an output stands in the machine's list of processes.
"""

from __future__ import annotations

import json
import subprocess
import sys

from her2core.storage.store import Store

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
    request = json.dumps({"uri": store.uri(), "endpoint_url": store.endpoint_url, "run_id": run_id})
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__], input=request, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ReportError(lines[-1] if lines else f"its process ended with {done.returncode}")
    return str(json.loads(done.stdout.splitlines()[-1])["path"])


def main() -> int:
    """Write the report that standard input names."""
    from flows.memory import give_memory_back
    from her2core.report.build import write_report
    from her2core.text import cleaned

    give_memory_back()
    request = json.loads(sys.stdin.read())
    store = Store(request["uri"], endpoint_url=request["endpoint_url"])
    try:
        path = write_report(store, request["run_id"]).path
    except Exception as error:  # noqa: BLE001, the driver logs its words
        words = " ".join(f"{type(error).__name__}: {error}".split())
        sys.stderr.write(f"{cleaned(words)}\n")
        return FAILED
    sys.stdout.write(json.dumps({"path": path}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
