"""Every config of every bundle as users merge them, and that each bundle's say what its paper says."""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import math
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from pydoc import locate
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from monai.bundle import ConfigComponent, ConfigExpression, ConfigParser, ReferenceResolver
from monai.data import MetaTensor

from common.data import load_cases
from common.engines import Stage
from common.methods.mmfnet import ClipChannelsd, MMFNet

from ..conftest import BUNDLES
from ..methods.mmfnet.tiny import MMFNET
from ..methods.omnet.tiny import OMNET
from ..workflows import parameters, parser_of, rates_of

FILES = [file for bundle in BUNDLES for file in sorted(bundle.glob("configs/**/*.json"))]


def compositions(bundle: Path) -> Iterator[tuple[str, ...]]:
    """What the ``--config_file`` of a user names, the overlay that is the last one on top."""
    for base in [("train",), ("train", "evaluate"), ("inference",)]:
        yield base
        for overlay in ("multi_gpu_train", "demo"):
            yield (*base, overlay)
        if base != ("inference",):
            for folder in ("ablations", "tasks"):
                yield from (
                    (*base, f"{folder}/{file.stem}") for file in sorted(bundle.glob(f"configs/{folder}/*.json"))
                )
        if base != ("train",) and (bundle / "configs" / "ensemble.json").exists():
            yield (*base, "ensemble")
        if base == ("inference",) and (bundle / "configs" / "explain.json").exists():
            yield (*base, "explain")
        if base == ("train", "evaluate") and (bundle / "configs" / "evaluate_roi.json").exists():
            yield (*base, "evaluate_roi")


class Merged(NamedTuple):
    bundle: Path
    names: tuple[str, ...]
    parser: ConfigParser


MERGED = [(bundle, names) for bundle in BUNDLES for names in compositions(bundle)]


@pytest.fixture(params=MERGED, ids=lambda m: f"{m[0].name}:{'+'.join(m[1])}")
def merged(request: pytest.FixtureRequest) -> Merged:
    bundle, names = request.param
    return Merged(bundle, names, parser_of(bundle, *names))


def items(config: Any, id: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in a config with its id."""
    yield id, config
    if isinstance(config, (dict, list)):
        for key, value in config.items() if isinstance(config, dict) else enumerate(config):
            yield from items(value, f"{id}::{key}" if id else str(key))


def references(config: Any) -> set[str]:
    values = [value for _, value in items(config) if isinstance(value, str)]
    return {reference for value in values for reference in ReferenceResolver.match_refs_pattern(value)}


# Keywords that go on to other than the bases.
PASSED_ON = {"SpatialPadd": {"value"}}


def keywords(component: Callable) -> set[str] | None:
    """The keywords that a class or function takes, through ``**kwargs`` to the bases; None for any."""
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


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parts[-3]}/{file.name}")
def test_no_key_is_there_twice(file: Path) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [key for key, _ in pairs]
        assert len(names) == len(set(names)), names
        return dict(pairs)

    json.loads(file.read_text(), object_pairs_hook=unique)


def test_no_overlay_sets_what_nothing_reads(merged: Merged) -> None:
    """A misspelt key would be added beside the one it means."""
    *below, overlay = merged.names
    if not below:
        return
    base, used = parser_of(merged.bundle, *below), references(merged.parser.get())
    # an overlay of train and of inference may set what only one of them has
    known = {key for name in ("train", "inference") for key in parser_of(merged.bundle, name).get()}
    for key in json.loads((merged.bundle / "configs" / f"{overlay}.json").read_text()):
        id = ReferenceResolver.normalize_id(key.removeprefix("+"))
        # what a component takes is the next test but one's
        argument = "::" in id and ConfigComponent.is_instantiable(base.get(id.rpartition("::")[0]))
        assert id in base or id in known or id in used or argument, f"{overlay}.json: nothing reads {key}"
        assert not key.startswith("+") or id in base, f"{overlay}.json: nothing to add {key} to"


def test_references_are_to_what_is_there(merged: Merged) -> None:
    merged.parser.parse()
    assert not [reference for reference in references(merged.parser.get()) if reference not in merged.parser]


def test_targets_exist_and_take_their_keywords(merged: Merged) -> None:
    merged.parser.parse()
    seen = 0
    for id, config in items(merged.parser.get()):
        if not ConfigComponent.is_instantiable(config):
            continue
        seen += 1
        component = ConfigComponent(config, id, merged.parser.locator)
        target: Any = locate(component.resolve_module_name())
        assert callable(target), f"{id}: no {config['_target_']}"
        given, known = component.resolve_args(), keywords(target)
        if known is not None:
            known |= PASSED_ON.get(target.__name__, set())
        assert known is None or given.keys() <= known, f"{id}: {config['_target_']} takes no {given.keys() - known}"
        if config.get("_mode_", "default") == "default":
            inspect.signature(target).bind(**given)  # what it must have is there
    assert seen > 5


def test_expressions_name_what_is_imported(merged: Merged) -> None:
    names = {"monai", "torch", "np", "numpy", *vars(builtins)}
    for statement in merged.parser["imports"]:
        (node,) = ast.parse(statement.removeprefix("$")).body
        assert isinstance(node, (ast.Import, ast.ImportFrom)), statement
        for alias in node.names:
            if isinstance(node, ast.ImportFrom):
                assert hasattr(import_module(node.module or ""), alias.name), statement
            else:
                import_module(alias.name)
            names.add(alias.asname or alias.name)
    merged.parser.parse()
    for id, value in items(merged.parser.get()):
        if not ConfigExpression.is_expression(value) or id.startswith("imports"):
            continue
        tree = ast.parse(ReferenceResolver.id_matcher.sub("monai", value.removeprefix("$")), mode="eval")
        bound = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
        bound |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        assert {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} <= names | bound, f"{id}: {value}"


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_train_and_inference_agree(bundle: Path) -> None:
    train, inference = parser_of(bundle, "train").get(), parser_of(bundle, "inference").get()
    # statistics of the training cases are computed there and stand beside the weights here
    shared = train.keys() & inference.keys() - {"_meta_", "imports", "initialize", "intensity", "log_file", "run"}
    assert shared >= {"bundle_root", "dataset_dir", "network_def", "output_dir"}
    assert {key: train[key] for key in shared} == {key: inference[key] for key in shared}
    inferer = train["validate"]["inferer"]
    assert (train["inferer"] if inferer == "@inferer" else inferer) == inference["inferer"]


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_validation_and_inference_see_the_same_image(workflow: Callable, cohort: Callable, bundle: Path) -> None:
    training = workflow(bundle, "train").parser
    inference = workflow(bundle, "inference", weights="untrained").parser
    (case, *_) = load_cases(cohort(bundle), "test")
    one = training.get_parsed_content("validate::preprocessing")(case)["image"]
    other = inference.get_parsed_content("preprocessing")({k: v for k, v in case.items() if k != "label"})["image"]
    assert isinstance(one, MetaTensor) and one.std() > 0
    np.testing.assert_array_equal(one.numpy(), other.numpy())
    np.testing.assert_array_equal(one.affine, other.affine)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_evaluation_and_inference_come_to_the_same_label_map(bundle: Path) -> None:
    """Evaluation scores it, inference writes it; a bundle may score or write more, or know another code."""
    own = ("CopyItemsd", "LungBoxd", "ToBratsd", "LabelValuesd", "SaveImaged", "WriteDicomSegd")
    evaluation, inference = parser_of(bundle, "train", "evaluate"), parser_of(bundle, "inference")
    steps = [
        [{k: v for k, v in step.items() if k != "keys"} for step in config if not step["_target_"].endswith(own)]
        for config in (evaluation["validate::postprocessing::transforms"], inference["postprocessing::transforms"])
    ]
    assert [step for step in steps[0] if step.get("output") != "probabilities"] == steps[1]
    switches = {r for r in references(steps[1]) if "::" not in r}
    assert {key: evaluation[key] for key in switches} == {key: inference[key] for key in switches}


# Below: MMFNet.

SELF_TRANSFER = ["T1", "T2", "CET1", "warm-up", "fine-tuning"]
SCRATCH = ["from scratch"]
ABLATIONS: dict[str, tuple[int, list[str]]] = {  # parameters of the network, stages of the training
    "base": (1_530_043, SCRATCH),
    "base_self_transfer": (1_530_043, SELF_TRANSFER),
    "full_t1_cet1": (1_163_375, ["T1", "CET1", "warm-up", "fine-tuning"]),
    "full_t1_t2": (1_163_375, ["T1", "T2", "warm-up", "fine-tuning"]),
    "full_t2_cet1": (1_163_375, ["T2", "CET1", "warm-up", "fine-tuning"]),
    "multi_encoder": (1_700_313, SCRATCH),
    "multi_mlp": (1_538_593, SCRATCH),
    "multi_mlp_self_transfer": (1_538_593, SELF_TRANSFER),
    "multi_mlp_std": (1_547_251, SCRATCH),
    "multi_mlp_std_channel": (1_547_143, SCRATCH),
    "multi_mlp_std_spatial": (1_538_701, SCRATCH),
    "single_encoder": (3_681_897, SCRATCH),
    "single_modality_cet1": (679_273, SCRATCH),
    "single_modality_t1": (679_273, SCRATCH),
    "single_modality_t2": (679_273, SCRATCH),
}


def test_every_ablation_is_in_the_table() -> None:
    assert {file.stem for file in (MMFNET / "configs" / "ablations").iterdir()} == set(ABLATIONS)
    assert {file.stem for file in (OMNET / "configs" / "ablations").iterdir()} == set(VARIANTS)


def rate_of(stage: Stage) -> float:
    return stage.start_optimizer()[0].param_groups[0]["lr"]


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_the_papers(name: str) -> None:
    count, stages = ABLATIONS[name]
    parser = parser_of(MMFNET, "train", f"ablations/{name}")
    network, built = parser.get_parsed_content("network_def"), parser.get_parsed_content("stages")
    assert parameters(network) == count
    assert [stage.name for stage in built] == stages
    assert built[-1].network is network
    assert built[-1].weights == "model.pt"
    used = [parser["modalities"][channel] for channel in parser.get_parsed_content("channels")]
    assert network.in_channels == len(used)
    if stages == SCRATCH:
        assert (rate_of(built[0]), built[0].max_epochs, built[0].patience) == (1e-3, 100, 10)
        if name.startswith("single_modality"):
            assert used == [name.rpartition("_")[2].upper()]
    else:
        assert [(s.name, s.channels, s.weights, parameters(s.network)) for s in built[:-2]] == [
            (modality, [channel], f"single_{modality}.pt", 679_273) for channel, modality in enumerate(used)
        ]


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_trains_and_its_weights_are_used(workflow: Callable, tmp_path: Path, name: str) -> None:
    flow = workflow(MMFNET, "train", f"ablations/{name}", max_epochs=2, updates_per_epoch=1)
    network: MMFNet = flow.parser.get_parsed_content("network_def")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    flow.run()
    after = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert after.keys() == before.keys()
    for key in ("head.weight", "encoders.0.blocks.0.0.conv.weight"):
        assert not torch.equal(after[key], before[key]), key

    workflow(MMFNET, "train", "evaluate", f"ablations/{name}").run()
    assert (tmp_path / "out" / "scores.csv").exists()
    workflow(MMFNET, "inference", f"ablations/{name}").run()
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 2


def test_the_defaults_are_the_papers() -> None:
    parser = parser_of(MMFNET, "train")
    assert parameters(parser.get_parsed_content("network_def")) == 1_547_251
    settings = {
        "modalities": ["T1", "T2", "CET1"],
        "spacing": [0.5, 0.5, -1],
        "roi_size": [256, 256, 16],
        "window_step": 4,
        "max_offset": [32, 32, 4],
        "batch_size": 8,
        "updates_per_epoch": 75,
    }
    assert {key: parser[key] for key in settings} == settings
    inference = parser_of(MMFNET, "inference")
    assert inference.get().keys() > {"modalities", "channels", "spacing", "roi_size", "window_step"}
    for steps in (parser.get_parsed_content("clip"), inference.get_parsed_content("preprocessing").transforms):
        (clip,) = (step for step in steps if isinstance(step, ClipChannelsd))
        assert clip.ranges.tolist() == [[-2, 1], [-3, 2], [-2, 3.5]]
    loss = parser.get_parsed_content("loss")
    assert (loss.smooth_nr, loss.smooth_dr, loss.batch, loss.sigmoid) == (1, 1, True, False)
    assert parser.get_parsed_content("case_loss").batch is False


def test_the_stages_are_the_papers() -> None:
    stages: list[Stage] = parser_of(MMFNET, "train").get_parsed_content("stages")
    assert [(s.name, rate_of(s), s.max_epochs, s.patience, s.weights) for s in stages] == [
        ("T1", 1e-3, 100, 10, "single_T1.pt"),
        ("T2", 1e-3, 100, 10, "single_T2.pt"),
        ("CET1", 1e-3, 100, 10, "single_CET1.pt"),
        ("warm-up", 1e-3, 5, None, None),
        ("fine-tuning", 1e-4, 95, 10, "model.pt"),
    ]


def test_the_augmentation_is_the_papers() -> None:
    (window,) = parser_of(MMFNET, "train").get_parsed_content("train::window")
    assert (window.roi_size, window.step) == ((256, 256, 16), 4)
    assert window.max_offset == (32, 32, 4)  # the margin shortens none
    assert (window.max_angle, window.flip_axis) == (5.0, 1)
    angle, half = math.radians(window.max_angle), 255 / 2
    reach = half * (math.sin(angle) + math.cos(angle) - 1)  # of a corner of the rotated window
    assert window.margin[0] == window.margin[1] >= 32 + reach


@pytest.mark.parametrize(("name", "id"), [("train", "validate::inferer"), ("inference", "inferer")])
def test_windows_overlap_as_in_the_paper(name: str, id: str) -> None:
    inferer = parser_of(MMFNET, name).get_parsed_content(id)
    assert list(inferer.roi_size) == [256, 256, 16]
    assert list(inferer.overlap) == [0, 0, 0.75]
    assert inferer.mode == "constant"


# Below: OM-Net.

VARIANTS: dict[str, tuple[int, tuple[int, int, int], bool]] = {  # parameters, curriculum, transfer between streams
    "cascade": (41_470_380, (0, 0, 20), False),
    "omnet": (13_879_212, (1, 1, 18), True),
    "omnet_0": (13_879_212, (0, 0, 20), False),
    "omnet_cga_minus": (13_823_991, (1, 1, 18), True),
    "omnet_d": (13_879_212, (0, 0, 20), True),
    "omnet_se": (13_880_088, (1, 1, 18), True),
}


def assert_is_the_papers(
    parser: ConfigParser, count: int, curriculum: tuple[int, ...], transfer: bool
) -> torch.nn.Module:
    network, (stage,) = parser.get_parsed_content("network_def"), parser.get_parsed_content("stages")
    assert parameters(network) == count
    assert network.dense
    assert (stage.network, stage.weights, stage.max_epochs, stage.patience) == (network, "model.pt", 20, None)
    batch = stage.prepare_batch
    assert (batch.ends, batch.transfer) == (list(np.cumsum(curriculum)), transfer)
    rates = rates_of(stage, 20)
    assert [rates[epoch - 1] for epoch in (1, 4, 5, 8, 9, 20)] == [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 1e-3 / 2**4]
    assert stage.find_unused_parameters is any(curriculum[:2])
    return network


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_the_papers(name: str) -> None:
    parser = parser_of(OMNET, "train", f"ablations/{name}")
    network = assert_is_the_papers(parser, *VARIANTS[name])
    assert list(network.nets if name == "cascade" else network.heads) == ["coarse", "tumour", "enhancing"]  # type: ignore[arg-type]
    if name == "omnet_cga_minus":
        assert network.guided and not network.heads["tumour"].spatial_weights  # type: ignore[index, union-attr]


def test_om_nets_defaults_are_the_papers() -> None:
    parser = parser_of(OMNET, "train")
    network = assert_is_the_papers(parser, 13_823_991, (1, 1, 18), True)
    assert network.heads["tumour"].spatial_weights  # type: ignore[index, union-attr]
    dropout = {module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)}
    assert dropout == {0.5}
    optimizer, _ = parser.get_parsed_content("stages")[0].start_optimizer()
    assert {group["momentum"] for group in optimizer.param_groups} == {0.99}
    settings = {
        "modalities": ["FLAIR", "T1", "CET1", "T2"],
        "labels": {"necrosis and non-enhancing tumour": 1, "oedema": 2, "enhancing tumour": 4},
        "spacing": [1, 1, 1],
        "roi_size": [32, 32, 16],
        "batch_size": 20,
        "updates_per_epoch": 20_000,
    }
    assert {key: parser[key] for key in settings} == settings


@pytest.mark.parametrize("overlay", [(), ("ablations/cascade",)], ids=["one pass", "cascade"])
def test_windows_keep_their_centres(overlay: tuple[str, ...]) -> None:
    """The window is the training patch; of a voxel outside the brain, the answer is known."""
    parsers = [parser_of(OMNET, name, *overlay) for name in ("train", "inference")]
    inferers = [
        parsers[0].get_parsed_content("validate::inferer"),
        parsers[1].get_parsed_content("inferer"),
    ]
    for inferer in inferers:
        assert list(inferer.roi_size) == parsers[0]["roi_size"]
        assert list(inferer.keep) == [24, 24, 10]
        assert list(inferer.empty) == [0, 0]
        if not overlay:
            assert [inferer.fill.index(1), *np.flatnonzero(inferer.fill)] == [0, 0, 5, 10]  # class 0 of each task
        else:
            assert inferer.gated


def test_an_ensemble_has_a_network_for_each_file() -> None:
    parser = parser_of(OMNET, "inference", "ensemble")
    parser["ckpt_dir"] = "models"
    assert parser.get_parsed_content("weights") == [f"models/fold{fold}/model.pt" for fold in range(10)]
    parser = parser_of(OMNET, "inference", "ensemble")
    parser["weights"] = ["a.pt", "b.pt"]
    ensemble = parser.get_parsed_content("network_def")
    assert [parameters(network) for network in ensemble.networks] == [13_823_991] * 2
    assert all(network.dense for network in ensemble.networks)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_trains_and_its_weights_are_used(workflow: Callable, tmp_path: Path, name: str) -> None:
    curriculum = [min(epochs, 1) for epochs in VARIANTS[name][1]]
    width = {"network_def::channels": [16, 2]} if name == "omnet_se" else {}  # two hidden units
    flow = workflow(OMNET, "train", f"ablations/{name}", curriculum=curriculum, updates_per_epoch=1, **width)
    before = {key: value.clone() for key, value in flow.network_def.state_dict().items()}
    flow.run()
    after = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert after.keys() == before.keys()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    first = ("nets.coarse.backbone" if name == "cascade" else "backbone") + ".encoder.0.0.conv.weight"
    assert first in changed
    for task in ("coarse", "tumour", "enhancing"):
        head = f"nets.{task}.head" if name == "cascade" else f"heads.{task}"
        assert any(key.startswith(head) and key.endswith("weight") for key in changed), task

    if name == "cascade":
        workflow(OMNET, "train", "evaluate", f"ablations/{name}").run()
        assert (tmp_path / "out" / "scores.csv").exists()
    workflow(OMNET, "inference", f"ablations/{name}", **width).run()
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 2
