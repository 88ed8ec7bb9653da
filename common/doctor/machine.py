"""Examine Python, packages, devices, memory and disk."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ..inferers.windows import computes_bfloat16
from ..memory import Memory, device_memory, main_memory, size
from .findings import Findings

FULL_DISK = 2e9  # bytes; a training's states and an inference's masks soon need more


def examine_machine(findings: Findings, folders: Sequence[Path]) -> list[str]:
    """Compare Python and the packages with what this project requires; report devices, free memory and disk.

    A package that is missing or too old is a failure. A package of an extra that is too old is a note.

    Args:
        findings: collects failures and notes.
        folders: folders on the disks to examine.

    Returns:
        lines to show.
    """
    lines = [f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    lines += _packages(findings)
    processor = torch.device("cpu")
    fast = "bfloat16 in hardware" if computes_bfloat16(processor) else "no bfloat16 in hardware: float32"
    lines.append(f"CPU: {_cores()} cores for this process, {torch.get_num_threads()} threads, {fast}")
    lines += [_cuda(index) for index in range(torch.cuda.device_count())] or ["CUDA: no device"]
    lines.append(f"memory: {_free(main_memory())}")
    for folder in dict.fromkeys(path.resolve() for path in folders):
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        lines.append(f"disk: {size(free)} free at {folder}")
        if free < FULL_DISK:
            findings.note("disk", f"{size(free)} free at {folder}; free some space before a training")
    return lines


def installed(name: str) -> str | None:
    """Return the version of an installed distribution, without its build tag, or None."""
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def _packages(findings: Findings) -> list[str]:
    names = metadata.packages_distributions().get(__name__.partition(".")[0])
    if not names:
        return ["packages: this project is not installed, so its requirements are unknown"]
    own = metadata.metadata(names[0])
    python = SpecifierSet(own["Requires-Python"] or "")
    if platform.python_version() not in python:
        findings.fail("Python", f"found {platform.python_version()}, expected {python}; use another interpreter")
    required = [Requirement(text) for text in metadata.requires(names[0]) or []]
    base = [one for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
    lines = [f"packages: {_versions(base)}"]
    for one in base:
        version = installed(one.name)
        if version is None or not one.specifier.contains(version, prereleases=True):
            findings.fail(
                f"package {one.name}", f"found {version or 'none'}, expected {one.specifier}; pip install '{one}'"
            )
    for extra in own.get_all("Provides-Extra") or []:
        group = [one for one in required if one not in base and one.marker and one.marker.evaluate({"extra": extra})]
        lines.append(f"extra {extra}: {_versions(group)}")
        for one in group:
            version = installed(one.name)
            if version is not None and not one.specifier.contains(version, prereleases=True):
                findings.note(f"package {one.name}", f"found {version}, extra {extra} expects {one.specifier}")
    return lines


def _versions(group: Sequence[Requirement]) -> str:
    return ", ".join(f"{one.name} {installed(one.name) or 'missing'}" for one in group)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _cuda(index: int) -> str:
    device = torch.device("cuda", index)
    fast = "bfloat16" if computes_bfloat16(device) else "no bfloat16"
    return f"CUDA {index}: {torch.cuda.get_device_name(index)}, {_free(device_memory(device))}, {fast}"


def _free(memory: Memory | None) -> str:
    return f"{size(memory.free)} free of {size(memory.total)}" if memory else "unknown on this system"
