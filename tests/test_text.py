"""Text from outside in messages: bounded, and without secrets."""

from __future__ import annotations

import time

import pytest

from her2core.text import carries_secret, cleaned, counted, cut, first_few, harmless, listed, shown


def test_short_values_are_shown_as_they_are() -> None:
    assert [shown(value) for value in ("a", 1, 0.5, [1, "b"], None, True)] == [
        "'a'", "1", "0.5", "[1, 'b']", "None", "True"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**7,
        "\0" * 100,
        [["y" * 10**6] * 9] * 9,
        10**5000,
        {"k" * 10**6: [0] * 10**6},
        b"z" * 10**6,
        [[]] * 10**6,
    ],
    ids=["text", "controls", "texts", "digits", "mapping", "bytes", "lists"],
)
def test_large_values_are_shown_in_a_few_characters_at_once(value: object) -> None:
    start = time.monotonic()
    assert len(shown(value)) <= 60
    assert time.monotonic() - start < 1


def test_a_value_that_holds_itself_ends() -> None:
    bomb: list[object] = ["x"]
    for _ in range(40):
        bomb = [bomb] * 9
    assert len(shown(bomb)) <= 60


def test_a_long_text_keeps_its_beginning_and_end() -> None:
    text = cut("a" * 5000 + "end", 100)
    assert text.startswith("aaa")
    assert text.endswith("end")
    assert len(text) < 150


@pytest.mark.parametrize(
    ("address", "carries"),
    [
        ("s3://bucket/key.svs", False), ("/data/a@b/c.svs", False), ("s3://bucket/a@b", False),
        ("what?.svs", False), ("s3://me:pw@bucket/key", True), ("http://me@host:9000", True),
        ("s3://b/k?versionId=1", True), ("https://host/k.svs?X-Amz-Signature=1", True), ("k.svs?sig=1", True),
    ],
)  # fmt: skip
def test_addresses_that_carry_a_secret(address: str, carries: bool) -> None:
    assert carries_secret(address) is carries


@pytest.mark.parametrize(
    "text",
    [
        "GET https://h/k?X-Amz-Signature=hushhush&b=1", "s3://me:hushhush@b",
        "aws_secret_access_key = hushhush", "Authorization: Bearer hushhush", "{'password': 'hushhush'}",
        "SessionToken=hushhush", "key hushhush",
    ],
)  # fmt: skip
def test_no_secret_stays(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key hushhush")
    assert "hushhush" not in cleaned(text)


def test_plain_text_stays_as_it_is() -> None:
    text = "row 2, uri: found 'x'; expected s3://bucket/key, such as [0.05, 0.1] (see docs/s3.md)?"
    assert cleaned(text) == text


@pytest.mark.parametrize("cell", ["=cmd|' /C calc'!A0", "+1", "-1", "@x", "\t=1", "\r=1"])
def test_a_cell_that_a_spreadsheet_would_run_is_made_text(cell: str) -> None:
    assert harmless(cell) == "'" + cell
    assert harmless("B17-A1") == "B17-A1"


def test_one_thing_is_named_in_the_singular() -> None:
    assert [counted(n, "slide") for n in (0, 1, 2000)] == ["0 slides", "1 slide", "2,000 slides"]
    assert counted(2, "nucleus", "nuclei") == "2 nuclei"


def test_of_many_the_first_are_named_and_the_others_counted() -> None:
    assert first_few("abc", 3) == "a, b, c"
    assert first_few(("a", "b", "c"), 1, "; ") == "a and 2 more"
    assert first_few(("a", "b", "c"), 2, "; ") == "a; b and 1 more"


def test_names_from_outside_are_listed_in_a_few_printable_characters() -> None:
    assert listed(["case_id", "n\u00e9e"]) == "case_id, n\u00e9e"
    assert listed(["\x1b[31mred", "a\0"]) == "�[31mred, a�"
    assert listed("abcdefghijklmn") == "a, b, c, d, e, f, g, h, i, j, k, l and 2 more"
    assert listed(["x" * 10**6]) == "x" * 60 + "..."
