"""Test pictures of a validation case while a network trains."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, from_engine
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.engines import Stage
from common.files import PARTIAL
from common.handlers import ValidationPictures, pictures
from common.transforms import DecideLabeld

from ..trainers import assert_same

pytestmark = pytest.mark.slow

matplotlib_image = pytest.importorskip("matplotlib.image")

EMPTY, FULL = torch.zeros(1, 4, 6, 3), torch.zeros(1, 4, 6, 3)
FULL[:, 1:3, 2:5] = 1
VOLUME = torch.linspace(-1, 1, 72).reshape(1, 4, 6, 3)
CASES = [
    {"case": name, "image": MetaTensor(VOLUME), "label": MetaTensor(label)}
    for name, label in {"empty": EMPTY, "first": FULL, "second": FULL.flip(1)}.items()
]


def evaluator(network: torch.nn.Module, *handlers: Any, cases: list[dict] = CASES) -> SupervisedEvaluator:
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(cases, batch_size=1),
        network=network,
        postprocessing=DecideLabeld("pred"),
        key_val_metric={
            "mean": IgniteMetricHandler(
                loss_fn=lambda pred, label: pred.float().mean(), output_transform=from_engine(["pred", "label"])
            )
        },
        val_handlers=handlers,
    )


def validated(handler: ValidationPictures, *epochs: int, **options: Any) -> None:
    engine = evaluator(torch.nn.Identity(), handler, **options)
    for epoch in epochs:
        engine.run(epoch)


def test_the_picture_of_a_killed_training_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / f"{PARTIAL}{(1 << 22) + 1}_0123abcd.png").write_text("half")
    (folder / "epoch_0001.png").write_text("whole")
    evaluator(torch.nn.Identity(), ValidationPictures(tmp_path, 1))
    assert [path.name for path in folder.iterdir()] == ["epoch_0001.png"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Record the arguments of the figures."""
    calls: list[dict] = []
    draw = pictures.outline_figure

    def figure(rows: Any, mask: Any, spacing: Any, truth: Any, note: str) -> Any:
        calls.append({"names": [name for name, _ in rows], "mask": mask, "spacing": [*spacing], "truth": truth})
        return draw(rows, mask, spacing, truth, note=note)

    monkeypatch.setattr(pictures, "outline_figure", figure)
    return calls


@pytest.mark.parametrize(
    ("interval", "epochs", "expected"),
    [
        (2, [1, 2, 3, 4, 5], [2, 4]),
        (1, [1, 2], [1, 2]),
        (4, [3, 6, 9, 12], [6, 9, 12]),  # validations after 4, 8 and at 12
        (4, [6, 7, 8, 9], [8]),  # resumed after epoch 5
        (10, [1, 2, 3], []),
        (0, [1, 2], []),
        (None, [1, 2], []),
    ],
)
def test_every_few_epochs_have_a_picture(
    tmp_path: Path, interval: int | None, epochs: list[int], expected: list[int]
) -> None:
    validated(ValidationPictures(tmp_path, interval), *epochs)
    assert [path.name for path in sorted(tmp_path.glob("*/*.png"))] == [f"epoch_{n:04d}.png" for n in expected]
    if not expected:
        assert not [*tmp_path.iterdir()]
        return
    events = EventAccumulator(str(tmp_path / "tensorboard" / "pictures"))
    events.Reload()
    images = events.Images("validation")
    assert [image.step for image in images] == expected
    shape = matplotlib_image.imread(tmp_path / "pictures" / f"epoch_{expected[0]:04d}.png").shape
    assert (images[0].height, images[0].width) == shape[:2]


def test_the_case_is_the_first_with_foreground(tmp_path: Path, drawn: list[dict]) -> None:
    validated(ValidationPictures(tmp_path, 1), 1, 2)
    assert [call["names"] for call in drawn] == [["first"], ["first"]]
    np.testing.assert_array_equal(drawn[0]["truth"], FULL[0])
    np.testing.assert_array_equal(drawn[0]["mask"], VOLUME[0] >= 0.5)


def test_without_foreground_the_last_case_is_drawn(tmp_path: Path, drawn: list[dict]) -> None:
    validated(ValidationPictures(tmp_path, 1), 1, cases=[CASES[0], {**CASES[0], "case": "last"}])
    assert [call["names"] for call in drawn] == [["last"]]


def test_the_picture_is_in_ras_orientation(tmp_path: Path, drawn: list[dict]) -> None:
    """The stored axes are posterior, right, superior."""
    affine = torch.tensor([[0, 2.0, 0, 0], [-3.0, 0, 0, 0], [0, 0, 5.0, 0], [0, 0, 0, 1]])
    turned = {key: MetaTensor(CASES[1][key].as_tensor(), affine=affine) for key in ("image", "label")}
    validated(ValidationPictures(tmp_path, 1), 1, cases=[{"case": "turned", **turned}])
    np.testing.assert_array_equal(drawn[0]["truth"], FULL[0].flip(0).permute(1, 0, 2))
    assert drawn[0]["spacing"] == [2, 3, 5]


def test_pictures_leave_the_training_as_it_is(trainer: Callable, tmp_path: Path) -> None:
    def weights(folder: str, *handlers: Any) -> dict:
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.Dropout(), torch.nn.Conv3d(2, 1, 1))
        stage = Stage("one", network, functools.partial(torch.optim.Adam, lr=0.1), 4, weights="model.pt")
        options = {"evaluator": evaluator(network, *handlers), "ckpt_dir": tmp_path / folder}
        trainer([stage], DataLoader(CASES, batch_size=2), VOLUME[None], **options).run()
        return torch.load(tmp_path / folder / "model.pt", weights_only=True)

    plain = weights("plain")
    assert_same(plain, weights("drawn", ValidationPictures(tmp_path / "drawn", 1)))
    assert len([*(tmp_path / "drawn" / "pictures").iterdir()]) == 4


def test_a_picture_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = tmp_path / "pictures" / "epoch_0001.png"
    other.parent.mkdir()
    other.write_bytes(b"of someone else")
    validated(ValidationPictures(tmp_path, 1), 1, 2)
    assert other.read_bytes() == b"of someone else" and (other.parent / "epoch_0002.png").exists()
    (message,) = caplog.messages
    assert message.startswith("no picture of epoch 1: ") and "epoch_0001.png: another file" in message


@pytest.mark.parametrize("key", ["nothing", "image"])
def test_a_network_without_label_maps_has_no_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    with caplog.at_level(logging.INFO, "common"):
        validated(ValidationPictures(tmp_path, 1, pred_key=key), 1)
    assert caplog.messages == ["no picture of epoch 1: the validation makes no label map"]
    assert not [*tmp_path.iterdir()]


def test_without_matplotlib_one_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with caplog.at_level(logging.INFO, "common"):
        validated(ValidationPictures(tmp_path, 1), 1, 2)
    (message,) = caplog.messages
    assert "matplotlib is not installed" in message and not [*tmp_path.iterdir()]


def test_other_processes_draw_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    handler = ValidationPictures(tmp_path, 1)
    engine = evaluator(torch.nn.Identity())
    handler.attach(engine)
    engine.run(1)
    assert not [*tmp_path.iterdir()]
