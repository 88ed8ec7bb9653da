"""Collect the code of a package: one method's folder and the kinds of shared modules that it builds on."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

SUFFIXES = (".py", ".html")  # of code, and of a template beside it
METHODS = "methods"  # each folder in it is a part of its own; elsewhere each folder or module of the code is

Part = tuple[str, ...]


def code_of(code: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the sources of the parts that define names, and of the parts that those import.

    A part is a folder or module of the code, such as ``transforms``, or the folder of one method. It is taken whole and
    unchanged, so that a file of a package equals the file of this repository. Imports within functions count.

    Args:
        code: folder of the code; its modules import each other relatively.
        names: dotted names below the folder, such as ``methods.mmfnet.MMFNet``.

    Returns:
        path below the folder to source text, sorted.

    Raises:
        ValueError: the code has no such part.
    """
    sources: dict[Path, str] = {}
    to_do = [_part_of(name.split(".")) for name in names]
    done: set[Part] = set()
    while to_do:
        part = to_do.pop()
        if part in done:
            continue
        done.add(part)
        for path in _files(code, part):
            sources[path] = path.read_text(encoding="utf-8")
            if path.suffix == ".py":
                to_do += _imported_parts(path.relative_to(code).parent.parts, sources[path])
    for part in done:  # a folder is importable once those above it are
        for above in range(len(part)):
            path = code.joinpath(*part[:above], "__init__.py")
            sources[path] = path.read_text(encoding="utf-8")
    return {path.relative_to(code).as_posix(): sources[path] for path in sorted(sources)}


def _part_of(module: Iterable[str]) -> Part:
    names = tuple(module)
    return names[:2] if names[0] == METHODS else names[:1]


def _files(code: Path, part: Part) -> list[Path]:
    folder = code.joinpath(*part)
    files = [folder.with_suffix(".py")]
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    if not files or not files[0].is_file():
        raise ValueError(f"{'.'.join((code.name, *part))}: no such module")
    return files


def _imported_parts(package: Part, source: str) -> Iterator[Part]:
    """Yield the parts that a module imports relatively.

    Args:
        package: folder of the module, as names below the code.
        source: text of the module.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            tails = [node.module.split(".")] if node.module else [[alias.name] for alias in node.names]
            yield from (_part_of((*base, *tail)) for tail in tails)
