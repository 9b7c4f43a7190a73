"""A laboratory's own tumour model: learned from drawn regions and tables, judged, stored, named, applied."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from numpy.typing import NDArray
from pydantic import TypeAdapter
from typer.testing import CliRunner

import her2cli
from her2core.config import Config, load_config
from her2core.errors import ConfigError, Her2Error, ManifestError, SlideError
from her2core.intake.roi.classes import tissues
from her2core.intake.roi.geojson import read_geojson
from her2core.lake.batches import commit_files
from her2core.lake.schema import CELLS, SLIDES
from her2core.lake.slide_files import write_slide_file
from her2core.lake.tables import commit_rows
from her2core.params import RoiParams, ScoreParams
from her2core.records import StainProfile
from her2core.report.compare import setting_changes
from her2core.scoring.tumour import FROM_CELLS, choose_tumour, load_model
from her2core.storage.store import Store, content_key
from tests.conftest import Bucket
from tests.helpers.report_run import blank
from tests.test_tumour import MPP, STAIN

SIDE_PX = 1600
SLIDES_DRAWN = ("s1", "s2", "s3")

Columns = dict[str, NDArray[Any]]


def planted(seed: int) -> tuple[Columns, NDArray[np.bool_]]:
    """Unstained cells, those on the left tumour: small nuclei amid gaps, which the shipped model drops."""
    rng = np.random.default_rng(seed)
    n = 1200
    y, x = np.sort(rng.integers(0, SIDE_PX * 16, n)) / 16, rng.uniform(0, SIDE_PX, n)
    tumour = x < SIDE_PX / 2

    def numbers(of_tumour: float, of_other: float, spread: float) -> NDArray[np.float32]:
        return np.asarray(rng.normal(np.where(tumour, of_tumour, of_other), spread), np.float32)

    found: Columns = {
        "y_px0": y,
        "x_px0": x,
        "nucleus_area_um2": np.maximum(numbers(24, 38, 5), 8),
        "nucleus_elongation": np.maximum(numbers(1.3, 1.5, 0.2), 1),
        "nucleus_od": numbers(0.25, 0.25, 0.03),
        "nucleus_contrast": numbers(0.2, 0.15, 0.03),
        "cell_area_um2": np.maximum(numbers(90, 90, 15), 20),
        "evaluable_fraction": np.clip(numbers(0.9, 0.9, 0.05), 0, 1),
        "nucleus_texture_od": np.maximum(numbers(0.07, 0.07, 0.02), 0),
        "clear_rim_fraction": np.clip(numbers(0.5, 0.1, 0.1), 0, 1),
        "clear_around_fraction": np.clip(numbers(0.4, 0.1, 0.1), 0, 1),
        "fibre_alignment": numbers(0.0, 0.0, 0.1),
        "bare_fraction": np.clip(numbers(0.5, 0.1, 0.1), 0, 1),
    }
    return found, tumour


def as_table(slide_id: str, columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    n = len(columns["y_px0"])
    y16 = np.rint(columns["y_px0"] * 16).astype(np.int64)
    own: dict[str, Any] = dict(columns) | {
        "slide_id": pa.repeat(slide_id, n),
        "cell_id": y16 * 2**32 + np.arange(n),
        "cell_class": pa.repeat("0", n),
    }
    empty = {"string": "", "bool": False}
    for column in CELLS.columns:
        own.setdefault(column.name, pa.repeat(pa.scalar(empty.get(str(column.type), 0), column.type), n))
    return pa.table({c.name: own[c.name] for c in CELLS.columns}).cast(CELLS.schema)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables and records of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    store, files, slides = Store(folder), [], []
    stain = {"outcome": {"profile": {"stain": TypeAdapter(StainProfile).dump_python(STAIN, mode="json")}}}
    for number, slide_id in enumerate(SLIDES_DRAWN):
        files.append(write_slide_file(store, CELLS, f"k{number}", [as_table(slide_id, planted(number)[0])]))
        store.write_bytes(f"stages/slide/k{number}.json", json.dumps(stain).encode())
        own = {"mpp": MPP, "height_px0": SIDE_PX, "width_px0": SIDE_PX, "score_key": f"k{number}"}
        slides.append(
            blank(SLIDES, slide_id=slide_id, case_id=slide_id, assay="HER2-IHC", state="scored", **own)
        )
    commit_files(store, CELLS, [file for file in files if file], SLIDES_DRAWN)
    commit_rows(store, SLIDES, slides)
    return folder


def feature(name: str, x0: float, x1: float, y0: float = 0, y1: float = SIDE_PX) -> dict[str, Any]:
    corners = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "properties": {"classification": {"name": name}},
    }


TUMOUR, STROMA = feature("Tumor", 0, 700), feature("Stroma", 900, SIDE_PX)


def manifest(
    folder: Path,
    drawn: Sequence[dict[str, Any]] = (TUMOUR, STROMA),
    slides: Sequence[str] = SLIDES_DRAWN,
    patients: Sequence[str] = ("p1", "p2", "p3"),
) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "drawn.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": list(drawn)}))
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("slide_id", "case_id", "patient_id", "uri", "assay", "roi_uri"))
        for slide_id, patient in zip(slides, patients, strict=False):
            writer.writerow((slide_id, slide_id, patient, f"{slide_id}.tif", "HER2-IHC", "drawn.geojson"))
    return str(folder / "manifest.csv")


def learn(manifest_uri: str, run: Path, out: Path | str, *more: str) -> str:
    words = ("learn-tumour", manifest_uri, "--run", str(run), "--out", str(out), *more)
    result = CliRunner().invoke(her2cli.app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def named(folder: Path, model: Path | str) -> Config:
    (folder / "config.yaml").write_text(json.dumps({"score": {"tumour_model": str(model)}}))
    return load_config(str(folder / "config.yaml"), environment={})


@pytest.fixture(scope="module")
def own(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A model that was learned, and what was printed."""
    folder = tmp_path_factory.mktemp("own")
    return folder / "lab.json", learn(manifest(folder), run, folder / "lab.json")


def test_a_model_is_judged_on_slides_that_it_was_not_learned_from(own: tuple[Path, str]) -> None:
    path, shown = own
    stored = json.loads(path.read_text())
    found, shipped = stored["learned"]["cross_validation"], stored["learned"]["shipped_model"]
    assert found["balanced_accuracy"] > 0.95
    assert shipped["balanced_accuracy"] < 0.3
    assert [slide["slide_id"] for slide in found["slides"]] == list(SLIDES_DRAWN)
    total = found["all"]
    drawn = {0: 0, 1: 0}
    for seed in range(3):
        x = planted(seed)[0]["x_px0"]
        y = planted(seed)[0]["y_px0"]
        inner = (y > 10) & (y < SIDE_PX - 10.5)  # 2.5 µm from the line; pixel centres at integers
        drawn[1] += int((inner & (x + 0.5 < 690) & (x + 0.5 > 10)).sum())
        drawn[0] += int((inner & (x + 0.5 > 910) & (x + 0.5 < SIDE_PX - 10)).sum())
    assert total["tumour_chosen"] + total["tumour_dropped"] == pytest.approx(drawn[1], abs=4)
    assert total["other_chosen"] + total["other_dropped"] == pytest.approx(drawn[0], abs=4)
    assert (stored["name"], stored["version"]) == ("lab", 1)
    assert f"{total['tumour_chosen']}" in shown
    assert "lab, each patient left out" in shown
    assert "as well or better" not in shown


def test_cells_of_a_slide_are_chosen_by_the_model_that_the_configuration_names(
    own: tuple[Path, str], tmp_path: Path
) -> None:
    path, _ = own
    params = named(tmp_path, path).ihc_score
    model = load_model(params.tumour_model)
    assert (model.name, model.inputs) == ("lab", json.loads(path.read_text())["inputs"])
    cells, tumour = planted(9)
    no = np.zeros(len(tumour), np.bool_)
    given = ({name: cells[name] for name in FROM_CELLS}, no, no.astype(np.float32), MPP, STAIN)
    right = choose_tumour(*given, model).chosen == tumour
    assert right[np.abs(cells["x_px0"] - SIDE_PX / 2) * MPP > 50].mean() > 0.95
    assert (choose_tumour(*given, load_model("cores")).chosen == tumour).mean() < 0.3


def key(params: ScoreParams) -> str:
    return content_key("slide", 1, params, [])


def test_results_are_keyed_by_the_model_and_not_by_where_it_lies(
    own: tuple[Path, str], tmp_path: Path
) -> None:
    path, _ = own
    shutil.copy(path, tmp_path / "copy.json")
    config, copied = named(tmp_path, path), named(tmp_path, tmp_path / "copy.json")
    assert config == copied
    assert key(config.ihc_score) != key(ScoreParams())
    stored = json.loads(path.read_text())
    (tmp_path / "copy.json").write_text(json.dumps(stored | {"inputs": "another digest"}))
    assert key(named(tmp_path, tmp_path / "copy.json").ihc_score) != key(config.ihc_score)
    (tmp_path / "again.yaml").write_text(json.dumps({"ihc_score": config.resolved()["ihc_score"]}))
    again = load_config(str(tmp_path / "again.yaml"), environment={})  # as it is stored with the run
    assert again.ihc_score == config.ihc_score


def test_other_regions_make_the_next_version(run: Path, own: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copy(own[0], tmp_path / "lab.json")
    learn(manifest(tmp_path), run, tmp_path / "lab.json")
    assert (tmp_path / "lab.json").read_bytes() == own[0].read_bytes()
    fewer = manifest(tmp_path, (TUMOUR, feature("Immune cells", 1000, SIDE_PX)))
    found = json.loads(learn(fewer, run, tmp_path / "lab.json", "--json"))
    assert found["version"] == 2
    assert found["inputs"] != json.loads(own[0].read_text())["inputs"]
    with pytest.raises(ConfigError, match="holds something else than tumour model mine, and is not replaced"):
        learn(manifest(tmp_path), run, tmp_path / "lab.json", "--name", "mine")


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        (
            {"slides": ("s1",)},
            ManifestError,
            "1 IHC slide with a roi_uri in the manifest; expected 2 or more",
        ),
        ({"slides": ("s1", "s9")}, ManifestError, r"s9: not in this run. Run them first"),
        ({"drawn": (TUMOUR,)}, ManifestError, r"in regions of other tissue .*: 0 cells .*; expected 200"),
        ({"drawn": (STROMA,)}, ManifestError, r"in regions of tumour .*: 0 cells"),
        (
            {"drawn": (feature("Tumor", 0, 100), STROMA)},
            ManifestError,
            r"of tumour \(Tumor\): \d+ cells \(s1 \d+, s2 \d+, s3 \d+\); expected 200 or more. Draw more",
        ),
        ({"patients": ("p", "p", "p")}, ManifestError, "20 or more cells in regions of .*: 1 patient "),
        ({"drawn": (TUMOUR, feature("Muscle", 900, 1000))}, SlideError, r"classes Muscle: .*roi.exclude"),
        ({"drawn": (TUMOUR, feature("", 900, 1000))}, SlideError, "classes unclassified: neither"),
    ],
)
def test_what_does_not_suffice_is_refused(
    run: Path, tmp_path: Path, changed: dict[str, Any], error: type[Her2Error], says: str
) -> None:
    with pytest.raises(error, match=says):
        learn(manifest(tmp_path, **changed), run, tmp_path / "lab.json")
    assert not (tmp_path / "lab.json").exists()


def test_names_and_places_are_checked(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a model of this name comes with the package"):
        learn(manifest(tmp_path), run, tmp_path / "cores.json")
    with pytest.raises(ConfigError, match=r"expected the address of a \.json file"):
        learn(manifest(tmp_path), run, tmp_path / "lab")
    with pytest.raises(ConfigError, match="--name a b: expected letters"):
        learn(manifest(tmp_path), run, tmp_path / "lab.json", "--name", "a b")


def test_cells_of_an_older_version_are_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    store = Store(tmp_path / "run")
    old = as_table("s2", planted(1)[0])
    place = old.schema.get_field_index("clear_rim_fraction")
    old = old.set_column(place, CELLS.schema.field(place), pa.nulls(len(old), pa.float32()))
    file = write_slide_file(store, CELLS, "old", [old])
    assert file is not None
    commit_files(store, CELLS, [file], ["s2"])
    with pytest.raises(Her2Error, match="slide s2 has no clear_rim_fraction: measured by an older version"):
        learn(manifest(tmp_path), tmp_path / "run", tmp_path / "lab.json")


def test_exclusions_are_other_tissue_or_nothing() -> None:
    drawn = [
        feature("Tumor", 0, 100, 0, 100),
        feature("Stroma", 40, 60, 0, 100),
        feature("Tumor: Ignore*", 0, 10, 0, 100),
        feature("DCIS", 90, 120, 0, 100),
        feature("Immune cells", 100, 200, 0, 100),
    ]
    text = json.dumps({"type": "FeatureCollection", "features": drawn}).encode()
    tumour, other = tissues("r.geojson", read_geojson("r.geojson", text), RoiParams())
    assert tumour.equals(shapely.union(shapely.box(10, 0, 40, 100), shapely.box(60, 0, 90, 100)))
    assert other.equals(shapely.union(shapely.box(40, 0, 60, 100), shapely.box(120, 0, 200, 100)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no such file; her2 learn-tumour writes one"),
        ("{", "JSONDecodeError"),
        ("[" * 100_000, "RecursionError|JSONDecodeError"),
        ("[1]", "found list, expected an object"),
        ('{"name": "x"}', "has no 'features'"),
        (" " * 2**20 + "1", "more than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "m.json").write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        named(tmp_path, tmp_path / "m.json")
    assert "m.json" in str(caught.value)


def test_models_lie_in_buckets_too(run: Path, own: tuple[Path, str], s3: Bucket, tmp_path: Path) -> None:
    out = f"{s3.uri}/models/lab.json"
    for _ in range(2):  # first there is none, then an equal one
        learn(manifest(tmp_path), run, out)
    assert named(tmp_path, out) == named(tmp_path, own[0])
    with pytest.raises(ConfigError, match=r"other\.json'?: no such file"):
        named(tmp_path, f"{s3.uri}/models/other.json")


def test_a_comparison_of_runs_calls_a_model_by_its_name(own: tuple[Path, str], tmp_path: Path) -> None:
    before, after = (
        {"configuration": json.dumps(config.resolved()), "versions": "{}"}
        for config in (Config(), named(tmp_path, own[0]))
    )
    [change] = setting_changes(before, after)
    inputs = json.loads(own[0].read_text())["inputs"]
    assert (change["before"], change["after"]) == ("cores", f"lab version 1, inputs {inputs[:12]}")


def test_a_model_can_be_given_as_text() -> None:
    text = replace(load_model("cores"), name="mine").text
    assert load_model(text).name == "mine"
    assert load_model(text).text == text
