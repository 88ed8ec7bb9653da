"""The training of OM-Net: curriculum, transfer, optimiser, resuming."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from monai.data import DataLoader
from monai.transforms import Compose, MapTransform
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR

from common.data import CaseSampler
from common.engines import StagedTrainer
from common.engines.training_folder import STATE_FILE
from common.errors import InputError
from common.methods.omnet import Cascade, FindPatchCentresd, MultiTaskCrossEntropy, OMNet, StreamsDataset, one_pass

from ...trainers import assert_same, in_two_processes, run_until

TASKS = ("coarse", "tumour", "enhancing")
CPU = torch.device("cpu")
PATCH = (32, 32, 16)  # 16384 voxels, as in the paper
SGD = functools.partial(torch.optim.SGD, lr=1e-3, momentum=0.99, weight_decay=5e-4)


def narrow(attention: str | None = "cga", **options: Any) -> OMNet:
    return OMNet(attention=attention, **{"channels": (8, 6), "bn_momentum": 0.1, **options})


def collated(labels: list[list[Tensor]]) -> dict[str, Tensor]:
    """Make a batch from label patches, one of each stream in a sample; the first image voxel is 10 sample + stream."""
    label = torch.stack([torch.stack(sample) for sample in labels])[:, :, None]
    image = torch.zeros(*label.shape[:2], 4, *label.shape[3:], dtype=torch.float16)
    for sample, stream in itertools.product(range(len(label)), range(3)):
        image[sample, stream, 0, 0, 0, 0] = 10 * sample + stream
    return {"image": image, "label": label}


def patch(size: tuple[int, ...] = PATCH, **voxels: int) -> Tensor:
    """Make a patch of class 4 with some voxels of classes 1, 2 and 3, ``c1``, ``c2``, ``c3``, at random places."""
    flat = torch.full((torch.Size(size).numel(),), 4, dtype=torch.uint8)
    order, first = torch.randperm(len(flat)), 0
    for name, number in voxels.items():
        flat[order[first : first + number]] = int(name[1])
        first += number
    return flat.view(size)


def prepared(batch: dict[str, Tensor], epoch: int = 3, **options: Any) -> tuple[Tensor, dict, list[Tensor]]:
    (stage,) = one_pass(narrow(), SGD, **options)
    image, targets, args, kwargs = stage.prepare_batch(batch, CPU, False, epoch=epoch)
    assert args == () and kwargs.keys() == {"patches"}
    return image, targets, kwargs["patches"]


def chosen(batch: dict[str, Tensor], **options: Any) -> list[list[int]]:
    return [patches.tolist() for patches in prepared(batch, **options)[2]]


# The curriculum.


def healthy(samples: int = 2) -> dict[str, Tensor]:
    return collated([[patch((4, 4, 2)) for _ in range(3)] for _ in range(samples)])


def test_the_batch_is_stream_after_stream() -> None:
    image, targets, patches = prepared(healthy(3))
    assert image[:, 0, 0, 0, 0].tolist() == [0, 10, 20, 1, 11, 21, 2, 12, 22]
    assert image.shape == (9, 4, 4, 4, 2) and image.dtype == torch.float32
    assert image.is_contiguous(memory_format=torch.channels_last_3d)
    assert [p.tolist() for p in patches] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert {task: tuple(t.shape) for task, t in targets.items()} == dict.fromkeys(TASKS, (3, 4, 4, 2))


@pytest.mark.parametrize(
    ("epochs", "tasks"),
    [
        ((1, 1, 18), [1, 2, 3, 3]),
        ((2, 1, 1), [1, 1, 2, 3]),
        ((0, 0, 20), [3, 3, 3, 3]),
        ((0, 3, 1), [2, 2, 2, 3]),
        ((4, 0, 0), [1, 1, 1, 1]),
    ],
)
def test_tasks_join_by_the_epoch(epochs: tuple[int, ...], tasks: list[int]) -> None:
    (stage,) = one_pass(narrow(), SGD, epochs)
    assert stage.max_epochs == sum(epochs)
    for epoch, count in enumerate(tasks, start=1):
        image, targets, patches = prepared(healthy(), epoch, epochs=epochs)
        assert image[:, 0, 0, 0, 0].tolist() == [0, 10, 1, 11, 2, 12][: 2 * count]
        assert [p.tolist() for p in patches] == [[0, 1], [2, 3], [4, 5]][:count] + (3 - count) * [[]]
        assert [len(t) for t in targets.values()] == count * [2] + (3 - count) * [0]
    assert stage.find_unused_parameters == (count > tasks[0] or count < 3)


@pytest.mark.parametrize("epochs", [(1, 1), (0, 0, 0), (-1, 1, 3)])
def test_other_than_three_numbers_of_epochs_is_refused(epochs: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"epochs \[.*\]: expected three numbers"):
        one_pass(narrow(), SGD, epochs)


def test_every_second_update_trains_the_third_task() -> None:
    """An update without the third task leaves out its patches and those that would be transferred to it."""
    core = patch(c1=10_000)
    (stage,) = one_pass(narrow(), SGD, enhancing_every=2)
    found = []
    for update in range(1, 6):
        image, targets, _, kwargs = stage.prepare_batch(
            collated([[core, core, core]]), CPU, False, epoch=3, update=update
        )
        found.append((len(image), [p.tolist() for p in kwargs["patches"]], [len(t) for t in targets.values()]))
    with_third, without = (3, [[0], [0, 1], [0, 1, 2]], [1, 2, 3]), (2, [[0], [0, 1], []], [1, 2, 0])
    assert found == [with_third, without, with_third, without, with_third]
    assert stage.find_unused_parameters
    assert [stage.prepare_batch.tasks_in(epoch, update) for epoch in (1, 2) for update in (1, 2)] == [1, 1, 2, 2]


# Transfer.


def test_a_patch_with_tumour_is_transferred_from_6554_voxels_on() -> None:
    few, enough = patch(c1=1000, c2=4000, c3=1553), patch(c1=1000, c2=4000, c3=1554)
    batch = collated([[few, patch(), patch()], [enough, patch(), patch()]])
    assert chosen(batch) == [[0, 1], [1, 2, 3], [4, 5]]
    assert chosen(batch, epoch=2) == [[0, 1], [1, 2, 3], []]
    assert chosen(batch, epoch=1) == [[0, 1], [], []]
    assert chosen(batch, transfer=False) == [[0, 1], [2, 3], [4, 5]]


def test_a_patch_with_core_is_transferred_from_8192_voxels_on() -> None:
    few, enough = patch(c1=4000, c2=8192, c3=4191), patch(c1=4000, c2=3, c3=4192)
    batch = collated([[enough, few, patch()], [few, enough, patch()]])
    assert chosen(batch) == [[0, 1], [0, 1, 2, 3], [0, 3, 4, 5]]
    assert chosen(batch, epoch=2) == [[0, 1], [0, 1, 2, 3], []]
    assert chosen(batch, transfer=False) == [[0, 1], [2, 3], [4, 5]]


def test_nothing_is_transferred_to_an_easier_task() -> None:
    full = patch(c1=10_000, c2=6_000)
    assert chosen(collated([[patch(), full, full]])) == [[0], [1], [1, 2]]


@pytest.mark.parametrize("voxels", [(5, 3, 1), (10, 1, 1), (5, 5, 2), (7, 6, 1)])
def test_the_condition_is_a_share_of_the_patch(voxels: tuple[int, int, int]) -> None:
    number = torch.Size(voxels).numel()
    for count in range(number + 1):
        indices = chosen(collated([[patch(voxels, c3=count), patch(voxels), patch(voxels)]]))
        assert indices[1] == ([0, 1] if 10 * count >= 4 * number else [1])
        assert indices[2] == ([0, 2] if 2 * count >= number else [2])


def test_the_classes_of_each_task() -> None:
    every = torch.arange(5, dtype=torch.uint8).repeat(8).view(5, 4, 2)
    tumour = torch.where(every == 0, 1, every)
    _, targets, patches = prepared(collated([[every, tumour, tumour]]))
    assert [p.tolist() for p in patches] == [[0], [0, 1], [1, 2]]
    assert torch.equal(targets["coarse"], every[None])
    assert torch.equal(targets["tumour"], torch.stack([every, tumour]))
    recoded = torch.tensor([0, 0, 0, 1, 0], dtype=torch.uint8)
    assert torch.equal(targets["enhancing"], torch.stack(2 * [recoded[tumour.long()]]))


# The loss.


def mixed() -> dict[str, Tensor]:
    """Make four samples with patches that qualify for each task and patches that do not."""
    size = (8, 8, 8)
    core, tumour = patch(size, c1=200, c3=200), patch(size, c2=150, c3=150)
    batch = collated(
        [
            [core, tumour, patch(size, c3=30)],
            [tumour, core, patch(size, c1=9)],
            [patch(size), patch(size, c2=3), patch(size, c3=9)],
            [patch(size, c2=100), patch(size, c1=2, c3=9), core],
        ]
    )
    batch["image"].normal_()
    return batch


@pytest.mark.parametrize("attention", ["cga", "se", None])
def test_selected_patches_and_a_mask_give_the_same_loss(attention: str | None) -> None:
    network, batch = narrow(attention).eval(), mixed()
    image, targets, patches = prepared(batch)
    assert [p.tolist() for p in patches] == [[0, 1, 2, 3], [0, 1, 4, 5, 6, 7], [0, 5, 8, 9, 10, 11]]

    everything = network(image)
    label = torch.cat([batch["label"][:, stream, 0] for stream in range(3)]).long()
    share = {c: (label == c).flatten(1).float().mean(1) for c in (1, 2, 3)}
    group = torch.arange(12) // 4
    masks = {
        "coarse": group == 0,
        "tumour": (group == 1) | (group == 0) & (share[1] + share[2] + share[3] >= 0.4),
        "enhancing": (group == 2) | (share[1] + share[3] >= 0.5),
    }
    expected = torch.tensor(0.0)
    for task in TASKS:
        target = (label == 3).long() if task == "enhancing" else label
        values = F.cross_entropy(everything[task], target, reduction="none")
        mask = masks[task][:, None, None, None].expand_as(values)
        expected = expected + (values * mask).sum() / mask.sum()
    loss = MultiTaskCrossEntropy()(network(image, patches), targets)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


def test_without_transfer_each_stream_has_its_loss() -> None:
    network, batch = narrow().eval(), healthy()
    batch["image"].normal_()
    image, targets, patches = prepared(batch)
    outputs = [network(batch["image"][:, stream].float())[task] for stream, task in enumerate(TASKS)]
    labels = batch["label"][:, :, 0].long().unbind(1)
    expected = sum(
        F.cross_entropy(o, (t == 3).long() if i == 2 else t) for i, (o, t) in enumerate(zip(outputs, labels))
    )
    torch.testing.assert_close(MultiTaskCrossEntropy()(network(image, patches), targets), expected)


# The optimiser.


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


# Training.


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


@pytest.mark.parametrize("name", BUILD)
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


@pytest.mark.parametrize("name", BUILD)
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
