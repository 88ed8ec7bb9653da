"""The directions of imports, and what ``common`` does not say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import BUNDLES

COMMON = Path(__file__).parents[1] / "common"
FILES = {path.relative_to(COMMON): ast.parse(path.read_text()) for path in sorted(COMMON.rglob("*.py"))}

# What each part of `common` imports of the others, in the order in which they build on each other: a part imports only
# what is above it. A new arrow gets an entry, and an arrow that nobody uses any more loses it.
IMPORTS: dict[str, set[str]] = {
    "__init__": set(),
    "component_errors": set(),
    "errors": {"component_errors"},
    "tensors": set(),
    "layers": set(),
    "files": {"errors"},
    "geometry": {"errors"},
    "memory": {"errors"},
    "logs": {"errors"},
    "rules": {"errors"},
    "options": {"errors", "rules"},
    "labels": {"errors", "files"},
    "session": {"errors", "files", "logs", "options"},
    "phantoms": {"errors", "files"},
    "handlers": set(),
    "metrics": {"errors", "labels"},
    "inferers": {"errors", "memory", "tensors"},
    "data": {"errors", "files", "geometry", "labels", "memory", "tensors"},
    "transforms": {"data", "errors", "files", "geometry", "labels", "memory", "tensors"},
    "record": {"data", "errors", "files", "options"},
    "reporting": {"data", "errors", "files", "geometry"},
    "engines": {"data", "errors", "files", "record", "reporting"},
    "methods": {"data", "engines", "errors", "inferers", "labels", "layers", "phantoms", "tensors", "transforms"},
    "doctor": {"data", "engines", "errors", "files", "geometry", "inferers", "labels", "memory", "session"},
    "packaging": {
        "engines", "errors", "files", "geometry", "labels", "memory", "phantoms", "record", "reporting", "session"
    },
    "verbs": {"data", "doctor", "errors", "files", "options", "packaging", "phantoms", "reporting"},
    "__main__": {"errors", "logs", "options", "rules", "verbs"},
}  # fmt: skip


def run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but what only a type checker sees."""
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from run_time_nodes(child)


def own_imports(path: Path) -> set[tuple[str, ...]]:
    """The modules of ``common`` that a file imports, as the parts of their names."""
    found = set()
    for node in run_time_nodes(FILES[path]):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parent.parts[: len(path.parent.parts) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {(*base, *name.split(".")) for name in names}
    return found


def test_own_modules_are_imported_relatively() -> None:
    for path, tree in FILES.items():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            assert not {"common", "bundles"} & {name.split(".")[0] for name in names}, path


def imports_of(part: str) -> set[str]:
    """Return the other parts that the files of a part import."""
    files = [path for path in FILES if path.with_suffix("").parts[0] == part]
    return {module[0] for path in files for module in own_imports(path)} - {part}


@pytest.mark.parametrize("part", sorted({path.with_suffix("").parts[0] for path in FILES}))
def test_a_part_imports_what_the_table_says(part: str) -> None:
    assert imports_of(part) == IMPORTS[part]


def test_the_table_has_an_order() -> None:
    above: set[str] = set()
    for part, imported in IMPORTS.items():
        assert imported <= above, part
        above.add(part)


def test_no_method_imports_another() -> None:
    for path in FILES:
        if path.parts[0] == "methods" and len(path.parts) > 2:
            of_methods = [module for module in own_imports(path) if module[0] == "methods"]
            assert all(module[1] == path.parts[1] for module in of_methods), path


def test_no_bundle_is_named() -> None:
    methods = {bundle.name.rpartition("_")[2] for bundle in BUNDLES}
    for path, tree in FILES.items():
        text = (COMMON / path).read_text().lower()
        assert not [bundle.name for bundle in BUNDLES if bundle.name in text], path
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # these cite methods
        literals = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docstrings]
        if path.parts[0] != "methods":
            assert not [n.value for n in literals if any(m in str(n.value).lower() for m in methods)], path


def test_only_commands_print() -> None:
    for path, tree in FILES.items():
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        if path.name not in ("__main__.py", "verbs.py", "errors.py"):
            assert "print" not in [function.id for function in calls if isinstance(function, ast.Name)], path


def test_no_path_of_a_machine() -> None:
    folders = "Users|data|home|mnt|opt|root|srv|tmp|usr|var|work|workspace"
    files = [COMMON / path for path in FILES] + [f for b in BUNDLES for f in b.glob("configs/**/*.*")]
    for path in files:
        # after a quote it is a part of a path: '/data' in a config
        assert not re.findall(rf"(?<![\w.:/~'])/(?:{folders})\b|\b[A-Z]:[\\/]", path.read_text()), path


def test_every_file_says_what_it_is_for() -> None:
    assert not [path for path, tree in FILES.items() if not (ast.get_docstring(tree) or "").strip()]
