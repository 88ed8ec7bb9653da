"""Train OM-Net: optimiser, resuming, cascade, several processes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from monai.data import DataLoader
from monai.transforms import Compose, MapTransform
from torch import nn
from torch.optim.lr_scheduler import StepLR

from common.data import CaseSampler
from common.engines import StagedTrainer
from common.engines.training_folder import STATE_FILE
from common.methods.omnet import Cascade, FindPatchCentresd, MultiTaskCrossEntropy, StreamsDataset, one_pass

from ...trainers import assert_same, in_two_processes, run_until
from .batches import SGD, TASKS, narrow


def kind(network: nn.Module, parameter: nn.Parameter) -> str:
    for module in network.modules():
        for name, own in module.named_parameters(recurse=False):
            if own is parameter:
                return f"{type(module).__name__}.{name}"
    raise AssertionError


@pytest.mark.parametrize("network", [narrow("cga"), narrow("se"), narrow(None), Cascade(channels=(8, 6))])
def test_rates_and_decays_of_the_parameters(network: nn.Module) -> None:
    (stage,) = one_pass(network, SGD)
    optimizer, _ = stage.start_optimizer()
    assert isinstance(optimizer, torch.optim.SGD)
    settings: dict[str, set] = {}
    for group in optimizer.param_groups:
        assert group["momentum"] == 0.99 and not group["nesterov"] and group["dampening"] == 0
        for parameter in group["params"]:
            setting = (group["lr"] / 1e-3, group["weight_decay"])
            settings.setdefault(kind(network, parameter), set()).add(setting)
    for name, found in settings.items():
        scale, decay = (2.0 if name.endswith("bias") else 1.0), 5e-4
        if name.endswith("bias") and not name.startswith("BatchNorm3d"):
            decay = 0.0
        assert found == {(scale, decay)}, name
    assert {"Conv3d.weight", "ConvTranspose3d.bias", "BatchNorm3d.weight", "BatchNorm3d.bias"} <= settings.keys()
    optimized = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(map(id, optimized)) == sorted(map(id, network.parameters()))


class Phantomd(MapTransform):
    def __call__(self, data: dict) -> dict:
        rng = torch.Generator().manual_seed(data["number"])
        label = torch.zeros(1, 16, 16, 12, dtype=torch.uint8)
        label[:, 1:15, 1:15, 1:11] = 4
        label[:, 3:13, 3:13, 3:9] = 2
        label[:, 4:12, 4:12, 4:8] = torch.randint(1, 4, (1, 8, 8, 4), generator=rng, dtype=torch.uint8)
        noise = torch.randn(4, 16, 16, 12, generator=rng)
        return {"image": (noise + label.float()).half(), "label": label}


def loader(batch_size: int = 2) -> DataLoader:
    transform = Compose([Phantomd("image"), FindPatchCentresd("label", dilation=1)])
    dataset = StreamsDataset([{"number": i} for i in range(3)], transform, (8, 8, 4))
    return DataLoader(dataset, batch_size=batch_size, sampler=CaseSampler(3, 6))


HALVING = functools.partial(StepLR, step_size=2, gamma=0.5)
BUILD = {
    "cga": lambda: narrow("cga", dense=True),
    "plain": lambda: narrow(None, dense=True),
    "cascade": lambda: Cascade(channels=(8, 6), bn_momentum=0.1, dense=True),
}
each_network = pytest.mark.parametrize(
    "name", ["plain", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cga", "cascade"))]
)


def trained(make: Callable, folder: Path, name: str, interrupt: int | None = None, **options: Any) -> StagedTrainer:
    """Train for three updates an epoch, or until this update."""
    torch.manual_seed(0)
    network = BUILD[name]()
    curriculum = {"epochs": (1, 2, 1), "lr_scheduler": HALVING, **options.pop("curriculum", {})}
    engine = make(
        one_pass(network, functools.partial(SGD, lr=0.01), **curriculum),
        options.pop("batches", None) or loader(),
        torch.randn(1, 4, 8, 8, 8),
        loss_function=MultiTaskCrossEntropy(),
        ckpt_dir=folder,
        **options,
    )
    run_until(engine, interrupt)
    return engine


@each_network
@pytest.mark.parametrize(
    "interrupt", [7, pytest.param(9, marks=pytest.mark.slow)]
)  # in epoch 3, the second of the second step
def test_a_curriculum_goes_on_as_if_uninterrupted(trainer: Callable, tmp_path: Path, name: str, interrupt: int) -> None:
    trained(trainer, tmp_path / "whole", name)
    trained(trainer, tmp_path / "parts", name, interrupt)
    torch.rand(3)
    trained(trainer, tmp_path / "parts", name, resume=True)
    for file in (STATE_FILE, "model.pt"):
        whole, parts = (torch.load(tmp_path / folder / file, weights_only=True) for folder in ("whole", "parts"))
        assert_same(parts, whole)


@each_network
def test_a_task_that_has_not_joined_stays_unchanged(trainer: Callable, tmp_path: Path, name: str) -> None:
    """Weight decay would shrink its weights."""
    torch.manual_seed(0)
    before = BUILD[name]().state_dict()
    for epochs, tasks in (((1, 0, 0), 1), ((0, 1, 0), 2), ((0, 0, 1), 3)):
        engine = trained(trainer, tmp_path / str(tasks), name, curriculum={"epochs": epochs})
        parameters = dict(engine.evaluator.network.named_parameters())
        changed = {key for key, p in parameters.items() if not torch.equal(p, before[key])}
        own = {key for key in parameters if not any(f".{task}." in key for task in TASKS[tasks:])}
        idle = {key for key in own if key.endswith("conv.bias")}  # normalisation takes away what these add
        assert own - idle <= changed <= own


@pytest.mark.slow
def test_a_cascade_trains_as_three_networks(trainer: Callable, tmp_path: Path) -> None:
    """There is no dropout, since its draws depend on earlier draws."""
    BUILD["no dropout"] = lambda: Cascade(channels=(8, 6), dropout=0.0, bn_momentum=0.1, dense=True)
    options = {"curriculum": {"epochs": (0, 0, 2), "transfer": False, "enhancing_every": 2}}
    engine = trained(trainer, tmp_path / "cascade", "no dropout", **options)
    torch.manual_seed(0)
    cascade = BUILD.pop("no dropout")()
    for number, (task, net) in enumerate(cascade.nets.items()):
        (stage,) = one_pass(net, functools.partial(SGD, lr=0.01), (0, 0, 2), lr_scheduler=HALVING)
        (optimizer, scheduler), data = stage.start_optimizer(), loader()
        for epoch in (1, 2):
            data.sampler.set_epoch(epoch)
            for update, batch in enumerate(data, start=1):
                if number == 2 and update == 2:  # of three
                    continue
                label = batch["label"][:, number, 0].long()
                optimizer.zero_grad()
                outputs = net(batch["image"][:, number].float())
                F.cross_entropy(outputs, (label == 3).long() if number == 2 else label).backward()
                optimizer.step()
            scheduler.step()
        other = engine.evaluator.network.nets[task].state_dict()
        torch.testing.assert_close(dict(net.state_dict()), dict(other), rtol=1e-4, atol=1e-5)


def _process(rank: int, make: Callable, folder: Path, name: str) -> None:
    curriculum = {"epochs": (1, 1, 1), "enhancing_every": 2}
    engine = trained(make, folder, name, curriculum=curriculum, batches=loader(batch_size=1))
    assert engine.state.epoch == 3
    torch.save(engine.evaluator.network.state_dict(), folder / f"rank{rank}.pt")


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("name", BUILD)
def test_two_processes_train_a_curriculum(trainer: Callable, tmp_path: Path, name: str) -> None:
    in_two_processes(_process, trainer, tmp_path, name)
    one, two = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_same(dict(one), dict(two))
