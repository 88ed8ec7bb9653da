"""The modules of a package that some of its names need, without the others."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path


def needed_modules(package: Path, names: Iterable[str]) -> dict[str, str]:
    """Sources of the modules that define the names, and of all that those import, wherever in their code.

    A module is taken whole and unchanged. Of an ``__init__.py`` only those imports stay of which something is needed.

    Args:
        package: folder of the package; its modules import each other relatively.
        names: dotted names below the package, such as ``networks.MMFNet``.

    Returns:
        path below the package to source text, sorted.

    Raises:
        ValueError: a name that the package does not have.
    """
    return _Needed(package).of(names)


class _Needed:
    def __init__(self, package: Path) -> None:
        self.package = package
        self.modules: set[tuple[str, ...]] = set()
        self.from_package: dict[tuple[str, ...], set[str]] = {(): set()}  # package to the names it must have

    def of(self, names: Iterable[str]) -> dict[str, str]:
        for name in names:
            *module, last = name.split(".")
            self._need(tuple(module), last)
        sources = {"/".join(module) + ".py": self._source(module) for module in self.modules}
        for package, wanted in self.from_package.items():
            sources["/".join((*package, "__init__.py"))] = _pruned(
                self._file(package).read_text(encoding="utf-8"), wanted
            )
        return dict(sorted(sources.items()))

    def _file(self, module: tuple[str, ...]) -> Path:
        folder = self.package.joinpath(*module)
        return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")

    def _source(self, module: tuple[str, ...]) -> str:
        return self._file(module).read_text(encoding="utf-8")

    def _need(self, module: tuple[str, ...], name: str) -> None:
        """Something named in a module or package, a sub-module included."""
        if not self._file(module).exists():
            raise ValueError(f"{'.'.join((self.package.name, *module))}: no such module")
        for depth in range(len(module) + 1):
            if self.package.joinpath(*module[:depth]).is_dir():
                self.from_package.setdefault(module[:depth], set())
        if not self.package.joinpath(*module).is_dir():
            self._need_module(module)
        elif name not in self.from_package[module]:
            for source, original, exported in _own_imports(ast.parse(self._source(module))):
                if exported == name:  # before a sub-module of this name, as Python has it
                    self.from_package[module].add(name)
                    self._need(_resolved(module, source), original)
                    return
            if not self._file((*module, name)).exists():
                raise ValueError(f"{'.'.join((self.package.name, *module))} has no {name}")
            self._need_module((*module, name))

    def _need_module(self, module: tuple[str, ...]) -> None:
        if module in self.modules:
            return
        self.modules.add(module)
        for source, original, _ in _own_imports(ast.parse(self._source(module))):
            self._need(_resolved(module[:-1], source), original)


def _own_imports(tree: ast.AST) -> list[tuple[str, str, str]]:
    """``(.module, name, name here)`` of every relative import; the module begins with its dots."""
    return [
        ("." * node.level + (node.module or ""), alias.name, alias.asname or alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    ]


def _resolved(package: tuple[str, ...], relative: str) -> tuple[str, ...]:
    name = relative.lstrip(".")
    above = len(relative) - len(name) - 1
    return (*package[: len(package) - above], *(name.split(".") if name else ()))


def _pruned(source: str, wanted: set[str]) -> str:
    """An ``__init__.py`` that imports the wanted names alone."""
    tree = ast.parse(source)
    body: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level:
            node.names = [alias for alias in node.names if (alias.asname or alias.name) in wanted]
            if not node.names:
                continue
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            node.value = ast.List([ast.Constant(name) for name in sorted(wanted)])
        body.append(node)
    tree.body = body
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"
