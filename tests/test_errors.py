"""Exit statuses of the errors that a command ends with."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from common.errors import (
    CasesFailedError,
    InputError,
    UsageError,
    failure_of_case,
    is_input_error,
    show_input_errors_in_one_line,
)


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


def _raised(action: Callable[[], object]) -> Exception:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        _raised(lambda: np.zeros(1 << 50)),
        _raised(lambda: torch.zeros(1 << 50)),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("itkImportImageContainer.hxx:179:\nFailed to allocate memory for image."),
    ],
    ids=["python", "numpy", "torch", "cuda", "itk"],
)
def test_an_allocation_that_fails_is_no_bug(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    assert failure_of_case(error, "a.nii.gz").startswith("a.nii.gz: not enough memory (")
    assert not caplog.records


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "b.nii"), "b.nii: permission denied; let this user read"),
        (OSError(errno.ENOSPC, "No space left on device"), "a.nii.gz: No space left on device; check"),
        (InputError("c.nii: no volume"), "c.nii: no volume"),
    ],
)
def test_a_fault_that_is_known_is_no_bug(error: Exception, message: str, caplog: pytest.LogCaptureFixture) -> None:
    wrapped = RuntimeError("applying transform")
    wrapped.__cause__ = error
    assert failure_of_case(wrapped, "a.nii.gz").startswith(message)
    assert not caplog.records


def test_a_bug_names_the_case_and_logs_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    error = _raised(lambda: {}["gone"])
    with caplog.at_level(logging.ERROR):
        message = failure_of_case(error, "a.nii.gz")
    assert message == "a.nii.gz: internal error (KeyError: 'gone'); report it with the traceback in the log"
    assert "Traceback" in caplog.text and "KeyError: 'gone'" in caplog.text
