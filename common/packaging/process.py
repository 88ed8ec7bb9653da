"""Start processes that cannot import this repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ..errors import InputError

SCRIPT = Path(__file__).with_name("clean_process.py")


def in_clean_process(verb: str, folder: Path, *arguments: str, code: Path | None = None) -> None:
    """Run a verb of ``clean_process.py`` on a package, in a process that cannot import this repository.

    Args:
        verb: name of the verb.
        folder: working directory.
        arguments: arguments of the verb.
        code: folder where a wheel is installed that the package needs, or None.

    Raises:
        InputError: the process failed. The message is its last line, or the signal that ended it.
    """
    path = {} if code is None else {"PYTHONPATH": os.pathsep.join([str(code), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), verb, *arguments],
        cwd=folder,
        # A fixed hash seed: TorchScript writes sets in the order of their hashes.
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", **path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode < 0:
        raise InputError(f"signal {-done.returncode} ended a process ({verb}); use a machine with more memory")
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise InputError(last.removeprefix("error: "))
