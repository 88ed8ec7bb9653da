"""What a command sets up once: log file, one-line errors, the process group of a multi-GPU run."""

from __future__ import annotations

import atexit
import difflib
import inspect
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

import monai.bundle
import torch
import torch.distributed as dist
from tqdm.contrib.logging import logging_redirect_tqdm

from .errors import InputError, show_input_errors_in_one_line, tracebacks

# Third parties' notices that a user of a bundle can do nothing about.
NOTICES = (".*nvImageCodec decoder plugin did not register.*",)
QUIET_LOGGERS = {
    "highdicom": logging.ERROR,  # every header that it copies
    "ignite.engine": logging.CRITICAL,  # every run and epoch, and exceptions that are raised anyway
    "monai.data.nvimgcodec_pydicom_plugin": logging.ERROR,  # an optional decoder is absent
    "nibabel.global": logging.ERROR,  # header fields that nibabel sets to their defaults
}
# Settings of earlier versions, and what has taken their place.
RENAMED = {"target": "labels and label_map, such as --labels \"{'liver': 1, 'tumour': 2}\" --label_map \"{}\""}
# By its name the log file of a run is told from a host program's handlers, by copies of this module in packages too.
LOG_FILE = "log file of a bundle's run"


def start_session(log_file: str | Path, distributed: bool = False) -> None:
    """Begin a run of a bundle.

    Args:
        log_file: gets what the console gets from the first process.
        distributed: join the process group that ``torchrun`` announced, NCCL with CUDA and gloo without.

    Raises:
        InputError: ``distributed`` without ``torchrun``.
    """
    show_input_errors_in_one_line()
    show_any_text()
    if len(sys.argv) > 1 and sys.argv[1] == "run" and Path(sys.argv[0]).parent.name == "bundle":
        refuse_unknown_options(sys.argv[2:])
    for notice in NOTICES:
        warnings.filterwarnings("ignore", notice)
    if distributed:
        _join_process_group()
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    quiet_loggers()
    if distributed and dist.get_rank() > 0:
        root.setLevel(logging.ERROR)
        return
    _log_to(Path(log_file))


def show_any_text() -> None:
    """Let standard output show file names and texts of headers that its encoding does not have, by their codes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def quiet_loggers() -> None:
    """Leave out what other libraries log and a user can do nothing about."""
    for name, level in QUIET_LOGGERS.items():
        logging.getLogger(name).setLevel(level)


def _log_to(path: Path) -> None:
    root = logging.getLogger()
    if any(type(h) is logging.StreamHandler and h.stream in (sys.stdout, sys.stderr) for h in root.handlers):
        above_progress_bars = logging_redirect_tqdm()
        above_progress_bars.__enter__()
        atexit.register(above_progress_bars.__exit__, None, None, None)  # it would end when it is collected
    for owner in (root, tracebacks):
        for handler in [h for h in owner.handlers if h.get_name() == LOG_FILE]:  # of an earlier run in this process
            owner.removeHandler(handler)
            handler.close()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
    handler.set_name(LOG_FILE)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.addHandler(handler)
    tracebacks.addHandler(handler)
    tracebacks.propagate = False  # the console gets one line


def refuse_unknown_options(arguments: Sequence[str]) -> None:
    """Check the options of ``python -m monai.bundle run``, which takes any name and lets one that nothing reads pass.

    Args:
        arguments: after ``run``.

    Raises:
        InputError: an option that is neither MONAI's nor a key of the config files.
    """
    options = {}
    for position, argument in enumerate(arguments):
        if argument.startswith("--"):
            name, _, value = argument[2:].partition("=")
            options[name.replace("-", "_")] = value or "".join(arguments[position + 1 : position + 2])
    files = options.get("config_file", "")
    if not files or "args_file" in options:  # what else is read stands elsewhere
        return
    known = {"_meta_", *inspect.signature(monai.bundle.run).parameters}
    for file in files.strip("[]() ").replace("'", "").replace('"', "").split(","):
        known |= {setting_of(key) for key in monai.bundle.ConfigParser.load_config_file(file.strip())}
    for name in options:
        check_setting(name, known, files, "--")


def setting_of(key: str) -> str:
    """The setting that a key of a config, an overlay or an option is about: that of ``+load`` and ``load::0``."""
    return re.split("::|#", key.lstrip("+"))[0]


def check_setting(key: str, known: Collection[str], where: str, mark: str = "") -> None:
    """Refuse a key that is about no known setting, as one that is misspelt.

    Args:
        key: of a config or an option.
        known: the settings.
        where: what has these settings, for the message.
        mark: what stands before an option.

    Raises:
        InputError: it names the nearest.
    """
    if setting_of(key) not in known:
        near = difflib.get_close_matches(setting_of(key), known, n=1)
        hint = f"; did you mean {mark}{near[0]}?" if near else ""
        if setting_of(key) in RENAMED:
            hint = f" any more; use {RENAMED[setting_of(key)]}"
        raise InputError(f"{mark}{key} is no setting of {where}{hint}")


def flag(value: bool | str) -> bool:
    """A switch of a config, which the command line hands over as the word ``true`` or ``false``.

    Raises:
        InputError: another word.
    """
    if isinstance(value, bool):
        return value
    words = {"true": True, "false": False}
    if str(value).lower() not in words:
        raise InputError(f"{value!r}: expected true or false")
    return words[str(value).lower()]


def mixed_precision(amp: bool | str, device: torch.device | str) -> bool:
    """Whether to use MONAI's automatic mixed precision, which it has for CUDA alone.

    Raises:
        InputError: ``amp`` on another device, where it would do nothing.
    """
    if flag(amp) and torch.device(device).type != "cuda":
        raise InputError(f"--amp true, but the device is {device}; mixed precision needs CUDA")
    return flag(amp)


def _join_process_group() -> None:
    if "WORLD_SIZE" not in os.environ:
        raise InputError(
            "a multi-GPU run is started with torchrun: torchrun --standalone --nproc_per_node=N -m monai.bundle run ..."
        )
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        show_input_errors_in_one_line()  # torch puts a hook around ours that loses what is printed before an exit
        atexit.register(dist.destroy_process_group)
