"""Do the tests hold the numbers? Change one constant or comparison at a time and see whether they fail.

::

    python -m tests.tools.mutants scoring guidelines --most 200   # rooms of her2core
    python -m tests.tools.mutants kernels --most 60 --out mutants.json

Sites are drawn evenly with a fixed seed, so that another run draws the same ones from the same source. Every
mutant is tried in a copy of the tree: the tests of its room first, then the pinned outputs of the stages. A
mutant that every test passes is printed: a number that nothing holds. docs/testing.md gives the figures.

What is changed: a number that decides becomes four thirds of itself (whole numbers below 4 become one more),
and a comparison is turned round (``<`` becomes ``>=``); in guidelines, whose percentages and ratios are exact
and lie on their bounds, equality changes sides instead (``<`` becomes ``<=``).
Left alone: 0, 1 and -1, guards, indexes, annotations, messages.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
SEED = 1
TIMEOUT_S = 1800
GUARD = 1e-4
"""Smaller numbers keep a division finite or end a loop; they decide nothing."""
LAST = ["tests/test_stage_versions.py"]
"""What every stage makes of one small slide: slow, and fails for most changes of a kernel."""
TESTS = {
    "scoring": [
        "tests/test_thresholds.py",
        "tests/test_scores.py",
        "tests/test_signal_filter.py",
        "tests/test_tumour.py",
        "tests/test_ish.py",
        "tests/test_neighbours.py",
        "tests/test_learn_tumour.py",
        "tests/test_pattern.py",
        "tests/test_cases.py",
    ],
    "guidelines": ["tests/test_guideline.py", "tests/test_guideline_ish.py", "tests/test_cases.py"],
    "profile": ["tests/test_qc.py", "tests/test_profile.py", "tests/test_colour_profile.py"],
    "kernels/ihc": ["tests/test_ihc_kernel.py", "tests/test_stain.py"],
    "kernels/ish": ["tests/test_ish_kernel.py", "tests/test_spots.py", "tests/test_dish.py"],
    "kernels": ["tests/test_stain.py", "tests/test_blur.py", "tests/test_ihc_kernel.py"],
    "points": [
        "tests/test_neighbours.py",
        "tests/test_order.py",
        "tests/test_scores.py",
        "tests/test_spatial.py",
        "tests/test_pattern.py",
        "tests/test_biopsy.py",
    ],
}
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

    def _offset(self, line: int | None, column: int | None) -> int:
        if line is None or column is None:
            raise ValueError("a node without a place")
        return self._lines[line - 1] + column

    def _note(self, line: int, start: int, end: int, new: str) -> None:
        old = self._source[start:end].decode()
        self.found.append(Mutant(self._path, line, start, end, old, new))

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
        self._note(node.lineno, start, end, repr(round(new) if isinstance(value, int) else new))

    def visit_Compare(self, node: ast.Compare) -> None:
        swaps = BOUNDS if "/guidelines/" in self._path else TURNED
        left: ast.expr = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            kind = type(operator)
            if kind in swaps:
                start = self._offset(left.end_lineno, left.end_col_offset)
                end = self._offset(right.lineno, right.col_offset)
                at = self._source.find(SIGNS[kind].encode(), start, end)
                if at >= 0:
                    self._note(right.lineno, at, at + len(SIGNS[kind]), swaps[kind])
            left = right
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.value)  # an index is not a threshold

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)
        for statement in node.body:
            self.visit(statement)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        return  # a message


def mutants_of(room: str) -> Iterator[Mutant]:
    """Every mutant of a room of her2core."""
    for file in sorted((ROOT / "her2core" / room).rglob("*.py")):
        path = file.relative_to(ROOT).as_posix()
        source = file.read_text(encoding="utf-8")
        sites = Sites(path, source)
        sites.visit(ast.parse(source))
        yield from sites.found


def tests_of(mutant: Mutant) -> list[str]:
    """The tests that are tried first: those of the innermost room that a mutant is in."""
    around = (parent.as_posix() for parent in PurePosixPath(mutant.path).relative_to("her2core").parents)
    return next(TESTS[room] for room in around if room in TESTS)


def forget_compiled(tree: Path, mutant: Mutant) -> None:
    """Remove what is compiled of a mutant and its callers: Numba looks at a function's own file alone."""
    folder = (tree / mutant.path).parent
    if folder.name == "points":  # kernels call it as well
        folder = folder.parent
    for compiled in folder.rglob("*.nb[ic]"):
        compiled.unlink()


def survives(tree: Path, mutant: Mutant) -> bool:
    """Whether every test passes with the change in place."""
    file = tree / mutant.path
    kept, stamp = file.read_bytes(), file.stat()
    file.write_bytes(kept[: mutant.start] + mutant.new.encode() + kept[mutant.end :])
    compiled = "/kernels/" in mutant.path or "/points/" in mutant.path
    try:
        if compiled:
            forget_compiled(tree, mutant)
        return all(passes(tree, tests) for tests in (tests_of(mutant), LAST))
    finally:
        file.write_bytes(kept)
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # what is compiled of it stays known
        if compiled:
            forget_compiled(tree, mutant)


def passes(tree: Path, tests: Sequence[str]) -> bool:
    """Whether tests pass in a tree."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    environment.pop("NUMBA_CACHE_DIR", None)  # `forget_compiled` looks beside the modules
    try:
        done = subprocess.run(
            [*command, *tests], cwd=tree, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rooms", nargs="+", choices=TESTS, help="folders of her2core")
    parser.add_argument("--most", type=int, default=100, help="mutants that are tried")
    parser.add_argument("--out", type=Path, help="JSON of every mutant and whether it survived")
    given = parser.parse_args()
    found = list(dict.fromkeys(mutant for room in given.rooms for mutant in mutants_of(room)))
    drawn = random.Random(SEED).sample(found, min(given.most, len(found)))
    print(f"{len(found)} mutants, {len(drawn)} of them tried", flush=True)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        ignored = shutil.ignore_patterns(".git", ".venv*", "demo", "build", ".mypy_cache", ".ruff_cache")
        shutil.copytree(ROOT, tree, ignore=ignored)
        for tests in (*{tuple(tests_of(mutant)): None for mutant in drawn}, LAST):
            if not passes(tree, tests):
                sys.exit(f"{' '.join(tests)} fail without a change")
        for count, mutant in enumerate(drawn, start=1):
            alive = survives(tree, mutant)
            results.append({**asdict(mutant), "survived": alive})
            killed = sum(not one["survived"] for one in results)
            if alive:
                print(f"{mutant.path}:{mutant.line}: {mutant.old} -> {mutant.new} passes", flush=True)
            if count % 10 == 0 or count == len(drawn):
                print(f"{killed} of {count} killed ({killed / count:.0%})", flush=True)
            if given.out:
                given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
