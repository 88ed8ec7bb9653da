"""Test the running statistics that the first pass and the later ones keep apart."""

from __future__ import annotations

import torch
from torch import nn

from common.methods.multirnet import MultiRNet
from common.methods.multirnet.pass_norm import PassNorm

from .formulas import narrow


def volume(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(1, 1, -1, 1, 1)


def norms_of(network: MultiRNet) -> list[PassNorm]:
    return [module for module in network.modules() if isinstance(module, PassNorm)]


def test_each_pass_updates_and_uses_its_own_set() -> None:
    """Compare with numbers worked by hand; the running variance is that of a sample."""
    norm = PassNorm(1)
    for norm.later, values in ((False, (0.0, 2.0)), (True, (4.0, 8.0))):  # means 1 and 6, variances 2 and 8
        torch.testing.assert_close(norm(volume(*values)), volume(-1.0, 1.0), rtol=1e-4, atol=0)
    torch.testing.assert_close(norm.running_mean, torch.tensor([[0.1], [0.6]]))
    torch.testing.assert_close(norm.running_var, torch.tensor([[0.9 + 0.2], [0.9 + 0.8]]))
    norm.eval()
    for norm.later, expected in ((False, 0.9 / 1.10001**0.5), (True, 0.4 / 1.70001**0.5)):
        torch.testing.assert_close(norm(volume(1.0)), volume(expected))


def test_equal_sets_give_the_network_of_one_set() -> None:
    network, image = narrow(dense=True), torch.rand(1, 1, 32, 16, 16)
    separate = narrow(dense=True, pass_statistics="separate")
    state = network.state_dict()
    assert list(separate.state_dict()) == list(state)
    both = {key: value.expand(2, -1) if "running" in key else value for key, value in state.items()}
    separate.load_state_dict(both)
    with torch.no_grad():
        assert torch.equal(separate(image), network(image))
        for norm in norms_of(separate):
            norm.running_mean[1] += 0.1
        assert not torch.allclose(separate(image), network(image))
        assert torch.equal(separate.one_pass(image, None)[0], network.one_pass(image, None)[0])


def test_a_first_pass_leaves_the_set_of_the_later_ones() -> None:
    network = narrow(pass_statistics="separate").train()
    before = [norm.running_mean.clone() for norm in norms_of(network)]
    outputs = network(torch.rand(2, 1, 32, 16, 16))
    for norm, mean in zip(norms_of(network), before):
        assert torch.equal(norm.running_mean[1], mean[1]) and not torch.equal(norm.running_mean[0], mean[0])
    first = [norm.running_mean[0].clone() for norm in norms_of(network)]
    network(torch.rand(2, 1, 32, 16, 16), outputs["seg"].sigmoid())
    for norm, mean, old in zip(norms_of(network), first, before):
        assert torch.equal(norm.running_mean[0], mean) and not torch.equal(norm.running_mean[1], old[1])


def test_the_default_has_the_norms_of_pytorch() -> None:
    norms = [module for module in narrow().modules() if isinstance(module, nn.BatchNorm3d)]
    assert norms and {type(norm) for norm in norms} == {nn.BatchNorm3d}
