"""Draw a picture of a validation case every few epochs."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from ..errors import InputError
from ..figures import outline_figure, save_png
from ..files import remove_unfinished
from ..geometry import turn_onto
from ..tensors import affine_of, as_tensor

PICTURES = "pictures"  # folder of the pictures

logger = logging.getLogger(__name__)


class ValidationPictures:
    """Draw one case of the validation every N epochs, with the outlines of prediction and ground truth.

    The case is the first that has foreground in its ground truth, or the last if none has. The picture uses the label
    map that the validation made anyway. It goes to ``ckpt_dir/pictures/epoch_NNNN.png`` and, for TensorBoard, to
    ``ckpt_dir/tensorboard/pictures``. In a distributed run, the first process draws one of its own cases. Without
    matplotlib, there are no pictures.

    Args:
        ckpt_dir: folder of the training.
        interval: N. If an epoch with a multiple of N is not validated, the next validated epoch is drawn. None or 0
            draws nothing.
        pred_key: key of the label map ``(1, x, y, z)`` in the evaluator's decollated output; ``image`` and ``label``
            are on the same grid.
    """

    def __init__(self, ckpt_dir: str | Path, interval: int | None = 10, pred_key: str = "pred") -> None:
        self.ckpt_dir = Path(ckpt_dir)
        self.interval = interval
        self.pred_key = pred_key
        self.drawn: int | None = None  # multiple of the interval that was drawn last
        self.is_due = False
        self.writer: SummaryWriter | None = None

    def attach(self, engine: Engine) -> None:
        """Attach the pictures to an evaluator."""
        if not self.interval or idist.get_rank() > 0:
            return
        if importlib.util.find_spec("matplotlib") is None:
            logger.info("no pictures of the validation: matplotlib is not installed (the extra pictures)")
            return
        remove_unfinished(self.ckpt_dir / PICTURES)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._look_at_case)

    def _begin(self, engine: Engine) -> None:
        assert self.interval
        multiple = engine.state.epoch // self.interval
        if self.drawn is None:
            self.drawn = (engine.state.epoch - 1) // self.interval
        self.is_due = multiple > self.drawn

    def _look_at_case(self, engine: Engine) -> None:
        state = engine.state
        if not self.is_due:
            return
        case, source = state.output[0], state.batch[0]
        if state.iteration < state.epoch_length and not as_tensor(case["label"]).any():
            return
        assert self.interval
        self.is_due, self.drawn = False, state.epoch // self.interval
        prediction = case.get(self.pred_key)
        if prediction is None or prediction.shape[0] != 1 or prediction.is_floating_point():
            logger.info("no picture of epoch %d: the validation makes no label map", state.epoch)
            return
        try:
            self._draw(state.epoch, case, str(source.get("case", "")))
        except InputError as error:  # a picture must not end a training
            logger.warning("no picture of epoch %d: %s", state.epoch, error)

    def _draw(self, epoch: int, case: Mapping[str, Any], name: str) -> None:
        affine = affine_of(case["image"]) if isinstance(case["image"], MetaTensor) else np.eye(4)
        image, mask, truth = (_canonical(case[key], affine) for key in ("image", self.pred_key, "label"))
        _, turned = turn_onto(mask[0], affine, np.eye(4))
        rows = [(f"{name} [{channel}]" if len(image) > 1 else name, volume) for channel, volume in enumerate(image)]
        spacing = np.linalg.norm(turned[:3, :3], axis=0)
        figure = outline_figure(rows, mask[0], spacing, truth[0], note=f"epoch {epoch}")
        path = save_png(figure, self.ckpt_dir / PICTURES / f"epoch_{epoch:04d}.png")
        if self.writer is None:
            self.writer = SummaryWriter(str(self.ckpt_dir / "tensorboard" / PICTURES))
        from matplotlib.image import imread  # here, because matplotlib is optional

        self.writer.add_image("validation", imread(path)[..., :3], epoch, dataformats="HWC")
        self.writer.flush()


def _canonical(volume: Tensor, affine: np.ndarray) -> list[np.ndarray]:
    """Return the channels of a volume in the orientation closest to RAS+."""
    return [turn_onto(channel, affine, np.eye(4))[0] for channel in as_tensor(volume).cpu().numpy()]
