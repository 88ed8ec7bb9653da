"""Test configs that take their code from a package of another name."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from common.packaging.archive import zip_bytes
from common.packaging.configs import Rewriting

from .grammar import violations

TRAIN: dict[str, Any] = {
    "imports": ["$import ignite.distributed as idist", "$from own.text import shout", "$from own.text import pair"],
    "bundle_root": ".",
    "resume": "true",
    "word": {"_target_": "own.text.Word", "text": "own.text.Word", "_disabled_": "$not shout(@resume)"},
    "list": [{"_target_": "Compose", "transforms": [{"_target_": "own.text.Word", "text": "b"}]}],
    "both": "$pair(first=shout('shout it'), shout=@word#text) if shout(@resume) else {'a':shout(@list#0)}",
    "other": "$idist.shout(1) + @shout_level",
    "shout_level": "plain text that names shout and own.text",
}
OVERLAY: dict[str, Any] = {
    "+imports": ["$from own.files import read", "$import os"],
    "both": "$read(@word)",
    "word::text": "$shout('x')",
}


@pytest.fixture
def rewriting() -> Rewriting:
    return Rewriting({"train.json": TRAIN, "overlay.json": OVERLAY}, "own", "own_v1")


def test_names_are_those_that_the_configs_use(rewriting: Rewriting) -> None:
    assert rewriting.names == {"text.shout", "text.pair", "text.Word", "files.read"}


def test_target_is_renamed_and_requires_the_code(rewriting: Rewriting) -> None:
    config = rewriting(TRAIN)
    assert config["word"]["_target_"] == "own_v1.text.Word"
    assert config["word"]["text"] == "own.text.Word"  # text, not a target
    inner = config["list"][0]
    assert "_requires_" not in inner and inner["_target_"] == "Compose"
    assert config["word"]["_requires_"] == inner["transforms"][0]["_requires_"] == "@bundle_code"
    assert TRAIN["word"]["_target_"] == "own.text.Word"  # the original stays


def test_imported_name_becomes_a_reference(rewriting: Rewriting) -> None:
    config = rewriting(TRAIN)
    assert config["imports"][0] == TRAIN["imports"][0]
    assert not [line for line in config["imports"] if "own" in line]
    expected = "$@pair(first=@shout('shout it'), shout=@word::text) if @shout(@resume) else {'a':@shout(@list::0)}"
    assert config["both"] == expected
    assert config["other"] == TRAIN["other"] and config["shout_level"] == TRAIN["shout_level"]
    assert config["word"]["_disabled_"] == "$not @shout(@resume)"
    assert config["shout"] == {"_target_": "own_v1.text.shout", "_mode_": "callable", "_requires_": "@bundle_code"}


def test_overlay_uses_names_that_another_config_imports(rewriting: Rewriting) -> None:
    config = rewriting(OVERLAY)
    assert config["+imports"] == ["$import os"]
    assert config["word::text"] == "$@shout('x')" and config["both"] == "$@read(@word)"
    assert config["read"]["_target_"] == "own_v1.files.read" and "shout" not in config


@pytest.mark.parametrize("expression", ["$f'{shout(1)}'", "$[1,\n shout(1)]"])
def test_name_in_an_f_string_or_a_second_line_is_refused(rewriting: Rewriting, expression: str) -> None:
    if expression.startswith("$f") and sys.version_info >= (3, 12):
        assert rewriting({"a": expression})["a"] == "$f'{@shout(1)}'"
        return
    with pytest.raises(ValueError, match="imported names in an f-string"):
        rewriting({"a": expression})


def test_name_with_two_meanings_is_refused() -> None:
    with pytest.raises(ValueError, match="'read'"):
        Rewriting(
            {"a": {"imports": ["$from own.a import read"]}, "b": {"imports": ["$from own.b import read"]}}, "own", "x"
        )
    with pytest.raises(ValueError, match="'word'"):
        Rewriting({"a": {"imports": ["$from own.a import word"]}, "b": {"word": 1}}, "own", "x")


@pytest.fixture
def code() -> dict[str, str]:
    return {
        "own_v1/__init__.py": "",
        "own_v1/text.py": "def shout(x): return str(x).upper()\n"
        "class Word:\n    def __init__(self, text): self.text = text\n",
    }


def write_code(folder: Path, code: dict[str, str]) -> None:
    for name, text in code.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove the package of code after a test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.startswith("own_v1")]:
        del sys.modules[name]


CONFIG = {
    "imports": ["$from own.text import shout"],
    "bundle_root": ".",
    "word": {"_target_": "own.text.Word", "text": "$shout('a # b')"},
}


def test_code_is_found_in_the_bundle_root(fresh: None, code: dict[str, str], tmp_path: Path) -> None:
    write_code(tmp_path, code)
    parser = ConfigParser(Rewriting({"a": CONFIG}, "own", "own_v1")(CONFIG))
    parser["bundle_root"] = str(tmp_path)
    assert parser.get_parsed_content("word").text == "A :: B"  # MONAI writes :: for # in every text


def test_a_package_without_its_code_names_the_folder(fresh: None, tmp_path: Path) -> None:
    parser = ConfigParser(Rewriting({"a": CONFIG}, "own", "own_v1")(CONFIG))
    parser["bundle_root"] = str(tmp_path)
    with pytest.raises(SystemExit) as ended:
        parser.get_parsed_content("word")
    assert ended.value.code == (f"error: {tmp_path}/own_v1: no such folder, but it has the code; get the package again")


def test_workflow_finds_the_folder_of_its_config(
    fresh: None, code: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run a package's config from another folder, without the option ``bundle_root``."""
    write_code(tmp_path / "package", code)
    (tmp_path / "package" / "configs").mkdir()
    config = {**CONFIG, "run": ["$@word.text"]}
    rewritten = Rewriting({"a": config}, "own", "own_v1")(config)
    for name, content in (("inference", rewritten), ("metadata", {"version": "0.1.0"})):
        (tmp_path / "package" / "configs" / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    flow = ConfigWorkflow(str(tmp_path / "package" / "configs" / "inference.json"), logging_file=False)
    flow.initialize()
    assert flow.run() == ["A :: B"]
    assert flow.parser.get_parsed_content("bundle_root") == str(tmp_path / "package")


def test_rewriting_stays_within_the_grammar() -> None:
    rewriting = Rewriting({"a": CONFIG}, "own", "own_v1")
    config = rewriting(CONFIG)
    assert violations(config) == violations(rewriting.with_code(config, b"")) == set()


@pytest.mark.parametrize("expression", ["$lambda x: x", "$[x for x in @a]", "$next(x for x in @a)", "$(x := 1)"])
def test_grammar_refuses_other_syntax(expression: str) -> None:
    assert violations({"a": [{"b": expression}]})


def test_config_carries_its_code(fresh: None, code: dict[str, str], tmp_path: Path) -> None:
    rewriting = Rewriting({"a": CONFIG}, "own", "own_v1")
    config = rewriting.with_code(rewriting(CONFIG), zip_bytes({name: text.encode() for name, text in code.items()}))
    word = ConfigParser(json.loads(json.dumps(config))).get_parsed_content("word")
    assert word.text == "A :: B"
    assert not Path(sys.modules[type(word).__module__].__file__ or "").is_relative_to(tmp_path)
