"""What the driver of a run has in memory: no compiler, nothing that draws, and little of what it freed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.clusters.base import SETTINGS
from flows.memory import ALLOCATORS
from her2core.records import Assay, SlideRow, SlideState
from her2core.stages.workers import dask_setup
from her2core.storage.journal import write_status
from her2core.storage.store import Store

ROOT = Path(__file__).parents[1]
KEEPS = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}
"""As in the image, where it is for kernels."""
FREED_MIB = 64


def printed(code: str, **environment: str) -> str:
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
        "slow = {'botocore.session', 'matplotlib', 'numba', 'xarray', 'zarr'}\n"
        "print(pyarrow.default_memory_pool().backend_name, *sorted(slow.intersection(sys.modules)))"
    )
    assert printed(code).split() == ["system"]
    assert printed(code, ARROW_DEFAULT_MEMORY_POOL="mimalloc").split() == ["mimalloc"]  # what a user set


@pytest.mark.parametrize(
    ("process", "slow"),
    [
        ("stages.prepare, her2core.stages.cells, her2core.stages.slide", {"pydicom", "xarray", "zarr"}),
        ("report.build", {"cv2", "matplotlib", "scipy"}),
    ],
)
def test_a_worker_and_a_report_load_no_library_of_what_few_slides_are(process: str, slow: set[str]) -> None:
    code = f"import sys, her2core.{process}; print(*{slow | {'botocore.session'}} & {{*sys.modules}})"
    assert printed(code).split() == []


def test_arrow_takes_lists_without_pandas_and_gives_tables_to_it_still() -> None:
    code = (
        "import sys, pyarrow as pa; from her2core.lake.arrow_alone import leave_pandas_out\n"
        "leave_pandas_out(); made = pa.table({'a': ['x']}); before = 'pandas' in sys.modules\n"
        "print(before, made.to_pandas()['a'][0], 'pandas' in sys.modules)"
    )
    assert printed(code).split() == ["False", "x", "True"]
    assert SETTINGS["distributed.worker.preload"] == [dask_setup.__module__]
    assert dask_setup.__name__ == "dask_setup"  # by which Dask finds it


@pytest.mark.parametrize("words", [["--help"], ["status", "OUT"]])
def test_the_command_line_answers_without_kernels_and_without_tables(
    words: list[str], tmp_path: Path
) -> None:
    write_status(Store(tmp_path), "run", SlideRow("s", "c", "s.tif", Assay.IHC), SlideState.SCORED, "slide")
    words = [str(tmp_path) if word == "OUT" else word for word in words]
    code = (
        f"import atexit, sys; sys.argv = ['her2', *{words}]; import her2cli\n"
        "slow = {'cv2', 'dask', 'deltalake', 'matplotlib', 'numba', 'prefect', 'pyarrow', 'scipy', 'zarr'}\n"
        "atexit.register(lambda: print(sorted(slow.intersection(sys.modules))))\n"
        "her2cli.main()"
    )
    shown = printed(code).splitlines()
    assert shown[-1] == "[]"
    assert "scored" in "".join(shown) or words == ["--help"]


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
    kept, given = (int(printed(code.replace("GIVE", do), **KEEPS)) for do in ("pass", "give_memory_back()"))
    assert kept - given > FREED_MIB / 2
