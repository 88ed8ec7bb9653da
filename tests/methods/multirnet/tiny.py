"""Describe MultiR-Net's bundle to the tests, with a narrow network and a tiny cohort."""

from __future__ import annotations

from typing import Any

import torch

from common.methods.multirnet import LungPhantom, MultiRNet

from ...tiny import BUNDLES, Body, TinyBundle

MULTIRNET = BUNDLES / "lung_ct_multirnet"
NARROW: dict[str, Any] = {"channels": [2, 4], "classifier_channels": [2, 4], "kernel_size": 3}


def busy_network() -> torch.nn.Module:
    torch.manual_seed(0)
    network = MultiRNet(**NARROW)
    for name, parameter in network.named_parameters():
        if parameter.shape[0] == 1 and name.endswith("weight"):
            torch.nn.init.normal_(parameter, std=3)
    return network


TINY = TinyBundle(
    bundle=MULTIRNET,
    overlay={
        **{f"network_def::{key}": value for key, value in NARROW.items()},
        "spacing": [8.0, 8.0, 9.0],
        "roi_size": [16, 16, 8],
        "jitter": [3, 3, 2],
        "max_epochs": 2,
        "learning_rate": 0.01,
        "updates_per_epoch": 2,
        "batch_size": 2,
    },
    phantom=LungPhantom(size=(34, 28, 19), spacing=(8.0, 8.2, 9.0)),
    busy_network=busy_network,
    body=Body(radii=(110, 85, 100), background=-1000, tissue=40, target=150, lungs=-800),
    epochs=2,
)
