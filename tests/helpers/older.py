"""An output as an older version of this package wrote it: its tables lack columns in all their versions."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Collection, Mapping

import pyarrow.parquet as pq

from her2core.storage.store import Store

_DIGEST = re.compile(r"[0-9a-f]{24}\.parquet")


def make_older(store: Store, lacking: Mapping[str, Collection[str]]) -> None:
    """Take columns out of tables: out of their files of rows, and out of all that their logs state."""
    for name, columns in lacking.items():
        folder = f"tables/{name}"
        files: dict[str, tuple[str, int]] = {}
        for path in store.list(folder):
            if path.endswith(".parquet"):
                data, file = _without(store.read_bytes(path), columns), path.rpartition("/")[2]
                now = f"older-{file}" if _DIGEST.fullmatch(file) else file  # it is one of other bytes now
                store.delete(path)
                store.write_bytes(f"{folder}/{now}", data)
                files[file] = (now, len(data))
        for path in store.list(f"{folder}/_delta_log"):
            lines = [json.loads(line) for line in store.read_bytes(path).splitlines()]
            for line in lines:
                if "metaData" in line:
                    schema = json.loads(line["metaData"]["schemaString"])
                    schema["fields"] = [f for f in schema["fields"] if f["name"] not in columns]
                    line["metaData"]["schemaString"] = json.dumps(schema)
                if "add" in line:
                    line["add"]["path"], line["add"]["size"] = files[line["add"]["path"]]
                if "remove" in line:
                    line["remove"]["path"], _ = files[line["remove"]["path"]]
            store.write_bytes(path, "\n".join(map(json.dumps, lines)).encode())


def _without(data: bytes, columns: Collection[str]) -> bytes:
    rows = pq.read_table(io.BytesIO(data))
    buffer = io.BytesIO()
    pq.write_table(rows.drop_columns(columns), buffer)
    return buffer.getvalue()
