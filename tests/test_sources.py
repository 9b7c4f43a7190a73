"""Slide files where they lie: identity, ranged reads, and bounded scratch shared by tasks and processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from her2core.errors import Reason, ScratchError, SlideError, StoreError
from her2core.params import PyramidParams, RoiParams
from her2core.phantom import PhantomSpec, plant
from her2core.phantom.slides import write_slide
from her2core.pyramid.writer import grid_of, shards_done
from her2core.records import Assay, SlideRow
from her2core.stages import prepare
from her2core.storage import sources
from her2core.storage.s3 import s3_filesystem
from her2core.storage.sources import Scratch, file_identity, open_remote
from her2core.storage.store import Store
from tests.conftest import Bucket
from tests.tools.faultproxy import Fault, FaultProxy

Put = Callable[[str, bytes], str]


@pytest.fixture
def put(s3: Bucket) -> Put:
    """Write an object into a fresh bucket; returns its URI."""

    def write(name: str, data: bytes) -> str:
        s3_filesystem(s3.endpoint_url).pipe_file(f"{s3.uri.removeprefix('s3://')}/{name}", data)
        return f"{s3.uri}/{name}"

    return write


def staged(scratch: Scratch) -> list[str]:
    """Names of the copies that lie in the scratch folder now."""
    folder = Path(scratch.directory)
    return sorted(
        p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock" and p.name != "space"
    )


def test_identity_of_a_local_file_is_its_content(tmp_path: Path) -> None:
    a, b = tmp_path / "a.svs", tmp_path / "b.svs"
    a.write_bytes(b"pixels")
    b.write_bytes(b"pixels")
    expected = f"6-{hashlib.sha256(b'pixels').hexdigest()}"
    assert file_identity(str(a)) == file_identity(f"file://{b}") == (6, expected)
    a.write_bytes(b"others")
    os.utime(a, (1, 1))
    assert file_identity(str(a)) != file_identity(str(b))


def test_identity_of_a_slide_of_several_files_covers_all_of_them(tmp_path: Path) -> None:
    slide = tmp_path / "s.mrxs"
    slide.write_bytes(b"head")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "Data0000.dat").write_bytes(b"body")
    size, whole = file_identity(str(slide))
    assert size == 8
    (tmp_path / "s" / "Data0000.dat").write_bytes(b"BODY")
    os.utime(tmp_path / "s" / "Data0000.dat", (1, 1))
    assert file_identity(str(slide))[1] != whole


VMS = (
    b"[Virtual Microscope Specimen]\r\nNoJpegColumns=2\r\nImageFile=a.jpg\r\nImageFile(1,0) = a(1,0).jpg\r\n"
    b"MapFile=a_map.jpg\r\nMacroImage=../secret.jpg\r\nOptimisationFile=gone.opt\r\n"
)


def test_a_key_file_brings_the_pictures_that_it_names(tmp_path: Path, put: Put) -> None:
    parts = {"a.vms": VMS, "a.jpg": b"12", "a(1,0).jpg": b"345", "a_map.jpg": b"6", "b.jpg": b"no part of it"}
    for name, content in parts.items():
        (tmp_path / name).write_bytes(content)
        remote = put(f"slide/{name}", content).rpartition("/")[0] + "/a.vms"
    size, identity = file_identity(str(tmp_path / "a.vms"))
    assert size == file_identity(remote)[0] == len(VMS) + 6
    with Scratch(str(tmp_path / "scratch"), 1000).stage(remote) as path:
        assert {p.name for p in path.parent.iterdir()} == parts.keys() - {"b.jpg"}
    (tmp_path / "a(1,0).jpg").write_bytes(b"543")
    os.utime(tmp_path / "a(1,0).jpg", (1, 1))
    assert file_identity(str(tmp_path / "a.vms"))[1] != identity


def test_identity_of_a_remote_file_is_its_size_and_etag(put: Put) -> None:
    uri = put("a.svs", b"pixels")
    assert file_identity(uri) == (6, f"6-{hashlib.md5(b'pixels').hexdigest()}")
    assert file_identity(put("a.svs", b"others")) != file_identity(put("b.svs", b"pixels"))
    assert file_identity(put("dicom/1.dcm", b"12").removesuffix("/1.dcm"))[0] == 2


@pytest.mark.parametrize(
    ("name", "reason"), [("none.svs", Reason.FILE_MISSING), ("empty.svs", Reason.FILE_EMPTY)]
)
def test_missing_and_empty_files_have_a_reason(tmp_path: Path, put: Put, name: str, reason: Reason) -> None:
    (tmp_path / "empty.svs").touch()
    remote = put("empty.svs", b"").rpartition("/")[0]
    for folder in (str(tmp_path), remote):
        with pytest.raises(SlideError) as caught:
            file_identity(f"{folder}/{name}")
        assert caught.value.reason == reason


def test_a_remote_file_is_read_by_ranges(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "RANGE_BLOCK_BYTES", 1000)
    data = bytes(range(256)) * 400
    with open_remote(put("a.tif", data)) as file:
        for at in (0, 90_000, 5, 50_001):
            file.seek(at)
            assert file.read(300) == data[at : at + 300]


def test_a_local_slide_is_its_own_copy(tmp_path: Path) -> None:
    slide = tmp_path / "a.svs"
    slide.write_bytes(b"1")
    with Scratch(str(tmp_path / "scratch"), 1).stage(str(slide)) as path:
        assert path == slide


def test_copies_are_bounded_and_the_longest_idle_goes_first(tmp_path: Path, put: Put) -> None:
    scratch = Scratch(str(tmp_path), 250)
    uris = [put(f"{name}.svs", name.encode() * 100) for name in "abc"]
    for uri in (uris[0], uris[1], uris[0]):
        with scratch.stage(uri) as path:
            assert path.read_bytes() == path.stem.encode() * 100
    with scratch.stage(uris[2]):
        assert staged(scratch) == ["a.svs", "c.svs"]
    scratch.clear()
    assert staged(scratch) == []


def test_a_copy_in_use_is_never_evicted(tmp_path: Path, put: Put) -> None:
    scratch = Scratch(str(tmp_path), 150)
    a, b = put("a.svs", b"a" * 100), put("b.svs", b"b" * 100)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> bytes:
        with scratch.stage(a) as path:
            entered.set()
            leave.wait(60)
            return path.read_bytes()

    def want() -> bytes:
        with scratch.stage(b) as path:
            return path.read_bytes()

    with ThreadPoolExecutor(2) as pool:
        holder = pool.submit(hold)
        entered.wait(60)
        waiter = pool.submit(want)
        time.sleep(1)
        scratch.clear()
        assert not waiter.done()
        assert staged(scratch) == ["a.svs"]
        leave.set()
        assert holder.result() == b"a" * 100
        assert waiter.result(60) == b"b" * 100


def _stage_in_a_process(directory: str, uri: str, ready: int) -> bytes:
    with Scratch(directory, 10_000_000).stage(uri) as path:
        return path.read_bytes()[:10]


def test_tasks_of_one_machine_download_a_slide_once(
    tmp_path: Path, faulty_s3: tuple[Bucket, FaultProxy]
) -> None:
    bucket, proxy = faulty_s3
    uri = f"{bucket.uri}/a.svs"
    s3_filesystem(bucket.endpoint_url).pipe_file(uri.removeprefix("s3://"), b"0123456789" * 100_000)
    proxy.faults = [Fault("nothing", method="GET", path=r"/a\.svs")]  # only counts
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        jobs = [pool.apply_async(_stage_in_a_process, (str(tmp_path), uri, i)) for i in range(9)]
        assert {job.get(120) for job in jobs} == {b"0123456789"}
    assert proxy.hits["nothing"] == 1


def test_a_slide_larger_than_the_bound_is_refused_in_words(tmp_path: Path, put: Put) -> None:
    scratch = Scratch(str(tmp_path), 99)
    with (
        pytest.raises(StoreError, match=r"100 bytes do not fit .* raise run.scratch_bytes"),
        scratch.stage(put("a.svs", b"a" * 100)),
    ):
        pass
    assert staged(scratch) == []


def test_a_broken_download_leaves_no_copy_and_gives_its_space_back(
    tmp_path: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = Scratch(str(tmp_path), 100)
    uri = put("a.svs", b"a" * 100)

    class Broken:
        def __init__(self, fs: object) -> None:
            self.info, self.find = fs.info, fs.find  # type: ignore[attr-defined]

        def get_file(self, place: str, target: str) -> None:
            Path(target).write_bytes(b"a" * 50)

    real = sources.s3_filesystem
    with monkeypatch.context() as patch:
        patch.setattr(sources, "s3_filesystem", lambda endpoint: Broken(real(endpoint)))
        with pytest.raises(OSError, match=r"50 bytes of a.svs arrived, expected 100"), scratch.stage(uri):
            pass
    assert staged(scratch) == []
    with scratch.stage(uri) as path:
        assert path.read_bytes() == b"a" * 100


def test_what_a_killed_download_left_is_used_up_again(tmp_path: Path, put: Put) -> None:
    scratch = Scratch(str(tmp_path), 100)
    (tmp_path / "dead.part").mkdir()
    (tmp_path / "dead.part" / "x.svs").write_bytes(b"x" * 60)
    (tmp_path / "dead.lock").write_bytes(b"60")
    with scratch.stage(put("a.svs", b"a" * 100)):
        assert staged(scratch) == ["a.svs"]


def test_a_folder_slide_is_staged_whole(tmp_path: Path, put: Put) -> None:
    put("s/Index.dat", b"2")
    put("s/deep/Data.dat", b"3")
    with Scratch(str(tmp_path), 100).stage(put("s.mrxs", b"1")) as path:
        assert path.name == "s.mrxs"
        assert (path.parent / "s" / "deep" / "Data.dat").read_bytes() == b"3"


def test_a_full_scratch_disk_is_told_with_path_and_need(
    tmp_path: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2))
    scratch = Scratch(str(tmp_path), 1000)
    told = rf"3 bytes to stage, but {tmp_path} has 2 bytes free"
    with pytest.raises(ScratchError, match=told), scratch.stage(put("a.ndpi", b"abc")):
        pass
    assert staged(scratch) == []


def test_idle_copies_make_room_on_a_full_disk(
    tmp_path: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage, scratch = shutil.disk_usage(tmp_path), Scratch(str(tmp_path), 1000)

    def disk_usage(path: object) -> object:
        return usage._replace(free=100 - sum(f.stat().st_size for f in tmp_path.rglob("*.ndpi")))

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    for name in ("a", "b", "c"):
        with scratch.stage(put(f"{name}.ndpi", name.encode() * 60)) as path:
            assert path.read_bytes() == name.encode() * 60


def test_a_scratch_folder_that_cannot_be_made_is_told(tmp_path: Path, put: Put) -> None:
    (tmp_path / "file").touch()
    scratch = Scratch(str(tmp_path / "file" / "scratch"), 1000)
    with pytest.raises(ScratchError, match=r"run\.scratch_dir"), scratch.stage(put("a.ndpi", b"abc")):
        pass


def test_a_slide_replaced_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    """And a file that was only touched is the same slide."""
    path, params = tmp_path / "slide.tif", PyramidParams(chunk=128, shard=256)
    write_slide(path, plant(PhantomSpec(seed=1, height_px=256, width_px=512)))
    source = prepare.inspect(
        SlideRow("s", "c", str(path), Assay.IHC), Scratch(str(tmp_path), 1), None, RoiParams()
    )
    store, grid = Store(tmp_path / "out"), grid_of(256, 512, params)
    path.touch()
    prepare.shard(source, store, "p", grid, params, (0, 0))
    assert (0, 0) in shards_done(store, "p", grid)
    other = tmp_path / "other.tif"
    write_slide(other, plant(PhantomSpec(seed=2, height_px=256, width_px=512)))
    other.replace(path)
    with pytest.raises(SlideError, match="replaced while it was read") as caught:
        prepare.shard(source, store, "p", grid, params, (0, 1))
    assert caught.value.reason == Reason.FILE_CHANGED
    assert (0, 1) not in shards_done(store, "p", grid)
