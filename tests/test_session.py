"""Test the set-up of a run: its log file, and the line that ends it after an error."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tqdm import tqdm

from common.errors import InputError, failure_of_case, root_cause, tracebacks
from common.session import LOG_FILE, QUIET_LOGGERS, start_session

from .warm_python import WarmPython


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the exception hook, log handlers and log levels of the process."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    root = logging.getLogger()
    handlers = list(root.handlers)
    levels = {logger: logger.level for logger in (root, *map(logging.getLogger, QUIET_LOGGERS))}
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers = handlers
    tracebacks.handlers, tracebacks.propagate = [], True
    for logger, level in levels.items():
        logger.setLevel(level)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture) -> Callable[[BaseException], str]:
    """Return a function that gives the text that a session prints when an exception ends it."""

    def show(error: BaseException) -> str:
        try:
            raise error
        except BaseException as raised:
            with contextlib.suppress(SystemExit):
                sys.excepthook(type(raised), raised, raised.__traceback__)
        return capsys.readouterr().err

    return show


def test_a_second_process_is_refused_wherever_its_log_is(tmp_path: Path, warm_python: WarmPython) -> None:
    start_session(tmp_path / "one" / "run.log", folder=tmp_path / "results")
    second = f"""
from common.session import start_session
start_session({str(tmp_path / "two" / "run.log")!r}, folder={str(tmp_path / "results")!r})
"""
    ended = warm_python.run([sys.executable, "-c", second])
    assert ended.returncode == 1
    assert "results: another process is writing there" in ended.stderr.splitlines()[-1]


def test_the_log_file_has_the_log_messages(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "run.log"
    start_session(path)
    logging.getLogger("common.engines").info("epoch %d", 3)
    logging.getLogger("common.engines").debug("detail")
    logging.getLogger("ignite.engine.engine.Engine").info("Engine run starting")
    (line,) = path.read_text().splitlines()
    assert line.endswith(" INFO epoch 3")


def test_a_run_without_a_message_leaves_no_log_file(tmp_path: Path) -> None:
    start_session(tmp_path / "run.log")
    assert not (tmp_path / "run.log").exists()
    old = "2026-01-02 03:04:05,678 INFO old\n"
    (tmp_path / "old.log").write_text(old)
    start_session(tmp_path / "old.log")
    assert (tmp_path / "old.log").read_text() == old


def test_only_the_log_file_has_the_traceback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start_session(tmp_path / "run.log")
    failure_of_case(TypeError("a bug"), "P1")
    assert "TypeError: a bug" in (tmp_path / "run.log").read_text()
    assert "a bug" not in caplog.text


def test_a_second_session_has_its_own_log_file(tmp_path: Path) -> None:
    start_session(tmp_path / "one.log")
    logging.warning("first")
    start_session(tmp_path / "two.log")
    logging.warning("second")
    assert [line.split()[-1] for line in (tmp_path / "one.log").read_text().splitlines()] == ["first"]
    assert [line.split()[-1] for line in (tmp_path / "two.log").read_text().splitlines()] == ["second"]


def test_handlers_of_the_host_program_are_kept(tmp_path: Path) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    for name in ("one.log", "two.log"):
        start_session(tmp_path / name)
        logging.warning(name)
    assert [record.getMessage() for record in records] == ["one.log", "two.log"]


def test_log_lines_are_written_above_a_progress_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(tqdm, "write", classmethod(lambda cls, text, **_: written.append(text)))
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(sys.stdout)])
    start_session(tmp_path / "run.log")
    logging.warning("the network is untrained")
    assert written == ["the network is untrained"]


def test_text_outside_the_encoding_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    start_session(tmp_path / "run.log")
    name = os.fsdecode(b"Sch\xe4del") + " 頭部"
    print(name)
    record = logging.makeLogRecord({"msg": name, "levelno": logging.WARNING, "levelname": "WARNING"})
    # only through the log file's handler, since pytest-xdist cannot send such a text from a worker
    next(handler for handler in logging.getLogger().handlers if handler.get_name() == LOG_FILE).handle(record)
    screen.flush()
    assert screen.buffer.getvalue() == b"Sch\\udce4del \\u982d\\u90e8\n"  # type: ignore[attr-defined]
    assert "Sch\\udce4del 頭部" in (tmp_path / "run.log").read_text(encoding="utf-8")


def test_a_log_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    path = tmp_path / "out" / "run.log"
    with pytest.raises(InputError, match=rf"^{path}: cannot be written \(.+\); choose another folder: --ckpt_dir"):
        start_session(path)
    with pytest.raises(InputError, match=rf"^{tmp_path}: cannot be written \(Is a directory\)"):
        start_session(tmp_path)


def test_a_distributed_run_without_torchrun_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(InputError, match=r"torchrun --standalone --nproc_per_node=N -m monai\.bundle run"):
        start_session(tmp_path / "run.log", distributed=True)


def test_a_nested_input_error_is_shown_in_one_line(tmp_path: Path, shown: Callable) -> None:
    start_session(tmp_path / "run.log")
    assert shown(InputError("a.nii.gz: no such file")) == "error: a.nii.gz: no such file\n"

    error: BaseException = InputError("a.nii.gz: no such file")
    for message in ("applying transform", "evaluating the expression", "instantiating"):
        outer = RuntimeError(message)
        outer.__cause__ = error
        error = outer
    assert shown(error) == "error: a.nii.gz: no such file\n"

    outer = RuntimeError("while that was handled")
    outer.__context__ = InputError("b.nii.gz: every voxel is 0")
    assert shown(outer) == "error: b.nii.gz: every voxel is 0\n"


def test_the_outermost_of_several_input_errors_is_shown(tmp_path: Path, shown: Callable) -> None:
    start_session(tmp_path / "run.log")
    error = InputError("2 of 4 cases failed")
    error.__cause__ = InputError("a.nii.gz: no such file")
    assert shown(error) == "error: 2 of 4 cases failed\n"


def test_any_other_error_keeps_its_traceback(tmp_path: Path, shown: Callable) -> None:
    start_session(tmp_path / "run.log")
    error = RuntimeError("instantiating")
    error.__cause__ = KeyError("modalities")
    text = shown(error)
    assert text.startswith("KeyError: 'modalities'\n")
    assert "Traceback (most recent call last)" in text
    assert text.endswith("RuntimeError: instantiating\n")


def test_an_interruption_prints_one_word(tmp_path: Path, shown: Callable) -> None:
    start_session(tmp_path / "run.log")
    assert shown(KeyboardInterrupt()) == "interrupted\n"


def test_root_cause_without_an_input_error_is_the_origin() -> None:
    origin, outer = KeyError("x"), RuntimeError("y")
    outer.__cause__ = origin
    assert root_cause(outer) is origin


def test_a_process_ends_in_one_line(tmp_path: Path, warm_python: WarmPython) -> None:
    program = f"""
from common.errors import InputError
from common.session import start_session
start_session({str(tmp_path / "run.log")!r})
try:
    raise InputError("a.nii.gz: no such file")
except InputError as error:
    raise RuntimeError("applying transform") from error
"""
    done = warm_python.run([sys.executable, "-c", program], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: a.nii.gz: no such file\n")


def test_a_file_that_is_no_log_is_not_appended_to(tmp_path: Path) -> None:
    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes(b"\x1f\x8b voxels")
    with pytest.raises(InputError, match=r"--log_file .*scan\.nii\.gz: another file, not the log of an earlier run"):
        start_session(scan)
    assert scan.read_bytes() == b"\x1f\x8b voxels"
