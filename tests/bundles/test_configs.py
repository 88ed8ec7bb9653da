"""Check every config of every bundle as users merge them."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from pydoc import locate
from typing import Any

import numpy as np
import pytest
from monai.bundle import ComponentLocator, ConfigComponent, ConfigExpression, ConfigParser, ReferenceResolver
from monai.data import MetaTensor

from common.data import load_cases

from ..conftest import BUNDLES
from ..workflows import parser_of

LOCATOR = ComponentLocator()
located = functools.cache(locate)
FILES = [file for bundle in BUNDLES for file in sorted(bundle.glob("configs/**/*.json"))]


def compositions(bundle: Path) -> Iterator[tuple[str, ...]]:
    """Return the files of a user's ``--config_file``, the uppermost overlay last."""
    for base in [("train",), ("train", "evaluate"), ("inference",)]:
        yield base
        for overlay in ("multi_gpu_train", "demo"):
            yield (*base, overlay)
        if base != ("inference",):
            for folder in ("ablations", "tasks"):
                yield from (
                    (*base, f"{folder}/{file.stem}") for file in sorted(bundle.glob(f"configs/{folder}/*.json"))
                )
        yield from ((*base, f"rivals/{file.stem}") for file in sorted(bundle.glob("configs/rivals/*.json")))
        if base != ("train",) and (bundle / "configs" / "ensemble.json").exists():
            yield (*base, "ensemble")
        if base == ("inference",) and (bundle / "configs" / "explain.json").exists():
            yield (*base, "explain")
        if base == ("train", "evaluate") and (bundle / "configs" / "evaluate_roi.json").exists():
            yield (*base, "evaluate_roi")


each_bundle = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)


@functools.cache
def parsed(bundle: Path, names: tuple[str, ...]) -> ConfigParser:
    parser = parser_of(bundle, *names)
    parser.parse()
    return parser


def named_compositions(bundle: Path) -> Iterator[tuple[str, ...]]:
    """Yield the compositions of a bundle and print each, so that a failure shows where it happened."""
    for names in compositions(bundle):
        print(bundle.name, "+".join(names))
        yield names


def items(config: Any, id: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every entry of a config with its id."""
    yield id, config
    if isinstance(config, (dict, list)):
        for key, value in config.items() if isinstance(config, dict) else enumerate(config):
            yield from items(value, f"{id}::{key}" if id else str(key))


def references(config: Any) -> set[str]:
    values = [value for _, value in items(config) if isinstance(value, str)]
    return {reference for value in values for reference in ReferenceResolver.match_refs_pattern(value)}


# Keywords that go on to other than the bases.
PASSED_ON = {"SpatialPadd": {"value"}}


@functools.cache
def keywords(component: Callable) -> set[str] | None:
    """Return the keywords that a class or function takes, also by ``**kwargs`` of its bases; None for any."""
    classes = inspect.getmro(component) if inspect.isclass(component) else ()
    inits = [vars(c)["__init__"] for c in classes if "__init__" in vars(c)] or [component]
    names: set[str] = set()
    for init in inits:
        if init is object.__init__:
            break
        parameters = inspect.signature(init).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names
    return None


def test_no_key_is_there_twice() -> None:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [key for key, _ in pairs]
        assert len(names) == len(set(names)), (file, names)
        return dict(pairs)

    assert FILES
    for file in FILES:
        json.loads(file.read_text(), object_pairs_hook=unique)


@each_bundle
def test_no_overlay_sets_what_nothing_reads(bundle: Path) -> None:
    """A misspelt key would be added beside the one it means."""
    # an overlay of train and of inference may set what only one of them has; check_settings reads `unsupported`
    known = {key for name in ("train", "inference") for key in parser_of(bundle, name).get()} | {"unsupported"}
    for *below, overlay in named_compositions(bundle):
        if not below:
            continue
        base, used = parser_of(bundle, *below), references(parser_of(bundle, *below, overlay).get())
        for key in json.loads((bundle / "configs" / f"{overlay}.json").read_text()):
            id = ReferenceResolver.normalize_id(key.removeprefix("+"))
            # what a component takes is the next test but one's
            argument = "::" in id and ConfigComponent.is_instantiable(base.get(id.rpartition("::")[0]))
            assert id in base or id in known or id in used or argument, f"{overlay}.json: nothing reads {key}"
            assert not key.startswith("+") or id in base, f"{overlay}.json: nothing to add {key} to"


@each_bundle
def test_references_are_to_what_is_there(bundle: Path) -> None:
    for names in named_compositions(bundle):
        parser = parsed(bundle, names)
        assert not [reference for reference in references(parser.get()) if reference not in parser]


@each_bundle
def test_targets_exist_and_take_their_keywords(bundle: Path) -> None:
    for names in named_compositions(bundle):
        parser = parsed(bundle, names)
        components = [(id, c) for id, c in items(parser.get()) if ConfigComponent.is_instantiable(c)]
        assert len(components) > 5
        for id, config in components:
            component = ConfigComponent(config, id, LOCATOR)  # a new one searches all of MONAI's modules
            target: Any = located(component.resolve_module_name())
            assert callable(target), f"{id}: no {config['_target_']}"
            given, known = component.resolve_args(), keywords(target)
            if known is not None:
                known = known | PASSED_ON.get(target.__name__, set())
            assert known is None or given.keys() <= known, f"{id}: {config['_target_']} takes no {given.keys() - known}"
            if config.get("_mode_", "default") == "default":
                inspect.signature(target).bind(**given)  # what it must have is there


@each_bundle
def test_expressions_name_what_is_imported(bundle: Path) -> None:
    for composition in named_compositions(bundle):
        parser = parsed(bundle, composition)
        names = {"monai", "torch", "np", "numpy", *vars(builtins)}
        for statement in parser["imports"]:
            (node,) = ast.parse(statement.removeprefix("$")).body
            assert isinstance(node, (ast.Import, ast.ImportFrom)), statement
            for alias in node.names:
                if isinstance(node, ast.ImportFrom):
                    assert hasattr(import_module(node.module or ""), alias.name), statement
                else:
                    import_module(alias.name)
                names.add(alias.asname or alias.name)
        for id, value in items(parser.get()):
            if not ConfigExpression.is_expression(value) or id.startswith("imports"):
                continue
            tree = ast.parse(ReferenceResolver.id_matcher.sub("monai", value.removeprefix("$")), mode="eval")
            bound = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
            bound |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            assert {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} <= names | bound, f"{id}: {value}"


@each_bundle
def test_train_and_inference_agree(bundle: Path) -> None:
    train, inference = parser_of(bundle, "train").get(), parser_of(bundle, "inference").get()
    # training also loads the label, computes statistics that inference reads beside the weights, and may go on from
    # the weights in a folder of its own
    own = {"_meta_", "ckpt_dir", "imports", "initialize", "intensity", "log_file", "network", "run"}
    shared = train.keys() & inference.keys() - own
    assert shared >= {"bundle_root", "dataset_dir", "network_def", "output_dir"}
    assert {key: train[key] for key in shared} == {key: inference[key] for key in shared}
    inferer = train["validate"]["inferer"]
    assert (train["inferer"] if inferer == "@inferer" else inferer) == inference["inferer"]


@each_bundle
def test_a_host_finds_each_step_of_inference_by_its_class(bundle: Path) -> None:
    # A program that reads and writes the images itself leaves out LoadImaged and the writers. It finds them in the
    # config, without building anything, so both lists have to be written out.
    config = parser_of(bundle, "inference")
    for key in ("preprocessing", "postprocessing"):
        steps = config[f"{key}::transforms"]
        assert isinstance(steps, list) and all(isinstance(step, dict) and "_target_" in step for step in steps)
    assert config["preprocessing::transforms::0::_target_"] == "LoadImaged"


@each_bundle
def test_validation_and_inference_see_the_same_image(workflow: Callable, cohort: Callable, bundle: Path) -> None:
    training = workflow(bundle, "train").parser
    inference = workflow(bundle, "inference", weights="untrained").parser
    (case, *_) = load_cases(cohort(bundle), "test")
    one = training.get_parsed_content("validate::preprocessing")(case)["image"]
    other = inference.get_parsed_content("preprocessing")({k: v for k, v in case.items() if k != "label"})["image"]
    assert isinstance(one, MetaTensor) and one.std() > 0
    np.testing.assert_array_equal(one.numpy(), other.numpy())
    np.testing.assert_array_equal(one.affine, other.affine)


@each_bundle
def test_evaluation_and_inference_come_to_the_same_label_map(bundle: Path) -> None:
    """Evaluation scores it, inference writes it; a bundle may score or write more, or know another code."""
    own = ("CopyItemsd", "LungBoxd", "ToBratsd", "LabelValuesd", "SaveImaged", "SaveProbabilitiesd", "WriteDicomSegd")
    evaluation, inference = parser_of(bundle, "train", "evaluate"), parser_of(bundle, "inference")
    steps = [
        [{k: v for k, v in step.items() if k != "keys"} for step in config if not step["_target_"].endswith(own)]
        for config in (evaluation["validate::postprocessing::transforms"], inference["postprocessing::transforms"])
    ]
    assert [step for step in steps[0] if step.get("output") != "probabilities"] == steps[1]
    switches = {r for r in references(steps[1]) if "::" not in r}
    assert {key: evaluation[key] for key in switches} == {key: inference[key] for key in switches}


@each_bundle
def test_a_run_locks_the_folder_of_its_results(bundle: Path) -> None:
    """Expect so wherever the log file is, since two processes would mix their results."""
    for names, folder in (
        (("train",), "ckpt_dir"),
        (("train", "evaluate"), "output_dir"),
        (("inference",), "output_dir"),
    ):
        (session,) = (step for step in parsed(bundle, names).get("run") if "start_session" in str(step))
        assert session["folder"] == f"@{folder}"
