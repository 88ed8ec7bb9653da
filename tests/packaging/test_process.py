"""Test processes that cannot import this repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import InputError
from common.packaging import process
from common.packaging.process import in_clean_process


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(process, "SCRIPT", tmp_path / "script.py")
    return tmp_path / "script.py"


def test_process_gets_its_arguments_and_folder(script: Path, tmp_path: Path) -> None:
    script.write_text("import pathlib, sys\npathlib.Path('said').write_text(' '.join(sys.argv[1:]))")
    in_clean_process("load", tmp_path, "a", "b c")
    assert (tmp_path / "said").read_text() == "load a b c"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys; print('noise'); sys.exit('error: a.pt: is damaged')", r"^a\.pt: is damaged$"),
        (
            "import os; os.kill(os.getpid(), 9)",
            r"^signal 9 ended a process \(load\); use a machine",
        ),
        ("raise SystemExit(3)", "^no message$"),
    ],
)
def test_failure_is_one_line(script: Path, tmp_path: Path, text: str, message: str) -> None:
    script.write_text(text)
    with pytest.raises(InputError, match=message):
        in_clean_process("load", tmp_path)


def test_script_hides_the_repository_before_its_imports() -> None:
    source = process.SCRIPT.read_text()
    assert source.index('sys.modules["common"] = None') < source.index("import torch")
