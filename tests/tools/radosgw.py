"""A real S3 server on loopback for tests: Ceph's RADOS gateway over one monitor and one in-memory OSD.

Needs root and Debian's packages::

    apt-get install --no-install-recommends ceph-mon ceph-osd ceph-common radosgw

``python tests/tools/radosgw.py`` runs one until interrupted, for trying things by hand.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ACCESS_KEY = SECRET_KEY = "testtest"
PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "ceph-authtool", "monmaptool")
START_S = 120.0

CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon_port}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {folder}/keyring
run dir = {folder}
crash dir = {folder}
log file = {folder}/$name.log
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
mon data = {folder}/mon
mon data avail crit = 1
mon data avail warn = 2
mon allow pool size one = true
mon max pg per osd = 1000
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
osd class load list = *
osd class default list = *
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw dns name = 127.0.0.1
rgw enable apis = s3
rgw enable usage log = false
rgw num rados handles = 1
rgw gc obj min wait = 0
"""


def unavailable() -> str | None:
    """Why no gateway can be started here, or None."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"no real S3 server: {', '.join(missing)} not installed (tests/tools/radosgw.py says how)"
    if os.geteuid() != 0:
        return "no real S3 server: Ceph's daemons need root here"
    return None


class Radosgw:
    """The running gateway; use it as a context manager."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="her2-radosgw-"))
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.endpoint_url = ""

    def __enter__(self) -> Radosgw:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in reversed(self.daemons):
            daemon.kill()  # nothing of it outlives the tests
        for daemon in self.daemons:
            daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        port, mon_port = _free_ports(2)
        fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
        for name in ("mon", "osd"):
            (self.folder / name).mkdir()
        text = CONFIGURATION.format(fsid=fsid, folder=self.folder, port=port, mon_port=mon_port)
        (self.folder / "ceph.conf").write_text(text)

        self._call(
            "monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{mon_port}]", "--fsid", fsid, "monmap"
        )
        self._call("ceph-authtool", "-C", "keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        for user in ("client.admin", "client.rgw", "osd.0"):
            caps = [word for kind in ("mon", "osd", "mgr") for word in ("--cap", kind, "allow *")]
            self._call("ceph-authtool", "keyring", "--gen-key", "-n", user, *caps)
        self._call("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap", "--keyring", "keyring")
        self._daemon("ceph-mon", "-i", "a", "-f")
        self._until("the monitor", lambda: self._try("ceph", "--connect-timeout", "5", "mon", "stat"))
        self._call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._call("ceph", "osd", "new", osd)
        self._daemon("ceph-osd", "-i", "0", "-f")
        self._daemon("radosgw", "-n", "client.rgw", "-f")
        endpoint = f"http://127.0.0.1:{port}"
        self._until("the gateway", lambda: _answers(endpoint))
        self._call("radosgw-admin", "user", "create", "--uid=t", "--display-name=t",
                   f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}")  # fmt: skip
        self.endpoint_url = endpoint

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "CEPH_CONF": str(self.folder / "ceph.conf")}

    def _call(self, *words: str) -> None:
        done = subprocess.run(
            words, cwd=self.folder, env=self._environment(), capture_output=True, text=True, timeout=START_S
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()[-500:]}")

    def _try(self, *words: str) -> bool:
        done = subprocess.run(words, cwd=self.folder, env=self._environment(), capture_output=True)
        return done.returncode == 0

    def _daemon(self, *words: str) -> None:
        with open(self.folder / f"{words[0]}.out", "wb") as out:
            started = subprocess.Popen(
                words, cwd=self.folder, env=self._environment(), stdout=out, stderr=subprocess.STDOUT
            )
        self.daemons.append(started)

    def _until(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while not ready():
            dead = [str(d.args[0]) for d in self.daemons if d.poll() is not None]  # type: ignore[index]
            if dead or time.monotonic() > deadline:
                output = "".join(p.read_text(errors="replace")[-500:] for p in self.folder.glob("*.out"))
                raise RuntimeError(
                    f"{what} did not start ({'ended: ' + ', '.join(dead) if dead else 'timeout'}): {output}"
                )
            time.sleep(0.1)


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


if __name__ == "__main__":
    if reason := unavailable():
        sys.exit(reason)
    with Radosgw() as server:
        print(f"{server.endpoint_url} (access key and secret key: {ACCESS_KEY}); Ctrl-C ends it")
        with suppress(KeyboardInterrupt):
            time.sleep(1e9)
