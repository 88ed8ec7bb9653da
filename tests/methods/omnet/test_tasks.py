"""Test the three tasks of OM-Net: gradients, patches of each head, and patches that do not fit."""

from __future__ import annotations

import pytest
import torch

from common.methods.omnet import Cascade, OMNet

from .formulas import PATCHES, TASKS, narrow


@pytest.mark.parametrize("attention", ["cga", "cga-", "se", None])
def test_each_task_trains_its_own_head(attention: str | None) -> None:
    for task in TASKS:
        network = narrow(attention=attention, channels=(8, 6)).train()
        output = network(torch.randn(2, 4, 8, 8, 8))[task]
        (output * torch.randn_like(output)).sum().backward()

        reached = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
        assert {name.split(".")[1] for name in reached if name.startswith("heads.")} == {task}
        assert {name for name, _ in network.named_parameters() if name.startswith("backbone.")} <= reached


@pytest.mark.parametrize("attention", ["cga", "se", None])
@pytest.mark.parametrize("training", [True, False])
def test_heads_return_their_patches(attention: str | None, training: bool) -> None:
    """Check that plain heads run on their patches only, and that heads with CGA run on all, as guides."""
    network = narrow(attention=attention, channels=(8, 6), dropout=0.0).train(training)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    image = torch.randn(4, 4, 8, 8, 8)
    with torch.no_grad():
        outputs = network(image, PATCHES)
        after = {key: value.clone() for key, value in network.state_dict().items()}
        network.load_state_dict(state)

        if attention == "cga":
            expected = {task: logits[i] for (task, logits), i in zip(network(image).items(), PATCHES, strict=True)}
        else:
            features = network.backbone(image)
            expected = {task: network.heads[task](features[i]) for task, i in zip(TASKS[:2], PATCHES[:2], strict=True)}
            expected["enhancing"] = torch.zeros(0, 2, 8, 8, 8)  # the head did not run
        torch.testing.assert_close(outputs, expected)
        torch.testing.assert_close(after, network.state_dict())


@pytest.mark.parametrize("attention", ["cga", "se", None])
def test_a_head_without_patches_gets_no_gradient(attention: str | None) -> None:
    network = narrow(attention=attention, channels=(8, 6)).train()
    outputs = network(torch.randn(4, 4, 8, 8, 8), PATCHES)
    sum(output.sum() for output in outputs.values()).backward()

    assert all(p.grad is None for p in network.heads["enhancing"].parameters())
    assert all(p.grad.isfinite().all() for p in network.heads["tumour"].parameters())


@pytest.mark.parametrize("kind", [OMNet, Cascade])
@pytest.mark.parametrize(("dense", "number"), [(True, 3), (False, 2)])
def test_patches_that_do_not_fit_raise(kind: type, dense: bool, number: int) -> None:
    with pytest.raises(ValueError, match=r"patches: expected three tensors"):
        kind(channels=(4, 6, 8), dense=dense)(torch.zeros(2, 4, 8, 8, 8), number * [torch.tensor([0])])
