"""Test the types, ranges and texts of options."""

from __future__ import annotations

import json
import random
import string
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow
from monai.bundle.__main__ import __file__ as monai_command

from common.errors import InputError, UsageError, root_cause
from common.options import refuse_unknown_options
from common.overlays import used_settings
from common.rules import PATHS, RULES, check_value, parse_bool
from common.typed_texts import command_line_texts, is_bundle_command, literal

from .conftest import BUNDLES

CONFIG = next(bundle for bundle in BUNDLES if "mmfnet" in bundle.name) / "configs"
CONFIGS = [bundle / "configs" / f"{name}.json" for bundle in BUNDLES for name in ("train", "inference")]

WRONG: dict[str, list[Any]] = {
    "max_epochs": [0, -1, 1.5, "abc", True, None, float("nan"), [1]],
    "updates_per_epoch": [0, -1, "abc"],
    "batch_size": [0, 2.0],
    "val_interval": [0],
    "patience": [0],
    "warm_up_epochs": [-1, 0.5],
    "freeze_encoder": [-1, 0.5, None],
    "warm_up": [-1, "two"],
    "init_weights": [2024, ["a.pt"], ""],
    "num_workers": [-1, "two"],
    "iterations": [-1],
    "seed": [-1, 2**32, 0.5],
    "fold": [-1, 1.0, "a"],
    "series": [["2"], 1.5, ""],
    "status": [5, ""],
    "case_timeout": [0, -1, "long"],
    "halve_every": [0],
    "enhancing_every": [0, None],
    "levels": [0, 4],
    "learning_rate": [0, -1e-3, float("inf"), float("nan"), "fast", True],
    "weight_decay": [-1],
    "cache_rate": [2, -0.1],
    "overlap": [1, 1.0, -0.1, "half"],
    "momentum": [1],
    "validation_share": [1, -0.1],
    "roi_size": [[64, 64], [64, 64, 0], 64, "abc", [64, 64, 1.5], None],
    "spacing": [[1, 1], [0, 1, 1], [1, 1, -2], ["a", 1, 1]],
    "jitter": [[8, 8, -1]],
    "curriculum": [[0, 0, 0], [1, 1], [1, 1, -1]],
    "channels": [[], [-1], 0],
    "hounsfield_range": [[200, -200], [0], ["a", "b"]],
    "modalities": [[], ["T1", "T1"], "T1"],
    "precision": ["float16", 16, None],
    "section": ["testing"],
    "device": ["gpu", "cuda:99", 3.5],
    "resume": ["yes", 1, None],
    "amp": ["on"],
    "dataset_dir": [2024, None, True, ["a"], ""],
    "weights": [2024, [], [1], None],
}
RIGHT: dict[str, list[Any]] = {
    "max_epochs": [1, 600],
    "warm_up_epochs": [0],
    "seed": [0, 2**32 - 1],
    "fold": [None, 0, 4],
    "learning_rate": [1e-3, 1],
    "cache_rate": [0, 1, 0.5],
    "overlap": [0, 0.5],
    "spacing": [[0.5, 0.5, -1], (1, 1, 1)],
    "curriculum": [[0, 0, 20]],
    "modalities": [["CT"], ("T1", "T2")],
    "device": ["cpu", torch.device("cpu")],
    "resume": [True, "true", "False"],
    "weights": ["untrained", Path("model.pt"), ["a.pt", "b.pt"]],
    "init_weights": [None, "model.pt", Path("model.pt")],
    "a_key_of_a_user": ["anything", -1],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_type_or_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(UsageError) as error:
        check_value(name, value)
    assert str(error.value) == f"--{name} {value}: expected {RULES[name].expected}"


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in RIGHT.items() for value in values])
def test_valid_values_are_accepted(name: str, value: Any) -> None:
    check_value(name, value)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_every_number_and_switch_of_a_config_has_a_rule(path: Path) -> None:
    for name, value in json.loads(path.read_text()).items():
        if isinstance(value, (bool, int, float)):
            assert name in RULES, name
        items = value if isinstance(value, list) else [value]
        if not any(isinstance(item, str) and item.startswith(("$", "@")) for item in items):
            check_value(name, value)


def workflow(config: Path, **options: Any) -> ConfigWorkflow:
    """Return the workflow of a config file with options, as MONAI creates it for a Python program."""
    with pytest.warns(UserWarning, match="parsing config_file"):
        return create_workflow(config_file=str(config), logging_file=False, workflow_type="train", **options)


@pytest.mark.parametrize("name", ["max_epochs", "learning_rate", "spacing", "resume", "dataset_dir"])
def test_options_from_python_are_checked(name: str) -> None:
    value = WRONG[name][0]
    with pytest.raises(RuntimeError) as error:
        workflow(CONFIG / "train.json", **{name: value})
    assert str(root_cause(error.value)) == f"--{name} {value}: expected {RULES[name].expected}"


def test_computed_settings_are_checked() -> None:
    with pytest.raises(RuntimeError) as error:
        workflow(CONFIG / "train.json", updates_per_epoch="$@batch_size - 8")
    assert str(root_cause(error.value)).startswith("--updates_per_epoch 0: expected ")
    with pytest.raises(RuntimeError) as error:  # the overlap follows from it
        workflow(CONFIG / "train.json", window_step=32)
    assert str(root_cause(error.value)).startswith("--overlap [0, 0, -1.0]: expected ")


def test_an_unknown_option_from_python_is_refused() -> None:
    with pytest.raises(RuntimeError) as error:
        workflow(CONFIG / "train.json", max_epoch=5)
    cause = root_cause(error.value)
    assert isinstance(cause, UsageError) and str(cause).endswith("did you mean --max_epochs?")


def test_a_path_from_python_may_have_any_characters() -> None:
    for name in ("a#b", "c::d", "x$y@z%", 'e\'f, "g"', "\u00e4 \\n"):
        flow = workflow(CONFIG / "inference.json", output_dir=name, dataset_dir=Path(name))
        assert flow.parser.get_parsed_content("log_file") == f"{name}/inference.log"
        assert flow.parser.get_parsed_content("dataset_dir") == name


def test_a_config_path_that_monai_changes_is_refused(tmp_path: Path) -> None:
    config = json.loads((CONFIG / "inference.json").read_text())
    path = tmp_path / "inference.json"
    path.write_text(json.dumps({**config, "output_dir": "out #1"}))
    with pytest.raises(RuntimeError) as error:
        workflow(path)
    assert str(root_cause(error.value)).startswith("--output_dir out ::1: MONAI writes :: for #")


NAMES = [
    "2024",
    "01",
    "1e3",
    "a,b",
    "[x]",
    "None",
    "True",
    "1_000",
    "0x10",
    "2024.10",
    "{a}",
    "(b)",
    "'q'",
    "#1",
    "a::b",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_on_the_command_line_keeps_its_text(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(sys, "argv", [monai_command, "run", "--dataset_dir", name, f"--output-dir={name}"])
    assert is_bundle_command()
    flow = workflow(CONFIG / "inference.json", dataset_dir=2024, output_dir=["x"])  # as Fire parses the texts
    assert flow.parser.get_parsed_content("dataset_dir") == name
    assert flow.parser.get_parsed_content("log_file") == f"{name}/inference.log"


def test_a_list_of_weights_stays_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [monai_command, "run", "--weights", "['a#1.pt', \"b.pt\"]"])
    flow = workflow(CONFIG / "inference.json", weights=["a#1.pt", "b.pt"])
    assert flow.parser.get_parsed_content("weights") == ["a#1.pt", "b.pt"]


def test_an_expression_given_as_a_path_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [monai_command, "run", "--output_dir", "$@bundle_root + '/x'"])
    flow = workflow(CONFIG / "inference.json", output_dir="$@bundle_root + '/x'")
    assert flow.parser.get_parsed_content("log_file") == "./x/inference.log"


def test_a_literal_evaluates_to_its_text() -> None:
    rng = random.Random(0)
    letters = string.printable + "\u00e4\u4e2d\U0001f600\udcff"
    for _ in range(200):
        text = "".join(rng.choices(letters, k=rng.randint(1, 30)))
        assert ConfigParser({"x": literal(text), "y": "@x"}).get_parsed_content("y") == text


def test_command_line_texts_are_read_as_typed() -> None:
    line = ["--a", "1e3", "--b-c=x=y", "--flag", "--d", "-5", "--a", "2", "--e"]
    assert command_line_texts(line) == {"a": "2", "b_c": "x=y", "d": "-5"}


@pytest.mark.parametrize(("value", "meaning"), [(True, True), (False, False), ("true", True), ("False", False)])
def test_a_switch_may_be_a_word_or_a_bool(value: bool | str, meaning: bool) -> None:
    assert parse_bool(value) is meaning


@pytest.mark.parametrize("value", ["yes", "", "1", 1])
def test_any_other_value_of_a_switch_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{value!r}: expected true or false$"):
        parse_bool(value)


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["max_epochs", "train::trainer::max_epochs", "dataset_dir", "meta_file"], f"{CONFIG}/train.json"),
        (["section", "_meta_::version"], [f"{CONFIG}/train.json", f"{CONFIG}/evaluate.json"]),
        (["inferer#sw_batch_size", "phantom"], [f"{CONFIG}/inference.json", f"{CONFIG}/demo.json"]),
    ],
)
def test_keys_of_the_configs_are_options(names: list[str], files: str | list[str]) -> None:
    refuse_unknown_options(names, files)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("max_epoch", r"^unknown option --max_epoch of .*train\.json; did you mean --max_epochs\?$"),
        ("qqq", r"^unknown option --qqq of .*train\.json; leave it out$"),
        ("trian::trainer", r"did you mean --train\?$"),
    ],
)
def test_an_unknown_option_is_refused(option: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        refuse_unknown_options([option], f"{CONFIG}/train.json")


KINDS: list[tuple[str, Any, str]] = [
    ("network_def", 5, "a component"),
    ("stages", 3, "a component"),
    ("train::trainer", "abc", "a component"),
    ("train::handlers", 2, "a list"),
    ("normalize", [5], "a list of components"),
    ("load", [], "a list of transforms"),
    ("load", [5], "a list of transforms"),
    ("train", [1], "an object"),
]


@pytest.mark.parametrize(("key", "value", "expected"), KINDS)
def test_an_option_of_another_kind_is_refused(key: str, value: Any, expected: str) -> None:
    with pytest.raises(RuntimeError) as error:
        workflow(CONFIG / "train.json", **{key: value})
    cause = root_cause(error.value)
    assert isinstance(cause, UsageError) and str(cause).startswith(f"--{key} {value}: expected {expected}")


def overlay_error(folder: Path, overlay: dict[str, Any]) -> None:
    """Raise the error that ends a training with an overlay."""
    (folder / "mine.json").write_text(json.dumps(overlay))
    files = [str(CONFIG / name) for name in ("train.json", "evaluate.json")] + [str(folder / "mine.json")]
    with pytest.warns(UserWarning, match="parsing config_file"), pytest.raises(RuntimeError) as error:
        create_workflow(config_file=files, logging_file=False, workflow_type="train")
    raise root_cause(error.value)


@pytest.mark.parametrize(("key", "value", "expected"), KINDS)
def test_an_overlay_of_another_kind_is_refused(tmp_path: Path, key: str, value: Any, expected: str) -> None:
    with pytest.raises(InputError, match=f"{key} .*expected {expected}"):
        overlay_error(tmp_path, {key: value})


@pytest.mark.parametrize("overlay", sorted(CONFIG.glob("ablations/*.json")), ids=lambda path: path.stem)
def test_overlays_of_a_bundle_pass_the_check_of_kinds(overlay: Path) -> None:
    files = [str(CONFIG / "train.json"), str(overlay)]
    with pytest.warns(UserWarning, match="parsing config_file"):
        create_workflow(config_file=files, logging_file=False, workflow_type="train")


@pytest.mark.parametrize("key", ["record", "network_def"])
def test_an_overlay_with_null_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match=rf"mine\.json: {key} is None, expected an? "):
        overlay_error(tmp_path, {key: None})


@pytest.mark.parametrize("key", ["learningrate", "max_epoch", "networkdef::channels"])
def test_a_misspelt_setting_of_an_overlay_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match=rf"mine\.json: unknown setting '{key.split('::')[0]}'; did you mean '"):
        overlay_error(tmp_path, {"networkdef": {"channels": []}, key: 3} if "::" in key else {key: 3})


def test_a_setting_that_nothing_reads_gets_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    overlay = tmp_path / "mine.json"
    overlay.write_text(json.dumps({"my_epochs": 3, "max_epochs": "@my_epochs", "qqq": 1, "_note": "", "reasons": {}}))
    with pytest.warns(UserWarning, match="parsing config_file"):
        create_workflow(
            config_file=[str(CONFIG / "train.json"), str(overlay)], logging_file=False, workflow_type="train"
        )
    assert [record.args[1] for record in caplog.records if "changes nothing" in record.message] == ["qqq"]


def test_an_option_for_the_record_is_refused() -> None:
    with pytest.raises(RuntimeError) as error:
        workflow(CONFIG / "train.json", record="null")
    assert str(root_cause(error.value)).startswith("--record null: a training makes its own record")


@pytest.mark.parametrize("overlay", sorted(CONFIG.parents[1].glob("*/configs/explain.json")), ids=lambda p: p.parts[-3])
@pytest.mark.parametrize("name", ["probabilities", "dicom_seg"])
def test_a_result_that_an_overlay_does_not_write_is_refused(overlay: Path, name: str) -> None:
    files = [str(overlay.with_name("inference.json")), str(overlay)]
    with pytest.raises(RuntimeError) as error, pytest.warns(UserWarning, match="parsing config_file"):
        create_workflow(
            config_file=files, logging_file=False, workflow_type="infer", weights="untrained", **{name: "true"}
        )
    cause = root_cause(error.value)
    assert isinstance(cause, UsageError) and f"--{name} true: explain.json writes class activation maps" in str(cause)


def test_null_on_the_command_line_becomes_none() -> None:
    assert workflow(CONFIG / "train.json", fold="null").parser.get_parsed_content("fold") is None


@pytest.mark.parametrize("value", ["null", None])
def test_lr_scheduler_null_removes_the_scheduler(value: str | None) -> None:
    config = next(bundle for bundle in BUNDLES if "multirnet" in bundle.name) / "configs" / "train.json"
    assert workflow(config, lr_scheduler=value).parser.get_parsed_content("lr_scheduler") is None


@pytest.mark.parametrize("key", ["optimizer", "loss", "network_def"])
def test_null_for_a_required_component_is_refused(key: str) -> None:
    with pytest.raises(RuntimeError) as error:
        workflow(CONFIG / "train.json", **{key: "null"})
    assert str(root_cause(error.value)).startswith(f"--{key} null: expected a component")


@pytest.mark.parametrize("value", ["$None", "@inferer", {"_target_": "SimpleInferer"}])
def test_a_component_may_be_replaced_by_an_expression(value: Any) -> None:
    workflow(CONFIG / "train.json", **{"train::inferer": value})


def test_every_path_option_has_a_rule() -> None:
    assert PATHS.keys() <= RULES.keys()
    assert issubclass(UsageError, InputError)


def test_settings_that_others_refer_to_are_used() -> None:
    config = {
        "a": "@b",
        "b": 1,
        "c": "$len(@d::0) + 1",
        "d": [[1]],
        "e": {"_target_": "list", "_requires_": "@f", "given": ["@e::given"]},
        "f": 2,
    }
    assert used_settings(config) == {"b", "d"}
