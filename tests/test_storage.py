"""The output store on a folder, on a real S3 server, and on servers that misbehave."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pytest
import zarr

from her2core.config import load_config
from her2core.errors import DiskFullError, ManifestError, SlideError, StoreError
from her2core.intake.manifest import read_manifest
from her2core.records import Assay
from her2core.storage import patient_s3
from her2core.storage.patient_s3 import is_whole
from her2core.storage.s3 import s3_filesystem
from her2core.storage.s3check import check_bucket, check_some
from her2core.storage.sources import file_identity, open_remote, read_small
from her2core.storage.store import WRITE_BYTES, Store, content_key
from tests.conftest import Bucket
from tests.tools import radosgw
from tests.tools.faultproxy import Fault, FaultProxy


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(tmp_path / "out")
    return Store(request.getfixturevalue("s3").uri + "/prefix")


def files(folder: Path) -> list[str]:
    """Names of the files in a folder and below it, temporary ones as well."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_objects_are_written_whole_and_read_in_ranges(store: Store) -> None:
    store.write_bytes("a/b.bin", b"first")
    store.write_bytes("a/b.bin", memoryview(bytearray(b"0123456789")))
    assert store.read_bytes("a/b.bin") == b"0123456789"
    assert store.cat_range("a/b.bin", 2, 5) == b"234"
    assert store.cat_range("a/b.bin", -3, 0) == b"789"
    assert store.size("a/b.bin") == 10
    store.write_json("a/c.json", {"b": 1, "a": [0.1]})
    assert store.read_json("a/c.json") == {"a": [0.1], "b": 1}


def test_listing_and_deleting(store: Store) -> None:
    for path in ("x/2", "x/1", "x/deep/3", "xy", "y"):
        store.write_bytes(path, b"1")
    assert store.list() == ["x", "xy", "y"]
    assert store.list("x") == ["x/1", "x/2", "x/deep"]
    assert store.list("x", recursive=True) == ["x/1", "x/2", "x/deep/3"]
    assert store.list("nothing") == store.list("y") == []
    store.delete("x/1")
    store.delete("x/1")
    assert not store.exists("x/1")
    store.delete("x", recursive=True)
    assert store.list(recursive=True) == ["xy", "y"]
    with pytest.raises(FileNotFoundError):
        store.read_bytes("x/2")
    with pytest.raises(FileNotFoundError):
        store.size("x/2")


def test_only_one_of_many_writers_creates_an_object(store: Store) -> None:
    def write(i: int) -> tuple[int, bool]:
        return i, store.put_if_absent(f"commit/{i % 5}", b"%d" % i)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(write, range(60)))
    winners = {i % 5: i for i, won in outcomes if won}
    assert sum(won for _, won in outcomes) == 5
    assert {k: int(store.read_bytes(f"commit/{k}")) for k in range(5)} == winners


def test_probe_leaves_nothing_behind(store: Store) -> None:
    store.probe()
    assert store.list(recursive=True) == []


def test_a_pickled_store_works_in_another_process_and_holds_no_secret(store: Store) -> None:
    pickled = pickle.dumps(store)
    assert b"testtest" not in pickled
    assert "testtest" not in repr(store)
    environment = {
        k: v for k, v in os.environ.items() if k != "AWS_ENDPOINT_URL"
    }  # the endpoint travels along
    code = f"import pickle; pickle.loads({pickled!r}).write_bytes('from/there', b'hello')"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert store.read_bytes("from/there") == b"hello"


def test_a_forked_child_opens_its_own_connection(store: Store) -> None:
    store.write_bytes("a", b"1")
    child = os.fork()
    if child == 0:
        os._exit(0 if store.read_bytes("a") == b"1" else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_zarr_and_delta_write_into_the_store(store: Store) -> None:
    group = zarr.open_group(store.zarr_store("pyramid", read_only=False), mode="w")
    group.create_array("0", data=np.arange(12).reshape(3, 4), chunks=(2, 2))
    again = pickle.loads(pickle.dumps(store.zarr_store("pyramid")))
    assert np.array_equal(zarr.open_group(again, mode="r")["0"], np.arange(12).reshape(3, 4))
    assert "pyramid/zarr.json" in store.list("pyramid")

    address, options = store.delta_uri("tables/t"), store.storage_options()
    for _ in range(2):
        deltalake.write_deltalake(address, pa.table({"n": [1, 2]}), mode="append", storage_options=options)
    written = deltalake.DeltaTable(address, storage_options=options)
    found = deltalake.QueryBuilder().register("t", written).execute("SELECT n FROM t")
    assert pa.table(found)["n"].to_pylist() == [1, 2] * 2


def test_credentials_come_from_the_shared_file_as_well(
    s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    file.write_text("[lab]\naws_access_key_id = testtest\naws_secret_access_key = testtest\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    code = (
        "import deltalake, pyarrow, sys; from her2core.storage.store import Store;"
        "s = Store(sys.argv[1]); s.probe();"
        "rows = pyarrow.table({'n': [1]});"
        "deltalake.write_deltalake(s.delta_uri('t'), rows, storage_options=s.storage_options())"
    )
    subprocess.run([sys.executable, "-c", code, s3.uri], check=True)
    assert Store(s3.uri).list("t/_delta_log") == ["t/_delta_log/00000000000000000000.json"]


def test_large_objects_are_uploaded_in_parts(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("her2core.storage.store.MULTIPART_BYTES", 5 * 2**20)
    data = np.random.default_rng(1).bytes(11 * 2**20)
    store = Store(s3.uri)
    store.write_bytes("big", data)
    assert store.read_bytes("big") == data
    assert s3_filesystem(s3.endpoint_url).info(store.root + "/big")["ETag"].strip('"').endswith("-3")


@pytest.mark.parametrize("path", ["../up", "/etc/x", "a/../../b", "a\\b", "a\0b"])
def test_paths_stay_inside_the_store(tmp_path: Path, path: str) -> None:
    with pytest.raises(StoreError, match="not a path inside"):
        Store(tmp_path).write_bytes(path, b"")


def test_the_whole_store_is_not_deleted_by_accident(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="refusing to delete"):
        Store(tmp_path).delete("", recursive=True)


@pytest.mark.parametrize(
    ("uri", "endpoint"),
    [
        ("gs://bucket/x", None),
        ("s3://", None),
        ("s3://key:secret@bucket/x", None),
        ("s3://b", "http://key:secret@h"),
    ],
)
def test_addresses_that_cannot_be_used_are_refused_without_repeating_a_secret(
    uri: str, endpoint: str | None
) -> None:
    with pytest.raises(StoreError) as caught:
        Store(uri, endpoint_url=endpoint)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, WRITE_BYTES, WRITE_BYTES + 1, 3 * WRITE_BYTES])
def test_a_file_holds_all_that_was_written_piece_by_piece(tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(1).bytes(size)
    Store(tmp_path).write_bytes("a", memoryview(data))
    assert (tmp_path / "a").read_bytes() == data


def test_a_failed_local_write_leaves_the_old_object_and_no_debris(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_bytes("a", b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (WRITE_BYTES * 3 // 2, before[1]))
    try:
        with pytest.raises(
            DiskFullError, match=rf"{tmp_path}: .*: {2 * WRITE_BYTES} bytes to write, \d+ bytes are"
        ):
            store.write_bytes("a", bytes(2 * WRITE_BYTES))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert files(tmp_path) == ["a"]


def test_a_link_whose_reply_was_lost_counts_as_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def link(source: Path, target: str) -> None:
        real(source, target)
        raise FileExistsError(17, "File exists", target)

    monkeypatch.setattr(os, "link", link)
    assert Store(tmp_path).put_if_absent("a", b"1")


def test_a_folder_without_hard_links_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: Path, target: str) -> None:
        raise PermissionError(1, "Operation not permitted", target)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StoreError, match=r"refuses us .* hard links"):
        Store(tmp_path / "out").probe()
    assert files(tmp_path / "out") == []


def test_a_file_in_place_of_the_folder_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be used"):
        Store(tmp_path / "out").probe()


def test_a_store_that_ignores_the_conditional_put_is_refused(faulty_s3: tuple[Bucket, FaultProxy]) -> None:
    bucket, proxy = faulty_s3
    store = Store(bucket.uri)
    store.probe()
    proxy.faults = [Fault("ignore_condition")]
    with pytest.raises(StoreError, match="ignores the conditional PUT"):
        store.probe()
    assert store.list() == []


def test_a_create_whose_reply_was_lost_counts_as_won(faulty_s3: tuple[Bucket, FaultProxy]) -> None:
    bucket, proxy = faulty_s3
    store = Store(bucket.uri)
    proxy.faults = [Fault("lost_reply", path="mine", times=1)]
    assert store.put_if_absent("mine", b"1")
    assert proxy.hits["lost_reply"] == 1
    assert not store.put_if_absent("mine", b"2")
    assert store.read_bytes("mine") == b"1"


def test_unavailability_and_broken_connections_are_outlasted(faulty_s3: tuple[Bucket, FaultProxy]) -> None:
    bucket, proxy = faulty_s3
    store = Store(bucket.uri)
    proxy.faults = [
        Fault("unavailable", times=4),
        Fault("lost_reply", times=1),
        Fault("truncate", method="GET", path="/a$", times=2),
    ]
    store.write_bytes("a", b"x" * 100_000)
    assert store.read_bytes("a") == b"x" * 100_000
    assert proxy.hits == {"unavailable": 4, "lost_reply": 1, "truncate": 2}


def test_replies_that_say_too_little_are_asked_for_again(
    faulty_s3: tuple[Bucket, FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from what stands between us and the store."""
    monkeypatch.setattr(patient_s3, "FIRST_PAUSE_S", 0.0)
    bucket, proxy = faulty_s3
    store, data = Store(bucket.uri), bytes(range(250)) * 400
    store.write_bytes("f/a", data)
    store.write_bytes("f/none", b"")
    proxy.faults = [
        Fault("empty", method="GET", path="/f/a$", times=3),
        Fault("shorten", method="GET", path="/f/a$", times=3),
        Fault("empty", method="GET", path="list-type", times=2),
        Fault("twice", path="/f/b$"),
    ]
    assert store.read_bytes("f/a") == data
    assert store.cat_range("f/a", 10, 90_000) == data[10:90_000]
    assert store.cat_range("f/a", -50, 0) == data[-50:]
    assert store.read_bytes("f/none") == b""
    assert store.list("f") == ["f/a", "f/none"]
    assert store.put_if_absent("f/b", b"mine")
    assert proxy.hits == {"empty": 5, "shorten": 3, "twice": 1}


@pytest.mark.parametrize(
    ("asked", "answer", "whole"),
    [
        ({}, {"ContentLength": 9, "ETag": '"x"'}, True),
        ({}, {"ContentLength": 0, "ETag": '"x"'}, None),
        ({}, {"ContentLength": 0, "ETag": '"d41d8cd98f00b204e9800998ecf8427e"'}, True),
        ({}, {}, None),
        ({"Range": "bytes=2-5"}, {"ContentLength": 4, "ContentRange": "bytes 2-5/9"}, True),
        ({"Range": "bytes=2-99"}, {"ContentLength": 7, "ContentRange": "bytes 2-8/9"}, True),
        ({"Range": "bytes=2-5"}, {"ContentLength": 3, "ContentRange": "bytes 2-5/9"}, False),
        ({"Range": "bytes=2-5"}, {"ContentLength": 3, "ContentRange": "bytes 2-4/9"}, False),
        ({"Range": "bytes=2-5"}, {"ContentLength": 4, "ContentRange": "bytes 3-6/9"}, False),
        ({"Range": "bytes=2-5"}, {"ContentLength": 4, "ContentRange": "bytes 2-5/*"}, True),
        ({"Range": "bytes=2-5"}, {"ContentLength": 9}, False),
        ({"Range": "bytes=-4"}, {"ContentLength": 4, "ContentRange": "bytes 5-8/9"}, True),
        ({"Range": "bytes=-4"}, {"ContentLength": 3, "ContentRange": "bytes 5-7/9"}, False),
        ({"Range": "bytes=-4"}, {"ContentLength": 3, "ContentRange": "bytes 6-8/9"}, False),
        ({"Range": "bytes=-99"}, {"ContentLength": 9, "ContentRange": "bytes 0-8/9"}, True),
        ({"Range": "bytes=4-"}, {"ContentLength": 5, "ContentRange": "bytes 4-8/9"}, True),
    ],
)
def test_which_replies_to_a_read_are_whole(
    asked: dict[str, str], answer: dict[str, Any], whole: bool | None
) -> None:
    assert is_whole("get_object", asked, answer) is whole


def test_a_bucket_we_may_not_write_to_is_refused_in_words(faulty_s3: tuple[Bucket, FaultProxy]) -> None:
    bucket, proxy = faulty_s3
    proxy.faults = [Fault("forbidden")]
    with pytest.raises(StoreError, match="refuses us"):
        Store(bucket.uri).probe()


def test_a_missing_bucket_and_wrong_credentials_are_refused_in_words(
    s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        Store("s3://no-such-bucket-here/x").probe()
    code = (
        "import sys; from her2core.storage.store import Store; from her2core.errors import StoreError\n"
        "try: Store(sys.argv[1]).probe()\nexcept StoreError as error: sys.exit(str(error))"
    )
    with pytest.raises(ManifestError, match=r"gone.csv at http.*: no such file"):
        read_manifest(f"{s3.uri}/gone.csv")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mistyped")
    with pytest.raises(StoreError, match="the secret key is not that of the access key"):
        check_bucket("s3://another/x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "MISTYPED")
    with pytest.raises(StoreError, match="the access key is not known there"):
        check_bucket("s3://another/x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", radosgw.ACCESS_KEY)
    done = subprocess.run([sys.executable, "-c", code, s3.uri], capture_output=True, text=True)
    assert done.returncode == 1
    assert "refuses us" in done.stderr
    assert "mistyped" not in done.stderr


def test_an_endpoint_nobody_listens_on_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with pytest.raises(StoreError, match=r"s3://b/x at http://127.0.0.1:9 cannot be used"):
        Store("s3://b/x", endpoint_url="http://127.0.0.1:9").probe()


NOBODY = "http://127.0.0.1:9"


def test_every_way_in_says_in_one_line_that_nobody_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOBODY)
    ways: list[Callable[[], object]] = [
        lambda: read_manifest("s3://b/m.csv"),
        lambda: load_config("s3://b/c.yaml", environment={}),
        lambda: Store("s3://b/out").probe(),
        lambda: Store("s3://b/out").reach(),
    ]
    for way in ways:
        with pytest.raises(StoreError, match=r"refuses us: tried to .* without credentials") as none:
            way()
        assert "\n" not in str(none.value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mistyped")
    for way in ways:
        with pytest.raises(StoreError, match=rf"at {NOBODY} cannot be used: .*\(no connection\)") as dead:
            way()
        assert "\n" not in str(dead.value)
        assert "AWS_ENDPOINT_URL" in str(dead.value)
        assert "mistyped" not in str(dead.value)


def test_one_address_of_several_that_cannot_be_reached_is_told_and_none_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOBODY)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    (told,) = check_some([["s3://b/m.csv", "s3://b/out"], [str(tmp_path)]])
    assert f"at {NOBODY} cannot be used" in str(told)
    assert check_some([[str(tmp_path)]]) == check_some([]) == []
    with pytest.raises(StoreError, match="cannot be used"):
        check_some([["s3://b/m.csv"], [str(tmp_path), "s3://c/out"]])


def test_a_server_that_is_no_s3_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(StoreError, match="nobody answers as S3 does"):
            check_bucket("s3://b/x", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_an_overloaded_server_is_not_a_wrong_address(faulty_s3: tuple[Bucket, FaultProxy]) -> None:
    bucket, proxy = faulty_s3
    proxy.faults = [Fault("unavailable", times=3)]
    Store(bucket.uri).probe()
    assert proxy.hits["unavailable"] == 3


@pytest.mark.parametrize(
    "endpoint", ["http://me:hush@host", "http://host/?X-Amz-Signature=hush", "host:9000", "ftp://host"]
)
def test_an_endpoint_that_is_no_plain_address_is_refused(endpoint: str) -> None:
    with pytest.raises(StoreError, match=r"expected http|standard AWS chain") as caught:
        Store("s3://b/x", endpoint_url=endpoint)
    assert "hush" not in str(caught.value)


def test_an_address_with_a_signature_is_refused_and_not_repeated(tmp_path: Path) -> None:
    signed = "s3://b/x?X-Amz-Signature=hush"
    for way in (Store, check_bucket, open_remote, file_identity, lambda uri: read_small(uri, None, 9)):
        with pytest.raises((StoreError, SlideError), match="carries a user name, a signature") as caught:
            way(signed)  # type: ignore[operator]
        assert "hush" not in str(caught.value)


@dataclass(frozen=True)
class Params:
    ladder_od: tuple[float, ...] = (0.05, 0.1)
    width_um: float = 8.0
    assay: Assay = Assay.IHC
    scene: str | None = None


def test_a_content_key_is_pinned() -> None:
    assert content_key("cells", 1, Params(), ["a", "b"]) == "1eba76a26082d7f929469917"


def test_a_content_key_depends_on_values_and_not_on_their_spelling() -> None:
    key = content_key("cells", 1, Params(), ["a", "b"])
    plain = {"scene": None, "assay": "HER2-IHC", "width_um": 8, "ladder_od": [0.05, 0.1]}
    assert content_key("cells", 1, plain, ("a", "b")) == key
    others = [
        content_key("cell", 1, Params(), ["a", "b"]),
        content_key("cells", 2, Params(), ["a", "b"]),
        content_key("cells", 1, Params(), ["b", "a"]),
        content_key("cells", 1, Params(), ["ab"]),
        content_key("cells", 1, Params(width_um=8.000001), ["a", "b"]),
        content_key("cells", 1, Params(scene="None"), ["a", "b"]),
    ]
    assert len({key, *others}) == 1 + len(others)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), {1: 2}, b"x"])
def test_what_has_no_canonical_text_has_no_key(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        content_key("s", 1, {"v": value}, [])
