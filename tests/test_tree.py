"""What holds for the whole tree, whoever writes to it."""

from __future__ import annotations

import ast

from tests.conftest import LONGEST, ROOT, SLOW
from tests.tools.mutants import TESTS

MOST_POSITIONAL = 8
"""Parameters of a function that may be given by place: more cannot be told apart where it is called. Ours."""


def test_no_function_takes_more_than_eight_parameters_by_place() -> None:
    seen, found = 0, []
    for file in sorted((ROOT / "her2core").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                named = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
                by_place = named[named[:1] in (["self"], ["cls"]) :]
                seen += 1
                if len(by_place) > MOST_POSITIONAL:
                    found.append(f"{file.relative_to(ROOT)}:{node.lineno}: {len(by_place)}")
    assert seen > 1000
    assert not found


def test_lists_of_test_modules_name_modules_that_exist() -> None:
    named = {f"tests/test_{name}.py" for name in (*SLOW, *LONGEST)}.union(*TESTS.values())
    assert [path for path in sorted(named) if not (ROOT / path).is_file()] == []
