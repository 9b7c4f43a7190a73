"""What a flow does with its cluster, as the process of a pod: ``python -m tests.tools.kubeflow FOLDER``.

It writes ``connected`` into the folder, works while ``work`` lies there, and ends with ``end``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from distributed import Client
from distributed.security import Security

from flows.clusters import open_cluster
from her2core.stages.fanout import Workers, fan_out

TASKS = 20


def nap(number: int) -> int:
    time.sleep(1.0)
    return number


def refused(address: str, security: Security | None) -> str:
    """How a stranger's attempt to use a scheduler ends."""
    try:
        with Client(address, security=security, timeout="5s", set_as_default=False):  # type: ignore[no-untyped-call]
            return "let in"
    except (OSError, TypeError, RuntimeError) as error:
        return type(error).__name__


def main(folder: Path) -> None:
    with open_cluster("kubernetes:/her2/cluster.yaml").connect() as client:
        address = client.scheduler.address
        facts = {
            "address": address,
            "threads": list(client.nthreads().values()),  # type: ignore[no-untyped-call]
            "plain": refused(address.replace("tls://", "tcp://"), None),
            "stranger": refused(address, Security.temporary()),  # type: ignore[no-untyped-call]
        }
        (folder / "connected").write_text(json.dumps(facts))
        while not (folder / "end").exists():
            if (folder / "work").exists():
                (folder / "work").unlink()
                workers = Workers(client, "Kubernetes")
                keys = [f"nap-{i}" for i in range(TASKS)]
                ends = time.monotonic() + 120
                done = fan_out(workers, nap, range(TASKS), keys=keys, window=TASKS, deadline=ends)
                (folder / "done").write_text(json.dumps(sorted(done)))
            time.sleep(0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
