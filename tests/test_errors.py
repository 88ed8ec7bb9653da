"""Exit statuses of the errors that a command ends with."""

from __future__ import annotations

import sys

import pytest

from common.errors import CasesFailedError, InputError, UsageError, is_input_error, show_input_errors_in_one_line


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("a file"), 1),
        (UsageError("an option"), 2),
        (CasesFailedError("some", all_failed=False), 1),
        (CasesFailedError("all", all_failed=True), 3),
    ],
)
def test_status_tells_errors_apart(
    error: InputError, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    show_input_errors_in_one_line()
    try:
        raise RuntimeError("MONAI's wrapper") from error
    except RuntimeError as raised:
        with pytest.raises(SystemExit) as ended:
            sys.excepthook(type(raised), raised, raised.__traceback__)
    assert ended.value.code == status
    assert capsys.readouterr().err == f"error: {error}\n"
    assert is_input_error(error)
