"""Check which samples of a batch train which task: curriculum, transfer, classes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.errors import InputError
from common.methods.omnet import MultiTaskCrossEntropy, one_pass

from .batches import CPU, SGD, TASKS, chosen, collated, healthy, narrow, patch, prepared


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


@pytest.mark.parametrize(
    "voxels", [(5, 3, 1), (10, 1, 1), *(pytest.param(v, marks=pytest.mark.slow) for v in [(5, 5, 2), (7, 6, 1)])]
)
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
