"""Where every slide of a cohort is: one small object a slide, for people and for ``her2 status``.

The journal informs; it decides nothing. Whether a stage is done is known from its published record alone. A
run that is at work shows it by a heartbeat beside the journal, which goes when the run ends: a slide is
running only while the heart of its run beats.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path

from botocore.exceptions import BotoCoreError

from her2core.errors import StoreError
from her2core.records import Assay, SlideRow, SlideState
from her2core.storage.store import Store

log = logging.getLogger(__name__)

FOLDER, HEARTBEATS = "journal", "heartbeats"
HEARTBEAT_S = 15.0
"""Pause between two heartbeats of a run. Ours."""
IHC_SCORES = ("0", "1+", "2+", "3+")
"""Scores of entries that do not name their assay, as earlier versions wrote them."""
DEAD_AFTER_S = 120.0
"""A run without a heartbeat for so long is dead (ours): several beats, and clocks that differ by a minute. On
the machine that it ran on it is known at once."""


@dataclass(frozen=True, slots=True)
class SlideStatus:
    """Last known whereabouts of one slide.

    Attributes
    ----------
    stage
        Stage it is in, or that it ended in.
    reason, message
        Why it ended without a score; empty otherwise.
    updated
        UTC time of this entry, ISO 8601.
    score
        IHC score or ISH group, by the assay; see ``found``.
    details
        Traceback of an error that nobody expected, without paths and secrets; empty otherwise.
    """

    slide_id: str
    case_id: str
    state: SlideState
    stage: str
    reason: str
    message: str
    score: str
    run_id: str
    updated: str
    details: str = ""
    assay: str = ""

    @property
    def found(self) -> dict[str, str]:
        """What it was scored as: ``score`` of an IHC slide, ``ish_group`` of an ISH slide."""
        ish = self.assay != Assay.IHC if self.assay else self.score not in ("", *IHC_SCORES)
        return {"score": "" if ish else self.score, "ish_group": self.score if ish else ""}


def write_status(
    store: Store,
    run_id: str,
    row: SlideRow,
    state: SlideState,
    stage: str,
    *,
    reason: str = "",
    message: str = "",
    score: str = "",
    details: str = "",
) -> None:
    """Write down where a slide is, replacing its earlier entry."""
    now = _now().isoformat()
    who = (row.slide_id, row.case_id)
    status = SlideStatus(*who, state, stage, reason, message, score, run_id, now, details, str(row.assay))
    store.write_json(f"{FOLDER}/{row.slide_id}.json", asdict(status))


def last_stage(store: Store, run_id: str, row: SlideRow) -> str:
    """Return the stage in which this run last saw a slide; empty where it has not begun it."""
    try:
        entry = store.read_json(f"{FOLDER}/{row.slide_id}.json")
    except FileNotFoundError:
        return ""
    return str(entry["stage"]) if entry["run_id"] == run_id else ""


def cohort_status(store: Store) -> tuple[SlideStatus, ...]:
    """Return the journal of a store, ordered by slide; empty where no run has begun.

    A slide whose run ended before it did, however that ended, is ``interrupted``.
    """
    alive = {beat.run_id for beat in heartbeats(store) if beat.alive}
    found = []
    for path in store.list(FOLDER):
        status = status_of(store, path)
        if status is None:
            continue
        if status.state == SlideState.RUNNING and status.run_id not in alive:
            why = "its run ended before it was done; run again to resume"
            status = replace(status, state=SlideState.INTERRUPTED, message=why)
        found.append(status)
    return tuple(found)


def status_of(store: Store, path: str) -> SlideStatus | None:
    """One entry of the journal as it stands; None if it is not there."""
    known = {field.name for field in fields(SlideStatus)}
    try:
        entry = {name: value for name, value in store.read_json(path).items() if name in known}
    except FileNotFoundError:
        return None
    return SlideStatus(**{**entry, "state": SlideState(entry["state"])})


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last sign of life of a run.

    Attributes
    ----------
    place
        Digest of machine, boot and process namespace: where ``pid`` means something.
    pid, born
        The driver's process, and when it began by the kernel's record.
    beat
        UTC, ISO 8601.
    """

    run_id: str
    place: str
    pid: int
    born: str
    beat: str

    @property
    def alive(self) -> bool:
        """Whether that run is still at work, as far as can be seen from here."""
        if self.place == place() and self.born:
            return self.born == born(self.pid)
        return self.silent_s < DEAD_AFTER_S

    @property
    def silent_s(self) -> float:
        """Seconds since its last heartbeat."""
        return (_now() - datetime.fromisoformat(self.beat)).total_seconds()


def heartbeats(store: Store) -> tuple[Heartbeat, ...]:
    """Heartbeats in a store: of runs that are at work, and of those that died without a word."""
    found = []
    for path in store.list(HEARTBEATS):
        with suppress(
            FileNotFoundError, ValueError, TypeError
        ):  # it ended just now, or a later version writes more
            found.append(Heartbeat(**store.read_json(path)))
    return tuple(found)


@contextmanager
def beating(store: Store, run_id: str) -> Iterator[None]:
    """Let a run's heart beat for the length of the block, and warn if another run is at work here as well.

    What dead runs left behind, heartbeats and half-written objects, goes, unless a living one may be writing.
    """
    reported: set[str] = set()
    if not _others(store, run_id, reported):
        cleared = store.clear_temporary()
        log.log(logging.INFO if cleared else logging.DEBUG, "removed %d half-written objects", cleared)
    ended, answered = threading.Event(), threading.Event()

    def beat() -> None:
        while True:
            answered.clear()
            mine = Heartbeat(run_id, place(), os.getpid(), born(os.getpid()), _now().isoformat())
            try:
                store.write_json(_heart(run_id), asdict(mine))
                _others(store, run_id, reported)
                answered.set()
            except (OSError, BotoCoreError, StoreError) as error:  # what needs the store will report it
                log.debug("no heartbeat: %s", error)
            if ended.wait(HEARTBEAT_S):
                return

    heart = threading.Thread(target=beat, name="her2-heart", daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join(1.0)
        if answered.is_set():  # else the store is not there, and a try takes minutes
            with suppress(Exception):
                store.delete(_heart(run_id))


def _others(store: Store, run_id: str, reported: set[str]) -> bool:
    """Whether another run is at work in the store; each is reported once. Heartbeats of dead runs go."""
    found = False
    for other in heartbeats(store):
        if other.run_id == run_id:
            continue
        if not other.alive:
            store.delete(_heart(other.run_id))
            continue
        found = True
        if other.run_id not in reported:
            reported.add(other.run_id)
            log.warning(
                "run %s is at work in %s as well (last heartbeat %.0f s ago): results stay right, but work "
                "that both have is done twice; stop one of them",
                other.run_id,
                store.uri(),
                other.silent_s,
            )
    return found


def _heart(run_id: str) -> str:
    return f"{HEARTBEATS}/{run_id}.json"


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def place() -> str:
    """Digest of what a process number is unique in."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # not on Linux
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def born(pid: int) -> str:
    """When a process began, in ticks of the kernel; empty if there is none."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    state, born = after_name[0], after_name[19]
    return "" if state in "ZX" else born
