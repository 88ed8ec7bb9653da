"""The directions of imports, and what ``common`` does not say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from .conftest import BUNDLES

COMMON = Path(__file__).parents[1] / "common"
FILES = {path.relative_to(COMMON): ast.parse(path.read_text()) for path in sorted(COMMON.rglob("*.py"))}

# What each part of the package may import of the others; a new part gets a row.
LEAF = {"errors", "files", "geometry", "labels", "memory", "tensors"}
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"errors", "files", "data", "doctor", "logs", "options", "packaging", "reporting"},
    "data": LEAF,
    "doctor": {*LEAF, "data", "engines", "inferers", "session"},
    "engines": {*LEAF, "record", "data", "inferers", "losses", "metrics", "reporting"},
    "errors": set(),
    "files": {"errors"},
    "geometry": {"errors"},
    "handlers": LEAF,
    "inferers": LEAF,
    "labels": {"errors", "files"},
    "logs": LEAF,
    "losses": LEAF,
    "memory": {"errors"},
    "metrics": LEAF,
    "networks": set(),
    "options": LEAF,
    "packaging": {*LEAF, "record", "data", "engines", "reporting", "session"},
    "reporting": {"errors", "files", "data", "geometry"},
    "session": {*LEAF, "logs", "options"},
    "record": {"data", "errors", "files", "options"},
    "tensors": set(),
    "transforms": LEAF,
}


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


def test_imports_go_one_way() -> None:
    for path in FILES:
        part = path.with_suffix("").parts[0]
        assert {module[0] for module in own_imports(path)} - {part} <= MAY_IMPORT[part], path


def test_no_network_imports_another() -> None:
    for path in FILES:
        if path.parts[0] == "networks" and path.name != "__init__.py":
            assert all(module[1] == "layers" for module in own_imports(path)), path


def test_no_bundle_is_named() -> None:
    methods = {bundle.name.rpartition("_")[2] for bundle in BUNDLES}
    for path, tree in FILES.items():
        text = (COMMON / path).read_text().lower()
        assert not [bundle.name for bundle in BUNDLES if bundle.name in text], path
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # these cite methods
        literals = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docstrings]
        if path.parts[0] != "networks":
            assert not [n.value for n in literals if any(m in str(n.value).lower() for m in methods)], path


def test_only_commands_print() -> None:
    for path, tree in FILES.items():
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        if path.name not in ("__main__.py", "errors.py"):
            assert "print" not in [function.id for function in calls if isinstance(function, ast.Name)], path


def test_no_path_of_a_machine() -> None:
    folders = "Users|data|home|mnt|opt|root|srv|tmp|usr|var|work|workspace"
    files = [COMMON / path for path in FILES] + [f for b in BUNDLES for f in b.glob("configs/**/*.*")]
    for path in files:
        # after a quote it is a part of a path: '/data' in a config
        assert not re.findall(rf"(?<![\w.:/~'])/(?:{folders})\b|\b[A-Z]:[\\/]", path.read_text()), path


def test_every_file_says_what_it_is_for() -> None:
    assert not [path for path, tree in FILES.items() if not (ast.get_docstring(tree) or "").strip()]
