"""Test a study of two arms from the command to the page: complete, resumed and interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import InputError
from common.reporting import read_scores
from studies import page
from studies.__main__ import run

from ..warm_python import WarmPython
from .made import FakeRuns, write_study

pytestmark = pytest.mark.slow

EVERY = ["train full 0", "evaluate full 0", "train no_gates 0", "evaluate no_gates 0"]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Run the study with fake trainings; return the runs."""

    def study(runs: FakeRuns | None = None, *options: str) -> list[str]:
        runs = runs or FakeRuns()
        monkeypatch.setattr("common.crossval.run.run_child", runs)
        words = [write_study(tmp_path), "--out", str(tmp_path / "out"), "--updates", "5", *options]
        try:
            run(words)
        except KeyboardInterrupt:
            runs.done.append("interrupted")
        return runs.done

    return study


def claim_of(out: Path) -> dict:
    (claim,) = json.loads((out / "outcome.json").read_text())["claims"]
    return claim


def test_every_arm_makes_the_same_updates(fake: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert fake(None, "--seeds", "1") == EVERY
    out = tmp_path / "out"
    said = capsys.readouterr().out
    assert said.index("it detects a mean difference of 0.0198") < said.index("full, seed 0")
    assert "more than the effect asked for, 0.01" in said
    for arm in ("full", "no_gates"):
        own = json.loads((out / "overlays" / f"{arm}.json").read_text())
        assert (own["max_epochs"], own["updates_per_epoch"]) == (2, 2)  # 5 updates, of which 4 fill 2 epochs
    claim = claim_of(out)
    assert (claim["outcome"], claim["difference"], claim["cases"]) == ("supported", 0.1, 8)
    assert {"report.md", "claims.csv", "claims.png"} <= {path.name for path in out.iterdir()}
    assert "| Gates help | full" in (out / "report.md").read_text()
    assert fake(None, "--seeds", "1") == []  # all is finished
    assert fake(None, "--seeds", "2") == [title.replace("0", "1") for title in EVERY]
    assert claim_of(out)["by_seed"] == [0.1, 0.1]


def test_an_interrupted_arm_never_enters_the_table(fake: Callable, tmp_path: Path) -> None:
    assert fake(FakeRuns("train no_gates 0"), "--seeds", "1") == [*EVERY[:3], "interrupted"]
    assert not (tmp_path / "out" / "outcome.json").exists()
    run(["report", write_study(tmp_path), "--out", str(tmp_path / "out")])
    assert claim_of(tmp_path / "out") == {"claim": "Gates help", "outcome": "not run"}
    assert fake(None, "--seeds", "1") == EVERY[2:]
    assert claim_of(tmp_path / "out")["outcome"] == "supported"


def test_other_updates_are_refused_in_a_folder_that_began(fake: Callable, tmp_path: Path) -> None:
    fake(None, "--seeds", "1")
    with pytest.raises(InputError, match=r"began with .*updates"):
        fake(None, "--updates", "8")
    with pytest.raises(InputError, match=r"began with hours 1.0, not 3.0"):
        run([write_study(tmp_path), "--out", str(tmp_path / "out"), "--hours", "3"])
    with pytest.raises(InputError, match="began with study two_arms, not omnet"):
        run(["omnet", "--out", str(tmp_path / "out")])


def test_too_few_hours_are_refused(fake: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--hours 1e-06: room for 0 updates of each arm, expected 2"):
        run([write_study(tmp_path), "--out", str(tmp_path / "out"), "--hours", "0.000001"])


def test_the_page_takes_the_outcome_of_a_study(fake: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(None, "--seeds", "1")
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "PAGE", tmp_path / "evidence.md")
    monkeypatch.setattr(page, "studies", lambda: [write_study(tmp_path)])
    run(["page", str(tmp_path / "out")])
    text = (tmp_path / "evidence.md").read_text()
    assert "| Gates help | yes | Dice +0.1000 (+0.1000 to +0.1000; 8 cases, 1 seed) | supported |" in text
    assert "--seeds 1 --updates 4`" in text


def test_two_arms_train_and_are_compared(
    tmp_path: Path, warm_python: WarmPython, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("common.crossval.run.run_child", warm_python.run_child)
    out = tmp_path / "out"
    run([write_study(tmp_path), "--out", str(out), "--seeds", "1", "--updates", "2"])
    for arm in ("full", "no_gates"):
        assert len(read_scores(out / "arms" / arm / "seed0" / "scores.csv")) == 8
        record = json.loads((out / "arms" / arm / "seed0" / "fold0" / "run.json").read_text())
        assert len(record["train_cases"]) == 2 and record["settings"]["network_def"].get("gates", True) == (
            arm == "full"
        )
    assert claim_of(out)["cases"] == 8
    assert "outside 0.75 to 0.92" in capsys.readouterr().out
