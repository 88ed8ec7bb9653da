"""Compare the convolution that always takes the fast kernel with PyTorch's."""

import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import nn

from common.methods.mmfnet.convolution import Conv3d

LAYOUTS = (torch.contiguous_format, torch.channels_last_3d)
KERNELS = (1, 3, 5, (3, 3, 1))


def gradients(conv, x, bfloat16=False):
    x = x.detach().clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        y = conv(x)
    (y.float() * torch.linspace(-1, 1, y[0].numel()).view(y.shape[1:])).sum().backward()
    return y.detach(), x.grad, *(p.grad for p in conv.parameters())


def pair(kernel, **options):
    """Return the convolution and PyTorch's with the same weights."""
    ours = Conv3d(6, 4, kernel, **options)
    theirs = nn.Conv3d(6, 4, kernel, padding="same", **options)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.fixture
def x():
    return torch.randn(1, 6, 5, 4, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_pytorch(x, layout, kernel, bias):
    ours, theirs = pair(kernel, bias=bias)
    x = x.contiguous(memory_format=layout)
    torch.testing.assert_close(gradients(ours, x), gradients(theirs, x))


def test_result_equals_the_sum_over_the_kernel(x):
    conv = Conv3d(6, 4)
    padded, expected = F.pad(x, [1] * 6).double(), torch.zeros(1, 4, 5, 4, 3, dtype=torch.float64)
    for i, j, k in torch.cartesian_prod(*3 * [torch.arange(3)]).tolist():
        shifted = padded[:, :, i : i + 5, j : j + 4, k : k + 3]
        expected += torch.einsum("oc,bcxyz->boxyz", conv.weight.double()[..., i, j, k], shifted)
    expected += conv.bias.double().view(1, -1, 1, 1, 1)
    torch.testing.assert_close(conv(x).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_channels_stay_last_in_memory(x, kernel):
    conv = Conv3d(6, 4, kernel).to(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        y = conv(x.contiguous(memory_format=torch.channels_last_3d))
    assert y.is_contiguous(memory_format=torch.channels_last_3d) or not torch.backends.mkldnn.is_available()


def test_autocast_gives_the_values_of_pytorch(x):
    ours, theirs = pair(3)
    found, expected = gradients(ours, x, True), gradients(theirs, x, True)
    assert found[0].dtype == torch.bfloat16
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_double_precision_is_kept(x):
    ours, theirs = (conv.double() for conv in pair(3))
    torch.testing.assert_close(ours(x.double()), theirs(x.double()))


def test_metadata_of_the_image_are_kept(x):
    assert isinstance(Conv3d(6, 4)(MetaTensor(x)), MetaTensor)


def test_script_gives_the_same_values(x):
    conv = Conv3d(6, 4)
    torch.testing.assert_close(torch.jit.script(conv)(x), conv(x))


def test_weights_start_as_those_of_pytorch():
    torch.manual_seed(0)
    ours = Conv3d(6, 4)
    torch.manual_seed(0)
    theirs = nn.Conv3d(6, 4, 3)
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
