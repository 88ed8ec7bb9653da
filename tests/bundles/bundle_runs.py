"""Call ``python -m monai.bundle`` with each list of arguments of a JSON file, all in this process."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        sys.argv = ["", *arguments]
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
