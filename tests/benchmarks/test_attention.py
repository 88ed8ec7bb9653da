from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import attention
from benchmarks.attention import attention_rows
from benchmarks.measure import Cost

from ..warm_python import WarmPython

CPU = torch.device("cpu")


def in_this_process(function: object, form: str, *args: object) -> tuple[int, Cost]:
    return {"explicit": (2000, Cost(4.0, 9.0)), "linear": (150, Cost(6.0, 9.0))}[form]


def test_rows_have_ratios_of_memory_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "in_fresh_process", in_this_process)
    equal, memory, time, *training = attention_rows(CPU, 2, ((4, 4, 2),))
    assert equal.figure.startswith("32 positions") and equal.met and equal.value < 1e-5
    assert (memory.value, memory.goal, memory.met) == (0.075, "<= 0.1", True)
    assert (time.figure, time.value, time.met) == (
        "32 positions, forward: linear / explicit, CPU time",
        1.5,
        None,
    )
    assert [r.value for r in training] == [0.075, 1.5]


def test_unequal_forms_meet_no_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "in_fresh_process", in_this_process)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda q, k, v, scale: v + 0 * (q + k))
    equal, memory, _, training, _ = attention_rows(CPU, 1, ((4, 4, 2),))
    assert [r.met for r in (equal, memory, training)] == [False] * 3


@pytest.mark.slow
def test_the_explicit_form_holds_the_matrix_of_all_pairs(warm_python: WarmPython) -> None:
    def extra(form: str) -> int:
        code = f"from benchmarks.attention import cost; print(cost({form!r}, (32, 32, 2), False, 'cpu')[0])"
        return int(warm_python.run([sys.executable, "-c", code], Path(__file__).parents[2], check=True).stdout)

    assert extra("explicit") > 2048**2 * 4 > extra("linear")
