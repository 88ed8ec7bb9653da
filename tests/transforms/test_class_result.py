from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from common.errors import InputError
from common.transforms import SplitClassesd

CLASSES = ["COVID-19", "CAP", "normal"]


def output(*probabilities: float, channels: int = 2) -> Tensor:
    constant = torch.tensor(probabilities)[:, None, None, None].expand(-1, 3, 4, 5)
    return torch.cat([torch.rand(channels, 3, 4, 5), constant])


def split(pred: Tensor, **data: Any) -> dict:
    return SplitClassesd("pred", CLASSES)({"pred": pred, **data})


@pytest.mark.parametrize("channels", [0, 1, 2])
def test_segmentation_and_class_are_apart(channels: int) -> None:
    pred = output(0.25, 0.625, 0.125, channels=channels)
    found = split(pred, case="a")
    assert torch.equal(found["pred"], pred[:channels])
    probabilities = {"COVID-19": 0.25, "CAP": 0.625, "normal": 0.125}
    assert found["result"] == {"class": "CAP", "probabilities": probabilities}
    assert found["case"] == "a"
    assert json.loads(json.dumps(found["result"])) == found["result"]


def test_a_metatensor_stays_one() -> None:
    affine = torch.diag(torch.tensor([2.0, 3, 4, 1], dtype=torch.float64))
    found = split(MetaTensor(output(0, 0, 1), affine=affine))
    assert isinstance(found["pred"], MetaTensor) and torch.equal(found["pred"].affine, affine)
    assert found["result"]["class"] == "normal"
    assert all(type(p) is float for p in found["result"]["probabilities"].values())


def test_earlier_entries_of_the_result_stay() -> None:
    before = {"latency": 3}
    found = split(output(1, 0, 0), result=before)
    assert (found["result"]["latency"], found["result"]["class"]) == (3, "COVID-19")
    assert before == {"latency": 3}


def test_the_result_goes_to_the_named_entry() -> None:
    transform = SplitClassesd(["seg"], ["no", "yes"], "found", allow_missing_keys=True)
    assert transform({"seg": output(0.25, 0.75)})["found"]["class"] == "yes"
    assert transform({"image": 1}) == {"image": 1}


def test_an_output_without_probabilities_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'pred' of shape \[2, 3, 4, 5\].*COVID-19, CAP, normal"):
        split(output(channels=2))
    for wrong in ((2.0, -1.5, 0.5), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)):
        with pytest.raises(ValueError, match="not probabilities; infer with ClassifyingWindowInferer"):
            split(output(*wrong))
    with pytest.raises(ValueError, match="expected one"):
        SplitClassesd(["pred", "mask"], CLASSES)
    nothing = MetaTensor(output(*[math.nan] * 3), meta={"filename_or_obj": "P1.nii.gz"})
    with pytest.raises(InputError, match=r"P1\.nii\.gz: the network saw no part"):
        split(nothing)
