"""Learned shapes against the network itself: what is drawn is what the derived network computes."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import nasact
from nasact.report.shapes import MOST_ROWS, evaluator, original_shapes

X = np.linspace(-4, 4, 41)


def sites(**genes):
    return {"sites": {name: {"functions": list(f), "weights": w, "betas": b} for name, (f, w, b) in genes.items()}}


def test_a_mixture_is_the_weighted_sum_of_its_functions():
    y = evaluator(sites(act=(("relu", "tanh"), [1.5, -0.5], {})))("act", X)
    np.testing.assert_allclose(y, 1.5 * np.maximum(X, 0) - 0.5 * np.tanh(X), atol=1e-12)


def test_each_channel_has_its_own_curve_and_its_own_beta():
    genotype = sites(act=(("prelu",), [[1.0], [2.0]], {"prelu_slope": [0.1, 0.5]}))
    y = evaluator(genotype)("act", X)
    assert y.shape == (2, 41)
    np.testing.assert_allclose(y[0], np.where(X > 0, X, 0.1 * X), atol=1e-12)
    np.testing.assert_allclose(y[1], 2 * np.where(X > 0, X, 0.5 * X), atol=1e-12)


def test_many_units_are_thinned_out():
    weights = [[[1.0, 0.0], [0.0, 1.0]]] * 100
    assert len(evaluator(sites(act=(("relu", "sin"), weights, {})))("act", X)) <= MOST_ROWS


def test_what_is_not_a_scalar_function_is_nan_unless_it_has_no_weight():
    assert np.isnan(evaluator(sites(act=(("softmax",), [1.0], {})))("act", X)).all()
    assert np.isnan(evaluator(sites(act=(("original",), [1.0], {})))("act", X)).all()
    y = evaluator(sites(act=(("softmax", "relu"), [0.0, 1.0], {})))("act", X)
    np.testing.assert_allclose(y, np.maximum(X, 0))


def test_the_models_own_function_is_looked_up():
    genotype = sites(act=(("original",), [1.0], {}))
    np.testing.assert_allclose(evaluator(genotype, {"act": "tanh"})("act", X), np.tanh(X))
    np.testing.assert_allclose(original_shapes({"act": "tanh"})("act", X), np.tanh(X))


def test_a_derived_network_computes_what_is_drawn():
    model = nn.Sequential(nn.ReLU())
    supernet = nasact.relax(model, space=["relu", "tanh", "prelu"])
    with torch.no_grad():
        for parameter in supernet.arch_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    genotype = nasact.derive(supernet, top_k="all")
    (site,) = genotype.sites
    drawn = evaluator(genotype.to_dict())(site, X)
    with torch.no_grad():
        computed = genotype.apply(model)(torch.from_numpy(X).float()[:, None]).double().numpy()[:, 0]
    np.testing.assert_allclose(drawn, computed, atol=1e-5)
