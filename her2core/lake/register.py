"""What a catalog needs to register the tables of an output, as statements of several engines."""

from __future__ import annotations

from dataclasses import dataclass

from her2core.lake.schema import TABLES
from her2core.lake.slide_files import FOLDER
from her2core.lake.tables import find_table, sql_text
from her2core.storage.store import Store


@dataclass(frozen=True, slots=True)
class Registered:
    """One table as a catalog lists it.

    Attributes
    ----------
    location
        Address of the Delta table.
    version
        Its newest version; go by the table ``runs`` for the versions that belong together.
    """

    name: str
    location: str
    version: int
    description: str

    def spark(self, schema: str) -> str:
        """Statement for Spark, Databricks and other engines with Delta's own SQL."""
        where = self.location if "://" in self.location else f"file://{self.location}"
        return f"CREATE TABLE IF NOT EXISTS {schema}.{self.name} USING DELTA LOCATION {sql_text(where)};"

    def trino(self, schema: str) -> str:
        """Statement for Trino's Delta connector."""
        return (
            f"CALL delta.system.register_table(schema_name => {sql_text(schema)}, "
            f"table_name => {sql_text(self.name)}, table_location => {sql_text(self.location)});"
        )

    def duckdb(self, schema: str) -> str:
        """Statement for DuckDB with its extension ``delta``."""
        rows = f"SELECT * FROM delta_scan({sql_text(self.location)})"
        return f"CREATE OR REPLACE VIEW {schema}.{self.name} AS {rows};"


def registered(store: Store) -> list[Registered]:
    """The tables that are there."""
    found = []
    for table in TABLES.values():
        delta = find_table(store, table)
        if delta is not None:
            place = store.uri(f"{FOLDER}/{table.name}")
            found.append(Registered(table.name, place, int(delta.version()), table.description))
    return found
