"""Use a package in a process of its own, which sees neither this repository nor other packages.

This is a script: ``python clean_process.py VERB ...``. It imports none of the modules beside it. If a check fails, its
output ends with one line.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from pydoc import locate
from typing import Any

if sys.path[:1] == [str(Path(__file__).parent)]:
    sys.path.pop(0)
sys.modules["common"] = None  # type: ignore[assignment]  # a package that needs the repository must fail here

import torch  # noqa: E402
from monai.bundle import ConfigParser  # noqa: E402


def export(folder: str, inference: str, file: str) -> None:
    """Script the network of a package with its weights, and write it with the configs inside.

    Args:
        folder: folder of the package.
        inference: config that becomes ``inference.json`` in the file.
        file: file to write.
    """
    network = _network(_parser(folder), folder)
    configs = {"metadata.json": Path(folder) / "configs" / "metadata.json", "inference.json": Path(inference)}
    extra = {name: path.read_text(encoding="utf-8") for name, path in configs.items()}
    torch.jit.save(torch.jit.script(network), file, _extra_files=extra)


def load(folder: str) -> None:
    """Load the weights of a package strictly, and check that its scripted network has the same weights."""
    network = _network(_parser(folder), folder)
    scripted = torch.jit.load(Path(folder) / "models" / "model.ts", map_location="cpu").state_dict()
    own = network.state_dict()
    if own.keys() != scripted.keys() or not all(torch.equal(own[key], scripted[key]) for key in own):
        sys.exit(
            f"{Path(folder) / 'models' / 'model.ts'}: its weights differ from those in model.pt; pack the bundle again"
        )


def alone(file: str) -> None:
    """Check a scripted network without its folder: its configs parse, and its output equals the eager network's."""
    extra = {"metadata.json": "", "inference.json": ""}
    scripted = torch.jit.load(file, map_location="cpu", _extra_files=extra).eval()
    metadata, config = (json.loads(extra[name]) for name in ("metadata.json", "inference.json"))
    parser = ConfigParser(config)
    for key in ("preprocessing", "inferer", "postprocessing"):
        parser.get_parsed_content(key)
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(scripted.state_dict())
    formats = metadata["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    size = config["roi_size"]
    x = torch.randn(1, image["num_channels"], *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        eager, found = network(x), scripted(x)
    if eager.shape != (1, pred["num_channels"], *size):
        sys.exit(
            f"the network returns {tuple(eager.shape)}, but metadata.json has {pred['num_channels']} channels; "
            'set "_meta_::network_data_format::outputs::pred" in the overlay'
        )
    torch.testing.assert_close(found, eager)


def run(*arguments: str) -> None:
    """Run ``python -m monai.bundle run`` with these arguments."""
    sys.argv = ["monai.bundle", "run", *arguments]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)


def _parser(folder: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(str(Path(folder) / "configs" / "inference.json"))
    parser["bundle_root"] = folder
    return parser


def _network(parser: ConfigParser, folder: str) -> Any:
    network = parser.get_parsed_content("network_def")
    steps = [step["_target_"] for step in parser["run"] if isinstance(step, dict)]
    (target,) = (target for target in steps if target.endswith(".load_weights"))
    load_weights: Any = locate(target)
    load_weights(network, Path(folder) / "models" / "model.pt")
    return network.eval()


def _origin(error: BaseException) -> str:
    """Return one line about the error that MONAI wrapped in several others."""
    while type(error).__name__ != "InputError":
        below = error.__cause__ or error.__context__
        if below is None:
            return f"{type(error).__name__}: {' '.join(str(error).split())}"
        error = below
    return str(error)


if __name__ == "__main__":
    verbs: dict[str, Callable[..., None]] = {"export": export, "load": load, "alone": alone, "run": run}
    verb, *arguments = sys.argv[1:]
    try:
        verbs[verb](*arguments)
    except Exception as error:
        sys.exit(_origin(error))
