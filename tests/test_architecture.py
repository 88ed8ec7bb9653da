"""Check the directions of imports, the names and the docstrings of the code."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import BUNDLES

COMMON = Path(__file__).parents[1] / "common"
PATHS = [path.relative_to(COMMON) for path in sorted(COMMON.rglob("*.py"))]

# What each part of `common` imports from the others. A part imports only parts above it. Add an entry for a new import,
# and remove an entry that nobody uses any more.
IMPORTS: dict[str, set[str]] = {
    "__init__": set(),
    "component_errors": set(),
    "errors": {"component_errors"},
    "child": {"errors"},
    "processes": set(),
    "tensors": set(),
    "layers": {"errors"},
    "rivals": {"errors", "layers"},
    "files": {"errors"},
    "bundle_list": {"errors", "files"},
    "geometry": {"errors"},
    "memory": {"errors"},
    "logs": {"errors"},
    "rules": {"errors"},
    "tracking": {"errors"},
    "running_config": {"errors"},
    "overlays": {"errors", "rules", "running_config"},
    "typed_texts": {"rules"},
    "options": {"errors", "overlays", "rules", "running_config", "tracking", "typed_texts"},
    "label_names": {"errors", "files"},
    "labels": {"errors", "label_names"},
    "session": {"errors", "files", "logs", "options", "rules", "typed_texts"},
    "phantoms": {"errors", "files"},
    "metrics": {"errors", "labels"},
    "inferers": {"errors", "layers", "memory", "rules", "tensors"},
    "data": {"errors", "files", "geometry", "label_names", "labels", "memory", "tensors"},
    "transforms": {"data", "errors", "files", "geometry", "label_names", "labels", "memory", "tensors"},
    "nnunet": {"data", "errors", "files", "geometry", "label_names", "labels", "tensors", "transforms"},
    "record": {"data", "errors", "files", "overlays", "processes", "rules", "running_config"},
    "reporting": {"errors", "files", "label_names"},
    "figures": {"data", "errors", "files", "geometry", "label_names", "reporting"},
    "report": {"data", "errors", "figures", "files", "reporting"},
    "handlers": {"errors", "figures", "files", "geometry", "tensors"},
    "engines": {"data", "errors", "files", "layers", "processes", "record", "reporting", "rules", "running_config"},
    "methods": {"data", "engines", "errors", "inferers", "labels", "layers", "phantoms", "tensors", "transforms"},
    "doctor": {
        "data", "engines", "errors", "files", "geometry", "inferers", "labels", "layers", "logs", "memory", "overlays",
        "rules", "transforms", "typed_texts",
    },
    "planning": {
        "data", "doctor", "errors", "files", "inferers", "label_names", "labels", "layers", "memory", "overlays",
        "rules", "tensors", "transforms",
    },
    "packaging": {
        "engines", "errors", "files", "geometry", "labels", "memory", "overlays", "phantoms", "record", "reporting",
        "rules", "typed_texts",
    },
    "crossval": {"child", "data", "engines", "errors", "files", "overlays", "record", "reporting", "rules"},
    "verbs": {
        "bundle_list", "crossval", "data", "doctor", "errors", "figures", "files", "nnunet", "packaging", "phantoms",
        "planning", "report", "reporting", "rules",
    },
    "__main__": {"errors", "logs", "rules", "verbs"},
}  # fmt: skip


@functools.cache
def parsed_files() -> dict[Path, ast.Module]:
    """Return the parsed files of ``common``, by their paths in it."""
    return {path: ast.parse((COMMON / path).read_text()) for path in PATHS}


@functools.cache
def parsed_tests() -> dict[Path, ast.Module]:
    """Return the parsed files of the tests, by their paths."""
    return {path: ast.parse(path.read_text()) for path in sorted(Path(__file__).parent.rglob("*.py"))}


def run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes except those that only a type checker sees."""
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from run_time_nodes(child)


def own_imports(path: Path) -> set[tuple[str, ...]]:
    """Return the modules of ``common`` that a file imports, as the parts of their names."""
    found = set()
    for node in run_time_nodes(parsed_files()[path]):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parent.parts[: len(path.parent.parts) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {(*base, *name.split(".")) for name in names}
    return found


def test_own_modules_are_imported_relatively() -> None:
    for path, tree in parsed_files().items():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            assert not {"common", "bundles"} & {name.split(".")[0] for name in names}, path


def imports_of(part: str) -> set[str]:
    """Return the other parts that the files of a part import."""
    files = [path for path in PATHS if path.with_suffix("").parts[0] == part]
    return {module[0] for path in files for module in own_imports(path)} - {part}


@pytest.mark.parametrize("part", sorted({path.with_suffix("").parts[0] for path in PATHS}))
def test_a_part_imports_what_the_table_lists(part: str) -> None:
    assert imports_of(part) == IMPORTS[part]


def test_the_table_has_an_order() -> None:
    above: set[str] = set()
    for part, imported in IMPORTS.items():
        assert imported <= above, part
        above.add(part)


def test_no_method_imports_another() -> None:
    for path in PATHS:
        if path.parts[0] == "methods" and len(path.parts) > 2:
            of_methods = [module for module in own_imports(path) if module[0] == "methods"]
            assert all(module[1] == path.parts[1] for module in of_methods), path


def test_shared_code_names_no_bundle_and_no_method() -> None:
    methods = {bundle.name.rpartition("_")[2] for bundle in BUNDLES}
    for path, tree in parsed_files().items():
        text = (COMMON / path).read_text().lower()
        assert not [bundle.name for bundle in BUNDLES if bundle.name in text], path
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # may cite methods
        literals = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docstrings]
        if path.parts[0] != "methods":
            assert not [n.value for n in literals if any(m in str(n.value).lower() for m in methods)], path


def test_only_commands_print() -> None:
    for path, tree in parsed_files().items():
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        if path.parts[0] not in ("__main__.py", "verbs", "errors.py"):
            assert "print" not in [function.id for function in calls if isinstance(function, ast.Name)], path


def test_no_file_holds_a_path_of_one_machine() -> None:
    folders = "Users|data|home|mnt|opt|root|srv|tmp|usr|var|work|workspace"
    files = [COMMON / path for path in PATHS] + [f for b in BUNDLES for f in b.glob("configs/**/*.*")]
    for path in files:
        # a path after a quote is relative in a config, such as @bundle_root + '/data'
        assert not re.findall(rf"(?<![\w.:/~'])/(?:{folders})\b|\b[A-Z]:[\\/]", path.read_text()), path


def test_every_file_has_a_docstring() -> None:
    assert not [path for path, tree in parsed_files().items() if not (ast.get_docstring(tree) or "").strip()]


# Private names of other libraries that tests use, because there is no public way.
OF_LIBRARIES = {
    "_BatchNorm",  # the base of torch's classes
    "_cache",  # MONAI's CacheDataset: the cached cases
    "_check_optional_id",  # MONAI's ConfigWorkflow: whether a property is where it says
    "_forward_hooks", "_backward_hooks", "_forward_pre_hooks",  # torch's modules
    "_python_dispatch",  # torch's modes that see every operation
}  # fmt: skip


def private_names(tree: ast.AST) -> set[str]:
    """Return the private names that a file takes from other modules and objects."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            names |= {part for alias in node.names for part in (*(node.module or "").split("."), alias.name)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_tests_use_no_private_names() -> None:
    tests = Path(__file__).parent
    found = {
        (str(path.relative_to(tests)), name) for path, tree in parsed_tests().items() for name in private_names(tree)
    }
    assert not {(path, name) for path, name in found if name not in OF_LIBRARIES}


def test_each_method_and_each_bundle_has_its_tiny_form() -> None:
    folders = {path.parents[1].name for path in COMMON.parent.glob("bundles/*/configs/train.json")}
    shipped = {path.parents[1].name for path in COMMON.parent.glob("bundles/*/sample/dataset.json")}  # has own tests
    assert {bundle.name for bundle in BUNDLES} == folders - shipped and len(shipped) == 1
    tiny = {path.parent.name for path in Path(__file__).parent.glob("methods/*/tiny.py")}
    assert tiny == {path.parent.name for path in COMMON.glob("methods/*/__init__.py")}


def test_a_test_file_names_nothing_of_another_method() -> None:
    methods = {path.parent.name for path in COMMON.glob("methods/*/__init__.py")}
    for path, tree in parsed_tests().items():
        if path.parent.name in methods:
            imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            named = {part for node in imports for part in (node.module or "").split(".")}
            assert not named & (methods - {path.parent.name}), path


LONGEST_TEST_NAME = 60
PROGRAMS = ("benchmarks", "diagrams", "reproduce", "studies")  # folders beside common and tests
VERBS = """
Adapt Add Adjust Advance Align Append Apply Assign Attach Augment Average Begin Blend Bound Build Cache Call Change
Check Choose Claim Classify Clip Close Collect Combine Compare Complete Compute Continue Convert Convolve Copy Correct
Count Cover Create Crop Cross-validate Cut Decide Decode Define Deform Depend Derive Describe Detect Distinguish
Divide Double Draw Drop Encode End Erase Estimate Evaluate Examine Exchange Expand Explain Extend Extract Fail Fill
Find Fire Fit Flip Follow Fork Forward Freeze Fuse Gather Get Give Group Guide Halve Hash Hold Identify Ignore
Implement Import Infer Initialise Initialize Install Interpolate Iterate Join Keep Label Leave Let Limit Lint List
Load Locate Lock Log Look Lower Make Map Mark Mask Match Measure Merge Mix Move Multiply Name Normalise Normalize Note
Open Order Pack Pad Parse Pass Pick Place Plan Plot Pool Post-process Predict Prepare Print Process Project Provide
Put Raise Randomise Read Rebuild Recognise Record Reduce Refine Refuse Register Release Remove Rename Replace Report
Represent Resample Rescale Reset Resize Resolve Restore Resume Return Rewrite Rotate Round Run Sample Save Say Scale
Score Script Search Segment Select Send Separate Set Share Shift Show Shuffle Silence Simulate Skip Sort Split Stack
Stand Standardise Start Stop Store Sum Summarise Supervise Take Tell Test Track Train Transform Translate Trim Turn
Unpack Unstack Up-sample Update Upsample Use Validate Verify Wait Warn Weigh Weight Widen Work Wrap Write Yield
"""  # the first words of docstrings; add one where it reads well


def test_a_test_name_has_at_most_60_characters() -> None:
    names = [
        node.name for tree in parsed_tests().values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    ]
    assert not [name for name in names if name.startswith("test_") and len(name) > LONGEST_TEST_NAME]


def is_test(node: ast.AST) -> bool:
    """Return whether a node is a test, which is described by its name; its docstring may give a reason or figures."""
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_")


def test_a_docstring_begins_with_a_verb_and_ends_its_sentence() -> None:
    programs = [path for folder in PROGRAMS for path in sorted((COMMON.parent / folder).rglob("*.py"))]
    trees = parsed_files() | parsed_tests() | {path: ast.parse(path.read_text()) for path in programs}
    wrong = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and not is_test(node):
                sentence = (ast.get_docstring(node) or "").partition("\n\n")[0]
                if sentence and not (sentence.split()[0].strip(".,:;") in VERBS.split() and sentence.endswith(".")):
                    wrong.append(f"{path}: {getattr(node, 'name', 'module')}: {sentence.splitlines()[0]}")
    assert not wrong, "\n".join(wrong)
