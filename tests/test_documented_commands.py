"""Check the commands of README.md, the pages and the model cards: each is one that works, and cheap ones are run."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from common.__main__ import main
from common.options import refuse_unknown_options
from common.packaging.views import view_configs
from common.verbs import function_of
from studies.__main__ import parser_of
from studies.study import studies

from .conftest import BUNDLES

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("bundles/*/docs/README.md")),
]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:\S*python|torchrun|make)\s[^`]*)`")
MODULES = r"monai\.bundle|common|benchmarks|studies|pytest"
PLACEHOLDER = re.compile(r"^[A-Z]+$|^<.*>$|\.\.\.")  # VERB, <bundle>, ...


class Command(NamedTuple):
    """Hold a command of a page; a command within a sentence may leave arguments out."""

    page: Path
    words: list[str]
    whole: bool = True

    def after(self, *words: str) -> list[str] | None:
        """Return the words after these in a row, or None where they are not there."""
        count = len(words)
        starts = [i for i in range(len(self.words)) if tuple(self.words[i : i + count]) == words]
        return self.words[starts[0] + count :] if starts else None


def commands(page: Path) -> Iterator[Command]:
    """Yield the commands of a page's shell blocks, with the variables that the page sets, and those in sentences."""
    text = page.read_text()
    for inline in INLINE.findall(FENCE.sub("", text)):
        yield Command(page, shlex.split(inline), whole=False)
    variables: dict[str, str] = {}
    for _, language, block in FENCE.findall(text):
        if language not in ("", "bash", "sh", "console"):
            continue
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            line = re.sub(r"\$\{?(\w+)\}?", lambda m: variables.get(m[1], m[0]), line)
            assignment = re.fullmatch(r"\s*(\w+)=(\S+|\".*\")\s*(?:#.*)?", line)
            if assignment:
                variables[assignment[1]] = assignment[2].strip('"')
                continue
            if re.match(rf"\s*(make\b|(\S*python|torchrun)\b.* -m ({MODULES})\b)", line):
                yield Command(page, shlex.split(line, comments=True))


COMMANDS = [command for page in PAGES for command in commands(page)]


def options_of(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Split words into positional arguments and options."""
    given, options = [], {}
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            options[name] = value if equals else next(rest, "")
        else:
            given.append(word)
    return given, options


def named(command: Command) -> str:
    return f"{command.page.relative_to(ROOT)}:{' '.join(command.words)[:70]}"


def those(*words: str) -> list[Command]:
    return [command for command in COMMANDS if command.after(*words) is not None]


def config_files(command: Command, text: str) -> Iterator[list[Path]]:
    """Yield the config files of a ``--config_file``, for each bundle that the command can be meant for.

    A path may name the bundle, also as a package; a model card is about its own; any other page is about all. A file
    that is not in a folder ``configs`` is the user's own, which no test can know.
    """
    names = [name.strip(" '") for name in text.strip("[]").split(",")]
    by_name = [bundle for bundle in BUNDLES if f"{bundle.name}/" in text]
    by_page = [bundle for bundle in BUNDLES if command.page.is_relative_to(bundle)]
    for bundle in by_name or by_page or BUNDLES:
        yield [bundle / re.sub(r"^(.*/)?configs/", "configs/", name) for name in names if "configs/" in name]


@pytest.mark.parametrize("command", those("-m", "monai.bundle", "run"), ids=named)
def test_a_bundle_run_names_files_and_options_that_exist(command: Command, tmp_path: Path) -> None:
    views = view_configs("package")  # configs that only packages have
    for name, config in views.items():
        (tmp_path / name).write_text(json.dumps(config))
    given, options = options_of(command.after("-m", "monai.bundle", "run") or [])
    assert not [word for word in given if not PLACEHOLDER.search(word)]
    if not command.whole and "config_file" not in options:
        return
    for paths in config_files(command, options["config_file"]):
        files = [tmp_path / path.name if path.name in views else path for path in paths]
        assert files and not [file for file in files if not file.is_file()]
        refuse_unknown_options({*options}, [str(file) for file in files])


@pytest.mark.parametrize("command", those("-m", "common") + those("-m", "benchmarks"), ids=named)
def test_a_verb_and_its_options_exist(command: Command) -> None:
    ours = command.after("-m", "common")
    verb, *rest = command.after("-m", "benchmarks") if ours is None else ours
    if not PLACEHOLDER.search(verb):
        given, options = options_of([word for word in rest if word != "..."])
        signature = inspect.signature(getattr(benchmarks, verb) if ours is None else function_of(verb))
        bind = signature.bind if command.whole else signature.bind_partial
        bind(*given, **options)


@pytest.mark.parametrize("command", those("-m", "studies"), ids=named)
def test_a_study_and_its_options_exist(command: Command) -> None:
    verb, *rest = command.after("-m", "studies") or []
    assert verb in (*studies(), "report", "page") or not command.whole or PLACEHOLDER.search(verb)
    parser_of(verb).parse_args(rest)


@pytest.mark.parametrize("command", those("-m", "pytest"), ids=named)
def test_a_part_of_the_tests_exists(command: Command) -> None:
    for word in command.after("-m", "pytest") or []:
        assert not word.startswith("tests") or (ROOT / word).exists()


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.words[0] == "make"], ids=named)
def test_a_target_of_make_exists(command: Command) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in command.words[1:]:
        variable, equals, value = word.partition("=")
        assert re.search(rf"^{variable} \?=" if equals else rf"^{word}:", makefile, re.MULTILINE), word
        assert variable != "BUNDLE" or PLACEHOLDER.search(value) or value in [bundle.name for bundle in BUNDLES]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Command], None]:
    """Run a command of ``python -m common`` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(command: Command) -> None:
        monkeypatch.setattr(sys, "argv", ["common", *(command.after("-m", "common") or [])])
        main()

    return run


def test_the_readmes_data_list_is_written(typed: Callable, write_nifti: Callable, tmp_path: Path) -> None:
    (command,) = [c for c in those("-m", "common", "datalist", "folders") if c.page.name == "README.md"][:1]
    for number in range(1, 11):
        for name in ("CT", "seg"):
            write_nifti(f"mydata/P{number:03}/{name}.nii.gz", np.zeros((2, 2, 2), np.uint8))
    typed(command)
    assert (tmp_path / "mydata" / "dataset.json").exists()


def test_the_channels_of_the_page_on_label_are_stacked(typed: Callable, write_nifti: Callable, tmp_path: Path) -> None:
    (command,) = [c for c in those("-m", "common", "stack") if c.page.name == "monai-label.md"]
    for name in ("T1", "T2", "CET1"):
        write_nifti(f"P001/{name}.nii.gz", np.ones((4, 4, 2), np.float32))
    typed(command)
    assert (tmp_path / "studies" / "P001.nii.gz").exists()


def test_the_page_quotes_the_refusal_of_omnet(typed: Callable) -> None:
    page = ROOT / "docs" / "how-to" / "own-organ.md"
    words = shlex.split("python -m common plan brain_mri_omnet --dataset_dir data --out plan.json")
    with pytest.raises(SystemExit) as refusal:
        typed(Command(page, words))
    assert str(refusal.value).replace(f"{ROOT}/bundles", "...") in " ".join(page.read_text().split())


def test_the_pages_have_commands_of_every_kind() -> None:
    for words in (("monai.bundle", "run"), ("common",), ("benchmarks",), ("studies",), ("pytest",)):
        assert those("-m", *words), words
