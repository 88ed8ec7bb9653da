"""Test that configs of inference and evaluation are short, and that a tool can screen their expressions."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ReferenceResolver

from ..conftest import BUNDLES

NAMES = ("inference", "evaluate", "ensemble", "explain", "evaluate_roi")
FILES = [file for bundle in BUNDLES for name in NAMES for file in bundle.glob(f"configs/{name}.json")]
# references become names; a list or a dictionary is JSON around expressions
GRAMMAR = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Attribute, ast.Subscript, ast.Call, ast.keyword),
    *(ast.BinOp, ast.operator, ast.UnaryOp, ast.unaryop, ast.BoolOp, ast.boolop, ast.Compare, ast.cmpop, ast.IfExp),
)


def expressions(config: Any) -> Iterator[str]:
    """Yield every expression of a config but the import statements."""
    if isinstance(config, dict):
        config = [value for key, value in config.items() if key.lstrip("+") != "imports"]
    if isinstance(config, list):
        for value in config:
            yield from expressions(value)
    elif isinstance(config, str) and config.startswith("$"):
        yield config


def outside_grammar(expression: str) -> list[str]:
    """Return the kinds of syntax in an expression that the grammar does not have."""
    tree = ast.parse(ReferenceResolver.id_matcher.sub("reference", expression[1:]), mode="eval")
    return [type(node).__name__ for node in ast.walk(tree) if not isinstance(node, GRAMMAR)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parts[-3]}/{file.name}")
def test_expressions_are_short_and_in_the_grammar(file: Path) -> None:
    for expression in expressions(json.loads(file.read_text())):
        assert len(expression) <= 80, expression
        assert outside_grammar(expression) == [], expression


@pytest.mark.parametrize(
    ("expression", "syntax"),
    [
        ("$[f for f in @files]", "ListComp"),
        ("$lambda output: None", "Lambda"),
        ("$(x := @a)", "NamedExpr"),
        ("$f'{@a}'", "JoinedStr"),
    ],
)
def test_other_syntax_is_outside_the_grammar(expression: str, syntax: str) -> None:
    assert syntax in outside_grammar(expression)


@pytest.mark.parametrize(("name", "lines"), [("inference", 75), ("evaluate", 30)])
@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_configs_are_short(bundle: Path, name: str, lines: int) -> None:
    text = (bundle / "configs" / f"{name}.json").read_text()
    assert text.count("\n") <= lines
    assert text.count('"$') <= 25


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parts[-3]}/{file.name}")
def test_ids_are_separated_by_two_colons(file: Path) -> None:
    assert "#" not in file.read_text()
