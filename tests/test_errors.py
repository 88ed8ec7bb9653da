"""Test the exit status and the line that a command ends with after an error or an interruption."""

from __future__ import annotations

import errno
import getpass
import logging
import os
import subprocess
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
    set_user_name,
    show_input_errors_in_one_line,
)


def end_below_monai(error: Exception, monkeypatch: pytest.MonkeyPatch) -> pytest.ExceptionInfo[SystemExit]:
    """End a command by an error that MONAI has wrapped, and return the exit. capsys has the printed text."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    show_input_errors_in_one_line()
    try:
        raise RuntimeError("MONAI's wrapper") from error
    except RuntimeError as raised:
        with pytest.raises(SystemExit) as ended:
            sys.excepthook(type(raised), raised, raised.__traceback__)
    return ended


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("a file"), 1),
        (UsageError("an option"), 2),
        (CasesFailedError("some", all_failed=False), 1),
        (CasesFailedError("all", all_failed=True), 3),
    ],
)
def test_each_kind_of_error_has_its_exit_status(
    error: InputError, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    ended = end_below_monai(error, monkeypatch)
    assert ended.value.code == status
    assert capsys.readouterr().err == f"error: {error}\n"
    assert is_input_error(error)


def _raised(action: Callable[[], object]) -> Exception:
    """Return the exception that an action raises."""
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
def test_a_failed_allocation_is_not_an_internal_error(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
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
def test_a_known_error_is_not_an_internal_error(
    error: Exception, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrapped = RuntimeError("applying transform")
    wrapped.__cause__ = error
    assert failure_of_case(wrapped, "a.nii.gz").startswith(message)
    assert not caplog.records


def test_an_internal_error_names_the_case_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    error = _raised(lambda: {}["gone"])
    with caplog.at_level(logging.ERROR):
        message = failure_of_case(error, "a.nii.gz")
    assert message.startswith("a.nii.gz: internal error (KeyError: 'gone')") and "log" in message
    assert "Traceback" in caplog.text and "KeyError: 'gone'" in caplog.text


INTERRUPTED = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores SIGINT by default
from common.errors import end_in_one_line
end_in_one_line()
def interrupt():
    os.kill(os.getpid(), signal.{name})
    while True:
        pass
class Finalized:
    def __del__(self):
        interrupt()
{where}
"""
MOMENTS = {
    "in its code": "interrupt()",
    "in a try block": "try:\n    interrupt()\nfinally:\n    print('tidied')",
    "in an import": "import pathlib, pydoc, tempfile\n"
    "folder = pathlib.Path(tempfile.mkdtemp())\n"
    "(folder / 'slow_module.py').write_text('import __main__; __main__.interrupt()')\n"
    "sys.path.insert(0, str(folder))\n"
    "try:\n    pydoc.locate('slow_module.Name')\n"
    "except pydoc.ErrorDuringImport as error:\n    raise RuntimeError from error",
    "in a finalizer": "one = Finalized()\ndel one",
    "at exit": "import atexit; atexit.register(interrupt)",
    "while it waits for threads": "import time\n"
    "threading.Thread(target=time.sleep, args=(20,)).start()\n"
    "threading.Thread(target=lambda: (time.sleep(0.5), os.kill(os.getpid(), signal.{name}))).start()",
}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interruption_ends_in_one_line(name: str, moment: str) -> None:
    program = INTERRUPTED.format(name=name, where=MOMENTS[moment].replace("{name}", name))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    endings = {"SIGINT": ("interrupted", 130), "SIGTERM": ("terminated", 143), "SIGHUP": ("terminated", 129)}
    assert (done.stderr.removesuffix("\n"), done.returncode) == endings[name]


@pytest.mark.skipif(os.name == "nt", reason="Windows lacks SIGHUP")
def test_a_command_under_nohup_outlives_its_terminal() -> None:
    program = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from common.errors import end_in_one_line; end_in_one_line()\n"
        "os.kill(os.getpid(), signal.SIGHUP); print('goes on')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("goes on\n", 0)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "too many open files; raise the limit (ulimit -n 4096)"),
        (RuntimeError("unable to open shared memory object: Too many open files (24)"), "too many open files"),
        (RuntimeError("received 0 items of ancdata"), "too many open files"),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Bus error. "), "/dev/shm is too small"),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed. "), "a worker that reads the cases was"),
        (RuntimeError("DataLoader worker (pid(s) 3) exited unexpectedly"), "a worker that reads the cases was killed"),
        (RuntimeError("Caught RuntimeError in DataLoader worker process 0.\n</torch_1_2>: No space"), "/dev/shm is"),
    ],
)
def test_a_limit_of_the_machine_ends_in_one_line(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    ended = end_below_monai(error, monkeypatch)
    shown = capsys.readouterr().err
    assert ended.value.code == 1
    assert shown.startswith(f"error: {message}") and "--num_workers" in shown and shown.count("\n") == 1


def test_a_user_without_a_name_gets_a_number_as_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "restored afterwards")
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    set_user_name()
    assert getpass.getuser() == str(os.getuid())
