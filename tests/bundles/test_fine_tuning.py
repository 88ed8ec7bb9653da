"""Test fine-tuning by the real configs: other classes, a frozen encoder, a warm-up, its record and resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events

from common.errors import InputError, root_cause
from common.files import sha256

from ..methods.mpunet.tiny import MPUNET
from ..workflows import BUSY, bundles, config_of, weights_in


@pytest.fixture
def base(tmp_path: Path) -> Callable[[Path], Path]:
    """Write the weights that a training begins from; return their file."""

    def write(bundle: Path, name: str = "base.pt") -> Path:
        torch.save(BUSY[bundle.name]().state_dict(), tmp_path / name)
        return tmp_path / name

    return write


@bundles
def test_every_bundle_fine_tunes_with_a_frozen_encoder(
    bundle: Path, workflow: Callable, base: Callable, tmp_path: Path
) -> None:
    one_stage = {"self_transfer": False} if "self_transfer" in config_of(bundle, "train") else {}
    file = base(bundle)
    flow = workflow(
        bundle, "train", init_weights=str(file), freeze_encoder=1, max_epochs=1, validation_share=0, **one_stage
    )
    prefixes = tuple(f"{name}." for name in flow.network_def.encoder_modules)
    flow.run()
    before, after = torch.load(file, weights_only=True), weights_in(tmp_path / "models")
    encoder = [key for key in before if key.startswith(prefixes)]
    assert encoder and all(torch.equal(after[key], before[key]) for key in encoder)
    assert any(not torch.equal(after[key], before[key]) for key in before)
    record = json.loads((tmp_path / "models" / "run.json").read_text())
    assert record["init_weights"] == {"file": "base.pt", "sha256": sha256(file)}
    assert record["training"]["freeze_encoder"] == 1 and record["training"]["warm_up"] == 0


TUMOUR: dict[str, Any] = {
    "labels": {"liver": 1, "tumour": 2},
    "label_map": {},
    "freeze_encoder": 1,
    "warm_up": 2,
    "max_epochs": 3,
}


def test_fine_tuning_of_more_classes_resumes_exactly(
    workflow: Callable, base: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = base(MPUNET)
    workflow(MPUNET, "train", init_weights=str(file), ckpt_dir=str(tmp_path / "whole"), **TUMOUR).run()
    assert "head.conv.weight: file (2, 2, 1, 1, 1), network (3, 2, 1, 1, 1)" in caplog.text

    flow = workflow(MPUNET, "train", init_weights=str(file), **TUMOUR)

    def interrupt() -> None:
        if flow.trainer.state.epoch == 2:
            raise KeyboardInterrupt

    flow.trainer.add_event_handler(Events.ITERATION_STARTED, interrupt)
    with pytest.raises(KeyboardInterrupt):
        flow.run()

    other = tmp_path / "other.pt"
    torch.save({key: value + 1 for key, value in torch.load(file, weights_only=True).items()}, other)
    with pytest.raises(RuntimeError) as error:
        workflow(MPUNET, "train", init_weights=str(other), resume=True, **TUMOUR).run()
    message = str(root_cause(error.value))
    assert "init_weights: other.pt" in message and "base.pt" in message and "leave --init_weights out" in message

    file.unlink()  # it is not read again
    workflow(MPUNET, "train", resume=True, **TUMOUR).run()
    one, two = weights_in(tmp_path / "models"), weights_in(tmp_path / "whole")
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert json.loads((tmp_path / "models" / "run.json").read_text())["init_weights"]["file"] == "base.pt"


def test_training_from_scratch_records_no_weights(workflow: Callable, tmp_path: Path, base: Callable) -> None:
    workflow(MPUNET, "train", max_epochs=1, validation_share=0).run()
    assert json.loads((tmp_path / "models" / "run.json").read_text())["init_weights"] is None
    with pytest.raises(RuntimeError) as error:
        workflow(MPUNET, "train", resume=True, init_weights=str(base(MPUNET)), validation_share=0).run()
    assert "base.pt" in str(root_cause(error.value)) and "no file" in str(root_cause(error.value))


@pytest.mark.parametrize("content", [None, b"no weights"])
def test_wrong_file_is_refused_in_one_line(workflow: Callable, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "base.pt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RuntimeError) as error:
        workflow(MPUNET, "train", init_weights=str(file)).run()
    cause = root_cause(error.value)
    assert isinstance(cause, InputError) and str(file) in str(cause) and str(cause).isprintable()
