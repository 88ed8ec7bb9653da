"""Define the grammar of expressions in configs, so that a tool can screen a bundle without running it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

ALLOWED = (
    *(ast.Expression, ast.Name, ast.Load, ast.Constant, ast.Call, ast.keyword, ast.Starred, ast.Attribute),
    *(ast.Subscript, ast.Slice, ast.List, ast.Tuple, ast.Dict, ast.BinOp, ast.operator, ast.UnaryOp, ast.unaryop),
    *(ast.Compare, ast.cmpop, ast.BoolOp, ast.boolop, ast.IfExp),
)


def violations(config: dict[str, Any]) -> set[tuple[str, str]]:
    """Return each expression of a config outside the grammar with the kind of syntax; ``imports`` are left out."""
    return {
        (expression, type(node).__name__)
        for key, value in config.items()
        if key.lstrip("+") != "imports"
        for expression in _expressions(value)
        for node in ast.walk(ast.parse(re.sub(r"@[\w:]+", "reference", expression[1:]), mode="eval"))
        if not isinstance(node, ALLOWED)
    }


def _expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _expressions(item)
    elif isinstance(value, str) and value.startswith("$"):
        yield value
