"""Write the log of a run to a file and the console, and silence notices of other libraries."""

from __future__ import annotations

import atexit
import io
import logging
import re
import sys
import warnings
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from .errors import InputError, tracebacks

# Warnings of other libraries that a user of a bundle cannot act on.
NOTICES = (".*nvImageCodec decoder plugin did not register.*",)
QUIET_LOGGERS = {
    "highdicom": logging.ERROR,  # logs every header that it copies
    "ignite.engine": logging.CRITICAL,  # logs every run and epoch, and exceptions that it raises again
    "monai.data.nvimgcodec_pydicom_plugin": logging.ERROR,  # warns that an optional decoder is missing
    "nibabel.global": logging.ERROR,  # warns of header fields that it sets to their defaults
}
# This name distinguishes the handler of a run's log file from a host program's handlers, also in packed copies.
LOG_FILE = "log file of a bundle's run"
LINE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")  # how a log begins


def silence_notices() -> None:
    """Silence log messages and warnings of other libraries that a user cannot act on."""
    for notice in NOTICES:
        warnings.filterwarnings("ignore", notice)
    for name, level in QUIET_LOGGERS.items():
        logging.getLogger(name).setLevel(level)


def show_any_text() -> None:
    """Print characters that the encoding of standard output lacks as escape codes.

    File names and header texts may have such characters.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def log_to(path: Path) -> None:
    """Append the log of this process to a file, and close the log file of an earlier run.

    Args:
        path: log file; this function makes its folder, and the first message makes the file.

    Raises:
        InputError: if the file cannot be written, or is not a log.
    """
    root = logging.getLogger()
    if any(type(h) is logging.StreamHandler and h.stream in (sys.stdout, sys.stderr) for h in root.handlers):
        above_progress_bars = logging_redirect_tqdm()
        above_progress_bars.__enter__()
        atexit.register(above_progress_bars.__exit__, None, None, None)  # keeps the context manager alive
    for owner in (root, tracebacks):
        for handler in [h for h in owner.handlers if h.get_name() == LOG_FILE]:
            owner.removeHandler(handler)
            handler.close()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        with path.open("ab" if is_new or not path.is_file() else "r+b") as file:
            head = file.read(30) if file.readable() else b""
        if head and not LINE.match(head):
            raise InputError(f"--log_file {path}: another file, not the log of an earlier run; choose another name")
        if is_new:
            path.unlink()  # the first message makes the file: a run that is refused before it leaves none
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); choose another folder: --ckpt_dir for a training, "
            "--output_dir for an evaluation or inference"
        ) from error
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace", delay=True)
    handler.set_name(LOG_FILE)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.addHandler(handler)
    tracebacks.addHandler(handler)
    tracebacks.propagate = False  # the console gets one line
