"""Numbers that decide a result have a name, where a unit and a source stand beside it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

# Of formulas, not choices: areas, centroids, moments, means; the ends of 8 bits; µm or µm² a mm or mm².
FORMULAS = {0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 255.0, 360.0, 1e3, 1e6}
GUARD = 1e-6  # such numbers guard against a division by 0
PACKAGES = ("cases", "guidelines", "heterogeneity", "intake", "kernels", "points", "profile", "scoring")


def bare(source: str) -> Iterator[tuple[int, float]]:
    """Lines and values of fractions in the bodies of functions, but for what a keyword names."""
    for outer in ast.walk(ast.parse(source)):
        if not isinstance(outer, ast.FunctionDef) or outer.name == "warm":  # compiles on made-up pixels
            continue
        spared = {id(k.value.operand if isinstance(k.value, ast.UnaryOp) else k.value)
                  for k in ast.walk(outer) if isinstance(k, ast.keyword)}  # fmt: skip
        for statement in outer.body:
            for node in ast.walk(statement):
                if isinstance(node, ast.Constant) and type(node.value) is float and id(node) not in spared:
                    yield node.lineno, node.value


@pytest.mark.parametrize("package", PACKAGES)
def test_no_fraction_is_bare(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {value}"
        for path in sorted((ROOT / "her2core" / package).rglob("*.py"))
        for line, value in bare(path.read_text())
        if value not in FORMULAS and not 0 < value <= GUARD
    ]
    assert not found, "name these, with unit and source"


def test_a_bare_fraction_is_found() -> None:
    code = "LIMIT = 0.7\ndef f(x):\n    return x > 0.7 and x < LIMIT and g(least=0.7)\n"
    assert list(bare(code)) == [(3, 0.7)]
