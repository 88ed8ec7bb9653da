"""Write the log of a run to a file and the console, and leave out notices of other libraries."""

from __future__ import annotations

import atexit
import io
import logging
import sys
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from .errors import InputError, tracebacks

# Third parties' notices that a user of a bundle can do nothing about.
NOTICES = (".*nvImageCodec decoder plugin did not register.*",)
QUIET_LOGGERS = {
    "highdicom": logging.ERROR,  # every header that it copies
    "ignite.engine": logging.CRITICAL,  # every run and epoch, and exceptions that are raised anyway
    "monai.data.nvimgcodec_pydicom_plugin": logging.ERROR,  # an optional decoder is absent
    "nibabel.global": logging.ERROR,  # header fields that nibabel sets to their defaults
}
# The name tells the log file of a run from a host program's handlers, for the copies of this module in packages too.
LOG_FILE = "log file of a bundle's run"


def quiet_loggers() -> None:
    """Leave out what other libraries log and a user can do nothing about."""
    for name, level in QUIET_LOGGERS.items():
        logging.getLogger(name).setLevel(level)


def show_any_text() -> None:
    """Let standard output show file names and texts of headers that its encoding does not have, by their codes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def log_to(path: Path) -> None:
    """Write the log to a file too, in place of the file of an earlier run of this process.

    Args:
        path: file that the log is appended to; its folder is made.

    Raises:
        InputError: the file cannot be written.
    """
    root = logging.getLogger()
    if any(type(h) is logging.StreamHandler and h.stream in (sys.stdout, sys.stderr) for h in root.handlers):
        above_progress_bars = logging_redirect_tqdm()
        above_progress_bars.__enter__()
        atexit.register(above_progress_bars.__exit__, None, None, None)  # it would end when it is collected
    for owner in (root, tracebacks):
        for handler in [h for h in owner.handlers if h.get_name() == LOG_FILE]:
            owner.removeHandler(handler)
            handler.close()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); choose another folder: --ckpt_dir for a training, "
            "--output_dir for an evaluation or inference"
        ) from error
    handler.set_name(LOG_FILE)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.addHandler(handler)
    tracebacks.addHandler(handler)
    tracebacks.propagate = False  # the console gets one line
