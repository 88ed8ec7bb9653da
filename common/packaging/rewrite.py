"""Make the files of a package, with its code under a name of its own (third stage of packing)."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import replace
from pathlib import Path

import torch

from ..files import dense_json
from ..record import RECORD_FILE
from .archive import zip_bytes
from .card import package_card
from .code import code_of
from .configs import WHEEL_IMPORTS, Rewriting, find_wheel
from .contents import CARD, Contents
from .views import view_configs
from .wheel import ENTRY, wheel_bytes, wheel_file

CODE = Path(__file__).parents[1]
WEIGHTS = "model.pt"


def rewrite_for_package(contents: Contents, code_in_wheel: bool = False) -> Contents:
    """Return contents with every file of the package, except for the scripted network and the check sums.

    The code becomes the package ``NAME_vVERSION``, and the configs use it under that name. Two more configs show
    results.

    Args:
        contents: what goes into the package.
        code_in_wheel: put the code into a wheel and leave it out of the package. The configs check that the wheel is
            installed.
    """
    package = f"{contents.name}_v{re.sub('[^0-9a-zA-Z]', '_', contents.version)}"
    contents = replace(contents, configs={**contents.configs, **view_configs(contents.name)})
    rewriting = Rewriting(contents.configs, CODE.name, package)
    wheel = wheel_file(contents.name, contents.version)
    if code_in_wheel:
        find_code = find_wheel(contents.name, contents.version, wheel)
        rewriting = Rewriting(contents.configs, CODE.name, package, find_code, WHEEL_IMPORTS)
    code = {f"{package}/{path}": text.encode() for path, text in code_of(CODE, rewriting.names).items()}
    if code_in_wheel:
        content = wheel_bytes(contents, code)
        about = {"file": wheel, "sha256": hashlib.sha256(content).hexdigest()}
        contents = replace(contents, wheel=content, metadata={**contents.metadata, ENTRY: about})
    configs = {name: rewriting(config) for name, config in contents.configs.items()}
    weights = io.BytesIO()
    torch.save({key: value.contiguous().clone() for key, value in contents.state.items()}, weights)
    digest = hashlib.sha256(weights.getbuffer()).hexdigest()
    record = contents.record
    if record is not None and record.weights is not None:  # this file of the weights has other bytes
        record = replace(record, weights={WEIGHTS: [digest]})
        contents = replace(contents, files={**contents.files, f"models/{RECORD_FILE}": record.as_bytes()})
    files = {
        **contents.files,
        **({} if code_in_wheel else code),
        **{f"configs/{name}": f"{dense_json(config)}\n".encode() for name, config in configs.items()},
        "configs/metadata.json": f"{dense_json(contents.metadata)}\n".encode(),
        f"models/{WEIGHTS}": weights.getvalue(),
        CARD: package_card(contents, digest).encode(),
    }
    inference = configs["inference.json"]
    scripted_config = (
        rewriting.without_folder(inference) if code_in_wheel else rewriting.with_code(inference, zip_bytes(code))
    )
    return replace(contents, files=files, scripted_config=scripted_config)
