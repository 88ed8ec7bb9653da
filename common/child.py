"""Run a child process: show what it prints, keep the line of its error, and end it with this process."""

from __future__ import annotations

import codecs
import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TextIO

from .errors import Terminated

ERROR = "error: "  # begins the line with which a command reports an error
PR_SET_PDEATHSIG = 1  # option of prctl: the signal that a process gets when its parent ends


class Ended(NamedTuple):
    """Describe how a child process ended.

    Args:
        status: exit status as in a shell: 128 and the number of the signal that killed the process.
        error: text of its error without ``error: ``, or "".
    """

    status: int
    error: str


def run_child(command: Sequence[str]) -> Ended:
    """Run a command and show what it prints, except for the line of its error.

    The child is in a session of its own, so that Ctrl-C reaches this process alone. Ctrl-C, SIGTERM and SIGHUP end the
    child, without its message; a second one kills it. On Linux, the child also ends if this process is killed.

    Raises:
        KeyboardInterrupt: this process got Ctrl-C, SIGTERM or SIGHUP, and the child has ended.
    """
    reading, writing = _channel()
    try:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stderr=writing,
                start_new_session=True,
                preexec_fn=_bound_to_parent(),
            )
        finally:
            os.close(writing)
        messages = Messages(sys.stderr)
        try:
            for text in _texts(reading):
                messages.write(text)
            messages.close()
            status = child.wait()
        except KeyboardInterrupt as interruption:
            _end(child, reading, isinstance(interruption, Terminated))
            raise
    finally:
        os.close(reading)
    return Ended(128 - status if status < 0 else status, messages.error)


def _bound_to_parent() -> Callable[[], None] | None:
    """Return what a new child calls so that it gets SIGTERM when its parent ends; None outside Linux."""
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()  # looked up before the fork, which may not load a library

    def bind() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it ended before the call
            os._exit(128 + signal.SIGTERM)

    return bind


class Messages:
    """Show text as it comes, and keep the last line that begins with ``error: `` instead of showing it.

    Args:
        stream: receives the other lines.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error = ""
        self._begun = ""  # beginning of a line that may be an error
        self._is_shown = False  # whether the beginning of the current line is shown

    def write(self, text: str) -> None:
        """Take the next piece of the text."""
        for piece in filter(None, re.split(r"(?<=[\r\n])", text)):
            is_whole = piece.endswith(("\r", "\n"))
            if not self._is_shown:
                piece, self._begun = self._begun + piece, ""
                if piece.startswith(ERROR) if is_whole else piece[: len(ERROR)] == ERROR[: len(piece)]:
                    self._hold(piece, is_whole)
                    continue
            self.stream.write(piece)
            self._is_shown = not is_whole
        self.stream.flush()

    def close(self) -> None:
        """Take the end of the text."""
        if self._begun.startswith(ERROR):
            self._hold(self._begun, True)
        else:
            self.stream.write(self._begun)
            self.stream.flush()

    def _hold(self, piece: str, is_whole: bool) -> None:
        if is_whole:
            self.error = piece.removeprefix(ERROR).strip()
        else:
            self._begun = piece


def _channel() -> tuple[int, int]:
    """Return the two ends of a pipe; of a pseudo-terminal if standard error is a terminal, for progress bars."""
    if sys.platform == "win32" or not sys.stderr.isatty():
        return os.pipe()
    import fcntl  # Windows has none of these modules
    import termios
    import tty

    reading, writing = os.openpty()
    tty.setraw(writing)  # a line still ends with one character
    size = fcntl.ioctl(sys.stderr.fileno(), termios.TIOCGWINSZ, bytes(8))
    fcntl.ioctl(writing, termios.TIOCSWINSZ, size)
    return reading, writing


def _texts(file: int) -> Iterator[str]:
    """Yield what the other end of a channel writes, until it is closed."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while True:
        try:
            data = os.read(file, 1 << 16)
        except OSError:  # a pseudo-terminal reports its end so
            return
        if not data:
            return
        yield decoder.decode(data)


def _end(child: subprocess.Popen, reading: int, terminate: bool) -> None:
    """End a child process and wait for it; its output is read and not shown."""
    if terminate or sys.platform == "win32":
        child.terminate()
    else:
        child.send_signal(signal.SIGINT)
    try:
        for _ in _texts(reading):
            pass
        child.wait()
    except KeyboardInterrupt:
        child.kill()
        child.wait()
