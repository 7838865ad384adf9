"""The kernels on a GPU: values, gradients, second derivatives, dtypes, autocast, compiled code.

Skipped without a GPU. The oracle is the reference kernel in float64 on the CPU.
"""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from kernel_nets import all_gradients, distance, inputs, reference_copy, supernet
from mixture_oracles import (
    LEVELS,
    MIXED,
    THIRTEEN,
    assert_close,
    double_backward,
    exact,
    gradients,
    layout,
    make_bank,
    truth,
)
from torch import Tensor

from nasact.errors import MixtureError
from nasact.mixture import Fused, Kernel, Table
from nasact.mixture.kernels import fused

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

KERNELS: dict[str, str | Kernel] = {
    "reference": "reference",
    "table": Table(),
    "fused": Fused(compile="never"),
    "fused compiled": Fused(compile="always"),
    "auto": "auto",
}
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3, torch.float64: 1e-12}
every_kernel = pytest.mark.parametrize("kernel", KERNELS)
every_level = pytest.mark.parametrize("level", LEVELS)


def to_cpu(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: each.cpu() for name, each in found.items()}


@every_level
@every_kernel
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("names", [THIRTEEN, MIXED], ids=["tabulated", "mixed"])
def test_output_and_gradients_on_cuda(names: tuple[str, ...], dtype: torch.dtype, kernel: str, level: str) -> None:
    if kernel == "table" and dtype == torch.float64:
        pytest.skip("the table refuses float64")
    torch.manual_seed(0)
    x, g = (2 * torch.randn(40, 3, 30)).to(dtype), torch.randn(40, 3, 30).to(dtype)
    x[0, 0, :4] = torch.tensor([0.0, 100.0, -50.0, 33.0])  # also outside the table
    bank = make_bank(names, layout(level, x.shape), KERNELS[kernel], dtype)  # type: ignore[arg-type]
    weights = torch.rand(*bank.layout.shape, len(names)).to(torch.promote_types(dtype, torch.float32))
    true = truth(bank, x, weights, g)
    found = to_cpu(gradients(bank.cuda(), x.cuda(), weights.cuda(), g.cuda()))
    assert found["y"].dtype == dtype
    assert_close(found, true, TOLERANCES[dtype])


@every_level
@every_kernel
def test_second_derivatives_on_cuda(kernel: str, level: str) -> None:
    torch.manual_seed(0)
    x, g, a = torch.randn(3, 6, 3, 4).unbind()
    bank = make_bank(THIRTEEN, layout(level, x.shape), KERNELS[kernel])  # type: ignore[arg-type]
    weights = torch.rand(*bank.layout.shape, len(THIRTEEN))
    true = double_backward(exact(bank), x.double(), weights.double(), g.double(), a.double())
    found = double_backward(bank.cuda(), x.cuda(), weights.cuda(), g.cuda(), a.cuda())
    assert distance([each.cpu() for each in found], list(true)) < 2e-4


@every_kernel
def test_memory_formats_and_empty_inputs_on_cuda(kernel: str) -> None:
    bank = make_bank(THIRTEEN, layout("channel", (4, 3, 6, 5)), KERNELS[kernel]).cuda()  # type: ignore[arg-type]
    weights = torch.rand(3, len(THIRTEEN), device="cuda")
    x = torch.randn(4, 3, 6, 5, device="cuda")
    last = x.to(memory_format=torch.channels_last)
    assert bank(last, weights).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(bank(last, weights), bank(x, weights))
    assert bank(x[:0], weights).shape == (0, 3, 6, 5)


@every_level
@pytest.mark.parametrize("kernel", ["auto", "table", "fused"])
def test_a_supernet_trains_on_cuda(kernel: str, level: str) -> None:
    net = supernet(kernel, level)
    true = all_gradients(reference_copy(net), inputs().double())
    net = net.cuda()
    with torch.backends.cudnn.flags(allow_tf32=False):
        found = [each.cpu() for each in all_gradients(net, inputs().cuda())]
    assert distance(found, true) < 1e-3
    with torch.autocast("cuda", torch.bfloat16):
        y = net(inputs().cuda())
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())


def test_auto_is_fused_on_cuda_and_compiled_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_warnings", itertools.count())
    bank = make_bank(THIRTEEN, layout("layer", (4, 3)))
    assert bank.choose(torch.device("cuda"), torch.float32).kernel == "fused"
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        x = torch.randn(64, 3, device="cuda")
        gradients(bank.cuda(), x, torch.rand(len(THIRTEEN), device="cuda"), x)


@pytest.mark.parametrize("kernel", ["table", "auto"])
def test_weights_on_another_device_are_refused(kernel: str) -> None:
    bank = make_bank(THIRTEEN, layout("channel", (4, 3)), kernel)
    with pytest.raises((MixtureError, RuntimeError), match=r"device|on cuda"):
        bank(torch.randn(4, 3), torch.rand(3, len(THIRTEEN), device="cuda"))
