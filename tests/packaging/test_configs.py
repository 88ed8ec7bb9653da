"""Configs for code under another name."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from common.packaging.archive import write_zip
from common.packaging.configs import Rewriting, merged

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


def test_all_that_is_used_is_named(rewriting: Rewriting) -> None:
    assert rewriting.names == {"text.shout", "text.pair", "text.Word", "files.read"}


def test_targets_wait_for_the_code(rewriting: Rewriting) -> None:
    config = rewriting(TRAIN)
    assert config["word"]["_target_"] == "own_v1.text.Word"
    assert config["word"]["text"] == "own.text.Word"  # a text, not a target
    inner = config["list"][0]
    assert "_requires_" not in inner and inner["_target_"] == "Compose"
    assert config["word"]["_requires_"] == inner["transforms"][0]["_requires_"] == "@bundle_code"
    assert TRAIN["word"]["_target_"] == "own.text.Word"  # the original is as it was


def test_imported_names_become_references_where_they_are_used(rewriting: Rewriting) -> None:
    config = rewriting(TRAIN)
    assert config["imports"][0] == TRAIN["imports"][0]
    assert not [line for line in config["imports"] if "own" in line]
    expected = "$@pair(first=@shout('shout it'), shout=@word::text) if @shout(@resume) else {'a':@shout(@list::0)}"
    assert config["both"] == expected
    assert config["other"] == TRAIN["other"] and config["shout_level"] == TRAIN["shout_level"]
    assert config["word"]["_disabled_"] == "$not @shout(@resume)"
    assert config["shout"] == {"_target_": "own_v1.text.shout", "_mode_": "callable", "_requires_": "@bundle_code"}


def test_an_overlay_uses_names_of_the_config_below(rewriting: Rewriting) -> None:
    config = rewriting(OVERLAY)
    assert config["+imports"] == ["$import os"]
    assert config["word::text"] == "$@shout('x')" and config["both"] == "$@read(@word)"
    assert config["read"]["_target_"] == "own_v1.files.read" and "shout" not in config


@pytest.mark.parametrize("expression", ["$f'{shout(1)}'", "$[1,\n shout(1)]"])
def test_an_expression_whose_names_cannot_be_told(rewriting: Rewriting, expression: str) -> None:
    if expression.startswith("$f") and sys.version_info >= (3, 12):
        assert rewriting({"a": expression})["a"] == "$f'{@shout(1)}'"
        return
    with pytest.raises(ValueError, match="expected one line, and no imported name in an f-string"):
        rewriting({"a": expression})


def test_one_name_for_two_things() -> None:
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


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Imports leave nothing behind."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.startswith("own_v1")]:
        del sys.modules[name]


CONFIG = {
    "imports": ["$from own.text import shout"],
    "bundle_root": ".",
    "word": {"_target_": "own.text.Word", "text": "$shout('a # b')"},
}


def test_the_code_is_found_in_the_folder(fresh: None, code: dict[str, str], tmp_path: Path) -> None:
    for name, text in code.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    parser = ConfigParser(Rewriting({"a": CONFIG}, "own", "own_v1")(CONFIG))
    parser["bundle_root"] = str(tmp_path)
    assert parser.get_parsed_content("word").text == "A :: B"  # what MONAI makes of "#" in any text


def test_a_config_can_carry_the_code(fresh: None, code: dict[str, str], tmp_path: Path) -> None:
    write_zip(tmp_path / "code.zip", {name: text.encode() for name, text in code.items()})
    rewriting = Rewriting({"a": CONFIG}, "own", "own_v1")
    config = rewriting.with_code(rewriting(CONFIG), (tmp_path / "code.zip").read_bytes())
    (tmp_path / "code.zip").unlink()
    word = ConfigParser(json.loads(json.dumps(config))).get_parsed_content("word")
    assert word.text == "A :: B"
    assert not Path(sys.modules[type(word).__module__].__file__ or "").is_relative_to(tmp_path)


def test_merging_keeps_to_what_a_config_has() -> None:
    config = {"network": {"width": 8}, "load": [1], "dataset_dir": "here", "same": True}
    overlay = {
        "network::width": 4,
        "+load": [2],
        "dataset_dir": "there",
        "unknown": 1,
        "unknown::deep": 2,
        "same": False,
    }
    assert merged(config, overlay) == {"network": {"width": 4}, "load": [1, 2], "dataset_dir": "here", "same": False}
    assert config["network"] == {"width": 8}
