"""Train in stages, each with its own network or optimiser, and resume exactly."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Events
from ignite.metrics import Average
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer

from ..errors import InputError
from ..processes import average_gradients, broadcast
from .batches import ImageAndLabel
from .epoch_clock import EpochClock, duration
from .running_stage import RunningStage
from .stage_handlers import StageHandlers
from .stages import Stage, total_epochs
from .training_folder import TrainingFolder, cpu_state

logger = logging.getLogger(__name__)


class StagedTrainer(SupervisedTrainer):
    """Run MONAI's trainer through stages; epochs count through all of them.

    After every epoch, or with ``val_interval`` after some, the trainer validates. It writes the weights of the stage
    when they are the best so far, and after every epoch the training state. An interrupted run continues with
    ``resume`` from its last complete epoch and ends with the same weights as an uninterrupted one (on a CPU; not all
    CUDA kernels are deterministic).

    A complete training goes on if ``state.max_epochs`` is raised before ``run`` is called again, as with MONAI's
    trainers: in the last stage, with its network as it is then, its optimiser and its schedule. Neither patience nor
    the schedule ends these epochs early. A federated client, where the network gets new weights between rounds, trains
    in this way.

    Each epoch has one line in the log. Its numbers are also in ``state.metrics``, for curves: ``train_loss``,
    ``epoch_time`` in s, ``learning_rate`` of the first parameter group (``learning_rate_1`` of the second, ...) and,
    after a validation, the evaluator's metrics.

    Handlers of MONAI and of other packages find what MONAI's trainers give them, see :class:`StageHandlers`.

    A loss that is a module with parameters, such as task weights, is trained with the network, without weight decay,
    and kept in the training state. A loss with ``set_epoch`` gets the epoch of the stage, from 1, as it begins.

    Args:
        stages: stages in order.
        evaluator: engine that validates; its key metric and ``metric_cmp_fn`` choose the best weights. The trainer uses
            its device.
        folder: folder of the weights and of the training state.
        train_data_loader, loss_function, inferer, iteration_update, train_handlers, amp: as for MONAI's
            ``SupervisedTrainer``. An ``iteration_update`` fires ``BACKWARD_COMPLETED`` before each optimiser step.
        max_epochs: largest number of epochs over all stages; None runs every stage to its end.
        val_interval: number of epochs between validations in a stage. The trainer also validates in the last epoch of
            a stage and in an epoch after which patience would end it.
        seed: seed of the network's own draws, such as dropout; each epoch has its own.

    Raises:
        InputError: ``val_interval`` or ``max_epochs`` is below 1. ``run`` raises it if the folder holds a training that
            is not resumed, or if the state does not fit the config. It also ends a training with it if the training
            loss or the validation score is not finite, or if every gradient has become 0.
    """

    is_built = False

    def __init__(
        self,
        stages: Sequence[Stage],
        evaluator: SupervisedEvaluator,
        folder: TrainingFolder,
        train_data_loader: Iterable,
        loss_function: Callable,
        inferer: Inferer | None = None,
        iteration_update: Callable[..., dict] | None = None,
        train_handlers: Sequence | None = None,
        max_epochs: int | None = None,
        val_interval: int = 1,
        seed: int = 0,
        amp: bool = False,
    ) -> None:
        max_epochs = total_epochs(stages) if max_epochs is None else max_epochs
        for name, value in (("max_epochs", max_epochs), ("val_interval", val_interval)):
            if value < 1:
                raise InputError(f"{name} is {value}: expected a number of epochs from 1")
        super().__init__(
            device=evaluator.state.device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=stages[0].network,
            optimizer=stages[0].start_optimizer()[0],
            loss_function=loss_function,
            inferer=inferer,
            iteration_update=iteration_update,
            non_blocking=True,
            amp=amp,
            decollate=False,
            optim_set_to_none=True,
        )
        self.stages = list(stages)
        self.evaluator = evaluator
        self.folder = folder
        self.max_epochs = max_epochs
        self.val_interval = val_interval
        self.seed = seed
        self.validates = bool(evaluator.state.epoch_length)
        self.stage = self.stages[0]
        self.lr_scheduler: Any = None
        self.running: RunningStage  # of the stage that trains, from its beginning
        self.is_complete = False
        self.clock = EpochClock()
        own_handlers = list(train_handlers or [])
        self.handlers = StageHandlers(own_handlers, ["train_loss"])
        self.add_event_handler(IterationEvents.MODEL_COMPLETED, self.handlers.split_batch)
        Average(output_transform=_loss_of, device=self.state.device).attach(self, "train_loss")
        self.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        self.add_event_handler(Events.ITERATION_STARTED, self._set_seed)
        self.add_event_handler(
            IterationEvents.BACKWARD_COMPLETED, lambda: average_gradients(self.running.loss_parameters)
        )
        self.add_event_handler(IterationEvents.BACKWARD_COMPLETED, lambda: self.running.note_gradient())
        self.add_event_handler(Events.EPOCH_COMPLETED, self._complete_epoch)
        self._register_handlers(own_handlers)
        self.is_built = True

    def add_event_handler(self, event_name: Any, handler: Callable, *args: Any, **kwargs: Any) -> Any:
        """Register a handler of an event, which from then on finds decollated samples."""
        if self.is_built:
            self.handlers.need_samples = True
        return super().add_event_handler(event_name, handler, *args, **kwargs)

    def run(self) -> None:
        """Train all stages, or raise ``KeyboardInterrupt`` after a warning that says how to resume."""
        try:
            with self.handlers.tracked_runs.ending():
                self._run_stages()
        except KeyboardInterrupt:
            logger.warning("interrupted; --resume true continues the training after its last complete epoch")
            raise

    def _run_stages(self) -> None:
        if self.is_complete and self.state.epoch < self.state.max_epochs:
            logger.info(
                "stage '%s' continues to epoch %d", self.stage.name, self.state.max_epochs - self.running.first_epoch
            )
            self._train()
            return
        state = self.folder.begin(self.stages, cpu_state(self.loss_function))
        if not self.validates:
            logger.info("no validation cases: every stage runs all of its epochs and keeps its last weights")
        self.is_complete = False
        if state is not None:
            self.handlers.remove_loaders(self)
        for stage in self.stages[0 if state is None else state["stage"] :]:
            self.stage = stage
            self._begin(state)
            self.clock.begin_stage()
            self.state.max_epochs = min(self.running.first_epoch + stage.max_epochs, self.max_epochs)
            if self._is_stage_over():
                logger.info("stage '%s' is complete", stage.name)
            else:
                logger.info("stage '%s': epoch %d of at most %d", stage.name, self._stage_epoch + 1, stage.max_epochs)
                self._train()
            state = None
            if self.state.epoch >= self.max_epochs and stage is not self.stages[-1]:
                logger.warning("max_epochs=%d ends the training in stage '%s'", self.max_epochs, stage.name)
                return
        self.is_complete = True
        self.state.max_epochs = self.state.epoch  # lower than planned if patience or the schedule ended the training
        if idist.get_rank() == 0:
            self.folder.complete(self.stages[-1])
        logger.info("training is complete after %d epochs; weights are in %s", self.state.epoch, self.folder.path)

    def _train(self) -> None:
        try:
            super().run()
        finally:
            self.running.thaw()
            self.handlers.remove_loaders(self)

    @property
    def _stage_epoch(self) -> int:
        return self.state.epoch - self.running.first_epoch

    def _begin(self, state: dict[str, Any] | None) -> None:
        stage = self.stage
        self.running = RunningStage(stage, self.loss_function, self.state.device, self.state.epoch, self.folder, state)
        self.network = self.running.network
        self.optimizer, self.lr_scheduler = self.running.optimizer, self.running.lr_scheduler
        self.evaluator.network = stage.network
        self.evaluator.prepare_batch = ImageAndLabel(stage.channels)
        self.prepare_batch = self.evaluator.prepare_batch if stage.prepare_batch is None else self._prepare_batch
        best = (-1, -1)
        if state is not None:
            self.state.epoch = state["epoch"]
            self.state.iteration = state["epoch"] * self.state.epoch_length
            best = (state["best_metric"], state["best_metric_epoch"])
        self.evaluator.state.best_metric, self.evaluator.state.best_metric_epoch = best

    def _prepare_batch(self, *args: Any, **kwargs: Any) -> tuple:
        assert self.stage.prepare_batch is not None
        update = (self.state.iteration - 1) % self.state.epoch_length + 1
        return self.stage.prepare_batch(*args, epoch=self._stage_epoch, update=update, **kwargs)

    def _begin_epoch(self) -> None:
        self.clock.begin_epoch()
        self.running.begin_epoch(self._stage_epoch)
        self.network = self.running.network

    def _set_seed(self) -> None:
        # in the first update, since loading the data of an epoch may draw a number before it, or not
        if (self.state.iteration - 1) % self.state.epoch_length == 0:
            sequence = np.random.SeedSequence([self.seed, self.state.epoch, idist.get_rank()])
            torch.manual_seed(int(sequence.generate_state(1)[0]))

    def _complete_epoch(self) -> None:
        epoch, stage = self.state.epoch, self.stage
        self.clock.end_updates()
        broadcast(stage.network.buffers())  # DDP lets them drift apart until its next forward
        train_loss = self.state.metrics["train_loss"]
        if not math.isfinite(train_loss) or self.running.learns_nothing():
            sign = "every gradient is 0" if math.isfinite(train_loss) else f"its loss is {train_loss}"
            kept = f" ({self.folder.path} holds the epoch before)" if epoch > 1 else ""
            raise InputError(
                f"stage '{stage.name}', epoch {epoch}: the training diverged, {sign}; train again "
                f"into another --ckpt_dir with a smaller --learning_rate{kept}"
            )
        rates = self.running.rates
        self.running.end_epoch(train_loss, may_end=not self.is_complete)
        is_validated = self.validates and (self._stage_epoch % self.val_interval == 0 or self._is_stage_over())
        validation = self._validate() if is_validated else "not validated"
        if idist.get_rank() == 0:
            self._save()
        idist.barrier()  # the next stage may read these files on every rank
        seconds = self.clock.end_epoch(is_validated)
        self._set_metrics(rates, seconds, is_validated)
        logger.info(
            "stage '%s', epoch %d: training loss %.4f, %s, learning rate %s, %s%s",
            *(stage.name, epoch, train_loss, validation, ", ".join(f"{rate:.3g}" for rate in dict.fromkeys(rates))),
            *(duration(seconds), self._time_left()),
        )
        if self._is_stage_over():
            self.terminate()

    def _set_metrics(self, rates: Sequence[float], seconds: float, is_validated: bool) -> None:
        metrics, found = self.state.metrics, self.evaluator.state.metrics
        metrics["epoch_time"] = seconds
        metrics |= {f"learning_rate_{index}" if index else "learning_rate": rate for index, rate in enumerate(rates)}
        for name in found:  # of this validation, not of an earlier one
            metrics.pop(name, None)
        metrics |= found if is_validated else {}

    def _time_left(self) -> str:
        planned = self.state.epoch if self._is_stage_over() else self.state.max_epochs
        ahead = [(self.stage, self._stage_epoch, planned - self.running.first_epoch)]
        for stage in [] if self.is_complete else self.stages[self.stages.index(self.stage) + 1 :]:
            ahead.append((stage, 0, min(stage.max_epochs, self.max_epochs - planned)))
            planned += ahead[-1][2]
        patient = self.validates and any(stage.patience is not None for stage, first, last in ahead if last > first)
        may_end_early = not self.is_complete and (patient or hasattr(self.lr_scheduler, "is_finished"))
        spans = [(first, last) for _, first, last in ahead]
        return self.clock.time_left(spans, self.val_interval if self.validates else None, may_end_early)

    def _validate(self) -> str:
        """Validate and return what the log says."""
        epoch, found = self.state.epoch, self.evaluator.state
        self.evaluator.run(epoch)
        metric = found.metrics[found.key_metric_name]
        if not math.isfinite(metric):
            raise InputError(
                f"stage '{self.stage.name}', epoch {epoch}: the validation score {found.key_metric_name} is {metric}: "
                "no validation case has what it measures; check their labels, or switch validation off with "
                "--validation_share 0"
            )
        best = f"best {found.best_metric:.4f} in epoch {found.best_metric_epoch}"
        others = {name: value for name, value in found.metrics.items() if name != found.key_metric_name}
        scores = [f", {name} {value:.4f}" for name, value in others.items() if isinstance(value, (int, float))]
        return f"{found.key_metric_name} {metric:.4f} ({best}){''.join(scores)}"

    def _save(self) -> None:
        stage, epoch, found = self.stage, self.state.epoch, self.evaluator.state
        keeps_weights = not self.validates or found.best_metric_epoch == epoch
        if keeps_weights:
            self.running.weights_epoch = epoch
        # the state comes first: if a run ends between the two files, the resumed run writes the weights again
        self.folder.save_state(
            {
                "stages": [s.name for s in self.stages],
                "stage": self.stages.index(stage),
                "epoch": epoch,
                "best_metric": float(found.best_metric),
                "best_metric_epoch": found.best_metric_epoch,
                **self.running.state(),
            }
        )
        if keeps_weights:
            self.folder.save_weights(stage)

    def _is_stage_over(self) -> bool:
        if self.is_complete:  # and continues, until state.max_epochs
            return self.state.epoch >= self.state.max_epochs
        best_epoch = self.evaluator.state.best_metric_epoch
        waited = self.state.epoch - best_epoch if best_epoch != -1 else 0
        has_no_patience = self.stage.patience is not None and waited >= self.stage.patience
        return self.state.epoch >= self.state.max_epochs or has_no_patience or self.running.is_ended_by_schedule


def _loss_of(output: dict[str, Any] | list[dict[str, Any]]) -> Any:
    return (output[0] if isinstance(output, list) else output)["loss"]
