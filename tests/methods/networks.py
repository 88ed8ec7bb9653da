"""Test what every network keeps: a method derives a class for each variant of its networks from one of these."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from common.errors import InputError
from common.layers import TwoForms


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def set_trained(norm: nn.BatchNorm3d) -> None:
    """Set statistics and weights of a batch normalisation as after training."""
    nn.init.normal_(norm.running_mean, std=0.3)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias, std=0.3)


class NetworkTests:
    """Test a network that returns one tensor, its inference form if it has two.

    A subclass sets what is declared here.
    """

    network: ClassVar[type[nn.Module]]
    options: ClassVar[dict[str, Any]]  # they make the network narrow
    image: ClassVar[tuple[int, ...]]  # shape of an input (B, C, x, y, z)
    out_channels: ClassVar[int]
    other: ClassVar[dict[str, Any]]  # other numbers of channels and classes
    other_out_channels: ClassVar[int]
    any_size: ClassVar[bool] = False  # True if every spatial size fits
    parameter_counts: ClassVar[tuple[tuple[dict[str, Any], int], ...]] = ()  # of the published widths, by options
    wrong_options: ClassVar[tuple[tuple[dict[str, Any], str], ...]] = ()  # each with a pattern of its error
    without_gradient: ClassVar[str] = "(?!)"  # pattern in the names of parameters that do not change the output
    not_in_inference: ClassVar[str] = "(?!)"  # pattern in the names of parameters of the training form alone

    def build(self, **options: Any) -> nn.Module:
        form = {"dense": True} if issubclass(self.network, TwoForms) else {}
        network = self.network(**{**self.options, **form, **options})
        self.prepare(network)
        return network

    def prepare(self, network: nn.Module) -> None:
        """Set weights without which some parameters get no gradient."""

    def test_numbers_of_parameters(self) -> None:
        for options, expected in self.parameter_counts:
            with torch.device("meta"):
                assert parameters(self.network(**options)) == expected, options

    def test_wrong_options_raise(self) -> None:
        for options, message in self.wrong_options:
            with pytest.raises(ValueError, match=message):
                self.network(**{**self.options, **options})

    @pytest.mark.parametrize("training", [True, False])
    def test_returns_one_float_map_of_the_image_size(self, training: bool) -> None:
        output = self.build().train(training)(torch.randn(self.image))

        assert type(output) is Tensor
        assert output.dtype == torch.float32
        assert output.shape == (self.image[0], self.out_channels, *self.image[2:])
        assert output.isfinite().all()

    def test_every_parameter_gets_a_gradient(self) -> None:
        network = self.build().train()
        without = f"{self.without_gradient}|{self.not_in_inference}"
        self.check_gradients(network, [network(torch.randn(self.image))], without)

    def check_gradients(self, network: nn.Module, outputs: Iterable[Tensor], without: str) -> None:
        sum((output * torch.randn_like(output)).sum() for output in outputs).backward()
        for name, parameter in network.named_parameters():
            if not re.search(without, name):
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name
                assert parameter.grad.any(), f"{name} has a gradient of zeros"

    def test_other_numbers_of_channels_and_classes(self) -> None:
        network = self.build(**self.other).eval()
        batch, _, *size = self.image
        with torch.no_grad():
            output = network(torch.randn(batch, self.other.get("in_channels", self.image[1]), *size))
        assert output.shape == (batch, self.other_out_channels, *size)

    def test_another_number_of_channels_raises(self) -> None:
        batch, channels, *size = self.image
        for shape in ((batch, channels + 1, *size), (batch, channels, *size[:2])):
            with pytest.raises(
                ValueError, match=rf"\(B, {channels}, x, y, z\), found shape {re.escape(str([*shape]))}"
            ):
                self.build()(torch.zeros(shape))

    @pytest.mark.parametrize("axis", [2, 3, 4])
    def test_a_size_that_does_not_divide_names_one_that_does(self, axis: int) -> None:
        network = self.build().eval()
        shape = list(self.image)
        shape[axis] += 1
        if not self.any_size:
            with pytest.raises(
                InputError, match=rf"roi_size .*{shape[axis]} is not div.* by \d+; pad to \d+$"
            ) as error:
                network(torch.zeros(shape))
            fit = int(re.findall(r"\d+", str(error.value))[-1])
            assert fit > shape[axis]
            shape[axis] = fit
        with torch.no_grad():
            assert network(torch.zeros(shape)).shape[2:] == tuple(shape[2:])

    def test_a_batch_equals_its_cases(self) -> None:
        network, x = self.build().eval(), torch.randn(self.image)
        with torch.no_grad():
            torch.testing.assert_close(network(x), torch.cat([network(single) for single in x.split(1)]))

    def test_channels_last_equals_the_usual_layout(self) -> None:
        network, x = self.build().eval(), torch.randn(self.image)
        with torch.no_grad():
            expected = network(x)
            network.to(memory_format=torch.channels_last_3d)
            torch.testing.assert_close(network(x.contiguous(memory_format=torch.channels_last_3d)), expected)

    def test_output_is_float32_also_under_autocast(self) -> None:
        network, x = self.build().eval(), torch.randn(self.image)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            output = network(x)
        assert output.dtype == torch.float32 and output.isfinite().all()
        assert not torch.equal(output, output.bfloat16().float())  # the last step was not rounded

    def test_saved_weights_load(self, tmp_path: Path) -> None:
        network, other, x = self.build().eval(), self.build().eval(), torch.randn(self.image)
        torch.save(network.state_dict(), tmp_path / "model.pt")
        other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        with torch.no_grad():
            assert torch.equal(other(x), network(x))

    def test_scripted_and_loaded_equals_eager(self, tmp_path: Path) -> None:
        network, x = self.build().eval(), torch.randn(self.image)
        torch.jit.save(torch.jit.script(network), tmp_path / "network.ts")
        loaded = torch.jit.load(tmp_path / "network.ts")
        with torch.no_grad():
            torch.testing.assert_close(loaded(x), network(x))
            torch.testing.assert_close(loaded(x[:1]), network(x[:1]))

    # The exporter that torch prefers needs onnxscript. This one is deprecated, traces, and so warns of size checks.
    @pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export:DeprecationWarning")
    @pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning")
    @pytest.mark.filterwarnings("ignore:Converting a tensor to a Python:torch.jit.TracerWarning")
    @pytest.mark.filterwarnings("ignore:Constant folding - Only steps=1 can be:UserWarning")
    def test_onnx_equals_eager(self, tmp_path: Path) -> None:
        pytest.importorskip("onnx")
        onnxruntime = pytest.importorskip("onnxruntime")
        network, x = self.build().eval(), torch.randn(self.image)
        path = str(tmp_path / "network.onnx")
        torch.onnx.export(network, (x,), path, input_names=["image"], output_names=["pred"], dynamo=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (output,) = session.run(["pred"], {"image": x.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(output), network(x), rtol=1e-4, atol=1e-4)

    @pytest.mark.slow
    def test_compiled_equals_eager(self) -> None:
        network, x = self.build().eval(), torch.randn(self.image)
        torch.compiler.reset()
        with torch.no_grad():
            # this backend runs what was captured; it needs no compiler
            torch.testing.assert_close(torch.compile(network, backend="eager")(x), network(x))

    @pytest.mark.gpu
    def test_cuda_equals_cpu(self) -> None:
        # in float32, TF32 convolutions would hide a difference
        network, x = self.build().eval().double(), torch.randn(self.image, dtype=torch.float64)
        with torch.no_grad():
            on_cpu = network(x)
            on_cuda = network.cuda()(x.cuda())
        assert on_cuda.is_cuda
        torch.testing.assert_close(on_cuda.cpu(), on_cpu, rtol=1e-5, atol=1e-6)


class TwoFormsTests(NetworkTests):
    """Test a network that also has a training form, which returns a dict of tensors."""

    heads: ClassVar[dict[str, int]]  # channels of each output

    @pytest.mark.parametrize("training", [True, False])
    def test_training_form_returns_every_head_of_the_same_weights(self, training: bool) -> None:
        network = self.build().train(training)
        form = network.training_form().train(training)
        outputs = form(torch.randn(self.image))

        assert type(outputs) is dict and network.dense
        assert {name: tuple(output.shape[:2]) for name, output in outputs.items()} == {
            name: (self.image[0], channels) for name, channels in self.heads.items()
        }
        assert all(output.isfinite().all() for output in outputs.values())
        self.check_gradients(network, outputs.values(), self.without_gradient)

    def inference_of(self, outputs: dict[str, Tensor]) -> Tensor:
        """Return the output of the inference form that belongs to outputs of the training form."""
        raise NotImplementedError

    def test_inference_form_follows_from_the_training_form(self) -> None:
        network, x = self.build().eval(), torch.randn(self.image)
        with torch.no_grad():
            torch.testing.assert_close(network(x), self.inference_of(network.training_form().eval()(x)))

    def test_both_forms_have_the_same_state_dict(self) -> None:
        network, trained = self.build(), self.build(dense=False)
        assert not trained.dense and list(trained.state_dict()) == list(network.state_dict())
        network.load_state_dict(trained.state_dict())


class Variant:
    """Leave out of the tests of a variant, derived from those of its network, what they would repeat."""

    test_compiled_equals_eager = None  # it takes seconds
    test_numbers_of_parameters = None
    test_wrong_options_raise = None
