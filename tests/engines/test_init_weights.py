"""Test that fitting weights are loaded, the first convolution is adapted and all others are logged."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.engines import FineTuning, Stage
from common.engines.init_weights import load_init_weights
from common.engines.training_folder import TrainingFolder
from common.errors import InputError
from common.files import sha256
from common.methods.mamtln import MAMTLN
from common.methods.mmfnet import MMFNet
from common.methods.mpunet import MPUNet
from common.methods.multirnet import MultiRNet
from common.methods.omnet import OMNet
from common.record import RECORD_FILE, RunRecord, read_record


class Net(nn.Module):
    def __init__(self, channels: int = 1, classes: int = 2, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(channels, width, 3, padding=1), nn.BatchNorm3d(width))
        self.head = nn.Conv3d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@pytest.fixture
def weights(tmp_path: Path) -> Callable[[nn.Module], Path]:
    def write(network: nn.Module) -> Path:
        torch.save(network.state_dict(), tmp_path / "base.pt")
        return tmp_path / "base.pt"

    return write


def load(network: nn.Module, path: Path, caplog: pytest.LogCaptureFixture) -> tuple[int, str]:
    """Load the weights; return level and text of the only message."""
    with caplog.at_level(logging.INFO):
        load_init_weights(network, path)
    (entry,) = caplog.records
    return entry.levelno, entry.getMessage()


def test_equal_networks_get_equal_weights(weights: Callable, caplog: pytest.LogCaptureFixture) -> None:
    base, network = Net(), Net()
    path = weights(base)
    assert load(network, path, caplog) == (
        logging.INFO,
        f"init weights {path}: 9 of the network's 9 entries loaded",
    )
    assert all(torch.equal(value, base.state_dict()[key]) for key, value in network.state_dict().items())


def test_head_of_another_class_starts_anew(weights: Callable, caplog: pytest.LogCaptureFixture) -> None:
    base, network = Net(classes=2), Net(classes=3)
    before = network.head.weight.clone()
    _, message = load(network, weights(base), caplog)
    assert "7 of the network's 9 entries loaded" in message
    assert "start anew, 2:" in message
    assert "head.weight: file (2, 4, 1, 1, 1), network (3, 4, 1, 1, 1)" in message
    assert "head.bias: file (2,), network (3,)" in message
    assert torch.equal(network.head.weight, before)
    assert torch.equal(network.body[0].weight, base.body[0].weight)


def test_mostly_new_network_gets_a_warning(weights: Callable, caplog: pytest.LogCaptureFixture) -> None:
    network = Net()
    network.own = nn.Linear(30, 30)
    assert load(network, weights(Net()), caplog)[0] == logging.WARNING


def test_entries_of_one_side_alone_are_listed(weights: Callable, caplog: pytest.LogCaptureFixture) -> None:
    base, network = Net(), Net()
    base.extra = nn.Linear(2, 5)
    network.own = nn.Linear(3, 7, bias=False)
    _, message = load(network, weights(base), caplog)
    assert "own.weight: file nothing, network (7, 3)" in message
    assert "extra.weight: file (5, 2), network nothing" in message


@pytest.mark.parametrize(
    ("old", "new", "way"), [(1, 3, "repeated"), (2, 4, "repeated"), (2, 3, "averaged"), (4, 1, "averaged")]
)
def test_first_convolution_keeps_the_scale_of_its_response(
    weights: Callable, caplog: pytest.LogCaptureFixture, old: int, new: int, way: str
) -> None:
    base, network = Net(old).eval(), Net(new).eval()
    _, message = load(network, weights(base), caplog)
    assert f"body.0.weight: file (4, {old}, 3, 3, 3), network (4, {new}, 3, 3, 3), input channels {way}" in message
    image = torch.randn(1, 1, 5, 5, 5)
    channels = [image.expand(-1, count, -1, -1, -1) for count in (old, new)]
    torch.testing.assert_close(network(channels[1]), base(channels[0]))


def test_repeated_channels_are_the_old_ones_in_turn(weights: Callable) -> None:
    base, network = Net(2), Net(4)
    load_init_weights(network, weights(base))
    assert torch.equal(network.body[0].weight, torch.cat(2 * [base.body[0].weight], 1) / 2)


NARROW = (2, 2, 4, 4, 8)


@pytest.mark.parametrize(
    ("make", "adapted"),
    [
        (
            lambda n: MAMTLN(n, width=8, planes=(8, 8, 8, 8), blocks=(1, 1, 1, 1), cardinality=2, norm_groups=4),
            {"backbone.stem.0.conv.weight"},
        ),
        (
            lambda n: OMNet(n, channels=(4, 4, 4, 4)),
            {"backbone.encoder.0.0.conv.weight"},
        ),
        (
            lambda n: MultiRNet(n, channels=(4, 4), classifier_channels=(4, 4)),
            {
                "segmentation.encoder.0.conv.conv.weight",
                "classifier.0.conv.conv.weight",
                "classifier.0.shortcut.conv.weight",
            },
        ),
    ],
    ids=["MAMTLN", "OMNet", "MultiRNet"],
)
def test_convolutions_of_the_image_are_adapted(
    weights: Callable, caplog: pytest.LogCaptureFixture, make: Callable, adapted: set[str]
) -> None:
    _, message = load(make(2), weights(make(1)), caplog)
    assert "start anew" not in message and "not used" not in message
    assert {line.strip().partition(":")[0] for line in message.splitlines()[2:]} == adapted


def test_more_modalities_add_encoders_to_mmfnet(weights: Callable, caplog: pytest.LogCaptureFixture) -> None:
    base, network = (MMFNet(n, channels=(2, 4), reduction=2) for n in (2, 3))
    _, message = load(network, weights(base), caplog)
    assert "adapted" not in message
    assert torch.equal(network.encoders[1].bottom.conv.weight, base.encoders[1].bottom.conv.weight)
    assert "encoders.2.bottom.conv.weight: file nothing, network (4, 4, 3, 3, 3)" in message


@pytest.mark.parametrize("base", [Net(width=3), nn.Sequential(nn.Linear(2, 2)), MPUNet(channels=NARROW)])
def test_weights_that_do_not_fit_are_refused(weights: Callable, base: nn.Module) -> None:
    network = Net(width=4)
    before = network.head.bias.clone()
    with pytest.raises(InputError) as error:
        load_init_weights(network, weights(base))
    message = str(error.value)
    assert "base.pt: none of its" in message and "of Net by name and shape" in message
    assert "body.0.weight: file" in message and "give --init_weights" in message and message.isprintable()
    assert torch.equal(network.head.bias, before)


@pytest.mark.parametrize("content", [b"", b"text", None, {"model": Net().state_dict()}, [1]])
def test_another_file_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "base.pt"
    if content is None:
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=r"base\.pt: ") as error:
        load_init_weights(Net(), path)
    assert str(error.value).isprintable()


def test_the_cases_of_the_initial_weights_are_recorded(
    weights: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = weights(Net())
    assert FineTuning(path).origin() == {
        "init_weights": {"file": "base.pt", "sha256": sha256(path)},
        "init_cases": None,
    }
    assert "no run.json beside it" in caplog.text
    seen, other, earlier = ([{"case": name, "patient": None, "image": None, "label": None}] for name in "abc")
    RunRecord({}, {}, {}, None, 0, {}, seen, other, [], {}, "", init_cases=earlier).write(tmp_path)
    assert FineTuning(path).origin()["init_cases"] == [*seen, *other, *earlier]
    (tmp_path / RECORD_FILE).write_text("[]")
    with pytest.raises(InputError, match=r"run\.json: expected a JSON object"):
        FineTuning(path)


def test_a_training_without_weights_leaves_no_record(tmp_path: Path) -> None:
    record = RunRecord({}, {}, {}, None, 0, {}, [], [], [], {}, "")
    stage = Stage("one", Net(), partial(torch.optim.SGD, lr=0.1), 1, weights="model.pt")
    folder = TrainingFolder(tmp_path, record=record)
    folder.begin([stage], {})
    assert not list(tmp_path.iterdir())
    folder.save_weights(stage)
    assert read_record(tmp_path / RECORD_FILE) == dataclasses.replace(
        record, weights={"model.pt": [sha256(tmp_path / "model.pt")]}
    )
    (tmp_path / "model.pt").unlink()
    (tmp_path / RECORD_FILE).write_text("notes")
    with pytest.raises(InputError, match=r"run\.json: another file of this name"):
        TrainingFolder(tmp_path, record=record).begin([stage], {})
