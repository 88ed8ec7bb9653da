"""Move batches to the device as image and targets, and split them into samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.transforms import Decollated
from torch import Tensor


class ImageAndLabel:
    """Return image and label of a batch on the device, in float32, the image in channels-last memory order.

    Args:
        channels: image channels to keep; None for all.
    """

    def __init__(self, channels: Sequence[int] | None = None) -> None:
        self.channels = None if channels is None else list(channels)

    def __call__(
        self, batch: dict[str, Any], device: torch.device | None = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return image ``(B, C, x, y, z)`` and label ``(B, 1, x, y, z)``."""
        image, label = (torch.as_tensor(batch[key]) for key in ("image", "label"))
        if self.channels is not None:
            image = image[:, self.channels]
        # the transfer moves the compact types of the cache, so the cast comes after it
        image, label = (t.to(device, non_blocking=non_blocking, **kwargs).float() for t in (image, label))
        return image.contiguous(memory_format=torch.channels_last_3d), label


class LabelAndClass(ImageAndLabel):
    """Return the image of a batch and a dictionary of its targets, on the device."""

    def __call__(  # type: ignore[override]
        self,
        batch: dict[str, Any],
        device: torch.device | None = None,
        non_blocking: bool = False,
        *,
        epoch: int,  # the trainer gives both to every stage; these batches do not depend on them
        update: int = 1,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return image and targets.

        The image is ``(B, C, x, y, z)``. The targets are ``seg`` ``(B, 1, x, y, z)``, float32, and, if the batch has a
        ``class``, ``class`` ``(B,)``, int64.
        """
        image, label = super().__call__(batch, device, non_blocking, **kwargs)
        targets = {"seg": label}
        if "class" in batch:
            classes = torch.as_tensor(batch["class"])
            targets["class"] = classes.to(device, non_blocking=non_blocking, **kwargs).long()
        return image, targets


def samples_of(data: Any) -> Any:
    """Return the samples of a batch or of its outputs as MONAI's trainers split them, without gradients.

    MONAI cannot split a tensor without samples, as of a task that takes no part in an update; it is left out.
    """
    return Decollated(keys=None, detach=True)(_without_empty(data))


def _without_empty(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    kept = {key: value for key, value in data.items() if not (isinstance(value, Tensor) and value.shape[:1] == (0,))}
    return {key: _without_empty(value) for key, value in kept.items()}
