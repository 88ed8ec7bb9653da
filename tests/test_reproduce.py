"""Check the published results of every bundle: pages, commands, and the networks that the commands train."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from common.crossval.settings import Settings
from common.data.datalist import write_datalist
from reproduce import BUNDLES, ROOT, Results, Row, card, page, read_results

RESULTS = [read_results(bundle) for bundle in BUNDLES]
ROWS = [(results.bundle, table.name, row) for results in RESULTS for table in results.tables for row in table.rows]
REPEATED = [(bundle, table, row) for bundle, table, row in ROWS if row.commands]
PRINTED = re.compile(r"[+-]?\d+(\.\d+)?(±\d+\.\d+)?\*{0,2}|-")
of_bundles = pytest.mark.parametrize("results", RESULTS, ids=lambda results: results.bundle.name)


def options_of(command: str) -> dict[str, str]:
    words = shlex.split(command)
    return {name[2:]: value for name, value in zip(words, [*words[1:], ""]) if name.startswith("--")}


def trained_network(row: Row) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return the config files and the options of the training of a row, as its command has them."""
    command = row.commands.get("train") or row.one_fold[0]
    options = options_of(command)
    files = tuple(re.findall(r"[\w./]+\.json", options.pop("config_file")))
    return files, tuple(options.items())


def test_the_page_is_generated() -> None:
    path = ROOT / "docs" / "reference" / "reproduce.md"
    assert path.read_text(encoding="utf-8") == page(RESULTS), "run make reproduce"


@of_bundles
def test_the_tables_of_a_card_are_generated(results: Results) -> None:
    text = (results.bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert text == card(text, results), "run make reproduce"


def test_many_rows_can_be_repeated() -> None:
    commands = {command for _, _, row in REPEATED for command in row.commands.values()}
    assert len(REPEATED) >= 35 and len(commands) >= 35


@of_bundles
def test_a_bundle_has_a_training_and_an_evaluation(results: Results) -> None:
    text = page([results])
    files = re.findall(r"--config_file (\S+)", text)
    evaluated = ["/evaluate.json" in file for file in files if "/train.json" in file]
    assert {*evaluated} == {True, False}


def test_every_row_has_printed_values() -> None:
    assert not [(table, row.name) for _, table, row in ROWS if not all(map(PRINTED.fullmatch, row.published))]


def test_rows_of_a_table_have_different_names() -> None:
    names = [(bundle, table, row.name) for bundle, table, row in ROWS]
    assert len({*names}) == len(names)


def test_runs_of_other_settings_have_other_folders() -> None:
    """Two rows with one run train the same: same configs, options and list."""
    trainings: dict[str, set[tuple]] = {}
    for _, _, row in REPEATED:
        files, options = trained_network(row)
        trainings.setdefault(dict(options)["ckpt_dir"], set()).add((files, options, row.commands["list"]))
    assert not [folder for folder, settings in trainings.items() if len(settings) > 1]


@pytest.mark.slow
@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_the_stated_parameters_are_those_of_the_network(bundle: Path) -> None:
    stated = {(*trained_network(row), row.parameters) for of, _, row in REPEATED if of == bundle}
    for files, options, parameters in sorted(stated):
        config = ConfigParser(ConfigParser.load_config_files([str(ROOT / file) for file in files]))
        for name, text in options:
            merge_kv(config, name, DefaultParseValue(text))
        with torch.device("meta"):
            network = config.get_parsed_content("network_def")
        assert sum(p.numel() for p in network.parameters() if p.requires_grad) == parameters, files


@pytest.mark.parametrize("row", [row for _, _, row in REPEATED if "crossval" in row.commands], ids=lambda row: row.name)
def test_a_cross_validation_takes_overlays_and_options(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    options = options_of(row.commands["crossval"])
    bundle = shlex.split(row.commands["crossval"])[4]
    overlays = [Path(file) for file in options.pop("overlay", "").split(",") if file]
    assert options.pop("dataset_dir") and options.pop("out")
    evaluation = Path(options.pop("evaluation_overlay")) if "evaluation_overlay" in options else None
    assert Settings(ROOT / "bundles" / bundle, Path("data"), Path("runs"), overlays, options, evaluation)


def test_the_published_test_of_lits_is_listed(tmp_path: Path) -> None:
    for number in range(131):
        for kind in ("volume", "segmentation"):
            (tmp_path / f"{kind}-{number}.nii").touch()
    (command,) = {row.commands["list"] for bundle, _, row in REPEATED if bundle.name == "liver_ct_mpunet"}
    options = {
        **options_of(command),
        "root": str(tmp_path),
        "out": str(tmp_path / "dataset.json"),
        "fold": 1,
        "folds": 5,
    }
    lists = write_datalist("lits", **options)
    assert sorted(case["case"] for case in lists["test"]) == [f"volume-{number}" for number in range(27, 47)]
    assert [len(lists[section]) for section in ("training", "validation")] == [89, 22]


FILE = """
paper: P
lists: {all: python -m common datalist lits --root LiTS --out data/all/dataset.json}
tables:
  - {table: T, about: A, columns: [Dice], list: all, steps: train, rows: [ROW]}
"""


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{row: R, published: 0.9 0.8, parameters: 1}", "2 values, expected 1"),
        ("{row: R, published: 0.9}", "expected parameters or why_not"),
        ("{row: R, published: 0.9, parameter: 1}", "unknown key parameter"),
    ],
)
def test_a_wrong_row_is_refused(row: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.yaml").write_text(FILE.replace("ROW", row))
    with pytest.raises(ValueError, match=message):
        read_results(tmp_path)


def test_a_card_without_the_comments_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the comments"):
        card("# A card", RESULTS[0])
