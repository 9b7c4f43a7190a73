"""One large slide through a real run's stages on a real S3 server with a distance: who waits for what.

    python benchmarks/bench_store.py [--slide FILE] [--codec source] [--latency-ms 30] [--mb-s 60]
    python benchmarks/bench_store.py --tables 1 1 100   # tables alone, of runs of so many slides
    python benchmarks/bench_store.py --clients   # s3fs against obstore, alone

The slide lies in the bucket, and so does the output. The server is Ceph's RADOS gateway
(`tests/tools/radosgw.py`) behind a proxy that delays every request and bounds each connection's bytes a
second, both ways. A small slide goes through the same cluster first, so that nothing is compiled or imported
within what is measured. Printed are, of every stage: wall time; what it would be `alone`, less what the
computing threads of worker and driver waited for a processor that others had (the kernel's count; threads
that fetch and store, server and proxy waited as well, so it is still too long); processor time of the
workers, all threads; `busy`, its share of the wall time less that waiting of the worker's; the driver's
processor time; requests by verb and bytes; and in the end the objects of the slide by folder.
"""

from __future__ import annotations

import os

os.environ.setdefault("AWS_ACCESS_KEY_ID", "testtest")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "testtest")
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
os.environ.setdefault("DO_NOT_TRACK", "1")

import argparse
import asyncio
import json
import logging
import multiprocessing
import pickle
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from slides import machine, real_slide

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.tools.radosgw import Radosgw, unavailable

VERBS = ("GET", "PUT", "HEAD", "LIST", "POST", "DELETE")
BURST_S = 0.002
"""What a connection may be ahead of its bandwidth, so that the proxy's timer need not be precise."""


@dataclass(slots=True)
class Request:
    """One request that went through the proxy."""

    begun: float
    verb: str
    path: str
    up: int = 0
    down: int = 0
    took: float = 0.0


class Proxy:
    """Delays requests and bounds bytes a second; notes each request. Runs in a process of its own."""

    def __init__(self, target: int, latency_s: float, bytes_s: float) -> None:
        self.target, self.latency_s, self.bytes_s = target, latency_s, bytes_s
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = int(server.getsockname()[1])
        self.ours, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=self._serve, args=(theirs,), daemon=True)
        self.process.start()
        self.ours.recv()

    def taken(self) -> list[Request]:
        """Requests since the last call."""
        self.ours.send(None)
        found: list[Request] = self.ours.recv()
        return found

    def _serve(self, pipe: Any) -> None:
        asyncio.run(self._run(pipe))

    async def _run(self, pipe: Any) -> None:
        self.requests: list[Request] = []

        def answer() -> None:
            pipe.recv()
            done, self.requests = self.requests, []
            pipe.send(done)

        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=1 << 20)
        asyncio.get_running_loop().add_reader(pipe.fileno(), answer)
        pipe.send(None)
        await server.serve_forever()

    async def _accept(self, reader: Any, writer: Any) -> None:
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", self.target, limit=1 << 20)
        except OSError:
            writer.close()
            return
        talk = _Talk()
        await asyncio.gather(self._ask(reader, ours, talk), self._answer(theirs, writer, talk))

    async def _ask(self, reader: Any, writer: Any, talk: _Talk) -> None:
        pace = _Pace(self.bytes_s)
        try:
            while data := await reader.read(1 << 16):
                if talk.answered:
                    talk.answered = False
                    talk.request = _parsed(data)
                    self.requests.append(talk.request)
                    await asyncio.sleep(self.latency_s)
                talk.request.up += len(data)
                await pace.of(len(data))
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def _answer(self, reader: Any, writer: Any, talk: _Talk) -> None:
        pace = _Pace(self.bytes_s)
        try:
            while data := await reader.read(1 << 16):
                if not data.upper().startswith(b"HTTP/1.1 100 "):
                    talk.answered = True
                talk.request.down += len(data)
                await pace.of(len(data))
                talk.request.took = time.time() - talk.request.begun
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@dataclass(slots=True)
class _Talk:
    """One connection: whether the server has begun to answer the last request."""

    answered: bool = True
    request: Request = field(default_factory=lambda: Request(0.0, "", ""))


class _Pace:
    """Bytes a second of one direction of one connection."""

    def __init__(self, bytes_s: float) -> None:
        self.bytes_s, self.free = bytes_s, 0.0

    async def of(self, size: int) -> None:
        now = time.monotonic()
        self.free = max(self.free, now) + size / self.bytes_s
        if self.free - now > BURST_S:
            await asyncio.sleep(self.free - now)


def _parsed(head: bytes) -> Request:
    verb, target = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")[:2]
    path, _, query = target.partition("?")
    is_list = verb == "GET" and ("list-type" in query or "prefix=" in query or path.count("/") < 2)
    return Request(time.time(), "LIST" if is_list else verb, path)


@contextmanager
def distant_bucket(latency_s: float, bytes_s: float) -> Iterator[tuple[str, str, Proxy]]:
    """An S3 server's address, the same behind the proxy, and the proxy; its bucket is ``bench``."""
    with Radosgw() as server:
        import s3fs

        s3fs.S3FileSystem(endpoint_url=server.endpoint_url).mkdir("bench")
        proxy = Proxy(int(server.endpoint_url.rsplit(":", 1)[1]), latency_s, bytes_s)
        try:
            yield server.endpoint_url, f"http://127.0.0.1:{proxy.port}", proxy
        finally:
            proxy.process.terminate()


class Meter(logging.Handler):
    """Notes, whenever a stage is published, what was spent since the one before.

    Parameters
    ----------
    workers
        Process of each worker, and the thread of it that computes.
    """

    def __init__(self, workers: dict[int, int], proxy: Proxy) -> None:
        super().__init__()
        self.workers, self.proxy = [psutil.Process(pid) for pid in workers], proxy
        computing = {**workers, os.getpid(): os.getpid()}
        self.threads = [Path(f"/proc/{pid}/task/{tid}/schedstat") for pid, tid in computing.items()]
        self.me = psutil.Process()
        self.rows: list[dict[str, Any]] = []
        self.trace: list[tuple[str, Request]] = []
        self.restart()

    def restart(self) -> None:
        self.proxy.taken()
        self.at = self._now()

    def _now(self) -> tuple[float, ...]:
        spent = [process.cpu_times() for process in self.workers]
        mine = self.me.cpu_times()
        *ready, my_ready = (int(path.read_text().split()[1]) / 1e9 for path in self.threads)
        cpu = sum(t.user + t.system for t in spent)
        return time.time(), cpu, mine.user + mine.system, sum(ready) / max(len(ready), 1), my_ready

    def emit(self, record: logging.LogRecord) -> None:
        published = getattr(record, "published", None)
        progress = getattr(record, "progress", None)
        if published is not None:
            self.note(published.stage)
        elif progress is not None and progress.stage == "inspect" and progress.done == 1:
            self.note("inspect")

    def note(self, stage: str) -> None:
        now, requests = self._now(), self.proxy.taken()
        wall, cpu, driver, ready, mine = (b - a for a, b in zip(self.at, now, strict=True))
        self.at = now
        verbs = Counter(request.verb for request in requests)
        row = {"wall": wall, "worker": cpu, "driver": driver, "ready": ready, "driver ready": mine}
        row |= {verb: verbs[verb] for verb in VERBS}
        row |= {"up": sum(r.up for r in requests), "down": sum(r.down for r in requests)}
        self.rows.append({"stage": stage, **row})
        self.trace += [(stage, request) for request in requests]

    def table(self) -> Iterator[str]:
        verbs = "".join(f"{verb:>7}" for verb in VERBS)
        head = f"{'wall s':>7}{'alone':>7}{'worker':>8}{'busy':>6}{'driver':>8}"
        yield f"{'':11}{head}{verbs}{'MB up':>7}{'MB down':>8}"
        total = {key: sum(row[key] for row in self.rows) for key in self.rows[0] if key != "stage"}
        for row in [*self.rows, {"stage": "all", **total}]:
            cpu, wall = row["worker"] / max(len(self.workers), 1), row["wall"]
            busy = cpu / max(wall - row["ready"], cpu, 1e-9)
            alone = wall - row["ready"] - row["driver ready"]
            spent = f"{wall:7.1f}{alone:7.1f}{row['worker']:8.1f}{busy:6.0%}{row['driver']:8.1f}"
            counts = "".join(f"{row[verb]:7d}" for verb in VERBS)
            yield f"{row['stage']:11}{spent}{counts}{row['up'] / 1e6:7.1f}{row['down'] / 1e6:8.1f}"


def score(
    endpoint: str, slide: str, out: str, args: argparse.Namespace, client: Any, meter: Meter | None = None
) -> str:
    """Run one slide through all stages and commit its tables; the output's address."""
    from her2core.lake.tables import kept_open
    from her2core.pipeline import score_slide
    from her2core.publish import Publisher
    from her2core.stages.fanout import Workers
    from her2core.stages.run import open_run
    from her2core.storage.lease import held

    folder = Path(tempfile.mkdtemp(dir=args.folder))
    manifest, config = folder / "manifest.csv", folder / "config.yaml"
    manifest.write_text(f"slide_id,case_id,uri,assay\nbench,bench,{slide},HER2-IHC\n")
    config.write_text(f"run:\n  endpoint_url: {endpoint}\npyramid:\n  codec: {args.codec}\n")
    run = open_run(str(manifest), out, str(config))
    with held(run.store, run.run_id) as lease, kept_open(run.store):
        publisher = Publisher(run, lease)
        publisher.begin()
        if meter is not None:
            meter.restart()
        finished = score_slide(run, run.rows[0], Workers(client))
        if meter is not None:
            meter.note("journal")
        publisher.add(finished)
        publisher.finish()
        if meter is not None:
            meter.note("tables")
    return out


def tables_alone(direct: str, endpoint: str, proxy: Proxy, args: argparse.Namespace) -> None:
    """Publish the results of runs, each of new slides, into one output, and print what their tables took.

    They are those of two phantoms under many names, as in `bench_tables.py`; a run of one slide to another
    output goes first.
    """
    from records import templates

    from her2core.config import load_config
    from her2core.storage.store import Store

    kept = args.folder / "templates"
    if not kept.exists():
        kept.write_bytes(pickle.dumps(templates(args.folder)))
    found, config = pickle.loads(kept.read_bytes()), load_config(environment={})  # noqa: S301, we wrote it
    meter, known = Meter({}, proxy), 0
    _publish_like(found, config, Store("s3://bench/warm", endpoint_url=direct), direct, range(1), meter)
    for count in args.tables:
        meter.rows.clear()
        store = Store("s3://bench/out", endpoint_url=endpoint)
        load = os.getloadavg()[0]
        _publish_like(found, config, store, direct, range(known, known + count), meter)
        print(f"slides: {count}, in the output before: {known}; load before {load:.1f}")
        print("\n".join(meter.table()))
        known += count


def _publish_like(found: Any, config: Any, store: Any, direct: str, numbers: range, meter: Meter) -> None:
    """A run of slides that look like those found; their files of rows are put there beforehand."""
    from her2core.lake.tables import kept_open
    from her2core.publish import Publisher
    from her2core.records import Assay, SlideRow
    from her2core.stages.run import Run
    from her2core.storage.lease import held
    from her2core.storage.store import Store

    near = Store(store.uri(), endpoint_url=direct)
    rows, results = [], []
    for number in numbers:
        name, assay = f"s{number:06d}", Assay.DISH if number % 3 == 2 else Assay.IHC
        row = SlideRow(name, f"c{number // 3:06d}", f"s3://slides/{name}.svs", assay)
        result = found[assay].like(row, f"k{name}", near)
        rows.append(row)
        results.append(replace(result, rests_on=tuple(f"stages/{name}/{n}" for n in range(4))))
    started = datetime.now(UTC).isoformat()
    run = Run(f"run{numbers.start}", started, "m.csv", "00", tuple(rows), store, config)
    with held(store, run.run_id) as lease, kept_open(store):
        meter.restart()
        publisher = Publisher(run, lease)
        meter.note("opened")
        publisher.begin()
        if publisher.ahead is not None:
            publisher.ahead.result()  # while slides are scored, of which there are none here
        meter.note("begun")
        for result in results:
            publisher.add(result)
        meter.note("slides")
        publisher.finish()
        meter.note("last step")


def peak_mib() -> float:
    """High-water mark of this process's resident memory."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))


def objects(endpoint: str, out: str) -> dict[str, tuple[int, int]]:
    """Number and bytes of the objects of an output, by folder; level 0 of pyramids apart."""
    import s3fs

    root = out.removeprefix("s3://")
    found = s3fs.S3FileSystem(endpoint_url=endpoint).find(root, detail=True)
    number, size = Counter[str](), Counter[str]()
    for name, info in found.items():
        parts = name.removeprefix(root).lstrip("/").split("/")
        folder = "/".join(parts[:2]) if parts[0] in ("tables", "stages") else parts[0]
        if parts[0] == "pyramids" and parts[2] == "0" and parts[-1] != "zarr.json":
            folder = "level-0 shards"
        number[folder] += 1
        size[folder] += info["size"]
    return {folder: (number[folder], size[folder]) for folder in sorted(number)}


def measure(
    direct: str, endpoint: str, proxy: Proxy, slide: Path, small: Path, args: argparse.Namespace
) -> None:
    """Put the slides into the bucket, run both, and print what the large one took."""
    import s3fs

    from flows.clusters import open_cluster

    fs = s3fs.S3FileSystem(endpoint_url=direct)
    places = {path: f"s3://bench/slides/{path.name}" for path in (slide, small)}
    for path, place in places.items():
        fs.put_file(str(path), place)
    with open_cluster("local", args.workers).connect() as client:
        for number, where in enumerate([direct] * (2 * args.workers - 1) + [endpoint]):
            score(where, places[small], f"s3://bench/warm{number}", args, client)
        pids: dict[str, int] = client.run(os.getpid)
        threads = {
            pid: client.submit(threading.get_native_id, workers=[worker], pure=False).result()
            for worker, pid in pids.items()
        }
        meter = Meter(threads, proxy)
        log = logging.getLogger("her2core.stages.progress")
        log.setLevel(logging.INFO)
        log.addHandler(meter)
        load = os.getloadavg()[0]
        out = score(endpoint, places[slide], "s3://bench/out", args, client, meter)
        log.removeHandler(meter)
        peaks: dict[str, float] = client.run(peak_mib)
    size = slide.stat().st_size
    print(f"{machine('dask', 's3fs', 'numpy')}; load before {load:.1f}")
    print(
        f"slide of {size / 1e6:.1f} MB, codec {args.codec}, {args.latency_ms:g} ms, {args.mb_s:g} MB/s a "
        f"connection, workers: {args.workers}"
    )
    print("\n".join(meter.table()))
    found = objects(direct, out)
    for folder, (count, held) in found.items():
        print(f"{folder:30}{count:6d} objects{held / 1e6:10.2f} MB{held / size:8.3f} x slide")
    written = sum(row["up"] for row in meter.rows) / size
    few = beside(objects(direct, "s3://bench/warm0"))
    print(f"objects beside level-0 shards: {beside(found)}, of the small slide {few}")
    print(
        f"written: {written:.2f} x the slide's bytes; peak memory of a worker: {max(peaks.values()):.0f} MiB"
    )
    if args.trace:
        lines = ({"stage": s, **{n: getattr(r, n) for n in Request.__slots__}} for s, r in meter.trace)
        args.trace.write_text("".join(json.dumps(line) + "\n" for line in lines))


def race(endpoint: str, rounds: int = 5) -> None:
    """What a worker asks of a store, by both clients in turn: wall time, processor time, megabytes a second.

    Six shards of 2.5 MB stored, 64 ranges of 200 kB read of them at once, and 20 small objects one by one.
    """
    import obstore
    import s3fs
    from obstore.store import S3Store

    shards = {f"race/{number}": os.urandom(2_500_000) for number in range(6)}
    ranges = [(f"race/{number % 6}", 30_000 * number, 30_000 * number + 200_000) for number in range(64)]
    fs = s3fs.S3FileSystem(endpoint_url=endpoint)
    rust = S3Store(
        "bench", endpoint=endpoint, region="us-east-1", virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )  # fmt: skip

    def ours() -> Iterator[int]:
        fs.pipe({f"bench/{path}": body for path, body in shards.items()})
        yield sum(map(len, shards.values()))
        paths, starts, ends = zip(*ranges, strict=True)
        yield sum(map(len, fs.cat_ranges([f"bench/{path}" for path in paths], starts, ends)))
        yield sum(len(fs.cat_file("bench/race/small", max_concurrency=1)) for _ in range(20))

    def theirs() -> Iterator[int]:
        async def put() -> None:
            await asyncio.gather(*(obstore.put_async(rust, path, body) for path, body in shards.items()))

        async def get() -> int:
            asked = (obstore.get_range_async(rust, path, start=low, end=high) for path, low, high in ranges)
            return sum(map(len, await asyncio.gather(*asked)))

        asyncio.run(put())
        yield sum(map(len, shards.values()))
        yield asyncio.run(get())
        yield sum(len(bytes(obstore.get(rust, "race/small").bytes())) for _ in range(20))

    fs.pipe_file("bench/race/small", b"x" * 2000)
    found: dict[tuple[str, str], list[tuple[float, float, int]]] = {}
    for number in range(rounds + 1):
        for name, client in (("s3fs", ours), ("obstore", theirs)):
            asked = client()
            for what in ("6 shards stored", "64 ranges", "20 small, in turn"):
                wall, cpu = time.perf_counter(), time.process_time()
                moved = next(asked)
                spent = time.perf_counter() - wall, time.process_time() - cpu, moved
                if number:  # the first connects
                    found.setdefault((what, name), []).append(spent)
    for (what, name), each in sorted(found.items()):
        wall, cpu = (float(np.median(column)) for column in list(zip(*each, strict=True))[:2])
        speed = each[0][2] / wall / 1e6
        print(f"{what:20}{name:10}{wall * 1e3:8.0f} ms{cpu * 1e3:8.0f} ms CPU{speed:8.1f} MB/s")


def beside(found: dict[str, tuple[int, int]]) -> int:
    """How many objects are of the slide and not level 0 of its pyramid."""
    return sum(number for folder, (number, _) in found.items() if folder.split("/")[0] in OF_A_SLIDE)


OF_A_SLIDE = ("pyramids", "parts", "outlines", "regions", "pictures", "journal", "stages")
"""Folders whose objects are of one slide; beside them are its files of rows, one of each of two tables."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slide", type=Path, help="tiled slide; default: a mosaic of 4 x 4 cores, 525 MP")
    parser.add_argument("--codec", default="source")
    parser.add_argument("--latency-ms", type=float, default=30)
    parser.add_argument("--mb-s", type=float, default=60, help="of one connection, each way")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--trace", type=Path, help="write every request as a line of JSON")
    parser.add_argument("--tables", type=int, nargs="+", help="only the tables of runs of so many slides")
    parser.add_argument("--clients", action="store_true", help="only hold s3fs against obstore")
    parser.add_argument("--folder", type=Path, help="for slides that are made; kept")
    args = parser.parse_args()
    if reason := unavailable():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as temporary:
        args.folder = args.folder or Path(temporary)
        if args.clients:
            with distant_bucket(args.latency_ms / 1e3, args.mb_s * 1e6) as (_, endpoint, _):
                print(machine("s3fs", "obstore"))
                race(endpoint)
            return
        if args.tables:
            with distant_bucket(args.latency_ms / 1e3, args.mb_s * 1e6) as (direct, endpoint, proxy):
                print(machine("s3fs", "deltalake"))
                tables_alone(direct, endpoint, proxy, args)
            return
        slide, small = args.slide or args.folder / "slide.svs", args.folder / "small.svs"
        for path, across in ((slide, 4), (small, 1)):
            if not path.exists():
                print(f"{path.name}: {real_slide(path, across)}", flush=True)
        with distant_bucket(args.latency_ms / 1e3, args.mb_s * 1e6) as (direct, endpoint, proxy):
            measure(direct, endpoint, proxy, slide, small, args)


if __name__ == "__main__":
    main()
