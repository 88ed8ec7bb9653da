from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.engines import load_weights, save_whole
from common.errors import InputError
from common.layers import MeanEnsemble, TwoForms

IMAGE = (2, 4, 8, 8, 8)


class Net(TwoForms):
    """Return softmax probabilities, or logits for training."""

    def __init__(self, classes: int = 3, dense: bool = True) -> None:
        super().__init__(dense)
        self.head = nn.Conv3d(4, classes, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        logits = self.head(image)
        if self.dense:
            return torch.softmax(logits, 1)
        return {"seg": logits}


def members(count: int) -> list[nn.Module]:
    return [Net().eval() for _ in range(count)]


def test_output_is_the_mean_of_the_members() -> None:
    networks, x = members(3), torch.randn(IMAGE)
    with torch.no_grad():
        found, single = MeanEnsemble(networks).eval()(x), [network(x) for network in networks]
    torch.testing.assert_close(found, torch.stack(single).mean(0))
    assert not torch.allclose(found, single[0], atol=1e-3)
    torch.testing.assert_close(found.sum(1), torch.ones(2, 8, 8, 8))


def test_ensemble_of_one_equals_its_member() -> None:
    (network,), x = members(1), torch.randn(IMAGE)
    with torch.no_grad():
        assert torch.equal(MeanEnsemble([network])(x), network(x))


def test_scripted_equals_eager(tmp_path: Path) -> None:
    ensemble, x = MeanEnsemble(members(2)).eval(), torch.randn(IMAGE)
    torch.jit.save(torch.jit.script(ensemble), tmp_path / "ensemble.ts")
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(tmp_path / "ensemble.ts")(x), ensemble(x))


class Logits(nn.Module):
    """Return a probability, then two logits, then three."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv3d(4, 6, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        values = 3 * self.head(image)
        return torch.cat([values[:, :1].sigmoid(), values[:, 1:]], 1)


def probabilities(output: Tensor) -> Tensor:
    return torch.cat([output[:, :1], output[:, 1:3].softmax(1), output[:, 3:].softmax(1)], 1)


def test_the_softmax_of_logits_is_the_mean_of_the_members() -> None:
    networks, x = [Logits(), Logits()], torch.randn(IMAGE)
    with torch.no_grad():
        found = probabilities(MeanEnsemble(networks, [2, 0, 3])(x))
        expected = (probabilities(networks[0](x)) + probabilities(networks[1](x))) / 2
    torch.testing.assert_close(found, expected)


def test_a_probability_of_0_keeps_a_finite_logit() -> None:
    network, x = nn.Identity(), torch.tensor([500.0, -500.0]).reshape(1, 2, 1, 1, 1)
    found = MeanEnsemble([network], [2])(x)
    assert found.isfinite().all()
    assert found.softmax(1).flatten().tolist() == pytest.approx([1, 0])


def test_fewer_channels_than_logits_are_refused() -> None:
    with pytest.raises(ValueError, match="output of 4 channels, expected 5 logits or more"):
        MeanEnsemble([nn.Identity()], [2, 3])(torch.randn(IMAGE))


def test_scripted_equals_eager_with_logits() -> None:
    ensemble, x = MeanEnsemble([Logits(), Logits()], [2, 3]), torch.randn(IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(ensemble)(x), ensemble(x))


def test_the_same_member_twice_is_refused() -> None:
    (network,) = members(1)
    for networks in ([], [network, network]):
        with pytest.raises(ValueError, match=f"each with its own weights, found {len(networks)}"):
            MeanEnsemble(networks)


# Weights, a file per member.


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"fold{i}.pt" for i in range(3)]
    for network, path in zip(members(3), paths):
        save_whole(network.state_dict(), path)
    return paths


def test_each_member_gets_its_file(files: list[Path]) -> None:
    ensemble = MeanEnsemble(members(3))
    load_weights(ensemble, [str(files[0]), *files[1:]])
    for network, path in zip(ensemble.networks, files):
        for key, value in torch.load(path).items():
            assert torch.equal(network.state_dict()[key], value), (path, key)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_wrong_number_of_files_is_refused(files: list[Path], count: int) -> None:
    with pytest.raises(InputError, match=f"^{count} files of weights for 3 networks; give one for each"):
        load_weights(MeanEnsemble(members(3)), files[:count])


def test_a_single_network_takes_a_list_of_one_file(files: list[Path]) -> None:
    (network,) = members(1)
    load_weights(network, files[1:2])
    assert torch.equal(network.state_dict()["head.bias"], torch.load(files[1])["head.bias"])
    with pytest.raises(InputError, match=r"^3 files of weights for 1 networks"):
        load_weights(network, files)


def test_error_names_the_file_that_does_not_fit(files: list[Path]) -> None:
    save_whole(Net(classes=2).state_dict(), files[1])
    with pytest.raises(InputError, match=r"fold1\.pt: weights of another network"):
        load_weights(MeanEnsemble(members(3)), files)


def test_one_file_does_not_fit_an_ensemble(files: list[Path]) -> None:
    with pytest.raises(InputError, match=r"fold0\.pt: weights of another network"):
        load_weights(MeanEnsemble(members(3)), files[0])
