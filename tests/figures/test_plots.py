from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics import compute_roc_auc

from common.errors import InputError
from common.figures import bland_altman, draw_bland_altman, draw_roc, roc_curve
from common.reporting import class_row

matplotlib_image = pytest.importorskip("matplotlib.image")


def test_roc_curve_equals_a_hand_made_case() -> None:
    """From the highest score: a hit, then a hit and an alarm at once, then an alarm, a hit, an alarm."""
    alarms, hits, area = roc_curve([0.9, 0.5, 0.5, 0.4, 0.3, 0.1], [True, True, False, False, True, False])
    np.testing.assert_allclose(hits, np.array([0, 1, 2, 2, 3, 3]) / 3)
    np.testing.assert_allclose(alarms, np.array([0, 0, 1, 2, 2, 3]) / 3)
    assert area == pytest.approx((1.5 + 2 + 3) / 9)


def test_area_equals_monai() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 10, 60) / 10, rng.random(60) < 0.4
    expected = compute_roc_auc(torch.as_tensor(scores), torch.as_tensor(positive).int())
    assert roc_curve(scores.tolist(), positive.tolist())[2] == pytest.approx(expected)


@pytest.mark.parametrize("truth", [True, False])
def test_roc_curve_needs_both_classes(truth: bool) -> None:
    with pytest.raises(ValueError, match="needs positive and negative cases"):
        roc_curve([0.5, 0.25], [truth, truth])


def rows(true: list[int], classes: int) -> list[dict]:
    rng = np.random.default_rng(0)
    names = [f"class {c}" for c in range(classes)]
    made = []
    for i, t in enumerate(true):
        p = rng.dirichlet(np.ones(classes)).tolist()
        made.append(
            class_row(f"case {i}", t, {"class": names[int(np.argmax(p))], "probabilities": dict(zip(names, p))})
        )
    return made


def colours(path: Path) -> int:
    """Return the number of saturated colours in a picture, which are those of lines."""
    pixels = (matplotlib_image.imread(path)[..., :3] * 255).astype(int).reshape(-1, 3)
    counts = np.unique(pixels[np.ptp(pixels, 1) > 100], axis=0, return_counts=True)[1]
    return int((counts > 60).sum())


@pytest.mark.parametrize(("classes", "curves"), [(2, 1), (3, 3)])
def test_each_class_has_a_curve(tmp_path: Path, classes: int, curves: int) -> None:
    out = draw_roc(
        rows([0, 1, 2, 0, 1, 2, 1, 0][:8] if classes == 3 else [0, 1, 0, 1, 1], classes), tmp_path / "new" / "r.png"
    )
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["r.png"]
    assert colours(out) == curves


def test_class_without_cases_has_no_curve(tmp_path: Path) -> None:
    assert colours(draw_roc(rows([0, 1, 0, 1, 1], 3), tmp_path / "roc.png")) == 2
    with pytest.raises(InputError, match="3 cases of 1 class; a ROC curve needs cases of two"):
        draw_roc(rows([1, 1, 1], 3), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_limits_of_agreement_equal_a_hand_made_case() -> None:
    """Differences 1, 3 and -1: mean 1, sample standard deviation 2."""
    assert bland_altman([5, 9, 1], [4, 6, 2]) == pytest.approx((1, 1 - 3.92, 1 + 3.92))
    with pytest.raises(ValueError, match="1 pairs; limits of agreement need at least two"):
        bland_altman([5], [4])


def volumes(*pairs: tuple[float, float], region: str = "") -> list[dict]:
    return [
        {"case": f"case {i}", f"volume (ml){region}": one, f"true volume (ml){region}": other}
        for i, (one, other) in enumerate(pairs)
    ]


def test_plot_shows_the_limits_of_agreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    lines: list[float] = []
    points: list = []
    monkeypatch.setattr(Axes, "axhline", lambda _self, y, **_: lines.append(y))
    monkeypatch.setattr(Axes, "scatter", lambda _self, x, y, **_: points.append((x.tolist(), y.tolist())))
    monkeypatch.setattr(Axes, "legend", lambda *_, **__: None)
    rows = volumes((5, 4), (0, 0), (9, 6), (1, 2))
    draw_bland_altman(rows, tmp_path / "new" / "bland_altman.png")
    assert points == [([4.5, 7.5, 1.5], [1, 3, -1])]  # without the case that has neither
    assert lines == pytest.approx([1, 1 - 3.92, 1 + 3.92])
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["bland_altman.png"]


def test_each_region_has_a_plot(tmp_path: Path) -> None:
    one, other = volumes((5, 4), (9, 6), region=" liver"), volumes((1, 2), (3, 3), region=" tumour")
    wide = draw_bland_altman([{**a, **b} for a, b in zip(one, other)], tmp_path / "wide.png")
    narrow = draw_bland_altman(one, tmp_path / "narrow.png")
    assert matplotlib_image.imread(wide).shape[1] > 1.8 * matplotlib_image.imread(narrow).shape[1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "0 cases without 'volume .ml.'"),
        ([{"case": "a", "Dice": 0.5}], "1 cases without 'volume .ml.'; this evaluation does not"),
        (
            volumes((5, 4), (0, 0), region=" lesion"),
            "1 cases with a volume lesion; limits of agreement need at least two",
        ),
    ],
)
def test_too_few_volumes_are_refused(tmp_path: Path, rows: list[dict], message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw_bland_altman(rows, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
