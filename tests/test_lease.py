"""One writer at a time in an output: refused in words, taken from the dead, given up by who was cut off."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from her2core.storage import journal, lease
from her2core.storage.lease import BusyError, Holder, LeaseLostError, held, holder
from her2core.storage.store import Store
from tests.conftest import Bucket

ELSEWHERE = Holder("run-elsewhere", "run", "another machine", 1, "1", "2026-01-01T00:00:00+00:00")


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(tmp_path / "out")
    return Store(request.getfixturevalue("s3").uri + "/prefix")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(journal, "DEAD_AFTER_S", 0.4)
    monkeypatch.setattr(lease, "WATCH_S", 0.02)


def taken(store: Store, other: Holder) -> None:
    """Let somebody on another machine hold the lease."""
    store.write_bytes("lease/00000001.json", json.dumps(asdict(other)).encode())


def now() -> str:
    return lease._now()


def test_a_second_run_ends_in_words_and_the_next_goes_on(store: Store) -> None:
    with held(store, "run-1") as first:
        first.check()
        assert holder(store) is not None
        with pytest.raises(BusyError, match="run-1 is at work here"), held(store, "run-2"):
            pass
        first.check()
    assert holder(store) is None
    with held(store, "run-2") as second:
        second.check()
    assert len(store.list("lease")) == 1


def test_the_lease_of_a_process_that_was_killed_is_taken_over_at_once(tmp_path: Path) -> None:
    code = """
import os, sys
from her2core.storage.lease import held
from her2core.storage.store import Store
with held(Store(sys.argv[1]), "killed"):
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(Store(tmp_path).list("lease")) == 1
    with held(Store(tmp_path), "next") as mine:
        mine.check()


def test_a_dead_owner_elsewhere_is_watched_and_taken_over_whatever_its_clock_says(store: Store) -> None:
    taken(store, replace(ELSEWHERE, beat="2099-01-01T00:00:00+00:00"))
    began = time.monotonic()
    with held(store, "next") as mine:
        mine.check()
    assert time.monotonic() - began >= journal.DEAD_AFTER_S


def test_one_that_was_last_heard_of_long_ago_is_not_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "DEAD_AFTER_S", 30.0)  # what a loaded machine does not take
    store = Store(tmp_path)
    taken(store, ELSEWHERE)
    began = time.monotonic()
    with held(store, "next"):
        assert time.monotonic() - began < journal.DEAD_AFTER_S


def test_a_living_owner_elsewhere_is_left_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "DEAD_AFTER_S", 30.0)  # on a loaded machine a beat may be late
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.05):
            taken(store, replace(ELSEWHERE, beat=now()))

    taken(store, replace(ELSEWHERE, beat=now()))
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(BusyError, match="run-elsewhere"), held(store, "next"):
            pass
    finally:
        ended.set()
        thread.join()


def test_of_many_that_want_a_dead_one_s_lease_exactly_one_has_it(store: Store) -> None:
    taken(store, replace(ELSEWHERE, released=True))
    winners: list[str] = []
    start, done = threading.Barrier(6), threading.Barrier(6)

    def take(name: str) -> None:
        start.wait()
        try:
            with held(store, name):
                winners.append(name)
                done.wait(30)
        except BusyError:
            done.wait(30)

    threads = [threading.Thread(target=take, args=(f"run-{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1


def test_who_was_cut_off_finds_out_and_stops(store: Store) -> None:
    told = threading.Event()
    with held(store, "first", when_lost=lambda error: told.set()) as first:
        first.check()
        store.put_if_absent(
            "lease/00000002.json", json.dumps(asdict(replace(ELSEWHERE, beat=now()))).encode()
        )
        assert told.wait(20)
        with pytest.raises(LeaseLostError, match="taken over"):
            first.check()
    left = json.loads(store.read_bytes("lease/00000002.json"))
    assert (left["owner"], left["released"]) == ("run-elsewhere", False)


def test_who_waits_gets_it_when_the_other_ends(tmp_path: Path) -> None:
    store = Store(tmp_path)
    inside, end = threading.Event(), threading.Event()

    def work() -> None:
        with held(store, "gc", "gc"):
            inside.set()
            end.wait()

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    threading.Timer(0.2, end.set).start()
    with held(store, "run", patience_s=30) as mine:
        mine.check()
    thread.join()


def test_the_lease_is_no_secret_and_no_path(s3: Bucket) -> None:
    store = Store(s3.uri)
    with held(store, "run-1"):
        text = store.read_bytes("lease/00000001.json").decode()
    assert "testtest" not in text
    assert s3.endpoint_url not in text
