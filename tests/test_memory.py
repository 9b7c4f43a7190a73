"""What the driver of a run has in memory: no compiler, nothing that draws, and little of what it freed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.memory import ALLOCATORS

ROOT = Path(__file__).parents[1]
KEEPS = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}
"""As in the image, where it is for kernels."""
FREED_MIB = 64


def said(code: str, **environment: str) -> str:
    """What a Python process prints, which has nothing of this one's allocators."""
    kept = {name: value for name, value in os.environ.items() if name not in ALLOCATORS}
    words = [sys.executable, "-c", code]
    return subprocess.run(
        words, cwd=ROOT, env=kept | environment, capture_output=True, text=True, check=True
    ).stdout


def test_a_driver_loads_no_compiler_and_has_one_allocator() -> None:
    """Also not what pools specimens and reads regions; nor does a result that a worker sends it."""
    code = (
        "import sys, flows.cohort, her2core.lake.rows_regions, her2core.cases.comparisons, pyarrow\n"
        "slow = {'matplotlib', 'numba', 'xarray', 'zarr'}\n"
        "print(pyarrow.default_memory_pool().backend_name, *sorted(slow.intersection(sys.modules)))"
    )
    assert said(code).split() == ["system"]
    assert said(code, ARROW_DEFAULT_MEMORY_POOL="mimalloc").split() == ["mimalloc"]  # what a user set


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and is of glibc")
def test_a_driver_returns_what_it_frees_also_in_an_image_for_kernels() -> None:
    code = (
        "from flows.memory import give_memory_back\n"
        "GIVE\n"
        f"freed = [bytes(2**20 // 4) for _ in range({FREED_MIB * 4})]\n"
        "del freed\n"
        "pages = int(open('/proc/self/statm').read().split()[1])\n"
        "print(pages * 4096 // 2**20)"
    )
    kept, given = (int(said(code.replace("GIVE", do), **KEEPS)) for do in ("pass", "give_memory_back()"))
    assert kept - given > FREED_MIB / 2
