"""Define the configs of a package that show its results. In the repository, verbs show them."""

from __future__ import annotations

from typing import Any

COMMON: dict[str, Any] = {
    "imports": [],
    "bundle_root": ".",
    "dataset_dir": "$@bundle_root + '/data'",
    "output_dir": "$@bundle_root + '/eval'",
    "initialize": [{"_target_": "common.session.check_settings"}],
}


def view_configs(name: str) -> dict[str, dict[str, Any]]:
    """Return ``report.json`` and ``picture.json``, which read the folders that ``inference.json`` reads and writes.

    Args:
        name: title of the page.
    """
    page = {
        "_target_": "common.report.write_report",
        "runs": {name: "@output_dir"},
        "out": "$@output_dir + '/report.html'",
        "dataset_dir": "@dataset_dir",
    }
    drawing = {
        "_target_": "common.report.draw_cases",
        "output_dir": "@output_dir",
        "dataset_dir": "@dataset_dir",
        "names": "@cases",
        "limit": "@limit",
    }
    pictures = {"cases": None, "limit": None, "pictures": drawing, "run": ["$print(*@pictures, sep='\\n')"]}
    return {
        "report.json": {**COMMON, "page": page, "run": ["$print(@page)"]},
        "picture.json": {**COMMON, **pictures},
    }
