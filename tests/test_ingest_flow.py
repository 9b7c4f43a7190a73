"""The ingest flow ends by starting the cohort flow for what no run has seen, and for nothing else."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import ingest as flow_module
from her2core.intake.marker import Marker
from her2core.stages.run import open_run
from her2core.storage.store import Store
from tests import test_publish
from tests.conftest import ROOT, Bucket
from tests.test_ingest import write_slide
from tests.test_publish import quick, result

__all__ = ["quick"]

RULE = r"(?P<case_id>B\d+)-(?P<block_id>[A-Z]\d)_(?P<assay>HER2|FISH)"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Parameters of the cohort runs that were started."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(
        flow_module, "run_deployment", lambda name, parameters, timeout: found.append(parameters)
    )
    monkeypatch.setattr(flow_module, "create_table_artifact", lambda *_, **__: None)
    return found


def look(folder: Path, **given: Any) -> str:
    """The flow's last word."""
    state = flow_module.ingest_slides.fn(
        str(folder / "slides"),
        str(folder / "manifest.csv"),
        str(folder / "out"),
        rule=RULE,
        settle_s=0,
        deployment="her2-cohort/nightly",
        **given,
    )
    return str(state.message)


def score(folder: Path) -> None:
    """What the cohort flow would do, with results made up."""
    run = open_run(str(folder / "manifest.csv"), str(folder / "out"))
    publisher = test_publish.Publisher(run)
    for row in run.rows:
        made = result(run.store, row)
        info = made.outcome.info
        assert info is not None
        known = test_publish.replace(info, identity=run.identities[row.slide_id])
        outcome = test_publish.replace(made.outcome, info=known)
        publisher.add(test_publish.replace(made, outcome=outcome))
    publisher.finish()


def test_what_is_new_starts_a_run_once(tmp_path: Path, started: list[dict[str, Any]]) -> None:
    (tmp_path / "slides").mkdir()
    assert "the manifest is empty" in look(tmp_path)
    write_slide(tmp_path / "slides" / "B1-A1_HER2.tif", 1)
    assert "1 slide to score: her2-cohort/nightly started" in look(tmp_path)
    (parameters,) = started
    assert (parameters["new_only"], parameters["only"]) == (True, [])
    assert "1 slide to score" in look(tmp_path)  # that run has not come to its end
    score(tmp_path)
    assert "nothing to score" in look(tmp_path)
    write_slide(tmp_path / "slides" / "B2-A1_HER2.tif", 2)
    assert "1 slide to score" in look(tmp_path)
    assert len(started) == 3


def test_a_marker_says_when_to_look(tmp_path: Path, started: list[dict[str, Any]]) -> None:
    write_slide(tmp_path / "slides" / "B1-A1_HER2.tif", 1)
    marker = tmp_path / "slides" / "READY"
    assert "no marker" in look(tmp_path, marker=str(marker))
    assert started == []
    marker.touch()
    assert "1 slide to score" in look(tmp_path, marker=str(marker))
    assert not marker.exists()


def test_a_marker_that_is_written_again_meanwhile_stays(tmp_path: Path, s3: Bucket) -> None:
    for folder in (str(tmp_path), s3.uri):
        marker, store = Marker(f"{folder}/READY"), Store(folder)
        assert not marker.is_there()
        store.write_bytes("READY", b"1")
        assert marker.is_there()
        store.write_bytes("READY", b"2")
        assert not marker.clear()
        assert marker.is_there()
        assert marker.clear()
        assert not marker.is_there()


def test_the_deployment_names_the_flow_s_parameters() -> None:
    text = (ROOT / "deploy" / "prefect.yaml").read_text()
    (deployment,) = [d for d in yaml.safe_load(text)["deployments"] if d["name"] == "ingest"]
    assert set(deployment["parameters"]) == set(inspect.signature(flow_module.ingest_slides.fn).parameters)
    assert deployment["entrypoint"] == "flows.ingest.ingest_slides"


def test_no_deployment_drops_the_run_that_ingest_asks_for() -> None:
    found = yaml.safe_load((ROOT / "deploy" / "prefect.yaml").read_text())["deployments"]
    limits = {d["name"]: d["concurrency_limit"] for d in found}
    assert limits.keys() == {"nightly", "ingest"}
    assert all(limit == {"limit": 1, "collision_strategy": "ENQUEUE"} for limit in limits.values())
