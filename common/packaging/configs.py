"""Configs of a bundle, rewritten for code that travels in the bundle's folder under a name of its own."""

from __future__ import annotations

import ast
import base64
import copy
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver
from monai.bundle.utils import merge_kv

from ..session import setting_of

PATHS = ("bundle_root", "dataset_dir", "ckpt_dir", "output_dir", "weights", "log_file")

# The folder of the configs that run, where a workflow runs them; else the working directory, as MONAI has it.
BUNDLE_ROOT = (
    "$next((str(frame.f_locals['self'].config_root_path.parent) for frame, _ in walk_stack(None)"
    " if 'config_root_path' in getattr(frame.f_locals.get('self'), '__dict__', ())), '.')"
)
FIND_CODE = ["$import sys", "$from traceback import walk_stack"]
UNPACK_CODE = [
    "$import atexit",
    "$import io",
    "$import shutil",
    "$import tempfile",
    "$import zipfile",
    "$from base64 import b64decode",
]


def merged(config: dict[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """A config with those settings of an overlay that it has itself; its paths stay."""
    parser = ConfigParser(copy.deepcopy(config))
    for key, value in overlay.items():
        name = setting_of(key)
        if name in config and name not in PATHS:
            merge_kv(parser, key, value)
    return parser.config


class Rewriting:
    """The way from the configs of a repository to those of a package.

    Args:
        configs: every config of the bundle, by name.
        own: name of the package of code that they use now.
        package: name of the package of code that they shall use.

    Attributes:
        names: all that the configs use of the code, as dotted names below it.

    Raises:
        ValueError: two configs import different things under one name, or one that is also a key of a config.
    """

    def __init__(self, configs: Mapping[str, dict[str, Any]], own: str, package: str) -> None:
        self.own, self.package = own, package
        self.functions: dict[str, str] = {}  # name in expressions to dotted name below the code
        for file, config in configs.items():
            for name, target in self._imported(config):
                if self.functions.setdefault(name, target) != target or any(name in c for c in configs.values()):
                    raise ValueError(f"{file}: '{name}' is imported, and means something else in another config too")
        targets = {value for config in configs.values() for value in _targets(config)}
        used = {target.removeprefix(f"{own}.") for target in targets if target.startswith(f"{own}.")}
        self.names = used | set(self.functions.values())

    def __call__(self, config: dict[str, Any]) -> dict[str, Any]:
        """A config that takes all code from the package.

        What it imported becomes an entry of its own, since MONAI carries out import statements before anything else,
        and so before the entry ``bundle_code``, on which all use of the package depends.
        """
        functions = {name: self._component(target, _mode_="callable") for name, target in self._imported(config)}
        result: dict[str, Any] = {}
        for key, value in config.items():
            if key.lstrip("+") == "imports":
                kept = [line for line in value if self._import(line) is None]
                if key == "imports":
                    kept += FIND_CODE
                if kept:
                    result[key] = kept
            elif key == "bundle_root":
                result[key] = BUNDLE_ROOT
                result["bundle_code"] = "$@bundle_root in sys.path or sys.path.insert(0, @bundle_root)"
            else:
                result[key] = self._value(value)
        return result | functions

    def with_code(self, config: dict[str, Any], code: bytes) -> dict[str, Any]:
        """A rewritten config that carries the code itself, a zip: for a model file without a folder around it."""
        imports = [line for line in [*config["imports"], *UNPACK_CODE] if line != FIND_CODE[-1]]
        unpack = (
            f"$'{self.package}' in sys.modules or"
            " [zipfile.ZipFile(io.BytesIO(b64decode(@packed_code))).extractall(folder)"
            " or atexit.register(shutil.rmtree, folder, True) and sys.path.insert(0, folder)"
            " for folder in [tempfile.mkdtemp()]]"
        )
        changed = {"imports": list(dict.fromkeys(imports)), "bundle_root": ".", "bundle_code": unpack}
        return {**config, **changed, "packed_code": base64.b64encode(code).decode()}

    def _imported(self, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for key in ("imports", "+imports"):
            for line in config.get(key, []):
                if (found := self._import(line)) is not None:
                    yield found

    def _import(self, line: str) -> tuple[str, str] | None:
        """``(name, dotted name below the code)`` of an import statement of the code."""
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
            target = value.get("_target_", "")
            if target.startswith(f"{self.own}."):
                result["_target_"] = f"{self.package}.{target.removeprefix(f'{self.own}.')}"
                result["_requires_"] = "@bundle_code"
            return result
        return self._expression(value) if isinstance(value, str) and value.startswith("$") else value

    def _expression(self, expression: str) -> str:
        """Put references in place of imported names: ``$parse_bool(@resume)`` becomes ``$@parse_bool(@resume)``."""
        text = ReferenceResolver.normalize_id(expression[1:])
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        places = []
        for token, after in pairwise(tokens):
            hidden = token.type == tokenize.STRING and re.match("[rR]?[fF]", token.string)
            if token.start[0] > 1 or (hidden and set(re.findall(r"\w+", token.string)) & self.functions.keys()):
                raise ValueError(f"{expression}: expected one line, and no imported name in an f-string")
            is_name = token.type == tokenize.NAME and token.string in self.functions
            place = token.start[1]
            of_something = text[:place].endswith((".", "@", "::"))  # an attribute, a reference
            if is_name and not of_something and after.string != "=":  # before "=" it is a keyword
                places.append(place)
        for place in reversed(places):
            text = f"{text[:place]}@{text[place:]}"
        return f"${text}"


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("_target_"), str):
            yield value["_target_"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _targets(item)
