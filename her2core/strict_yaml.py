"""YAML as people mean it: a value is what it looks like, or an error, and a small text stays small.

YAML 1.1 reads ``yes`` as true, ``020`` as 16, ``1:30`` as 90 and ``1_0`` as 10, YAML 1.2 as texts. Whoever
writes them means neither, so they are refused, like anchors and aliases, tags, and keys that are no text.
Dates are texts.
"""

from __future__ import annotations

import re
from typing import Any, cast

import yaml

from her2core.text import cut, shown

MAX_BYTES = 256 * 1024
"""Longest text. Ours; every parameter there is takes 8 kB."""
MAX_DEPTH = 8
"""Deepest nesting. Ours; a configuration has three levels."""
MAX_ITEMS = 10_000
"""Most values of one text. Ours."""
MAX_SCALAR = 4096
"""Longest single value, the longest path of Linux."""
MAX_DIGITS = 30
"""Most digits of a whole number. Ours."""

_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_REAL = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_OTHER_BOOLS = frozenset({"yes", "no", "on", "off", "y", "n"})
_OLD = yaml.resolver.Resolver()


class YamlError(ValueError):
    """What is wrong with a YAML text, and where."""


def parse_yaml(text: str) -> Any:
    """The value of a YAML text: mappings with text keys, lists, texts, numbers, booleans and None.

    Raises
    ------
    YamlError
        Naming line and value, however long the text is.
    """
    if len(text) > MAX_BYTES:
        raise YamlError(f"{len(text)} characters; expected {MAX_BYTES} at most")
    try:
        node = _Nodes(text).get_single_node()
    except yaml.YAMLError as error:
        raise YamlError(f"cannot be read as YAML: {cut(str(error), 400)}") from None
    return None if node is None else _value(node)


class _Nodes(yaml.BaseLoader):
    """Composes nodes, few and not deep."""

    depth = items = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise YamlError(f"line {line}: anchors (&) and aliases (*) are not read; write the value out")
        if event.tag is not None:
            raise YamlError(f"line {line}: cannot be read as YAML: tags ({shown(event.tag)}) are not read")
        self.depth += 1
        self.items += 1
        if self.depth > MAX_DEPTH or self.items > MAX_ITEMS:
            raise YamlError(
                f"line {line}: more than {MAX_DEPTH} levels or {MAX_ITEMS} values; expected sections of keys "
                "and values"
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _value(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    return _scalar(cast(yaml.ScalarNode, node))


def _mapping(node: yaml.MappingNode) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or not key_node.value:
            raise YamlError(f"line {line}: a key is a name, not a list, a mapping or nothing")
        key = key_node.value
        if len(key) > MAX_DIGITS * 4:
            raise YamlError(f"line {line}: a key of {len(key)} characters")
        if key in values:
            raise YamlError(f"line {line}: {key if key.isidentifier() else shown(key)} is given twice")
        values[key] = _value(value_node)
    return values


def _scalar(node: yaml.ScalarNode) -> Any:
    text, line = str(node.value), node.start_mark.line + 1
    if len(text) > MAX_SCALAR:
        raise YamlError(f"line {line}: a value of {len(text)} characters; expected {MAX_SCALAR} at most")
    if node.style is not None:  # in quotes, or a block
        return text
    folded = text.lower()
    if folded in _WORDS:
        return _WORDS[folded]
    if folded in _NOT_FINITE:
        return float(_NOT_FINITE[folded])
    if _WHOLE.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise YamlError(f"line {line}: a number of {len(text)} digits")
        return int(text)
    if _REAL.fullmatch(text):
        return float(text)
    old = str(_OLD.resolve(yaml.ScalarNode, text, (True, False)))  # type: ignore[no-untyped-call]
    if folded in _OTHER_BOOLS or old.rpartition(":")[2] in ("bool", "int", "float"):
        raise YamlError(
            f"line {line}: {shown(text)} means different things to different programs; write true or false, "
            "a plain decimal number such as 20 or 0.5, or a text in quotes"
        )
    return text
