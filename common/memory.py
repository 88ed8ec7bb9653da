"""The memory at hand, and refusing what needs more before any of it is taken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .errors import InputError

CGROUPS = Path("/sys/fs/cgroup")
PROCESS = Path("/proc/self")
# Of a cgroup: its limit, what it uses, and what begins the names of the cache that the kernel gives back, by version.
CGROUP_FILES = (
    ("memory.max", "memory.current", ""),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)


class Memory(NamedTuple):
    """Bytes."""

    free: int
    total: int


def main_memory() -> Memory | None:
    """Return what this process may still take of the main memory, and the most that it could ever take.

    The least counts of the machine's available memory, the limits of its control groups (container, batch job), and
    the limit of its address space (``ulimit -v``). None where the system does not tell.
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
        pass  # sysconf counts the disk cache as used
    for limit, left in [*_cgroups(), *_address_space(page)]:
        free, total = min(free, left), min(total, limit)
    return Memory(max(free, 0), total)


def check_memory(where: str, what: str, need: int, fix: str = "use a machine with more, or a smaller scan") -> None:
    """Check that an allocation fits the memory at hand.

    Args:
        where: the file, for the message.
        what: what needs the memory, for the message.
        need: bytes.
        fix: what helps, for the message.

    Raises:
        InputError: more bytes than are at hand; the message has both numbers.
    """
    memory = main_memory()
    if memory is not None and need > memory.free:
        raise InputError(f"{where}: {what} needs {size(need)} of memory, but {size(memory.free)} are at hand; {fix}")


def size(count: float) -> str:
    """Return bytes to read: ``812 bytes``, ``45 MB``, ``3.2 GB`` or ``16.0 TB``; 10**9 bytes are a GB."""
    for unit, name in ((1e12, "TB"), (1e9, "GB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count:.0f} bytes"


def _cgroups() -> Iterator[tuple[int, int]]:
    """Give limit and rest of each control group that this process is in."""
    try:
        entries = [line.split(":", 2) for line in (PROCESS / "cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in entries:
        if controllers and "memory" not in controllers.split(","):
            continue
        root = CGROUPS / "memory" if controllers else CGROUPS
        own = root / path.strip("/")
        # in a container, the path may be that of the host, and the root is the container's own group
        for folder in dict.fromkeys([own, *(p for p in own.parents if p.is_relative_to(root))]):
            for limit, used, prefix in CGROUP_FILES:
                try:
                    most, taken = (int((folder / name).read_text()) for name in (limit, used))
                    kept = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
                    caches = (f"{prefix}inactive_file", f"{prefix}active_file")
                    cached = sum(int(value) for name, value in kept if name in caches)
                except (OSError, ValueError):
                    continue  # no such group, or one without a limit: "max"
                yield most, most - taken + cached


def _address_space(page: int) -> Iterator[tuple[int, int]]:
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
