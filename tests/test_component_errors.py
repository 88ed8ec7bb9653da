"""Test that a config component that cannot be built ends a run in one line that names it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser, run

from common.errors import InputError, UsageError, root_cause, show_input_errors_in_one_line

CONFIG = {
    "imports": ["$import math"],
    "network_def": {"_target_": "monai.networks.nets.UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 1},
    "channels": [4, 8],
    "strides": [2],
    "root": "$math.sqrt(-1)",
    "run": ["$math.sqrt(-1)"],
}


def build(key: str, **changes: object) -> BaseException:
    """Return the exception that MONAI raises as it builds a key of the config, with changed network arguments."""
    network = {**CONFIG["network_def"], "channels": "@channels", "strides": "@strides", **changes}  # type: ignore[dict-item]
    parser = ConfigParser({**CONFIG, "network_def": network})
    with pytest.raises(Exception) as raised:
        parser.get_parsed_content(key)
    return raised.value


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"channels": [4]}, "the length of `channels`"),
        ({"strides": 5}, "TypeError: "),
        ({"chanels": [4, 8]}, "unexpected keyword argument 'chanels'"),
    ],
)
def test_a_component_that_cannot_be_built_is_named(changes: dict, found: str) -> None:
    cause = root_cause(build("network_def", **changes))
    assert type(cause) is InputError
    assert str(cause).startswith("component network_def (monai.networks.nets.UNet) cannot be built: ")
    assert found in str(cause) and "BUNDLE_TRACEBACK=1" in str(cause) and "\n" not in str(cause)


def test_an_expression_that_fails_is_named() -> None:
    assert str(root_cause(build("root"))).startswith("setting root cannot be built: math domain error; ")


def test_an_error_of_the_run_itself_is_unchanged() -> None:
    cause = root_cause(build("run::0"))
    assert type(cause) is ValueError and str(cause) == "math domain error"


NETWORK = {
    "network_def": {**CONFIG["network_def"], "channels": [4, 8], "strides": [2]},  # type: ignore[dict-item]
    "run": ["$@network_def"],
}


def run_bundle(folder: Path, config: dict = NETWORK, **options: object) -> BaseException:
    """Return the exception that ``monai.bundle.run`` raises for a config."""
    (folder / "train.json").write_text(json.dumps(config))
    (folder / "metadata.json").write_text("{}")
    with pytest.warns(UserWarning, match="parsing config_file"), pytest.raises(Exception) as raised:
        run(config_file=str(folder / "train.json"), logging_file=False, **options)  # type: ignore[arg-type]
    return raised.value


def test_an_option_is_shown_with_the_expected_type(tmp_path: Path) -> None:
    cause = root_cause(run_bundle(tmp_path, **{"network_def::channels": [4]}))
    assert isinstance(cause, UsageError)
    assert "; check --network_def::channels [4], expected Sequence[int] (" in str(cause)


BUILDER = {"_target_": "torch.nn.Linear", "_mode_": "callable", "in_features": 2, "out_features": "@size"}
CALLER = {
    "builder": BUILDER,
    "trainer": {"_target_": "timeit.timeit", "stmt": "@builder", "number": "@number"},
    "size": 2,
    "number": 1,
    "names": ["a"],
    "index": "$@names.index(@word)",
    "word": "a",
}


@pytest.mark.parametrize(
    ("run", "options", "check"),
    [
        ("$@trainer", {"builder::out_features": "x", "number": 2}, "check --builder::out_features x ("),
        ("$@trainer", {"size": "x", "number": 2}, "check its keys in the config files and the options ("),
        ("$@index", {"word": "b", "number": 2}, "check --word b ("),
    ],
)
def test_options_of_referenced_components_are_shown(tmp_path: Path, run: str, options: dict, check: str) -> None:
    cause = root_cause(run_bundle(tmp_path, {**CALLER, "run": [run]}, **options))
    assert type(cause) is (UsageError if "--" in check else InputError)
    assert check in str(cause)


def test_an_environment_variable_shows_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    show_input_errors_in_one_line()
    error = run_bundle(tmp_path, **{"network_def::channels": [4]})
    for value, tracebacks in (("0", 0), ("1", 1)):
        monkeypatch.setenv("BUNDLE_TRACEBACK", value)
        with pytest.raises(SystemExit, match=r"^2$"):
            sys.excepthook(type(error), error, error.__traceback__)
        shown = capsys.readouterr().err
        assert ("Traceback" in shown) == bool(tracebacks)
        assert shown.splitlines()[-1].startswith("error: component network_def (")
