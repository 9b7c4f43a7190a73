"""Temporary folders whose disk is full: words with the folder, what is needed and the remedy."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

import flows.clusters.local as local
import flows.server as server
from her2core.config import RunSettings
from her2core.errors import ClusterError, DiskFullError, StoreError
from her2core.lake import slide_files
from her2core.lake.batches import SlideTable
from her2core.lake.schema import CELLS, RUNS
from her2core.stages.failures import failure_of
from her2core.storage.store import Store
from her2core.storage.temporary import clear_left, temporary_folder

WORDS = r"the temporary folder .*: no space left on the disk \(\d+ bytes are free\), and .* are needed; free "


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail(*_: object, **__: object) -> None:
    raise full_disk()


def test_a_full_temporary_folder_is_told_with_its_path_and_what_is_needed(tmp_path: Path) -> None:
    with (
        pytest.raises(DiskFullError, match=WORDS + "some or set TMPDIR") as caught,
        temporary_folder("a-", "3 MB") as at,
    ):
        fail()
    assert str(at.parent) in str(caught.value)
    assert "3 MB are needed" in str(caught.value)
    assert not at.exists()
    why = failure_of(caught.value)
    assert why.ends_run
    assert why.trouble is caught.value


def test_other_errors_pass_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), temporary_folder("a-", "3 MB") as at:
        raise FileNotFoundError("x")
    assert not at.exists()


KILLED = """
import os, sys
from pathlib import Path
from her2core.storage.temporary import temporary_folder
with temporary_folder("her2-a-", "3 MB") as folder:
    Path(folder, "half").write_bytes(b"1")
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), 9)
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_what_killed_processes_left_is_removed_by_the_next_and_what_others_use_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "her2-mine").mkdir()
    command = [sys.executable, "-c", KILLED]
    assert subprocess.run([*command, "killed"]).returncode == -signal.SIGKILL
    (left,) = tmp_path.glob("*.tmp")
    with subprocess.Popen(
        [*command, "at work"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        in_use = Path(other.stdout.readline().strip())
        assert not left.exists()
        clear_left.cache_clear()
        with temporary_folder("her2-b-", "3 MB") as own:
            assert {*tmp_path.iterdir()} == {own, in_use, tmp_path / "her2-mine"}
        other.communicate("")
    assert not in_use.exists()


@pytest.mark.parametrize("moment", [(tempfile, "mkdtemp"), (os, "open")])
def test_a_folder_that_is_taken_for_left_behind_before_it_is_locked_is_made_again(
    moment: tuple[object, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, taken = getattr(*moment), list[str]()

    def lose_the_first(*args: object, **named: object) -> object:
        found = real(*args, **named)
        folder = str(found if moment[0] is tempfile else args[0])
        if folder.endswith(".tmp") and not taken:
            taken.append(folder)
            os.rmdir(folder)
        return found

    monkeypatch.setattr(*moment, lose_the_first)
    with temporary_folder("her2-a-", "3 MB") as at:
        assert at.is_dir()
    assert taken != [str(at)]


def test_a_folder_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "mkdtemp", fail)
    with pytest.raises(DiskFullError, match=WORDS), temporary_folder("a-", "3 MB"):
        pass


def test_rows_of_a_slide_that_do_not_fit_into_the_temporary_folder_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __init__(self, *_: object, **__: object) -> None:
            fail()

    monkeypatch.setattr(slide_files.pq, "ParquetWriter", Full)
    with pytest.raises(DiskFullError, match="100 bytes a cell"):
        slide_files.write_slide_file(Store(tmp_path), CELLS, "key", [])


def test_the_row_of_a_run_is_committed_though_the_temporary_folder_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "mkdtemp", fail)
    table = SlideTable(Store(tmp_path), RUNS)
    row = {field.name: default(field) for field in RUNS.schema}
    table.add_rows([row], ["r1"])
    assert table.commit(everything=True) >= 0


def default(field: pa.Field) -> object:
    if field.nullable:
        return None
    of: dict[pa.DataType, object] = {pa.string(): "r1", pa.int64(): 0, pa.int32(): 0}
    return of.get(field.type, 0)


def test_no_usable_temporary_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(StoreError, match=r"no temporary folder can be written to .*set TMPDIR"):
        RunSettings().scratch()


@pytest.mark.parametrize(
    ("cause", "kind", "words"),
    [
        (full_disk, DiskFullError, WORDS),
        (lambda: ValueError("port taken"), ClusterError, "cannot be started .*fewer"),
    ],
)
def test_a_local_cluster_that_does_not_start_is_told(
    monkeypatch: pytest.MonkeyPatch, cause: Callable[[], Exception], kind: type[Exception], words: str
) -> None:
    """As Dask raises it where its folder cannot be made."""

    def refuse(**_: object) -> None:
        raise RuntimeError(f"Cluster failed to start: {cause()}") from cause()

    monkeypatch.setattr(local, "LocalCluster", refuse)
    with pytest.raises(kind, match=words), local.LocalMachine(1).connect():
        pass


def test_prefects_folder_on_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ended at its start (boom)" in server.not_started("boom", tmp_path, ended=True)
    assert "did not start in time" in server.not_started("boom", tmp_path, ended=False)
    monkeypatch.setattr(server, "DATABASE_BYTES", 2**62)
    said = server.not_started("boom", tmp_path, ended=True)
    assert f"bytes are free on the disk of its folder {tmp_path}" in said
    assert "set PREFECT_HOME" in said
