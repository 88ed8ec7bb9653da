"""Use MONAI's metrics and handlers in an evaluation, by the overlay that the page on own data shows."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.reporting import read_scores

from ..workflows import BUNDLES, config_of

# MONAI's metric scores label maps; an evaluation that keeps probabilities has none
WITH_LABEL_MAP = [
    bundle
    for bundle in BUNDLES
    if len(config_of(bundle, "inference")["labels"]) == 1 and "probabilities" not in str(config_of(bundle, "evaluate"))
]
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "own-data.md"


def overlay_of_the_page() -> dict[str, Any]:
    (block,) = [part.split("```")[0] for part in PAGE.read_text().split("```json\n") if "key_val_metric" in part[:200]]
    overlay: dict[str, Any] = json.loads(block)
    return overlay


@pytest.mark.filterwarnings("ignore:Mean of empty slice")  # MetricsSaver on a case that has no score
@pytest.mark.parametrize("bundle", WITH_LABEL_MAP, ids=lambda bundle: bundle.name)
def test_monais_mean_dice_equals_our_scores(
    bundle: Path, workflow: Callable, busy_weights: Callable, tmp_path: Path
) -> None:
    busy_weights(bundle)
    (tmp_path / "mine.json").write_text(json.dumps(overlay_of_the_page()))
    workflow(bundle, "train", "evaluate", str(tmp_path / "mine")).run()

    scores = {row["case"]: row for row in read_scores(tmp_path / "out" / "scores.csv")}
    with (tmp_path / "out" / "mean Dice_raw.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert {name.removesuffix(".nii.gz") for name, *_ in rows} == {*scores}
    dice = next(column for column in next(iter(scores.values())) if column.startswith("Dice"))
    for name, value, *_ in rows:
        assert float(value) == pytest.approx(scores[name.removesuffix(".nii.gz")][dice], abs=1e-4, nan_ok=True)
    assert "mean Dice" in (tmp_path / "out" / "metrics.csv").read_text()
