from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from common.methods.omnet import Cascade, SingleTaskNet

from ..networks import NetworkTests, parameters
from .formulas import PATCHES, TASKS, ThreeTasksTests, narrow, trained


class TestCascade(ThreeTasksTests):
    network = Cascade


class TestSingleTaskNet(NetworkTests):
    network = SingleTaskNet
    options: ClassVar[dict[str, Any]] = {"channels": (4, 8)}
    image = (2, 4, 16, 12, 8)
    out_channels = 5
    other: ClassVar[dict[str, Any]] = {"in_channels": 2, "num_classes": 3}
    other_out_channels = 3


def test_parameters_of_the_cascade() -> None:
    with torch.device("meta"):
        one, two, three = (parameters(SingleTaskNet(num_classes=classes)) for classes in (5, 5, 2))
        whole = parameters(Cascade())

    assert one + two == 27_646_986 == pytest.approx(27.626e6, rel=1e-3)
    assert one + two + three == 41_470_380 == pytest.approx(41.439e6, rel=1e-3)
    assert whole == 41_470_380


def test_one_pass_equals_three_networks_of_the_same_weights() -> None:
    network, image = narrow(attention=None), torch.randn(2, 4, 8, 8, 8)
    state = network.state_dict()

    with torch.no_grad():
        outputs = network(image)
        for task, classes in zip(TASKS, (5, 5, 2), strict=True):
            single = SingleTaskNet(num_classes=classes, channels=(4, 6, 8)).eval()
            single.load_state_dict(
                {
                    key.replace(f"heads.{task}", "head"): value
                    for key, value in state.items()
                    if key.startswith(("backbone.", f"heads.{task}."))
                }
            )
            torch.testing.assert_close(single(image), outputs[task], rtol=0, atol=1e-6)


def test_inference_form_of_a_single_task_is_the_softmax() -> None:
    network = trained(SingleTaskNet(num_classes=3, channels=(4, 6))).eval()
    dense = SingleTaskNet(num_classes=3, channels=(4, 6), dense=True).eval()
    dense.load_state_dict(network.state_dict())
    image = torch.randn(2, 4, 8, 8, 8)

    with torch.no_grad():
        torch.testing.assert_close(dense(image), network(image).softmax(1))


@pytest.mark.parametrize("training", [True, False])
def test_the_networks_of_the_cascade_run_on_their_patches_only(training: bool) -> None:
    cascade, image = Cascade(channels=(4, 6, 8), dropout=0.0).train(training), torch.randn(4, 4, 8, 8, 8)
    singles = {task: SingleTaskNet(num_classes=c, channels=(4, 6, 8), dropout=0.0) for task, c in zip(TASKS, (5, 5, 2))}
    for task, single in singles.items():
        single.load_state_dict(cascade.nets[task].state_dict())
        single.train(training)
    outputs = cascade(image, PATCHES)

    for task, chosen in zip(TASKS[:2], PATCHES[:2], strict=True):
        torch.testing.assert_close(outputs[task], singles[task](image[chosen]))
        torch.testing.assert_close(cascade.nets[task].state_dict(), singles[task].state_dict())
    assert outputs["enhancing"].shape == (0, 2, 8, 8, 8)
    outputs["tumour"].sum().backward()
    assert {name.split(".")[1] for name, p in cascade.named_parameters() if p.grad is not None} == {"tumour"}


def test_a_cascade_of_another_number_of_tasks_raises() -> None:
    with pytest.raises(ValueError, match=r"num_classes=\(5, 2\): expected three numbers"):
        Cascade(num_classes=(5, 2))
