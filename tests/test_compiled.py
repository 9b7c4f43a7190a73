"""Kernels are compiled once on a machine: in processes of their own, with progress, and not twice."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from her2core.records import Assay
from her2core.stages import compiled
from her2core.stages.compiled import PARTS, make_ready, missing, parts_of

ROOT = Path(__file__).parents[1]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "numba"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder))
    return folder


def pretending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: dict[str, int]) -> Path:
    """Let a script stand in for Python: it notes its part, prints a function of it, and ends as told."""
    script, log = tmp_path / "python", tmp_path / "made"
    of = {part: sorted(compiled._functions(part))[0] for part in PARTS}
    cases = "".join(f"{part}) echo {of[part]}; exit {code};;\n" for part, code in ends.items())
    script.write_text(f'#!/bin/sh\necho "$4" >> {log}\ncase "$4" in\n{cases}esac\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return log


def test_parts_are_those_of_the_slides() -> None:
    assert parts_of([Assay.FISH, Assay.DISH]) == ("ish", "points")
    assert parts_of([Assay.IHC, Assay.IHC]) == ("ihc", "points")
    assert parts_of([]) == ()


def test_what_was_compiled_is_not_compiled_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = pretending(tmp_path, monkeypatch, dict.fromkeys(PARTS, 0))
    assert missing(("ihc", "points")) == ("ihc", "points")
    with caplog.at_level(logging.DEBUG, "her2core"):
        assert make_ready(missing(("ihc", "points"))) == ()
    steps = [record.progress for record in caplog.records if hasattr(record, "progress")]
    assert [step.done for step in steps][:-1] == [0, 1, 2]
    assert (
        steps[-1].done == steps[-1].total == len(compiled._functions("ihc") | compiled._functions("points"))
    )
    assert missing() == ("ish",)
    assert sorted(log.read_text().split()) == ["ihc", "points"]
    monkeypatch.setenv("NUMBA_CPU_NAME", "another")
    assert missing() == tuple(PARTS)


def test_code_that_a_changed_file_is_part_of_is_not_kept(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "checkout"
    for name in ("kernels/blur.py", "kernels/ihc/planes.py", "points/cores.py", "phantom/spec.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("# compiled\n")
    monkeypatch.setattr(compiled, "ROOT", root)
    for named in (True, False):  # in a folder of its own, and beside the code
        kept = (cache / "ihc_0123" if named else root / "kernels/ihc/__pycache__") / "planes.fill.nbi"
        other = cache / "elsewhere_0123/code.nbi" if named else root / "other/__pycache__/code.nbi"
        for file in (kept, other):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        compiled.forget_outdated()
        assert not kept.exists()  # of sources that nobody noted
        kept.touch()
        compiled.forget_outdated()
        assert kept.exists()
        for changed in ("kernels/blur.py", "phantom/spec.py"):  # planes.py calls the first
            kept.touch()
            (root / changed).write_text(f"# changed, {named}\n")
            compiled.forget_outdated()
            assert not kept.exists()
        assert other.exists()
        monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)


def test_a_part_that_fails_is_named_and_tried_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretending(tmp_path, monkeypatch, {"ihc": 1, "ish": 0})
    assert make_ready(("ihc", "ish")) == ("ihc",)
    assert missing(("ihc", "ish")) == ("ihc",)


def test_a_part_whose_process_cannot_be_started_is_named_and_ends_no_run(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    assert make_ready(("ihc", "ish")) == ("ihc", "ish")
    assert "no process to compile them can be started" in caplog.text


def test_nothing_is_compiled_where_no_cache_can_be_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert missing() == ()


POINTS = """
from her2core.kernels import stain
from her2core.points import components, cores, lattice, nearest, neighbour_counts, neighbour_fraction
from her2core.stages import compiled

compiled._make("points")
called = (components._label, cores._tally, cores._under, nearest._search, lattice.side_sums)
called += (neighbour_counts._count, neighbour_fraction._fractions, stain._look_up)
for function in called:
    assert function.signatures, function
"""


def test_the_points_part_compiles_all_that_is_called() -> None:
    """In a process of its own: in this one, other tests have called them."""
    subprocess.run([sys.executable, "-c", POINTS], cwd=ROOT, check=True)
