"""Test mixed precision in training."""

import pytest
import torch
from torch import nn

from common.errors import UsageError
from common.inferers import TrainingInferer, mixed_precision

IMAGE = torch.rand(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("amp", "dtype"), [(True, torch.bfloat16), ("true", torch.bfloat16), (False, torch.float32)])
def test_amp_on_a_cpu_computes_in_bfloat16(amp: bool | str, dtype: torch.dtype) -> None:
    network = nn.Conv3d(3, 2, 3)
    output = TrainingInferer(amp)(IMAGE, network)
    assert output.dtype is dtype
    output.float().sum().backward()
    assert network.weight.grad is not None and network.weight.grad.dtype is torch.float32
    torch.testing.assert_close(output.float(), network(IMAGE), rtol=0.02, atol=0.02)


def test_monai_s_mixed_precision_is_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        not mixed_precision("false", "cpu") and mixed_precision("true", "cuda") and not mixed_precision(False, "cuda")
    )
    monkeypatch.setattr("common.inferers.training.computes_bfloat16", lambda device: True)
    assert not mixed_precision("true", "cpu")


def test_amp_without_bfloat16_instructions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.inferers.training.computes_bfloat16", lambda device: False)
    with pytest.raises(UsageError, match=r"^--amp true, but the device cpu has no instructions for bfloat16"):
        mixed_precision("true", "cpu")
