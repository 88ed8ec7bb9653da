"""Use the bundles from Python: set MONAI's properties on a workflow, train several clients in rounds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Average
from monai.bundle import ConfigWorkflow, create_workflow
from monai.data import Dataset
from monai.fl.client import MonaiAlgo
from monai.fl.utils.exchange_object import ExchangeObject
from monai.inferers import Inferer, SimpleInferer
from monai.transforms import Compose, Transform

from common.data import load_cases
from common.errors import root_cause
from common.reporting import read_scores

from ..workflows import BUSY, METHOD, PLAIN, bundles
from .test_configs import compositions

Weights = Mapping[str, torch.Tensor]

pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file"),  # MONAI warns each time
    pytest.mark.filterwarnings("ignore:executing the bundle config under"),
]


@pytest.fixture
def create(
    cohort: Callable, config_files: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ConfigWorkflow]:
    """Call MONAI's ``create_workflow`` with the named configs of a bundle on its tiny cohort."""
    monkeypatch.chdir(tmp_path)

    def make(bundle: Path, *names: str, **override: Any) -> ConfigWorkflow:
        options = {
            "bundle_root": str(bundle),
            "dataset_dir": str(cohort(bundle)),
            "ckpt_dir": str(tmp_path / "models"),
            "output_dir": str(tmp_path / "out"),
            "device": torch.device("cpu"),
            "meta_file": str(bundle / "configs" / "metadata.json"),
        }
        return create_workflow(
            config_file=config_files(bundle, *names),
            workflow_type="infer" if names[0] == "inference" else "train",
            logging_file=False,
            **{**options, **override},
        )

    return make


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


# Federated training: two clients with halves of the cases.


def mean_of(states: Sequence[Weights]) -> dict[str, torch.Tensor]:
    """Return the mean of floating-point entries, and the first of counters such as the batches of a normalisation."""
    return {
        key: torch.stack([state[key] for state in states]).mean(0) if value.is_floating_point() else value
        for key, value in states[0].items()
    }


def copied(state: Weights) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in state.items()}


@pytest.fixture
def clients(create: Callable, tmp_path: Path) -> Callable[[Path], list[ConfigWorkflow]]:
    """Build two workflows with rounds of one epoch, each with its own cases and its own folder."""

    def make(bundle: Path) -> list[ConfigWorkflow]:
        flows = []
        for client in range(2):
            names = METHOD[bundle].single_stage
            flow = create(bundle, *names, ckpt_dir=str(tmp_path / f"client{client}"), updates_per_epoch=1)
            cases = flow.train_dataset_data
            flow.train_dataset_data = cases[client::2]
            flow.max_epochs = 1
            flow.initialize()
            flows.append(flow)
        return flows

    return make


@bundles
def test_rounds_of_living_workflows(clients: Callable, bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Keep cached data, optimiser, learning rate and draws from round to round."""
    flows = clients(bundle)
    assert not {c["case"] for c in flows[0].train_dataset_data} & {c["case"] for c in flows[1].train_dataset_data}
    weights = copied(flows[0].network_def.state_dict())
    optimizers = []
    for number in (1, 2):
        states = []
        for flow in flows:
            flow.network_def.load_state_dict(weights)
            trainer = flow.trainer
            trainer.state.max_epochs = trainer.state.epoch + 1
            flow.run()
            assert trainer.state.epoch == number
            states.append(copied(flow.network_def.state_dict()))
            optimizers.append(trainer.optimizer)
        assert any(not torch.equal(states[0][key], states[1][key]) for key in weights)
        before, weights = weights, mean_of(states)
        assert any(not torch.equal(before[key], weights[key]) for key in weights)
        assert all(torch.isfinite(value).all() for value in weights.values())
    assert optimizers[0] is optimizers[2]
    draws = [list(flow.trainer.data_loader.sampler) for flow in flows]
    first = type(flows[0].trainer.data_loader.sampler)(len(flows[0].train_dataset), len(draws[0]))
    assert list(first) != draws[0]  # each epoch has its own draws


def test_a_round_trains_from_the_weights_given(clients: Callable) -> None:
    flow, _ = clients(PLAIN)
    flow.run()
    optimizer = flow.trainer.optimizer
    zero = {key: torch.zeros_like(value) for key, value in flow.network_def.state_dict().items()}
    flow.network_def.load_state_dict(zero)
    flow.trainer.state.max_epochs = 2
    flow.run()
    rate = optimizer.param_groups[0]["lr"]
    for name, parameter in flow.network_def.named_parameters():
        assert parameter.abs().max() < 20 * rate, name


def test_running_a_complete_training_again_is_refused(clients: Callable) -> None:
    flow, _ = clients(PLAIN)
    flow.run()
    with pytest.raises(RuntimeError) as error:
        flow.run()
    assert "already holds" in str(root_cause(error.value))


def test_rounds_by_properties(create: Callable, tmp_path: Path) -> None:
    """Initialise a workflow for each round with a new folder and seed, and keep the cached cases."""
    flow = create(PLAIN, "train", updates_per_epoch=1)
    for name in ("ckpt_dir", "seed"):
        flow.add_property(name, required=True, config_id=name)
    flow.max_epochs = 1
    flow.initialize()
    data, held = flow.train_dataset, flow.val_dataset
    network, draws = flow.network_def, []
    for number in (1, 2):
        before = copied(network.state_dict())
        flow.train_dataset, flow.val_dataset, flow.network_def = data, held, network
        flow.ckpt_dir, flow.seed = str(tmp_path / f"round{number}"), number
        flow.initialize()
        flow.run()
        draws.append(list(flow.trainer.data_loader.sampler))
        assert flow.network_def is network and flow.train_dataset is data
        assert any(not torch.equal(value, before[key]) for key, value in network.state_dict().items())
        assert (tmp_path / f"round{number}" / "model.pt").exists()
    assert draws[0] != draws[1]


@bundles
def test_monais_federated_client(
    config_files: Callable, cohort: Callable, tmp_path: Path, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = METHOD[bundle].single_stage
    options = {
        "dataset_dir": str(cohort(bundle)),
        "ckpt_dir": str(tmp_path / "models"),
        "output_dir": str(tmp_path / "out"),
        "device": torch.device("cpu"),
        "updates_per_epoch": 1,
    }
    caplog.set_level(logging.ERROR)
    client = MonaiAlgo(
        bundle_root=str(bundle),
        config_train_filename=config_files(bundle, *names),  # absolute paths stay as they are
        train_kwargs=dict(options),
        config_evaluate_filename=config_files(bundle, "train", "evaluate", *names[1:]),
        eval_kwargs=dict(options),
        send_weight_diff=False,
    )
    client.initialize()
    weights = ExchangeObject(weights=copied(BUSY[bundle.name]().state_dict()))
    for number in (1, 2):
        client.train(weights)
        result = client.get_weights()
        assert client.trainer is not None and client.trainer.state.epoch == number
        assert result.weights.keys() == weights.weights.keys()
        assert any(not torch.equal(value, weights.weights[key]) for key, value in result.weights.items())
        weights = ExchangeObject(weights=copied(result.weights))
    scores = client.evaluate(weights).metrics
    rows = read_scores(tmp_path / "out" / "scores.csv")
    assert set(rows[0]) - {"case"} == {name for name in scores if not name.startswith("class ")}
    assert all(0 <= value <= 1 for name, value in scores.items() if "Dice" in name)
