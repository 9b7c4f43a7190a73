"""Do the tests hold the numbers? Change one constant or comparison at a time and see whether they fail.

::

    python -m tests.tools.mutants scoring guidelines --most 200   # rooms of her2core
    python -m tests.tools.mutants kernels --most 200 --seed 2 --out mutants.json

Sites are drawn evenly by a seed, so that another run draws the same ones from the same source. Every mutant
is tried in a process of its own, forked from one that has loaded what is slow to load, in a copy of the tree:
the quick tests of its room. Compiled code is compiled once, with numbers that can be changed while it runs
(see `live`). A mutant that every test passes is printed: a number that nothing holds. docs/testing.md gives
the figures.

What is changed: a number that decides becomes four thirds of itself (whole numbers below 4 become one more),
and a comparison is turned round (``<`` becomes ``>=``); in guidelines, whose percentages and ratios are exact
and lie on their bounds, equality changes sides instead (``<`` becomes ``<=``).
Left alone: 0, 1 and -1, guards, indexes, annotations, messages, and `warm`, which only compiles ahead.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import pytest

from tests.tools import live

ROOT = Path(__file__).parents[2]
MOST_CPU_S = 300
MOST_WALL_S = 1500
"""A mutant that takes longer than this has failed: most of those end no loop."""
PRELOADED = (
    "cv2",
    "hypothesis",
    "matplotlib",
    "numba",
    "pandas",
    "polars",
    "pyarrow",
    "pydantic",
    "scipy",
    "zarr",
)
"""Slow to load, and the same for every mutant."""
GUARD = 1e-4
"""Smaller numbers keep a division finite or end a loop; they decide nothing."""
TESTS = {
    "scoring": ["tests/test_ish.py", "tests/test_scores.py", "tests/test_tumour.py"],
    "scoring/copynumber.py": ["tests/test_populations.py", "tests/test_thresholds.py", "tests/test_ish.py"],
    "scoring/genetic.py": ["tests/test_ish.py", "tests/test_cases.py"],
    "scoring/ihc.py": ["tests/test_scores.py", "tests/test_tumour.py"],
    "scoring/ish.py": ["tests/test_thresholds.py", "tests/test_ish.py"],
    "scoring/ish_copies.py": ["tests/test_populations.py", "tests/test_thresholds.py", "tests/test_ish.py"],
    "scoring/ish_nuclei.py": ["tests/test_ish.py"],
    "scoring/keyed.py": ["tests/test_cases.py"],
    "scoring/mixture.py": ["tests/test_populations.py", "tests/test_thresholds.py", "tests/test_ish.py"],
    "scoring/neighbours.py": ["tests/test_neighbours.py"],
    "scoring/signal_filter.py": ["tests/test_signal_filter.py", "tests/test_thresholds.py"],
    "scoring/signals.py": ["tests/test_ish.py"],
    "scoring/tissue_features.py": ["tests/test_tumour_thresholds.py", "tests/test_tumour.py"],
    "scoring/tumour.py": ["tests/test_tumour_thresholds.py", "tests/test_tumour.py"],
    "scoring/tumour_fit.py": ["tests/test_tumour_thresholds.py", "tests/test_learn_tumour.py"],
    "guidelines": ["tests/test_cases.py"],
    "guidelines/rules_ihc.py": ["tests/test_guideline.py"],
    "guidelines/rules_ish.py": ["tests/test_guideline_ish.py"],
    "profile": ["tests/test_qc.py", "tests/test_profile.py", "tests/test_colour_profile.py"],
    "kernels": [
        "tests/test_kernel_outputs.py",
        "tests/test_kernel_thresholds.py",
        "tests/test_stain.py",
        "tests/test_blur.py",
    ],
    "kernels/ihc": [
        "tests/test_kernel_outputs.py",
        "tests/test_kernel_measures.py",
        "tests/test_kernel_thresholds.py",
    ],
    "kernels/ish": [
        "tests/test_kernel_outputs.py",
        "tests/test_kernel_ish_measures.py",
        "tests/test_kernel_thresholds.py",
        "tests/test_spots.py",
        "tests/test_dish.py",
    ],
    "points": [
        "tests/test_neighbours.py",
        "tests/test_order.py",
        "tests/test_scores.py",
        "tests/test_spatial.py",
        "tests/test_pattern.py",
        "tests/test_biopsy.py",
    ],
}
"""What is tried, by the file or the innermost room that a mutant is in: what is quick, and quickest first."""
OUTPUTS = [
    "tests/test_kernel_ish_measures.py",
    "tests/test_kernel_measures.py",
    "tests/test_kernel_outputs.py",
]
"""What compiles the kernels whole."""
TURNED = {ast.Lt: ">=", ast.LtE: ">", ast.Gt: "<=", ast.GtE: "<", ast.Eq: "!=", ast.NotEq: "=="}
BOUNDS = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
SIGNS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one place: the text of ``path`` from ``start`` to ``end`` (bytes) becomes ``new``."""

    path: str
    line: int
    start: int
    end: int
    old: str
    new: str


class Sites(ast.NodeVisitor):
    """Collect the constants and comparisons of a module."""

    def __init__(self, path: str, source: str) -> None:
        self._path, self._source = path, source.encode()
        self._lines = [0]
        for line in self._source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self.found: list[Mutant] = []
        self.places: dict[tuple[int, int], Mutant] = {}  # by the node's name, and which operator of it

    def _offset(self, line: int | None, column: int | None) -> int:
        if line is None or column is None:
            raise ValueError("a node without a place")
        return self._lines[line - 1] + column

    def _note(self, node: ast.AST, which: int, line: int, start: int, end: int, new: str) -> None:
        old = self._source[start:end].decode()
        self.found.append(Mutant(self._path, line, start, end, old, new))
        self.places[id(node), which] = self.found[-1]

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or value in (0, 1) or abs(value) < GUARD:
            return
        start, end = (
            self._offset(node.lineno, node.col_offset),
            self._offset(node.end_lineno, node.end_col_offset),
        )
        new = value + 1 if isinstance(value, int) and abs(value) < 4 else value * 4 / 3
        self._note(node, 0, node.lineno, start, end, repr(round(new) if isinstance(value, int) else new))

    def visit_Compare(self, node: ast.Compare) -> None:
        swaps = BOUNDS if "/guidelines/" in self._path else TURNED
        left: ast.expr = node.left
        for which, (operator, right) in enumerate(zip(node.ops, node.comparators, strict=True)):
            kind = type(operator)
            if kind in swaps:
                start = self._offset(left.end_lineno, left.end_col_offset)
                end = self._offset(right.lineno, right.col_offset)
                at = self._source.find(SIGNS[kind].encode(), start, end)
                if at >= 0:
                    self._note(node, which, right.lineno, at, at + len(SIGNS[kind]), swaps[kind])
            left = right
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.value)  # an index is not a threshold

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name == "warm":
            return  # compiles ahead, and measures nothing
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)
        for statement in node.body:
            self.visit(statement)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        return  # a message


def mutants_of(room: str) -> Iterator[Mutant]:
    """Every mutant of a room of her2core."""
    place = ROOT / "her2core" / room
    for file in [place] if place.suffix else sorted(place.rglob("*.py")):
        path = file.relative_to(ROOT).as_posix()
        source = file.read_text(encoding="utf-8")
        sites = Sites(path, source)
        sites.visit(ast.parse(source))
        yield from sites.found


def tests_of(mutant: Mutant) -> list[str]:
    """The tests that are tried: those of the file, or of the innermost room, that a mutant is in."""
    path = PurePosixPath(mutant.path).relative_to("her2core")
    return next(TESTS[place.as_posix()] for place in (path, *path.parents) if place.as_posix() in TESTS)


def passes(tests: Sequence[str]) -> bool:
    """Whether tests pass, in this process."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return pytest.main([*options, *tests]) == 0


def in_a_fork(work: Callable[[], bool], *, quiet: bool = True) -> bool:
    """What ``work`` finds in a process of its own; False where it dies."""
    child = os.fork()
    if child == 0:
        verdict = False
        try:
            if quiet:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 1)
                os.dup2(nowhere, 2)
            resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            verdict = work()
        except BaseException:  # noqa: BLE001 (a test may end in any way; so does the process)
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(0 if verdict else 1)
    handle = os.pidfd_open(child)
    if not select.select([handle], [], [], MOST_WALL_S)[0]:
        os.kill(child, signal.SIGKILL)
    os.close(handle)
    return os.waitpid(child, 0)[1] == 0


def survives(tree: Path, mutant: Mutant) -> bool:
    """Whether every test passes with the change in place."""
    if mutant in live.CHANGES:
        return in_a_fork(lambda: live.change(mutant) and passes(tests_of(mutant)))
    file = tree / mutant.path
    kept, stamp = file.read_bytes(), file.stat()
    file.write_bytes(kept[: mutant.start] + mutant.new.encode() + kept[mutant.end :])
    try:
        return in_a_fork(lambda: passes(tests_of(mutant)))
    finally:
        file.write_bytes(kept)
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # what is compiled of it stays known


def enter(tree: Path) -> None:
    """Make a copy of the tree the place that her2core is loaded from."""
    ignored = shutil.ignore_patterns(".git", ".venv*", "demo", "build", ".mypy_cache", ".ruff_cache")
    shutil.copytree(ROOT, tree, ignore=ignored)
    os.chdir(tree)
    sys.path[:] = [str(tree), *(path for path in sys.path if Path(path or ".").resolve() not in (ROOT, tree))]
    os.environ["PYTHONPATH"] = str(tree)
    sys.dont_write_bytecode = True  # a change within a second, of as many bytes, would not be seen
    for name in PRELOADED:
        importlib.import_module(name)
    importlib.import_module("cv2").setNumThreads(1)  # its threads do not outlive a fork
    for name in ("tests", "tests.tools"):
        module = sys.modules[name]
        module.__path__ = [str(tree / name.replace(".", "/"))]
        module.__file__ = str(tree / name.replace(".", "/") / "__init__.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rooms", nargs="+", help="folders of her2core")
    parser.add_argument("--most", type=int, default=100, help="mutants that are tried")
    parser.add_argument("--seed", type=int, default=1, help="of the draw")
    parser.add_argument("--out", type=Path, help="JSON of every mutant and whether it survived")
    given = parser.parse_args()
    found = list(dict.fromkeys(mutant for room in given.rooms for mutant in mutants_of(room)))
    drawn = random.Random(given.seed).sample(found, min(given.most, len(found)))
    out = given.out and given.out.resolve()
    print(f"{len(found)} mutants, {len(drawn)} of them tried", flush=True)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        enter(tree)
        tests = list(dict.fromkeys(test for mutant in drawn for test in tests_of(mutant)))
        if any("/kernels/" in mutant.path for mutant in drawn):
            live.enliven(tree, Sites)
            if not passes(OUTPUTS):  # here, so that every fork has what is compiled
                sys.exit("the kernels make other outputs with numbers that can be changed")
            live.forget("tests")
            tests = [test for test in tests if test not in OUTPUTS]
        if tests and not in_a_fork(lambda: passes(tests), quiet=False):
            sys.exit(f"{' '.join(tests)} fail without a change")
        for count, mutant in enumerate(drawn, start=1):
            alive = survives(tree, mutant)
            results.append({**asdict(mutant), "survived": alive})
            killed = sum(not one["survived"] for one in results)
            if alive:
                print(f"{mutant.path}:{mutant.line}: {mutant.old} -> {mutant.new} passes", flush=True)
            if count % 10 == 0 or count == len(drawn):
                print(f"{killed} of {count} killed ({killed / count:.0%})", flush=True)
            if out:
                out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
