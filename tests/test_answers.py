"""The verbs that answer questions and export, from the command line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

import her2cli
from her2core.errors import ConfigError, ManifestError
from tests.helpers.lakes import write_run

CLASSES = ("pos_IHC3", "low_1plus", "ultralow", "null")
SCORES = {"pos_IHC3": "3+", "low_1plus": "1+", "ultralow": "0_ultralow", "null": "0_null"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 patients, their reader of one mind with the machine but for one."""
    rng = random.Random(1)
    specimens = [
        {
            "case_id": f"c{i}",
            "patient_id": f"p{i}",
            "collection_date": "2020-01-01",
            "her2_class": (found := CLASSES[i % 4]),
            "reader_score": "0_null" if i == 2 else SCORES[found],
            "membrane_od_mean": 0.8 - 0.2 * (i % 4) + rng.random() / 10,
            "metrics": {("rao_q", None): rng.random()},
        }
        for i in range(24)
    ]
    return str(write_run(tmp_path_factory.mktemp("run"), specimens))


def her2(*words: str) -> str:
    result = CliRunner().invoke(her2cli.app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_agreement(run: str, tmp_path: Path) -> None:
    found = json.loads(her2("agreement", f"machine={run}", "--out", str(tmp_path), "--json"))
    [pair] = [p for p in found["tables"]["pairs"] if p["scheme"] == "five tiers"]
    assert (pair["rater_a"], pair["rater_b"], pair["n"]) == ("manifest", "machine", 24)
    assert pair["agreement"] == pytest.approx(23 / 24)
    assert (tmp_path / "summary.md").read_text().startswith("# Agreement on HER2")


def test_outcome(run: str, tmp_path: Path) -> None:
    rng = random.Random(2)
    rows = [f"p{i},T-DXd,2020-02-01,{'pos' if i % 2 else 'neg'},{rng.randint(30, 900)},1" for i in range(24)]
    table = tmp_path / "clinical.csv"
    table.write_text("patient_id,therapy_class,start,er,os_days,os_event\n" + "\n".join(rows) + "\n")
    shown = her2("outcome", run, str(table), "--out", str(tmp_path / "out"), "--metric", "rao_q")
    assert "24 lines of therapy of 24 patients; of 24 a sample was surely taken before" in " ".join(
        shown.split()
    )
    assert "No row has `entry_days`" in shown
    assert (tmp_path / "out" / "figures" / "forest_os.png").exists()


def test_rna(run: str, tmp_path: Path) -> None:
    table = tmp_path / "rna.csv"
    table.write_text(
        "case_id,value,unit,platform\n" + "".join(f"c{i},{9 - i % 4},log2 TPM,x\n" for i in range(24))
    )
    found = json.loads(her2("rna", run, str(table), "--out", str(tmp_path / "out"), "--json"))
    measured = {row["measure"]: row["value"] for row in found["tables"]["measures"]}
    assert measured["AUC, positive against the rest"] == 1.0


def test_export(run: str, tmp_path: Path) -> None:
    assert "slides.csv" in her2("export", run, "csv", "--out", str(tmp_path))
    assert (tmp_path / "dictionary.csv").exists()


def test_what_is_wrong_is_said_in_words(run: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--box 1,2: expected X,Y,WIDTH,HEIGHT"):
        her2("export", run, "qupath", "--out", str(tmp_path), "--box", "1,2")
    with pytest.raises(ManifestError, match="no such rater"):
        her2("agreement", f"a={run}", "--reference", "nobody", "--out", str(tmp_path))
    with pytest.raises(ManifestError, match="two runs are called"):
        her2("agreement", f"a={run}", f"a={run}", "--out", str(tmp_path))
