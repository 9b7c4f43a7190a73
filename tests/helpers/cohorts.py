"""A small cohort of slides with planted truth and of broken ones, and `her2` as a user runs it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl

import her2cli
from flows import server_process
from her2core.phantom import ISHSpec, PhantomSpec, Population, plant, plant_ish
from her2core.phantom.slides import write_fluorescence, write_slide
from her2core.records import Assay

SIDE_PX = 1536  # 0.15 mm² at 0.25 µm/px, four shards of 1024
GOOD = {
    "null": (1.0, 0.0, 0.0, 0.0, 0.0),
    "two": (0.2, 0.1, 0.0, 0.7, 0.0),
    "three": (0.1, 0.0, 0.0, 0.1, 0.8),
}
ISH = {
    "fish": (Assay.FISH, "two", Population(1.0, 8.0, 2.0)),
    "dish": (Assay.DISH, "null", Population(1.0, 2.0, 2.0)),
}
"""ISH slides: assay, the case they belong to, and what is planted."""
HEADLINES = {"null": "0", "two": "2+", "three": "3+", "fish": "1", "dish": "5"}
"""IHC score or ISH group of every good slide."""
SITES = {"two": ("p", "primary"), "three": ("p", "metastasis")}
"""Cases of one patient, with patient and site."""
BAD = {
    "broken": "file_truncated",
    "missing": "file_missing",
    "unscaled": "scale_unknown",
    "unmapped": "channels_unknown",
}
EXCLUDED = {"unused": "wrong block"}
"""Slides that the manifest excludes, and why; there are no such files."""
CONFIG = "pyramid: {chunk: 256, shard: 1024}\nrun: {workers: 2, retries: 0, slides_in_flight: 2}\n"


def write_cohort(folder: Path, names: Sequence[str] = (*HEADLINES, *BAD, *EXCLUDED)) -> Path:
    """Of five good slides, a truncated one, a missing one, one without µm/px, a FISH slide that does not say
    which channel is which, and one that is excluded, those that are named; returns the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, mix) in enumerate(GOOD.items()):
        spec = PhantomSpec(seed=seed, height_px=SIDE_PX, width_px=SIDE_PX, mix=mix, pattern="mosaic")
        if name in names:
            write_slide(folder / f"{name}.tif", plant(spec))
    if "broken" in names:
        whole = (folder / "two.tif").read_bytes()
        (folder / "broken.tif").write_bytes(whole[: len(whole) // 2])
    if "unscaled" in names:
        small = plant(PhantomSpec(seed=9, height_px=512, width_px=512))
        write_slide(folder / "unscaled.tif", small, scale_known=False)
    for seed, (name, (assay, _, population)) in enumerate(ISH.items()):
        if name not in names:
            continue
        planted = plant_ish(ISHSpec(assay.removeprefix("HER2-"), seed, 1100, 1200, 0.12, (population,)))
        if assay == Assay.FISH:
            write_fluorescence(folder / f"{name}.tif", planted)
        else:
            write_slide(folder / f"{name}.tif", planted, quality=95)
    if "unmapped" in names:
        shutil.copy(folder / "dish.tif", folder / "unmapped.tif")
    (folder / "config.yaml").write_text(CONFIG)
    return write_manifest(folder / "manifest.csv", *names)


def write_manifest(path: Path, *names: str) -> Path:
    """Manifest of these slides of the cohort."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["slide_id", "case_id", "uri", "assay", "exclude", "patient_id", "site"])
        for name in names:
            assay = Assay.FISH if name == "unmapped" else ISH[name][0] if name in ISH else Assay.IHC
            case = ISH[name][1] if name in ISH else name
            table.writerow(
                [
                    name,
                    f"case-{case}",
                    f"{name}.tif",
                    assay,
                    EXCLUDED.get(name),
                    *SITES.get(case, (None, None)),
                ]
            )
    return path


def command(*words: str) -> list[str]:
    """The command line of `her2`."""
    return [sys.executable, "-m", "her2cli", *words]


def her2(*words: str, timeout_s: float = 280) -> subprocess.CompletedProcess[str]:
    """Run `her2` to its end; given up, it takes its workers and its Prefect server with it."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command(*words), stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def her2_here(*words: str) -> subprocess.CompletedProcess[str]:
    """Run `her2` in this process, for verbs that end in a moment: to start another takes longer."""
    code: Any = 0
    with (
        patch.object(sys, "argv", ["her2", *words]),
        redirect_stdout(StringIO()) as out,
        redirect_stderr(StringIO()) as err,
    ):
        try:
            her2cli.main()
        except SystemExit as ended:
            code = ended.code or 0
    return subprocess.CompletedProcess(sys.argv, code, out.getvalue(), err.getvalue())


def run_and_signal(words: list[str], when: Any, log: Path, number: int, timeout_s: float = 200) -> int:
    """Start `her2`, and send it and its workers a signal as soon as ``when()`` is true; its exit code.

    Its embedded Prefect server, which no signal reaches, ends as well.
    """
    with log.open("w") as file:
        process = subprocess.Popen(
            command(*words), stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + timeout_s
    try:
        while not when():
            assert process.poll() is None, f"ended before the signal:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"never got there:\n{log.read_text()}"
            time.sleep(0.02)
        servers = _children(process.pid, server_process.NAME)
        assert servers
        os.killpg(process.pid, number)
        code = process.wait(timeout=30)
        while any(Path(f"/proc/{server}").exists() for server in servers):
            assert time.monotonic() < deadline, "the Prefect server outlives the run"
            time.sleep(0.1)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return code


def _children(pid: int, name: str) -> list[int]:
    """Children of a process that the system lists by this name."""
    numbers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(n) for n in numbers if Path(f"/proc/{n}/comm").read_text().strip() == name]


def tables(out: str, options: dict[str, str] | None = None) -> dict[str, pl.DataFrame]:
    """The lake's tables but ``runs``, read by Polars without our code, sorted by their first columns."""
    return {
        name: pl.read_delta(f"{out}/tables/{name}", storage_options=options).sort(keys)
        for name, keys in {
            "cells": ["slide_id", "cell_id"],
            "nuclei": ["slide_id", "nucleus_id"],
            "slides": ["slide_id"],
            "cases": ["case_id"],
            "heterogeneity": ["slide_id", "metric", "scale_um"],
            "heterogeneity_wide": ["slide_id"],
            "case_heterogeneity": ["case_id", "metric"],
            "case_heterogeneity_wide": ["case_id"],
            "patients": ["patient_id"],
            "patient_heterogeneity": ["patient_id", "metric"],
            "patient_heterogeneity_wide": ["patient_id"],
        }.items()
    }


def published(out: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of everything that is published once and never written again: all but the
    picture of the cohort, and pyramids that are not finished, as a block that was broken off is made again
    whole."""
    folders = ("stages", "parts", "pictures")
    files = [path for folder in folders for path in (out / folder).rglob("*") if path.is_file()]
    for document in (out / "pyramids").glob("*/zarr.json"):
        files += [path for path in document.parent.glob("[0-9]*/c/**/*") if path.is_file()]
    return {
        str(path.relative_to(out)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in files
        if path.name != "cohort.png"
    }


def status(out: str) -> dict[str, dict[str, Any]]:
    """`her2 status --json`, by slide."""
    done = her2_here("status", out, "--json")
    assert done.returncode == 0, done.stderr
    return {entry["slide_id"]: entry for entry in json.loads(done.stdout)}


def copy_cohort(source: Path, target: Path) -> Path:
    """The same cohort in another folder."""
    shutil.copytree(source, target)
    return target / "manifest.csv"
