"""Describe MMFNet's bundle to the tests, with a narrow network and a tiny cohort."""

from __future__ import annotations

import torch

from common.methods.mmfnet import HeadPhantom, MMFNet

from ...tiny import BUNDLES, Body, TinyBundle

MMFNET = BUNDLES / "nasopharynx_mri_mmfnet"


def busy_network() -> torch.nn.Module:
    network = MMFNet(channels=(2, 4), reduction=2)
    torch.nn.init.normal_(network.head.weight, std=3)
    network.head.bias.data.fill_(2.0)
    return network


TINY = TinyBundle(
    bundle=MMFNET,
    overlay={
        "network_def::channels": [2, 4],
        "network_def::reduction": 2,
        "single_modality_network::channels": [2, 4],
        "spacing": [6.0, 6.0, -1],
        "roi_size": [16, 16, 8],
        "window_step": 4,
        "margin": [3, 3, 2],
        "max_offset": [2, 2, 2],
        "max_epochs": 2,
        "warm_up_epochs": 1,
        "updates_per_epoch": 2,
        "batch_size": 2,
    },
    phantom=HeadPhantom(size=(28, 32, 16), spacing=(6.0, 5.8, 5.5)),
    busy_network=busy_network,
    body=Body(radii=(95, 85, 110), background=5, tissue=300, target=420, noisy=True),
    epochs=8,
    weights=frozenset({"model.pt", "single_T1.pt", "single_T2.pt", "single_CET1.pt"}),
    single_stage=("train", "ablations/multi_mlp_std"),
    only_in_train=("single_modality_network",),
    cache_on="meta",
)
