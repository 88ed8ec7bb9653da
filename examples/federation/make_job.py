"""Write a job of NVFlare that trains a bundle with several clients, each on its own cases.

Each client has a folder in OUT with its cases in ``data``, made before; it gets ``models`` and ``scores`` there::

    python examples/federation/make_job.py bundles/liver_ct_mpunet OUT --overlay configs/demo.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser


def client(bundle: Path, folder: Path, overlay: list[str], metric: str, epochs: int, settings: dict) -> dict[str, Any]:
    """Return the configuration of a client.

    Args:
        bundle: folder of the bundle or package.
        folder: folder of the client, with its cases in ``data``.
        overlay: configs of the bundle over its own ones.
        metric: score that chooses the best global weights.
        epochs: epochs of a round.
        settings: further settings of the training.
    """
    folders = {
        "bundle_root": str(bundle),
        "dataset_dir": str(folder / "data"),
        "ckpt_dir": str(folder / "models"),
        "output_dir": str(folder / "scores"),
    }
    algorithm = {
        "bundle_root": str(bundle),
        "local_epochs": epochs,
        "send_weight_diff": True,
        "config_train_filename": ["configs/train.json", *overlay],
        "train_kwargs": {**folders, **settings},
        "config_evaluate_filename": ["configs/train.json", "configs/evaluate.json", *overlay],
        "eval_kwargs": {**folders, "section": "validation"},
    }
    executor = {
        "path": "monai_nvflare.client_algo_executor.ClientAlgoExecutor",
        "args": {"client_algo_id": "client_algo", "key_metric": metric},
    }
    return {
        "format_version": 2,
        "executors": [{"tasks": ["train", "validate", "submit_model"], "executor": executor}],
        "components": [{"id": "client_algo", "path": "monai.fl.client.MonaiAlgo", "args": algorithm}],
    }


def server(clients: int, rounds: int) -> dict[str, Any]:
    """Return the configuration of the server: the mean of the clients' differences, weighted by their updates."""
    components = [
        {
            "id": "persistor",
            "path": "monai_nvflare.monai_bundle_persistor.MonaiBundlePersistor",
            "args": {"bundle_root": "config", "config_train_filename": "train.json"},
        },
        {
            "id": "generator",
            "path": "nvflare.app_common.shareablegenerators.full_model_shareable_generator.FullModelShareableGenerator",
            "args": {},
        },
        {
            "id": "aggregator",
            "path": "nvflare.app_common.aggregators.intime_accumulate_model_aggregator"
            ".InTimeAccumulateWeightedAggregator",
            "args": {"expected_data_kind": "WEIGHT_DIFF"},
        },
        {
            "id": "selector",
            "path": "nvflare.app_common.widgets.intime_model_selector.IntimeModelSelector",
            "args": {},
        },
    ]
    rounds_of_training = {
        "id": "rounds",
        "path": "nvflare.app_common.workflows.scatter_and_gather.ScatterAndGather",
        "args": {
            "min_clients": clients,
            "num_rounds": rounds,
            "aggregator_id": "aggregator",
            "persistor_id": "persistor",
            "shareable_generator_id": "generator",
            "train_task_name": "train",
        },
    }
    return {"format_version": 2, "components": components, "workflows": [rounds_of_training]}


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    """Write the job to ``OUT/job``."""
    parser = argparse.ArgumentParser(description="Write a job of NVFlare that trains a bundle with several clients.")
    parser.add_argument("bundle", type=Path, help="folder of a bundle or package")
    parser.add_argument("out", type=Path, help="folder with site-1/data, site-2/data, ...")
    parser.add_argument("--overlay", action="append", default=[], help="config such as configs/demo.json")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1, help="epochs of a round")
    parser.add_argument("--metric", default="Dice liver", help="score of an evaluation that chooses the best weights")
    parser.add_argument("--settings", type=json.loads, default={}, help="of the training, as '{\"batch_size\": 1}'")
    given = parser.parse_args()
    bundle, out = given.bundle.resolve(), given.out.resolve()
    sites = sorted(path.parent.name for path in out.glob("site-*/data"))
    if len(sites) < 2:
        parser.error(f"{out} has cases of {len(sites)} clients; expected site-1/data and site-2/data at least")
    merged = ConfigParser.load_config_files([str(bundle / file) for file in ("configs/train.json", *given.overlay)])
    apps = {"app_server": ["server"], **{f"app_{site}": [site] for site in sites}}
    write(out / "job" / "meta.json", {"name": bundle.name, "min_clients": len(sites), "deploy_map": apps})
    write(out / "job" / "app_server" / "config" / "config_fed_server.json", server(len(sites), given.rounds))
    # the server reads the network from here; without bundle_root, it would not find the code of a package
    write(out / "job" / "app_server" / "config" / "train.json", {**merged, "bundle_root": str(bundle)})
    for site in sites:
        app = client(bundle, out / site, given.overlay, given.metric, given.epochs, given.settings)
        write(out / "job" / f"app_{site}" / "config" / "config_fed_client.json", app)
    print(f"nvflare simulator {given.out / 'job'} -w {given.out / 'workspace'} -n {len(sites)} -t {len(sites)}")


if __name__ == "__main__":
    main()
