"""Derivations against answers that can be worked out by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from derivation_problems import Adam, Examples, given_of, put_weights, searched
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nasact.bilevel import build as build_strategy
from nasact.derivation import DerivationContext, Derived, build, derive_by
from nasact.derivation.near_genotypes import (
    likeliest,
    near_genotypes,
    near_ties,
    original_genotype,
    uniform_genotypes,
)
from nasact.derivation.successive_halving import rungs, successive_halving
from nasact.errors import Divergence
from nasact.supernet import Genotype, Supernet, relax
from nasact.supernet.probe import Probe
from nasact.training.loop import FitState, begin_fit, begin_search
from nasact.training.metrics import evaluate


def mean_square(output: Tensor, y: Tensor) -> Tensor:
    return (output[:, 0] - y).square().mean()


class OneSite(nn.Module):
    """(h, 0) with h = act(x): class 0 where the activation is positive."""

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


def only(derived: Derived) -> tuple[str, ...]:
    (gene,) = derived.genotype.sites.values()
    return gene.functions


SIGNS = Examples(torch.tensor([[20.0], [-20.0]] * 8), torch.tensor([0, 1] * 8))


@pytest.mark.parametrize("by", ["loss", "accuracy"])
def test_perturbation_keeps_the_function_whose_removal_hurts_although_it_weighs_least(by: str) -> None:
    # h = 0.9 relu + 0.1 identity. Without relu h = 0.1 x: every sign is right, loss log(1 + e^-2) = 0.127.
    # Without identity h = 0 wherever x < 0: half of the labels are lost, loss log(2) / 2 = 0.347.
    given = given_of(one_site(["relu", "identity"], [0.9, 0.1]), SIGNS, SIGNS)
    assert only(derive_by(build("magnitude", {}), given)) == ("relu",)
    assert only(derive_by(build("perturbation", {"by": by}), given)) == ("identity",)


def test_perturbation_keeps_the_two_whose_removal_hurts_most() -> None:
    # at x = 20: h = 0.5 tanh + 0.2 identity + 0.1 relu loses 0.5, 4 and 2 of what the target says
    data = Examples(torch.full((8, 1), 20.0), torch.full((8,), 6.5))
    given = given_of(one_site(["tanh", "identity", "relu"], [0.5, 0.2, 0.1]), data, data, loss=mean_square)
    derived = derive_by(build("perturbation", {}), given, 2)
    assert only(derived) == ("identity", "relu")
    (gene,) = derived.genotype.sites.values()
    assert gene.weights_tensor().tolist() == pytest.approx([0.2, 0.1])


def test_rescaling_judges_a_function_by_its_shape_and_not_by_its_size() -> None:
    # identity and relu are the same for x > 0. h = 0.45 x + 0.35 x + 0.2 tanh x = 16.2 at x = 20. Removed and
    # rescaled: 7.2 / 0.55 = 13.1 without identity, 20 without tanh, which is farther; just removed: 7.2 and 16.
    data = Examples(torch.full((8, 1), 20.0), torch.full((8,), 16.2))
    given = given_of(one_site(["identity", "relu", "tanh"], [0.45, 0.35, 0.2]), data, data, loss=mean_square)
    assert only(derive_by(build("perturbation", {}), given)) == ("identity",)
    assert only(derive_by(build("perturbation", {"rescale": True}), given)) == ("tanh",)


def test_a_removal_that_leaves_the_finite_numbers_hurts_most() -> None:
    # at x = 2: h = 0.9 tanh + 0.1 identity = 1.07; 0.2 without tanh; without identity 0.87, told to diverge
    data = Examples(torch.full((4, 1), 2.0), torch.full((4,), 1.07))

    def diverging(output: Tensor, y: Tensor) -> Tensor:
        h = output[:, 0]
        return torch.where((h > 0.8) & (h < 1.0), math.nan, (h - y).square()).mean()

    given = given_of(one_site(["tanh", "identity"], [0.9, 0.1]), data, data, loss=diverging)
    for by in ("loss", "accuracy"):
        assert only(derive_by(build("perturbation", {"by": by}), given)) == ("identity",)


def test_a_function_that_weighs_nothing_is_no_candidate() -> None:
    # h = 0.9 tanh + 0.4 identity = 1.67 at x = 2, which is too much: any removal helps (tanh: 0.8 is left, identity:
    # 0.87), but that of relu, which changes nothing, would seem to hurt most
    data = Examples(torch.full((4, 1), 2.0), torch.zeros(4))
    given = given_of(one_site(["relu", "tanh", "identity"], [0.0, 0.9, 0.4]), data, data, loss=mean_square)
    assert only(derive_by(build("perturbation", {}), given)) == ("identity",)
    assert only(derive_by(build("perturbation", {}), given, 3)) == ("tanh", "identity")
    choices = near_ties("act", given.supernet.mixtures()["act"], 1, 1.0)
    assert [weights.nonzero().item() for _, weights in choices] == [1, 2]


def test_channels_are_decided_one_by_one() -> None:
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
    # the first channel sees 20: identity counts 8, tanh 0.5; the second sees 0.1: identity 0.04, tanh 0.05
    x = torch.tensor([[20.0, 0.1]] * 4)
    with torch.no_grad():
        data = Examples(x, supernet.eval()(x)[:, 0])
    found = derive_by(build("perturbation", {}), given_of(supernet, data, data, loss=mean_square))
    weights = found.genotype.sites["act"].weights_tensor()
    assert (weights != 0).tolist() == [[False, True], [True, False]]


def test_the_supernet_is_tuned_after_every_site_but_the_last() -> None:
    given = searched()
    assert len(given.supernet.mixtures()) == 2
    assert derive_by(build("perturbation", {"epochs": 3}), given).metrics["epochs"] == 3
    assert derive_by(build("perturbation", {"epochs": 0}), given).metrics["epochs"] == 0


@pytest.mark.parametrize("normaliser", ["softmax", "gumbel", "abs"])
def test_a_probe_computes_what_the_supernet_computes(normaliser: str) -> None:
    given = searched(normaliser=normaliser)
    one, other = (evaluate(module, given.val) for module in (given.supernet, Probe.of(given.supernet).network))
    assert one == other


def test_refit_finds_the_scale_on_validation_data_and_the_weights_on_training_data() -> None:
    # h = s tanh(w x), s = 0.7 at first. Training says tanh(x), validation 2 tanh(x): with w at rest, s = 2.
    x = torch.linspace(-2, 2, 32).reshape(-1, 1)
    train, val = (Examples(x, scale * x[:, 0].tanh()) for scale in (1.0, 2.0))
    given = given_of(one_site(["relu", "tanh"], [0.1, 0.7]), train, val, loss=mean_square, optimiser=Adam(lr=1e-9))
    derived = derive_by(build("refit", {"epochs": 40, "lr": 0.05}), given)
    (gene,) = derived.genotype.sites.values()
    assert gene.functions == ("tanh",)
    assert gene.weights_tensor().item() == pytest.approx(2.0, abs=0.02)
    assert derived.genotype.normaliser == "free"
    assert derived.metrics["val_loss_refitted"] < 1e-3 < 0.5 < derived.metrics["val_loss_pruned"]


@pytest.mark.parametrize("top_k", [1, 2])
def test_refit_lowers_the_validation_loss_and_keeps_the_functions(top_k: int) -> None:
    given = searched()
    magnitude, refitted = (derive_by(build(name, {}), given, top_k) for name in ("magnitude", "refit"))
    assert refitted.metrics["val_loss_refitted"] < refitted.metrics["val_loss_pruned"]
    functions = [[gene.functions for gene in one.genotype.sites.values()] for one in (magnitude, refitted)]
    assert functions[0] == functions[1]
    assert magnitude.genotype != refitted.genotype


class Band(nn.Module):
    """One hidden layer, to tell |x| > 1 from the rest: impossible where the activation is linear."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.hidden, self.act, self.last = nn.Linear(1, 16), act, nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.hidden(x)))


def band(count: int, seed: int) -> Examples:
    x = 4 * torch.rand(count, 1, generator=torch.Generator().manual_seed(seed)) - 2
    return Examples(x, (x[:, 0].abs() > 1).long())


def band_given(act: nn.Module, bank: list[str], weights: list[float]) -> DerivationContext:
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


LINEAR = nn.Threshold(-1e9, 0.0)  # torch has no activation that is linear: this one is, wherever it is used


def test_validation_picks_the_better_of_two_that_are_tied() -> None:
    given = band_given(LINEAR, ["identity", "relu"], [1.0, 1.0])
    assert only(derive_by(build("magnitude", {}), given)) == ("identity",)
    found = derive_by(build("validated", {"epochs": 12}), given)
    assert only(found) == ("relu",)
    assert found.metrics["networks"] == 3
    assert found.metrics["val_accuracy"] > 0.9 > found.metrics["val_accuracy_original"]


def test_what_validation_derives_is_never_worse_than_the_original_network() -> None:
    given = band_given(nn.ReLU(), ["identity", "softsign"], [1.0, 0.01])
    assert only(derive_by(build("magnitude", {}), given)) == ("identity",)
    found = derive_by(build("validated", {"epochs": 12, "uniform": False}), given)
    assert only(found) == ("relu",)
    assert found.metrics["val_accuracy"] == found.metrics["val_accuracy_original"] > 0.9


def test_a_single_function_that_the_search_overlooked_is_found_by_validation() -> None:
    given = band_given(LINEAR, ["identity", "relu"], [1.0, 1e-9])
    near = {"networks": 2, "margin": 0.9, "epochs": 12}
    assert only(derive_by(build("validated", {**near, "uniform": False}), given)) != ("relu",)
    found = derive_by(build("validated", near), given)
    assert only(found) == ("relu",)
    assert found.metrics["networks"] == 3


def test_single_functions_are_those_that_all_sites_can_have() -> None:
    supernet = searched("channel").supernet
    found = uniform_genotypes(supernet)
    names = next(iter(supernet.mixtures().values())).names
    assert len(found) == len(names) >= 2
    for name, genotype in zip(names, found, strict=True):
        assert {gene.single for gene in genotype.sites.values()} == {name}
        assert genotype.level == "layer"


@pytest.mark.parametrize("seed", range(5))
def test_the_original_is_in_the_comparison_whatever_it_does_early(seed: int) -> None:
    found = derive_by(build("validated", {"networks": 3, "epochs": 2}), replace(searched(), seed=seed))
    assert found.metrics["val_accuracy"] >= found.metrics["val_accuracy_original"] > 0


def test_near_ties_are_within_the_margin_of_the_last_that_is_kept() -> None:
    supernet = one_site(["relu", "tanh", "sin", "identity"], [0.5, 0.4, 0.3, 0.05])
    mixture = supernet.mixtures()["act"]

    def chosen(top_k: Any, margin: float) -> list[list[int]]:
        return [weights.nonzero().flatten().tolist() for _, weights in near_ties("act", mixture, top_k, margin)]

    assert chosen(1, 0.0) == [[0]]
    assert chosen(1, 0.15) == [[0]]
    assert chosen(1, 0.25) == [[0], [1]]
    assert chosen(1, 0.5) == [[0], [1], [2]]
    assert chosen(1, 1.0) == [[0], [1], [2], [3]]
    assert chosen(2, 0.5) == [[0, 1], [0, 2]]
    assert chosen("all", 1.0) == [[0, 1, 2, 3]]
    shortfalls = [short for short, _ in near_ties("act", mixture, 1, 0.5)]
    assert shortfalls == pytest.approx([0.0, math.log(0.5 / 0.4), math.log(0.5 / 0.3)], abs=1e-6)


def test_the_first_of_the_near_genotypes_is_what_magnitude_derives() -> None:
    for level in ("layer", "channel", "neuron"):
        given = searched(level)
        found = near_genotypes(given.supernet, 1, 1.0, 5)
        assert found[0] == derive_by(build("magnitude", {}), given).genotype
        assert len({str(one) for one in found}) == 5


def test_the_likeliest_combinations_come_first() -> None:
    choices = [[0.0, 0.3, 2.0], [0.0, 0.1], [0.0, 0.25, 0.7, math.inf]]
    found = list(likeliest(choices))
    everything = list(itertools.product(*(range(len(one)) for one in choices)))
    sums = [sum(one[i] for one, i in zip(choices, taken, strict=True)) for taken in found]
    assert sorted(found) == everything
    assert sums == sorted(sums)
    many = itertools.islice(likeliest([[0.0, 1.0]] * 100), 3)
    assert [sum(taken) for taken in many] == [0, 1, 1]


def test_rungs_thin_out_the_field_and_double_the_budget() -> None:
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


def test_halving_leaves_the_worse_behind() -> None:
    given = band_given(nn.ReLU(), ["identity", "relu"], [1.0, 1.0])
    names = ["tanh", "sin", "silu", "softsign", "softplus"]  # tanh stands for the original
    genotypes = [Genotype.uniform(Band(nn.ReLU()), name) for name in names]
    learning: list[FitState] = []

    def begin(genotype: Genotype) -> list[FitState]:
        model = given.begin(genotype, 0).model
        only_one = genotype is genotypes[-1]
        learning.append(begin_fit(model, Adam(lr=0.03 if only_one else 1e-12), seed=0))
        return [learning[-1]]

    best, champion, trained = successive_halving(
        genotypes, begin, given.train, given.val, epochs=8, batch_size=16, loss=cross_entropy
    )
    assert best.genotype == genotypes[-1]
    assert champion.genotype == genotypes[0]
    # four and the first for 4 epochs; two and the first for 4 more
    assert sorted(state.epoch for state in learning) == [4, 4, 8, 8, 8]
    assert trained == 32


def test_networks_that_diverge_are_out_and_it_is_said_where_all_do() -> None:
    given = band_given(nn.ReLU(), ["identity", "relu"], [1.0, 1.0])
    genotypes = [original_genotype(given.supernet), derive_by(build("magnitude", {}), given).genotype]

    def begin(genotype: Genotype, broken: tuple[int, ...]) -> list[FitState]:
        state = given.begin(genotype, 0)
        if genotypes.index(genotype) in broken:
            with torch.no_grad():
                next(state.model.parameters()).fill_(math.nan)
        return [state]

    options: dict[str, Any] = {"epochs": 2, "batch_size": 32, "loss": cross_entropy}
    for broken in (0, 1):
        best, champion, _ = successive_halving(
            genotypes, lambda one, broken=broken: begin(one, (broken,)), given.train, given.val, **options
        )
        assert best.genotype == genotypes[1 - broken]
        assert champion.genotype == genotypes[0]
    with pytest.raises(Divergence, match="derive: none of 2 networks stayed finite for 2 epochs"):
        successive_halving(genotypes, lambda one: begin(one, (0, 1)), given.train, given.val, **options)
