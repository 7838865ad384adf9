"""Derivations against answers that are computed by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from derivation_problems import Adam, Examples, context_of, put_weights, search_context
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nasact.bilevel import build as build_strategy
from nasact.derivation import DerivationContext, Derived, build, derive_by
from nasact.derivation.alternatives import (
    combinations_by_shortfall,
    likeliest_genotypes,
    original_genotype,
    site_alternatives,
    uniform_genotypes,
)
from nasact.derivation.successive_halving import rungs, successive_halving
from nasact.errors import Divergence
from nasact.supernet import Genotype, Supernet, relax
from nasact.supernet.fixed_weights import FixedWeightSupernet
from nasact.training.loop import FitState, begin_fit, begin_search
from nasact.training.metrics import evaluate


def mean_square(output: Tensor, y: Tensor) -> Tensor:
    return (output[:, 0] - y).square().mean()


class OneSite(nn.Module):
    """Output (h, 0) with h = act(x): class 0 if the activation is positive."""

    def __init__(self, act: nn.Module | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.act = act or nn.ReLU()
        with torch.no_grad():
            self.linear.weight.fill_(1.0)
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.linear(x))
        return torch.cat([h, torch.zeros_like(h)], dim=-1)


def one_site(bank: list[str], weights: list[float]) -> Supernet:
    supernet = relax(OneSite(), bank, normaliser="free", kernel="reference")
    put_weights(supernet, {"act": weights})
    return supernet


def functions_of(derived: Derived) -> tuple[str, ...]:
    """The functions of the only site."""
    (gene,) = derived.genotype.sites.values()
    return gene.functions


SIGNS = Examples(torch.tensor([[20.0], [-20.0]] * 8), torch.tensor([0, 1] * 8))


@pytest.mark.parametrize("by", ["loss", "accuracy"])
def test_perturbation_keeps_the_function_whose_removal_hurts_although_it_weighs_least(by: str) -> None:
    # h = 0.9 relu + 0.1 identity. Without relu h = 0.1 x: every sign is right, loss log(1 + e^-2) = 0.127.
    # Without identity h = 0 wherever x < 0: half of the labels are lost, loss log(2) / 2 = 0.347.
    context = context_of(one_site(["relu", "identity"], [0.9, 0.1]), SIGNS, SIGNS)
    assert functions_of(derive_by(build("magnitude", {}), context)) == ("relu",)
    assert functions_of(derive_by(build("perturbation", {"by": by}), context)) == ("identity",)


def test_perturbation_keeps_the_two_functions_whose_removal_hurts_most() -> None:
    # at x = 20: without tanh, identity or relu h = 0.5 tanh + 0.2 identity + 0.1 relu is 0.5, 4 or 2 below its target
    data = Examples(torch.full((8, 1), 20.0), torch.full((8,), 6.5))
    context = context_of(one_site(["tanh", "identity", "relu"], [0.5, 0.2, 0.1]), data, data, loss=mean_square)
    derived = derive_by(build("perturbation", {}), context, 2)
    assert functions_of(derived) == ("identity", "relu")
    (gene,) = derived.genotype.sites.values()
    assert gene.weights_tensor().tolist() == pytest.approx([0.2, 0.1])


def test_rescaling_judges_a_function_by_its_shape_and_not_by_its_size() -> None:
    # identity and relu are equal for x > 0. h = 0.45 x + 0.35 x + 0.2 tanh x = 16.2 at x = 20. Removed and rescaled:
    # 7.2 / 0.55 = 13.1 without identity, 20 without tanh, which is farther from 16.2; only removed: 7.2 and 16.
    data = Examples(torch.full((8, 1), 20.0), torch.full((8,), 16.2))
    context = context_of(one_site(["identity", "relu", "tanh"], [0.45, 0.35, 0.2]), data, data, loss=mean_square)
    assert functions_of(derive_by(build("perturbation", {}), context)) == ("identity",)
    assert functions_of(derive_by(build("perturbation", {"rescale": True}), context)) == ("tanh",)


def test_a_removal_that_diverges_hurts_most() -> None:
    # at x = 2: h = 0.9 tanh + 0.1 identity = 1.07; 0.2 without tanh; 0.87 without identity, where the loss diverges
    data = Examples(torch.full((4, 1), 2.0), torch.full((4,), 1.07))

    def diverging(output: Tensor, y: Tensor) -> Tensor:
        h = output[:, 0]
        return torch.where((h > 0.8) & (h < 1.0), math.nan, (h - y).square()).mean()

    context = context_of(one_site(["tanh", "identity"], [0.9, 0.1]), data, data, loss=diverging)
    for by in ("loss", "accuracy"):
        assert functions_of(derive_by(build("perturbation", {"by": by}), context)) == ("identity",)


def test_a_function_of_weight_zero_is_no_candidate() -> None:
    # h = 0.9 tanh + 0.4 identity = 1.67 at x = 2 is too large: the removal of tanh (h = 0.8) or identity (h = 0.87)
    # helps, so the removal of relu, which changes nothing, would seem to hurt most
    data = Examples(torch.full((4, 1), 2.0), torch.zeros(4))
    context = context_of(one_site(["relu", "tanh", "identity"], [0.0, 0.9, 0.4]), data, data, loss=mean_square)
    assert functions_of(derive_by(build("perturbation", {}), context)) == ("identity",)
    assert functions_of(derive_by(build("perturbation", {}), context, 3)) == ("tanh", "identity")
    choices = site_alternatives("act", context.supernet.mixtures()["act"], 1, 1.0)
    assert [choice.weights.nonzero().item() for choice in choices] == [1, 2]


def test_perturbation_decides_each_channel_separately() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.act = nn.ReLU()
            with torch.no_grad():
                self.linear.weight.copy_(torch.eye(2))
                self.linear.bias.zero_()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.linear(x)).sum(dim=-1, keepdim=True)

    supernet = relax(Two(), ["tanh", "identity"], normaliser="free", level="channel", kernel="reference")
    put_weights(supernet, {"act": [[0.5, 0.4], [0.5, 0.4]]})
    # input of the first channel 20: identity contributes 8, tanh 0.5; of the second 0.1: identity 0.04, tanh 0.05
    x = torch.tensor([[20.0, 0.1]] * 4)
    with torch.no_grad():
        data = Examples(x, supernet.eval()(x)[:, 0])
    derived = derive_by(build("perturbation", {}), context_of(supernet, data, data, loss=mean_square))
    weights = derived.genotype.sites["act"].weights_tensor()
    assert (weights != 0).tolist() == [[False, True], [True, False]]


def test_the_supernet_is_tuned_after_every_site_but_the_last() -> None:
    context = search_context()
    assert len(context.supernet.mixtures()) == 2
    assert derive_by(build("perturbation", {"epochs": 3}), context).metrics["epochs"] == 3
    assert derive_by(build("perturbation", {"epochs": 0}), context).metrics["epochs"] == 0


@pytest.mark.parametrize("normaliser", ["softmax", "gumbel", "abs"])
def test_a_fixed_weight_copy_computes_what_the_supernet_computes(normaliser: str) -> None:
    context = search_context(normaliser=normaliser)
    fixed = FixedWeightSupernet.copy_of(context.supernet).network
    assert evaluate(fixed, context.val) == evaluate(context.supernet, context.val)


def test_refit_finds_the_scale_on_validation_data_and_the_weights_on_training_data() -> None:
    # h = s tanh(w x) with s = 0.7 at first; the training target is tanh(x), the validation target 2 tanh(x). w = 1 is
    # optimal on training data (and hardly trained, lr = 1e-9), so s = 2.
    x = torch.linspace(-2, 2, 32).reshape(-1, 1)
    train, val = (Examples(x, scale * x[:, 0].tanh()) for scale in (1.0, 2.0))
    context = context_of(one_site(["relu", "tanh"], [0.1, 0.7]), train, val, loss=mean_square, optimiser=Adam(lr=1e-9))
    derived = derive_by(build("refit", {"epochs": 40, "lr": 0.05}), context)
    (gene,) = derived.genotype.sites.values()
    assert gene.functions == ("tanh",)
    assert gene.weights_tensor().item() == pytest.approx(2.0, abs=0.02)
    assert derived.genotype.normaliser == "free"
    assert derived.metrics["val_loss_refitted"] < 1e-3 < 0.5 < derived.metrics["val_loss_pruned"]


@pytest.mark.parametrize("top_k", [1, 2])
def test_refit_lowers_the_validation_loss_and_keeps_the_functions(top_k: int) -> None:
    context = search_context()
    magnitude, refitted = (derive_by(build(name, {}), context, top_k) for name in ("magnitude", "refit"))
    assert refitted.metrics["val_loss_refitted"] < refitted.metrics["val_loss_pruned"]
    sites = [derived.genotype.sites for derived in (magnitude, refitted)]
    assert [gene.functions for gene in sites[0].values()] == [gene.functions for gene in sites[1].values()]
    assert magnitude.genotype != refitted.genotype


class Band(nn.Module):
    """One hidden layer for the classes |x| > 1 and |x| <= 1, which a linear activation cannot separate."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.hidden, self.act, self.last = nn.Linear(1, 16), act, nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.hidden(x)))


def band(count: int, seed: int) -> Examples:
    x = 4 * torch.rand(count, 1, generator=torch.Generator().manual_seed(seed)) - 2
    return Examples(x, (x[:, 0].abs() > 1).long())


def band_context(act: nn.Module, bank: list[str], weights: list[float]) -> DerivationContext:
    def begin(genotype: Genotype, seed: int) -> FitState:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = Band(act)
        return begin_fit(genotype.apply(model), Adam(lr=0.03), seed=seed)

    supernet = relax(Band(act), bank, normaliser="free", kernel="reference")
    put_weights(supernet, {"act": weights})
    run = begin_search(supernet, build_strategy("darts", {"order": 1}), Adam(), seed=0)
    return DerivationContext(
        run=run, train=band(128, 1), val=band(128, 2), begin=begin, optimiser=Adam(), loss=cross_entropy,
        batch_size=32, fit_batch_size=16, seed=3,
    )  # fmt: skip


LINEAR = nn.Threshold(-1e9, 0.0)  # torch has no linear activation; this one is linear for all inputs of these tests


def test_validation_picks_the_better_of_two_tied_functions() -> None:
    context = band_context(LINEAR, ["identity", "relu"], [1.0, 1.0])
    assert functions_of(derive_by(build("magnitude", {}), context)) == ("identity",)
    derived = derive_by(build("validated", {"epochs": 12}), context)
    assert functions_of(derived) == ("relu",)
    assert derived.metrics["networks"] == 3
    assert derived.metrics["val_accuracy"] > 0.9 > derived.metrics["val_accuracy_original"]


def test_validated_is_never_worse_than_the_original_network() -> None:
    context = band_context(nn.ReLU(), ["identity", "softsign"], [1.0, 0.01])
    assert functions_of(derive_by(build("magnitude", {}), context)) == ("identity",)
    derived = derive_by(build("validated", {"epochs": 12, "uniform": False}), context)
    assert functions_of(derived) == ("relu",)
    assert derived.metrics["val_accuracy"] == derived.metrics["val_accuracy_original"] > 0.9


def test_validated_finds_a_single_function_that_the_search_missed() -> None:
    context = band_context(LINEAR, ["identity", "relu"], [1.0, 1e-9])
    near = {"networks": 2, "margin": 0.9, "epochs": 12}
    assert functions_of(derive_by(build("validated", {**near, "uniform": False}), context)) != ("relu",)
    derived = derive_by(build("validated", near), context)
    assert functions_of(derived) == ("relu",)
    assert derived.metrics["networks"] == 3


def test_uniform_genotypes_have_every_function_that_all_sites_have() -> None:
    supernet = search_context("channel").supernet
    genotypes = uniform_genotypes(supernet)
    names = next(iter(supernet.mixtures().values())).names
    assert len(genotypes) == len(names) >= 2
    for name, genotype in zip(names, genotypes, strict=True):
        assert {gene.single for gene in genotype.sites.values()} == {name}
        assert genotype.level == "layer"


@pytest.mark.parametrize("seed", range(5))
def test_the_original_takes_part_in_every_rung(seed: int) -> None:
    derived = derive_by(build("validated", {"networks": 3, "epochs": 2}), replace(search_context(), seed=seed))
    assert derived.metrics["val_accuracy"] >= derived.metrics["val_accuracy_original"] > 0


def test_site_alternatives_are_within_the_margin_of_the_last_kept_function() -> None:
    supernet = one_site(["relu", "tanh", "sin", "identity"], [0.5, 0.4, 0.3, 0.05])
    mixture = supernet.mixtures()["act"]

    def chosen(top_k: Any, margin: float) -> list[list[int]]:
        alternatives = site_alternatives("act", mixture, top_k, margin)
        return [alternative.weights.nonzero().flatten().tolist() for alternative in alternatives]

    assert chosen(1, 0.0) == [[0]]
    assert chosen(1, 0.15) == [[0]]
    assert chosen(1, 0.25) == [[0], [1]]
    assert chosen(1, 0.5) == [[0], [1], [2]]
    assert chosen(1, 1.0) == [[0], [1], [2], [3]]
    assert chosen(2, 0.5) == [[0, 1], [0, 2]]
    assert chosen("all", 1.0) == [[0, 1, 2, 3]]
    shortfalls = [alternative.shortfall for alternative in site_alternatives("act", mixture, 1, 0.5)]
    assert shortfalls == pytest.approx([0.0, math.log(0.5 / 0.4), math.log(0.5 / 0.3)], abs=1e-6)


def test_the_likeliest_genotype_is_what_magnitude_derives() -> None:
    for level in ("layer", "channel", "neuron"):
        context = search_context(level)
        genotypes = likeliest_genotypes(context.supernet, 1, 1.0, 5)
        assert genotypes[0] == derive_by(build("magnitude", {}), context).genotype
        assert len({str(genotype) for genotype in genotypes}) == 5


def test_combinations_are_sorted_by_the_sum_of_their_shortfalls() -> None:
    shortfalls = [[0.0, 0.3, 2.0], [0.0, 0.1], [0.0, 0.25, 0.7, math.inf]]
    combinations = list(combinations_by_shortfall(shortfalls))
    assert sorted(combinations) == list(itertools.product(range(3), range(2), range(4)))
    sums = [sum(row[i] for row, i in zip(shortfalls, indices, strict=True)) for indices in combinations]
    assert sums == sorted(sums)
    first_of_many = itertools.islice(combinations_by_shortfall([[0.0, 1.0]] * 100), 3)
    assert [sum(indices) for indices in first_of_many] == [0, 1, 1]


def test_rungs_reduce_the_contenders_and_double_the_epochs() -> None:
    assert rungs(8, 8) == [(8, 2), (4, 4), (2, 8)]
    assert rungs(5, 8) == [(5, 2), (4, 4), (2, 8)]
    assert rungs(2, 8) == rungs(2, 8) == [(2, 8)]
    assert rungs(1, 3) == [(1, 3)]
    assert rungs(0, 3) == [(0, 3)]
    assert rungs(18, 8) == [(18, 2), (6, 4), (2, 8)]
    assert rungs(16, 2) == [(16, 1), (6, 1), (2, 2)]
    for contenders in range(1, 60):
        for epochs in (8, 20):
            sizes, budgets = zip(*rungs(contenders, epochs), strict=True)
            assert sizes[0] == contenders
            assert sizes[-1] <= 2
            assert list(sizes) == sorted(sizes, reverse=True)
            assert budgets[0] >= epochs // 4
            assert budgets[-1] == epochs


def test_halving_drops_the_worse_contenders() -> None:
    context = band_context(nn.ReLU(), ["identity", "relu"], [1.0, 1.0])
    names = ["tanh", "sin", "silu", "softsign", "softplus"]  # tanh is the reference
    genotypes = [Genotype.uniform(Band(nn.ReLU()), name) for name in names]
    states: list[FitState] = []

    def begin(genotype: Genotype) -> list[FitState]:
        model = context.begin(genotype, 0).model
        learns = genotype is genotypes[-1]
        states.append(begin_fit(model, Adam(lr=0.03 if learns else 1e-12), seed=0))
        return [states[-1]]

    best, reference, epochs = successive_halving(
        genotypes, begin, context.train, context.val, epochs=8, batch_size=16, loss=cross_entropy
    )
    assert best.genotype == genotypes[-1]
    assert reference.genotype == genotypes[0]
    # the reference and four others for 4 epochs, then the reference and two others for 4 more
    assert sorted(state.epoch for state in states) == [4, 4, 8, 8, 8]
    assert epochs == 32


def test_diverging_networks_are_dropped_and_it_is_an_error_if_all_diverge() -> None:
    context = band_context(nn.ReLU(), ["identity", "relu"], [1.0, 1.0])
    genotypes = [original_genotype(context.supernet), derive_by(build("magnitude", {}), context).genotype]

    def begin(genotype: Genotype, broken: tuple[int, ...]) -> list[FitState]:
        state = context.begin(genotype, 0)
        if genotypes.index(genotype) in broken:
            with torch.no_grad():
                next(state.model.parameters()).fill_(math.nan)
        return [state]

    options: dict[str, Any] = {"epochs": 2, "batch_size": 32, "loss": cross_entropy}
    for broken in (0, 1):
        best, reference, _ = successive_halving(
            genotypes, lambda genotype, broken=broken: begin(genotype, (broken,)), context.train, context.val, **options
        )
        assert best.genotype == genotypes[1 - broken]
        assert reference.genotype == genotypes[0]
    with pytest.raises(Divergence, match="derive: none of 2 networks stayed finite for 2 epochs"):
        successive_halving(genotypes, lambda genotype: begin(genotype, (0, 1)), context.train, context.val, **options)
