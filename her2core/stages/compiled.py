"""Compiled code, made ready once on a machine before the first slide needs it, each part in its own process.

Numba compiles a function where it is first called and keeps it in its cache. Without this, every worker of a
first run compiles the same kernels at the same time: a minute of each.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import re
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from dask.system import cpu_count

from her2core.records import Assay
from her2core.stages.progress import ENDED, report

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[1]
PARTS = {
    "ihc": ("kernels/ihc", "kernels"),
    "ish": ("kernels/ish",),
    "points": ("points",),
}
"""Folders whose compiled functions a part covers, longest first."""
FOLDERS = ("kernels", "phantom", "points")
"""Folders that hold compiled code, and the constants in it."""
SHOWN = "kernels"
"""What progress is reported under."""


def parts_of(assays: Iterable[Assay]) -> tuple[str, ...]:
    """The parts that slides of these assays need, longest first."""
    kernels = {"ihc" if assay == Assay.IHC else "ish" for assay in assays}
    return tuple(part for part in PARTS if part in kernels or (part == "points" and kernels))


def missing(parts: Collection[str] = tuple(PARTS)) -> tuple[str, ...]:
    """Those parts that are not known to be ready here; none where no cache can be kept."""
    folder = _cache()
    if not os.access(folder if folder.exists() else folder.parent, os.W_OK):
        return ()
    return tuple(part for part in parts if not _mark(part).exists())


def make_ready(parts: Sequence[str], processes: int | None = None) -> tuple[str, ...]:
    """Compile parts, or load them from the cache, as many at a time as there are processors.

    Parameters
    ----------
    processes
        Parts at a time; one a processor by default.

    Returns
    -------
    tuple of str
        Parts that could not be compiled: whoever needs them tries again, and reports why.
    """
    if not parts:
        return ()
    forget_outdated()
    functions = {part: _functions(part) for part in parts}
    total, seen, lock = sum(map(len, functions.values())), set[str](), threading.Lock()

    def found(name: str) -> None:
        with lock:
            seen.add(name)
            report(SHOWN, "compile", min(len(seen), total - 1), total)

    def make(part: str) -> bool:
        command = [sys.executable, "-P", "-m", __name__, part]
        try:
            started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        except OSError as error:  # no memory, or no process more
            log.warning("the kernels of %s: no process to compile them can be started (%s)", part, error)
            return False
        with started as process:
            running.append(process)
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() in functions[part]:
                    found(line.strip())
        return process.returncode == 0

    running: list[subprocess.Popen[str]] = []
    report(SHOWN, "compile", 0, total)
    with ThreadPoolExecutor(processes or cpu_count()) as pool:
        try:
            made = dict(zip(parts, pool.map(make, parts), strict=True))
        except BaseException:
            for process in running:
                process.kill()
            raise
    report(SHOWN, ENDED, total, total)
    for part in parts:
        if made[part]:
            with suppress(OSError):
                mark = _mark(part)
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()
    return tuple(part for part in parts if not made[part])


def forget_outdated() -> None:
    """Remove what numba keeps of these kernels if any of their files changed since it was compiled.

    Numba looks at a function's own file alone, and compiled code holds that of the functions it calls: of a
    checkout that was updated, a kernel would go on computing with the old code of a file beside its own.
    """
    note = _cache() / f"her2-sources-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:16]}"
    now = repr(_stamps())
    with suppress(OSError):
        if note.exists() and note.read_text() == now:
            return
        for index in _indexes():
            index.unlink(missing_ok=True)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(now)


def _indexes() -> list[Path]:
    """Numba's lists of what it keeps: beside the code, or in folders named after that of the code."""
    folders = {source.parent for source in _sources()}
    named = os.environ.get("NUMBA_CACHE_DIR")
    found = [
        index
        for folder in folders
        for index in (
            Path(named).glob(f"{folder.name}_*/*.nbi") if named else folder.glob("__pycache__/*.nbi")
        )
    ]
    return sorted(found)


def _cache() -> Path:
    """Where numba keeps what it compiles: beside the code by default."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    return Path(named) if named else ROOT / "__pycache__"


def _mark(part: str) -> Path:
    """A file that exists once a part of this code was compiled by this numba for this processor."""
    facts: list[object] = [version("numba"), version("llvmlite"), sys.version, _processor()]
    facts += _stamps()
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    return _cache() / f"her2-compiled-{part}-{digest}"


def _stamps() -> list[object]:
    """Name, time and size of every file with kernels."""
    stats = [(source, source.stat()) for source in _sources()]
    return [
        fact
        for source, stat in stats
        for fact in (str(source.relative_to(ROOT)), stat.st_mtime_ns, stat.st_size)
    ]


def _processor() -> str:
    """What numba compiles for: the named processor, or the one of this machine."""
    if name := os.environ.get("NUMBA_CPU_NAME"):
        return f"{platform.machine()} {name} {os.environ.get('NUMBA_CPU_FEATURES', '')}"
    with suppress(OSError):
        found = re.search(r"^model name\s*:.*$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return f"{platform.machine()} {found.group() if found else ''}"
    return f"{platform.machine()} {platform.processor()}"


def _sources() -> list[Path]:
    return sorted(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))


def _functions(part: str) -> frozenset[str]:
    """Compiled functions that a part covers, by module and name."""
    found = set()
    for source in _sources():
        folder = source.parent.relative_to(ROOT).as_posix()
        if folder in PARTS[part]:
            module = ".".join(("her2core", *source.relative_to(ROOT).with_suffix("").parts))
            for name in re.findall(r"^@(?:nb\.)?njit.*\ndef (\w+)", source.read_text(), re.MULTILINE):
                found.add(f"{module}.{name}")
    return frozenset(found)


def _make(part: str) -> None:
    """Compile one part in this process, and print the name of every function of ours as it is compiled."""
    from numba.core import event

    class Listener(event.Listener):
        def on_start(self, _: event.Event) -> None:
            """What is printed is what is there."""

        def on_end(self, found: event.Event) -> None:
            function = found.data["dispatcher"].py_func
            if function.__module__.startswith("her2core."):
                sys.stdout.write(f"{function.__module__}.{function.__qualname__}\n")
                sys.stdout.flush()

    with event.install_listener("numba:compile", Listener()):
        if part == "ihc":
            from her2core.kernels.ihc import kernel as ihc

            ihc.warm()
        elif part == "ish":
            from her2core.kernels.ish import kernel as ish

            ish.warm()
        else:
            _points()


def _points() -> None:
    """Compute for a few cells what the last stage of a slide computes for all."""
    import numpy as np

    from her2core.guidelines.rules_ihc import load_rules
    from her2core.heterogeneity.biopsy import virtual_biopsies
    from her2core.heterogeneity.ihc import measure_heterogeneity, sweep_regions
    from her2core.kernels.stain import reference_stain, unmix
    from her2core.params import HeterogeneityParams
    from her2core.points.components import largest_component
    from her2core.points.neighbour_fraction import marked_fraction
    from her2core.scoring.ihc import MeasuredCells

    unmix(np.zeros((2, 2, 3), np.uint8), reference_stain((240.0, 240.0, 240.0)))
    random = np.random.default_rng(1)
    y, x = random.uniform(0, 1500, (2, 9000))
    od, yes = random.uniform(0, 1, len(y)).astype(np.float32), np.ones(len(y), np.bool_)
    cells = MeasuredCells(y, x, od, od, od, od, evaluable=yes, tumour=yes, brownness=od, dark_od=od)
    classes = random.integers(0, 5, len(y)).astype(np.int8)
    params = HeterogeneityParams()
    rules, grouped = (load_rules(name) for name in ("breast_asco_cap_2018", "gastric_biopsy"))
    measure_heterogeneity(cells, classes, sweep_regions(cells, classes, params, rules), params, "2+")
    for each in (rules, grouped):
        virtual_biopsies(y, x, classes, each, replace(params, biopsies=99))
    marked_fraction(y, x, yes, 18.0)
    largest_component(y, x, 20.0)


if __name__ == "__main__":
    _make(sys.argv[1])
