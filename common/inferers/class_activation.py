"""Map the voxels that a predicted class depends on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.visualize import GradCAM, ModelWithHooks
from torch import Tensor, nn

from ..errors import InputError, UsageError
from ..layers import MeanEnsemble
from .windows import Tiles, WindowInferer


def class_to_explain(classes: Sequence[str], explain: str | None) -> int | None:
    """Return the index of the class that the option ``explain`` names; None stays None.

    Raises:
        UsageError: the option names no class of the network.
    """
    if explain is None:
        return None
    if explain not in classes:
        raise UsageError(
            f"--explain {explain}: expected a class of the network, {', '.join(classes)}, or null for the most "
            "probable class of each window"
        )
    return list(classes).index(explain)


class ClassActivationInferer(WindowInferer):
    """Compute Grad-CAM (Selvaraju et al., ICCV 2017) by windows for a network that returns class logits last.

    The map of a window is MONAI's ``GradCAM``: the positive part of the layer's channels, weighted by the mean gradient
    of the class logit and interpolated to the window's size. :class:`WindowInferer` averages the maps of the windows.
    They are not scaled one by one, so a window with little evidence stays darker than one with much.

    If the network uses the layer several times, as in several passes, the last use counts. No hook and no gradient
    remains on the network. The map of an ensemble is the mean of the maps of its networks, for one class.

    Args:
        roi_size: window size ``(x, y, z)``, in voxels.
        num_classes: number of class logits, the last channels of the network's output.
        target_layers: dotted name of the layer; its output is ``(B, C, x, y, z)`` at any resolution. A list of layers
            stands for its last one. In an ensemble, it is the layer of each network.
        target_class: index of the class to explain; None takes the most probable class of each window.
        options: options of :class:`WindowInferer`.

    Returns:
        from the call, tensor ``(B, 1, x, y, z)``, values 0 to 1, as fractions of the case's largest value. All are 0
        if nothing in the volume supports the class.

    Raises:
        InputError: the class is out of range; or, from the call, the network does not have or use the layer, its output
            is not a map, or the class does not depend on it.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        num_classes: int,
        target_layers: str,
        target_class: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(roi_size, **options)
        if target_class is not None and not 0 <= target_class < num_classes:
            raise InputError(f"target_class {target_class}: expected 0 to {num_classes - 1}")
        self.num_classes = num_classes
        self.target_layers = target_layers
        self.target_class = target_class

    def _infer(self, tiles: Tiles, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        members: list[Any] = list(network.networks) if isinstance(network, MeanEnsemble) else [network]
        hooks = [_LastUse(member, self._layer(member), self.num_classes, args, kwargs) for member in members]
        maps = [GradCAM(hook, hook.target_layers, postprocessing=lambda activation: activation) for hook in hooks]

        def explain(windows: Tensor, target: int | Tensor | None) -> Tensor:
            if target is None and len(members) > 1:
                target = network(windows, *args, **kwargs)[:, -self.num_classes :].mean((2, 3, 4)).argmax(1)
            return torch.stack([member_map(windows, target) for member_map in maps]).mean(0)

        trained = [p for member in members for p in member.parameters() if p.requires_grad]
        try:
            for parameter in trained:  # their gradients would keep all activations before the layer
                parameter.requires_grad_(False)
            output = super()._infer(tiles, explain, self.target_class)
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)
        if not torch.stack([flag for hook in hooks for flag in hook.depends]).any():
            raise InputError(
                f"target_layers {self.target_layers}: the class does not depend on this layer; choose another one"
            )
        largest = output.amax((1, 2, 3, 4), keepdim=True)
        return output.div_(torch.where(largest > 0, largest, 1))

    def _layer(self, network: Callable[..., Any]) -> str:
        """Return the name of the layer to explain in a network.

        Raises:
            InputError: the network does not have the layer.
        """
        layers = dict(network.named_modules()) if isinstance(network, nn.Module) else {}
        if self.target_layers not in layers:
            known = ", ".join(name for name in layers if name and name.count(".") < 2)
            raise InputError(
                f"target_layers {self.target_layers}: {type(network).__name__} has no such layer; give one of {known}"
            )
        layer = layers[self.target_layers]
        return f"{self.target_layers}.{len(layer) - 1}" if isinstance(layer, nn.ModuleList) else self.target_layers


class _LastUse(ModelWithHooks):
    """Return the last output of a layer and the gradient of the class logit there.

    MONAI's own class leaves its hooks on the network and computes the gradients of all parameters. For a layer that is
    used several times, it combines the last output with the first gradient.
    """

    def __init__(self, network: Any, layer: str, num_classes: int, args: tuple, kwargs: dict[str, Any]) -> None:
        super().__init__(network, layer)
        self.num_classes = num_classes
        self.args = args
        self.kwargs = kwargs
        self.depends: list[Tensor] = []  # whether any gradient is not 0, one flag for each batch

    def __call__(
        self, x: Tensor, class_idx: int | Tensor | None = None, retain_graph: bool = False
    ) -> tuple[Tensor, tuple[Tensor], tuple[Tensor]]:
        (layer,) = self.target_layers
        uses: list[Tensor] = []

        def cut(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor) or output.dim() != 5:
                raise InputError(
                    f"target_layers {layer}: its output is not a map (B, C, x, y, z); choose another layer"
                )
            uses.append(output.detach().requires_grad_())
            return uses[-1].clone()  # later layers may write in place

        handle = self.get_layer(layer).register_forward_hook(cut)
        try:
            with torch.enable_grad():
                logits = self.model(x, *self.args, **self.kwargs)[:, -self.num_classes :].mean((2, 3, 4))
                score = (logits.amax(1) if class_idx is None else logits[range(len(logits)), class_idx]).sum()
        finally:
            handle.remove()
        if not uses:
            raise InputError(f"target_layers {layer}: the network does not use this layer; choose another one")
        used, gradient = uses[-1], torch.zeros_like(uses[-1])
        if score.requires_grad:  # no parameter does, so the layer is the reason
            (gradient,) = torch.autograd.grad(score, used, retain_graph=retain_graph, materialize_grads=True)
        self.depends.append(gradient.any())
        return logits.detach(), (used.detach(),), (gradient.contiguous(),)
