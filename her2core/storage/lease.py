"""Who may write to an output now: one at a time, whatever started it.

::

    OUT/lease/00000007.json     the seventh holder: who, its last heartbeat, whether it has ended

To take the lease is to create the next number, which exactly one can (`Store.put_if_absent`). A holder renews
its own object, and nobody else's. One that stops renewing is dead: on its own machine that is known at once,
from elsewhere after it has been watched for `DEAD_AFTER_S` without a sign of life; clocks take no part. Its
successor has the higher number, so a holder that was only cut off finds out when it looks, and stops.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta

from botocore.exceptions import BotoCoreError

from her2core.errors import StoreError
from her2core.storage import journal
from her2core.storage.store import Store

log = logging.getLogger(__name__)

FOLDER = "lease"
RUN = "run"
LONG_DEAD = timedelta(hours=6)
"""A holder silent for so long is dead without being watched; clocks do not differ by hours. Ours."""
WATCH_S = 1.0
"""How often a holder is looked at. Ours."""


class BusyError(StoreError):
    """Somebody else is at work in the output."""


class LeaseLostError(StoreError):
    """The lease went to another while our heartbeat was missing."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds, or held, the lease.

    Attributes
    ----------
    kind
        ``run``, ``ingest``, ``gc`` or ``maintain``.
    place, pid, born
        As of `journal.Heartbeat`.
    beat
        Last sign of life, UTC, ISO 8601.
    released
        Whether it has ended.
    """

    owner: str
    kind: str
    place: str
    pid: int
    born: str
    beat: str
    released: bool = False

    @property
    def is_here(self) -> bool:
        """Whether its process can be looked at from here."""
        return self.place == journal.place() and bool(self.born)

    @property
    def is_gone(self) -> bool:
        """Whether it is known to have ended, without watching it."""
        if self.released:
            return True
        if self.is_here:
            return self.born != journal.born(self.pid)
        return datetime.now(UTC) - datetime.fromisoformat(self.beat) > LONG_DEAD


@dataclass(slots=True)
class Lease:
    """The lease while it is held."""

    store: Store
    folder: str
    number: int
    holder: Holder
    lost: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Check that it is still ours; called before whatever must have one writer.

        Raises
        ------
        LeaseLostError
            If it is not.
        """
        if self.lost.is_set() or _highest(self.store, self.folder) > self.number:
            self.lost.set()
            raise LeaseLostError(
                f"{self.store.uri()}: another run has taken over, since this one gave no heartbeat for a "
                "while (cut off from the store, or suspended); what was scored is kept. Let the other finish"
            )

    def renew(self) -> None:
        """Give a sign of life."""
        self.holder = replace(self.holder, beat=_now())
        self.store.write_json(_path(self.folder, self.number), asdict(self.holder))


@contextmanager
def held(
    store: Store,
    owner: str,
    kind: str = RUN,
    *,
    folder: str = FOLDER,
    patience_s: float = 0.0,
    when_lost: Callable[[LeaseLostError], None] | None = None,
) -> Iterator[Lease]:
    """Hold the lease of an output for the length of the block.

    Parameters
    ----------
    patience_s
        How long to wait for another holder to end that is no run: ingest and upkeep take minutes at most.
    when_lost
        Called from another thread, once, when the lease is found to be lost.

    Raises
    ------
    BusyError
        If somebody else is at work there.
    """
    lease = _take(store, owner, kind, folder, patience_s)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(journal.HEARTBEAT_S):
            try:
                lease.check()
                lease.renew()
            except LeaseLostError as error:
                if when_lost is not None:
                    when_lost(error)
                return
            except (OSError, BotoCoreError, StoreError) as error:  # what needs the store will report it
                log.debug("the lease was not renewed: %s", error)

    heart = threading.Thread(target=beat, name="her2-lease", daemon=True)
    heart.start()
    try:
        yield lease
    finally:
        ended.set()
        heart.join(1.0)
        if not lease.lost.is_set():
            with suppress(OSError, BotoCoreError, StoreError):
                lease.holder = replace(lease.holder, released=True)
                lease.renew()


def refuse_if_busy(store: Store) -> None:
    """Report at once that a run of this machine is at work there, before anything else is started.

    Raises
    ------
    BusyError
        If one is.
    """
    other = holder(store)
    if other is not None and other.is_here and other.kind == RUN:
        raise _busy(store, other)


def _busy(store: Store, other: Holder) -> BusyError:
    return BusyError(
        f"{store.uri()}: {other.kind} {other.owner} is at work here (last heartbeat {other.beat}), and one "
        "at a time writes to an output. Wait for its end or stop it, and run the same command again"
    )


def holder(store: Store, folder: str = FOLDER) -> Holder | None:
    """Who holds the lease now, as far as one look shows; None if nobody."""
    found = _newest(store, folder)[1]
    return None if found is None or found.is_gone else found


def _take(store: Store, owner: str, kind: str, folder: str, patience_s: float) -> Lease:
    deadline = time.monotonic() + patience_s
    watched: tuple[int, str] | None = None
    since = time.monotonic()
    while True:
        number, other = _newest(store, folder)
        silent = other is not None and watched == (number, other.beat)
        if other is None or other.is_gone or (silent and time.monotonic() - since > journal.DEAD_AFTER_S):
            if other is not None and not other.released:
                log.warning("%s: %s %s died at work; taking over", store.uri(), other.kind, other.owner)
            me = Holder(owner, kind, journal.place(), os.getpid(), journal.born(os.getpid()), beat=_now())
            lease = Lease(store, folder, number + 1, me)
            if store.put_if_absent(_path(folder, number + 1), _as_bytes(me)):
                for earlier in range(number, 0, -1):
                    if not store.exists(_path(folder, earlier)):
                        break
                    store.delete(_path(folder, earlier))
                return lease
            continue  # somebody was quicker
        alive = other.is_here or (watched is not None and not silent)
        if alive and (other.kind == RUN or time.monotonic() >= deadline):
            raise _busy(store, other)
        if not silent:
            watched, since = (number, other.beat), time.monotonic()
        time.sleep(WATCH_S)


def _newest(store: Store, folder: str) -> tuple[int, Holder | None]:
    """The highest number, and who has it; 0 and None where nobody ever held the lease."""
    known = {each.name for each in fields(Holder)}
    while number := _highest(store, folder):
        with suppress(FileNotFoundError):  # a newer one came, and it went
            entry = store.read_json(_path(folder, number))
            return number, Holder(**{name: v for name, v in entry.items() if name in known})
    return 0, None


def _highest(store: Store, folder: str) -> int:
    """The highest number; 0 where nobody ever held the lease."""
    names = (path.rpartition("/")[2][:-5] for path in store.list(folder))
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _path(folder: str, number: int) -> str:
    return f"{folder}/{number:08d}.json"


def _as_bytes(holder: Holder) -> bytes:
    return json.dumps(asdict(holder), sort_keys=True).encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
