"""Training in stages, each with its own network or optimiser, that resumes exactly."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Events
from ignite.metrics import Average
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..errors import InputError
from ..record import RECORD_FILE, RunRecord, read_record
from .checkpoints import load_file, save_whole
from .stages import Stage

STATE_FILE = "training_state.pt"
STATE_KEYS = {"stages", "stage", "epoch", "first_epoch", "best_metric", "best_metric_epoch", "network", "optimizer"}

logger = logging.getLogger(__name__)


class StagedTrainer(SupervisedTrainer):
    """MONAI's trainer run through stages; epochs count through all of them.

    After every epoch, or with ``val_interval`` after some, it validates and writes the stage's weights where they are
    the best so far; after every epoch, the training state.
    A run that was interrupted, wherever, continues from its last complete epoch with ``resume`` and ends with the same
    weights as one that was not (on a CPU; CUDA's kernels are not all deterministic).

    A trainer whose training is complete goes on where ``state.max_epochs`` is raised before it runs once more, as those
    of MONAI do: in the last stage, with the network as it is then, its optimiser and its learning rate. It then trains
    all of these epochs: patience and plateau, which may have ended it before, no longer do. A federated client whose
    network gets the weights of all clients between its rounds trains in this way.

    A loss that is a module with parameters, such as the weights of tasks, is trained with the network, without weight
    decay, and kept in the training state. One with ``set_epoch`` is told the epoch of the stage, from 1, as it begins.

    Args:
        stages: in order.
        evaluator: validates; its key metric and ``metric_cmp_fn`` choose the best weights.
        ckpt_dir: folder of the weights and of the training state.
        resume: continue the run that left its state in ``ckpt_dir``.
        device, train_data_loader, loss_function, inferer, iteration_update, train_handlers, amp: as for MONAI's
            ``SupervisedTrainer``; an ``iteration_update`` fires ``BACKWARD_COMPLETED`` before each optimiser step.
        max_epochs: over all stages, at most.
        val_interval: validate in every epoch of a stage whose number, from 1, this divides, in its last, and where its
            patience would end it.
        seed: of what the network itself draws, such as dropout; each epoch has its own.
        record: record of the training, written to ``ckpt_dir/run.json`` before the first epoch and compared with the
            one there when the training resumes; None writes none.

    Raises:
        InputError: ``val_interval`` or ``max_epochs`` is below 1; ``ckpt_dir`` holds a training or weights and
            ``resume`` is not set, also by ``run`` of a trainer whose training is complete; the state is of other
            stages, another network, loss, optimiser or way of the learning rate; the record contradicts the one in
            ``ckpt_dir``; the loss or the validation score becomes a value that is not finite.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        evaluator: SupervisedEvaluator,
        ckpt_dir: str | Path,
        device: torch.device,
        max_epochs: int,
        train_data_loader: Iterable,
        loss_function: Callable,
        inferer: Inferer | None = None,
        train_handlers: Sequence | None = None,
        resume: bool = False,
        amp: bool = False,
        seed: int = 0,
        iteration_update: Callable[..., dict] | None = None,
        val_interval: int = 1,
        record: RunRecord | None = None,
    ) -> None:
        for name, value in (("max_epochs", max_epochs), ("val_interval", val_interval)):
            if value < 1:
                raise InputError(f"{name} is {value}: expected a number of epochs from 1")
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=stages[0].network,
            optimizer=stages[0].optimizer(stages[0].network, stages[0].rate(1)),
            loss_function=loss_function,
            inferer=inferer,
            iteration_update=iteration_update,
            non_blocking=True,
            amp=amp,
            decollate=False,  # no per-sample metric or post-processing in training
            optim_set_to_none=True,
        )
        self.stages = list(stages)
        self.evaluator = evaluator
        self.ckpt_dir = Path(ckpt_dir)
        self.resume = resume
        self.max_epochs = max_epochs
        self.val_interval = val_interval
        self.seed = seed
        self.record = record
        self.validates = bool(evaluator.state.epoch_length)
        self.stage = self.stages[0]
        self.first_epoch = 0  # epochs run before the current stage
        self.is_complete = False
        self.weights_epoch = -1  # the epoch whose weights the stage has kept
        self.scheduler: ReduceLROnPlateau | None = None
        self.mean_loss: float | None = None  # what the scheduler watches
        Average(output_transform=lambda output: output["loss"], device=device).attach(self, "train_loss")
        self.add_event_handler(Events.EPOCH_STARTED, self._set_learning_rate)
        self.add_event_handler(Events.EPOCH_STARTED, self._set_epoch_of_loss)
        self.add_event_handler(Events.ITERATION_STARTED, self._set_seed)
        self.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._average_gradients_of_loss)
        self.add_event_handler(Events.EPOCH_COMPLETED, self._complete_epoch)
        self._register_handlers(train_handlers or [])

    def run(self) -> None:
        try:
            self._run_stages()
        except KeyboardInterrupt:
            logger.warning("interrupted; what was trained up to the last complete epoch goes on with --resume true")
            raise

    def _run_stages(self) -> None:
        if self.is_complete and self.state.epoch < self.state.max_epochs:
            logger.info("stage '%s' goes on to epoch %d", self.stage.name, self.state.max_epochs - self.first_epoch)
            super().run()
            return
        state = self._saved_state()
        self._keep_record(state)
        if not self.validates:
            logger.info("no validation cases: every stage runs all of its epochs and keeps its last weights")
        self.is_complete = False
        index = 0 if state is None else state["stage"]
        for stage in self.stages[index:]:
            self.stage = stage
            self._begin(state)
            self.state.max_epochs = min(self.first_epoch + stage.max_epochs, self.max_epochs)
            if self._is_stage_over():
                logger.info("stage '%s' is complete", stage.name)
            else:
                logger.info("stage '%s': epoch %d of at most %d", stage.name, self._stage_epoch + 1, stage.max_epochs)
                super().run()
            state = None
            if self.state.epoch >= self.max_epochs and stage is not self.stages[-1]:
                logger.warning("max_epochs=%d ends the training in stage '%s'", self.max_epochs, stage.name)
                return
        self.is_complete = True
        self.state.max_epochs = self.state.epoch  # lower than planned where patience or plateau ended it
        logger.info("training is complete after %d epochs; weights are in %s", self.state.epoch, self.ckpt_dir)

    @property
    def _stage_epoch(self) -> int:
        return self.state.epoch - self.first_epoch

    @property
    def _rate(self) -> float:
        group = self.optimizer.param_groups[0]
        return group["lr"] / group.get("lr_scale", 1.0)

    @property
    def _loss_parameters(self) -> list[nn.Parameter]:
        loss = self.loss_function
        return [p for p in loss.parameters() if p.requires_grad] if isinstance(loss, nn.Module) else []

    def _loss_state(self) -> dict[str, Tensor]:
        return self.loss_function.state_dict() if isinstance(self.loss_function, nn.Module) else {}

    def _plateau_state(self) -> dict[str, Any] | None:
        if self.scheduler is None:
            return None
        return {"mean_loss": self.mean_loss, "scheduler": self.scheduler.state_dict()}

    def _saved_state(self) -> dict[str, Any] | None:
        path = self.ckpt_dir / STATE_FILE
        if self.resume and path.exists():
            state = load_file(path)
            if not isinstance(state, dict) or not state.keys() >= STATE_KEYS:
                raise InputError(
                    f"{path}: expected a training state with {', '.join(sorted(STATE_KEYS))}; resume from the file "
                    "that a training wrote, or train into another --ckpt_dir"
                )
            if state["stages"] != [stage.name for stage in self.stages]:
                raise InputError(
                    f"{path}: of a training with the stages {', '.join(state['stages'])}; resume it with its own config"
                )
            # earlier versions wrote states without these
            state.setdefault("loss", {})
            state.setdefault("plateau", None)
            state.setdefault("weights_epoch", -1)
            if state["loss"].keys() != self._loss_state().keys():
                saved, own = (", ".join(names) or "none" for names in (state["loss"], self._loss_state()))
                raise InputError(
                    f"{path}: of a training whose loss has the parameters {saved}, and this one's has {own}; "
                    f"resume it with its own config"
                )
            if (state["plateau"] is None) != (self.stages[state["stage"]].plateau is None):
                found, own = ("without", "with") if state["plateau"] is None else ("with", "without")
                raise InputError(
                    f"{path}: of a training {found} a plateau of the learning rate, and this one is {own}; "
                    f"resume it with its own config"
                )
            logger.info("resuming %s after epoch %d", path, state["epoch"])
            return state
        kept = [p.name for p in (path, *(self.ckpt_dir / s.weights for s in self.stages if s.weights)) if p.exists()]
        if kept:
            resume = "continue with --resume true, or " if path.exists() else ""
            raise InputError(
                f"{self.ckpt_dir} already holds {', '.join(kept)}: {resume}train into another with --ckpt_dir DIR"
            )
        if self.resume:
            logger.info("nothing to resume in %s; the training begins", self.ckpt_dir)
        return None

    def _keep_record(self, state: dict[str, Any] | None) -> None:
        """Write the record of a training that begins, and compare it with that of one that resumes."""
        path = self.ckpt_dir / RECORD_FILE
        if self.record is None:
            return
        if state is not None and path.exists():
            self.record.check_resumes(read_record(path), path)
        else:
            self.record.write(self.ckpt_dir)

    def _begin(self, state: dict[str, Any] | None) -> None:
        stage = self.stage
        stage.prepare()
        if state is not None:
            self._restore(stage.network, state["network"], "network")
        network = stage.network.to(self.state.device)
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.network = trained = _form_for_training(network)
        if idist.get_world_size() > 1:
            ids = [self.state.device] if self.state.device.type == "cuda" else None
            self.network = nn.parallel.DistributedDataParallel(
                trained, device_ids=ids, find_unused_parameters=stage.find_unused_parameters
            )
        self.optimizer = stage.optimizer(network, stage.rate(1))
        self._begin_loss(state)
        self._begin_plateau()
        self.evaluator.network = network
        self.evaluator.prepare_batch = ImageAndLabel(stage.channels)
        self.prepare_batch = self.evaluator.prepare_batch if stage.prepare_batch is None else self._prepare_batch
        if state is None:
            self.first_epoch = self.state.epoch
            self.weights_epoch = -1
            best = (-1, -1)
        else:
            self.weights_epoch = state["weights_epoch"]
            self._restore(self.optimizer, state["optimizer"], "optimiser")
            if self.scheduler is not None:
                self.mean_loss = state["plateau"]["mean_loss"]
                self.scheduler.load_state_dict(state["plateau"]["scheduler"])
            self.state.epoch = state["epoch"]
            self.state.iteration = state["epoch"] * self.state.epoch_length
            self.first_epoch = state["first_epoch"]
            best = (state["best_metric"], state["best_metric_epoch"])
            if idist.get_rank() == 0 and state["weights_epoch"] == state["epoch"]:
                self._complete_weights()
        self.evaluator.state.best_metric, self.evaluator.state.best_metric_epoch = best

    def _restore(self, part: nn.Module | torch.optim.Optimizer, state: dict, name: str) -> None:
        try:
            part.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{self.ckpt_dir / STATE_FILE}: its {name} does not fit this training's ({reason}); resume with the "
                "config of that training, or train into another --ckpt_dir"
            ) from error

    def _begin_loss(self, state: dict[str, Any] | None) -> None:
        if isinstance(self.loss_function, nn.Module):
            if state is not None:
                self._restore(self.loss_function, state["loss"], "loss")
            self.loss_function.to(self.state.device)
            if idist.get_world_size() > 1:
                for tensor in self._loss_state().values():
                    torch.distributed.broadcast(tensor, src=0)
        if self._loss_parameters:
            self.optimizer.add_param_group({"params": self._loss_parameters, "weight_decay": 0.0})

    def _begin_plateau(self) -> None:
        self.scheduler = self.mean_loss = None
        if (plateau := self.stage.plateau) is not None:
            self.scheduler = ReduceLROnPlateau(
                self.optimizer,
                factor=plateau.factor,
                patience=plateau.patience,
                threshold=plateau.threshold,
                threshold_mode="abs",
                eps=0.0,  # the default stops short of the lowest rates
            )

    def _prepare_batch(self, *args: Any, **kwargs: Any) -> tuple:
        assert self.stage.prepare_batch is not None
        return self.stage.prepare_batch(*args, epoch=self._stage_epoch, **kwargs)

    def _set_learning_rate(self) -> None:
        if self.scheduler is not None and self._stage_epoch > 1:
            return
        rate = self.stage.rate(self._stage_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)

    def _set_epoch_of_loss(self) -> None:
        if hasattr(self.loss_function, "set_epoch"):
            self.loss_function.set_epoch(self._stage_epoch)

    def _average_gradients_of_loss(self) -> None:
        """What DistributedDataParallel does for the network; after it, so in the same order in every process."""
        if idist.get_world_size() > 1:
            for parameter in self._loss_parameters:
                if parameter.grad is None:  # not a part of this process's loss
                    parameter.grad = torch.zeros_like(parameter)
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= idist.get_world_size()

    def _follow_plateau(self, train_loss: float) -> None:
        plateau = self.stage.plateau
        if plateau is None or self.scheduler is None:
            return
        before = train_loss if self.mean_loss is None else self.mean_loss
        self.mean_loss = plateau.smoothing * before + (1 - plateau.smoothing) * train_loss
        rate = self._rate
        self.scheduler.step(self.mean_loss)
        if self._rate < rate:
            ends = self._rate < plateau.lowest and not self.is_complete
            logger.info(
                "stage '%s': the training loss falls no more; its learning rate is now %.3g%s",
                *(self.stage.name, self._rate, ", which ends it" if ends else ""),
            )

    def _set_seed(self) -> None:
        # in the first update, because beginning to load an epoch's data may draw a number or not
        if (self.state.iteration - 1) % self.state.epoch_length == 0:
            sequence = np.random.SeedSequence([self.seed, self.state.epoch, idist.get_rank()])
            torch.manual_seed(int(sequence.generate_state(1)[0]))

    def _complete_epoch(self) -> None:
        epoch, stage = self.state.epoch, self.stage
        if idist.get_world_size() > 1:  # DDP lets batch-normalisation statistics drift apart until its next forward
            for buffer in stage.network.buffers():
                torch.distributed.broadcast(buffer, src=0)
        train_loss = self.state.metrics["train_loss"]
        self._follow_plateau(train_loss)
        validation = "not validated"
        if not math.isfinite(train_loss):
            raise self._diverged(f"training loss {train_loss}")
        if self.validates and (self._stage_epoch % self.val_interval == 0 or self._is_stage_over()):
            self.evaluator.run(epoch)
            found = self.evaluator.state
            metric = found.metrics[found.key_metric_name]
            if not math.isfinite(metric):
                raise InputError(
                    f"stage '{stage.name}', epoch {epoch}: the validation score {found.key_metric_name} is {metric}: "
                    "no validation case has what it measures; check their labels, or switch validation off with "
                    "--validation_share 0"
                )
            validation = f"{found.key_metric_name} {metric:.4f}"
            validation += f" (best {found.best_metric:.4f} in epoch {found.best_metric_epoch})"
        if idist.get_rank() == 0:
            keeps = not self.validates or self.evaluator.state.best_metric_epoch == epoch
            if keeps:
                self.weights_epoch = epoch
            # the state comes first: where a run ends in between, its resumption writes the weights again
            save_whole(
                {
                    "stages": [s.name for s in self.stages],
                    "stage": self.stages.index(stage),
                    "epoch": epoch,
                    "first_epoch": self.first_epoch,
                    "weights_epoch": self.weights_epoch,
                    "best_metric": float(self.evaluator.state.best_metric),
                    "best_metric_epoch": self.evaluator.state.best_metric_epoch,
                    "network": _tensors(stage.network.state_dict()),
                    "optimizer": self.optimizer.state_dict(),
                    "loss": _tensors(self._loss_state()),
                    "plateau": self._plateau_state(),
                },
                self.ckpt_dir / STATE_FILE,
            )
            if keeps:
                self._save_weights()
        idist.barrier()  # the next stage may read these files on every rank
        logger.info("stage '%s', epoch %d: training loss %.4f, %s", stage.name, epoch, train_loss, validation)
        if self._is_stage_over():
            self.terminate()

    def _save_weights(self) -> None:
        if self.stage.weights is not None:
            save_whole(_tensors(self.stage.network.state_dict()), self.ckpt_dir / self.stage.weights)

    def _complete_weights(self) -> None:
        """Write the weights of a state whose run ended between the two files."""
        if self.stage.weights is not None:
            path, own = self.ckpt_dir / self.stage.weights, _tensors(self.stage.network.state_dict())
            kept = load_file(path) if path.exists() else {}
            if kept.keys() != own.keys() or not all(torch.equal(kept[key], own[key]) for key in own):
                self._save_weights()

    def _diverged(self, what: str) -> InputError:
        return InputError(
            f"stage '{self.stage.name}', epoch {self.state.epoch}: {what} is not finite, the training diverged; the "
            f"epoch before is in {self.ckpt_dir}; a smaller --learning_rate may help"
        )

    def _is_stage_over(self) -> bool:
        if self.is_complete:  # and goes on
            return self.state.epoch >= self.state.max_epochs
        best_epoch = self.evaluator.state.best_metric_epoch
        waited = self.state.epoch - best_epoch if best_epoch != -1 else 0
        plateau = self.stage.plateau
        return (
            self.state.epoch >= self.state.max_epochs
            or (self.stage.patience is not None and waited >= self.stage.patience)
            or (plateau is not None and self._rate < plateau.lowest)
        )


def _form_for_training(network: nn.Module) -> nn.Module:
    """A network that returns what its loss needs; it shares everything but the attribute ``dense``."""
    if not getattr(network, "dense", False):
        return network
    form = copy.copy(network)
    form.dense = False  # type: ignore[assignment]
    return form


class ImageAndLabel:
    """Image and label on the device, plain tensors in float32, the image channels-last and only the channels wanted."""

    def __init__(self, channels: Sequence[int] | None) -> None:
        self.channels = None if channels is None else list(channels)

    def __call__(
        self, batch: dict[str, Tensor], device: torch.device | None = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        image, label = (torch.as_tensor(batch[key]) for key in ("image", "label"))
        if self.channels is not None:
            image = image[:, self.channels]
        # compact types travel; the cast follows on the device
        image, label = (t.to(device, non_blocking=non_blocking, **kwargs).float() for t in (image, label))
        return image.contiguous(memory_format=torch.channels_last_3d), label


def _tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU and contiguous, so that a file does not depend on the machine that wrote it."""
    return {k: v.detach().cpu().contiguous() for k, v in state.items()}
