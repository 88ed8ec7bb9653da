"""Run requests of ``warm_python.py``: import PyTorch and MONAI, then fork a process of Python for each."""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

import monai.bundle  # noqa: F401

SECONDS = 600  # after which a process is killed


def next_request() -> dict[str, Any]:
    """Return a request in a process forked for it; answer with the status of the process."""
    for line in sys.stdin:
        process = os.fork()
        if not process:
            return dict(json.loads(line))
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    sys.exit()


inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
gc.collect()
gc.freeze()  # else the collection at the end of each process copies all of its memory
request = next_request()
signal.alarm(SECONDS)
os.chdir(request["folder"])
os.environ.clear()
os.environ.update(request["environment"])
for number, name in enumerate([os.devnull, *request["outputs"]]):
    file = os.open(name, os.O_WRONLY if number else os.O_RDONLY)
    os.dup2(file, number)
    os.close(file)
own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
sys.path[:] = [*filter(None, own), *(path for path in sys.path[1:] if path not in inherited)]
first, *arguments = request["arguments"]
if first == "-m":
    sys.path.insert(0, request["folder"])
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
elif first == "-c":
    sys.path.insert(0, "")
    sys.argv = [first, *arguments[1:]]
    exec(arguments[0], {"__name__": "__main__"})
else:
    sys.path.insert(0, str(Path(first).parent))
    sys.argv = [first, *arguments]
    runpy.run_path(first, run_name="__main__")
