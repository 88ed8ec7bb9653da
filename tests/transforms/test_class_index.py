from __future__ import annotations

import pytest
import torch
from monai.data import DataLoader, Dataset

from common.errors import InputError
from common.transforms import ClassIndexd

LUNG = ("COVID-19", "CAP", "normal")


@pytest.mark.parametrize(("given", "index"), [("COVID-19", 0), ("normal", 2), (1, 1), (0, 0)])
def test_names_and_numbers_become_numbers(given: str | int, index: int) -> None:
    data = {"case": "P1", "class": given}
    assert ClassIndexd(classes=LUNG)(data) == {"case": "P1", "class": index}
    assert data["class"] == given


def test_indices_collate_to_int64() -> None:
    cases = [{"case": f"P{i}", "class": name} for i, name in enumerate(("CAP", "normal", 0))]
    batch = next(iter(DataLoader(Dataset(cases, ClassIndexd(classes=LUNG)), batch_size=3)))["class"]
    assert batch.dtype == torch.int64 and batch.tolist() == [1, 2, 0]


@pytest.mark.parametrize("given", ["covid-19", 3, -1, True, 1.0, None, "1"])
def test_another_class_is_refused(given: object) -> None:
    with pytest.raises(InputError, match=r"P1.*class.*COVID-19 \(0\), CAP \(1\), normal \(2\)"):
        ClassIndexd(classes=LUNG)({"case": "P1", "class": given})


def test_a_case_without_a_class_is_refused() -> None:
    with pytest.raises(InputError, match=r"P1.*no 'class'.*COVID-19 \(0\), .*--classes"):
        ClassIndexd(classes=LUNG)({"case": "P1"})
    assert ClassIndexd(classes=LUNG, allow_missing_keys=True)({"case": "P1"}) == {"case": "P1"}
