"""Which modules a name needs."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from common.packaging.modules import needed_modules

FILES = {
    "__init__.py": '"""The package."""\n',
    "errors.py": "class Wrong(ValueError): ...\n",
    "shapes/__init__.py": '"""Shapes."""\n\nfrom .circle import Circle\nfrom .square import Square, area\n\n'
    '__all__ = ["Circle", "Square", "area"]\n',
    "shapes/circle.py": "from ..errors import Wrong\nfrom .deep.pi import PI\n\n\n"
    "class Circle:\n    pi = PI\n    error = Wrong\n",
    "shapes/square.py": "import unheard_of\n\n\nclass Square: ...\n\n\ndef area(): ...\n",
    "shapes/deep/__init__.py": '"""Deep."""\n',
    "shapes/deep/pi.py": "PI = 3\n",
    "drawing.py": "def draw():\n    from .shapes import Circle as Round\n\n    return Round()\n",
    "tools.py": "from . import drawing\nfrom .shapes import area\n",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "figures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "figures"


def test_a_name_of_a_package_brings_its_module_and_what_that_imports(package: Path) -> None:
    needed = needed_modules(package, ["shapes.Circle"])
    names = ["__init__.py", "errors.py", "shapes/__init__.py", "shapes/circle.py"]
    assert list(needed) == [*names, "shapes/deep/__init__.py", "shapes/deep/pi.py"]
    assert needed["shapes/circle.py"] == FILES["shapes/circle.py"]
    assert "Square" not in needed["shapes/__init__.py"] and "area" not in needed["shapes/__init__.py"]
    assert '"""Shapes."""' in needed["shapes/__init__.py"]


def test_what_is_taken_runs_alone(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Square imports a package that is not there: it must have stayed behind."""
    for name, text in needed_modules(package, ["drawing.draw"]).items():
        path = tmp_path / "alone" / "figures_v1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "alone"))
    circle = importlib.import_module("figures_v1.drawing").draw()
    assert circle.pi == 3
    assert importlib.import_module("figures_v1.shapes").__all__ == ["Circle"]
    for name in [name for name in sys.modules if name.startswith("figures_v1")]:
        monkeypatch.delitem(sys.modules, name)


def test_a_module_named_in_a_package_and_a_name_of_a_package_are_told_apart(package: Path) -> None:
    needed = needed_modules(package, ["tools.anything"])
    assert {"drawing.py", "shapes/square.py", "shapes/circle.py"} <= set(needed)
    assert "from .square import area" in needed["shapes/__init__.py"]


def test_a_function_that_is_called_as_its_module(package: Path) -> None:
    """The package's own name hides the module, as in Python."""
    (package / "shapes" / "spiral.py").write_text("def spiral(): ...\n")
    (package / "shapes" / "__init__.py").write_text("from .spiral import spiral\n")
    needed = needed_modules(package, ["shapes.spiral"])
    assert needed["shapes/__init__.py"] == "from .spiral import spiral\n" and "shapes/spiral.py" in needed


@pytest.mark.parametrize("name", ["shapes.Triangle", "shape.Circle", "shapes.round.Circle"])
def test_a_name_that_is_not_there(package: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"no such module|has no"):
        needed_modules(package, [name])
