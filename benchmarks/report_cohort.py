"""A large cohort for the report, made of a finished run's rows with other names, and how the page opens.

    python benchmarks/report_cohort.py RUN OUT [--slides 1000] [--seed 1]
    python benchmarks/report_cohort.py --open PAGE

The first writes an output that holds nothing but tables and links to the run's pictures: every specimen again
and again, with measures spread by a few percent, scanners, clones and dates that differ, and one slide in
twenty failed or without a score. The second opens a page in headless Chromium and prints the seconds until
it can be used, and the memory of its tab.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from her2core.lake.schema import CASES, HETEROGENEITY_WIDE, PATIENTS, RUNS, SLIDES, Table
from her2core.lake.tables import commit_rows, read_rows
from her2core.storage.store import Store

Row = dict[str, Any]

SPREAD = 0.08
SCANNERS = ("Scanner A", "Scanner B", "Scanner C")
CLONES = ("4B5", "SP3", "CB11")
LOST = (
    ("failed", "file_truncated"),
    ("quarantined", "not_a_slide"),
    ("indeterminate", "blur"),
    ("indeterminate", "no_tumour"),
)
SPREAD_COLUMNS = (
    *("membrane_od_mean", "h_score", "p_any_pct", "p2_pct", "p3_pct", "tissue_area_mm2", "residual_p95_od"),
    *("dab_angle_deg", "hematoxylin_angle_deg", "ish_ratio", "ish_her2_mean", "ish_cep17_mean"),
    *("gini_simpson", "shannon", "membrane_od_cv", "moran_i_od_100um", "eta2_100um"),
)


def rows_of(store: Store, table: Table) -> list[Row]:
    return list(read_rows(store, table, [column.name for column in table.columns]).to_pylist())


def spread(row: Row, by: random.Random) -> Row:
    """A row whose measures differ a little."""
    changed = {name: row[name] * by.lognormvariate(0, SPREAD) for name in SPREAD_COLUMNS if row.get(name)}
    return row | {
        name: min(value, 100.0) if name.endswith("_pct") else value for name, value in changed.items()
    }


def replicate(source: Store, target: Store, n_slides: int, seed: int) -> None:
    """Write the tables of a cohort of so many slides."""
    by = random.Random(seed)
    slides, cases, patients, wide = (
        rows_of(source, table) for table in (SLIDES, CASES, PATIENTS, HETEROGENEITY_WIDE)
    )
    run = max(rows_of(source, RUNS), key=lambda row: row["finished_at"])
    of_slide = {row["slide_id"]: row for row in wide}
    made: dict[str, list[Row]] = {table.name: [] for table in (SLIDES, CASES, PATIENTS, HETEROGENEITY_WIDE)}
    copy = 0
    while len(made["slides"]) < n_slides:
        copy += 1
        month = f"{2024 + copy % 2}-{1 + copy % 12:02}-{1 + copy % 28:02}"

        def again(name: str | None, copy: int = copy) -> str | None:
            return None if name is None else f"{name}-{copy:05}"

        for row in slides:
            scanner = by.choice(SCANNERS)
            new = spread(row, by) | {
                "scanner": scanner,
                "antibody_clone": by.choice(CLONES),
                "collection_date": month,
            }
            if new["membrane_od_mean"] is not None and scanner == "Scanner C":
                new["membrane_od_mean"] *= 1.15
            if by.random() < 0.05:
                state, reason = by.choice(LOST)
                gone = {"score": None, "her2_class": None, "ish_group": None}
                new |= gone | {"state": state, "reasons": [reason], "message": "a message of the reader"}
            if by.random() < 0.1 and new["score"]:
                new["reader_score"] = by.choice(("0", "1+", "2+", "3+"))
            names = {key: again(new[key]) for key in ("slide_id", "case_id", "patient_id", "specimen_id")}
            made["slides"].append(new | names)
            if row["slide_id"] in of_slide:
                made["heterogeneity_wide"].append(
                    spread(of_slide[row["slide_id"]], by)
                    | {key: names[key] for key in ("slide_id", "case_id")}
                )
        for row in cases:
            lists = {
                key: [again(one) for one in row[key] or ()]
                for key in ("slides", "slides_pooled", "slides_ish")
            }
            names = {key: again(row[key]) for key in ("case_id", "patient_id", "specimen_id")}
            made["cases"].append(spread(row, by) | names | lists)
        made["patients"] += [row | {"patient_id": again(row["patient_id"])} for row in patients]
    versions = {}
    for table in (SLIDES, CASES, PATIENTS, HETEROGENEITY_WIDE):
        versions[f"{table.name}_version"] = commit_rows(target, table, made[table.name])
    inputs = [{"slide_id": row["slide_id"]} for row in made["slides"]]
    now = {
        "run_id": f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{seed:06x}",
        "cohort": f"{n_slides} slides, replicated",
    }
    commit_rows(
        target, RUNS, [run | versions | now | {"inputs": json.dumps(inputs), "n_slides": len(inputs)}]
    )


def link_pictures(source: Store, target: Store) -> None:
    """The run's pictures in the new output, without their bytes."""
    pictures = Path(target.root) / "pictures"
    if not pictures.exists():
        pictures.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(Path(source.root) / "pictures", pictures)


def open_page(page: Path, wide: int = 1440, high: int = 900) -> dict[str, float]:
    """Seconds until a page can be used and processor time of its tab until then and until all is drawn, MB of
    the tab's memory and of its objects, and elements, in headless Chromium."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync",
                     f"--window-size={wide},{high}"):  # fmt: skip
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        driver.get("about:blank")
        before = _renderer(driver)[1]
        start = time.perf_counter()
        driver.get(page.resolve().as_uri())
        driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => setTimeout(done, 0))"
        )
        seconds = time.perf_counter() - start
        cpu = driver.execute_script("return performance.now()") / 1000
        opened = _renderer(driver)[1]
        driver.execute_script("her2report.drawAll()")
        time.sleep(1.0)
        tab, drawn = _renderer(driver)
        driver.execute_cdp_cmd("Performance.enable", {})
        measured = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        start = time.perf_counter()
        driver.execute_script("her2report.toggle('her2_class', 'pos_IHC3'); her2report.drawAll()")
        filtering = time.perf_counter() - start
        elements = driver.execute_script("return document.querySelectorAll('*').length")
        return {
            "open_s": seconds,
            "since_navigation_s": cpu,
            "open_processor_s": opened - before,
            "all_drawn_processor_s": drawn - before,
            "tab_mb": tab,
            "objects_mb": next(one["value"] for one in measured if one["name"] == "JSHeapUsedSize") / 1e6,
            "filter_s": filtering,
            "elements": elements,
        }
    finally:
        driver.quit()


def _renderer(driver: Any) -> tuple[float, float]:
    """MB of memory, and seconds of processor time, of the largest renderer: the tab's process."""
    found = []
    children = [driver.service.process.pid]
    while children:
        pid = children.pop()
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            children += map(int, task.read_text().split())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"--type=renderer" in command:
            status = Path(f"/proc/{pid}/status").read_text()
            ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
            used = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
            found.append((int(status.split("VmRSS:")[1].split()[0]) / 1024, used))
    return max(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("places", nargs="*", metavar="RUN OUT")
    parser.add_argument("--slides", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--open", type=Path, metavar="PAGE")
    given = parser.parse_args()
    if given.open is not None:
        for name, value in open_page(given.open).items():
            print(f"{name:>20} {value:,.2f}")
        return
    source, target = map(Store, given.places)
    replicate(source, target, given.slides, given.seed)
    link_pictures(source, target)
    print(f"{given.slides} slides in {target.uri()}; now: her2 report {target.uri()}")


if __name__ == "__main__":
    main()
