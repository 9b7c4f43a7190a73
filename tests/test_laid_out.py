"""Answers on a terminal of 80 columns."""

from __future__ import annotations

import io

from rich.console import Console

from her2cli.answers import show
from her2core.analysis.outcome_report import MODEL_HEADINGS
from her2core.analysis.results import markdown

ROW = (
    "os",
    "T-DM1",
    "eta2_250um",
    "membrane_od_mean, ER",
    "60 / 47",
    "0",
    "2.14 (1.22 to 3.77)",
    "0.008",
    "0.013",
)


def printed(text: str, terminal: bool) -> str:
    out = io.StringIO()
    show(text, Console(file=out, width=80, force_terminal=terminal, color_system=None))
    return out.getvalue()


def test_a_wide_table_stands_on_a_terminal_with_every_word() -> None:
    lines = printed(f"# Models\n\n{markdown(MODEL_HEADINGS, [ROW])}\n", terminal=True).splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    top = next(i for i, line in enumerate(lines) if "───" in line)
    assert {word for name in MODEL_HEADINGS for word in name.split()} <= set(" ".join(lines[:top]).split())
    left = lines[top + 1].index("membrane")
    cell = "".join(line[left : left + 10].strip() for line in lines[top + 1 :])
    assert cell == "membrane_od_mean, ER"


def test_to_a_file_an_answer_is_written_as_it_is() -> None:
    text = f"# Models\n\n{markdown(MODEL_HEADINGS, [ROW])}\n"
    assert printed(text, terminal=False) == f"{text}\n"
