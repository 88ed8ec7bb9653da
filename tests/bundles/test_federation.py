"""Run a job of the example for NVFlare with MONAI's client, as NVFlare does, and what else the client offers."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject

from ..warm_python import WarmPython
from ..workflows import PLAIN, TINY

pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file"),  # MONAI warns each time
    pytest.mark.filterwarnings("ignore:executing the bundle config under"),
]

SCRIPT = PLAIN.parents[1] / "examples" / "federation" / "make_job.py"


@pytest.fixture
def job(cohort: Callable, tmp_path: Path, warm_python: WarmPython) -> Path:
    """Write the job of two clients with a narrow network; return its folder."""
    overlay = tmp_path / "tiny.json"
    overlay.write_text(json.dumps({**TINY[PLAIN.name], "device": "cpu"}))
    for site in ("site-1", "site-2"):
        shutil.copytree(cohort(PLAIN), tmp_path / "fed" / site / "data")
    options = ["--overlay", str(overlay), "--settings", '{"updates_per_epoch": 1}', "--rounds", "3"]
    warm_python.run([sys.executable, str(SCRIPT), str(PLAIN), str(tmp_path / "fed"), *options], check=True)
    return tmp_path / "fed" / "job"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def client_of(job: Path, site: str) -> MonaiAlgo:
    """Build the client as NVFlare does from the configuration of the job."""
    (component,) = read(job / f"app_{site}" / "config" / "config_fed_client.json")["components"]
    assert component["path"] == "monai.fl.client.MonaiAlgo"
    client = MonaiAlgo(**component["args"])
    client.initialize(extra={ExtraItems.CLIENT_NAME: site, ExtraItems.APP_ROOT: str(job / f"app_{site}")})
    return client


def test_the_job_names_its_clients_and_rounds(job: Path) -> None:
    meta = read(job / "meta.json")
    assert meta["deploy_map"] == {"app_server": ["server"], "app_site-1": ["site-1"], "app_site-2": ["site-2"]}
    server = read(job / "app_server" / "config" / "config_fed_server.json")
    assert server["workflows"][0]["args"]["num_rounds"] == 3 and meta["min_clients"] == 2
    assert all((job / app).is_dir() for app in meta["deploy_map"])


def test_two_rounds_of_the_job_train_and_score(job: Path, tmp_path: Path) -> None:
    parser = ConfigParser()
    parser.read_config(str(job / "app_server" / "config" / "train.json"))
    network = parser.get_parsed_content("network_def")  # as NVFlare's persistor reads it
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    clients = [client_of(job, site) for site in ("site-1", "site-2")]
    for number in (1, 2):
        differences = []
        for client in clients:
            metrics = client.evaluate(ExchangeObject(weights=dict(weights))).metrics  # NVFlare scores before it trains
            assert 0 <= metrics["Dice liver"] <= 1
            client.train(ExchangeObject(weights=dict(weights)))
            result = client.get_weights()
            assert result.weight_type == WeightType.WEIGHT_DIFF
            trained = client.trainer.network.state_dict()
            for key, difference in result.weights.items():
                torch.testing.assert_close(weights[key] + difference, trained[key], check_dtype=False)  # counters
            differences.append(result.weights)
            assert client.trainer.state.epoch == number
        weights = {key: value + sum(d[key] for d in differences) / 2 for key, value in weights.items()}
    assert all(torch.isfinite(value).all() for value in weights.values())
    for site in ("site-1", "site-2"):
        assert {path.name for path in (tmp_path / "fed" / site / "models").iterdir()} >= {"model.pt", "run.json"}
        assert (tmp_path / "fed" / site / "scores" / "scores.csv").exists()
    assert not (PLAIN / "models").exists() and not (PLAIN / "eval").exists()


def test_one_client_is_refused(tmp_path: Path, warm_python: WarmPython) -> None:
    (tmp_path / "site-1" / "data").mkdir(parents=True)
    command = [sys.executable, str(SCRIPT), str(PLAIN), str(tmp_path)]
    done = warm_python.run(command)
    assert done.returncode == 2
    assert "has cases of 1 clients; expected site-1/data and site-2/data at least" in done.stderr
