"""A whole cohort as a user runs it: bad slides, exit codes, a SIGKILL in the middle, S3."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from flows.server import _embedded
from tests.conftest import Bucket
from tests.helpers import cohorts

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cohorts.write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def undisturbed(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Output of a run that nothing disturbed, and what it printed."""
    out = tmp_path_factory.mktemp("undisturbed")
    done = cohorts.her2(
        "run", str(manifest), "--out", str(out), "-c", str(manifest.parent / "config.yaml"), "--json"
    )
    assert done.returncode == 1, done.stderr
    return out, done.stdout


def test_one_bad_slide_costs_no_other(undisturbed: tuple[Path, str]) -> None:
    out, printed = undisturbed
    slides = cohorts.tables(str(out))["slides"]
    by_id = {row["slide_id"]: row for row in slides.to_dicts()}
    assert set(by_id) == {*cohorts.HEADLINES, *cohorts.BAD, *cohorts.EXCLUDED}
    for name, headline in cohorts.HEADLINES.items():
        row = by_id[name]
        assert (row["state"], row["score"] or row["ish_group"]) == ("scored", headline)
    for name, reason in cohorts.BAD.items():
        row = by_id[name]
        assert row["state"] == "quarantined"
        assert row["reasons"] == [reason]
        assert name in row["message"]
        assert row["score"] is None
    assert json.loads(printed)["states"] == {"scored": 5, "quarantined": 4, "skipped": 1}


def test_an_excluded_slide_is_never_opened_and_says_why(undisturbed: tuple[Path, str]) -> None:
    tables = cohorts.tables(str(undisturbed[0]))
    for name, why in cohorts.EXCLUDED.items():
        slide = tables["slides"].row(by_predicate=pl.col("slide_id") == name, named=True)
        assert (slide["state"], slide["reasons"], slide["identity"]) == ("skipped", ["excluded"], None)
        assert why in slide["message"]
        case = tables["cases"].row(by_predicate=pl.col("case_id") == f"case-{name}", named=True)
        assert (case["slides_skipped"], case["her2_status"]) == ([name], "Indeterminate")


def test_failed_slides_are_named_in_their_case_and_never_negative(undisturbed: tuple[Path, str]) -> None:
    cases = cohorts.tables(str(undisturbed[0]))["cases"]
    by_id = {row["case_id"]: row for row in cases.to_dicts()}
    for name in cohorts.BAD:
        row = by_id[f"case-{name}"]
        assert row["her2_status"] == "Indeterminate"
        assert row["slides_failed"] == [name]
        assert row["incomplete"]


def test_ish_decides_what_ihc_leaves_open(undisturbed: tuple[Path, str]) -> None:
    cases = {row["case_id"]: row for row in cohorts.tables(str(undisturbed[0]))["cases"].to_dicts()}
    two, null = cases["case-two"], cases["case-null"]
    assert (two["score"], two["ish_group"]) == ("2+", "1")
    assert (two["her2_status"], two["her2_class"]) == ("Positive", "pos_IHC2_ISHpos")
    assert (null["score"], null["ish_group"], null["her2_status"]) == ("0", "5", "Negative")


def test_lesions_of_a_patient_are_compared(undisturbed: tuple[Path, str]) -> None:
    """The 2+ primary and the 3+ metastasis of patient p; ISH of the primary alone."""
    tables = cohorts.tables(str(undisturbed[0]))
    slides = {row["slide_id"]: row for row in tables["slides"].to_dicts()}
    found = {row["metric"]: row for row in tables["patient_heterogeneity"].filter(patient_id="p").to_dicts()}
    change = found["metastasis_less_primary_p3_pct"]
    assert change["value"] == pytest.approx(slides["three"]["p3_pct"] - slides["two"]["p3_pct"])
    assert change["units"] == ["case-two/primary", "case-three/metastasis"]
    range_, eta2 = found["lesions_membrane_od_mean_range"], found["lesions_eta2_od"]
    ods = [slides[name]["membrane_od_mean"] for name in ("two", "three")]
    assert range_["value"] == pytest.approx(abs(ods[0] - ods[1]), abs=1e-6)
    assert 0 < eta2["value"] < 1
    assert (eta2["n"], eta2["n_cells"]) == (2, slides["two"]["n_scored"] + slides["three"]["n_scored"])
    assert eta2["low"] is None  # four hexagons a slide
    assert found["lesions_eta2_copies"]["status"] == "insufficient"
    assert found["lesions_eta2_copies"]["units"] == ["case-two/primary"]
    wide = tables["patient_heterogeneity_wide"].filter(patient_id="p")
    assert wide["lesions_eta2_od"].item() == eta2["value"]
    alone = tables["case_heterogeneity"].filter(case_id="case-three")
    assert set(alone["status"]) == {"insufficient"}
    assert set(alone.filter(pl.col("metric").str.starts_with("slides"))["units"].list.join("")) == {"three"}


def test_wide_tables_hold_every_value_of_the_tidy_ones(undisturbed: tuple[Path, str]) -> None:
    tables = cohorts.tables(str(undisturbed[0]))
    for tidy, wide, key in (
        ("heterogeneity", "heterogeneity_wide", "slide_id"),
        ("case_heterogeneity", "case_heterogeneity_wide", "case_id"),
        ("patient_heterogeneity", "patient_heterogeneity_wide", "patient_id"),
    ):
        rows = {row[key]: row for row in tables[wide].to_dicts()}
        assert len(rows) == len(tables[wide])
        for row in tables[tidy].to_dicts():
            size = row.get("scale_um")
            column = row["metric"] if size is None else f"{row['metric']}_{size:g}um"
            assert rows[row[key]][column] == row["value"]
            assert rows[row[key]][f"{column}_status"] == row["status"]


def test_ish_slides_say_what_marks_what(undisturbed: tuple[Path, str]) -> None:
    slides = cohorts.tables(str(undisturbed[0]))["slides"]
    probes = {row["slide_id"]: row["probes"] for row in slides.to_dicts()}
    assert probes["fish"] == ["DAPI=0", "HER2=1", "CEP17=2"]
    assert probes["dish"] == ["HER2=black", "CEP17=red"]
    assert probes["two"] is None


def test_the_run_says_what_it_did(undisturbed: tuple[Path, str]) -> None:
    out, _ = undisturbed
    (run,) = pl.read_delta(f"{out}/tables/runs").to_dicts()
    assert (run["state"], run["n_slides"], run["n_scored"]) == ("partial", 10, 5)
    assert (run["n_quarantined"], run["n_skipped"], run["n_failed"]) == (4, 1, 0)
    assert json.loads(run["configuration"])["pyramid"]["chunk"] == 256
    ids = {entry["slide_id"] for entry in json.loads(run["inputs"])}
    assert ids == {*cohorts.HEADLINES, *cohorts.BAD, *cohorts.EXCLUDED}
    tables = cohorts.tables(str(out))
    assert (run["n_cells"], run["n_nuclei"]) == (len(tables["cells"]), len(tables["nuclei"]))


def test_status_tells_scored_quarantined_and_skipped_apart(undisturbed: tuple[Path, str]) -> None:
    entries = cohorts.status(str(undisturbed[0]))
    assert {name: entry["state"] for name, entry in entries.items()} == {
        **dict.fromkeys(cohorts.HEADLINES, "scored"),
        **dict.fromkeys(cohorts.BAD, "quarantined"),
        **dict.fromkeys(cohorts.EXCLUDED, "skipped"),
    }
    assert entries["broken"]["reason"] == cohorts.BAD["broken"]
    assert (entries["broken"]["stage"], entries["two"]["stage"]) == ("inspect", "slide")


def test_every_scored_slide_has_a_picture(undisturbed: tuple[Path, str]) -> None:
    out, _ = undisturbed
    for row in cohorts.tables(str(out))["slides"].filter(pl.col("state") == "scored").to_dicts():
        for picture in (row["picture"], row["regions_picture"]):
            assert picture.endswith(".jpg")
            assert (out / picture).read_bytes()[:3] == b"\xff\xd8\xff"
    assert (out / "pictures/cohort.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_run_leaves_its_report(undisturbed: tuple[Path, str]) -> None:
    out, said = undisturbed
    page = out / json.loads(said)["report"]
    assert "Research use only" in page.read_text()
    received, readable, scored, _ = csv.DictReader(
        (page.parent / "data" / "funnel.csv").read_text().splitlines()
    )
    assert (received["slides"], readable["slides"], scored["slides"]) == ("10", "5", "5")


@pytest.fixture(scope="module")
def killed(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run over two slides that was ended twice: by Ctrl-C, as a terminal sends it to the whole
    process group, while pyramids are written; then by SIGKILL for the driver and its workers while cells are
    measured."""
    folder = tmp_path_factory.mktemp("killed")
    out, log = folder / "out", folder / "log"
    early = cohorts.write_manifest(manifest.parent / "early.csv", "two", "three")
    words = ["run", str(early), "--out", str(out), "-c", str(manifest.parent / "config.yaml")]
    code = cohorts.run_and_signal(words, lambda: any(out.glob("pyramids/*/0/c/*")), log, signal.SIGINT)
    assert code == 130
    assert log.read_text().splitlines()[-1] == "interrupted; run the same command again to resume"
    assert "Traceback" not in log.read_text()
    states = {entry["state"] for entry in cohorts.status(str(out)).values()}
    assert "interrupted" in states
    assert "running" not in states

    ended = (words, lambda: any(out.glob("parts/cells/*/*.parquet")), log, signal.SIGKILL)
    assert cohorts.run_and_signal(*ended) == -signal.SIGKILL
    assert "running" not in {entry["state"] for entry in cohorts.status(str(out)).values()}
    assert any(path.startswith("parts") for path in cohorts.published(out))
    assert sorted(pl.read_delta(f"{out}/tables/runs")["state"]) == ["interrupted", "running"]
    return out


@pytest.fixture(scope="module")
def prefect() -> Iterator[None]:
    """One Prefect server for the runs that follow; those before hold that a run starts and ends its own."""
    with _embedded() as (address, wait), pytest.MonkeyPatch.context() as patch:
        wait()
        patch.setenv("PREFECT_API_URL", address)
        yield


@dataclass(frozen=True)
class Grown:
    """Output of the run that was killed after it was resumed, and then of one over the whole cohort."""

    out: Path
    early: dict[str, pl.DataFrame]
    kept: dict[str, tuple[int, int]]
    """Tables, and what was published, before the second."""


@pytest.fixture(scope="module")
def grown(manifest: Path, killed: Path, prefect: None) -> Grown:
    """Nothing published is made again."""
    how = ["--out", str(killed), "-c", str(manifest.parent / "config.yaml")]
    before = cohorts.published(killed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HER2_RUN__WORKERS", "1")
        done = cohorts.her2("run", str(manifest.parent / "early.csv"), *how)
    assert done.returncode == 0, done.stderr
    kept = cohorts.published(killed)
    assert before.items() <= kept.items()
    assert not [*(killed / ".her2-tmp").iterdir(), *(killed / "heartbeats").iterdir()]
    states = sorted(pl.read_delta(f"{killed}/tables/runs")["state"])
    assert states == ["complete", "interrupted", "interrupted"]

    found = Grown(killed, cohorts.tables(str(killed)), kept)
    done = cohorts.her2("run", str(manifest), *how)
    assert done.returncode == 1, done.stderr
    return found


def test_an_interrupted_and_then_killed_run_resumes_and_gives_the_same_tables(
    undisturbed: tuple[Path, str], grown: Grown
) -> None:
    """Of its two slides at its end, and of the whole cohort after the run that took in the others too."""
    whole, last = cohorts.tables(str(undisturbed[0])), cohorts.tables(str(grown.out))
    for name, table in whole.items():
        assert_frame_equal(last[name], table, check_exact=True)
        if "slide_id" in table.columns:
            own = table.filter(pl.col("slide_id").is_in(["two", "three"]))
            assert_frame_equal(grown.early[name], own, check_exact=True)


def test_late_slides_change_their_cases_and_nothing_else(grown: Grown) -> None:
    """Case two, which has IHC, gets ISH; case three gets nothing; the others are new."""
    before, after = grown.early, cohorts.tables(str(grown.out))
    assert grown.kept.items() <= cohorts.published(grown.out).items()
    for name in ("cells", "slides", "heterogeneity", "heterogeneity_wide"):
        same = after[name].filter(pl.col("slide_id").is_in(["two", "three"]))
        assert_frame_equal(same, before[name], check_exact=True)
    other = pl.col("case_id") == "case-three"
    for name in ("cases", "case_heterogeneity", "case_heterogeneity_wide"):
        assert_frame_equal(after[name].filter(other), before[name].filter(other), check_exact=True)
    status = {name: t.filter(case_id="case-two")["her2_status"].item() for name, t in
              (("before", before["cases"]), ("after", after["cases"]))}  # fmt: skip
    assert status == {"before": "Equivocal", "after": "Positive"}


def test_running_again_does_nothing_and_doubles_nothing(
    manifest: Path, undisturbed: tuple[Path, str], prefect: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HER2_RUN__WORKERS", "1")
    out, _ = undisturbed
    before, tables = cohorts.published(out), cohorts.tables(str(out))
    config = str(manifest.parent / "config.yaml")
    done = cohorts.her2("run", str(manifest), "--out", str(out), "-c", config)
    assert done.returncode == 1, done.stderr
    assert cohorts.published(out) == before
    for name, table in cohorts.tables(str(out)).items():
        assert_frame_equal(table, tables[name], check_exact=True)
    assert len(pl.read_delta(f"{out}/tables/runs")) == 2


def test_the_whole_run_on_s3(
    manifest: Path, undisturbed: tuple[Path, str], prefect: None, s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slides, manifest, configuration and results in a bucket of a real S3 server; cells as on a folder."""
    from her2core.storage.s3 import s3_filesystem

    fs = s3_filesystem(s3.endpoint_url)
    for path in manifest.parent.iterdir():
        fs.put_file(str(path), f"{s3.uri}/in/{path.name}")
    out = f"{s3.uri}/out"
    monkeypatch.setenv("HER2_RUN__WORKERS", "1")  # the answer does not depend on them either
    done = cohorts.her2("run", f"{s3.uri}/in/manifest.csv", "--out", out, "-c", f"{s3.uri}/in/config.yaml")
    assert done.returncode == 1, done.stderr
    options = {"aws_endpoint_url": s3.endpoint_url, "aws_allow_http": "true", "aws_region": "us-east-1"}
    there, here = cohorts.tables(out, options), cohorts.tables(str(undisturbed[0]))
    for name in ("cells", "nuclei"):
        assert_frame_equal(there[name], here[name], check_exact=True)
    same = ["slide_id", "state", "score", "h_score", "n0", "n1", "n2", "n2u", "n3", "reasons"]
    same += ["ish_group", "ish_ratio", "ish_ratio_low", "n_ish"]
    assert_frame_equal(there["slides"].select(same), here["slides"].select(same), check_exact=True)
    assert cohorts.status(out)["three"]["state"] == "scored"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["run", "no-such.csv", "--out", "{tmp}/out"], 2, "no-such.csv"),
        (["run", "{manifest}", "--out", "{tmp}/out", "--cluster", "nowhere"], 2, "nowhere"),
        (["run", "{manifest}", "--out", "ftp://x/y"], 3, "ftp://x/y"),
        (["run", "{manifest}", "--out", "{tmp}/out", "-c", "{tmp}/bad.yaml"], 2, "strong_odd"),
        (["status", "{tmp}/nothing"], 2, "no run"),
        (["inspect", "{broken}"], 1, "file_truncated"),
    ],
)
def test_bad_input_ends_with_its_code_and_says_why(
    manifest: Path, tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    (tmp_path / "bad.yaml").write_text("score: {strong_odd: 0.5}\n")
    names = {"tmp": str(tmp_path), "manifest": str(manifest), "broken": str(manifest.parent / "broken.tif")}
    done = cohorts.her2_here(*(word.format(**names) for word in words))
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_plan_counts_without_reading_pixels(manifest: Path, undisturbed: tuple[Path, str]) -> None:
    done = cohorts.her2_here("plan", str(manifest), "-c", str(manifest.parent / "config.yaml"), "--json")
    assert done.returncode == 1  # four slides have problems
    slides = {slide["slide_id"]: slide for slide in json.loads(done.stdout)["slides"]}
    assert slides["two"]["tasks"] == 1
    assert slides["two"]["objects"] == 4 + 1 + 2 + 1  # levels 0 and 2, their metadata, the group's
    scored = cohorts.tables(str(undisturbed[0]))["slides"].filter(slide_id="two").to_dicts()
    pyramid = undisturbed[0] / scored[0]["pyramid"]
    files = [path for path in pyramid.rglob("*") if path.is_file() and "labels" not in path.parts]
    assert len(files) == slides["two"]["objects"]
    assert "file_missing" in slides["missing"]["problem"]
    assert (slides["unused"]["excluded"], slides["unused"]["problem"]) == ("wrong block", "")
