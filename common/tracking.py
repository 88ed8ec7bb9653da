"""Complete MONAI's settings of experiment tracking, and check them before a run."""

from __future__ import annotations

import importlib.util
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import DEFAULT_MLFLOW_SETTINGS, ConfigParser
from monai.utils import path_to_sqlite_uri

from .errors import InputError

DEFAULTS: Mapping[str, Any] = DEFAULT_MLFLOW_SETTINGS["configs"]
NAME = re.compile(r"[\w.\- :/]+")  # of a metric in MLflow


def tracking_options(tracking: Any) -> set[str]:
    """Return the names of the settings that MONAI adds to a config for tracking.

    Args:
        tracking: argument of ``monai.bundle run``: ``mlflow``, a file of settings, settings, or None.
    """
    if tracking is None:
        return set()
    settings = DEFAULT_MLFLOW_SETTINGS if tracking == "mlflow" else ConfigParser.load_config_files(tracking)
    return settings["configs"].keys() - settings["handlers_id"].keys()


def tracking_defaults(parser: ConfigParser) -> dict[str, str]:
    """Return the settings of MONAI's tracking by MLflow that the user left out, with values that suit a run.

    ``tracking_uri`` is a database beside the log file. MONAI's default is the bundle's folder ``eval``, which a
    training does not write to. ``run_name`` is bundle, kind of the run and time. Without a name, MONAI continues any
    unfinished run of the experiment.

    Returns:
        setting -> text; empty for a config without MONAI's tracking.

    Raises:
        InputError: if MLflow is not installed, or refuses the name of a label or region.
    """
    config = parser.get("")
    if not DEFAULTS.keys() - {"trainer", "validator", "evaluator"} <= config.keys():
        return {}
    if importlib.util.find_spec("mlflow") is None:
        raise InputError('MLflow is not installed; install the extra "tracking", or leave --tracking out')
    for key in ("labels", "regions"):
        for name in parser.get_parsed_content(key):
            if not NAME.fullmatch(str(name)):
                raise InputError(
                    f"{key}: MLflow refuses the name {str(name)!r} for a score; expected letters, digits, spaces and "
                    "_ - . : / alone; rename it, or leave --tracking out"
                )
    log_file = Path(parser.get_parsed_content("log_file"))
    found = {}
    if config["tracking_uri"] == DEFAULTS["tracking_uri"]:
        found["tracking_uri"] = path_to_sqlite_uri(log_file.parent / "mlruns.db")
    if config["run_name"] is None:
        bundle = Path(os.path.abspath(parser.get_parsed_content("bundle_root"))).name
        found["run_name"] = f"{bundle} {log_file.stem} {time.strftime('%Y-%m-%d %H:%M:%S')}"
    return found
