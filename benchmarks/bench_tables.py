"""What tables cost a driver against the size of the cohort: memory, seconds of commits, last step and report.

    python benchmarks/bench_tables.py [--slides 100 1000 5000 10000]

Every size is a process of its own, which imports what a run's driver does and gives a `Publisher` the results
of two real phantoms, IHC and ISH, under as many names: three slides a case, two IHC and one ISH, two cases a
patient, all with their metrics. The report is written by a process of its own, as in a run: ``report`` is its
peak, ``both`` that and what the driver still has then. Making the results and their files of cells and
regions is not counted as processor time. Memory is Linux's high-water mark of what is resident (``VmHWM``),
imports included.
"""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

GOAL_MIB, GOAL_S = 500, 600
"""Memory for 5 000 slides, and the last step of 10 000."""


def resident_mib(which: str = "VmRSS") -> float:
    """Resident memory of this process; nothing else is imported that it would count."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(f"{which}:"))
    return int(line.split()[1]) / 1024


def peak_mib() -> float:
    """High-water mark of this process's resident memory."""
    return resident_mib("VmHWM")


def publish(folder: Path, count: int) -> dict[str, float]:
    """Publish so many results; peaks in MiB, and seconds."""
    import flows.cohort  # noqa: F401, what a driver has in memory
    from flows.memory import give_memory_back
    from her2core.config import load_config
    from her2core.publish import Publisher
    from her2core.records import Assay, SlideRow
    from her2core.stages.run import Run
    from her2core.storage.store import Store

    give_memory_back()
    idle = peak_mib()
    store, rows = Store(folder / "out"), []
    for number in range(count):
        ish = number % 3 == 2
        rows.append(
            SlideRow(
                f"s{number:06d}",
                f"c{number // 3:06d}",
                f"s3://slides/s{number:06d}.svs",
                Assay.DISH if ish else Assay.IHC,
                patient_id=f"p{number // 6:06d}",
                block_id=f"b{number % 3}",
            )
        )
    found = pickle.loads((folder / "templates").read_bytes())  # noqa: S301, we wrote it
    config = load_config(environment={})
    run = Run("run", datetime.now(UTC).isoformat(), "m.csv", "00", tuple(rows), store, config)
    publisher = Publisher(run)
    publisher.begin()
    made, slow = 0.0, list[float]()
    begun, cpu = time.perf_counter(), time.process_time()
    for row in rows:
        template = found[row.assay]
        wait = time.process_time()
        result = template.like(row, f"k{row.slide_id}", store)
        made += time.process_time() - wait
        wait = time.perf_counter()
        publisher.add(replace(result, rests_on=tuple(f"stages/{row.slide_id}/{n}" for n in range(4))))
        if not publisher.buffer:
            slow.append(time.perf_counter() - wait)
    added, added_cpu, before = time.perf_counter() - begun, time.process_time() - cpu - made, peak_mib()
    begun = time.perf_counter()
    summary = publisher.finish()
    seconds, peak = time.perf_counter() - begun, peak_mib()
    del publisher
    begun, left = time.perf_counter(), resident_mib()
    words = [sys.executable, __file__, "--report", store.uri(), summary.run_id]
    apart = float(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return {
        "idle": idle,
        "added": before,
        "peak": peak,
        "report": apart,
        "both": left + apart,
        "batch_s": sum(slow) / max(len(slow), 1),
        "add_s": added,
        "add_cpu_ms": added_cpu / count * 1e3,
        "last_s": seconds,
        "report_s": time.perf_counter() - begun,
    }


def report(uri: str, run_id: str) -> float:
    """Write the report as `flows.report_process` does; the peak in MiB."""
    from flows.memory import give_memory_back
    from her2core.report.build import write_report
    from her2core.storage.store import Store

    give_memory_back()
    write_report(Store(uri), run_id)
    return peak_mib()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slides", type=int, nargs="+", default=[100, 1000, 5000, 10_000])
    parser.add_argument("--templates", type=Path, help="results of an earlier run of this, to start at once")
    parser.add_argument("--publish", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--report", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.report:
        print(report(*args.report))
        return
    if args.publish:
        print(json.dumps(publish(Path(args.publish[0]), int(args.publish[1]))))
        return
    from slides import machine

    print(f"{machine('pyarrow', 'deltalake')}; MiB and s")
    print(
        f"{'slides':>8}{'idle':>8}{'added':>8}{'peak':>8}{'report':>8}{'both':>8}"
        f"{'CPU ms a slide':>16}{'s a batch':>11}{'last step, s':>14}{'report, s':>11}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        kept = args.templates or Path(scratch) / "templates"
        if not kept.exists():
            from records import templates

            kept.write_bytes(pickle.dumps(templates(Path(scratch))))
        for count in args.slides:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "templates").write_bytes(kept.read_bytes())
                words = [sys.executable, __file__, "--publish", folder, str(count)]
                answer = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
            got = json.loads(answer.splitlines()[-1])
            print(
                f"{count:8}{got['idle']:8.0f}{got['added']:8.0f}{got['peak']:8.0f}{got['report']:8.0f}{got['both']:8.0f}"
                f"{got['add_cpu_ms']:16.1f}{got['batch_s']:11.2f}{got['last_s']:14.1f}{got['report_s']:11.1f}",
                flush=True,
            )
    print(f"to reach: below {GOAL_MIB} MiB for 5000 slides, below {GOAL_S} s for 10000")


if __name__ == "__main__":
    main()
