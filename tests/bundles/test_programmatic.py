"""Use the bundles from Python: set MONAI's properties on a workflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Average
from monai.bundle import ConfigWorkflow
from monai.data import Dataset
from monai.inferers import Inferer, SimpleInferer
from monai.transforms import Compose, Transform

from common.data import load_cases
from common.errors import root_cause

from ..workflows import BUSY, METHOD, PLAIN, bundles
from .test_configs import compositions

pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file"),  # MONAI warns each time
    pytest.mark.filterwarnings("ignore:executing the bundle config under"),
]


@bundles
def test_no_overlay_moves_an_optional_property(bundle: Path) -> None:
    for names in compositions(bundle):
        kind = "infer" if names[0] == "inference" else "train"
        files = [str(bundle / "configs" / f"{name}.json") for name in names]
        flow = ConfigWorkflow(files, str(bundle / "configs" / "metadata.json"), False, workflow_type=kind)
        flow.parser.parse()
        assert all(flow._check_optional_id(name, about) for name, about in flow.properties.items()), names


def run_epochs(flow: ConfigWorkflow) -> int:
    """Train; return the number of the last epoch."""
    flow.initialize()
    flow.run()
    return flow.trainer.state.epoch


@bundles
def test_more_epochs_than_the_config_has(create: Callable, bundle: Path) -> None:
    """Ask for more; the clients below ask for fewer."""
    flow = create(bundle, *METHOD[bundle].single_stage)
    given = flow.max_epochs
    flow.max_epochs = given + 5
    flow.initialize()
    (stage,) = flow.trainer.stages
    # where the stages have lengths of their own, the property only limits them
    own_length = METHOD[bundle].single_stage != ("train",)
    assert stage.max_epochs == (given if own_length else given + 5)
    assert flow.trainer.max_epochs == given + 5


def test_more_epochs_are_trained(create: Callable) -> None:
    flow = create(PLAIN, "train", updates_per_epoch=1)
    flow.max_epochs = 3
    assert run_epochs(flow) == 3


def network_of(bundle: Path) -> torch.nn.Module:
    """Build the network in the form of the configs, which returns a single tensor."""
    network = BUSY[bundle.name]()
    if hasattr(network, "dense"):
        network.dense = True  # type: ignore[assignment]
    return network


class Seen(Inferer, Transform):
    """Count the calls, as a handler, a transform or an inferer."""

    def __init__(self) -> None:
        self.times = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.times += 1
        return SimpleInferer()(*args, **kwargs) if len(args) > 1 else args[0]


@bundles
def test_properties_of_a_training(create: Callable, bundle: Path, tmp_path: Path) -> None:
    flow = create(bundle, *METHOD[bundle].single_stage, updates_per_epoch=1)
    cases = flow.train_dataset_data
    seen = {name: Seen() for name in ("train", "val", "load", "val_load", "decide", "train_infer", "val_infer")}
    network = network_of(bundle)
    load, val_load, decide = flow.train_preprocessing, flow.val_preprocessing, flow.val_postprocessing
    val_inferer = flow.val_inferer
    flow.max_epochs = 2
    flow.val_interval = 2
    flow.device = torch.device("cpu")
    flow.network_def = network
    flow.train_dataset_data, flow.val_dataset_data = cases[:2], cases[2:3]
    flow.train_handlers, flow.val_handlers = [seen["train"]], [seen["val"]]
    flow.train_preprocessing = Compose([seen["load"], *load.transforms])
    flow.val_preprocessing = Compose([seen["val_load"], *val_load.transforms])
    if decide is not None:  # a validation may take the output of the network as it is
        flow.val_postprocessing = Compose([seen["decide"], *decide.transforms])
    flow.train_inferer, flow.val_inferer = seen["train_infer"], Counted(val_inferer, seen["val_infer"])
    flow.val_key_metric = {"own": Average(lambda output: 0.5)}
    assert run_epochs(flow) == 2

    trainer, evaluator = flow.trainer, flow.evaluator
    assert flow.network_def is network is trainer.stage.network is evaluator.network
    assert len(flow.train_dataset) == 2 and trainer.data_loader.dataset is flow.train_dataset
    assert len(flow.val_dataset) == 1 and evaluator.data_loader.dataset is flow.val_dataset
    assert trainer.state.device == evaluator.state.device == torch.device("cpu")
    assert evaluator.state.metrics["own"] == 0.5 and evaluator.state.best_metric_epoch == 2
    assert (seen["train"].times, seen["val"].times) == (2, 1)
    assert (seen["load"].times, seen["val_load"].times) == (2, 1)
    assert seen["decide"].times == (0 if decide is None else 1)
    assert seen["train_infer"].times >= 2 and seen["val_infer"].times == 1
    assert torch.load(tmp_path / "models" / "model.pt", weights_only=True).keys() == network.state_dict().keys()


class Counted:
    def __init__(self, inferer: Inferer, seen: Seen) -> None:
        self.inferer, self.seen = inferer, seen

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.seen.times += 1
        return self.inferer(*args, **kwargs)


@bundles
def test_folders_data_sets_and_engines(create: Callable, bundle: Path, tmp_path: Path, cohort: Callable) -> None:
    flow = create(bundle, *METHOD[bundle].single_stage, ckpt_dir="$@bundle_root + '/models'")
    flow.bundle_root = str(tmp_path / "root")
    flow.dataset_dir = str(tmp_path / "nowhere")
    flow.initialize()
    with pytest.raises(RuntimeError) as error:
        flow.train_dataset  # noqa: B018
    assert str(root_cause(error.value)).startswith(str(tmp_path / "nowhere"))
    flow.dataset_dir = str(cohort(bundle))
    flow.initialize()
    data, held = flow.train_dataset, flow.val_dataset
    flow.train_dataset, flow.val_dataset = data, held  # keeps their cached cases
    flow.initialize()
    trainer, evaluator = flow.trainer, flow.evaluator
    assert trainer.data_loader.dataset is data and evaluator.data_loader.dataset is held
    assert trainer.folder.path == tmp_path / "root" / "models"
    flow.evaluator = evaluator
    flow.initialize()
    assert flow.trainer is not trainer and flow.trainer.evaluator is evaluator
    flow.trainer = other = Seen()
    other.run = other.__call__ = lambda: "ran"  # type: ignore[attr-defined, method-assign]
    flow.initialize()
    assert flow.run()[-1] == "ran"


def test_an_optional_property_that_is_not_set_is_none(create: Callable) -> None:
    flow = create(PLAIN, "train")
    assert flow.train_postprocessing is None and flow.train_key_metric is None


@bundles
def test_properties_of_an_inference(create: Callable, bundle: Path, tmp_path: Path, cohort: Callable) -> None:
    flow = create(bundle, "inference", weights="untrained")
    seen = {name: Seen() for name in ("handler", "load", "finish", "infer")}
    case = {**load_cases(cohort(bundle), "training")[0], "case": "mine"}
    load, finish, inferer = flow.preprocessing, flow.postprocessing, flow.inferer
    network = network_of(bundle)
    flow.device = torch.device("cpu")
    flow.network_def = network
    flow.dataset_data = [case]
    flow.handlers = [seen["handler"]]
    flow.preprocessing = Compose([seen["load"], *load.transforms])
    flow.postprocessing = Compose([seen["finish"], *finish.transforms])
    flow.inferer = Counted(inferer, seen["infer"])
    flow.initialize()
    flow.run()
    assert {name: counter.times for name, counter in seen.items()} == dict.fromkeys(seen, 1)
    assert flow.evaluator.network is network
    assert (tmp_path / "out" / "mine_seg.nii.gz").exists()
    assert len(flow.dataset) == 1
    flow.dataset = own = Dataset([])
    flow.initialize()
    assert flow.evaluator.data_loader.loader.dataset is own
