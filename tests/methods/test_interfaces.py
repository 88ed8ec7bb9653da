"""Compare the interface of every network with ``interfaces.json``; released weights and configs rely on it.

Run ``python -m tests.methods.test_interfaces`` to rewrite the file after an intended change.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.files import dense_json
from common.layers import TwoForms

FILE = Path(__file__).with_name("interfaces.json")
FACTS = json.loads(FILE.read_text())


def network_class(path: str) -> type[nn.Module]:
    method, name = path.split(".")
    return getattr(importlib.import_module(f"common.methods.{method}"), name)


def state_facts(network: nn.Module) -> dict[str, str]:
    """Return for each part of a network the number of its tensors, and a digest of their names and shapes."""
    parts: dict[str, list[str]] = {}
    for key, value in network.state_dict().items():
        parts.setdefault(key.split(".")[0], []).append(f"{key} {list(value.shape)}")
    return {
        part: f"{len(lines)} {hashlib.sha256('; '.join(lines).encode()).hexdigest()[:12]}"
        for part, lines in parts.items()
    }


def output_facts(network: nn.Module, image: Tensor) -> Any:
    """Return the shape of the output, or of every entry of a dict."""
    output = network(image)
    if isinstance(output, Tensor):
        return list(output.shape)
    return {name: list(value.shape) for name, value in output.items()}


def facts_of(path: str, options: dict[str, Any], shape: list[int]) -> dict[str, Any]:
    """Return the facts of a network of the published size, built without memory for its weights."""
    kind = network_class(path)
    with torch.device("meta"):
        if issubclass(kind, TwoForms):
            network = kind(**options, dense=True).eval()
            forms = {"false": network.training_form(), "true": network}
        else:
            network = kind(**options).eval()
            forms = {"only": network}
        outputs = {name: output_facts(form, torch.zeros(shape)) for name, form in forms.items()}
    return {"state": state_facts(network), "outputs": outputs}


@pytest.mark.parametrize("path", FACTS["signatures"])
def test_constructor_keeps_its_options_and_defaults(path: str) -> None:
    kind = network_class(path)
    assert kind.__name__ == path.split(".")[1]
    assert str(inspect.signature(kind)) == FACTS["signatures"][path]


VARIANTS = [
    pytest.param(
        variant,
        id=f"{variant['class']} {variant['options']}",
        marks=[pytest.mark.slow] if variant["options"] else [],  # together they take seconds
    )
    for variant in FACTS["variants"]
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_network_keeps_its_state_and_outputs(variant: dict[str, Any]) -> None:
    found = facts_of(variant["class"], variant["options"], variant["image"])
    assert list(found["state"].items()) == list(variant["state"].items())
    assert found["outputs"] == variant["outputs"]
    assert [list(output) for output in found["outputs"].values()] == [list(o) for o in variant["outputs"].values()]


if __name__ == "__main__":
    for path in FACTS["signatures"]:
        FACTS["signatures"][path] = str(inspect.signature(network_class(path)))
    for variant in FACTS["variants"]:
        variant.update(facts_of(variant["class"], variant["options"], variant["image"]))
    FILE.write_text(dense_json(FACTS) + "\n")
