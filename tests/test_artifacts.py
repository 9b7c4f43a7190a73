"""What Prefect is given to show stays small, links to every picture, and tells of the unscored first."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prefect.states import Completed, Failed

from flows import artifacts, cohort
from her2core.cohort import CohortSummary
from her2core.config import Config, RunSettings
from her2core.publish import PICTURE
from her2core.stages.names import Names
from her2core.stages.run import Run
from her2core.storage.store import Store


@pytest.fixture
def run(tmp_path: Path) -> Run:
    store = Store(str(tmp_path / "out"))
    store.write_bytes(PICTURE, b"the picture")
    return Run("r1", "2026-11-22", "m.csv", "00", (), store, Config())


def row(slide_id: str, state: str = "scored", **more: Any) -> dict[str, Any]:
    known = {"slide_id": slide_id, "state": state, "assay": "HER2-IHC", "score": None, "ish_group": None}
    known |= {
        "picture": None,
        "regions_picture": None,
        "fields_picture": None,
        "pyramid_bytes": None,
        "source_bytes": None,
    }
    return known | more


def summary(run: Run, *rows: dict[str, Any]) -> CohortSummary:
    return CohortSummary(run.run_id, run.store.uri(), rows, ())


def test_the_page_shows_the_cohort_and_links_to_every_slide(run: Run) -> None:
    three = row(
        "three", score="3+", picture="pictures/three.png", regions_picture="pictures/maps of three.png"
    )
    fish = row("fish", ish_group="1", picture="pictures/fish.png")
    page = artifacts.pictures_page(run, summary(run, three, fish, row("lost", "quarantined")))
    assert f"](data:image/png;base64,{base64.b64encode(b'the picture').decode()})" in page
    place = f"file://{run.store.uri('pictures')}"
    assert (
        f"| 3+ | [three.png]({place}/three.png) | [maps of three.png]({place}/maps%20of%20three.png) |"
        in page
    )
    assert f"| ISH group 1 | [fish.png]({place}/fish.png) | – |" in page
    assert "| quarantined | – | – |" in page


def test_a_large_picture_is_only_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "MOST_BYTES", 10)
    page = artifacts.pictures_page(run, summary(run, row("one")))
    assert "base64" not in page
    assert f"[cohort.png](file://{run.store.uri(PICTURE)})" in page


def test_of_many_slides_the_unscored_are_shown_and_the_rest_left_to_the_tables(run: Run) -> None:
    many = [row(f"s{i}", score="0") for i in range(artifacts.MOST_ROWS)]
    found = artifacts.listed(summary(run, *many, row("lost", "failed")))
    assert len(found) == artifacts.MOST_ROWS
    assert found[0]["slide_id"] == "lost"


def test_the_page_names_the_report_first(run: Run) -> None:
    told = replace(summary(run, row("one")), report="report/r1/her2-report-r1.html")
    page = artifacts.pictures_page(run, told)
    link = f"Report: [her2-report-r1.html](file://{run.store.uri('report')}/r1/her2-report-r1.html)"
    assert page.index(link) < page.index("every specimen")


@pytest.mark.parametrize(
    ("out", "endpoint", "browse_url", "address"),
    [
        ("/a b/out", None, None, "file:///a%20b/out/report/r%20%231.html"),
        ("s3://bucket/out", "http://host:9000", None, "http://host:9000/bucket/out/report/r%20%231.html"),
        (
            "s3://bucket/out",
            None,
            None,
            "https://console.aws.amazon.com/s3/object/bucket?prefix=out/report/r%20%231.html",
        ),
        ("s3://bucket/out", None, "https://see.org/her2/", "https://see.org/her2/report/r%20%231.html"),
    ],
)
def test_links_are_addresses_that_a_browser_opens(
    out: str, endpoint: str | None, browse_url: str | None, address: str
) -> None:
    config = Config(run=RunSettings(browse_url=browse_url))
    found = Run("r1", "2026-11-22", "m.csv", "00", (), Store(out, endpoint_url=endpoint), config)
    assert artifacts.address(found, "report/r #1.html") == address


def test_pseudonyms_keep_folders_out_of_links_but_for_an_address_that_somebody_gave(run: Run) -> None:
    hidden = replace(run, names=Names({"m.csv": "file-1.csv"}))
    assert artifacts.address(hidden, PICTURE) is None
    given = replace(hidden, config=Config(run=RunSettings(browse_url="https://see.org")))
    assert artifacts.address(given, PICTURE) == f"https://see.org/{PICTURE}"


def test_an_address_for_browsers_carries_no_credentials() -> None:
    with pytest.raises(ValueError, match="browse_url carries a query"):
        RunSettings(browse_url="https://see.org/?token=1")


def test_prefect_links_the_report_that_was_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, dict[str, Any]] = {}
    for kind in ("link", "markdown", "table"):
        monkeypatch.setattr(
            artifacts, f"create_{kind}_artifact", lambda key, **given: made.update({key: given})
        )
    artifacts.show_cohort(run, replace(summary(run), report="report/r1/page.html"))
    link = f"file://{run.store.uri('report/r1/page.html')}"
    assert made[artifacts.REPORT]["link"] == link
    assert (
        f"paste {link} there" in made[artifacts.REPORT]["description"]
    )  # no browser follows it from a server
    assert artifacts.how_to_open("https://see.org/page.html") == ""
    del made[artifacts.REPORT]
    artifacts.show_cohort(run, summary(run))
    assert artifacts.REPORT not in made


def test_a_report_that_cannot_be_written_costs_no_result(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    states = [Failed(message="no space"), Completed(data="report/r1/page.html")]
    monkeypatch.setattr(cohort, "report", lambda _, return_state: states.pop(0))
    whole = summary(run, row("one"))
    assert cohort._reported(run, whole) is whole
    assert "her2 report writes it again" in caplog.text
    assert cohort._reported(run, whole).report == "report/r1/page.html"
    without = replace(run, config=Config(run=RunSettings(report=False)))
    assert cohort._reported(without, whole) is whole  # and nothing is asked
