"""Compare with MONAI's inferer, which has the same windows and weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

from common.errors import InputError, UsageError
from common.inferers import WindowInferer
from common.inferers.windows import computes_bfloat16
from common.memory import Memory

CPU = torch.device("cpu")


class Network(nn.Module):
    """Map two channels to three by a function that varies over the window, and record the input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 3, 3, padding=1)
        self.windows: list[Tensor] = []
        self.autocast: list[torch.dtype | None] = []

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        self.windows.append(x)
        self.autocast.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
        ramp = torch.linspace(0.5, 1, x[0, 0].numel()).reshape(x.shape[2:])
        return gain * self.conv(x) * ramp + x.mean((1, 2, 3, 4), keepdim=True)

    @property
    def batches(self) -> list[int]:
        return [len(x) for x in self.windows]


@pytest.fixture
def network() -> Network:
    return Network().eval().requires_grad_(False)


def both(image: Tensor, network: nn.Module, **options: Any) -> tuple[Tensor, Tensor]:
    options = {"overlap": 0.5, **options}
    with torch.no_grad():
        return WindowInferer(precision="float32", **options)(image, network), SlidingWindowInferer(**options)(
            image, network
        )


SIZES = {
    "even": ((12, 8, 8), (6, 4, 4)),
    "uneven": ((11, 9, 7), (6, 4, 5)),
    "smaller than the window": ((3, 9, 4), (6, 4, 5)),
    "the window": ((6, 5, 4), (6, 5, 4)),
    "whole axes": ((11, 9, 7), (-1, 4, -1)),
}


class PerWindow(nn.Module):
    """Depend on the position in the window and on its other voxels, but not on other windows of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        place = torch.arange(x[0, 0].numel()).reshape(x.shape[2:]) / x[0, 0].numel()
        mixed = x.sum(1, keepdim=True) * place + x.mean((1, 2, 3, 4), keepdim=True)
        return torch.cat([mixed, mixed.square(), x], 1)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("mode", ["constant", "gaussian"])
@pytest.mark.parametrize("sw_batch_size", [1, 3])
@pytest.mark.parametrize("overlap", [0.25, 0.5, (0, 0.3, 0.75)])
@pytest.mark.parametrize("cases", [1, 2])
def test_the_output_equals_monais(
    sizes: tuple[tuple[int, ...], tuple[int, ...]], mode: str, sw_batch_size: int, overlap: Any, cases: int
) -> None:
    shape, roi = sizes
    image = torch.randn(cases, 2, *shape)
    options = {"roi_size": roi, "mode": mode, "sw_batch_size": sw_batch_size, "overlap": overlap}
    found, expected = both(image, PerWindow(), **options)
    assert found.shape == expected.shape == (cases, 4, *shape) and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert type(found) is Tensor


@pytest.mark.parametrize("sw_batch_size", [1, 3, 1000])
def test_the_windows_are_those_of_monai(network: Network, sw_batch_size: int) -> None:
    image = torch.randn(2, 2, 11, 9, 7)
    found = WindowInferer((6, 4, 5), sw_batch_size, 0.5, precision="float32")(image, network)
    seen, network.windows = torch.cat(network.windows), []
    assert len(seen) > 3 * 4
    expected = SlidingWindowInferer((6, 4, 5), sw_batch_size, 0.5)(image, network)
    assert torch.equal(seen, torch.cat(network.windows))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_windows_are_batched_and_channels_last(network: Network) -> None:
    WindowInferer((6, 4, 4), sw_batch_size=3, overlap=0, precision="float32")(torch.randn(1, 2, 12, 8, 8), network)
    assert network.batches == [3, 3, 2]
    assert all(x.is_contiguous(memory_format=torch.channels_last_3d) for x in network.windows)
    assert not any(x.is_contiguous() for x in network.windows)
    assert network.autocast == [None] * 3


def test_arguments_reach_the_network(network: Network) -> None:
    image, inferer = torch.randn(1, 2, 6, 4, 4), WindowInferer((6, 4, 4), precision="float32")
    plain, louder = inferer(image, network), inferer(image, network, gain=2.0)
    torch.testing.assert_close(louder, inferer(image, network, 2.0))
    torch.testing.assert_close(louder - image.mean(), 2 * (plain - image.mean()))


def test_a_metatensor_gives_a_metatensor(network: Network) -> None:
    affine = torch.tensor([[0.0, 2, 0, 1], [3, 0, 0, 2], [0, 0, 4, 3], [0, 0, 0, 1]], dtype=torch.float64)
    plain = torch.randn(1, 2, 11, 3, 7)
    image = MetaTensor(plain.clone(), affine=affine, meta={"filename_or_obj": "P1.nii.gz"})
    inferer = WindowInferer((6, 4, 5), precision="float32")
    found = inferer(image, network)
    assert isinstance(found, MetaTensor) and not any(isinstance(x, MetaTensor) for x in network.windows)
    assert torch.equal(found.affine, affine) and found.meta["filename_or_obj"] == "P1.nii.gz"
    assert torch.equal(found.as_tensor(), inferer(plain, network))
    found.meta["filename_or_obj"] = "other"
    assert image.meta["filename_or_obj"] == "P1.nii.gz"
    assert torch.equal(image.as_tensor(), plain)


# Empty windows.


def test_empty_windows_are_skipped(network: Network) -> None:
    """Three of eight adjacent windows are not empty, one of them in the second channel alone."""
    image = torch.full((1, 2, 12, 8, 8), -0.5)
    image[:, :, 5, 3, 3] = image[:, :, 11, 3, 3] = image[:, 1, 0, 7, 7] = 1
    inferer = WindowInferer((6, 4, 4), 2, 0, precision="float32", empty=-0.5, fill=(7, -8, 9))
    found = inferer(image, network)
    assert network.batches == [2, 1]
    computed = torch.zeros(12, 8, 8, dtype=torch.bool)
    computed[:, :4, :4] = computed[:6, 4:, 4:] = True
    for channel, fill in zip(found[0], (7, -8, 9)):
        assert (channel[~computed] == fill).all()
        assert not (channel[computed] == fill).any()
    network.windows = []
    everywhere = WindowInferer((6, 4, 4), 1, 0, precision="float32")(image, network)
    assert network.batches == [1] * 8
    torch.testing.assert_close(found[..., computed], everywhere[..., computed], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("mode", ["constant", "gaussian"])
def test_skipped_windows_do_not_count_in_an_overlap(mode: str) -> None:
    """The inner two of four windows along x are empty."""
    image = torch.zeros(1, 1, 10, 4, 4)
    image[..., 0, 0, 0] = image[..., 9, 0, 0] = 5
    calls = []

    def ones(x: Tensor) -> Tensor:
        calls.append(x)
        return torch.full_like(x, 3.0)

    options: dict[str, Any] = {"roi_size": (4, 4, 4), "overlap": 0.5, "mode": mode, "precision": "float32"}
    found = WindowInferer(**options, empty=0, fill=-1)(image, ones)
    assert len(calls) == 2
    torch.testing.assert_close(found[0, 0, :, 0, 0], torch.tensor([3.0] * 4 + [-1] * 2 + [3] * 4))
    assert (WindowInferer(**options, empty=-0.1, fill=-1)(image, ones) == 3).all()
    assert len(calls) == 2 + 4


@pytest.mark.parametrize("cases", [1, 2])
def test_an_empty_image_is_filled(network: Network, cases: int) -> None:
    image = torch.zeros(cases, 2, 12, 8, 8)
    inferer = WindowInferer((6, 4, 4), 3, 0.5, precision="float32", empty=0.0, fill=-4)
    found = inferer(image, network)
    assert network.batches == [1]  # for the number of channels
    assert found.shape == (cases, 3, 12, 8, 8) and (found == -4).all()
    if cases == 2:
        image[1, 0, 3, 3, 3] = 1
        found = inferer(image, network)
        assert (found[0] == -4).all()
        assert not (found[1, :, 3, 3, 3] == -4).any()


# Precision.


def test_bfloat16_gives_a_close_float32_result(network: Network) -> None:
    image = torch.randn(1, 2, 11, 9, 7)
    low = WindowInferer((6, 4, 5), 2, 0.5, precision="bfloat16")(image, network)
    assert set(network.autocast) == {torch.bfloat16}
    assert all(x.is_contiguous(memory_format=torch.channels_last_3d) for x in network.windows)
    assert not torch.is_autocast_enabled("cpu")
    high = WindowInferer((6, 4, 5), 2, 0.5, precision="float32")(image, network)
    assert low.dtype == high.dtype == torch.float32
    torch.testing.assert_close(low, high, atol=0.02, rtol=0.02)
    assert not torch.allclose(low, high, atol=1e-5)


@pytest.mark.parametrize(("channels", "last"), [(7, False), (8, True)])
@pytest.mark.parametrize("mode", ["constant", "gaussian"])
def test_many_channels_are_summed_in_the_networks_order(channels: int, last: bool, mode: str) -> None:
    conv = nn.Conv3d(1, channels, 1).requires_grad_(False)
    infer = WindowInferer((6, 4, 4), overlap=0.5, mode=mode, precision="float32")
    image = torch.randn(1, 1, 11, 9, 7)
    expected = infer(image, lambda x: conv(x).contiguous())
    output = infer(image, lambda x: conv(x).contiguous(memory_format=torch.channels_last_3d))
    assert torch.equal(output, expected)
    assert expected.is_contiguous() and output.is_contiguous() is not last
    assert output.is_contiguous(memory_format=torch.channels_last_3d) is last


def test_bfloat16_outputs_are_summed_in_float32() -> None:
    """256 + 1 is 256 in bfloat16."""

    def network(x: Tensor) -> Tensor:
        return torch.where(x.amax((1, 2, 3, 4), keepdim=True) > 1, 256.0, 1.0).expand_as(x).bfloat16()

    image = torch.zeros(1, 1, 6, 2, 2)
    image[..., 0, 0, 0] = 2
    found = WindowInferer((4, 2, 2), overlap=0.5, precision="bfloat16")(image, network)
    assert found[0, 0, :, 0, 0].tolist() == [256, 256, 128.5, 128.5, 1, 1]


def test_float32_holds_under_an_outer_autocast(network: Network) -> None:
    image = torch.randn(1, 2, 6, 4, 5)
    inferer = WindowInferer((6, 4, 5), precision="float32")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = inferer(image, network)
    assert network.autocast == [None]
    assert torch.equal(found, inferer(image, network))


@pytest.mark.parametrize(
    ("capabilities", "computes"),
    [
        ({}, False),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"architecture": "aarch64", "bf16": True}, True),
    ],
)
def test_auto_is_bfloat16_where_the_processor_has_it(
    network: Network, monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], computes: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert computes_bfloat16(CPU) is computes
    WindowInferer((6, 4, 4))(torch.randn(1, 2, 6, 4, 4), network)
    assert network.autocast == [torch.bfloat16 if computes else None]


def test_auto_is_float32_without_known_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert computes_bfloat16(CPU) is False
    assert computes_bfloat16(torch.device("mps")) is False


@pytest.mark.parametrize("supported", [True, False])
def test_auto_is_bfloat16_on_a_gpu_with_instructions(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or supported
    )
    assert computes_bfloat16(torch.device("cuda")) is supported


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("roi_size", [4, 4], "three values, each a whole number of at least 1, or -1"),
        ("roi_size", [4, 4, "x"], "three values"),
        ("keep", [0, 2, 2], "three values"),
        ("sw_batch_size", 0, "a whole number of at least 1"),
        ("overlap", "abc", "a number from 0 to below 1, or one for each axis"),
        ("overlap", [0, 0, 1], "a number from 0 to below 1"),
        ("mode", "linear", "constant or gaussian"),
        ("precision", "half", "auto, bfloat16 or float32"),
        ("empty", [1, 0], "a number, or the lowest and the highest one"),
        ("fill", "abc", "a number, or one for each channel"),
    ],
)
def test_a_wrong_option_is_refused_before_the_first_case(name: str, value: Any, expected: str) -> None:
    options: dict[str, Any] = {"roi_size": (4, 4, 4), name: value}
    with pytest.raises(UsageError) as error:
        WindowInferer(**options)
    assert str(error.value).startswith(f"--{name} {value}: expected {expected}")


# Networks with another output.


@pytest.mark.parametrize(
    ("returns", "found"),
    [
        (lambda x: {"pred": x}, "dict"),
        (lambda x: [x, x], "list"),
        (lambda x: x[..., ::2], r"\[3, 2, 6, 4, 2\]"),
        (lambda x: x[:1], r"\[1, 2, 6, 4, 4\]"),
        (lambda x: x.mean(), r"\[\]"),
    ],
    ids=["dictionary", "list", "half the size", "one of a batch", "a number"],
)
def test_an_output_of_another_shape_is_refused(returns: Any, found: str) -> None:
    inferer = WindowInferer((6, 4, 4), sw_batch_size=3, overlap=0)
    with pytest.raises(
        ValueError, match=rf"the network returned {found} for windows \[3, 2, 6, 4, 4\], expected one tensor"
    ):
        inferer(torch.randn(1, 2, 12, 8, 8), returns)


def test_outputs_that_do_not_fit_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.memory.main_memory", lambda: Memory(4000, 10**9))
    image, network = torch.zeros(1, 1, 8, 8, 8), torch.nn.Conv3d(1, 2, 1)
    with pytest.raises(InputError, match="8 x 8 x 8 voxels: the sum of 2 output channels needs 4096 bytes of memory"):
        WindowInferer((4, 4, 4))(image, network)
