"""How far a run is, from the store alone: rate, time to go, and what waits for what.

The run's own row gives the number of slides, the journal the stage of each. At a second look only
entries are read that changed meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from her2core.lake.ghosts import inputs_of
from her2core.lake.schema import RUNS
from her2core.lake.tables import read_rows
from her2core.records import SlideState
from her2core.storage.journal import FOLDER, SlideStatus, status_of
from her2core.storage.lease import Holder, holder
from her2core.storage.listing import walk_folder
from her2core.storage.store import Store
from her2core.text import counted

RATE_OVER = timedelta(minutes=30)
"""The rate is computed from slides that ended within this time. Ours: longer than a slide takes."""
READ_AT_ONCE = 16
"""Entries of the journal that are read at the same time. Ours."""


@dataclass(frozen=True, slots=True)
class Look:
    """A run at one moment.

    Attributes
    ----------
    holder
        Runs at work in the output; None if there are none.
    total, ended
        Slides of the run, and how those ended that did.
    running
        Slides at work, the one that has been longest in its stage first.
    per_hour
        Slides that end in an hour; None before the first has ended.
    """

    moment: datetime
    holder: Holder | None
    total: int
    ended: Mapping[str, int]
    running: tuple[SlideStatus, ...]
    per_hour: float | None

    @property
    def waiting(self) -> int:
        """Slides that were not begun."""
        return max(self.total - sum(self.ended.values()) - len(self.running), 0)

    @property
    def to_go(self) -> timedelta | None:
        """Time until the last slide has ended, at this rate."""
        if not self.per_hour:
            return None
        return timedelta(hours=(self.waiting + len(self.running)) / self.per_hour)

    def lines(self) -> list[str]:
        """The look in a few lines of text."""
        if self.holder is None:
            return ["no run is at work here"]
        if self.holder.kind != "run":
            return [f"{self.holder.kind} {self.holder.owner} is at work; runs wait for it"]
        ended = ", ".join(f"{count:,} {state}" for state, count in sorted(self.ended.items())) or "none yet"
        done = sum(self.ended.values())
        lines = [f"{self.holder.owner}: {done:,} of {counted(self.total, 'slide')} ended ({ended})"]
        if self.per_hour is not None and self.to_go is not None:
            finish = (self.moment + self.to_go).astimezone(UTC)
            lines.append(
                f"{self.per_hour:,.1f} slides an hour; about {_in_words(self.to_go)} to go, until "
                f"{finish:%Y-%m-%d %H:%M} UTC"
            )
        stages = Counter(status.stage for status in self.running)
        if stages:
            at = ", ".join(f"{count} in {stage}" for stage, count in stages.most_common())
            lines.append(f"{len(self.running)} at work: {at}")
            slowest = self.running[0]
            since = self.moment - datetime.fromisoformat(slowest.updated)
            lines.append(
                f"longest in its stage: {slowest.slide_id}, in {slowest.stage} for {_in_words(since)}"
            )
        if self.waiting:
            lines.append(f"{self.waiting:,} wait for one of these to end")
        elif not self.running and done >= self.total:
            lines.append("specimens and tables wait for nothing more: they are being committed")
        return lines


class Watch:
    """Looks at the run of an output, again and again."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.known: dict[str, tuple[str, SlideStatus]] = {}
        self.begun: tuple[str, int, datetime] | None = None

    def look(self) -> Look:
        """How far the run is now."""
        moment = datetime.now(UTC)
        who = holder(self.store)
        if who is None or who.kind != "run":
            return Look(moment, who, 0, {}, (), None)
        total, started = self._row(who.owner)
        mine = self._entries(who.owner, started)
        running = [each for each in mine if each.state == SlideState.RUNNING]
        over = [each for each in mine if each.state != SlideState.RUNNING]
        ended = Counter(str(each.state) for each in over)
        return Look(
            moment,
            who,
            total,
            ended,
            tuple(sorted(running, key=lambda each: each.updated)),
            _rate(over, started, moment),
        )

    def _row(self, run_id: str) -> tuple[int, datetime]:
        """Slides that a run works on, and when it began."""
        if self.begun is None or self.begun[0] != run_id:
            found = read_rows(self.store, RUNS, ("started_at",), {"run_id": [run_id]}).to_pylist()
            if not found:
                return 0, datetime.now(UTC)  # its row is not written yet
            work = [e for e in inputs_of(self.store, {"run_id": run_id}) if not e.get("carried")]
            self.begun = (run_id, len(work), found[0]["started_at"])
        return self.begun[1:]

    def _entries(self, run_id: str, started: datetime) -> list[SlideStatus]:
        """The journal's entries of a run; those that did not change are not read again."""
        changed = []
        for each in walk_folder(self.store, FOLDER):
            tag = f"{each.tag} {each.changed}"
            if each.changed >= started.timestamp() - 60 and self.known.get(each.path, ("",))[0] != tag:
                changed.append((each.path, tag))
        with ThreadPoolExecutor(READ_AT_ONCE) as pool:
            read = pool.map(lambda item: status_of(self.store, item[0]), changed)
            for (path, tag), status in zip(changed, read, strict=True):
                if status is not None:
                    self.known[path] = (tag, status)
        return [status for _, status in self.known.values() if status.run_id == run_id]


def _rate(over: list[SlideStatus], started: datetime, moment: datetime) -> float | None:
    """Slides an hour: of the last half hour, or since the run began."""
    since = max(started, moment - RATE_OVER)
    lately = sum(datetime.fromisoformat(each.updated) >= since for each in over)
    hours = max((moment - since).total_seconds(), 1.0) / 3600
    return lately / hours if lately else None


def _in_words(span: timedelta) -> str:
    minutes = max(int(span.total_seconds() // 60), 0)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days"
