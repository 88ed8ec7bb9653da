"""Describe MPU-Net's bundle to the tests, with a narrow network and a tiny cohort."""

from __future__ import annotations

import torch

from common.methods.mpunet import LiverPhantom, MPUNet

from ...tiny import BUNDLES, Body, TinyBundle

MPUNET = BUNDLES / "liver_ct_mpunet"


def busy_network() -> torch.nn.Module:
    torch.manual_seed(0)
    network = MPUNet(channels=(2, 2, 4, 4, 8))
    for parameter in network.parameters():
        if parameter.shape[0] == 2 and parameter.dim() == 5 and parameter.shape[2:] == (1, 1, 1):
            torch.nn.init.normal_(parameter, std=9)
    return network


TINY = TinyBundle(
    bundle=MPUNET,
    overlay={
        "network_def::channels": [2, 2, 4, 4, 8],
        "in_plane": 32,
        "slice_thickness": 10.0,
        "slab_margin": 2,
        "roi_size": [32, 32, 8],
        "slice_step": 4,
        "max_epochs": 2,
        "learning_rate": 0.01,
        "updates_per_epoch": 2,
        "batch_size": 2,
    },
    phantom=LiverPhantom(size=(36, 30, 24), spacing=(10.0, 10.4, 9.7)),
    busy_network=busy_network,
    body=Body(radii=(110, 85, 100), background=-1000, tissue=40, target=150),
    epochs=2,
    crops=False,
    cache_on="meta",
)
