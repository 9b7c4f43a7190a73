"""A store that answers nothing for minutes: it is waited for once, and given up in words."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, SSLError
from deltalake.exceptions import DeltaError

from her2core.errors import StoreError
from her2core.lake import tables
from her2core.storage import patience, patient_s3, s3, s3check
from her2core.storage.patience import Gate, in_trouble
from her2core.storage.patient_s3 import PatientS3FileSystem
from her2core.storage.store import Store
from tests.conftest import Bucket
from tests.tools.faultproxy import Fault, FaultProxy


def outage() -> list[Fault]:
    return [Fault("unavailable", method=method) for method in ("GET", "HEAD", "PUT", "DELETE")]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience of a second, and one request a try."""
    monkeypatch.setattr(patience, "PATIENCE_S", 1.0)
    monkeypatch.setattr(s3, "TRY_RETRIES", 0)
    monkeypatch.setattr(PatientS3FileSystem, "retries", 1)
    monkeypatch.setattr(patient_s3, "FIRST_PAUSE_S", 0.1)


def test_an_outage_is_waited_for_once_and_the_store_is_used_again_when_it_is_back(
    quick: None, faulty_s3: tuple[Bucket, FaultProxy], caplog: pytest.LogCaptureFixture
) -> None:
    bucket, proxy = faulty_s3
    store = Store(bucket.uri)
    proxy.faults = outage()
    for tries in (2, 1, 1):
        before = proxy.hits["unavailable"]
        with pytest.raises(OSError) as caught:
            store.write_bytes("a", b"1")
        assert in_trouble(caught.value)
        assert (proxy.hits["unavailable"] - before == 1) is (tries == 1)
    proxy.faults = []
    store.write_bytes("a", b"2")
    assert store.read_bytes("a") == b"2"
    said = [record.getMessage() for record in caplog.records if record.name == patience.__name__]
    assert len(said) == 2
    assert said[0].startswith(f"the store at {bucket.endpoint_url} has let us write nothing for ")
    assert said[0].endswith("(SlowDown), and is given up")
    assert said[1] == f"the store at {bucket.endpoint_url} lets us write again"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time that gates see."""
    now = [0.0]
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def at(seconds: float) -> None:
        now[0] = seconds

    return at


def test_a_gate_waits_ten_minutes_and_then_nobody_waits(
    clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    gate, error = Gate("the store at x", "read", answered=0.0), OSError("gone")
    caplog.set_level(logging.WARNING)
    for second in range(10, 610, 10):
        clock(second)
        assert gate.is_worth_waiting(5.0, error), second
    assert len(caplog.messages) == 5  # after 25 s, and every two minutes
    clock(606.0)
    assert not gate.is_worth_waiting(5.0, error)
    assert not gate.is_worth_waiting(605.0, error)  # another request, which has just begun
    gate.let_through()
    clock(700.0)
    assert gate.is_worth_waiting(690.0, error)


def test_one_request_that_fails_beside_others_is_given_up_sooner_and_shuts_nobody_out(
    clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    gate, error = Gate("the store at x", "read"), OSError("odd object")
    clock(230.0)
    gate.let_through()
    assert gate.is_worth_waiting(1.0, error)
    clock(242.0)
    assert not gate.is_worth_waiting(1.0, error)
    assert gate.is_worth_waiting(241.0, error)
    assert caplog.messages == [
        "the store at x answers others, but one request to read has failed for 241 s (odd object), "
        "and is given up"
    ]


def test_requests_in_flight_when_an_outage_begins_wait_as_long_as_any(clock: Callable[[float], None]) -> None:
    """One beside them was still answered."""
    gate, error = Gate("the store at x", "write", answered=0.0), OSError("gone")
    clock(2.0)
    gate.let_through()
    for second in range(12, 602, 10):
        clock(second)
        assert gate.is_worth_waiting(1.0, error), second
    clock(603.0)
    assert not gate.is_worth_waiting(1.0, error)
    assert not gate.is_worth_waiting(602.0, error)


@pytest.mark.parametrize(
    ("status", "code", "trouble"),
    [
        (503, "SlowDown", True),
        (503, "503", True),  # of a balancer, without a word of S3's
        (429, "429", True),
        (500, "InternalError", True),
        (200, "InternalError", True),  # of a multipart upload that ends badly
        (400, "RequestTimeout", True),
        (501, "NotImplemented", False),
        (404, "NoSuchKey", False),
        (403, "AccessDenied", False),
        (412, "PreconditionFailed", False),
    ],
)
def test_which_refusals_pass_by_themselves(status: int, code: str, trouble: bool) -> None:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = OSError("what s3fs says")
    error.__cause__ = ClientError(answer, "PutObject")  # type: ignore[arg-type]
    assert in_trouble(error) is trouble


def test_which_broken_connections_pass_by_themselves() -> None:
    assert in_trouble(EndpointConnectionError(endpoint_url="http://x"))
    assert not in_trouble(SSLError(endpoint_url="https://x", error="certificate"))
    assert not in_trouble(FileNotFoundError("x"))


def test_a_server_that_stays_overloaded_is_told_before_anything_begins(
    faulty_s3: tuple[Bucket, FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, proxy = faulty_s3
    proxy.faults = outage()
    monkeypatch.setattr(s3check, "OVERLOAD_S", 0.0)
    with pytest.raises(
        StoreError, match=r"is overloaded: tried to read it, .*SlowDown; run the same command"
    ):
        Store(bucket.uri).reach()


def test_commits_wait_for_the_store_and_say_when_it_is_gone(
    quick: None, faulty_s3: tuple[Bucket, FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delta Lake's client gives up after some seconds, with errors of several kinds."""
    bucket, proxy = faulty_s3
    monkeypatch.setattr(tables, "PAUSES_S", (0.0, 0.0, 0.0))
    store, errors = Store(bucket.uri), [
        DeltaError("Generic DeltaTable error: Error interacting with object store: Generic S3 error: 503"),
        OSError("Generic S3 error"),
        DeltaError("Kernel error: No table metadata or protocol found in delta log."),  # one came empty
    ]  # fmt: skip

    def ask() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert tables.outlasting(store, ask) == "done"
    with pytest.raises(DeltaError, match="another matter"):
        tables.outlasting(store, lambda: (_ for _ in ()).throw(DeltaError("another matter")))
    proxy.faults = outage()
    errors.append(OSError("Generic S3 error"))
    with pytest.raises(StoreError, match="the store breaks off"):
        tables.outlasting(store, ask)
