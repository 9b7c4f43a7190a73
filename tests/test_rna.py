"""RNA beside HER2: statistics against scipy and by hand, what matches what, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, spearmanr

from her2core.analysis.rna import compute_rna, read_rna, scale_of
from her2core.analysis.rna_report import report_rna
from her2core.analysis.samples import Sample
from her2core.errors import ManifestError


def specimens(n: int = 40) -> list[Sample]:
    rng = np.random.default_rng(1)
    found = []
    for i in range(n):
        od = float(rng.uniform(0.05, 0.9))
        group = "3+" if od > 0.6 else "low" if od > 0.3 else "ultralow" if od > 0.15 else "null"
        found.append(
            Sample(
                f"p{i}",
                f"c{i}",
                "a",
                None,
                None,
                "x",
                group,
                group,
                {"membrane_od_mean": od, "h_score": 300 * od},
            )
        )
    return found


def table(path: Path, samples: list[Sample], off: int = -1, regions: int = 1) -> str:
    rng = np.random.default_rng(2)
    lines = ["case_id,value,unit,platform"]
    for i, s in enumerate(samples):
        for _ in range(regions if i < 10 else 1):
            value = 4 + 6 * s.values["membrane_od_mean"] + rng.normal(0, 0.4) + (8 if i == off else 0)
            lines.append(f"c{i},{value:.4f},log2 TPM,RNA-seq")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_statistics_are_those_of_scipy_and_an_outlier_is_named(tmp_path: Path) -> None:
    samples = specimens()
    values = read_rna(table(tmp_path / "rna.csv", samples, off=7))
    [found] = compute_rna(values, samples).sets
    measures = dict(found.measures)
    x = [s.values["membrane_od_mean"] for s in samples]
    y = [v.value for v in values]
    assert measures["Spearman with membrane_od_mean"].value == pytest.approx(spearmanr(y, x).statistic)
    up = [v for v, s in zip(y, samples, strict=True) if s.group == "3+"]
    down = [v for v, s in zip(y, samples, strict=True) if s.group != "3+"]
    auc = mannwhitneyu(up, down).statistic / (len(up) * len(down))
    assert measures["AUC, positive against the rest"].value == pytest.approx(auc)
    assert (
        measures["AUC, positive against the rest"].low
        <= auc
        <= measures["AUC, positive against the rest"].high
    )
    assert [o.sample.name for o in found.outliers] == ["c7/a"]
    text = report_rna(compute_rna(values, samples)).text
    assert "c7/a" in text
    assert "cannot measure heterogeneity" in text


def test_several_regions_are_one_specimen_and_their_spread_is_said(tmp_path: Path) -> None:
    samples = specimens()
    [found] = compute_rna(read_rna(table(tmp_path / "rna.csv", samples, regions=3)), samples).sets
    assert len(found.matched) == 40
    assert found.several == 10
    assert found.within_sd == pytest.approx(0.4, abs=0.15)
    assert found.between_sd > found.within_sd


def test_platforms_and_units_are_never_mixed_and_a_cut_is_of_one(tmp_path: Path) -> None:
    samples = specimens()
    path = tmp_path / "rna.csv"
    rows = [f"c{i},{i + 1},{'TPM' if i % 2 else 'CPM'},RNA-seq" for i in range(40)]
    path.write_text("case_id,value,unit,platform\n" + "\n".join(rows) + "\n")
    values = read_rna(str(path))
    assert [(s.platform, s.unit, len(s.matched)) for s in compute_rna(values, samples).sets] == [
        ("RNA-seq", "CPM", 20), ("RNA-seq", "TPM", 20)
    ]  # fmt: skip
    with pytest.raises(ManifestError, match="a cut-off is of one"):
        compute_rna(values, samples, cut=3.0)


def test_scales() -> None:
    assert scale_of("TPM")[1](7) == 3
    assert scale_of("delta Ct")[1](7) == -7
    assert scale_of("log2 TPM")[1](7) == 7


def test_rows_without_a_specimen_or_unit_are_said(tmp_path: Path) -> None:
    path = tmp_path / "rna.csv"
    path.write_text("patient_id,value,unit,platform\nq,1,TPM,RNA-seq\np,2,TPM,RNA-seq\n")
    two = [Sample("p", f"c{i}", "a", None, None, "x", "low", "low", {}) for i in range(2)]
    found = compute_rna(read_rna(str(path)), two)
    assert found.unmatched == {"no specimen of the run": 1, "several specimens fit; give case_id": 1}
    assert "nothing can be compared" in report_rna(found).text
    path.write_text("patient_id,value,unit,platform\nq,1,,RNA-seq\n")
    with pytest.raises(ManifestError, match="row 2: a value without its unit"):
        read_rna(str(path))


def test_a_site_is_no_specimen_id(tmp_path: Path) -> None:
    def of(case: str, specimen: str | None, site: str | None) -> Sample:
        return Sample("p", case, specimen, None, site, "x", "low", "low", {})

    samples = [of("c", "core", "primary"), of("c", "liver", "metastasis:liver"), of("S21/7", None, "primary")]
    path = tmp_path / "rna.csv"
    given = ("c,core", "c,primary", "c,metastasis:liver", "c,liver", "c,bone", "S21/7,", "S21/7,7")
    path.write_text("case_id,specimen_id,value,unit,platform\n" + "".join(f"{g},1,TPM,seq\n" for g in given))
    found = compute_rna(read_rna(str(path)), samples)
    [matched] = [[m.sample.name for m in one.matched] for one in found.sets]
    assert matched == ["S21/7/primary", "c/core/primary", "c/liver/metastasis:liver"]
    assert found.unmatched == {
        "specimen_id holds a site, which names no specimen; give the manifest's specimen_id": 2,
        "no specimen of this specimen_id": 2,
    }
