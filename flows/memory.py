"""How the driver of a run takes memory: it lives for hours beside others, and computes little."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

ALLOCATORS = {
    "_RJEM_MALLOC_CONF": "narenas:1,dirty_decay_ms:100,muzzy_decay_ms:0",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
"""For Delta Lake's engine and for Arrow, which by default keep what they freed, in heaps of their own, four a
core: some eighty MiB in a driver of 5000 slides, whose commits are small. Ours, measured with
`benchmarks/bench_tables.py`."""

ARENAS = 2
"""Heaps: a run has a hundred threads, and by default each fills one of its own, up to eight a core. Ours."""
TRIM_BYTES = 2**20
"""Free bytes at the end of a heap that stay with it. Ours; images set a gigabyte, for kernels."""
MAPPED_BYTES = 128 * 2**10
"""Larger blocks lie outside of heaps and go back when they are freed: the C library's default."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of ``mallopt(3)``."""


def choose_allocators() -> None:
    """Choose `ALLOCATORS`, before the libraries are loaded, which look once; what a user set stays."""
    for name, value in ALLOCATORS.items():
        os.environ.setdefault(name, value)


@contextmanager
def loading() -> Iterator[None]:
    """Look for no garbage in a block that imports: what it makes is there to stay."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def give_memory_back() -> None:
    """Have this process return what it frees; for the driver alone.

    Workers keep what they free (`flows.clusters.WORKER_ENVIRONMENT`), since the first touch of fresh pages
    costs a kernel most. An image sets the same for whatever runs in it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library than glibc
        return
    mallopt(_ARENA_MAX, ARENAS)
    mallopt(_TRIM_THRESHOLD, TRIM_BYTES)
    mallopt(_MMAP_THRESHOLD, MAPPED_BYTES)
