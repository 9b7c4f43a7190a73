"""Report and viewer from the built wheel, outside the tree: their pages and bundles are in it, and served.

The project's checks run it with the wheel in an environment of its own, on the output of a run with the slide
``s1`` whose contours were kept::

    python from_wheel.py OUT
"""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import her2core

LEAST = {
    "/": 1_000,
    "/assets/viewer.js": 20_000,
    "/assets/viewer.css": 2_000,
    "/assets/openlayers.min.js": 300_000,
    "/assets/openlayers.css": 5_000,
    "/report": 1_000_000,
}
"""Bytes that each of these has at least."""


def main(out: str) -> int:
    """Exit code 0 if both verbs do their work."""
    her2 = Path(sys.executable).with_name("her2")
    if Path(sys.prefix) not in Path(her2core.__file__).parents:
        print(f"{her2core.__file__}: not of the wheel, so that this proves nothing")
        return 2
    written = subprocess.run([her2, "report", out, "--json"], check=True, capture_output=True, text=True)
    page = Path(json.loads(written.stdout)["page"])
    print(f"{page.name}: {page.stat().st_size:,} bytes")
    viewing = subprocess.Popen(
        [her2, "view", out, "--no-browser", "--json"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert viewing.stdout is not None
        address = urlsplit(json.loads(viewing.stdout.readline())["address"])
        token = {"X-Her2-Token": address.query.removeprefix("token=")}
        tiles = {"/api/slide/s1": 100, "/tile/s1/0/0/0": 500, "/api/contours/s1/0/0": 10_000}
        for path, least in (LEAST | tiles).items():
            connection = http.client.HTTPConnection(address.netloc, timeout=120)
            connection.request("GET", path, headers=token)
            answer = connection.getresponse()
            size = len(answer.read())
            print(f"{answer.status} {size:>9,} {path}")
            if answer.status != 200 or size < least:
                return 1
    finally:
        viewing.send_signal(signal.SIGINT)
        code = viewing.wait(timeout=30)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
