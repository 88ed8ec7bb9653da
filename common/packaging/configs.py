"""Rewrite the configs of a bundle for code under a name of its own, in the bundle's folder or in a wheel.

All expressions that rewriting adds keep to a small grammar, so that a tool can screen a package without running it:
names, references, constants, calls, attributes, indices, arithmetic, comparisons, ``and``, ``or``, ``not`` and
conditions. There are no lambdas, comprehensions or assignments; imports are entries of ``imports`` alone.
"""

from __future__ import annotations

import ast
import base64
import io
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from monai.bundle import ReferenceResolver

# The workflow that evaluates a config knows the config's path, but no expression can ask MONAI for it. So this takes
# the first `config_root_path` among the attributes of the callers' objects. Where no workflow runs, as in
# `monai.bundle.load`, the working directory is the root, as in MONAI.
BUNDLE_ROOT = {
    "bundle_callers": (
        "$map(methodcaller('get', 'self'), map(attrgetter('f_locals'), map(itemgetter(0), walk_stack(None))))"
    ),
    "bundle_paths": (
        "$map(methodcaller('get', 'config_root_path'),"
        " map(getattr, @bundle_callers, repeat('__dict__'), repeat(dict())))"
    ),
    "bundle_root": "$str(getattr(next(filter(None, @bundle_paths), None), 'parent', '.'))",
}
FIND_IMPORTS = [
    "$import sys",
    "$from itertools import repeat",
    "$from operator import attrgetter",
    "$from operator import itemgetter",
    "$from operator import methodcaller",
    "$from traceback import walk_stack",
]
FOLDER_IMPORTS = ["$from importlib.util import find_spec"]
WHEEL_IMPORTS = ["$from importlib.metadata import distributions"]
UNPACK_CODE = (  # all calls return None; the folder is removed when the process ends
    " or sys.path.insert(0, tempfile.mkdtemp())"
    " or zipfile.ZipFile(io.BytesIO(b64decode(@packed_code))).extractall(sys.path[0])"
    " or atexit.register(shutil.rmtree, sys.path[0], True)"
)
UNPACK_IMPORTS = [
    "$import sys",
    "$import atexit",
    "$import io",
    "$import shutil",
    "$import tempfile",
    "$import zipfile",
    "$from base64 import b64decode",
]


def find_folder(package: str) -> dict[str, str]:
    """Return entries of a config that make the code in the bundle's folder importable, or end with an error.

    Args:
        package: name of the code's package.
    """
    return {
        "code_place": "$@bundle_root in sys.path or sys.path.insert(0, @bundle_root)",
        "code_missing": f"error: %s/{package}: no such folder, but it has the code; get the package again",
        "bundle_code": f"$(@code_place or True) and find_spec('{package}') is not None"
        " or sys.exit(@code_missing % @bundle_root)",
    }


def find_wheel(name: str, version: str, file: str) -> dict[str, str]:
    """Return entries of a config that end with an error unless a wheel of this name and version is installed.

    Args:
        name: name of the wheel's distribution.
        version: version that must be among those on ``sys.path``.
        file: name of the wheel's file.
    """
    return {
        "code_found": f"$sorted(set(map(attrgetter('version'), distributions(name='{name}'))))",
        "code_missing": f"error: {name} needs its wheel of version {version}; found %s; run pip install {file}",
        "bundle_code": f"$'{version}' in @code_found or sys.exit(@code_missing % (', '.join(@code_found) or 'none'))",
    }


class Rewriting:
    """Rewrite configs of the repository as configs of a package.

    Args:
        configs: every config of the bundle, by name.
        own: name of the code's package in these configs.
        package: name of the code's package in the rewritten configs.
        find_code: entries of a config that make the code importable, the last of them ``bundle_code``; None finds it
            in the bundle's folder.
        find_imports: imports that these entries need, besides those that find the bundle's folder.

    Attributes:
        names: everything in the code that the configs use, as dotted names below its package.

    Raises:
        ValueError: two configs import different objects under one name, or an imported name is also a key of a config.
    """

    def __init__(
        self,
        configs: Mapping[str, dict[str, Any]],
        own: str,
        package: str,
        find_code: Mapping[str, str] | None = None,
        find_imports: Sequence[str] = FOLDER_IMPORTS,
    ) -> None:
        self.own, self.package = own, package
        self.find_code = find_folder(package) if find_code is None else find_code
        self.find_imports = find_imports
        self.functions: dict[str, str] = {}  # name in expressions to dotted name below the code
        for file, config in configs.items():
            for name, target in self._imported(config):
                if self.functions.setdefault(name, target) != target or any(name in c for c in configs.values()):
                    raise ValueError(f"{file}: imports '{name}', which has another meaning in another config")
        targets = {value for config in configs.values() for value in _targets(config)}
        used = {target.removeprefix(f"{own}.") for target in targets if target.startswith(f"{own}.")}
        self.names = used | set(self.functions.values())

    def __call__(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return a config that takes all code from the package.

        An imported function becomes an entry of the config. MONAI carries out imports first, before the entry
        ``bundle_code`` has made the package importable. The new entry depends on ``bundle_code``.
        """
        functions = {name: self._component(target, _mode_="callable") for name, target in self._imported(config)}
        result: dict[str, Any] = {}
        for key, value in config.items():
            if key.lstrip("+") == "imports":
                kept = [line for line in value if self._import(line) is None]
                if key == "imports":
                    kept = list(dict.fromkeys([*kept, *FIND_IMPORTS, *self.find_imports]))
                if kept:
                    result[key] = kept
            elif key == "bundle_root":
                result |= {**BUNDLE_ROOT, **self.find_code}
            else:
                result |= self._value({key: value})
        return result | functions

    def with_code(self, config: dict[str, Any], code: bytes) -> dict[str, Any]:
        """Return a rewritten config that carries the code itself, for a model file without a folder around it.

        Args:
            config: rewritten config.
            code: zip of the code's package.
        """
        imports = [line for line in config["imports"] if line not in (*FIND_IMPORTS, *self.find_imports)]
        return {
            **{key: value for key, value in config.items() if key not in {**BUNDLE_ROOT, **self.find_code}},
            "imports": [*imports, *UNPACK_IMPORTS],
            "bundle_root": ".",
            "bundle_code": f"$'{self.package}' in sys.modules{UNPACK_CODE}",
            "packed_code": base64.b64encode(code).decode(),
        }

    def without_folder(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return a rewritten config for a model file without a folder around it, if a wheel has the code."""
        imports = [line for line in config["imports"] if line not in FIND_IMPORTS]
        return {
            **{key: value for key, value in config.items() if key not in BUNDLE_ROOT},
            "imports": ["$import sys", "$from operator import attrgetter", *imports],
            "bundle_root": ".",
        }

    def _imported(self, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for key in ("imports", "+imports"):
            for line in config.get(key, []):
                if (found := self._import(line)) is not None:
                    yield found

    def _import(self, line: str) -> tuple[str, str] | None:
        """Return ``(name, dotted name below the code)`` for an import from the code, and None for another import."""
        (statement,) = ast.parse(line.lstrip("$")).body
        if not isinstance(statement, ast.ImportFrom) or (statement.module or "").split(".")[0] != self.own:
            return None
        (alias,) = statement.names
        return alias.asname or alias.name, f"{statement.module}.{alias.name}".removeprefix(f"{self.own}.")

    def _component(self, target: str, **more: Any) -> dict[str, Any]:
        return {"_target_": f"{self.package}.{target}", **more, "_requires_": "@bundle_code"}

    def _value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if isinstance(value, dict):
            result = {key: self._value(item) for key, item in value.items()}
            for key, target in value.items():  # "_target_", or "loss::_target_" in an overlay
                if key.endswith("_target_") and isinstance(target, str) and target.startswith(f"{self.own}."):
                    result[key] = f"{self.package}.{target.removeprefix(f'{self.own}.')}"
                    result[key.removesuffix("_target_") + "_requires_"] = "@bundle_code"
            return result
        return self._expression(value) if isinstance(value, str) and value.startswith("$") else value

    def _expression(self, expression: str) -> str:
        """Replace imported names by references: ``$parse_bool(@resume)`` becomes ``$@parse_bool(@resume)``."""
        text = ReferenceResolver.normalize_id(expression[1:])
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        places = []
        for token, after in pairwise(tokens):
            hidden = token.type == tokenize.STRING and re.match("[rR]?[fF]", token.string)
            if token.start[0] > 1 or (hidden and set(re.findall(r"\w+", token.string)) & self.functions.keys()):
                raise ValueError(f"{expression}: expected one line without imported names in an f-string")
            is_name = token.type == tokenize.NAME and token.string in self.functions
            place = token.start[1]
            is_attribute = text[:place].endswith((".", "@", "::"))  # of an object or a reference
            if is_name and not is_attribute and after.string != "=":  # before "=" it is a keyword
                places.append(place)
        for place in reversed(places):
            text = f"{text[:place]}@{text[place:]}"
        return f"${text}"


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (text for key, text in value.items() if key.endswith("_target_") and isinstance(text, str))
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _targets(item)
