"""Measure free memory, and check that an allocation fits it before it is made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from .errors import InputError

CGROUPS = Path("/sys/fs/cgroup")
PROCESS = Path("/proc/self")
# Files of a control group, for versions 2 and 1: limit, use, and the prefix of the cache entries in memory.stat.
CGROUP_FILES = (
    ("memory.max", "memory.current", ""),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)


class Memory(NamedTuple):
    """Hold free and total memory, in bytes."""

    free: int
    total: int


def main_memory() -> Memory | None:
    """Return the free and the total main memory of this process, or None if the system does not report it.

    It is the smallest of three: the machine's available memory, what the limits of the control groups leave (container,
    batch job), and what the limit of the address space leaves (``ulimit -v``).
    """
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        free, total = (os.sysconf(name) * page for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return None
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        pass  # keep the value of sysconf, which counts the disk cache as used
    for limit, left in [*_cgroups(), *_address_space(page)]:
        free, total = min(free, left), min(total, limit)
    return Memory(max(free, 0), total)


def device_memory(device: torch.device) -> Memory | None:
    """Return the free and the total memory for computations on a device, or None if the system does not report it."""
    if device.type == "cpu":
        return main_memory()
    return Memory(*torch.cuda.mem_get_info(device)) if device.type == "cuda" else None


def check_memory(
    where: str, what: str, need: int, fix: str = "use a machine with more memory, or a smaller scan"
) -> None:
    """Check that an allocation fits the free memory.

    Args:
        where: name of the file, for the message.
        what: name of the step that needs the memory, for the message.
        need: size of the allocation, in bytes.
        fix: remedy, for the message.

    Raises:
        InputError: the free memory is smaller; the message has both numbers.
    """
    memory = main_memory()
    if memory is not None and need > memory.free:
        raise InputError(f"{where}: {what} needs {size(need)} of memory, but {size(memory.free)} are free; {fix}")


def size(count: float) -> str:
    """Return a number of bytes as text: ``812 bytes``, ``45 MB``, ``3.2 GB`` or ``16.0 TB``; a GB has 10**9 bytes."""
    for unit, name in ((1e12, "TB"), (1e9, "GB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count:.0f} bytes"


def _cgroups() -> Iterator[tuple[int, int]]:
    """Yield limit and free memory, in bytes, of each control group of this process."""
    try:
        entries = [line.split(":", 2) for line in (PROCESS / "cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in entries:
        if controllers and "memory" not in controllers.split(","):
            continue
        root = CGROUPS / "memory" if controllers else CGROUPS
        own = root / path.strip("/")
        # in a container, the path may be the host's, and the root is the container's own group
        for folder in dict.fromkeys([own, *(p for p in own.parents if p.is_relative_to(root))]):
            for limit, used, prefix in CGROUP_FILES:
                try:
                    most, taken = (int((folder / name).read_text()) for name in (limit, used))
                    kept = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
                    caches = (f"{prefix}inactive_file", f"{prefix}active_file")
                    cached = sum(int(value) for name, value in kept if name in caches)
                except (OSError, ValueError):
                    continue  # no such group, or no limit ("max")
                yield most, most - taken + cached


def _address_space(page: int) -> Iterator[tuple[int, int]]:
    """Yield limit and free part of the address space, in bytes, if it has a limit."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    try:
        taken = int((PROCESS / "statm").read_text().split()[0]) * page
    except (OSError, ValueError, IndexError):
        taken = 0
    if limit != resource.RLIM_INFINITY:
        yield limit, limit - taken
