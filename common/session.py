"""Set up a run of a bundle: options, log file, process group, and errors in one line."""

from __future__ import annotations

import atexit
import logging
import os
from pathlib import Path

import torch
import torch.distributed as dist

from .errors import InputError, end_in_one_line, let_signals_end_at_once, show_input_errors_in_one_line
from .files import claim_folder
from .logs import LOG_FILE, QUIET_LOGGERS, log_to, show_any_text, silence_notices
from .options import check_settings
from .rules import check_setting, parse_bool, setting_of
from .typed_texts import is_bundle_command, literal

__all__ = [  # configs take these from here
    "LOG_FILE",
    "QUIET_LOGGERS",
    "check_setting",
    "check_settings",
    "literal",
    "parse_bool",
    "setting_of",
    "start_session",
]

if is_bundle_command():  # here, since the imports of a config take seconds in which a user may interrupt
    end_in_one_line()


def start_session(log_file: str | Path, distributed: bool | str = False, folder: str | Path | None = None) -> None:
    """Begin a run of a bundle.

    Args:
        log_file: file for the messages of the first process.
        distributed: whether to join the process group of ``torchrun``, with NCCL if there is CUDA and else with gloo.
        folder: folder of the results. No second process may write there meanwhile, nor into the folder of the log file.

    Raises:
        InputError: if ``distributed`` is set without ``torchrun``, if the log file cannot be written, or if another
            process writes into one of the folders.
    """
    show_input_errors_in_one_line()
    show_any_text()
    distributed = parse_bool(distributed)
    if distributed:
        _join_process_group()
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    silence_notices()
    if distributed and dist.get_rank() > 0:
        root.setLevel(logging.ERROR)
        return
    log_to(Path(log_file))
    claim_folder(Path(log_file).parent)
    if folder is not None:
        claim_folder(folder)


def _join_process_group() -> None:
    if "WORLD_SIZE" not in os.environ:
        raise InputError(
            "torchrun starts a multi-GPU run: torchrun --standalone --nproc_per_node=N -m monai.bundle run ..."
        )
    if not dist.is_initialized():
        # torchrun terminates processes that wait for each other in native code, where no Python handler runs
        if is_bundle_command():
            let_signals_end_at_once()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        show_input_errors_in_one_line()  # torch puts a hook around ours that loses what is printed before an exit
        atexit.register(dist.destroy_process_group)
