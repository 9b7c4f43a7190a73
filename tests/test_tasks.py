"""A slide's tasks as workers run them: in any number of shares, once, and again where they were cut off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from her2core.config import Config, load_config
from her2core.phantom import PhantomSpec, plant
from her2core.phantom.slides import write_slide
from her2core.records import Assay, CellsRef, SlideRow
from her2core.stages import cells, tasks
from her2core.stages.contours import outlines_by_part
from her2core.stages.finished import SlideFinished
from her2core.stages.tasks import Share, SlideWork
from her2core.storage.store import Store, record_of

SMALL = {
    "HER2_PYRAMID__CODEC": "zstd",  # a task a shard; copied tiles go in blocks of shards
    "HER2_PYRAMID__CHUNK": "256",
    "HER2_PYRAMID__SHARD": "512",
    "HER2_HETEROGENEITY__REPLICATES": "99",
    "HER2_HETEROGENEITY__PERMUTATIONS": "99",
    "HER2_HETEROGENEITY__BIOPSIES": "99",
}


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(environment=SMALL)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> SlideRow:
    """A slide of 2 x 3 shards."""
    path = tmp_path_factory.mktemp("slides") / "s1.tif"
    write_slide(path, plant(PhantomSpec(seed=4, height_px=900, width_px=1200, mix=(0.2, 0.2, 0.2, 0.2, 0.2))))
    return SlideRow("s1", "c1", str(path), Assay.IHC)


def carry_out(work: SlideWork, count: int) -> SlideFinished:
    """Every task of a slide, its stages in ``count`` shares, the last share first."""
    found = tasks.inspect(work)
    assert found.finished is None
    shares = [Share(number, count) for number in reversed(range(count))]
    to = (work.store, found.source, f"pyramids/{found.keys.pyramid}", found.settled)
    assert sum(tasks.convert(*to, share) for share in shares) == found.blocks == found.shards == 6
    ref = tasks.finish_pyramid(*to, found.keys.pyramid).record
    frozen = tasks.profile(work, ref, found.keys.profile).record
    given = (work.store, ref, frozen, work.kernel, found.keys.cells, None, None)
    measured = tasks.publish_cells(
        work.store, found.keys.cells, [tasks.measure(*given, share) for share in shares]
    )
    key, made = tasks.finish(work, found.source.info, ref, frozen, measured.record, None, found.keys.cells)
    assert key == found.keys.slide
    return made.record


def test_any_number_of_shares_gives_the_same_result_and_what_is_published_is_found(
    slide: SlideRow, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {}
    for count in (1, 4):
        work = SlideWork(Store(tmp_path / str(count)), config, slide, slide)
        made[count] = carry_out(work, count)
    one, four = made[1], made[4]
    assert replace(one, outcome=four.outcome) == replace(four, outcome=four.outcome)
    assert one.outcome.score == four.outcome.score
    assert one.cells is not None
    rows = [pq.read_table(tmp_path / str(count) / "tables/cells" / one.cells.path) for count in made]
    assert rows[0].equals(rows[1])

    again = tasks.inspect(work)
    assert again.finished == four
    store, keys = work.store, again.keys
    store.delete(record_of("slide", keys.slide))
    found = tasks.inspect(work)
    assert (found.finished, found.keys) == (None, keys)
    assert found.pyramid == four.outcome.pyramid
    assert found.profile == four.outcome.profile
    assert isinstance(found.cells, CellsRef)
    assert found.cells.cells == one.cells.rows

    # A share that was cut off takes up what is there: a part that is published is counted and not measured.
    assert found.pyramid is not None
    assert found.profile is not None
    measured: list[str] = []
    rows_in = cells._rows_in
    monkeypatch.setattr(
        cells, "_rows_in", lambda look, *rest: measured.append(look.unit.part) or rows_in(look, *rest)
    )
    store.delete(found.cells.parts[0])
    given = (store, found.pyramid, found.profile, work.kernel, keys.cells, None, None)
    counted = tasks.measure(*given, Share(0, 1))
    assert measured == [found.cells.parts[0]] * 2  # work units, from left to right
    assert (tuple(sorted(counted.parts)), counted.rows) == (found.cells.parts, found.cells.cells)

    # Outlines that are kept later lie beside the cells, which stay: every unit is looked at once more.
    settings = load_config(environment=SMALL | {"HER2_OUTLINES__KEEP": "all"})
    later = tasks.inspect(SlideWork(store, settings, slide, slide))
    assert (later.keys.cells, later.cells, later.finished) == (keys.cells, found.cells, None)
    assert later.keys.slide != keys.slide
    assert later.keys.contours is not None
    before = [store.read_bytes(part) for part in found.cells.parts]
    measured.clear()
    looked = tasks.measure(*given[:-1], later.keys.contours, Share(0, 1))
    assert sorted(measured) == [part for part in found.cells.parts for _ in range(2)]
    assert [store.read_bytes(part) for part in found.cells.parts] == before
    outlined = tasks.publish_contours(store, later.keys.contours, [looked]).record
    assert sum(len(part) for part in outlines_by_part(store, outlined)) == found.cells.cells
    assert tasks.inspect(SlideWork(store, settings, slide, slide)).contours == outlined


def test_a_share_of_shards_that_are_there_opens_nothing(
    slide: SlideRow, config: Config, tmp_path: Path
) -> None:
    work = SlideWork(Store(tmp_path), config, slide, slide)
    found = tasks.inspect(work)
    to = (work.store, found.source, "pyramids/p", found.settled)
    tasks.convert(*to, Share(0, 2))
    written = set(work.store.list("pyramids/p/0", recursive=True))
    assert len(written) == 3
    gone = replace(found.source, info=replace(found.source.info, uri="/nowhere/s1.tif"))
    assert tasks.convert(work.store, gone, "pyramids/p", found.settled, Share(0, 2)) == 3
    assert set(work.store.list("pyramids/p/0", recursive=True)) == written
