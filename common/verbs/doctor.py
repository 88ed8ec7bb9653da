"""Define the verb that finds problems before a run."""

from __future__ import annotations

from pathlib import Path

from ..doctor import Findings, estimate_training, examine_bundle, examine_data, examine_machine
from ..errors import InputError
from .arguments import bundle_folder


def doctor(
    bundle: str | None = None,
    dataset_dir: str | None = None,
    fold: int | None = None,
    overlay: str | None = None,
    headers_only: bool = False,
) -> None:
    """Check packages, devices, memory, disk, a bundle and every case of a data set for later failures.

    If nothing fails, make a few updates of the training and print how long it would take on this machine.

    Args:
        bundle: name in bundles/, or folder of a bundle or a packed bundle.
        dataset_dir: folder with a dataset.json, or folder of scans for inference.
        fold: cross-validation fold, as for a training.
        overlay: JSON file with settings that replace the bundle's, as in a run.
        headers_only: read no voxels and estimate no time. This is much faster and finds fewer problems.
    """
    if dataset_dir is not None and bundle is None:
        raise InputError(f"--dataset_dir {dataset_dir}: name a bundle too; its configs define what a case must have")
    findings = Findings()
    folders = [Path.cwd(), *([bundle_folder(bundle)] if bundle is not None else [])]
    print("machine", *examine_machine(findings, folders), sep="\n  ")
    if bundle is not None:
        print(f"bundle {bundle}", *examine_bundle(findings, folders[-1], overlay), sep="\n  ")
    if dataset_dir is not None:
        try:
            found = examine_data(findings, folders[-1], Path(dataset_dir), fold, overlay, headers_only)
        except InputError as error:  # an error of the whole data set; the table still shows the other findings
            findings.fail("data", str(error))
            found = []
        if not headers_only and not findings.count("failure"):
            found += estimate_training(findings, folders[-1], Path(dataset_dir), fold, overlay)
        print(f"data {dataset_dir}", *found, sep="\n  ")
    print(findings.table() or "nothing found that would fail")
    if findings.count("failure"):
        raise InputError(f"failures: {findings.count('failure')}, notes: {findings.count('note')}; see the table above")
