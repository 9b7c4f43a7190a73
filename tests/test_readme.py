"""README and how-tos say what is so: commands parse, Python runs, paths exist, links resolve."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from itertools import dropwhile
from pathlib import Path
from typing import Any

import pytest
import typer.main

import her2cli as cli
from her2core.phantom import synth_cohort
from her2core.phantom.cohort import PLAN, slide_spec
from her2core.phantom.ish_cohort import ISH_PLAN
from tests.conftest import ROOT

README = ROOT / "README.md"
PAGES = (README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
SLIDE = "TWO-A1"
SEED = 1
"""That of `synth_cohort`, which the demo draws by."""
OTHER_TOOLS = {"dask", "docker", "export", "helm", "kubectl", "prefect", "until"}


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def prose(page: Path) -> str:
    """The page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def her2() -> dict[str, Any]:
    """The command line's verbs, by name."""
    group: Any = typer.main.get_command(cli.app)
    return dict(group.commands)


@PAGE
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose(page)):
        assert "://" in target or (page.parent / target).exists(), target


@PAGE
def test_files_that_are_named_are_there(page: Path) -> None:
    named = re.findall(r"`((?:flows|her2core|tests|docs|deploy|benchmarks|\.ci)/[^`\s*{]*)`", prose(page))
    assert [path for path in named if not (ROOT / path).exists()] == []


@PAGE
def test_commands_are_understood(page: Path) -> None:
    """Every `her2` line is parsed by the command line itself, every make target is in the Makefile."""
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    for line in "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines():
        set_first = re.compile(r"\w+=")
        program, *words = dropwhile(set_first.match, shlex.split(line, comments=True))
        if program == "her2":
            verb = her2()[words[0]]
            words = words[: words.index(">")] if ">" in words else words
            verb.make_context(words[0], words[1:])  # raises what the terminal would print
        elif program == "make":
            assert set(words) <= set(targets)
        elif program == "python":
            module = words[0] == "-m"
            file = f"{words[1].replace('.', '/')}.py" if module else words[0]
            assert (ROOT / file).exists()
        else:
            assert program in OTHER_TOOLS, line


def test_every_verb_is_listed_and_json_is_where_it_is_said_to_be() -> None:
    table = README.read_text(encoding="utf-8").partition("| verb | what it does |\n")[2].partition("\n\n")[0]
    listed = set(re.findall(r"^\| `([\w-]+)", table, re.M))
    verbs = her2()
    assert sorted(listed) == sorted(verbs)
    with_json = {
        name
        for name, verb in verbs.items()
        for one in getattr(verb, "commands", {"": verb}).values()
        if any("--json" in parameter.opts for parameter in one.params)
    }
    assert with_json == set(verbs) - {"manifest", "metrics", "serve", "synth", "warm"}


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "cohort.md"], ids=lambda page: page.stem)
def test_exit_codes_are_the_command_lines_own(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    codes = (cli.OK, cli.PARTIAL, cli.BAD_INPUT, cli.UNUSABLE, cli.INTERNAL, cli.INTERRUPTED)
    if page == README:
        (sentence,) = re.findall(r"Exit codes: (.*?)\.\n", text, re.S)
        assert tuple(int(code) for code in re.findall(r"\b(\d+) [a-z]", sentence)) == codes
    else:
        assert tuple(int(code) for code in re.findall(r"^\| (\d+) \|", text, re.M)) == codes


def test_the_tree_is_the_tree() -> None:
    (tree,) = (block for block in blocks(README, "text") if block.startswith("flows/"))
    parent, seen = ROOT, set()
    for line in tree.splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            parent = ROOT / name
            seen.add(name.rstrip("/"))
        path = parent if not line.startswith(" ") else parent / name
        assert path.is_dir() if name.endswith("/") else path.is_file(), line
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= seen


def test_the_demo_is_shown_with_all_its_slides() -> None:
    (shown,) = (block for block in blocks(README, "text") if "planted score" in block)
    rows = [line.split() for line in shown.splitlines() if line.split() and line.split()[0] in IDS]
    assert [row[0] for row in rows] == IDS
    right = sum(row[1] == row[2] and row[3] == row[4] for row in rows)
    assert f"{right} of {len(IDS)} IHC slides have the planted score and class" in shown
    ish = [line.split()[0] for line in shown.splitlines() if line.split() and line.split()[0] in ISH_IDS]
    assert ish == ISH_IDS
    assert f"of {len(ISH_IDS)} ISH slides the planted group" in shown
    columns = [(5, 6, "3+ cells"), (7, 8, "stained")]
    off = {name: max(abs(float(row[a]) - float(row[b])) for row in rows) for a, b, name in columns}
    limits = f"by up to {off['stained']:.1f} points of stained and {off['3+ cells']:.1f} of 3+ cells"
    assert limits in README.read_text(encoding="utf-8")
    header = next(line for line in shown.splitlines() if "planted score" in line)
    assert re.split(r"\s{2,}", header.strip()) == DEMO_COLUMNS


IDS = [planned.slide_id for planned in PLAN]
ISH_IDS = [planned.slide_id for planned in ISH_PLAN]
DEMO_COLUMNS = re.findall(
    r'"([^"]+)"', (ROOT / "flows" / "demo.py").read_text(encoding="utf-8").split("Table(")[1].split("box=")[0]
)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder where README's Python ran as a script over a small slide of the demo, and what it printed."""
    folder = tmp_path_factory.mktemp("readme")
    planned = [planned for planned in PLAN if planned.slide_id == SLIDE]
    synth_cohort(folder / "demo" / "slides", plan=planned, ish_plan=(), side_px=1536)
    (code,) = blocks(README, "python")
    assert not re.search("import (polars|duckdb)", code)  # `make demo` does not install them
    (folder / "example.py").write_text(code, encoding="utf-8")
    how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 280, "check": False}
    one = os.environ | {"HER2_RUN__WORKERS": "1"}  # enough for one small slide
    done = subprocess.run([sys.executable, "example.py"], cwd=folder, env=one, **how)
    assert done.returncode == 0, done.stderr
    assert "signal" not in done.stderr
    return folder, done.stdout


def test_the_python_of_the_readme_prints_what_it_says(scored: tuple[Path, str]) -> None:
    _, printed = scored
    assert "0.25 aperio" in printed
    assert "Counter({'scored': 1}) True" in printed
    assert re.search(r"^2\+ [\d.]+ \[.*'uncalibrated'", printed, re.M)
    (shown,) = (block for block in blocks(README, "text") if block.startswith("<xarray.DataArray"))
    assert in_form(shown) == in_form(printed[printed.index("<xarray.DataArray") :])
    place = [planned.slide_id for planned in PLAN].index(SLIDE)
    demo = slide_spec(PLAN[place], seed=1000 * SEED + place)
    assert f"# {demo.width_px} {demo.height_px} 0.25 aperio" in README.read_text(encoding="utf-8")
    assert f"(c: 3, y: {-(-demo.height_px // 4)}, x: {-(-demo.width_px // 4)})" in shown


def in_form(text: str) -> list[str]:
    """Lines without their numbers, which the size of the slide decides."""
    return re.sub(r"(\d[\d.e+]*([kM]?B)?[ ,]*)+", "#", text).split("\n")


@pytest.mark.parametrize("name", ["cohort", "pyramid"])
def test_the_python_of_the_how_tos_runs(
    scored: tuple[Path, str], name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = scored
    monkeypatch.chdir(folder)
    names = {"OUT": "demo/out", "SLIDE_FILE": f"demo/slides/slides/{SLIDE}.tif", "SLIDE": SLIDE}
    found: dict[str, Any] = {}
    for block in blocks(ROOT / "docs" / f"{name}.md", "python"):
        exec(re.sub(r"\b(OUT|SLIDE_FILE|SLIDE)\b", lambda word: names[word[1]], block), found)
    if name == "cohort":
        assert re.search(r"\d+ of \d+ cells: 2\+", capsys.readouterr().out)
    else:
        assert found["pixels"].shape == (201, 201, 3)
        assert len(found["cells"]) > 5
        assert (folder / "NEW" / found["ref"].path / "zarr.json").exists()
