"""Surgery on networks of torchvision."""

from __future__ import annotations

import pytest
import torch
import torchvision

from nasact.supernet import Genotype, derive, find_sites, relax

# name: (number of sites, number of gates, side of the input)
MODELS = {
    "resnet18": (17, 0, 64),
    "mobilenet_v3_small": (33, 9, 64),
    "vit_b_16": (12, 0, 32),
    "convnext_tiny": (18, 0, 32),
}
SLOW = ("vit_b_16",)
"""86 million weights: building takes seconds, and copying too."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in MODELS]
)
def test_a_torchvision_model_relaxes_at_channel_level_and_derives_to_itself(name: str) -> None:
    count, gates, side = MODELS[name]
    torch.manual_seed(0)
    options = {"image_size": side} if name == "vit_b_16" else {}
    model = torchvision.models.get_model(name, num_classes=10, **options).eval()
    if name == "vit_b_16":
        torch.nn.init.normal_(model.heads.head.weight, std=0.02)  # its initial zeros would hide any difference
    x = torch.randn(2, 3, side, side)
    report = find_sites(model)
    assert (len(report.sites), len(report.gates)) == (count, gates)
    assert not report.unreachable
    supernet = relax(model, "basic", level="channel", normaliser="affine", init="original", kernel="reference")
    with torch.no_grad():
        expected = model(x)
        assert torch.equal(supernet(x), expected), "the supernet starts as the model"
        net = derive(supernet, top_k=1).apply(model, kernel="reference")
        assert torch.equal(net(x), expected), "the derived network is the model"
        other = Genotype.uniform(model, "softsign").apply(model)(x)
    assert not torch.equal(other, expected)
    supernet(x).pow(2).sum().backward()
    with_gradient = [
        alpha for alpha in supernet.arch_parameters() if alpha.grad is not None and (alpha.grad != 0).any()
    ]
    assert len(with_gradient) == count


def test_a_softmax_supernet_starts_near_the_model_within_the_vertex_slack() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10).eval()
    supernet = relax(model, "basic", init="original")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(supernet(x), model(x), rtol=0, atol=0.05)
    for p in supernet.weights().values():
        torch.testing.assert_close(p.max(), torch.tensor(0.999))
