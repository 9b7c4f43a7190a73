"""Delta tables of the cohort under ``tables/`` of the output root; `schema` describes them.

Workers write the rows of a slide as finished Parquet files (`slide_files`); the driver, the only writer of
the tables, commits. A commit adds new files and removes those whose rows they replace in one transaction, so
a slide that is scored again replaces its rows and never doubles them, and committing the same thing twice
changes nothing. All commits share one Delta application transaction: two drivers at once cannot both win,
the loser reads again and tries again.

Others may compact a table, or add nullable columns to it. A compacted file that holds rows of a slide that is
scored again is replaced by one of the other slides' rows; rows that stay keep what stands in added columns.
A table of an older version that lacks nullable columns of ours is read with these as null, and gets them by
the first commit that changes it; its older rows stay null there.
Compacting spares the older files, by which a run recognises what is done, until the table is vacuumed.

Rows are read by delta-rs alone: its PyArrow datasets call Python from Arrow's threads, and one in several
processes that used them dies at its end ("terminate called without an active exception").

A slide that fails after it was scored loses its cells with its old row: what it was is found by the older
table version that the earlier ``runs`` row names.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    QueryBuilder,
    Schema,
    Transaction,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from her2core.errors import StoreError
from her2core.lake.schema import TABLES, TEXT, Table
from her2core.lake.slide_files import FOLDER, DataFile
from her2core.storage.store import Store
from her2core.storage.waiting import side_by_side

log = logging.getLogger(__name__)

T = TypeVar("T")

Keep = Callable[[pa.Table], pa.BooleanArray]
"""Whether each row of a table stays."""
APPLICATION = "her2cohort"
"""Delta application id of every commit; its transaction version is the table's that it is planned to make."""
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Pauses before a request is repeated, beside what Delta Lake's client repeats itself. Ours."""
_BROKEN_OFF = re.compile(
    "interacting with object store|Generic S3 error|Json error|Parquet error|EOF|unexpected end"
    "|No table metadata or protocol",
    re.IGNORECASE,
)
"""Words of Delta Lake's errors that are of its store, or of a file that may have arrived cut short."""
PROPERTIES = {"delta.logRetentionDuration": "interval 36500 days", "delta.checkpointInterval": "10"}
"""Properties of our tables: checkpoints leave the log, by which a version that a run names is found. One is
made every ten commits (ours), so that who opens a table reads at most ten files of its log, not a hundred."""
NO_CLEANUP = PostCommitHookProperties(cleanup_expired_logs=False)
"""Nothing of a log expires (`PROPERTIES`): looking for what has costs a listing a commit."""
ATTEMPTS = 10
"""Commits tried before giving up against other writers."""


def commit_rows(
    store: Store,
    table: Table,
    rows: Sequence[Mapping[str, Any]] | pa.Table,
    also_replaced: Iterable[str] = (),
    keep: Keep | None = None,
) -> int:
    """Put rows into a small table, replacing those that share their ``replaces`` value, in one commit.

    The table is one Parquet file, sorted by its key, and is written anew.

    Parameters
    ----------
    also_replaced
        Values of ``replaces`` whose older rows go, though they may have none now.
    keep
        Decides which of the older rows stay; all by default.

    Returns
    -------
    int
        Version of the table that holds them.

    Raises
    ------
    ValueError
        If a row's columns are not the table's, or two rows have one key.
    StoreError
        If the table is not ours, or other writers keep winning.
    """
    if isinstance(rows, pa.Table):
        own = rows.cast(table.schema)
    else:
        require_columns(table, rows)
        own = pa.Table.from_pylist([dict(row) for row in rows], schema=table.schema)

    replaced = pa.array(sorted({*also_replaced, *own[table.replaces].to_pylist()}), TEXT)

    def plan(current: DeltaTable) -> Change:
        before = _query(current, table).answer()
        new = _with_added(table, own, before)
        stays = pc.invert(pc.is_in(before[table.replaces], value_set=replaced))
        if keep is not None:
            stays = pc.and_(stays, keep(before))
        if not len(own) and pc.all(stays).as_py() is not False:
            return Change([], [])
        after = sorted_by_key(table, pa.concat_tables([before.filter(stays), new]))
        old = active_paths(current)
        file = _write_rows(store, table, after, old)
        if file.path in old:
            return Change([], [path for path in old if path != file.path])
        return Change([file], old)

    return commit(store, table, plan)


def _with_added(table: Table, own: pa.Table, before: pa.Table) -> pa.Table:
    """Our rows, with the values of columns that users added for those that stand in the table as they are."""
    added = [field for field in before.schema if field.name not in table.schema.names]
    rows = with_columns(own, before.schema)
    if not added or not len(before):
        return rows
    stands = {tuple(row[name] for name in table.key): row for row in before.to_pylist()}
    kept = []
    for row in own.to_pylist():
        there = stands.get(tuple(row[name] for name in table.key))
        kept.append(there if there is not None and all(_same(there[n], row[n]) for n in row) else {})
    for field in added:
        values = pa.array([there.get(field.name) for there in kept], field.type)
        rows = rows.set_column(rows.schema.get_field_index(field.name), field, values)
    return rows


def _same(a: object, b: object) -> bool:
    return bool(a == b) or (a != a and b != b)  # NaN is what it was


def require_columns(table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Refuse rows whose columns are not the table's."""
    own = set(table.schema.names)
    for row in rows:
        if odd := sorted(own ^ row.keys()):
            raise ValueError(f"{table.name}: columns {odd} are missing or unknown; see lake/schema.py")


def sorted_by_key(table: Table, rows: pa.Table) -> pa.Table:
    """Rows in the order of a table's key, in one chunk.

    Raises
    ------
    ValueError
        If two rows have one key.
    """
    rows = rows.sort_by([(name, "ascending") for name in table.key]).combine_chunks()
    if len(rows.group_by(list(table.key)).aggregate([])) != len(rows):
        raise ValueError(f"{table.name}: two rows share one key ({', '.join(table.key)})")
    return rows


def _write_rows(store: Store, table: Table, rows: pa.Table, there: Sequence[str]) -> DataFile:
    """The file of these rows, written unless it is there."""
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    name = f"{hashlib.sha256(buffer.getvalue()).hexdigest()[:24]}.parquet"
    if name not in there:
        store.write_bytes(f"{FOLDER}/{table.name}/{name}", buffer.getbuffer())
    return DataFile(name, buffer.tell(), len(rows), json.dumps({"numRecords": len(rows)}))


class _KeptOpen:
    """Tables of a store as this process saw them last; a lock each, for who brings one up to date.

    Those that are current were not committed to by us since: a commit may be planned on them unread, as it is
    refused if anyone else came between.
    """

    def __init__(self) -> None:
        self.tables: dict[str, DeltaTable] = {}
        self.current: set[str] = set()
        self.locks: defaultdict[str, RLock] = defaultdict(RLock)

    def put(self, table: Table, delta: DeltaTable) -> DeltaTable:
        """Keep a table as it was read just now."""
        self.tables[table.name] = delta
        self.current.add(table.name)
        return delta

    def take(self, table: Table) -> DeltaTable | None:
        """A table as it was read, if at all, to bring it up to date; not kept until it is put back."""
        self.current.discard(table.name)
        return self.tables.pop(table.name, None)


_kept: dict[Store, _KeptOpen] = {}


@contextmanager
def kept_open(store: Store) -> Iterator[None]:
    """Open each table of a store once for the length of the block.

    A table that is opened again reads what is new in its log, and not all of it: two requests. It is one
    object for all callers, which is brought up to date for all of them.
    """
    if store in _kept:
        yield
        return
    _kept[store] = _KeptOpen()
    try:
        yield
    finally:
        del _kept[store]


def _alone(store: Store, table: Table) -> AbstractContextManager[object]:
    """The right to look at a table that is kept open, to bring it up to date, and to commit to it.

    Delta Lake's object is locked while it waits for the store; who looked at it then would wait with the
    interpreter's own lock, and all of this process with it. What is read of it (`_Query`) needs it no more.
    """
    kept = _kept.get(store)
    return nullcontext() if kept is None else kept.locks[table.name]


def open_table(store: Store, table: Table, version: int | None = None) -> DeltaTable:
    """One of the lake's tables, at a version if given.

    Raises
    ------
    deltalake.exceptions.TableNotFoundError
        If nothing was committed yet.
    """
    kept = None if version is not None else _kept.get(store)
    if kept is None:
        return outlasting(store, lambda: _opened(store, table, version))
    with kept.locks[table.name]:
        return outlasting(store, lambda: _up_to_date(store, table, kept))


def _opened(store: Store, table: Table, version: int | None = None) -> DeltaTable:
    uri = store.delta_uri(f"{FOLDER}/{table.name}")
    return DeltaTable(uri, version=version, storage_options=store.storage_options() or None)


def _up_to_date(store: Store, table: Table, kept: _KeptOpen) -> DeltaTable:
    """A table that is kept open, as it is now; opened anew after any error."""
    delta = kept.take(table)
    if delta is None:
        delta = _opened(store, table)
    else:
        delta.update_incremental()
    return kept.put(table, delta)


def find_table(store: Store, table: Table, version: int | None = None) -> DeltaTable | None:
    """As `open_table`; None if nothing was committed yet."""
    try:
        return open_table(store, table, version)
    except TableNotFoundError:
        return None


def outlasting(store: Store, request: Callable[[], T]) -> T:
    """Try Delta Lake's own client again, which gives a store up after seconds; in the end raise in words.

    Between two tries the store is listed by our client, which outlasts an outage. Delta's client may be
    given one request twice: a commit that was applied is found when the next one is planned.
    """
    for pause_s in (*PAUSES_S, None):
        try:
            return request()
        except (OSError, DeltaError) as error:
            if store.is_local or not (isinstance(error, OSError) or _BROKEN_OFF.search(str(error))):
                raise  # a disk does not change its mind, nor does Delta Lake
            why = _first_line(error)
            if pause_s is None:
                raise _gives_nothing(store, why) from error
        log.info("tables: the store broke off (%s); asking again", why)
        time.sleep(pause_s)
        try:
            store.list(FOLDER)
        except (OSError, BotoCoreError) as gone:
            raise _gives_nothing(store, why) from gone
    raise AssertionError("unreachable")


def _gives_nothing(store: Store, why: str) -> StoreError:
    return StoreError(
        f"{store.uri(FOLDER)}: the store breaks off ({why}); see that it answers, and run the same command "
        "again to resume"
    )


def _first_line(error: Exception) -> str:
    """The last cause in a message of many lines by Delta's client, without colours."""
    lines = re.sub(r"\x1b\[\d*m", "", str(error)).split("↳")
    return lines[-1].strip().splitlines()[0][:200] if lines[-1].strip() else type(error).__name__


def active_paths(delta: DeltaTable) -> list[str]:
    """Files of a table, by their names in its folder; ``DeltaTable.file_uris`` has ``%20`` for a blank."""
    paths: list[str] = pa.table(delta.get_add_actions(flatten=True))["path"].to_pylist()
    return paths


def read_rows(
    store: Store,
    table: Table,
    columns: Sequence[str],
    among: Mapping[str, Sequence[str]] | None = None,
    *,
    distinct: bool = False,
) -> pa.Table:
    """Columns of a table as it stands, null in nullable ones that it lacks; no rows if nothing was committed.

    Parameters
    ----------
    among
        Values of text columns, to read only rows that have one of them; files without are not opened.
    distinct
        Whether equal rows are one.
    """

    def once() -> pa.Table:
        with _alone(store, table):
            delta = find_table(store, table)
            if delta is None:
                return table.schema.empty_table().select(list(columns))
            query = _query(delta, table, columns, among, distinct=distinct)
        return query.answer()

    return outlasting(store, once)


def read_present(store: Store, table: Table, columns: Sequence[str], version: int | None = None) -> pa.Table:
    """As `read_rows`, also of a layout that no run may commit to: null in whichever columns it lacks.

    For those who look. Who removes what no row names asks `require_written` first.
    """
    wanted = table.schema.empty_table().select(list(columns)).schema

    def once() -> pa.Table | None:
        with _alone(store, table):
            delta = find_table(store, table, version)
            if delta is None:
                return None
            there = {*_schema(delta).names}
            query = _query(delta, table, [name for name in columns if name in there])
        return query.answer()

    rows = outlasting(store, once)
    if rows is None:
        return wanted.empty_table()
    there = {*rows.column_names}
    schema = pa.schema([field if field.name in there else field.with_nullable(True) for field in wanted])
    return with_columns(rows, schema)


def read_version(store: Store, table: Table, columns: Sequence[str], version: int | None) -> pa.Table:
    """Columns of a small table as a run left it, as `read_present`; no rows if the run did not commit it."""
    if version is None:
        return table.schema.empty_table().select(list(columns))
    return read_present(store, table, columns, version)


def require_written(store: Store, table: Table, columns: Iterable[str]) -> None:
    """Refuse to go by columns of a table of an older version that lacks them: their null means nothing.

    Raises
    ------
    StoreError
        If the table is there, and lacks one.
    """
    delta = find_table(store, table)
    lacks = [] if delta is None else sorted({*columns} - {*_schema(delta).names})
    if lacks:
        raise StoreError(
            f"{store.delta_uri(f'{FOLDER}/{table.name}')}: is of an older version, without "
            f"{', '.join(lacks)}, which names what is in use; nothing is removed. Run the cohort once more "
            "with this version"
        )


def check_tables(store: Store) -> list[str]:
    """See that a run may commit to the tables that are there, before it begins.

    Returns
    -------
    list of str
        Columns that tables of an older version lack and get when they are committed to, as ``table.column``.

    Raises
    ------
    StoreError
        If a table has other columns than this version writes, but for nullable ones that it lacks.
    """
    lacks = []
    for table in TABLES.values():
        delta = find_table(store, table)
        if delta is None:
            continue
        _fitting(store, table, delta)
        lacks += [f"{table.name}.{field.name}" for field in _lacking(_schema(delta), table)]
    return lacks


@dataclass(frozen=True, slots=True)
class Change:
    """Files that a commit adds and removes, by their names in the table's folder."""

    add: Sequence[DataFile]
    remove: Sequence[str]
    data_change: bool = True

    @property
    def is_nothing(self) -> bool:
        """Whether no commit is needed for it."""
        return not (self.add or self.remove)


def commit(store: Store, table: Table, plan: Callable[[DeltaTable], Change]) -> int:
    """Plan and commit; where another writer came between, plan again on what there is then.

    Planned is on the newest version, or on what this process read last of a table that is kept open: Delta
    Lake is to make the very next version or none, so that a plan on an older one is refused.

    Returns
    -------
    int
        Version that holds it.
    """
    kept = _kept.get(store)

    def once() -> int:
        delta = kept.tables[table.name] if kept is not None and table.name in kept.current else None
        planned_on = None if delta is None else int(delta.version())
        change = Change([], []) if delta is None else plan(_fitting(store, table, delta))
        if delta is None or change.is_nothing:
            delta = _open_or_create(store, table)  # that there is nothing to do has to be true of the newest
            change = change if planned_on == delta.version() else plan(delta)
        if change.is_nothing:
            return int(delta.version())
        if kept is not None:
            kept.current.discard(table.name)
        if _complete(delta, table):
            change = plan(delta)  # another may have committed before the columns were
        version = int(delta.version())
        if change.is_nothing:
            return version
        delta.create_write_transaction(
            _actions(change),
            mode="append",
            schema=delta.schema(),
            commit_properties=CommitProperties(
                app_transactions=[Transaction(APPLICATION, 1 + version)], max_commit_retries=0
            ),
            post_commithook_properties=NO_CLEANUP,
        )
        return version + 1

    for attempt in range(ATTEMPTS):
        try:
            with _alone(store, table):
                return outlasting(store, once)
        except CommitFailedError as error:
            log.info("%s: another writer committed first (%s); trying again", table.name, error)
            time.sleep(random.uniform(0.05, 0.1) * 2**attempt)
    raise StoreError(
        f"{store.delta_uri(FOLDER)}/{table.name}: {ATTEMPTS} commits lost against other writers; one run "
        "at a time may write to an output. Stop the others and run again."
    )


def _actions(change: Change) -> list[AddAction | RemoveAction]:
    now = time.time_ns() // 1_000_000
    changed = change.data_change
    add = [AddAction(file.path, file.size_bytes, {}, now, changed, file.stats) for file in change.add]
    return add + [RemoveAction(path, data_change=changed, deletion_timestamp=now) for path in change.remove]


def make_tables(store: Store, tables: Sequence[Table]) -> None:
    """Create tables that are not there, empty, all at the same time."""
    side_by_side(store, [partial(_made, store, table) for table in tables])


def _made(store: Store, table: Table) -> DeltaTable:
    with _alone(store, table):
        return outlasting(store, lambda: _open_or_create(store, table))


def _open_or_create(store: Store, table: Table) -> DeltaTable:
    uri = store.delta_uri(f"{FOLDER}/{table.name}")
    delta = find_table(store, table)
    if delta is None:
        delta = DeltaTable.create(
            uri,
            table.schema,
            mode="ignore",
            name=table.name,
            description=table.description,
            configuration=dict(PROPERTIES),
            storage_options=store.storage_options() or None,
        )
        if (kept := _kept.get(store)) is not None:
            kept.put(table, delta)
    return _fitting(store, table, delta)


def _fitting(store: Store, table: Table, delta: DeltaTable) -> DeltaTable:
    """The table, if this version can write to it."""
    uri = store.delta_uri(f"{FOLDER}/{table.name}")
    _require_schema(delta, table, uri)
    _require_no_vectors(delta, uri)
    return delta


def _require_schema(delta: DeltaTable, table: Table, uri: str) -> None:
    """Refuse a table that has another type for a column, lacks one that it cannot get, or has another's.

    It can get columns that may be null and take no part in its key. Columns that someone added may be null.
    """
    found, own = _schema(delta), table.schema
    there, ours = {field.name: field for field in found}, {*own.names}
    lacking = {field.name for field in _lacking(found, table)}
    kept = pa.schema([there[name] for name in own.names if name in there])
    wanted = pa.schema([field for field in own if field.name not in lacking])
    foreign = [field for field in found if field.name not in ours and not field.nullable]
    if not kept.equals(wanted) or foreign:
        odd = sorted(set(map(_plain, kept)) ^ set(map(_plain, wanted)) | set(map(_plain, foreign)))
        raise StoreError(
            f"{uri}: holds other columns than this version writes ({', '.join(odd[:6])}). Give another "
            "output, or move the old tables away."
        )


def _lacking(found: pa.Schema, table: Table) -> list[pa.Field]:
    """Columns of ours that a table of an older version lacks and can get: null in its rows."""
    there = {*found.names}
    fixed = {*table.key, table.replaces}
    return [f for f in table.schema if f.name not in there and f.nullable and f.name not in fixed]


def _complete(delta: DeltaTable, table: Table) -> bool:
    """Add the columns that a table of an older version lacks, in a commit of its own; whether any were."""
    lacking = _lacking(_schema(delta), table)
    if lacking:
        delta.alter.add_columns(Schema.from_arrow(pa.schema(lacking)).fields)
        log.info("%s: of an older version, gets %s", table.name, ", ".join(field.name for field in lacking))
    return bool(lacking)


def _require_no_vectors(delta: DeltaTable, uri: str) -> None:
    """Refuse a table in which deletion vectors were switched on: the writer would bring rows back."""
    features = {*(delta.protocol().reader_features or ()), *(delta.protocol().writer_features or ())}
    switched = delta.metadata().configuration.get("delta.enableDeletionVectors", "false").lower() == "true"
    if switched or "deletionVectors" in features:
        raise StoreError(
            f"{uri}: deletion vectors are on, which Delta's Rust writer cannot keep. Switch them off where "
            "they were switched on (delta.enableDeletionVectors = false, then REORG TABLE ... APPLY (PURGE), "
            "and drop the feature), or give another output."
        )


def _plain(field: pa.Field) -> str:
    return f"{field.name} {field.type}" + (", never null" if not field.nullable else "")


def _schema(delta: DeltaTable) -> pa.Schema:
    return pa.schema(delta.schema().to_arrow())


@dataclass(frozen=True, slots=True)
class _Query:
    """What is to be read of a table as it was; the table itself may go on."""

    builder: QueryBuilder
    text: str
    schema: pa.Schema

    def answer(self) -> pa.Table:
        return _answer(self.builder, self.text).cast(self.schema)


def _query(
    delta: DeltaTable,
    table: Table,
    columns: Sequence[str] | None = None,
    among: Mapping[str, Sequence[str]] | None = None,
    *,
    distinct: bool = False,
) -> _Query:
    """A table's rows in no order: these columns, or all, its own before those that someone added."""
    own, there = table.schema, _schema(delta)
    ours, lacking = {*own.names}, {field.name for field in _lacking(there, table)}
    added = [field for field in there if field.name not in ours]
    schema = pa.schema([own.field(name) for name in columns] if columns else [*own, *added])
    named = ", ".join("NULL AS " * (name in lacking) + sql_name(name) for name in schema.names)
    wanted = " AND ".join(_is_among(name, values) for name, values in (among or {}).items())
    text = f"SELECT {'DISTINCT ' if distinct else ''}{named} FROM stored"
    text += f" WHERE {wanted}" if wanted else ""
    return _Query(QueryBuilder().register("stored", delta), text, schema)


def select(delta: DeltaTable, query: str) -> pa.Table:
    """What a query finds in a table, which it calls ``stored``; whatever hinders it is an `OSError`."""
    return _answer(QueryBuilder().register("stored", delta), query)


def _answer(builder: QueryBuilder, query: str) -> pa.Table:
    try:
        return pa.table(builder.execute(query))
    except (pa.ArrowException, DeltaError) as error:  # what the store answers arrives as one of these
        raise OSError(str(error)) from error


def _is_among(name: str, values: Sequence[str]) -> str:
    """A condition of SQL; its bounds let files be passed by, which a long list does not."""
    if not values:
        return "FALSE"
    listed = ", ".join(map(sql_text, values))
    low, high = sql_text(min(values)), sql_text(max(values))
    return f'"{name}" BETWEEN {low} AND {high} AND "{name}" IN ({listed})'


def sql_text(text: str) -> str:
    """A text for SQL."""
    return "'{}'".format(text.replace("'", "''"))


def sql_name(name: str) -> str:
    """A column's name for SQL."""
    return '"{}"'.format(name.replace('"', '""'))


def with_columns(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows with these columns, null in those that they lack."""
    columns = [rows[f.name] if f.name in rows.column_names else pa.nulls(len(rows), f.type) for f in schema]
    return pa.table(columns, schema.names).cast(schema)


def require(store: Store, table: Table, file: DataFile) -> None:
    """Refuse a file that is not in the store as it was written."""
    path = f"{FOLDER}/{table.name}/{file.path}"
    try:
        size = store.size(path)
    except FileNotFoundError:
        size = -1
    if size != file.size_bytes:
        raise StoreError(
            f"{store.uri(path)}: expected {file.size_bytes} bytes, found {'no file' if size < 0 else size}. "
            "It was removed or changed (vacuumed?) since it was written; delete the slide's record under "
            "stages/slide and run again."
        )
