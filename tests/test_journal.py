"""Where slides are, whose run is alive, and what dead runs leave."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from her2core.cases.specimens import SlideOutcome
from her2core.errors import Reason
from her2core.pipeline import _Slide
from her2core.records import Assay, SlideRow, SlideState
from her2core.stages.finished import SlideFinished
from her2core.storage.journal import Heartbeat, beating, cohort_status, heartbeats, write_status
from her2core.storage.store import Store
from tests.conftest import Bucket

ROW = SlideRow("s1", "c1", "s1.tif", Assay.IHC)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(tmp_path / "out")
    return Store(request.getfixturevalue("s3").uri + "/prefix")


def test_a_slide_is_running_only_while_its_run_is(store: Store) -> None:
    with beating(store, "run1"):
        write_status(store, "run1", ROW, SlideState.RUNNING, "cells")
        wait_for_heart(store)
        (status,) = cohort_status(store)
        assert (status.state, status.stage) == (SlideState.RUNNING, "cells")
    (status,) = cohort_status(store)
    assert (status.state, status.stage) == (SlideState.INTERRUPTED, "cells")
    assert "resume" in status.message
    assert heartbeats(store) == ()
    write_status(store, "run1", ROW, SlideState.SCORED, "slide")
    assert cohort_status(store)[0].state == SlideState.SCORED


KILLED = """
import os, sys, time
from her2core.storage.journal import beating, heartbeats
from her2core.storage.store import Store
store = Store(sys.argv[1])
with beating(store, "dead"):
    while not heartbeats(store):
        time.sleep(0.01)
    os.kill(os.getpid(), 9)
"""


def test_a_killed_run_is_known_to_be_dead_and_cleaned_up_after(tmp_path: Path) -> None:
    store = Store(tmp_path)
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    write_status(store, "dead", ROW, SlideState.RUNNING, "cells")
    (left,) = heartbeats(store)
    assert not left.alive
    assert cohort_status(store)[0].state == SlideState.INTERRUPTED
    debris = tmp_path / ".her2-tmp" / "half-written"
    debris.write_bytes(b"half")
    log = tmp_path / "tables" / "cells" / "_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000001.json").touch()
    (log / "00000000000000000001.json#1").touch()
    with beating(store, "next"):
        wait_for_heart(store)
        assert [beat.run_id for beat in heartbeats(store)] == ["next"]
    assert not debris.exists()
    assert [path.name for path in log.iterdir()] == ["00000000000000000001.json"]


def test_two_runs_at_once_are_told_and_clean_up_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    with beating(store, "first"):
        wait_for_heart(store)
        halfway = tmp_path / ".her2-tmp" / "half-written"
        halfway.write_bytes(b"half")
        with caplog.at_level(logging.WARNING), beating(store, "second"):
            pass
        assert halfway.exists()
    assert "run first is at work in" in caplog.text
    assert str(tmp_path) in caplog.text


def test_a_run_on_another_machine_dies_of_silence() -> None:
    def beat(time: str) -> Heartbeat:
        return Heartbeat("run", "elsewhere", os.getpid(), "1", time)

    assert not beat("2020-01-01T00:00:00+00:00").alive
    assert beat("2999-01-01T00:00:00+00:00").alive


def test_uploads_that_nobody_ends_are_ended(s3: Bucket) -> None:
    store = Store(s3.uri + "/out")
    bucket = s3.uri.removeprefix("s3://")
    for key in ("out/big", "elsewhere/big"):
        store.fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    assert store.clear_temporary() == 1
    left = store.fs.call_s3("list_multipart_uploads", Bucket=bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == ["elsewhere/big"]


def wait_for_heart(store: Store) -> None:
    while not heartbeats(store):
        pass


def test_the_journal_says_why_a_slide_is_indeterminate(tmp_path: Path) -> None:
    run: Any = SimpleNamespace(store=Store(tmp_path), run_id="r")
    keys: Any = SimpleNamespace(records=lambda: ())
    row = SlideRow("s", "c", "s.tif", Assay.IHC)
    outcome = SlideOutcome(row, SlideState.INDETERMINATE, reason=Reason.INSUFFICIENT_TUMOUR)
    nobody: Any = None
    _Slide(run, row, nobody, nobody, 0.0)._ended(keys, SlideFinished(outcome, None))
    (entry,) = cohort_status(run.store)
    assert (entry.state, entry.message) == (SlideState.INDETERMINATE, "insufficient_tumour")
