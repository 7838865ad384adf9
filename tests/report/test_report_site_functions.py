"""The evaluated functions of a genotype against the derived network itself."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import nasact
from nasact.report.site_functions import MAX_CHANNELS, genotype_evaluator, original_evaluator

X = np.linspace(-4, 4, 41)


def sites(**genes):
    return {"sites": {name: {"functions": list(f), "weights": w, "betas": b} for name, (f, w, b) in genes.items()}}


def test_a_mixture_is_the_weighted_sum_of_its_functions():
    y = genotype_evaluator(sites(act=(("relu", "tanh"), [1.5, -0.5], {})))("act", X)
    np.testing.assert_allclose(y, 1.5 * np.maximum(X, 0) - 0.5 * np.tanh(X), atol=1e-12)


def test_each_channel_has_its_own_curve_and_its_own_beta():
    genotype = sites(act=(("prelu",), [[1.0], [2.0]], {"prelu_slope": [0.1, 0.5]}))
    y = genotype_evaluator(genotype)("act", X)
    assert y.shape == (2, 41)
    np.testing.assert_allclose(y[0], np.where(X > 0, X, 0.1 * X), atol=1e-12)
    np.testing.assert_allclose(y[1], 2 * np.where(X > 0, X, 0.5 * X), atol=1e-12)


def test_of_many_units_a_sample_is_evaluated():
    weights = [[[1.0, 0.0], [0.0, 1.0]]] * 100
    assert len(genotype_evaluator(sites(act=(("relu", "sin"), weights, {})))("act", X)) <= MAX_CHANNELS


def test_a_function_that_is_not_scalar_gives_nan_unless_its_weight_is_zero():
    assert np.isnan(genotype_evaluator(sites(act=(("softmax",), [1.0], {})))("act", X)).all()
    assert np.isnan(genotype_evaluator(sites(act=(("original",), [1.0], {})))("act", X)).all()
    y = genotype_evaluator(sites(act=(("softmax", "relu"), [0.0, 1.0], {})))("act", X)
    np.testing.assert_allclose(y, np.maximum(X, 0))


def test_the_models_own_function_is_evaluated_by_its_name():
    genotype = sites(act=(("original",), [1.0], {}))
    np.testing.assert_allclose(genotype_evaluator(genotype, {"act": "tanh"})("act", X), np.tanh(X))
    np.testing.assert_allclose(original_evaluator({"act": "tanh"})("act", X), np.tanh(X))


def test_the_derived_network_computes_the_drawn_function():
    model = nn.Sequential(nn.ReLU())
    supernet = nasact.relax(model, space=["relu", "tanh", "prelu"])
    with torch.no_grad():
        for parameter in supernet.arch_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    genotype = nasact.derive(supernet, top_k="all")
    (site,) = genotype.sites
    drawn = genotype_evaluator(genotype.to_dict())(site, X)
    with torch.no_grad():
        computed = genotype.apply(model)(torch.from_numpy(X).float()[:, None]).double().numpy()[:, 0]
    np.testing.assert_allclose(drawn, computed, atol=1e-5)
