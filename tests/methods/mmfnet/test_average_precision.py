from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler, MetricsSaver
from monai.metrics import compute_average_precision
from torch import Tensor

from common.methods.mmfnet import AveragePrecisionMetric, average_precision


def naive_average_precision(scores: Tensor, target: Tensor) -> float:
    """Compute the step rule, one threshold after the other over every voxel."""
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores.flatten().tolist()), reverse=True):
        selected = scores >= threshold
        found = (target[selected] == 1).sum().item()
        precision, previous = found / selected.sum().item(), recall
        recall = found / (target == 1).sum().item()
        area += (recall - previous) * precision
    return area


@pytest.mark.parametrize("levels", [7, 1000, 10**6], ids=["many ties", "some ties", "no ties"])
@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_equals_monai(levels: int, zeros: float) -> None:
    scores = torch.randint(1, levels, (2000,)) / levels
    scores[torch.rand(2000) < zeros] = 0
    target = (torch.rand(2000) < 0.1 + 0.3 * scores).int()

    expected = compute_average_precision(scores, target)
    assert average_precision(scores, target).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "target", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 0], 1.0),
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], 1 / 2 + 2 / 3 / 2),
        ([0.9, 0.8, 0.7, 0.6], [0, 0, 1, 1], 1 / 3 / 2 + 2 / 4 / 2),
        ([0.9, 0.5, 0.5, 0.5], [1, 1, 0, 0], 1 / 2 + 2 / 4 / 2),  # a tie is one threshold, its order does not matter
        ([0.9, 0.5, 0.5, 0.5], [1, 0, 0, 1], 1 / 2 + 2 / 4 / 2),
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0], 1 / 4),
        ([0.9, 0.0, 0.0, 0.0, 0.0], [1, 1, 0, 0, 0], 1 / 2 + 2 / 5 / 2),
        ([0.0, 0.0, 0.0, 0.0], [1, 0, 1, 0], 2 / 4),
        ([1.0, 1.0, 1.0, 0.2], [1, 1, 1, 1], 1.0),
    ],
)
def test_hand_made_cases_give_their_value(scores: list[float], target: list[int], expected: float) -> None:
    assert average_precision(torch.tensor(scores), torch.tensor(target)).item() == pytest.approx(expected, abs=1e-12)


def test_a_prediction_pasted_into_zeros_gives_the_same_value() -> None:
    scores, target = torch.zeros(9, 8, 7), torch.zeros(9, 8, 7)
    scores[2:6, 1:5, :4] = (torch.rand(4, 4, 4) * 20).round() / 20
    target[4:9, 3:8, 2:6] = 1  # partly outside the region

    value = average_precision(scores, target).item()

    assert value == pytest.approx(naive_average_precision(scores, target), abs=1e-12)
    assert value == pytest.approx(compute_average_precision(scores.flatten(), target.flatten()), abs=1e-6)


def test_foreground_outside_the_region_lowers_the_value() -> None:
    scores, target = torch.zeros(100), torch.zeros(100)
    scores[:4], target[:4] = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([1, 1, 1, 0])
    inside = average_precision(scores, target).item()
    target[50:52] = 1

    assert inside == pytest.approx(1.0)
    assert average_precision(scores, target).item() == pytest.approx(3 / 5 + 2 / 5 * 5 / 100)


def test_better_scores_give_higher_values() -> None:
    target = (torch.rand(6, 6, 6) < 0.3).float()
    noise = torch.rand(6, 6, 6)
    perfect, good, bad, inverted = (
        average_precision(scores, target).item()
        for scores in (target, 0.4 * target + 0.6 * noise, 0.1 * target + 0.9 * noise, 1 - target)
    )

    assert perfect == 1.0
    assert perfect > good > bad > inverted


def test_the_value_is_a_float64_scalar_on_the_device() -> None:
    scores, target = torch.rand(4, 4).half(), torch.eye(4, dtype=torch.bool)
    value = average_precision(scores, target)

    assert (value.shape, value.dtype, value.device) == ((), torch.float64, scores.device)
    assert value.item() == pytest.approx(naive_average_precision(scores, target))


def test_without_foreground_the_value_is_nan() -> None:
    assert average_precision(torch.rand(3, 3), torch.zeros(3, 3)).isnan()
    assert average_precision(torch.zeros(3, 3), torch.zeros(3, 3)).isnan()


@pytest.mark.parametrize(
    ("scores", "target", "message"),
    [
        (torch.zeros(4), torch.zeros(2, 2), r"scores have the shape \[4\], but the target has \[2, 2\]"),
        (torch.zeros(2), torch.tensor([0, 2]), "value 2: expected 0 and 1"),
        (torch.zeros(2), torch.tensor([0.0, 0.5]), r"value 0\.5: expected 0 and 1"),
        (torch.tensor([-3.0, 0.5]), torch.ones(2), "lowest score -3: expected probabilities"),
        (torch.tensor([0.0, torch.nan]), torch.ones(2), "lowest score nan: expected probabilities"),
    ],
)
def test_other_shapes_and_values_are_refused(scores: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        average_precision(scores, target)


# Values 1, NaN and 1/3: perfect, without foreground, found last of three.
BATCH = torch.tensor([[0.9, 0.1, 0.2], [0.3, 0.2, 0.1], [0.3, 0.2, 0.1]]).view(3, 1, 3, 1, 1)
TARGET = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).view(3, 1, 3, 1, 1)
VALUES = torch.tensor([[1.0], [torch.nan], [1 / 3]], dtype=torch.float64)


@pytest.mark.parametrize("decollated", [False, True])
def test_the_metric_is_the_mean_over_cases_with_foreground(decollated: bool) -> None:
    metric = AveragePrecisionMetric()
    for cases in (slice(0, 2), slice(2, 3)):
        y_pred, y = BATCH[cases], TARGET[cases]
        if decollated:
            metric([MetaTensor(p) for p in y_pred], [MetaTensor(t) for t in y])
        else:
            metric(y_pred, y)

    torch.testing.assert_close(metric.get_buffer(), VALUES, equal_nan=True)
    assert metric.aggregate().item() == pytest.approx(2 / 3)
    assert metric.get_buffer().isnan().any()  # aggregation leaves the details as they are

    metric.reset()
    with pytest.raises(ValueError, match="no case was added"):
        metric.aggregate()


def test_the_mean_without_foreground_in_any_case_is_nan() -> None:
    metric = AveragePrecisionMetric()
    metric(BATCH, torch.zeros_like(TARGET))
    assert metric.aggregate().isnan()


def test_decollated_cases_may_differ_in_size() -> None:
    metric = AveragePrecisionMetric()
    metric([torch.ones(1, 2, 2), torch.ones(1, 4)], [torch.ones(1, 2, 2), torch.tensor([[1, 0, 0, 0]])])

    assert metric.get_buffer().tolist() == [[1.0], [0.25]]


def test_the_value_of_several_labels_is_their_mean() -> None:
    scores, label = torch.rand(1, 3, 6, 6, 6), torch.randint(0, 3, (1, 1, 6, 6, 6))  # no voxel has the third
    metric = AveragePrecisionMetric()
    metric(scores, label)

    first, second = (average_precision(scores[0, i], label[0, 0] == 1 + i) for i in range(2))
    torch.testing.assert_close(metric.get_buffer(), ((first + second) / 2).view(1, 1))


@pytest.mark.parametrize("shapes", [((2, 2, 4), (2, 2, 4)), ((2, 1, 4), (1, 1, 4)), ((2, 1, 4), (2, 1, 5))])
def test_metric_refuses_other_shapes(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, labels, \.\.\.\) and \(B, 1, \.\.\.\)"):
        AveragePrecisionMetric()(torch.ones(shapes[0]), torch.ones(shapes[1]))


# MONAI takes the mean over the channels of each case in its report, also of a case that is NaN.
@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
def test_handler_records_the_mean_and_every_case(tmp_path: Path) -> None:
    def step(engine: Engine, batch: list[dict]) -> list[dict]:
        return batch

    def pred_and_label(output: list[dict]) -> tuple[list[Tensor], list[Tensor]]:
        return [case["pred"] for case in output], [case["label"] for case in output]

    cases = [{"pred": BATCH[i], "label": TARGET[i], "filename_or_obj": f"case{i}.nii.gz"} for i in range(3)]
    engine = Engine(step)
    IgniteMetricHandler(metric_fn=AveragePrecisionMetric(), output_transform=pred_and_label).attach(engine, "val_ap")
    MetricsSaver(save_dir=str(tmp_path), metric_details="*").attach(engine)
    for _ in range(2):  # the second run must start afresh
        engine.run([cases[:2], cases[2:]])

    assert engine.state.metrics["val_ap"] == pytest.approx(2 / 3)
    torch.testing.assert_close(engine.state.metric_details["val_ap"], VALUES, equal_nan=True)
    with open(tmp_path / "val_ap_raw.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["filename"] for row in rows] == ["case0.nii.gz", "case1.nii.gz", "case2.nii.gz"]
    assert [float(row["mean"]) for row in rows] == pytest.approx([1, torch.nan, 1 / 3], abs=1e-4, nan_ok=True)
