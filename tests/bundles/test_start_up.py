"""Test that the configs of inference import their own method and nothing heavy, for which a start would wait."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from ..conftest import BUNDLES

HEAVY = ("docx", "highdicom", "matplotlib", "mlflow", "onnx", "pandas", "pydicom", "sklearn")
# MONAI itself loads some of them where they are installed; without them, an import in common fails
IMPORT = f"""
import json, pkgutil, sys
sys.modules.update(dict.fromkeys({HEAVY}))
import monai.bundle
found = {{}}
for bundle, names in json.loads(sys.argv[1]).items():
    for name in [name for name in sys.modules if name.partition(".")[0] == "common"]:
        del sys.modules[name]
    for name in names:
        pkgutil.resolve_name(name)
    found[bundle] = [name for name in sys.modules if name.startswith("common.")]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_inference_imports_its_own_method_and_nothing_heavy() -> None:
    configs = {bundle.name: (bundle / "configs" / "inference.json").read_text() for bundle in BUNDLES}
    named = {bundle: re.findall(r"\bcommon(?:\.[A-Za-z]\w*)+", text) for bundle, text in configs.items()}
    command = [sys.executable, "-c", IMPORT, json.dumps(named)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for bundle, modules in json.loads(done.stdout.splitlines()[-1]).items():
        methods = {module.split(".")[2] for module in modules if module.startswith("common.methods.")}
        assert methods == {bundle.rpartition("_")[2]}
        others = {module.split(".")[1] for module in modules}
        assert not others & {"crossval", "doctor", "nnunet", "packaging", "planning", "rivals", "verbs"}
