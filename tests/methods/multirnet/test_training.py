"""Test iterative learning."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from common.engines import supervised
from common.engines.training_folder import STATE_FILE
from common.layers import TwoForms
from common.methods.multirnet import iterative_update

from ...trainers import assert_same, in_two_processes, run_until


class Recurrent(TwoForms):
    """Add the probability of the previous pass to the input."""

    def __init__(self, iterations: int, dropout: float = 0.0, dense: bool = True) -> None:
        super().__init__(dense)
        self.iterations = iterations
        self.body = nn.Sequential(nn.Conv3d(1, 4, 1), nn.PReLU(), nn.Dropout(dropout), nn.Conv3d(4, 1, 1))
        self.inputs: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, x: Tensor, previous: Tensor | None = None) -> Any:
        if self.dense:
            return self.body(x).sigmoid()
        self.inputs.append((x, previous))
        return {"seg": self.body(x if previous is None else x + previous)}


class Weighed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.tensor(0.0))

    def forward(self, outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
        error = (outputs["seg"].float().sigmoid() - targets["seg"]).square().mean()
        return 0.5 * (-self.log_variance).exp() * error + 0.5 * self.log_variance


VOLUMES = torch.linspace(-1, 1, 6 * 8).reshape(6, 1, 2, 2, 2)
IMAGES = [{"image": image, "label": (image.flip(3) > 0).to(torch.uint8)} for image in VOLUMES]


def batches(batch_size: int = 2) -> DataLoader:
    return DataLoader(IMAGES, batch_size=batch_size)


def iterated(
    make: Callable,
    folder: Path,
    iterations: int,
    interrupt: int | None = None,
    dropout: float = 0.0,
    update: Callable | None = iterative_update,
    data: Any = None,
    **options: Any,
) -> Any:
    torch.manual_seed(0)
    stages = supervised(Recurrent(iterations, dropout), functools.partial(torch.optim.Adam, lr=0.05), 3)
    engine = make(
        stages,
        data or batches(),
        VOLUMES,
        **{"loss_function": Weighed(), "ckpt_dir": folder, "iteration_update": update, **options},
    )
    run_until(engine, interrupt)
    return engine


def passes(network: nn.Module, loss: nn.Module, optimizer: Any, batch: dict[str, Tensor], iterations: int) -> list:
    """Update on one batch as in Algorithm 1; return the loss of each pass."""
    x, y, losses = batch["image"], batch["label"].float(), []
    found = torch.zeros_like(x)
    for _ in range(iterations + 1):
        z = network.body(x + found)
        value = loss({"seg": z}, {"seg": y})
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        found = torch.sigmoid(z).detach()
        losses.append(value.item())
    return losses


@pytest.mark.parametrize("iterations", [0, 1, 2])
def test_a_batch_is_learned_in_several_passes(trainer: Callable, tmp_path: Path, iterations: int) -> None:
    torch.manual_seed(0)
    network, loss = Recurrent(iterations), Weighed()
    optimizer = torch.optim.Adam([*network.parameters(), *loss.parameters()], lr=0.05)
    means = []
    for _ in range(3):
        lasts = [passes(network, loss, optimizer, batch, iterations)[-1] for batch in batches()]
        means.append(sum(lasts) / 3)
    engine = iterated(trainer, tmp_path, iterations)
    torch.testing.assert_close(dict(engine.stage.network.state_dict()), dict(network.state_dict()))
    torch.testing.assert_close(engine.loss_function.log_variance, loss.log_variance)
    assert engine.state.metrics["train_loss"] == pytest.approx(means[-1], rel=1e-5)
    steps = {float(state["step"]) for state in engine.optimizer.state.values()}
    assert steps == {3 * 3 * (iterations + 1)}


def test_no_iteration_is_the_plain_update(trainer: Callable, tmp_path: Path) -> None:
    iterated(trainer, tmp_path / "iterative", 0, dropout=0.5)
    iterated(trainer, tmp_path / "plain", 0, dropout=0.5, update=None)
    one, two = (torch.load(tmp_path / name / STATE_FILE, weights_only=True) for name in ("iterative", "plain"))
    assert_same(one, two)


def test_each_pass_gets_the_probability_of_the_one_before(trainer: Callable, tmp_path: Path) -> None:
    seen, outputs = [], []
    torch.manual_seed(0)
    network = Recurrent(2)

    def watch(module: nn.Module, _: Any, logits: Tensor) -> None:
        if module.training:
            seen.append(logits)

    network.body.register_forward_hook(watch)
    engine = trainer(
        supervised(network, functools.partial(torch.optim.Adam, lr=0.1), 1),
        [batches().collate_fn(IMAGES[:2])],
        VOLUMES,
        loss_function=Weighed(),
        iteration_update=iterative_update,
    )
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: outputs.append(engine.state.output))
    engine.run()
    (first, none), *later = network.inputs
    assert none is None and len(later) == 2 == len(seen) - 1
    for (x, previous), logits in zip(later, seen):
        assert x is first and previous is not None and not previous.requires_grad
        assert torch.equal(previous, torch.sigmoid(logits))
    (samples,) = outputs
    for index, sample in enumerate(samples):
        assert torch.equal(sample["image"], first[index]) and torch.equal(sample["pred"]["seg"], seen[-1][index])
        assert torch.equal(sample["label"]["seg"], IMAGES[index]["label"].float())


def test_every_pass_fires_its_events(trainer: Callable, tmp_path: Path) -> None:
    fired: list[str] = []

    class Watch:
        def attach(self, engine: Any) -> None:
            for event in IterationEvents:
                engine.add_event_handler(event, lambda _, name=event.value: fired.append(name))

    iterated(trainer, tmp_path, 1, train_handlers=[Watch()], data=[batches().collate_fn(IMAGES)], max_epochs=1)
    one = ["forward_completed", "loss_completed", "backward_completed"]
    assert fired == [*one, *one, "model_completed"]


@pytest.mark.parametrize("interrupt", [2, 4, 6, 8])
def test_iterative_learning_resumes_exactly(trainer: Callable, tmp_path: Path, interrupt: int) -> None:
    iterated(trainer, tmp_path / "whole", 2, dropout=0.5)
    iterated(trainer, tmp_path / "parts", 2, interrupt, dropout=0.5)
    torch.rand(5)
    iterated(trainer, tmp_path / "parts", 2, dropout=0.5, resume=True)
    for file in (STATE_FILE, "model.pt"):
        whole, parts = (torch.load(tmp_path / folder / file, weights_only=True) for folder in ("whole", "parts"))
        assert_same(parts, whole)


# Mixed precision.


def test_gradients_are_unscaled_before_each_step(trainer: Callable, tmp_path: Path) -> None:
    """The scaler is one for the CPU, and its scale, a power of 2, changes no gradient bits."""
    torch.manual_seed(0)
    network = Recurrent(1, dense=False).eval()
    loss, plain = Weighed(), copy.deepcopy(network)
    optimizer = torch.optim.SGD([*network.parameters(), *loss.parameters()], lr=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=1)
    engine = SimpleNamespace(
        state=SimpleNamespace(device=torch.device("cpu"), output=None),
        **{"prepare_batch": _prepared, "non_blocking": False, "to_kwargs": {}, "amp_kwargs": {}},
        **{"network": network, "inferer": lambda x, net, *args: net(x, *args), "loss_function": loss},
        **{"optimizer": optimizer, "optim_set_to_none": True, "scaler": scaler, "fire_event": lambda event: None},
    )
    batch = next(iter(batches()))
    reference = Weighed()
    step = torch.optim.SGD([*plain.parameters(), *reference.parameters()], lr=0.5)
    with pytest.warns(UserWarning, match="CUDA is not available"):
        output = iterative_update(engine, batch)  # type: ignore[arg-type]
    losses = passes(plain, reference, step, batch, 1)
    assert output["loss"].item() == pytest.approx(losses[-1])
    torch.testing.assert_close(dict(network.state_dict()), dict(plain.state_dict()))
    assert scaler.get_scale() == 2.0**12  # grown after each of two steps
    assert network.training


def _prepared(batch: dict, device: torch.device, non_blocking: bool) -> tuple:
    return batch["image"], {"seg": batch["label"].float()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore:.*torch.cuda.amp.GradScaler:FutureWarning")
def test_mixed_precision_learns_nearly_the_same(trainer: Callable, tmp_path: Path) -> None:
    whole = iterated(trainer, tmp_path / "float", 2)
    half = iterated(trainer, tmp_path / "half", 2, device=torch.device("cuda"), amp=True)
    assert half.network.inputs[0][0].is_cuda and half.network.inputs[1][1].dtype == torch.float32
    for name, value in whole.stage.network.state_dict().items():
        torch.testing.assert_close(half.stage.network.state_dict()[name].cpu(), value, rtol=0.05, atol=0.05)


# Several processes.


def _process(rank: int, make: Callable, folder: Path) -> None:
    collate = batches().collate_fn
    shares = [collate([IMAGES[2 * i + rank]]) for i in range(3)]
    engine = iterated(make, folder, 2, data=shares)
    content = {**engine.stage.network.state_dict(), **engine.loss_function.state_dict()}
    torch.save(content, folder / f"rank{rank}.pt")


@pytest.mark.ddp
def test_two_processes_train_the_weights_of_one(trainer: Callable, tmp_path: Path) -> None:
    in_two_processes(_process, trainer, tmp_path)
    one, two = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_same(one, two)
    whole = iterated(trainer, tmp_path / "whole", 2)
    torch.testing.assert_close(one, {**whole.stage.network.state_dict(), **whole.loss_function.state_dict()})
