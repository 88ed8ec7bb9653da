"""What is done with a package in a process of its own, which sees neither this repository nor other packages.

A script: ``python clean_process.py VERB ...``; it imports nothing of its neighbours, and ends with one line if a check
fails.
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
sys.modules["common"] = None  # type: ignore[assignment]  # a package that still needs it must fail here

import torch  # noqa: E402
from monai.bundle import ConfigParser  # noqa: E402


def export(folder: str, inference: str, file: str) -> None:
    """Script the network of a package with its weights, and the configs inside.

    Args:
        folder: of the package.
        inference: config to put in as ``inference.json``.
        file: to write.
    """
    network = _network(_parser(folder), folder)
    configs = {"metadata.json": Path(folder) / "configs" / "metadata.json", "inference.json": Path(inference)}
    extra = {name: path.read_text(encoding="utf-8") for name, path in configs.items()}
    torch.jit.save(torch.jit.script(network), file, _extra_files=extra)


def load(folder: str) -> None:
    """Load the weights of a package strictly, and see that its scripted network has the same."""
    network = _network(_parser(folder), folder)
    scripted = torch.jit.load(Path(folder) / "models" / "model.ts", map_location="cpu").state_dict()
    own = network.state_dict()
    if own.keys() != scripted.keys() or not all(torch.equal(own[key], scripted[key]) for key in own):
        sys.exit(f"{Path(folder) / 'models' / 'model.ts'}: has other weights than model.pt; pack the bundle again")


def alone(file: str) -> None:
    """Use a scripted network without a folder around it: its configs must parse, and it must equal the eager one."""
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
        eager, said = network(x), scripted(x)
    if eager.shape != (1, pred["num_channels"], *size):
        sys.exit(
            f"the network gives {tuple(eager.shape)}, metadata.json says {pred['num_channels']} channels; "
            'set "_meta_::network_data_format::outputs::pred" in the overlay'
        )
    torch.testing.assert_close(said, eager)


def run(*arguments: str) -> None:
    """``python -m monai.bundle run``."""
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
    """One line about what MONAI has wrapped in several exceptions."""
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
