"""Test the parts of the code that a package takes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from common.packaging.code import code_of

FILES = {
    "__init__.py": '"""The package."""\n',
    "__main__.py": "from .methods.round import Circle\n",
    "errors.py": "class Wrong(ValueError): ...\n",
    "shapes/__init__.py": '"""Shapes."""\n\nfrom .pi import PI\n',
    "shapes/page.html": "<p>from . import missing</p>",
    "shapes/notes.txt": "left out",
    "shapes/pi.py": "from ..errors import Wrong\n\nPI = 3\n",
    "shapes/deep/__init__.py": '"""Deep."""\n',
    "shapes/deep/root.py": "ROOT = 2\n",
    "drawing.py": "def draw():\n    from .shapes import PI as THREE\n\n    return THREE\n",
    "tools.py": "from . import drawing\n",
    "methods/__init__.py": '"""Methods."""\n',
    "methods/round/__init__.py": "from .circle import Circle\n",
    "methods/round/circle.py": "from ...shapes.pi import PI\n\n\nclass Circle:\n    pi = PI\n",
    "methods/round/area.py": "from .circle import Circle\n",
    "methods/angular/__init__.py": "import unheard_of\n",
}
SHAPES = ["__init__.py", "errors.py", "shapes/__init__.py", "shapes/deep/__init__.py", "shapes/deep/root.py"]
SHAPES += ["shapes/page.html", "shapes/pi.py"]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "figures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "figures"


def test_method_brings_its_folder_and_the_kinds_below(code: Path) -> None:
    taken = code_of(code, ["methods.round.Circle"])
    own = ["methods/__init__.py", "methods/round/__init__.py", "methods/round/area.py", "methods/round/circle.py"]
    assert sorted(taken) == sorted([*SHAPES, *own])
    assert all(text == FILES[name] for name, text in taken.items())


def test_import_within_a_function_counts(code: Path) -> None:
    assert sorted(code_of(code, ["drawing.draw"])) == sorted([*SHAPES, "drawing.py"])


def test_module_that_a_module_imports_from_the_root_counts(code: Path) -> None:
    assert sorted(code_of(code, ["tools.anything"])) == sorted([*SHAPES, "drawing.py", "tools.py"])


def test_code_runs_under_another_name(code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in code_of(code, ["methods.round.Circle"]).items():
        path = tmp_path / "alone" / "figures_v1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "alone"))
    assert importlib.import_module("figures_v1.methods.round").Circle.pi == 3
    for name in [name for name in sys.modules if name.startswith("figures_v1")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("name", ["shape.PI", "methods.oval.Ellipse"])
def test_unknown_part_is_refused(code: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"figures\.(shape|methods\.oval): no such module"):
        code_of(code, [name])
