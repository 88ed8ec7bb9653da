from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.layers import TwoForms, append_class, split_class


class Net(TwoForms):
    """Return the sigmoid of a convolution, and for training also its logits."""

    def __init__(self, dense: bool = True) -> None:
        super().__init__(dense)
        self.body = nn.Sequential(nn.Conv3d(1, 2, kernel_size=1), nn.BatchNorm3d(2))

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        logits = self.body(image)
        if self.dense:
            return torch.sigmoid(logits)
        return {"seg": torch.sigmoid(logits), "aux_1": logits}


def test_training_form_shares_parameters_and_buffers() -> None:
    network, image = Net(), torch.randn(2, 1, 4, 4, 4)
    form = network.training_form()
    form.train()(image)["seg"].sum().backward()

    assert network.dense and not form.dense
    assert form.body is network.body
    assert [p.data_ptr() for p in form.parameters()] == [p.data_ptr() for p in network.parameters()]
    assert all(p.grad is not None for p in network.parameters())
    assert network.body[1].num_batches_tracked == 1
    assert type(network(image)) is Tensor


def test_training_form_follows_loaded_weights() -> None:
    network, other, image = Net().eval(), Net(), torch.randn(1, 1, 4, 4, 4)
    form = network.training_form()
    network.load_state_dict(other.state_dict())
    assert torch.equal(form(image)["seg"], network(image))


def test_training_form_of_a_training_form_is_itself() -> None:
    network = Net(dense=False)
    assert network.training_form() is network


@pytest.mark.parametrize("dense", [True, False])
def test_each_form_scripts(dense: bool, tmp_path: Path) -> None:
    network, image = Net(dense).eval(), torch.randn(1, 1, 4, 4, 4)
    torch.jit.save(torch.jit.script(network), tmp_path / "net.ts")
    torch.testing.assert_close(torch.jit.load(tmp_path / "net.ts")(image), network(image))


@pytest.mark.parametrize("channels", [0, 2])
def test_class_is_appended_to_the_maps_and_split_again(channels: int) -> None:
    maps, values = torch.randn(2, channels, 3, 4, 5), torch.randn(2, 3)
    output = append_class(maps, values)

    assert output.shape == (2, channels + 3, 3, 4, 5)
    assert torch.equal(output[:, channels:], values.view(2, 3, 1, 1, 1).expand(2, 3, 3, 4, 5))
    for found, expected in zip(split_class(output, 3), (maps, values)):
        assert torch.equal(found, expected)


def test_split_class_refuses_fewer_channels_than_classes() -> None:
    with pytest.raises(ValueError, match=r"shape \[1, 2, 1, 1, 1\]: expected at least 3 class channels"):
        split_class(torch.zeros(1, 2, 1, 1, 1), 3)
