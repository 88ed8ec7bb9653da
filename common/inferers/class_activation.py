"""Where in a volume a network sees its class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.visualize import GradCAM, ModelWithHooks
from torch import Tensor, nn

from ..errors import InputError
from .windows import Tiles, WindowInferer


class ClassActivationInferer(WindowInferer):
    """Grad-CAM (Selvaraju et al., ICCV 2017) by windows, of a network whose last output channels are class logits.

    Of each window, the positive part of the layer's channels weighted by the mean gradient of the class logit,
    interpolated to the window (MONAI's ``GradCAM``); averaged over windows as outputs are. Windows are not scaled one
    by one, so that one with little evidence stays darker than one with much. Of a layer that the network uses several
    times, such as in passes, the last time counts. No hook and no gradient stays with the network.

    Args:
        roi_size: window ``(x, y, z)``, in voxels.
        num_classes: the last channels of the network's output.
        target_layers: name of the layer, dotted; its output is ``(B, C, x, y, z)`` at any resolution.
        target_class: index of the class to explain; None, the likeliest of each window.
        options: as for :class:`WindowInferer`.

    Returns:
        from the call, ``(B, 1, x, y, z)``, 0 to 1: a part of the volume's largest value; zeros where there is none.

    Raises:
        InputError: a class out of range, or, from the call, a layer that the network does not have or use, that gives
            no map, or that the class does not depend on.
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
        layers = dict(network.named_modules()) if isinstance(network, nn.Module) else {}
        if self.target_layers not in layers:
            known = ", ".join(name for name in layers if name and name.count(".") < 2)
            raise InputError(f"target_layers {self.target_layers}: no such layer; {type(network).__name__} has {known}")
        trained = [p for p in layers[""].parameters() if p.requires_grad]
        hooks = _LastUse(network, self.target_layers, self.num_classes, args, kwargs)
        explain = GradCAM(hooks, self.target_layers, postprocessing=lambda activation: activation)
        try:
            for parameter in trained:  # whose gradients would keep all that comes before the layer
                parameter.requires_grad_(False)
            output = super()._infer(tiles, explain, self.target_class)
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)
        if not torch.stack(hooks.depends).any():
            raise InputError(f"target_layers {self.target_layers}: the class does not depend on it; choose another one")
        largest = output.amax((1, 2, 3, 4), keepdim=True)
        return output.div_(torch.where(largest > 0, largest, 1))


class _LastUse(ModelWithHooks):
    """What a layer gave at last, and the gradient of the class logit there.

    MONAI's own class leaves its hooks on the network, computes the gradients of all parameters, and joins the last
    output of a layer that is used several times with the gradient of the first.
    """

    def __init__(self, network: Any, layer: str, num_classes: int, args: tuple, kwargs: dict[str, Any]) -> None:
        super().__init__(network, layer)
        self.num_classes = num_classes
        self.args = args
        self.kwargs = kwargs
        self.depends: list[Tensor] = []  # of each batch, whether any gradient is not 0

    def __call__(
        self, x: Tensor, class_idx: int | None = None, retain_graph: bool = False
    ) -> tuple[Tensor, tuple[Tensor], tuple[Tensor]]:
        (layer,) = self.target_layers
        uses: list[Tensor] = []

        def cut(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor) or output.dim() != 5:
                raise InputError(f"target_layers {layer}: its output is no map (B, C, x, y, z)")
            uses.append(output.detach().requires_grad_())
            return uses[-1].clone()  # what follows may write into it

        handle = self.get_layer(layer).register_forward_hook(cut)
        try:
            with torch.enable_grad():
                logits = self.model(x, *self.args, **self.kwargs)[:, -self.num_classes :].mean((2, 3, 4))
                score = (logits.amax(1) if class_idx is None else logits[:, class_idx]).sum()
        finally:
            handle.remove()
        if not uses:
            raise InputError(f"target_layers {layer}: the network does not use it")
        used, gradient = uses[-1], torch.zeros_like(uses[-1])
        if score.requires_grad:  # because of the layer, since no parameter does
            (gradient,) = torch.autograd.grad(score, used, retain_graph=retain_graph, materialize_grads=True)
        self.depends.append(gradient.any())
        return logits.detach(), (used.detach(),), (gradient.contiguous(),)
