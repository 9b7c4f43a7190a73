"""How far a run is, told from the store alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from her2core.lake.watch import Look, Watch
from her2core.publish import Publisher
from her2core.records import SlideState
from her2core.storage import journal
from her2core.storage.journal import write_status
from her2core.storage.lease import Holder, held
from her2core.storage.store import Store
from tests.test_publish import ROWS, made

HOLDER = Holder("r1", "run", "here", 1, "1", "2026-01-01T00:00:00+00:00")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


def test_rate_time_to_go_and_what_waits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = datetime.now(UTC) - timedelta(minutes=10)
    with held(store, "r1") as lease:
        run = replace(made("r1", store, ROWS), started=begun.isoformat())
        Publisher(run, lease).begin()
        for row in ROWS[:2]:
            write_status(store, "r1", row, SlideState.SCORED, "slide")
        long_ago = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=7)
        with monkeypatch.context() as patch:
            patch.setattr(journal, "_now", lambda: long_ago)
            write_status(store, "r1", ROWS[2], SlideState.RUNNING, "cells")
        write_status(store, "r1", ROWS[3], SlideState.RUNNING, "pyramid")
        eye = Watch(store)
        look = eye.look()
        assert (look.total, dict(look.ended), look.waiting) == (5, {"scored": 2}, 1)
        assert look.per_hour == pytest.approx(12, rel=0.05)
        assert look.to_go is not None
        assert look.to_go.total_seconds() == pytest.approx(15 * 60, rel=0.05)
        text = "\n".join(look.lines())
        assert "2 of 5 slides ended (2 scored)" in text
        assert "2 at work: 1 in cells, 1 in pyramid" in text
        assert "longest in its stage: s2, in cells for 7 min" in text
        assert "1 wait for one of these to end" in text

        reads: list[str] = []
        read = Store.read_json
        monkeypatch.setattr(Store, "read_json", lambda self, path: reads.append(path) or read(self, path))
        write_status(store, "r1", ROWS[3], SlideState.FAILED, "pyramid")
        assert dict(eye.look().ended) == {"scored": 2, "failed": 1}
        assert [path for path in reads if path.startswith("journal")] == ["journal/s3.json"]
    assert eye.look().lines() == ["no run is at work here"]


def test_upkeep_is_named_for_what_it_is() -> None:
    look = Look(datetime.now(UTC), replace(HOLDER, kind="gc", owner="gc-1"), 0, {}, (), None)
    assert look.lines() == ["gc gc-1 is at work; runs wait for it"]


def test_before_the_first_slide_has_ended_nothing_is_promised() -> None:
    look = Look(datetime.now(UTC), HOLDER, 5, {}, (), None)
    assert look.to_go is None
    assert not any("to go" in line for line in look.lines())
