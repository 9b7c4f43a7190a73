"""What workers and the report of a run on this machine need: loaded with this module, by `flows.nursery`."""

from __future__ import annotations

import os
from importlib import import_module

from flows.memory import loading
from flows.nursery import MODULES


def _load() -> None:
    run = os.getppid()
    with loading():
        for name in MODULES:
            if os.getppid() != run:  # it has ended: bad input, say
                os._exit(0)
            import_module(name)
        from her2core.lake.arrow_alone import leave_pandas_out

        leave_pandas_out()


_load()
