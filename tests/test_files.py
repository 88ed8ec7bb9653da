"""Test reading JSON, writing complete files, and folders that one process claims at a time."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from common.errors import InputError
from common.files import (
    CLAIM,
    PARTIAL,
    WIDTH,
    claim_folder,
    dense_json,
    is_own_json,
    make_folder,
    read_json,
    whole_file,
    write_own_json,
)

HOLD = """
import sys
from common.files import claim_folder
claim_folder(sys.argv[1])
print("claimed", flush=True)
sys.stdin.read()
"""
OUT_OF_ROOM = """
import resource, sys
from common.files import whole_file
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
with whole_file(sys.argv[1]) as partial:
    partial.write_bytes(bytes(5000))
"""
GONE = (1 << 22) + 1  # larger than the number of any process
FORK = HOLD.replace('print("claimed"', 'import os\nos.fork() and print("claimed"')


@contextmanager
def another_process(folder: Path, script: str = HOLD) -> Iterator[subprocess.Popen]:
    """Start a process that claims a folder until the block ends, and yield it."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "claimed\n"
        yield process


def test_a_missing_or_invalid_json_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.json: cannot be read"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json: not valid JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_json_in_each_unicode_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.json").write_bytes('{"name": "Fall \u00fc"}'.encode(encoding))
    assert read_json(tmp_path / "a.json") == {"name": "Fall \u00fc"}


@pytest.mark.parametrize("content", ['{"name": "Fall \u00fc"}'.encode("latin-1"), b"[" * 100_000, b""])
def test_json_in_another_encoding_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json: not valid JSON in UTF-8"):
        read_json(tmp_path / "a.json")


def test_another_process_cannot_claim_a_claimed_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with another_process(folder), pytest.raises(InputError, match=r"run: another process is writing there; wait"):
        claim_folder(folder)
    assert list(folder.iterdir()) == []
    claim_folder(folder)
    claim_folder(folder)


def test_a_users_file_with_the_lock_name_is_kept(tmp_path: Path) -> None:
    (tmp_path / CLAIM).write_text("text")
    with another_process(tmp_path), pytest.raises(InputError, match="another process is writing there"):
        claim_folder(tmp_path)
    assert (tmp_path / CLAIM).read_text() == "text"


def test_a_folder_of_a_killed_process_can_be_claimed(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        process.kill()
    claim_folder(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_worker_does_not_hold_the_folder(tmp_path: Path) -> None:
    with another_process(tmp_path, FORK) as parent:
        parent.kill()
        parent.wait()
        claim_folder(tmp_path)


def test_a_folder_that_was_made_again_can_be_claimed(tmp_path: Path) -> None:
    claim_folder(tmp_path / "run")
    for path in (*(tmp_path / "run").iterdir(), tmp_path / "run"):
        path.rmdir() if path.is_dir() else path.unlink()
    claim_folder(tmp_path / "run")
    assert len(list((tmp_path / "run").iterdir())) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no check whether a process runs")
def test_a_claim_removes_files_of_killed_processes(tmp_path: Path) -> None:
    kept = [f"{PARTIAL}{os.getppid()}_0123abcd.nii.gz", f"{PARTIAL}notes.txt", f"{PARTIAL}1_of_my_figures.png"]
    for name in (*kept, f"{PARTIAL}{GONE}_0123abcd.nii.gz", f"{PARTIAL}{GONE}_0123abcd"):
        (tmp_path / name).write_text("text")
    claim_folder(tmp_path)
    assert sorted(path.name for path in tmp_path.glob(f"{PARTIAL}*")) == sorted(kept)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_folder_that_cannot_be_written_is_not_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("common.files.FileLock.acquire", refuse)
    monkeypatch.setattr("common.files.os.access", lambda *_: False)
    claim_folder(tmp_path)


def test_a_file_system_without_locks_logs_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("common.files.FileLock.acquire", refuse)
    claim_folder(tmp_path)
    assert "start no second run into this folder" in caplog.text


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("text")
    for use in (claim_folder, make_folder):
        for folder in (tmp_path / "notes", tmp_path / "notes" / "run"):
            with pytest.raises(InputError, match=r"notes: a file, expected a folder"):
                use(folder)
    with pytest.raises(InputError, match=r"notes: a file, expected a folder"), whole_file(tmp_path / "notes" / "a.csv"):
        pass


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a.csv") as one, whole_file(tmp_path / "a.csv") as other:
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a.csv").read_text() == "one"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_error_leaves_the_file_unchanged(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("before")
    with pytest.raises(RuntimeError), whole_file(tmp_path / "a.csv") as partial:
        partial.write_text("after")
        raise RuntimeError
    assert (tmp_path / "a.csv").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_raises_an_error_with_the_file_name(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"a\.csv: cannot be written \(No space left on device\)"),
        whole_file(tmp_path / "a.csv") as partial,
    ):
        partial.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit on file size")
def test_a_write_above_the_size_limit_names_the_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OUT_OF_ROOM, str(tmp_path / "a.csv")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1].startswith("common.errors.InputError: ")
    assert "a.csv: cannot be written (File too large)" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_is_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a.csv"):
        (tmp_path / "missing").read_text()


def test_own_json_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    for value in (0.1, float("nan"), "ö", None):
        write_own_json({"b": {"value": value}, "a": [1]}, path)
        assert is_own_json(path)
    path.write_text(path.read_text().replace("\n", "\n  "))  # another indent changes nothing
    assert is_own_json(path) and list(read_json(path)) == ["b", "a", "sha256"]


@pytest.mark.parametrize(
    "content", ['{"a": 2, "sha256": "DIGEST"}', '{"b": 1, "sha256": "DIGEST"}', '{"a": 1}', "[1]", "{", "", "notes"]
)
def test_changed_or_foreign_json_is_not_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    write_own_json({"a": 1}, path)
    content = content.replace("DIGEST", read_json(path)["sha256"])
    path.write_text(content)
    with pytest.raises(InputError, match=r"a\.json: another file of this name, or one that was changed since"):
        write_own_json({"a": 3}, path)
    assert path.read_text() == content


@pytest.mark.parametrize(
    "value", [{}, [], {"a": []}, {"a": {"b": [{"c": 1}] * 30}}, [1, 2.5, None, "é", {"a": "x" * WIDTH}]]
)
def test_dense_json_has_the_same_content(value: Any) -> None:
    text = dense_json(value)
    assert json.loads(text) == value
    assert all(len(line) <= WIDTH for line in text.splitlines() if "x" * WIDTH not in line)


def test_dense_json_breaks_only_long_lines() -> None:
    text = dense_json({"short": [1, {"a": 2}], "long": ["x" * 80, "y" * 80]})
    assert text.splitlines()[1:3] == ['  "short": [1, {"a": 2}],', '  "long": [']
