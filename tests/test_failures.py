"""From errors to words: states, reasons, and nothing in them that should not be there."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from her2core.errors import ClusterError, DiskFullError, Reason, ScratchError, SlideError
from her2core.records import SlideState
from her2core.stages.failures import LONGEST_MESSAGE, cleaned, disk_full, failure_of
from her2core.stages.fanout import RunOverError, TooLongError, WorkersDiedError


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("[Errno 2] No such file: '/data/Jane Doe/x y.svs'", "[Errno 2] No such file: '…/x y.svs'"),
        ("/mnt/lab/secrets/a.tif: bad", "…/a.tif: bad"),
        ("open s3://bucket/p/q/a.svs?X-Amz-Signature=ab&X=1 now", "open …/a.svs?… now"),
        ("http://user:hunter2@host:9000/b failed", "http://…@host:9000/b failed"),
        ("AWS_SECRET_ACCESS_KEY=ab/cd+ef; AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=…; …"),
        ("Authorization: Bearer xyz.abc", "Authorization: …"),
        ("3/4 of the tiles and/or HER2/CEP17 in µm/px", "3/4 of the tiles and/or HER2/CEP17 in µm/px"),
        ("two\nlines", "two lines"),
    ],
)
def test_texts_of_libraries_are_cleaned_of_paths_and_secrets(text: str, clean: str) -> None:
    assert cleaned(text) == clean


def test_what_only_the_run_knows_is_cleaned_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden words")
    text = cleaned("with hidden words /a/Jane Doe/b c.svs is bad", ["/a/Jane Doe/b c.svs"])
    assert text == "with … …/b c.svs is bad"
    assert len(cleaned("x" * 10**6)) == LONGEST_MESSAGE


def test_an_unexpected_error_keeps_where_it_came_from() -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        Path("/no/such/place/Jane.svs").read_bytes()
    failure = failure_of(caught.value)
    assert (failure.state, failure.reason, failure.again) == (SlideState.FAILED, Reason.INTERNAL, True)
    assert "…/Jane.svs" in failure.message
    assert "test_failures.py" in failure.details
    assert "/no/such" not in failure.message + failure.details


def test_who_ended_its_workers_is_quarantined_in_words_and_others_are_not() -> None:
    guilty = failure_of(WorkersDiedError(3, 8, 3, guilty=True))
    assert (guilty.state, guilty.reason, guilty.again) == (SlideState.QUARANTINED, Reason.WORKER_LOST, False)
    assert "8 worker processes died" in guilty.message
    assert "memory" in guilty.message
    open_question = failure_of(WorkersDiedError(3, 14, 6, guilty=False))
    assert (open_question.state, open_question.again) == (SlideState.FAILED, False)
    assert "it is not known" in open_question.message


@pytest.mark.parametrize(
    ("error", "reason", "ends"),
    [
        (ClusterError("scheduler gone"), Reason.RUN_ENDED, True),
        (DiskFullError("disk full"), Reason.RUN_ENDED, True),
        (OSError(errno.ENOSPC, "No space left on device"), Reason.RUN_ENDED, True),
        (
            OSError("Generic LocalFileSystem error: No space left on device (os error 28)"),
            Reason.RUN_ENDED,
            True,
        ),
        (RunOverError("interrupted"), Reason.RUN_ENDED, True),
        (ScratchError("does not fit"), Reason.NO_SPACE, False),
        (TooLongError(), Reason.TIMEOUT, False),
        (TimeoutError("of a connection"), Reason.INTERNAL, False),
        (SlideError(Reason.BLUR, "blurred"), Reason.BLUR, False),
    ],
)
def test_what_ends_the_run_and_what_only_the_slide(error: Exception, reason: Reason, ends: bool) -> None:
    failure = failure_of(error)
    assert (failure.reason, failure.ends_run) == (reason, ends)
    assert failure_of(failure) is failure


def test_a_full_disk_is_found_behind_other_errors() -> None:
    error = ValueError("could not write")
    error.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert "quota" in str(disk_full(error))
    assert disk_full(ValueError("os error 2")) is None
