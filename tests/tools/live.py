"""Compiled code whose numbers can be changed while it runs: for `mutants`, which would else compile for each.

The kernels of a copy of the tree are rewritten before they are compiled. In a compiled function a number, or
a module's constant, becomes an element of a large array, which Numba reads where it lies instead of freezing
it, and a comparison asks such an array whether it is turned round. Elsewhere a number asks `number`, a
comparison `turned`. A change is then a change of one element, or a module's constants computed anew; it is
made in a forked process, and gone with it.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

ROOMS = ("her2core/kernels", "her2core/points")
PACKAGES = tuple(room.replace("/", ".") for room in ROOMS)
ROOM_FOR = 1_100_000  # elements: Numba freezes arrays of less than a million bytes
WHOLE = np.zeros(ROOM_FOR, np.int64)
REAL = np.zeros(ROOM_FOR, np.float64)
TURNED = np.zeros(ROOM_FOR, np.bool_)
CHANGES: dict[Any, int] = {}
"""Number of every change that can be made in what runs, by its mutant."""
_state: dict[str, Any] = {"chosen": -1, "slots": 0}
_elements: list[tuple[Any, int, str, str, tuple[int, ...]]] = []
_compiled: dict[int, tuple[Any, int | float]] = {}
_named: dict[tuple[str, str], Any] = {}
_places: dict[int, np.ndarray] = {}
_parsed: dict[str, list[ast.stmt]] = {}
_KEPT = ("tests", "tests.helpers", "tests.helpers.fields")
_HEAD = """
import numpy as _np
from tests.tools import live as _live
_WHOLE, _REAL, _TURNED = _live.WHOLE, _live.REAL, _live.TURNED
"""
_SIMPLE = (int, float, np.integer, np.floating, tuple, dict, str, np.ndarray)


def forget(package: str) -> None:
    """Let modules be loaded anew, but for these tools and what they draw."""
    for name in [name for name in sys.modules if name == package or name.startswith(package + ".")]:
        if name not in _KEPT and not name.startswith("tests.tools"):
            del sys.modules[name]


def number(change: int, old: float, new: float) -> float:
    """A number of code that is not compiled."""
    return new if _state["chosen"] == change else old


def turned(change: int, result: Any) -> Any:
    """A comparison of code that is not compiled."""
    if _state["chosen"] != change:
        return result
    return np.logical_not(result) if isinstance(result, np.ndarray) else not result


def enliven(tree: Path, sites: Callable[[str, str], Any]) -> None:
    """Rewrite the kernels of a tree that is about to be loaded, and load them."""
    paths = [path for room in ROOMS for path in sorted((tree / room).rglob("*.py"))]
    originals = {path: importlib.import_module(_name(tree, path)) for path in paths}
    written = {}
    for path, module in originals.items():
        source = path.read_text(encoding="utf-8")
        parsed = ast.parse(source)
        found = sites(path.relative_to(tree).as_posix(), source)
        found.visit(parsed)
        written[path] = ast.unparse(ast.fix_missing_locations(_Rewriter(module, found.places).visit(parsed)))
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
    forget("her2core")
    for path in paths:
        module = importlib.import_module(_name(tree, path))
        for name, value in list(vars(module).items()):
            if isinstance(value, np.ndarray) and value.ndim and value.size < ROOM_FOR:
                setattr(module, name, _in_place(value))


def change(mutant: Any) -> bool:
    """Make a change in this process, for good."""
    chosen = CHANGES[mutant]
    _state["chosen"] = chosen
    if chosen in _compiled:
        array, new = _compiled[chosen]
        array[chosen] = new
        return True
    for name in _kernels():
        for value in vars(sys.modules[name]).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
    for _ in range(4):  # constants are made of constants of other modules
        for name in _kernels():
            _compute_anew(sys.modules[name])
    for array, slot, name, constant, index in _elements:
        value = getattr(sys.modules[name], constant)
        for k in index:
            value = value[k]
        array[slot] = value
    for name, module in list(sys.modules.items()):
        if name.startswith("her2core.") and name not in _kernels():
            _import_anew(module)
    return True


def _name(tree: Path, path: Path) -> str:
    return ".".join(path.relative_to(tree).with_suffix("").parts).removesuffix(".__init__")


def _kernels() -> list[str]:
    return [name for name in sys.modules if name.startswith(PACKAGES)]


def _in_place(value: np.ndarray) -> np.ndarray:
    """The same array for every module that has it, which Numba reads where it lies: it has gaps."""
    if id(value) not in _places:
        kept = np.zeros((*value.shape, 2), value.dtype)[..., 0]
        kept[...] = value
        _places[id(value)] = kept
        _places[id(kept)] = kept
        _state.setdefault("kept", []).append(value)  # so that its name is not given again
    return _places[id(value)]


def _statements(module: ModuleType) -> Iterator[ast.stmt]:
    if module.__file__ is None:
        return
    if module.__file__ not in _parsed:
        _parsed[module.__file__] = ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body
    yield from _parsed[module.__file__]


def _compute_anew(module: ModuleType) -> None:
    """Numbers, and what is made of them, as the module's own statements make them now."""
    _import_anew(module)
    for statement in _statements(module):
        if isinstance(statement, ast.ClassDef):
            kind = getattr(module, statement.name)
            for inner in statement.body:
                if not isinstance(inner, ast.AnnAssign):
                    own = dict(vars(kind))
                    _assign(inner, vars(module), own, lambda k, v, kind=kind: setattr(kind, k, v))
                elif inner.value is not None and is_dataclass(kind):
                    _give_default(kind, str(getattr(inner.target, "id", "")), inner.value, vars(module))
        else:
            names = vars(module)
            _assign(statement, names, names, lambda k, v, names=names: names.__setitem__(k, v))


def _give_default(kind: type, field: str, value: ast.expr, names: dict[str, Any]) -> None:
    """Make a field's default anew, where it is a number."""
    made = eval(compile(ast.Expression(value), "default", "eval"), names)  # noqa: S307 (our own source)
    if isinstance(made, int | float):
        words = [one for one in kind.__dataclass_fields__ if kind.__dataclass_fields__[one].init]
        maker: Any = kind.__init__
        defaults = list(maker.__defaults__)
        defaults[words.index(field) - len(words)] = made
        maker.__defaults__ = tuple(defaults)


def _assign(
    statement: ast.stmt, names: dict[str, Any], own: dict[str, Any], put: Callable[[str, Any], None]
) -> None:
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target, value = statement.targets[0], statement.value
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        target, value = statement.target, statement.value
    else:
        return
    if not isinstance(target, ast.Name) or not isinstance(own.get(target.id), _SIMPLE):
        return
    code = compile(ast.Expression(value), "constant", "eval")
    made = eval(code, names, own if own is not names else None)  # noqa: S307 (our own source)
    before = own[target.id]
    if isinstance(before, np.ndarray) and isinstance(made, np.ndarray) and before.shape == made.shape:
        before[...] = made
    else:
        put(target.id, made)


def _import_anew(module: ModuleType) -> None:
    for statement in _statements(module):
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith(PACKAGES):
            source = sys.modules[str(statement.module)]
            for alias in statement.names:
                value = getattr(source, alias.name)
                if isinstance(value, _SIMPLE):
                    setattr(module, alias.asname or alias.name, value)


class _Rewriter(ast.NodeTransformer):
    """A module with numbers that can be changed."""

    def __init__(self, module: ModuleType, places: dict[tuple[int, int], Any]) -> None:
        self._module, self._places = module, places
        self._in_compiled = self._fixed = False

    def visit_Module(self, node: ast.Module) -> ast.AST:
        self.generic_visit(node)
        words = [k for k, one in enumerate(node.body) if isinstance(one, ast.ImportFrom)]
        after = words[0] + 1 if words else len(node.body)  # the first is that of __future__
        node.body[after:after] = ast.parse(_HEAD).body
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outer = self._in_compiled
        jitted = [
            one
            for one in node.decorator_list
            if isinstance(one, ast.Call) and getattr(one.func, "id", "") == "njit"
        ]
        for call in jitted:
            call.keywords = [word for word in call.keywords if word.arg != "cache"]
        self._in_compiled = outer or bool(jitted)
        node.body = [self.visit(one) for one in node.body]  # defaults, decorators and annotations stay
        self._in_compiled = outer
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        node.value = self.visit(node.value)
        if self._in_compiled and not isinstance(node.value, ast.Tuple):
            node.slice = _Names(self).visit(node.slice)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        mutant = self._places.get((id(node), 0))
        if mutant is None:
            return node
        number = self._register(mutant)
        new = ast.literal_eval(mutant.new)
        if not self._in_compiled:
            return _expression(f"_live.number({number}, {node.value!r}, {new!r})")
        array, word = (WHOLE, "_WHOLE") if isinstance(node.value, int) else (REAL, "_REAL")
        array[number] = node.value
        _compiled[number] = (array, new)
        return _expression(f"{word}[{number}]")

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        mutants = [self._places.get((id(node), k)) for k in range(len(node.ops))]
        parts = [self.visit(one) for one in (node.left, *node.comparators)]
        links: list[ast.expr] = []
        for k, (operator, mutant) in enumerate(zip(node.ops, mutants, strict=True)):
            link: Any = ast.Compare(parts[k], [operator], [parts[k + 1]])
            if mutant is not None:
                number = self._register(mutant)
                if self._in_compiled:
                    _compiled[number] = (TURNED, True)
                    link = ast.Compare(link, [ast.NotEq()], [_expression(f"_TURNED[{number}]")])
                else:
                    call = _expression(f"_live.turned({number}, 0)")
                    call.args[1] = link
                    link = call
            links.append(link)
        return links[0] if len(links) == 1 else ast.BoolOp(ast.And(), links)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if not self._in_compiled or not isinstance(node.ctx, ast.Load) or node.id not in vars(self._module):
            return node
        value = vars(self._module)[node.id]
        return self._constant(self._module.__name__, node.id, value) or node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if self._in_compiled and isinstance(node.value, ast.Name):
            owner = vars(self._module).get(node.value.id)
            if isinstance(owner, ModuleType) and owner.__name__.startswith("her2core."):
                value = getattr(owner, node.attr)
                return self._constant(owner.__name__, node.attr, value) or node
        node.value = self.visit(node.value)
        return node

    def _register(self, mutant: Any) -> int:
        _state["slots"] += 1
        CHANGES[mutant] = _state["slots"]
        return _state["slots"]

    def _constant(self, module: str, name: str, value: Any) -> ast.expr | None:
        """A module's constant in a compiled function."""
        if (module, name) not in _named:
            text = self._elements(module, name, value, ())
            _named[module, name] = text
        text = _named[module, name]
        return _expression(text) if text else None

    def _elements(self, module: str, name: str, value: Any, index: tuple[int, ...]) -> str | None:
        if isinstance(value, tuple) and not hasattr(value, "_fields"):
            parts = [self._elements(module, name, one, (*index, k)) for k, one in enumerate(value)]
            return f"({', '.join(map(str, parts))},)" if parts and all(parts) else None
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            return None
        _state["slots"] += 1
        slot = _state["slots"]
        array, word = (WHOLE, "_WHOLE") if isinstance(value, int | np.integer) else (REAL, "_REAL")
        if isinstance(value, np.uint64):
            array[slot : slot + 1].view(np.uint64)[0] = value
        else:
            array[slot] = value
        _elements.append((array, slot, module, name, index))
        text = f"{word}[{slot}]"
        return text if type(value) in (int, float) else f"_np.{type(value).__name__}({text})"


class _Names(ast.NodeTransformer):
    """Constants of modules in an index; the numbers in it stay."""

    def __init__(self, rewriter: _Rewriter) -> None:
        self._rewriter = rewriter

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self._rewriter.visit_Name(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        return self._rewriter.visit_Attribute(node)


def _expression(text: str) -> Any:
    return ast.parse(text, mode="eval").body
