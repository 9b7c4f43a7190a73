"""What workers and the report of a run on this machine need: loaded with this module, by `flows.nursery`."""

from __future__ import annotations

import gc
import os
from importlib import import_module

from flows.nursery import MODULES


def _load() -> None:
    from flows.memory import choose_allocators

    choose_allocators()
    run = os.getppid()
    gc.disable()
    for name in MODULES:
        if os.getppid() != run:  # it has ended: bad input, say
            os._exit(0)
        import_module(name)
    from her2core.lake.arrow_alone import leave_pandas_out

    leave_pandas_out()
    gc.freeze()  # pages that a collection does not touch stay shared
    gc.enable()


_load()
