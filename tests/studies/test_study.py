"""Test the definitions of the studies, their command line and their page."""

from __future__ import annotations

from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from common.errors import InputError, UsageError
from common.options import refuse_unknown_options
from studies.__main__ import run
from studies.page import PAGE, page_text
from studies.study import read_study, studies

from .made import STUDY, write_study

every_study = pytest.mark.parametrize("name", studies())


@every_study
def test_the_settings_of_a_study_exist_in_its_bundle(name: str) -> None:
    study = read_study(name)
    assert len(study.claims) >= 5 and study.phantoms.test >= 100
    for cases in filter(None, (study.phantoms, study.real)):
        for arm in study.arms_on(cases):
            files = [overlay for overlay in study.arms[arm] if isinstance(overlay, str)]
            own = {key for overlay in study.arms[arm] if isinstance(overlay, dict) for key in overlay}
            known = [str(study.configs / file) for file in ("train.json", *files)]
            refuse_unknown_options({*own, *cases.settings, *cases.arms.get(arm, {})}, known)


@every_study
def test_the_phantoms_of_a_study_can_be_drawn(name: str) -> None:
    recipe = dict(read_study(name).phantoms.recipe or {})
    phantom = ConfigParser(recipe).get_parsed_content()
    assert type(phantom).__name__ == recipe["_target_"].rpartition(".")[2]


def test_the_page_of_the_evidence_is_up_to_date() -> None:
    assert PAGE.read_text() == page_text(), "run python -m studies page"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["nothing"],
            "unknown study nothing; expected one of mamtln, mmfnet, mpunet, multirnet, omnet, or a JSON file",
        ),
        (["mpunet", "--seed", "2"], "unrecognized arguments: --seed 2; see python -m studies mpunet --help"),
        (["mpunet", "--seeds", "0"], "argument --seeds: 0 found, expected a whole number of at least 1"),
        (["mpunet", "--hours", "nan"], "argument --hours: nan found, expected a number of hours above 0"),
        (["report"], "the following arguments are required: name"),
    ],
)
def test_a_wrong_command_line_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        run(words)
    assert message in str(refused.value)


def test_real_cases_of_a_study_without_them_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--dataset_dir x: omnet has no real cases; leave it out for phantoms"):
        run(["omnet", "--dataset_dir", "x", "--out", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"full": []}}, "two_arms: arm 'no_gates' of a claim; expected one of full"),
        ({"scores": {}}, "two_arms: score 'Dice' of a claim"),
        ({"arms": {**STUDY["arms"], "x": ["ablations/x.json"]}}, "ablations/x.json is missing"),
        ({"equal_time": ["slow"]}, "two_arms: unknown arm 'slow'; expected one of full, no_gates"),
        ({"colour": "red"}, "two_arms.json: not a study .*colour"),
    ],
)
def test_a_wrong_definition_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_study(write_study(tmp_path, **changes))


def test_a_folder_without_a_study_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"study\.json: not written by a study"):
        run(["report", "mpunet", "--out", str(tmp_path)])
    with pytest.raises(InputError, match=r"outcome\.json: not written by"):
        run(["page", str(tmp_path)])
