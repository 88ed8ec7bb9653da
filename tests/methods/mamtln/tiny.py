"""Describe MA-MTLN's bundle to the tests, with a narrow network and a tiny cohort."""

from __future__ import annotations

from typing import Any

import torch

from common.methods.mamtln import MAMTLN, StomachPhantom

from ...tiny import BUNDLES, Body, TinyBundle

MAMTLN_CT = BUNDLES / "stomach_ct_mamtln"
NARROW: dict[str, Any] = {"width": 8, "planes": [8] * 4, "blocks": [1] * 4, "cardinality": 2, "norm_groups": 4}
INTENSITY = {"low": -60.0, "high": 180.0, "mean": 80.0, "sd": 50.0}


def busy_network() -> torch.nn.Module:
    torch.manual_seed(0)
    network = MAMTLN(**NARROW)
    for name, parameter in network.named_parameters():
        if name.endswith("head.weight"):
            torch.nn.init.normal_(parameter, std=9)
    return network


TINY = TinyBundle(
    bundle=MAMTLN_CT,
    overlay={
        **{f"network_def::{key}": value for key, value in NARROW.items()},
        "intensity": INTENSITY,
        "spacing": [10.0, 10.0, -1],
        "roi_size": [16, 16, 8],
        "crop_size": [18, 18, 8],
        "max_epochs": 2,
        "learning_rate": 0.01,
        "updates_per_epoch": 2,
        "batch_size": 2,
    },
    phantom=StomachPhantom(size=(32, 26, 13), spacing=(9.0, 8.8, 8.0)),
    busy_network=busy_network,
    body=Body(radii=(110, 85, 100), background=-1000, tissue=40, target=150),
    epochs=2,
    crops=False,
    sample_types=(torch.float32, torch.uint8),
)
