"""Every network of nasact relaxes at all sites, and equals the original before the search and after derivation."""

from __future__ import annotations

import pytest
import torch

from nasact.supernet import Genotype, find_sites, relax
from nasact.tasks import MODELS, build_model

TORCHVISION = {"resnet18", "mobilenet_v3_small", "vit_b_16", "convnext_tiny"}  # tests/supernet/test_torchvision.py
OWN = [name for name in MODELS.names() if name not in TORCHVISION]


def test_nasact_has_networks_of_its_own() -> None:
    assert len(OWN) >= 6


@pytest.mark.parametrize("name", OWN)
def test_relaxed_network_starts_as_the_original_and_original_genotype_restores_it(name: str) -> None:
    shape = (3, 32, 32)
    model = build_model(name, {}, input_shape=shape, classes=10, seed=0).eval()
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    report = find_sites(model)
    assert report.sites
    assert not report.unreachable
    for level in ("layer", "channel"):
        supernet = relax(
            model, "basic", level=level, normaliser="affine", init="original", example_input=x, kernel="reference"
        )
        assert len(supernet.arch_parameters()) == len(report.sites)
        with torch.no_grad():
            assert torch.equal(supernet(x), model(x))
            assert torch.equal(Genotype.original(model).apply(model)(x), model(x))
            assert not torch.equal(Genotype.uniform(model, "softsign").apply(model)(x), model(x))
