"""Run the benchmark on a small network; no time is judged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import gastric
from benchmarks.gastric import LiteralMAMTLN, gastric_rows, largest_difference
from common.methods.mamtln import MAMTLN

CPU = torch.device("cpu")
SMALL = {"width": 16, "planes": (8, 16, 16, 16), "blocks": (1, 1, 1, 1), "cardinality": 4, "norm_groups": 8}


@pytest.mark.parametrize("asa_refine", [False, True])
def test_the_literal_network_has_equal_outputs(asa_refine: bool) -> None:
    assert largest_difference("cpu", (33, 28, 7), {**SMALL, "asa_refine": asa_refine}) < 1e-4


def test_the_literal_network_has_the_same_parameters() -> None:
    network = MAMTLN(**SMALL)
    literal = LiteralMAMTLN(network)
    assert [id(p) for p in literal.parameters()] == [id(p) for p in network.parameters()]


def test_rows_have_ratios_and_goals(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs in this process, where freed memory would hide the peaks."""
    monkeypatch.setattr(gastric, "in_fresh_process", lambda function, *args: function(*args))
    monkeypatch.setattr(gastric, "peak_above_idle", lambda call: [call(), 2**30][1])
    rows = gastric_rows(CPU, 1, (32, 32, 6), SMALL)
    assert rows[0].met
    assert all(np.isfinite(r.value) for r in rows)
    found = {r.figure: r.value for r in rows}
    ratio = found["inference, ours: CPU s"] / found["inference, literal: CPU s"]
    assert found["inference, ours / literal: CPU s"] == pytest.approx(ratio, rel=1e-2)
    assert found["inference, ours: peak memory above idle, GiB"] == 1
    assert [r.goal for r in rows if r.goal] == ["<= 1e-3", "<= 0.5", "<= 0.7"]
