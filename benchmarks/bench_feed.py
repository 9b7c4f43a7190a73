"""How many workers one driver keeps busy, and what a slide costs driver, scheduler, server and store.

    python benchmarks/bench_feed.py feed [--workers 16 64 256] [--slides 3] [--slower 8]
    python benchmarks/bench_feed.py cohort [--slides 200] [--workers 2] [--s3]

``feed`` runs the real flow, Prefect server, Dask scheduler, lease, journal, records and tables over slides of
two gigapixels that do not exist. Workers are real Dask workers, many in a process; in them alone what reads,
converts and measures pixels is replaced by sleeps as long as that takes (`LENGTHS_S`), and writes small
objects in the places of the real ones. Where this machine is too small to carry driver, scheduler, server and
workers at once, ``--slower`` makes every sleep so many times as long: busy shares are then those of a machine
so many times as fast. The busy share is counted between 15 and 70 % of the work, without beginning and end.

``cohort`` scores real, tiny slides with nothing replaced, on a folder or (``--s3``) on moto's server behind a
proxy that counts requests.

Processor time is that of each process, all threads, from the first slide to the last; the tables' last step
is told apart.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("AWS_ACCESS_KEY_ID", "bench")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "bench")
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

import argparse
import asyncio
import csv
import logging
import math
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from records import Template, templates
from slides import machine

from flows import server_process
from her2core.records import Assay, PyramidRef, SlideInfo, SlideProfile, SlideRow

SIDE_PX = 44_720
"""Edge of a slide of two gigapixels."""
SHARD_PX = 4096
LENGTHS_S = {"inspect": 0.1, "shard": 0.10, "top": 0.3, "profile": 4.6, "unit": 0.4, "slide": 6.8}
"""Processor seconds of a slide's parts. Ours: 6 ms a megapixel to copy tiles, 12.9 to measure cells (in 64
units whether they hold tissue or not), 2.3 for the profile and 3.4 for the slide."""
WINDOW = (0.15, 0.70)
"""Part of the work in which busy workers are counted."""


# workers


def sleep(what: str) -> None:
    """Work: as long as it takes, and noted."""
    begun = time.time()
    time.sleep(LENGTHS_S[what] * _host["slower"])
    _host["log"].write(f"{begun} {time.time()}\n")


_host: dict[str, Any] = {}


def replace_kernels(template: Template, slower: float, log: Path) -> None:
    """Let this process sleep where a worker computes; everything else stays."""
    from her2core.pyramid.reader import shard_key
    from her2core.stages import cells, parts, prepare, slide_ihc
    from her2core.stages.source import Source

    _host.update(slower=slower, log=log.open("w", buffering=1))
    done = template.finished.outcome
    assert done.info is not None
    assert done.pyramid is not None
    assert done.profile is not None
    ref, profile = done.pyramid, done.profile
    level = replace(done.info.levels[0], height=SIDE_PX, width=SIDE_PX)
    base = replace(done.info, levels=(level, *done.info.levels[1:]), size_bytes=300_000_000)

    def inspect(row: SlideRow, scratch: Any, endpoint: str | None, roi: Any) -> Source:
        sleep("inspect")
        info: SlideInfo = replace(base, uri=row.uri, identity=f"1-{row.slide_id}")
        return Source(info, row, scratch, endpoint, "stamp")

    def write_shards(
        reader: Any, store: Any, path: str, grid: Any, params: Any, tasks: Sequence[tuple[int, int]]
    ) -> None:
        for task in tasks:
            box = grid.task_box(*task)
            for _ in range(math.ceil(box.height / grid.shard) * math.ceil(box.width / grid.shard)):
                sleep("shard")
            store.write_bytes(shard_key(path, 0, *grid.last_shard(*task)), b"shards")

    def finish_pyramid(opened: Source, store: Any, path: str, grid: Any, settled: Any) -> PyramidRef:
        sleep("top")
        store.write_bytes(f"{path}/zarr.json", b"{}")
        return replace(ref, path=path, identity=opened.info.identity, shapes=grid.shapes, shard=grid.shard)

    def build(store: Any, ref: PyramidRef, params: Any, assay: Assay, label: str) -> SlideProfile:
        sleep("profile")
        return replace(profile, tissue_label=label)

    def units(store: Any, ref: PyramidRef, frozen: Any, params: Any, folder: str, *_: Any) -> list[Any]:
        side = math.ceil(SIDE_PX / (parts.UNIT_SHARDS * ref.shard))
        at = [(y, x, x - x % parts.PART_UNITS) for y in range(side) for x in range(side)]
        return [
            cells.Unit(
                store, ref, frozen, params, 0, cells.Box(y, x, y, x), f"{folder}/{y:05d}-{first:05d}.parquet"
            )
            for y, x, first in at
        ]

    def measure(units: Sequence[Any], there: Any) -> int:
        for part, members in cells.by_part(units).items():
            for _ in members:
                sleep("unit")
            members[0].store.write_bytes(part, b"part")
        return 1000 * len(units)

    def finish(job: Any, key: str) -> Any:
        sleep("slide")
        for name in ("", "-regions", "-fields"):
            job.store.write_bytes(f"pictures/{job.row.slide_id}{name}-{key[:8]}.png", b"png")
        made = template.like(job.row, key, job.store)
        return replace(made, outcome=replace(made.outcome, info=job.info, pyramid=job.pyramid))

    nobody: Any = nullcontext()
    for module, put in (
        (prepare, {"inspect": inspect, "finish_pyramid": finish_pyramid, "profile": build}),
        (prepare.pyramid, {"write_shards": write_shards}),
        (cells, {"units": units, "measure": measure}),
        (slide_ihc, {"finish_ihc": finish}),
        (Source, {"opened": lambda self: nobody, "require_unchanged": lambda self: None}),
    ):
        for name, function in put.items():
            setattr(module, name, function)


def host(address: str, count: int, folder: Path, slower: float, number: int) -> None:
    """Be ``count`` workers of one thread each, until the scheduler is gone.

    None samples its own stack: hundreds of workers in a process would do nothing else.
    """
    import dask
    from distributed import Worker

    from flows.clusters import SETTINGS

    template: Template = pickle.loads((folder / "template").read_bytes())  # noqa: S301, we wrote it
    replace_kernels(template, slower, folder / f"work-{number}.log")

    async def work() -> None:
        options: dict[str, Any] = {"nthreads": 1, "dashboard": False, "memory_limit": 0}
        with dask.config.set(SETTINGS):
            workers = [
                await Worker(address, name=f"{number}-{i}", local_directory=str(folder), **options)  # type: ignore[no-untyped-call]
                for i in range(count)
            ]
            await asyncio.gather(*(worker.finished() for worker in workers))

    asyncio.run(work())


def scheduler(folder: Path) -> None:
    """A scheduler as a run's own; its address is left in a file."""
    import dask
    from distributed import Scheduler

    from flows.clusters import SETTINGS

    async def work() -> None:
        with dask.config.set(SETTINGS):
            one = await Scheduler(host="127.0.0.1", dashboard=False)  # type: ignore[no-untyped-call]
            (folder / "address.part").write_text(one.address)
            (folder / "address.part").rename(folder / "address")
            await one.finished()  # type: ignore[no-untyped-call]

    asyncio.run(work())


@contextmanager
def cluster(
    folder: Path, workers: int, slower: float, hosts: int
) -> Iterator[tuple[str, dict[str, list[int]]]]:
    """A scheduler and its simulated workers: its address, and the processes by role."""
    from distributed import Client

    def start(*words: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, __file__, *map(str, words)])

    processes = [start("--scheduler", folder)]
    try:
        while not (folder / "address").exists():
            time.sleep(0.1)
        address = (folder / "address").read_text()
        for number in range(hosts):
            count = workers * (number + 1) // hosts - workers * number // hosts
            processes.append(start("--host", address, count, folder, slower, number))
        with Client(address, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(workers, timeout=600)  # type: ignore[no-untyped-call]
        pids = [process.pid for process in processes]
        yield address, {"scheduler": pids[:1], "workers": pids[1:]}
    finally:
        for process in processes:
            process.kill()
            process.wait()


# what it costs


class Spent(logging.Handler):
    """Processor seconds of every role when the first slide began, when the last ended, and at the end."""

    def __init__(self, roles: Mapping[str, list[int]]) -> None:
        super().__init__(logging.INFO)
        self.roles = dict(roles)
        self.marks: dict[str, dict[str, float]] = {}
        self.slides = self.ended = 0
        self.threads: list[tuple[float, dict[int, dict[str, tuple[float, float]]]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        step = getattr(record, "progress", None)
        if step is None:
            return
        if step.slide_id == "cohort":
            if step.done == 0:
                self.slides = step.total
                self.mark("begun")
            elif step.done == step.total:
                self.mark("scored")
        elif step.stage == "ended":
            self.ended += 1
            if self.ended in {round(share * self.slides) for share in WINDOW}:
                found = {pid: _spent_and_waited(pid) for pid in self.roles.get("workers", ())}
                self.threads.append((time.time(), found))

    def busy(self, workers: int) -> float:
        """Share of `WINDOW` that workers were at work, less what they waited for a processor."""
        (begin, before), (end, after) = self.threads[0], self.threads[-1]
        shares = []
        for pid, threads in after.items():
            known = before.get(pid, {})
            spent = []
            for thread, (cpu, waited) in threads.items():
                already = known.get(thread, (0.0, 0.0))
                spent.append((cpu - already[0], waited - already[1]))
            cpu, (_, waited) = sum(cpu for cpu, _ in spent), max(spent, default=(0.0, 0.0))
            shares.append(cpu / max(end - begin - waited, cpu, 1e-9))
        return sum(sorted(shares)[-workers:]) / workers

    def mark(self, name: str) -> None:
        me = psutil.Process()
        known = {pid for pids in self.roles.values() for pid in pids}
        if name == "begun":  # children that are not the cluster's: Prefect's server, or a local cluster
            for child in me.children(recursive=True):
                words = " ".join(child.cmdline())
                role = "Prefect server" if child.name() == server_process.NAME else "workers"
                if child.pid not in known and "resource_tracker" not in words:
                    self.roles.setdefault(role, []).append(child.pid)
        spent = {"driver": sum(me.cpu_times()[:2]), "wall": time.time()}
        for role, pids in self.roles.items():
            with suppress(psutil.NoSuchProcess):  # after the run some have gone
                spent[role] = sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)
        self.marks[name] = spent

    def lines(self, slides: int) -> Iterator[str]:
        begun, scored, ended = (self.marks[name] for name in ("begun", "scored", "ended"))
        for role in ("driver", *self.roles):
            yield f"{role:16}{(scored[role] - begun[role]) / slides:8.3f} CPU s a slide"
        last = ended["driver"] - scored["driver"]
        yield f"{'last step':16}{last:8.1f} CPU s of the driver, {ended['wall'] - scored['wall']:.1f} s"


def _spent_and_waited(pid: int) -> dict[str, tuple[float, float]]:
    """Seconds that each thread of a process had a processor, and waited for one."""
    found = {}
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            cpu, waited, _ = map(int, (thread / "schedstat").read_text().split())
            found[thread.name] = cpu / 1e9, waited / 1e9
    return found


@contextmanager
def counted(roles: Mapping[str, list[int]]) -> Iterator[Spent]:
    """Count what is spent by a run."""
    from her2core.stages.progress import log

    spent = Spent(roles)
    log.addHandler(spent)
    log.setLevel(logging.INFO)
    try:
        yield spent
    finally:
        log.removeHandler(spent)


def busy_share(folder: Path, workers: int) -> tuple[float, float]:
    """Share of the workers that were at work, and all work in seconds."""
    work = []
    for log in folder.glob("work-*.log"):
        work += [tuple(map(float, line.split())) for line in log.read_text().splitlines()]
    work.sort()
    total, done = sum(end - begin for begin, end in work), 0.0
    edges: list[float] = []
    for begin, end in work:
        done += end - begin
        if len(edges) < len(WINDOW) and done >= WINDOW[len(edges)] * total:
            edges.append(begin)
    first, last = edges
    inside = sum(max(0.0, min(end, last) - max(begin, first)) for begin, end in work)
    return inside / (workers * (last - first)), total


def write_manifest(path: Path, slides: Mapping[str, str]) -> None:
    """Two slides a case."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["slide_id", "case_id", "uri", "assay", "block_id"])
        for number, (name, uri) in enumerate(slides.items()):
            table.writerow([name, f"case-{number // 2}", uri, Assay.IHC, f"b{number % 2}"])


def feed(folder: Path, template: Template, workers: int, each: float, slower: float, hosts: int) -> None:
    """One run over slides that do not exist; print what it found."""
    from flows import run_cohort

    slides = round(each * workers)
    folder.mkdir()
    (folder / "template").write_bytes(pickle.dumps(template))
    manifest = folder / "manifest.csv"
    write_manifest(manifest, {f"s{n:05d}": f"/nowhere/s{n:05d}.svs" for n in range(slides)})
    (folder / "config.yaml").write_text("run: {report: false}\n")
    with cluster(folder, workers, slower, hosts) as (address, roles), counted(roles) as spent:
        begun = time.time()
        summary = run_cohort(str(manifest), str(folder / "out"), str(folder / "config.yaml"), address)
        spent.mark("ended")
        wall = time.time() - begun
    assert summary.complete, summary.lines()
    busy, total = busy_share(folder, workers)
    scored = spent.marks["scored"]["wall"] - spent.marks["begun"]["wall"]
    print(
        f"\n{workers} workers, {slides} slides of {total / slides / slower:.0f} s, sleeps x {slower:g}: "
        f"{busy:.0%} busy; {slides / scored:.2f} slides/s; {wall:.0f} s in all"
    )
    print(*spent.lines(slides), sep="\n", flush=True)
    shutil.rmtree(folder)


# real slides


def cohort(folder: Path, slides: int, workers: int, *, s3: bool, side: int) -> None:
    """Score real, tiny slides; print what each cost."""
    from bench_codecs import bucket

    from flows import run_cohort
    from her2core.phantom import PhantomSpec, plant
    from her2core.phantom.slides import write_slide
    from her2core.storage.store import Store

    names = {}
    for number in range(slides):
        path = folder / f"s{number:05d}.tif"
        if number < 8:
            spec = PhantomSpec(seed=number, height_px=side, width_px=side, mix=(0.2, 0.2, 0.2, 0.2, 0.2))
            write_slide(path, plant(spec))
        else:  # the same pixels under another name and of another size are another slide
            path.write_bytes((folder / f"s{number % 8:05d}.tif").read_bytes() + b"\0" * number)
        names[f"s{number:05d}"] = str(path)
    write_manifest(folder / "manifest.csv", names)
    (folder / "config.yaml").write_text(f"run: {{report: false, workers: {workers}}}\n")
    with ExitStack() as stack:
        out, requests = str(folder / "out"), None
        if s3:
            endpoint, requests = stack.enter_context(bucket(0.0, 1e9))
            os.environ["AWS_ENDPOINT_URL_S3"], out = endpoint, "s3://bench/out"
        spent = stack.enter_context(counted({}))
        summary = run_cohort(str(folder / "manifest.csv"), out, str(folder / "config.yaml"))
        spent.mark("ended")
        states = dict(summary.states)
        wall = spent.marks["scored"]["wall"] - spent.marks["begun"]["wall"]
        print(f"\n{slides} slides of {side} px, {workers} workers: {states}; {wall:.0f} s")
        print(*spent.lines(slides), sep="\n")
        print(f"{'workers busy':16}{spent.busy(workers):8.0%}, less what they waited for a processor")
        if requests is not None:
            print(f"{'requests':16}{requests.now()[0] / slides:8.1f} a slide, tables included")
        found = Store(out).list(recursive=True)
        kinds: dict[str, int] = {}
        for name in found:
            kinds[name.split("/")[0]] = kinds.get(name.split("/")[0], 0) + 1
        shares = ", ".join(f"{kind} {count / slides:.1f}" for kind, count in sorted(kinds.items()))
        print(f"{'objects':16}{len(found) / slides:8.1f} a slide: {shares}", flush=True)


def main() -> None:
    logging.getLogger("distributed").setLevel(logging.ERROR)
    if sys.argv[1:2] == ["--scheduler"]:
        scheduler(Path(sys.argv[2]))
        return
    if sys.argv[1:2] == ["--host"]:
        address, count, folder, slower, number = sys.argv[2:]
        host(address, int(count), Path(folder), float(slower), int(number))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    modes = parser.add_subparsers(dest="mode")
    one = modes.add_parser("feed")
    one.add_argument("--workers", type=int, nargs="+", default=[16, 64, 256])
    one.add_argument("--slides", type=float, default=3, help="slides a worker")
    one.add_argument("--slower", type=float, default=8, help="factor of all sleeps")
    one.add_argument("--hosts", type=int, default=4, help="processes that hold the workers")
    two = modes.add_parser("cohort")
    two.add_argument("--slides", type=int, default=200)
    two.add_argument("--workers", type=int, default=2)
    two.add_argument("--side", type=int, default=1024, help="edge of a slide, px")
    two.add_argument("--s3", action="store_true")
    args = parser.parse_args(sys.argv[1:] or ["feed"])
    print(machine("prefect", "dask", "deltalake", "s3fs"))
    with tempfile.TemporaryDirectory(prefix="her2-feed-") as name:
        folder = Path(name)
        if args.mode == "cohort":
            cohort(folder, args.slides, args.workers, s3=args.s3, side=args.side)
            return
        template = templates(folder)[Assay.IHC]
        for workers in args.workers:
            feed(folder / str(workers), template, workers, args.slides, args.slower, args.hosts)


if __name__ == "__main__":
    main()
