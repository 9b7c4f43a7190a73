"""Upkeep of the tables: small files are merged, the log gets a checkpoint, unreferenced files are removed.

Rows do not change. What the rows of ``runs`` name stays readable, however old it is. Small files are put
together by slide, and a slide is never parted: its rows lie in row groups of their own, so that who reads one
slide opens one file and reads its part of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from her2core.lake import schema
from her2core.lake.batches import MEMBERS, OWN_FILES, Members, SlideTable, active_files, fetch, statistics_of
from her2core.lake.schema import TABLES, Table
from her2core.lake.slide_files import FOLDER, DataFile
from her2core.lake.tables import (
    PROPERTIES,
    Change,
    active_paths,
    commit,
    find_table,
    open_table,
    read_rows,
    with_columns,
)
from her2core.storage.lease import Lease
from her2core.storage.store import Store, record_of
from her2core.storage.temporary import temporary_folder

log = logging.getLogger(__name__)

TARGET_BYTES = 256 * 2**20
"""Largest file that is made. Ours: read in seconds over a network, some hundreds for ten thousand slides."""
KEPT_DAYS = 30.0
"""Files that left a table so many days ago go, unless a run names a version that holds them. Ours."""
BY_SLIDE = (*OWN_FILES, schema.HETEROGENEITY, schema.HETEROGENEITY_WIDE, schema.SLIDES, schema.RUNS)
"""Tables that are written in many files; the others are one."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What was done to one table.

    Attributes
    ----------
    files, files_before
        Files that a reader of the whole table opens, now and before.
    removed
        Files that went from the store.
    """

    table: str
    version: int
    files_before: int
    files: int
    removed: int


def maintain(
    store: Store, lease: Lease, *, days: float = KEPT_DAYS, target_bytes: int = TARGET_BYTES
) -> list[Upkeep]:
    """Look after every table, while the lease is held.

    Parameters
    ----------
    days
        See `KEPT_DAYS`.

    Raises
    ------
    LeaseLostError
        If another has taken over; what was done is whole.
    """
    named = _named_versions(store)
    done = []
    for table in TABLES.values():
        delta = find_table(store, table)
        if delta is None:
            continue
        before = len(delta.file_uris())
        lease.check()
        if table in BY_SLIDE:
            compact(store, table, target_bytes)
        delta = open_table(store, table)
        _set_properties(delta)
        delta.create_checkpoint()
        removed = _vacuum(store, table, named[table.name], days)
        delta = open_table(store, table)
        done.append(Upkeep(table.name, int(delta.version()), before, len(delta.file_uris()), len(removed)))
    return done


def compact(store: Store, table: Table, target_bytes: int = TARGET_BYTES) -> int:
    """Put small files of a table together, in one commit; the version that holds them."""
    slides = SlideTable(store, table)
    delta = open_table(store, table)
    sizes = {row["path"]: int(row["size_bytes"]) for row in active_files(delta, table)}
    small = [path for path, size in sizes.items() if size <= target_bytes // 2 and slides.files[path]]
    small.sort(key=lambda path: min(slides.files[path]))
    added: list[DataFile] = []
    gone: list[str] = []
    for group in _groups(small, sizes, target_bytes):
        file = _merged(store, table, {path: slides.files[path] for path in group})
        if file is not None:
            added.append(file)
            gone += group

    def plan(current: DeltaTable) -> Change:
        active = set(active_paths(current))
        if not set(gone) <= active:  # another writer committed meanwhile: the next upkeep does it
            return Change([], [])
        return Change(added, gone, data_change=False)

    return commit(store, table, plan)


def _groups(paths: Sequence[str], sizes: Mapping[str, int], most: int) -> Iterator[list[str]]:
    """Files that are put together: neighbours, two or more, of ``most`` bytes at most."""
    group: list[str] = []
    size = 0
    for path in paths:
        if group and size + sizes[path] > most:
            if len(group) > 1:
                yield group
            group, size = [], 0
        group.append(path)
        size += sizes[path]
    if len(group) > 1:
        yield group


def _merged(store: Store, table: Table, files: Mapping[str, Members]) -> DataFile | None:
    """One file with the rows of several, by slide, each slide in row groups of its own.

    None if a row group mixes slides: such a file was written by another program, and is left alone.
    """
    members: Members = {slide: known for each in files.values() for slide, known in each.items()}
    with (
        temporary_folder(f"her2-{table.name}-", "twice the bytes of the files to join") as folder,
        ExitStack() as opened,
    ):
        sources = []
        for number, path in enumerate(files):
            place = folder / str(number)
            place.mkdir()
            local = fetch(store, f"{FOLDER}/{table.name}/{path}", place)
            sources.append(opened.enter_context(pq.ParquetFile(local)))
        after = folder / "after.parquet"
        wanted = _columns_of(table, [source.schema_arrow for source in sources])
        rows = 0
        with pq.ParquetWriter(after, wanted, compression="zstd") as writer:
            for part in _by_slide(table, sources, whole=table not in OWN_FILES):
                if part is None:
                    return None
                rows += len(part)
                writer.write_table(with_columns(part, wanted))
            writer.add_key_value_metadata({MEMBERS: json.dumps(members, sort_keys=True)})
        name = f"{hashlib.sha256('/'.join(sorted(files)).encode()).hexdigest()[:24]}.parquet"
        store.write_file(f"{FOLDER}/{table.name}/{name}", after)
        return DataFile(name, after.stat().st_size, rows, statistics_of(table, rows, members))


def _columns_of(table: Table, files: Sequence[pa.Schema]) -> pa.Schema:
    """Columns that any of some files has: of an older version they lack some, of others they have more."""
    found = {f.name: f.with_nullable(True) for file in files for f in file.remove_metadata()}
    own = [field.remove_metadata() for field in table.schema if found.pop(field.name, None) is not None]
    return pa.schema([*own, *found.values()])


def _by_slide(table: Table, sources: Sequence[pq.ParquetFile], *, whole: bool) -> Iterator[pa.Table | None]:
    """Rows of all files by slide: of large tables a row group at a time, of small ones all at once."""
    if whole:
        every = pa.concat_tables(
            [source.read(use_threads=False) for source in sources], promote_options="default"
        )
        yield every.sort_by([(name, "ascending") for name in table.key]).replace_schema_metadata(None)
        return
    groups = []
    for number, source in enumerate(sources):
        column = source.schema_arrow.names.index(table.replaces)
        for group in range(source.metadata.num_row_groups):
            known = source.metadata.row_group(group).column(column).statistics
            if known is None or not known.has_min_max or known.min != known.max:
                yield None
                return
            groups.append((known.min, number, group))
    for _, number, group in sorted(groups):
        yield sources[number].read_row_group(group, use_threads=False).replace_schema_metadata(None)


def _named_versions(store: Store) -> dict[str, list[int]]:
    """Versions of every table that rows of ``runs`` name."""
    columns = [f"{name}_version" for name in schema.COMMITTED]
    rows = read_rows(store, schema.RUNS, columns)
    named = {name: rows[f"{name}_version"].drop_null().unique().to_pylist() for name in schema.COMMITTED}
    return {name: sorted(map(int, versions)) for name, versions in named.items()} | {schema.RUNS.name: []}


def _set_properties(delta: DeltaTable) -> None:
    """Give a table of an earlier version the properties that new ones have."""
    if any(delta.metadata().configuration.get(name) != value for name, value in PROPERTIES.items()):
        delta.alter.set_table_properties(PROPERTIES)


def _vacuum(store: Store, table: Table, named: Sequence[int], days: float) -> list[str]:
    """Remove files that left a table long ago, and records of results whose files went with them."""
    delta = open_table(store, table)
    removed: list[str] = delta.vacuum(
        retention_hours=int(days * 24),
        dry_run=False,
        enforce_retention_duration=False,
        keep_versions=list(named) or None,
    )
    if removed and table in OWN_FILES:
        _forget(store, table, removed)
    return removed


def _forget(store: Store, table: Table, removed: Iterable[str]) -> None:
    """Remove records whose file of rows is no more, unless a shared file holds the same rows."""
    slides = SlideTable(store, table)
    held = {known for members in slides.files.values() for known in members.values()}
    for path in removed:
        name = PurePosixPath(path).name
        if name not in held:
            store.delete(record_of("slide", PurePosixPath(name).stem))
