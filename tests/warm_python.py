"""Run processes of Python that start with PyTorch and MONAI imported, which else takes each of them seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from common.child import ERROR, Ended

SERVER = Path(__file__).with_name("warm_server.py")


class WarmPython:
    """Replace the module ``subprocess`` where it starts Python; the first call starts the server."""

    DEVNULL = subprocess.DEVNULL  # packing names it; there is never any standard input

    def __init__(self) -> None:
        self.server: subprocess.Popen[str] | None = None

    def __enter__(self) -> WarmPython:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self.server is not None:
            self.server.communicate()

    def run(
        self,
        command: Sequence[str],
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = False,
        **_: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python ...`` as ``subprocess.run`` does, without standard input; keep its output as text.

        Only the variables of the environment that Python reads as it starts have no effect.
        """
        assert command[0] == sys.executable
        if self.server is None:
            # the same seed as packing gives its processes; one thread, since a process with more cannot be forked
            fixed = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
            self.server = subprocess.Popen(
                [sys.executable, str(SERVER)],
                env={**os.environ, **fixed},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
            request = {
                "arguments": command[1:],
                "folder": str(cwd or Path.cwd()),
                "environment": dict(os.environ if env is None else env),
                "outputs": [out.name, err.name],
            }
            assert self.server.stdin is not None and self.server.stdout is not None
            self.server.stdin.write(json.dumps(request) + "\n")
            self.server.stdin.flush()
            status = int(self.server.stdout.readline())
            texts = [Path(file.name).read_text(encoding="utf-8") for file in (out, err)]
        done = subprocess.CompletedProcess(command, status, *texts)
        if check:
            done.check_returncode()
        return done

    def run_child(self, command: Sequence[str]) -> Ended:
        """Replace :func:`common.child.run_child`, but show standard output at the end."""
        done = self.run(command)
        sys.stdout.write(done.stdout)
        errors = [line.removeprefix(ERROR) for line in done.stderr.splitlines() if line.startswith(ERROR)]
        return Ended(128 - done.returncode if done.returncode < 0 else done.returncode, "".join(errors[-1:]))

    @contextmanager
    def in_packing(self) -> Iterator[None]:
        """Start the processes of packing and of verifying."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("common.packaging.process.subprocess", self)
            yield
