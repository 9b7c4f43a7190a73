"""What changed between two runs: every result, and nothing that did not."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from her2core.errors import ConfigError
from her2core.report.compare import comparison_tables, write_comparison
from her2core.report.run_tables import read_run
from her2core.storage.store import Store
from tests.helpers.report_run import FOLDER, Row, slide, specimen, unscored, write_run

STATUS = "status, class, IHC"
LATER = "20270102T030405Z-abcdef"


def equivocal(name: str) -> tuple[Row, Row]:
    """A slide and its specimen that wait for ISH."""
    row = slide(name, score="2+", her2_class="equivocal_2plus", membrane_od_mean=0.3)
    return row, specimen([row], her2_status="Equivocal", her2_class="equivocal")


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Store, Store]:
    """A run, and a later one in which a slide rose, one was lost, one went and one came."""
    before, after = Store(tmp_path / "before"), Store(tmp_path / "after")
    same, (rose, rising) = slide("same"), equivocal("rose")
    old = [same, rose, slide("lost"), slide("gone")]
    setting = {"score": {"detect_od": 0.1}, "run": {"workers": 1}}
    write_run(
        before,
        old,
        [specimen([same]), rising, specimen(old[2:3]), specimen(old[3:])],
        configuration=json.dumps(setting),
    )
    new = [
        same,
        slide("rose", membrane_od_mean=0.5),
        unscored("lost", "quarantined", "not_a_slide"),
        slide("new"),
    ]
    lost = specimen(new[2:3], her2_status="Indeterminate", her2_class="indeterminate")
    setting = {"ihc_score": {"detect_od": 0.2}, "run": {"workers": 8}}
    write_run(
        after,
        new,
        [specimen([same]), specimen(new[1:2]), lost, specimen(new[3:])],
        run_id=LATER,
        configuration=json.dumps(setting),
    )
    return before, after


def test_every_result_that_changed_is_named_with_both_and_no_other(runs: tuple[Store, Store]) -> None:
    found = comparison_tables(*map(read_run, runs))
    assert [tuple(row.values()) for row in found["changes"].to_pylist()] == [
        ("slide", "gone", "gone", "positive, IHC 3+", None),
        ("slide", "lost", "state, class, IHC", "positive, IHC 3+", "unreadable"),
        ("slide", "new", "new", None, "positive, IHC 3+"),
        ("slide", "rose", "class, IHC", "equivocal, IHC 2+", "positive, IHC 3+"),
        ("specimen", "case-gone", "gone", "Positive, positive, IHC 3+", None),
        ("specimen", "case-lost", STATUS, "Positive, positive, IHC 3+", "Indeterminate, indeterminate"),
        ("specimen", "case-new", "new", None, "Positive, positive, IHC 3+"),
        ("specimen", "case-rose", STATUS, "Equivocal, equivocal, IHC 2+", "Positive, positive, IHC 3+"),
    ]  # fmt: skip
    assert found["transitions"].to_pylist() == [
        {"before": "pos_IHC3", "after": "pos_IHC3", "specimens": 1},
        {"before": "pos_IHC3", "after": "indeterminate", "specimens": 1},
        {"before": "equivocal", "after": "pos_IHC3", "specimens": 1},
    ]


def test_measures_settings_and_distributions_stand_side_by_side(runs: tuple[Store, Store]) -> None:
    found = comparison_tables(*map(read_run, runs))
    less = {row["slide_id"]: row["membrane_od_mean"] for row in found["numbers"].to_pylist()}
    assert less == {"same": 0.0, "rose": pytest.approx(0.2), "lost": None}
    assert found["settings"].to_pylist() == [
        {"kind": "setting", "name": "ihc_score.detect_od", "before": "0.1", "after": "0.2"}
    ]
    rows = [row for row in found["distributions"].to_pylist() if row["of"] == "slides"]
    reached = {row["value"]: (row["before"], row["after"]) for row in rows}
    assert reached == {"received": (0, 1), "scored": (1, 0), "called": (3, 3)}


def test_the_page_holds_both_runs_and_no_address(runs: tuple[Store, Store]) -> None:
    made = write_comparison((runs[0], None), (runs[1], LATER))
    assert (made.slides_changed, made.specimens_changed) == (4, 4)
    page = Path(made.uri)
    assert page.name == f"her2-compare-20260102T030405Z-abcdef-{LATER}.html"
    assert FOLDER not in page.read_text()
    filed = csv.DictReader(io.StringIO((page.parent / "data" / "changes.csv").read_text()))
    assert len(list(filed)) == 8
    with pytest.raises(ConfigError, match="holds no finished run 2020"):
        write_comparison((runs[0], "2020"), (runs[1], None))


def test_two_runs_alike_have_nothing_to_show(runs: tuple[Store, Store]) -> None:
    found = comparison_tables(read_run(runs[0]), read_run(runs[0]))
    assert (len(found["changes"]), len(found["settings"])) == (0, 0)
    assert {row["membrane_od_mean"] for row in found["numbers"].to_pylist()} == {0.0}
