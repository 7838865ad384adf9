"""The kernels on a GPU, where there is one: the main claims of the conformance suite."""

from __future__ import annotations

import pytest
import torch

from nasact.mixture import KERNELS, Bank, Layout, Mixture

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

LAYOUTS = {
    "layer": Layout(),
    "channel": Layout(level="channel", shape=(5,)),
    "neuron": Layout(level="neuron", shape=(5, 6)),
}


def gradients(kernel: str, level: str, device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    """The output, d x, d alpha, and the gradient of a function of both gradients."""
    generator = torch.Generator().manual_seed(0)
    x = (40 * torch.randn(7, 5, 6, dtype=torch.float64, generator=generator)).to(device, dtype).requires_grad_()
    bank = Bank(("relu", "tanh", "gelu", "prelu", "softmax"), LAYOUTS[level], kernel=kernel, device=device, dtype=dtype)
    op = Mixture(bank, device=device, dtype=dtype)
    with torch.no_grad():
        op.alpha.copy_(torch.randn(op.alpha.shape, dtype=torch.float64, generator=generator))
    y = op(x)
    first = torch.autograd.grad(y.pow(2).sum(), (x, op.alpha), create_graph=True)
    second = torch.autograd.grad(sum(each.pow(2).sum() for each in first), (x, op.alpha))
    return [tensor.detach().double().cpu() for tensor in (y, *first, *second)]


@pytest.mark.parametrize("level", LAYOUTS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_computes_on_a_gpu_what_the_reference_computes_in_float64(kernel: str, level: str) -> None:
    assert len(KERNELS) == 4
    truth = gradients("reference", level, "cpu", torch.float64)
    found = gradients(kernel, level, "cuda", torch.float32)
    for one, other in zip(found, truth, strict=True):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()
