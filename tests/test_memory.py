"""Test that free memory is the smallest limit of machine, control groups and process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common import memory
from common.errors import InputError
from common.memory import Memory, check_memory, main_memory, size


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that writes the files of a control group and puts this process into it."""
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")

    def be_in(line: str, folder: str, **content: object) -> None:
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "own" / "cgroup").write_text(f"{line}\n")
        monkeypatch.setattr(memory, "PROCESS", tmp_path / "own")
        place = tmp_path / "cgroup" / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, value in content.items():
            (place / name.replace("__", ".")).write_text(f"{value}\n")

    return be_in


def test_main_memory_is_found_if_the_system_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = main_memory()
    assert found is not None and 0 < found.free <= found.total
    monkeypatch.delattr("os.sysconf")
    assert main_memory() is None


@pytest.mark.parametrize("path", ["/job/step", "/"], ids=["of the host", "in a container"])
def test_a_control_group_limits_the_memory(group: Callable, path: str) -> None:
    cache = "anon 1\ninactive_file 200000\nactive_file 50000"
    files = {"memory__max": 10**6, "memory__current": 9 * 10**5, "memory__stat": cache}
    group(f"0::{path}", path.strip("/"), **files)
    assert main_memory() == Memory(350_000, 10**6)


def test_a_parent_control_group_limits_the_memory(group: Callable) -> None:
    group("0::/job/step", "job", memory__max=5000, memory__current=2000, memory__stat="anon 1")
    group("0::/job/step", "job/step", memory__max="max", memory__current=1, memory__stat="anon 1")
    assert main_memory() == Memory(3000, 5000)


def test_a_control_group_of_version_1_limits_the_memory(group: Callable) -> None:
    files = {"memory__limit_in_bytes": 7000, "memory__usage_in_bytes": 6000, "memory__stat": "total_inactive_file 500"}
    group("4:cpu,memory:/docker/abc", "memory", **files)  # the path is that of the host
    assert main_memory() == Memory(1500, 7000)


def test_an_address_space_limit_limits_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (10**12, 10**12))
    most = main_memory()
    monkeypatch.setattr("resource.getrlimit", lambda which: (1 << 20, 1 << 20))  # less than this process uses
    assert main_memory() == Memory(0, 1 << 20)
    assert most is not None and most.total > 1 << 20


def test_memory_of_the_cpu_is_the_main_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "main_memory", lambda: Memory(1, 2))
    assert memory.device_memory(torch.device("cpu")) == Memory(1, 2)
    assert memory.device_memory(torch.device("meta")) is None


def test_an_allocation_above_the_free_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "main_memory", lambda: Memory(3_000_000_000, 8_000_000_000))
    check_memory("a.nii", "reading", 3_000_000_000)
    with pytest.raises(InputError, match=r"^a\.nii: reading needs 3\.2 GB of memory, but 3\.0 GB are free; use"):
        check_memory("a.nii", "reading", 3_200_000_000)
    monkeypatch.setattr(memory, "main_memory", lambda: None)
    check_memory("a.nii", "reading", 10**18)


@pytest.mark.parametrize(
    ("count", "text"), [(812, "812 bytes"), (45e6, "45 MB"), (3.21e9, "3.2 GB"), (1.6e13, "16.0 TB")]
)
def test_bytes_are_shown_with_units(count: float, text: str) -> None:
    assert size(count) == text
