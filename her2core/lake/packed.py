"""What a driver keeps of thousands of slides until the end, in a tenth of the memory of the objects."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import pyarrow as pa

from her2core.lake.schema import Table
from her2core.lake.tables import require_columns

T = TypeVar("T")

Row = Mapping[str, Any]
CHUNK_ROWS = 128
"""Rows that are kept as Python objects at most. Ours."""


class Packed(Generic[T]):
    """Objects by name, compressed; each look at one makes it anew. For this process alone."""

    def __init__(self) -> None:
        self._packed: dict[str, bytes] = {}

    def __setitem__(self, name: str, value: T) -> None:
        self._packed[name] = zlib.compress(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), 1)

    def __getitem__(self, name: str) -> T:
        found: T = pickle.loads(zlib.decompress(self._packed[name]))  # noqa: S301, we packed it
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._packed

    def __len__(self) -> int:
        return len(self._packed)


class ArrowRows(Sequence[dict[str, Any]]):
    """Rows of a table in Arrow's columns; each look at one makes it anew."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return self._rows.take(list(range(*at.indices(len(self))))).to_pylist()
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return self._rows.slice(at % len(self), 1).to_pylist()[0]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._rows.to_batches(max_chunksize=CHUNK_ROWS):
            yield from batch.to_pylist()


class Gathered:
    """Rows of one table as they come, soon in Arrow's columns."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._rows: list[Row] = []
        self._chunks: list[pa.Table] = []

    def __len__(self) -> int:
        return sum(map(len, self._chunks)) + len(self._rows)

    def add(self, rows: Iterable[Row]) -> None:
        """Take rows with the table's columns."""
        self._rows += rows
        if len(self._rows) >= CHUNK_ROWS:
            self._pack()

    def rows(self) -> pa.Table:
        """All of them."""
        self._pack()
        return pa.concat_tables(self._chunks)

    def _pack(self) -> None:
        require_columns(self.table, self._rows)
        self._chunks.append(pa.Table.from_pylist([dict(row) for row in self._rows], self.table.schema))
        self._rows = []
