"""Compare estimates of memory with the tensors that exist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from common.data import VolumeReader
from common.data.volume_reader import coverage
from common.doctor.headers import Header, read_header
from common.doctor.memory import cache_bytes, inference_memory, network_memory, update_memory
from common.doctor.preprocessing import Prepared

OBLIQUE = np.array([[1.0, 0, 0.3, 5], [0, -1, 0, 2], [0, 0, 3, 0], [0, 0, 0, 1]])


def test_cached_case_has_the_bytes_of_its_tensors() -> None:
    image, label = torch.zeros(3, 5, 6, 7, dtype=torch.float16), torch.zeros(1, 5, 6, 7, dtype=torch.uint8)
    assert cache_bytes(Prepared((5, 6, 7), 3)) == image.nbytes + label.nbytes


def test_layers_count_the_tensors_that_exist_at_once() -> None:
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 1, bias=False), torch.nn.ReLU(), torch.nn.Conv3d(4, 2, 1))
    voxels, weights = 2 * 6 * 6 * 6, 4 * (4 + 8 + 2)
    channels, most = network_memory(network, (2, 1, 6, 6, 6))
    # The input exists before. The most of the rest are the outputs of the first convolution and of the ReLU.
    assert channels == 2
    assert most - weights in (4 * voxels * (1 + 4 + 4), 4 * voxels * (4 + 4))


class Two(torch.nn.Sequential):
    """Return the output in a dictionary, and take a factor."""

    def forward(self, x: torch.Tensor, factor: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        return {"out": super().forward(x) * factor}


def test_an_update_keeps_the_layers_for_the_backward_pass() -> None:
    def network(layers: int) -> torch.nn.Module:
        return Two(*(torch.nn.Sequential(torch.nn.Conv3d(4, 4, 1, bias=False), torch.nn.Tanh()) for _ in range(layers)))

    image, activation, weights = torch.zeros(2, 4, 8, 8, 8), 4 * 2 * 4 * 8**3, 4 * 4 * 4
    few, many = (update_memory(network(layers), image, factor=torch.ones(1)) for layers in (2, 12))
    assert many - few == pytest.approx(10 * (activation + 4 * weights), rel=0.01)
    assert few > 3 * activation
    own = network(1)
    update_memory(own, image, factor=torch.ones(1))
    assert all(p.device.type == "cpu" and p.grad is None for p in own.parameters())


def test_inference_adds_the_steps_that_overlap() -> None:
    memory = inference_memory(
        Header(Path("a.nii"), (10, 10, 10), 1, np.eye(4)), 2, Prepared((10, 10, 5), 2), 3, 1000, copies=True
    )
    assert memory.reading == 4 * 2 * 2500 and memory.computing == 4 * 500 * 11
    assert memory.finishing == 4 * 500 * 5 + 3000
    plain = inference_memory(Header(Path("a.nii"), (10, 10, 10), 1, np.eye(4)), 2, Prepared((10, 10, 5), 2), 3, 1000)
    assert plain.computing == 4 * 500 * 6
    one, several = (memory.of_main_memory(n, "cpu") for n in (1, 3))
    assert several - one == sum(memory) - max(memory.reading, memory.computing + memory.layers, memory.finishing)
    assert memory.of_main_memory(3, "cuda") - memory.of_main_memory(1, "cuda") == 0
    other = inference_memory(Header(Path("a.mha"), (10, 10, 10), 1, np.eye(4)), 2, Prepared((10, 10, 5), 2), 3, 1000)
    assert other.modules == other.of_main_memory(1, "cpu") - plain.of_main_memory(1, "cpu") > plain.modules == 0
    assert memory.of_gpu(2) == memory.computing + memory.layers + memory.finishing


def test_header_equals_the_volume_that_is_read(write_nifti: Callable) -> None:
    array = np.random.default_rng(0).random((5, 6, 7, 2), np.float32)
    header = read_header(write_nifti("four.nii.gz", array, OBLIQUE))
    volume, meta = VolumeReader(["a", "b"]).get_data([header.path])
    assert (header.channels, *header.shape) == volume.shape
    np.testing.assert_allclose(header.affine, meta["affine"])


def test_coverage_is_the_share_of_the_second_grid() -> None:
    shape, moved = (16, 16, 16), np.eye(4)
    moved[1, 3] = 4
    assert coverage(shape, np.eye(4), shape, np.eye(4)) == 1
    assert coverage(shape, moved, shape, np.eye(4)) == 0.75
    assert coverage((32, 32, 32), np.eye(4), shape, np.eye(4)) == 1
