"""Describe OM-Net's bundle to the tests, with a narrow network and a tiny cohort."""

from __future__ import annotations

import torch

from common.methods.omnet import BrainPhantom, OMNet

from ...tiny import BUNDLES, Body, TinyBundle

OMNET = BUNDLES / "brain_mri_omnet"


def sure_of_parts(build: type[torch.nn.Module] = OMNet, seed: int = 0) -> torch.nn.Module:
    """Build a narrow network of OM-Net's tasks with large weights in its classifiers, so that each task decides."""
    torch.manual_seed(seed)
    network = build(channels=(2, 4))
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d) and module.kernel_size == (1, 1, 1):
            torch.nn.init.normal_(module.weight, std=3)
            if module.bias is not None:
                torch.nn.init.normal_(module.bias)
    return network


TINY = TinyBundle(
    bundle=OMNET,
    overlay={
        "network_def::channels": [2, 4],
        "network_def::bn_momentum": 0.1,
        "spacing": [5.0, 5.0, 5.0],
        "roi_size": [16, 16, 8],
        "keep": [8, 8, 4],
        "curriculum": [1, 1, 2],
        "learning_rate": 0.01,
        "updates_per_epoch": 2,
        "batch_size": 2,
    },
    phantom=BrainPhantom(size=(32, 36, 28), spacing=(5.0, 5.0, 5.0)),
    busy_network=sure_of_parts,
    body=Body(radii=(66, 75, 58), background=0, tissue=300, target=420),
    epochs=4,
    sample_types=(torch.float16, torch.uint8),
    sample_axes=(3,),
    label_values=frozenset({0, 1, 2, 3, 4}),
)
