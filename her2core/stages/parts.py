"""Parts of a slide's cells as the last stage reads them: in their order, and more than once.

From a server the next ones are fetched while one is looked at, and what has been fetched is kept in memory as
far as `KEPT_BYTES` go: a slide of two gigapixels has some 30 MB of parts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from her2core.storage.store import Store
from her2core.storage.waiting import begin

PART_UNITS = 4
"""Work units, side by side, whose rows are one part. Ours: two seconds of work, which a lost worker costs."""
UNIT_SHARDS = 1.5
"""Edge of a work unit in edges of a level-0 shard. Ours, measured: a tenth faster than 1, and than 2."""
PART_SHARDS = PART_UNITS * UNIT_SHARDS**2
"""Level-0 shards below a part of cells."""

KEPT_BYTES = 64 * 2**20
"""Most bytes of parts that a thread keeps. Ours."""
AHEAD = 8
"""Parts that are fetched before they are come to. Ours: half a megabyte each."""

_local = threading.local()


@dataclass(slots=True)
class _Kept:
    """Parts of one slide that were fetched, the first ones."""

    store: Store
    bodies: dict[str, bytes] = field(default_factory=dict)
    size: int = 0


def read_parts(store: Store, names: Sequence[str]) -> Iterator[bytes]:
    """The parts of one slide, in their order."""
    if store.is_local:
        yield from map(store.read_bytes, names)
        return
    kept: _Kept | None = getattr(_local, "kept", None)
    if kept is None or kept.store != store or not kept.bodies.keys() & set(names):
        kept = _local.kept = _Kept(store)
    begun: dict[str, Future[bytes]] = {}
    for number, name in enumerate(names):
        for each in names[number : number + AHEAD]:
            if each not in kept.bodies and each not in begun:
                begun[each] = begin(partial(store.read_bytes, each))
        body = kept.bodies.get(name)
        if body is None:
            body = begun.pop(name).result()
            if kept.size + len(body) <= KEPT_BYTES:
                kept.bodies[name] = body
                kept.size += len(body)
        yield body


def forget_parts() -> None:
    """Let go what the thread keeps of the last slide."""
    _local.kept = None
