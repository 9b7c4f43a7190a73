"""Where every slide of a cohort is: one small object a slide, for people and for ``her2 status``.

The journal informs; it decides nothing. Whether a stage is done is known from its published record alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from her2core.records import SlideRow, SlideState
from her2core.storage.store import Store

FOLDER = "journal"


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


def note(
    store: Store,
    run_id: str,
    row: SlideRow,
    state: SlideState,
    stage: str,
    *,
    reason: str = "",
    message: str = "",
    score: str = "",
) -> None:
    """Write down where a slide is, replacing its earlier entry."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    status = SlideStatus(row.slide_id, row.case_id, state, stage, reason, message, score, run_id, now)
    store.write_json(f"{FOLDER}/{row.slide_id}.json", asdict(status))


def last_stage(store: Store, run_id: str, row: SlideRow) -> str:
    """Return the stage in which this run last saw a slide; empty where it has not begun it."""
    try:
        entry = store.read_json(f"{FOLDER}/{row.slide_id}.json")
    except FileNotFoundError:
        return ""
    return str(entry["stage"]) if entry["run_id"] == run_id else ""


def cohort_status(store: Store) -> tuple[SlideStatus, ...]:
    """Return the journal of a store, ordered by slide; empty where no run has begun."""
    entries = (store.read_json(path) for path in store.list(FOLDER))
    return tuple(SlideStatus(**{**entry, "state": SlideState(entry["state"])}) for entry in entries)
