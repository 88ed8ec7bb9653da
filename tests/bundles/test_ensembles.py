"""Test that the ensemble of every bundle averages the probabilities of its members."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from torch import Tensor

from common.engines import load_weights, save_whole

from ..methods.mamtln.tiny import MAMTLN_CT
from ..methods.multirnet.tiny import MULTIRNET
from ..workflows import TINY, bundles, parser_of

# Sizes of the groups of logits at the end of the output; all other channels are probabilities.
LOGITS = {MAMTLN_CT: [2, 2], MULTIRNET: [3]}


def tiny_parser(bundle: Path, *names: str, network: str) -> ConfigParser:
    parser = parser_of(bundle, *names)
    for key, value in TINY[bundle.name].items():
        if key.startswith("network_def::"):
            parser[key.replace("network_def", network)] = value
    return parser


def probabilities(output: Tensor, groups: list[int]) -> Tensor:
    parts = torch.split(output, [output.shape[1] - sum(groups), *groups], 1)
    return torch.cat([parts[0], *(part.softmax(1) for part in parts[1:])], 1)


@bundles
@pytest.mark.parametrize("base", [("inference",), ("train", "evaluate")], ids="+".join)
def test_an_ensemble_averages_probabilities(bundle: Path, base: tuple[str, ...], tmp_path: Path) -> None:
    members, files = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = tiny_parser(bundle, *base, network="network_def").get_parsed_content("network_def")
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        members.append(network.eval())
        files.append(str(tmp_path / f"{seed}.pt"))
        save_whole(network.state_dict(), files[-1])
    parser = tiny_parser(bundle, *base, "ensemble", network="member")
    parser["weights"] = files
    ensemble = parser.get_parsed_content("network_def").eval()
    load_weights(ensemble, files)
    image = torch.randn(1, len(parser["modalities"]), *TINY[bundle.name]["roi_size"])
    with torch.no_grad():
        found, alone = ensemble(image), [member(image) for member in members]
    groups = LOGITS.get(bundle, [])
    first, second = (probabilities(output, groups) for output in alone)
    torch.testing.assert_close(probabilities(found, groups), (first + second) / 2)
    assert not torch.allclose(first, second, atol=0.01)
    assert found.min() < 0 if bundle == MAMTLN_CT else found[:, :1].min() >= 0


@pytest.mark.parametrize("bundle", LOGITS, ids=lambda bundle: bundle.name)
def test_an_ensemble_of_equal_networks_has_their_map(bundle: Path) -> None:
    parser = tiny_parser(bundle, "inference", "explain", "ensemble", network="member")
    parser["weights"] = ["a", "b"]
    parser["roi_size"] = TINY[bundle.name]["roi_size"]
    torch.manual_seed(0)
    ensemble, inferer = (parser.get_parsed_content(name) for name in ("network_def", "inferer"))
    first, second = ensemble.eval().networks
    second.load_state_dict(first.state_dict())
    image = torch.rand(1, len(parser["modalities"]), *parser["roi_size"])
    found = inferer(image, ensemble)
    assert found.shape == (1, 1, *parser["roi_size"]) and found.max() == 1
    torch.testing.assert_close(found, inferer(image, first))


@pytest.mark.parametrize(("task", "groups"), [("seg", (2,)), ("class", (2,)), ("both", (2, 2))])
def test_logits_follow_the_task(task: str, groups: tuple[int, ...]) -> None:
    parser = tiny_parser(MAMTLN_CT, "inference", "ensemble", network="member")
    parser["task"] = task
    assert parser.get_parsed_content("network_def").logits == groups
