"""Starting clean processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ..errors import InputError

SCRIPT = Path(__file__).with_name("clean_process.py")


def in_clean_process(what: str, folder: Path, *arguments: str) -> None:
    """Do something with a package in a process that cannot import this repository.

    Args:
        what: a verb of ``clean_process.py``.
        folder: the working directory.
        arguments: of the verb.

    Raises:
        InputError: it failed; the message is its last line, or the signal that ended it.
    """
    done = subprocess.run(
        [sys.executable, str(SCRIPT), what, *arguments],
        cwd=folder,
        # TorchScript writes sets in the order of their hashes
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode < 0:
        raise InputError(f"a process was ended by signal {-done.returncode} ({what}); is there too little memory?")
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise InputError(last.removeprefix("error: "))
