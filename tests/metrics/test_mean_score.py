from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from ignite.metrics import Average
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, CopyItemsd, Lambda
from torch import Tensor, nn

from common.errors import InputError
from common.metrics import MeanScore, SegmentationScores

PROBABILITIES = {"COVID-19": 0.7, "CAP": 0.2, "normal": 0.1}


def two_scores(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    assert prediction.shape == truth.shape == (1, 1, 2, 2, 2)
    return {"one": prediction.mean().item(), "two": truth.mean().item()}


def case(prediction: float = 0.0, truth: float = 0.0, **entries: Any) -> dict[str, Any]:
    return {
        "pred": torch.full((1, 2, 2, 2), float(prediction)),
        "label": torch.full((1, 2, 2, 2), float(truth)),
        **entries,
    }


def with_class(true: Any, prediction: float = 0.0, truth: float = 0.0) -> dict[str, Any]:
    return case(prediction, truth, true_class=true, result={"class": "COVID-19", "probabilities": PROBABILITIES})


def test_the_scores_of_all_cases_are_averaged() -> None:
    assert MeanScore(two_scores)([case(1, 3), case(5, 7)]) == 4.0


def test_other_keys_are_used() -> None:
    score = MeanScore(two_scores, pred_key="seg", label_key="truth")
    assert score([{"seg": torch.ones(1, 2, 2, 2), "truth": torch.zeros(1, 2, 2, 2)}]) == 0.5


@pytest.mark.parametrize(("true", "probability"), [("COVID-19", 0.7), ("CAP", 0.2), (2, 0.1), (torch.tensor(1), 0.2)])
def test_segmentation_and_class_probability_are_averaged(true: Any, probability: float) -> None:
    score = MeanScore(two_scores, class_key="true_class")
    assert score([with_class(true, 1, 3)]) == pytest.approx((2 + probability) / 2)


def test_each_case_counts_once() -> None:
    score = MeanScore(two_scores, class_key="true_class")
    cases = [with_class("CAP", 1, 3), case(5, 7), with_class(0, 9, 11)]
    assert score(cases) == pytest.approx((1.1 + 6 + 5.35) / 3)


def test_the_class_alone_is_scored() -> None:
    score = MeanScore(class_key="true_class")
    assert score([with_class("CAP"), with_class("normal")]) == pytest.approx(0.15)


def test_the_segmentation_alone_is_scored() -> None:
    assert MeanScore(two_scores)([with_class("CAP", 1, 3)]) == 2.0
    assert MeanScore(two_scores, class_key="true_class")([case(1, 3, true_class="CAP")]) == 2.0  # no result


def test_undefined_scores_are_left_out() -> None:
    """A case without a lesion has no Dice of lesions."""

    def half_defined(prediction: Tensor, truth: Tensor) -> dict[str, float]:
        return {"one": prediction.mean().item(), "two": truth.mean().item() or math.nan}

    assert MeanScore(half_defined)([case(1, 3), case(5, 0)]) == pytest.approx((2 + 5) / 2)
    undefined = MeanScore(lambda *_: {"one": math.nan, "two": math.nan}, class_key="true_class")
    assert undefined([with_class("COVID-19")]) == 0.7
    assert math.isnan(undefined([case()]))  # no class either


@pytest.mark.parametrize("true", ["influenza", 3, -1, None])
def test_an_unknown_class_is_refused(true: Any) -> None:
    message = "entry 'true_class': expected a name out of COVID-19, CAP, normal or an index from 0 to 2"
    with pytest.raises(InputError, match=message):
        MeanScore(two_scores, class_key="true_class")([with_class(true)])


def test_a_result_without_the_true_class_is_refused() -> None:
    with pytest.raises(InputError, match=r"entry 'class'.*the case has pred, label, true_class, result"):
        MeanScore(two_scores, class_key="class")([with_class("CAP")])


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(InputError, match="neither scores nor class_key"):
        MeanScore()


def test_an_evaluator_averages_the_score_over_cases() -> None:
    """Half of the second case is correct; classes are names, as in a data list."""

    def split(data: Mapping[str, Any]) -> dict[str, Any]:
        return {**data, "result": {"class": "COVID-19", "probabilities": PROBABILITIES}}

    image, label = torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 2, 2)
    image[..., 0] = label[..., 0] = 1
    cases = [
        {"image": label, "label": label, "class": "COVID-19"},
        {"image": image, "label": label, "class": "normal"},
    ]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(cases), batch_size=1),
        network=nn.Identity(),
        postprocessing=Compose([CopyItemsd(keys="class", names="true_class"), Lambda(split)]),
        key_val_metric={
            "score": Average(output_transform=MeanScore(SegmentationScores(["recall"]), class_key="true_class"))
        },
    )
    evaluator.run()
    assert evaluator.state.metrics["score"] == pytest.approx(((1 + 0.7) / 2 + (0.5 + 0.1) / 2) / 2)
