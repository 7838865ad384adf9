"""Surgery on real networks of torchvision."""

from __future__ import annotations

import pytest
import torch
import torchvision

from nasact.supernet import Genotype, derive, find_sites, relax

# name: (number of sites, side of the input)
MODELS = {
    "resnet18": (17, 64),
    "mobilenet_v3_small": (42, 64),
    "vit_b_16": (12, 32),
    "convnext_tiny": (18, 32),
}
SLOW = ("vit_b_16",)
"""86 million weights: seconds to make, and again to copy."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in MODELS]
)
def test_a_torchvision_model_relaxes_at_channel_level_and_comes_back(name: str) -> None:
    count, side = MODELS[name]
    torch.manual_seed(0)
    options = {"image_size": side} if name == "vit_b_16" else {}
    model = torchvision.models.get_model(name, num_classes=10, **options).eval()
    if name == "vit_b_16":
        torch.nn.init.normal_(model.heads.head.weight, std=0.02)  # it starts at zero, and would hide any difference
    x = torch.randn(2, 3, side, side)
    report = find_sites(model)
    assert len(report.sites) == count
    assert not report.unreachable
    supernet = relax(model, "basic", level="channel", normaliser="affine", init="original", kernel="reference")
    with torch.no_grad():
        expected = model(x)
        assert torch.equal(supernet(x), expected), "the supernet starts as the model"
        net = derive(supernet, top_k=1).apply(model, kernel="reference")
        assert torch.equal(net(x), expected), "and derives back to it"
        other = Genotype.uniform(model, "softsign").apply(model)(x)
    assert not torch.equal(other, expected)
    supernet(x).pow(2).sum().backward()
    reached = [alpha for alpha in supernet.arch_parameters() if alpha.grad is not None and (alpha.grad != 0).any()]
    assert len(reached) == count


def test_softmax_starts_near_the_model_within_the_stated_slack() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10).eval()
    supernet = relax(model, "basic", init="original")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(supernet(x), model(x), rtol=0, atol=0.05)
    for p in supernet.weights().values():
        torch.testing.assert_close(p.max(), torch.tensor(0.999))
