"""Every benchmark once, as small as it gets: so that none is broken when it is needed. Measures nothing.

    python benchmarks/smoke.py

Those that need Ceph's server of S3, or slides from elsewhere, only have to load and print their help.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
LIMIT_S = 300.0
"""Longest time of one, which compiles kernels where there is no cache."""
SMALLEST = {
    "bench_codecs": "--side 1024 --codecs blosc-lz4 --latency-ms 1",
    "bench_convert": "--side 1024 --rounds 1",
    "bench_feed": "feed --workers 2 --slides 1 --slower 0.01 --hosts 1",
    "bench_heterogeneity": "--cells 2000",
    "bench_ish": "--side 1024 --peer-side 512 --cores 512 --rounds 1",
    "bench_kernel": "--side 512 --peer-side 256 --rounds 1",
    "bench_tables": "--slides 3",
}
"""Arguments of the smallest sizes that still measure something."""


def main() -> int:
    """Run all; the exit code is the number of those that failed."""
    failed = 0
    for file in sorted(HERE.glob("bench_*.py")):
        words = SMALLEST.get(file.stem, "--help").split()
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, str(file), *words], capture_output=True, text=True, timeout=LIMIT_S
        )
        print(f"{file.name} {' '.join(words)}: {time.monotonic() - begun:.1f} s", flush=True)
        if done.returncode or not done.stdout.strip():
            failed += 1
            print(f"FAILED with {done.returncode}\n{done.stdout[-500:]}{done.stderr[-2000:]}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
