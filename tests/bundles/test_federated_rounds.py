"""Train several clients in rounds, each with a part of the cases."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.fl.client import MonaiAlgo
from monai.fl.utils.exchange_object import ExchangeObject

from common.errors import root_cause
from common.reporting import read_scores

from ..workflows import BUSY, METHOD, PLAIN, bundles

Weights = Mapping[str, torch.Tensor]

pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file"),  # MONAI warns each time
    pytest.mark.filterwarnings("ignore:executing the bundle config under"),
]


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
