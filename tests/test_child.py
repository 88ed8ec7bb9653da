"""Test what child processes print, the line of their error, and how they end."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common.child import Ended, Messages, run_child


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("end", ["\n", ""])
def test_the_line_of_an_error_is_kept_and_not_shown(size: int, end: str) -> None:
    text = f"reading\n\r 10%\r 20%\nerr: no\nan error: no\nerror: keep 1\nmore\nerror: roi_size is 30{end}"
    shown = io.StringIO()
    messages = Messages(shown)
    for start in range(0, len(text), size):
        messages.write(text[start : start + size])
    messages.close()
    assert shown.getvalue() == "reading\n\r 10%\r 20%\nerr: no\nan error: no\nmore\n"
    assert messages.error == "roi_size is 30"


def test_the_beginning_of_a_line_is_shown_at_once() -> None:
    shown = io.StringIO()
    Messages(shown).write("training: 1 of 3")
    assert shown.getvalue() == "training: 1 of 3"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print('done')", Ended(0, "")),
        (
            "import sys; print('note', file=sys.stderr); print('error: a b', file=sys.stderr); sys.exit(3)",
            Ended(3, "a b"),
        ),
        ("import os; os.kill(os.getpid(), 9)", Ended(137, "")),
    ],
)
def test_a_child_gives_its_status_and_error(code: str, expected: Ended, capfd: pytest.CaptureFixture) -> None:
    assert run_child([sys.executable, "-c", code]) == expected
    out, err = capfd.readouterr()
    assert out == ("done\n" if "done" in code else "")
    assert err == ("note\n" if "note" in code else "")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_ends_the_child_first(number: int, tmp_path: Path) -> None:
    """Both run the handlers of this project, as a command and its run do."""
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell may ignore it
    start += "from common.errors import end_in_one_line; end_in_one_line(); "
    waits = f"{start}import time, pathlib; pathlib.Path('begun').touch(); time.sleep(60)"
    starts = f"{start}import sys; from common.child import run_child; run_child([sys.executable, '-c', {waits!r}])"
    command = subprocess.Popen([sys.executable, "-c", starts], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    command.send_signal(number)
    _, shown = command.communicate(timeout=60)
    assert command.returncode == 128 + number
    assert shown == ("interrupted\n" if number == signal.SIGINT else "terminated\n")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs prctl of Linux")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    waits = "import os, pathlib, time; pathlib.Path('new').write_text(str(os.getpid())); "
    waits += "os.rename('new', 'begun'); time.sleep(60)"
    starts = f"import sys; from common.child import run_child; run_child([sys.executable, '-c', {waits!r}])"
    with subprocess.Popen([sys.executable, "-c", starts], cwd=tmp_path) as command:
        deadline = time.monotonic() + 60
        while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        command.kill()
    status = Path("/proc", (tmp_path / "begun").read_text(), "status")
    deadline = time.monotonic() + 20
    while _runs(status) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(status)


def _runs(status: Path) -> bool:
    """Return whether a process runs; one that nobody waits for remains as a zombie."""
    try:
        return "State:\tZ" not in status.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_child_of_a_terminal_has_a_terminal() -> None:
    starts = (
        "import sys; from common.child import run_child;"
        " run_child([sys.executable, '-c', 'import sys; sys.stderr.write(str(sys.stderr.isatty()))'])"
    )
    reading, writing = os.openpty()
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(os.read(reading, 100)))
    reader.start()
    subprocess.run([sys.executable, "-c", starts], stderr=writing, check=True, timeout=60)
    reader.join(timeout=60)
    os.close(writing)
    os.close(reading)
    assert found == [b"True"]
