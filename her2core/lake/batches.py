"""Tables of slides' rows, filled batch by batch while a run goes on.

The footer of a file lists whose rows it holds and which they are (`MEMBERS`), so that a slide whose rows
stand already is not written again, wherever compaction has put them. Slides that are new, or alone in their
file, are committed with their batch. Rows that replace some of a file that many slides share wait for the end
of the run, when every such file is rewritten once.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from her2core.lake.schema import CELLS, NUCLEI, REGIONS, TEXT, Table
from her2core.lake.slide_files import FOLDER, ROW_GROUP, DataFile
from her2core.lake.tables import (
    Change,
    commit,
    find_table,
    require,
    require_columns,
    sorted_by_key,
)
from her2core.storage.store import Store
from her2core.storage.temporary import temporary_folder
from her2core.storage.waiting import side_by_side

log = logging.getLogger(__name__)

OWN_FILES = (CELLS, NUCLEI, REGIONS)
"""Tables of which workers write a file a slide, which is named by its result; rows of others are given."""
MEMBERS = b"her2.members"
"""Key in a Parquet footer: JSON of slide and what its rows are, the name of its own file or a digest."""
_PIECE_BYTES = 64 * 2**20
"""Bytes of a shared file that are fetched at once: bounds memory (ours)."""
LOOKED_AT_ONCE = 16
"""Files that are looked for at the same time before their commit: a bucket takes some 30 ms each. Ours."""
_TAIL_BYTES = 256 * 2**10
"""Bytes of a file's end that hold most footers. Ours."""

Members = dict[str, str | None]
"""What a file holds of each slide; None where that is not known."""


class SlideTable:
    """One table of slides' rows as a run fills it.

    Parameters
    ----------
    table
        Its rows are of slides (or runs), and are replaced by them.
    check
        Called whenever a commit was planned on what the table holds now, and may refuse it. Delta Lake plans
        anew where another commits before it does.
    """

    def __init__(self, store: Store, table: Table, check: Callable[[], None] = lambda: None) -> None:
        self.store, self.table, self.check = store, table, check
        self.files: dict[str, Members] = {}
        self.place: dict[str, str] = {}
        self.ready, self.later = _Batch(), _Batch()
        self.version: int | None = None
        self.leaving: list[str] = []
        delta = find_table(store, table)
        if delta is not None:
            self._look(delta)

    def lacks(self, slide: str, file: DataFile) -> bool:
        """Whether a file that is to hold a slide's rows is not in the store, or another one is."""
        if file.path == self._digest(slide):
            return False
        try:
            return self.store.size(f"{FOLDER}/{self.table.name}/{file.path}") != file.size_bytes
        except FileNotFoundError:
            return True

    def add_files(self, of: Mapping[str, DataFile | None]) -> None:
        """Record which file holds a slide's rows now; None if it has none."""
        for slide, file in of.items():
            now = None if file is None else file.path
            if now == self._digest(slide):
                continue
            batch = self._batch(slide)
            batch.slides.add(slide)
            if file is not None:
                batch.files[file.path] = (file, {slide: file.path})

    def add_rows(self, rows: Sequence[Mapping[str, Any]], slides: Iterable[str]) -> None:
        """Record which rows slides have now; those without any have none.

        Raises
        ------
        ValueError
            If a row's columns are not the table's, or two rows have one key.
        """
        of: dict[str, list[Mapping[str, Any]]] = {slide: [] for slide in slides}
        require_columns(self.table, rows)
        for row in rows:
            of[row[self.table.replaces]].append(row)
        digests = {slide: _digest(own) if own else None for slide, own in of.items()}
        for batch in (self.ready, self.later):
            mine = {s: d for s, d in digests.items() if d != self._digest(s) and self._batch(s) is batch}
            batch.slides.update(mine)
            given: Members = {slide: digest for slide, digest in mine.items() if digest is not None}
            if given:
                file = self._write([row for slide in given for row in of[slide]], given)
                batch.files[file.path] = (file, given)

    def commit(self, *, everything: bool = False) -> int:
        """Commit what is ready, or everything, in one commit; the version that holds it."""
        batch = self.ready
        if everything:
            batch = _Batch(self.ready.slides | self.later.slides, {**self.later.files, **self.ready.files})
        if batch.slides or self.version is None:
            self.version = commit(self.store, self.table, lambda delta: self._plan(delta, batch))
            self._place({path: of for path, of in self.files.items() if path not in self.leaving})
        self.ready = _Batch()
        if everything:
            self.later = _Batch()
        assert self.version is not None
        return self.version

    # what the table holds

    def _look(self, delta: DeltaTable) -> None:
        """Learn whose rows the active files hold; footers of known files are not read again."""
        self.version = int(delta.version())
        self._place({row["path"]: self._members(row) for row in active_files(delta, self.table)})

    def _place(self, files: dict[str, Members]) -> None:
        self.files = files
        self.place = {slide: path for path, members in files.items() for slide in members}

    def _members(self, row: Mapping[str, Any]) -> Members:
        path = row["path"]
        if path in self.files:
            return self.files[path]
        low, high = row["low"], row["high"]
        if self.table in OWN_FILES and low is not None and low == high:
            return {low: path}
        return read_members(self.store, self.table, path, int(row["size_bytes"]))

    def _digest(self, slide: str) -> str | None:
        path = self.place.get(slide)
        return None if path is None else self.files[path][slide] or ""

    def _batch(self, slide: str) -> _Batch:
        """Whether a slide's rows can be replaced now: of a file that it shares they are at the end."""
        path = self.place.get(slide)
        shared = path is not None and len(self.files[path]) > 1
        return self.later if shared or slide in self.later.slides else self.ready

    # commits

    def _plan(self, delta: DeltaTable, batch: _Batch) -> Change:
        self._look(delta)
        new = [file for path, (file, _) in batch.files.items() if path not in self.files]
        looks: list[Callable[[], None]] = [self.check]
        looks += [partial(require, self.store, self.table, file) for file in new]
        side_by_side(self.store, looks, LOOKED_AT_ONCE)
        old: list[str] = []
        for path, members in list(self.files.items()):
            gone = batch.slides & members.keys()
            kept = {s for s in gone if path in batch.files and s in batch.files[path][1]}
            if not gone - kept:
                continue
            old.append(path)
            if stay := {slide: known for slide, known in members.items() if slide not in gone - kept}:
                parted = without(self.store, self.table, path, gone - kept, stay)
                if parted is not None:
                    new.append(parted)
                    self.files[parted.path] = stay
        for path, (_, members) in batch.files.items():
            self.files.setdefault(path, dict(members))  # spares reading their footers
        self.leaving = old
        return Change(new, old)

    def _write(self, rows: Sequence[Mapping[str, Any]], members: Members) -> DataFile:
        own = pa.Table.from_pylist([dict(row) for row in rows], schema=self.table.schema)
        own = sorted_by_key(self.table, own)
        buffer = io.BytesIO()  # and no temporary file: what was scored is committed though its disk is full
        with pq.ParquetWriter(buffer, own.schema, compression="zstd") as writer:
            writer.write_table(own)
            writer.add_key_value_metadata({MEMBERS: json.dumps(members, sort_keys=True)})
        data = buffer.getvalue()
        name = f"{hashlib.sha256(data).hexdigest()[:24]}.parquet"
        self.store.write_bytes(f"{FOLDER}/{self.table.name}/{name}", data)
        return DataFile(name, len(data), len(own), statistics_of(self.table, len(own), members))


class _Batch:
    """Slides whose rows are replaced together, and the files with their new ones."""

    def __init__(
        self, slides: set[str] | None = None, files: dict[str, tuple[DataFile, Members]] | None = None
    ) -> None:
        self.slides: set[str] = slides or set()
        self.files: dict[str, tuple[DataFile, Members]] = files or {}


def commit_files(store: Store, table: Table, files: Sequence[DataFile], slide_ids: Iterable[str]) -> int:
    """Make these files the cells, nuclei or regions of these slides, in one commit; older ones are removed.

    Parameters
    ----------
    files
        At most one a slide, written for this table.
    slide_ids
        Every slide concerned, also those that have no rows now.

    Returns
    -------
    int
        Version of the table that holds them.

    Raises
    ------
    StoreError
        If a file is not there, the table is not ours, or other writers keep winning.
    """
    of: dict[str, DataFile | None] = dict.fromkeys(slide_ids)
    of |= {json.loads(file.stats)["minValues"]["slide_id"]: file for file in files}
    slides = SlideTable(store, table)
    slides.add_files(of)
    return slides.commit(everything=True)


def active_files(delta: DeltaTable, table: Table) -> list[dict[str, Any]]:
    """Path, size, and lowest and highest slide of a table's files; None where the table has no statistics."""
    actions = pa.table(delta.get_add_actions(flatten=True))
    ends = {"low": f"min.{table.replaces}", "high": f"max.{table.replaces}"}
    known = {end: name for end, name in ends.items() if name in actions.column_names}
    rows = actions.select(["path", "size_bytes", *known.values()])
    rows = rows.rename_columns(["path", "size_bytes", *known])
    return [{"low": None, "high": None} | row for row in rows.to_pylist()]


def statistics_of(table: Table, rows: int, members: Iterable[str]) -> str:
    """Delta statistics of a file with rows of these slides: a reader of one slide passes the others by."""
    ends = {"minValues": {table.replaces: min(members)}, "maxValues": {table.replaces: max(members)}}
    return json.dumps({"numRecords": rows, **ends, "nullCount": {table.replaces: 0}})


def read_members(store: Store, table: Table, path: str, size: int) -> Members:
    """Whose rows a file holds, from its footer; without ours, from its rows."""
    place = f"{FOLDER}/{table.name}/{path}"
    start = max(0, size - _TAIL_BYTES)
    tail = store.cat_range(place, start, size)
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > len(tail):
        tail = store.cat_range(place, size - length, size)
    footer = pq.read_metadata(pa.BufferReader(b"PAR1" + tail[-length:]))
    members = (footer.metadata or {}).get(MEMBERS)
    if members is not None:
        found: Members = json.loads(members)
        return found
    log.info("%s: %s is not ours; looking whose rows it holds", table.name, path)
    with temporary_folder(f"her2-{table.name}-", f"twice the bytes of a file of {table.name}") as folder:
        local = fetch(store, place, folder)
        with pq.ParquetFile(local) as file:
            slides: set[str] = set()
            for batch in file.iter_batches(ROW_GROUP, columns=[table.replaces], use_threads=False):
                slides.update(batch.column(0).unique().to_pylist())
    return dict.fromkeys(sorted(slides))


def without(store: Store, table: Table, path: str, slides: Iterable[str], stay: Members) -> DataFile | None:
    """The file that takes the place of a shared one: without the rows of some slides.

    Parameters
    ----------
    stay
        Slides whose rows it keeps.

    Returns
    -------
    DataFile or None
        None if no row is left.
    """
    with temporary_folder(f"her2-{table.name}-", f"twice the bytes of a file of {table.name}") as folder:
        before = fetch(store, f"{FOLDER}/{table.name}/{path}", folder)
        after = folder / "after.parquet"
        gone = pa.array(sorted(slides), TEXT)
        rows = 0
        with (
            pq.ParquetFile(before) as file,
            pq.ParquetWriter(after, file.schema_arrow.remove_metadata(), compression="zstd") as writer,
        ):
            for batch in file.iter_batches(ROW_GROUP):
                stays = pc.invert(pc.is_in(batch.column(table.replaces).cast(TEXT), value_set=gone))
                part = batch.filter(stays)
                rows += len(part)
                if len(part):
                    writer.write_batch(part.replace_schema_metadata(None))
            writer.add_key_value_metadata({MEMBERS: json.dumps(stay, sort_keys=True)})
        if not rows:
            return None
        name = f"{hashlib.sha256('/'.join([path, *sorted(slides)]).encode()).hexdigest()[:24]}.parquet"
        store.write_file(f"{FOLDER}/{table.name}/{name}", after)
        return DataFile(name, after.stat().st_size, rows, statistics_of(table, rows, stay))


def fetch(store: Store, place: str, folder: Path) -> Path:
    """A local copy of a file of the store, fetched in pieces."""
    local, size = folder / "before.parquet", store.size(place)
    with local.open("wb") as file:
        for start in range(0, size, _PIECE_BYTES):
            file.write(store.cat_range(place, start, min(start + _PIECE_BYTES, size)))
    return local


def _digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the rows of a slide are, in 16 hexadecimal digits."""
    text = sorted(json.dumps(row, sort_keys=True, default=str) for row in rows)
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]
