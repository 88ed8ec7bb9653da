"""Run a network in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import Tensor

from ..errors import UsageError
from ..rules import parse_bool
from .windows import computes_bfloat16


class TrainingInferer(SimpleInferer):
    """Run the network on a whole patch; with mixed precision on a CPU, in bfloat16.

    MONAI's trainer runs the network in mixed precision on CUDA only. The weights, the loss and the step of the
    optimiser stay in float32.

    Args:
        amp: bool, whether the training uses mixed precision.
    """

    def __init__(self, amp: bool | str = False) -> None:
        super().__init__()
        self.amp = parse_bool(amp)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of the network for a batch of patches ``(B, C, x, y, z)``."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.amp and inputs.device.type == "cpu"):
            return super().__call__(inputs, network, *args, **kwargs)


def mixed_precision(amp: bool | str, device: torch.device | str) -> bool:
    """Return whether MONAI's trainer uses its mixed precision, which is for CUDA.

    On a CPU with instructions for bfloat16, the :class:`TrainingInferer` does the same without the trainer.

    Raises:
        UsageError: if ``amp`` is true and the device has no such instructions, so that training would only be slower.
    """
    device = torch.device(device)
    if parse_bool(amp) and device.type != "cuda" and not computes_bfloat16(device):
        raise UsageError(
            f"--amp true, but the device {device} has no instructions for bfloat16; leave --amp out, or use a GPU"
        )
    return parse_bool(amp) and device.type == "cuda"
