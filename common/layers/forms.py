"""Define the two forms of a network, for training and for inference, and how a class travels with a map."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class TwoForms(nn.Module):
    """Return every head for training, or one tensor for inference, from the same parameters.

    - The training form (``dense=False``) returns a dict of tensors by name, whatever its loss needs: ``seg``,
      ``class``, ``aux_*``, or one entry for each task.
    - The inference form (``dense=True``) returns one tensor ``(B, C, x, y, z)`` in float32. Sliding windows, MONAI
      Label, MONAI Deploy, TorchScript and ONNX expect exactly one. Heads that it does not return are not computed.

    The form never depends on ``self.training``. Both forms have the same state-dict keys. A network that also
    classifies appends its class values to the map (see :func:`append_class`).

    A config asks for the inference form with ``"dense": true`` in ``network_def``. The trainer asks the same network
    for its training form with :meth:`training_form`.

    The attribute ``encoder_modules`` of a network, whether of two forms or of one, names the submodules that make up
    its encoder. The trainer freezes them for ``--freeze_encoder``; an empty tuple refuses this option.

    Args:
        dense: bool, True for the inference form, False for the training form.
    """

    encoder_modules: Sequence[str] = ()

    __constants__: Sequence[str] = ("dense",)  # TorchScript compiles only the code of the form that it scripts

    def __init__(self, dense: bool) -> None:
        super().__init__()
        self.dense = dense

    def training_form(self) -> TwoForms:
        """Return the network in its training form; it shares every parameter, buffer and module with this one.

        The network itself is not changed. A network that is in its training form returns itself.
        """
        if not self.dense:
            return self
        form = copy.copy(self)
        form.dense = False
        return form


def training_form_of(network: nn.Module) -> nn.Module:
    """Return the training form of a network of two forms, and another network as it is."""
    form = getattr(network, "training_form", None)  # the copy of a package has a class of its own
    return network if form is None else form()


def append_class(maps: Tensor, values: Tensor) -> Tensor:
    """Append the class values of a case to its maps, as channels that are constant over all voxels.

    Args:
        maps: ``(B, C, x, y, z)``, C may be 0.
        values: ``(B, K)``, one value for each class.

    Returns:
        ``(B, C + K, x, y, z)``; :func:`split_class` separates the two again.
    """
    everywhere = values[:, :, None, None, None].expand(-1, -1, maps.shape[2], maps.shape[3], maps.shape[4])
    return torch.cat([maps, everywhere], 1)


def split_class(output: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Split the output of :func:`append_class` into maps and class values.

    Args:
        output: ``(B, C + num_classes, x, y, z)``; the last ``num_classes`` channels are constant over the voxels.
        num_classes: number of classes K.

    Returns:
        The maps ``(B, C, x, y, z)`` and the class values ``(B, num_classes)`` of the first voxel.

    Raises:
        ValueError: ``output`` has fewer channels than classes.
    """
    channels = output.shape[1] - num_classes
    if channels < 0:
        raise ValueError(f"output of shape {list(output.shape)}: expected at least {num_classes} class channels")
    return output[:, :channels], output[:, channels:, 0, 0, 0]
