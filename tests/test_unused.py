"""What no result rests on is removed, and nothing that a run uses, whenever it began."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from her2core.errors import StoreError
from her2core.lake.schema import RUNS
from her2core.lake.tables import commit_rows
from her2core.lake.unused import find_unused, remove
from her2core.storage.lease import BusyError, held
from her2core.storage.listing import walk_folder
from her2core.storage.store import Store
from tests.conftest import Bucket

STAGES = ("pyramid", "profile", "cells", "slide")


def rests_on(key: str) -> list[str]:
    return [f"stages/{stage}/{stage}-{key}.json" for stage in STAGES]


def leave(store: Store, key: str, days_ago: float = 30.0) -> None:
    """All that a result with this key leaves."""
    paths = [
        *rests_on(key),
        f"pyramids/pyramid-{key}/zarr.json",
        f"pyramids/pyramid-{key}/0/c/0",
        f"parts/cells/cells-{key}/0.parquet",
        f"regions/slide-{key}.zarr.zip",
    ]
    for path in paths:
        store.write_bytes(path, b"1234")


def say(store: Store, run_id: str, keys: list[str], state: str = "complete", **changed: Any) -> None:
    """A row of ``runs`` that names these results."""
    inputs = [{"slide_id": key, "score_key": f"slide-{key}", "rests_on": rests_on(key)} for key in keys]
    row: dict[str, Any] = {
        column.name: None if not column.required else 0 if "int" in str(column.type) else "{}"
        for column in RUNS.columns
    }
    moment = time.time() + len(run_id) + int(run_id[1:])
    row |= {"run_id": run_id, "state": state, "cohort": "c", "inputs": json.dumps(inputs)}
    row |= {name: datetime.fromtimestamp(moment, UTC) for name in ("started_at", "finished_at")}
    commit_rows(store, RUNS, [row | changed])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    for key in ("old", "new", "never"):
        leave(store, key)
    say(store, "r1", ["old"])
    say(store, "r2", ["new"])
    return store


def left(store: Store) -> set[str]:
    """Keys of which anything is left."""
    paths = [p for f in ("stages", "pyramids", "parts", "regions") for p in store.list(f, recursive=True)]
    return {key for key in ("old", "new", "never") if any(f"-{key}" in path for path in paths)}


def test_what_the_last_run_names_stays_and_records_go_first(store: Store) -> None:
    found = find_unused(store, days=0)
    assert {each.path for each in found if "-old" in each.path} == {
        *rests_on("old"),
        "pyramids/pyramid-old",
        "parts/cells/cells-old",
        "regions/slide-old.zarr.zip",
    }
    kinds = [each.what for each in found]
    assert kinds[:8] == ["records"] * 8
    assert "records" not in kinds[8:]
    (pyramid,) = [each for each in found if each.path == "pyramids/pyramid-old"]
    assert (pyramid.objects, pyramid.size) == (2, 8)
    with held(store, "gc", "gc") as lease:
        remove(store, found, lease, lambda each: None)
    assert left(store) == {"new"}
    assert find_unused(store, days=0) == []


def test_a_folder_is_listed_by_paths_in_the_store_on_s3_as_on_disk(tmp_path: Path, s3: Bucket) -> None:
    for place in (tmp_path / "out", f"{s3.uri}/out"):
        store = Store(place)
        leave(store, "k")
        assert {each.path for each in walk_folder(store, "pyramids")} == {
            "pyramids/pyramid-k/zarr.json",
            "pyramids/pyramid-k/0/c/0",
        }
        assert [*walk_folder(store, "journal")] == []


def test_more_runs_and_what_was_written_lately_can_be_kept(store: Store) -> None:
    assert not any("-old" in each.path for each in find_unused(store, runs=2, days=0))
    assert find_unused(store, days=7) == []


def test_a_run_that_goes_on_keeps_what_it_names(store: Store) -> None:
    say(store, "r3", ["never"], state="running")
    assert not any("-never" in each.path for each in find_unused(store, days=0))
    assert any("-old" in each.path for each in find_unused(store, days=0))


def test_a_run_that_does_not_say_what_it_rests_on_is_refused(store: Store) -> None:
    say(store, "r4", [], inputs=json.dumps([{"slide_id": "s", "score_key": "k"}]))
    with pytest.raises(StoreError, match="Run the cohort once more"):
        find_unused(store, days=0)


def test_beside_a_run_nothing_is_removed(store: Store) -> None:
    with held(store, "r5"), pytest.raises(BusyError, match="r5"), held(store, "gc", "gc"):
        pass
    assert left(store) == {"old", "new", "never"}


def test_a_run_that_begins_meanwhile_waits_and_finds_records_only_of_what_is_there(store: Store) -> None:
    begun, seen = threading.Event(), []

    def run() -> None:
        begun.set()
        with held(store, "r6", patience_s=60):
            seen.extend(store.list("stages", recursive=True))
            seen.extend(store.list("pyramids"))

    beside = threading.Thread(target=run)
    removed = []
    with held(store, "gc", "gc") as lease:
        found = find_unused(store, days=0)

        def told(each: Any) -> None:
            removed.append(each.path)
            if not begun.is_set():
                beside.start()
                begun.wait()
            assert not seen

        remove(store, found, lease, told)
    beside.join()
    assert {path for path in seen if path.startswith("stages")} == set(rests_on("new"))
    assert [path for path in seen if path.startswith("pyramids")] == ["pyramids/pyramid-new"]
