"""Dropped are the candidates that are redundant at every site, by `retention_order`, and never too many."""

from __future__ import annotations

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import nasact
from nasact import activations
from nasact.errors import MixtureError
from nasact.redundancy import (
    SiteBank,
    SiteInputs,
    check_principles,
    inspect_banks,
    inspect_site,
    prune_redundant,
    reduce_candidates,
    retention_order,
)

NORMAL = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000)


def bank(names: list[str], x: Tensor = NORMAL, *, site: str = "act", original_function: str = "relu") -> SiteBank:
    columns = torch.stack([activations.get(name)(x) for name in names], -1)
    inputs = SiteInputs(calls=1, value_count=len(x), low=float(x.min()), high=float(x.max()), kept=(x[:, None],))
    return inspect_site(site, original_function, names, inputs, x, columns, 0.01)


def redundant(names: list[str], x: Tensor = NORMAL, original_function: str = "relu") -> dict[str, str]:
    return {each.name: str(each) for each in bank(names, x, original_function=original_function).redundant}


def test_exact_identities_of_the_catalogue_are_found() -> None:
    assert redundant(["relu", "identity", "abs"]) == {"abs": "abs = 2 relu - identity"}
    assert redundant(["relu", "elu", "selu"]) == {"selu": "selu = -0.71 relu + 1.8 elu"}
    assert redundant(["tanh", "identity", "tanhshrink"]) == {"tanhshrink": "tanhshrink = -tanh + identity"}
    assert redundant(["squared_relu", "star_relu"]) == {"star_relu": "star_relu = 0.89 squared_relu - 0.45"}
    assert redundant(["relu", "tanh", "sin", "cos"]) == {}


def test_an_alias_depends_on_the_inputs() -> None:
    assert redundant(["relu", "identity", "relu6"], NORMAL.abs() + 0.1) == {
        "identity": "identity = relu",
        "relu6": "relu6 = relu",
    }
    assert redundant(["relu", "identity", "relu6"]) == {"relu6": "relu6 = relu"}
    assert redundant(["relu", "identity", "relu6"], 5 * NORMAL) == {}
    assert redundant(["relu", "tanh"], -NORMAL.abs() - 0.1) == {"relu": "relu = 0 (constant)"}


def test_a_near_alias_is_reported_with_its_residual() -> None:
    (dependence,) = bank(["gelu", "silu", "relu", "leaky_relu"]).redundant
    assert (dependence.name, dependence.kind) == ("leaky_relu", "near")
    # leaky_relu - relu = 0.01 min(x, 0): the part that relu does not explain is below 1 % of the variation
    assert 1e-3 < dependence.residual < 1e-2


def test_the_retention_order_decides_which_candidate_is_kept() -> None:
    assert retention_order(["prelu", "softmax", "tanh", "relu"]) == ("tanh", "relu", "softmax", "prelu")
    assert retention_order(["sin", "prelu", "tanh"], ["prelu"]) == ("prelu", "sin", "tanh")
    assert redundant(["relu6", "relu"], original_function="tanh") == {"relu": "relu = relu6"}  # the earlier
    assert redundant(["relu6", "relu"], original_function="relu") == {"relu6": "relu6 = relu"}  # the model's own


def test_only_candidates_that_are_redundant_at_every_site_are_dropped() -> None:
    names = ["relu", "relu6", "tanh", "sin"]
    small, large = bank(names, site="a"), bank(names, 5 * NORMAL, site="b")
    assert reduce_candidates(names, {"a": small}, drop="aliases").kept == ("relu", "tanh", "sin")
    assert reduce_candidates(names, {"a": small, "b": large}, drop="aliases").kept == tuple(names)
    unreached = SiteInputs(calls=0, value_count=0, low=float("nan"), high=float("nan"), kept=())
    skipped = SiteBank(
        site="c",
        original_function="relu",
        names=tuple(names),
        inputs=unreached,
        skip_reason="the data does not reach it",
    )
    assert reduce_candidates(names, {"a": small, "c": skipped}, drop="aliases").kept == ("relu", "tanh", "sin")
    assert reduce_candidates(names, {"c": skipped}, drop="aliases").kept == tuple(names)


def test_a_candidate_may_be_replaced_by_another_one_at_each_site() -> None:
    names = ["identity", "tanh", "relu6", "hardtanh"]
    positive, negative = (NORMAL.abs() + 0.01).clamp(max=0.9), -NORMAL.abs().clamp(max=0.9) - 0.01
    banks = {
        "a": bank(names, positive, original_function="tanh"),
        "b": bank(names, negative, site="b", original_function="tanh"),
    }
    reduction = reduce_candidates(names, banks, drop="aliases")
    assert reduction.kept == ("identity", "tanh")
    assert {site: str(each) for site, each in reduction.dropped["relu6"].items()} == {
        "a": "relu6 = identity",
        "b": "relu6 = 0 (constant)",
    }


def test_a_combination_is_dropped_only_with_drop_dependent() -> None:
    names = ["relu", "identity", "abs"]
    banks = {"act": bank(names)}
    assert reduce_candidates(names, banks, drop="none").kept == tuple(names)
    assert reduce_candidates(names, banks, drop="aliases").kept == tuple(names)
    assert reduce_candidates(names, banks, drop="dependent").kept == ("relu", "identity")
    with_abs = {"act": bank(names, original_function="abs")}
    assert reduce_candidates(names, with_abs, drop="dependent").kept == ("relu", "abs")
    assert reduce_candidates(names, banks, drop="dependent", protected=names).kept == tuple(names)


def test_candidates_are_kept_with_a_reason_if_too_few_would_remain() -> None:
    names = ["relu", "relu6", "squared_relu", "star_relu"]
    banks = {"act": bank(names)}
    assert reduce_candidates(names, banks, drop="aliases").kept == ("relu", "squared_relu")
    reduction = reduce_candidates(names, banks, drop="aliases", min_candidates=3)
    assert reduction.kept == ("relu", "relu6", "squared_relu")
    assert reduction.refused == {"relu6": "at least 3 candidates must remain"}
    assert "relu6 is kept: at least 3" in str(reduction)
    two = ["relu", "relu6"]
    assert reduce_candidates(two, {"act": bank(two)}, drop="dependent", min_candidates=1).kept == ("relu", "relu6")
    one = reduce_candidates(["relu"], {"act": bank(["relu"])}, drop="dependent", min_candidates=5)
    assert (one.kept, one.refused) == (("relu",), {})


def test_an_unknown_drop_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(MixtureError, match=r"unknown drop 'alias'.*Did you mean 'aliases'"):
        reduce_candidates(["relu"], {}, drop="alias")


ELEMENTWISE = [candidate.name for candidate in activations.candidates() if candidate.elementwise]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(ELEMENTWISE), min_size=2, max_size=7, unique=True),
    st.lists(st.tuples(st.floats(0.1, 4), st.floats(-4, 4)), min_size=1, max_size=3),
    st.sampled_from(["aliases", "dependent"]),
    st.integers(1, 5),
)
def test_every_dropped_candidate_equals_its_reported_formula(
    names: list[str], sites: list[tuple[float, float]], drop: str, min_candidates: int
) -> None:
    inputs = {f"s{k}": scale * NORMAL + shift for k, (scale, shift) in enumerate(sites)}
    banks = {site: bank(names, x, site=site, original_function=names[-1]) for site, x in inputs.items()}
    reduction = reduce_candidates(names, banks, drop=drop, min_candidates=min_candidates)
    assert [name for name in names if name in reduction.kept] == list(reduction.kept)
    assert names[-1] in reduction.kept
    assert len(reduction.kept) >= min(len(names), max(2, min_candidates))
    assert set(reduction.kept).isdisjoint(reduction.dropped)
    assert set(reduction.refused) <= set(reduction.kept)
    backwards = {site: banks[site] for site in reversed(banks)}
    assert reduce_candidates(names, backwards, drop=drop, min_candidates=min_candidates).kept == reduction.kept
    for site, x in inputs.items():
        for each in (sites[site] for sites in reduction.dropped.values()):
            y = activations.get(each.name)(x)
            fitted = each.offset + sum((c * activations.get(g)(x) for g, c in each.terms.items()), torch.zeros_like(x))
            assert float((y - fitted).norm()) <= 0.0101 * float((y - y.mean()).norm()) + 2e-6 * float(y.norm())
            assert len(each.terms) <= (1 if drop == "aliases" else len(names))


def relaxing(model: nn.Module, **options: object):
    return lambda names: nasact.relax(model, names, **options)


class Small(nn.Module):
    """One site is a module, one a functional call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU()
        self.head = nn.Linear(4, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.conv(x))).mean((2, 3))
        return self.out(F.relu(self.head(x)))


def test_a_supernet_is_relaxed_again_without_redundant_candidates() -> None:
    torch.manual_seed(0)
    make, x = relaxing(Small()), torch.randn(300, 1, 8, 8)
    space, lines = ("relu", "relu6", "tanh", "identity", "hardtanh"), []
    pruned = prune_redundant(make, space, x, drop="aliases", input_scale=1, log=lines.append)
    assert len(pruned.mixtures()) == 2
    assert {mixture.names for mixture in pruned.mixtures().values()} == {("relu", "tanh", "identity", "hardtanh")}
    assert lines == ["redundancy: 4 of 5 candidates are searched; without relu6: relu6 = relu"]
    assert [m.names for m in prune_redundant(make, space, x, drop="aliases", input_scale=1).mixtures().values()] == [
        m.names for m in pruned.mixtures().values()
    ]
    assert {mixture.names for mixture in prune_redundant(make, space, x, drop="none").mixtures().values()} == {space}


def test_a_candidate_that_is_redundant_only_at_initial_inputs_is_kept() -> None:
    torch.manual_seed(0)
    make, x = relaxing(nn.Sequential(nn.Linear(8, 8), nn.ReLU())), torch.randn(200, 8)
    space = ("relu", "relu6", "elu", "celu", "hard_sigmoid", "identity", "abs")
    initial, enlarged = (
        prune_redundant(make, space, x, drop="aliases", input_scale=input_scale).mixtures()["1"].names
        for input_scale in (1.0, 8.0)
    )
    assert initial == ("relu", "elu", "hard_sigmoid", "abs")
    assert enlarged == ("relu", "relu6", "elu", "hard_sigmoid", "identity", "abs")
    dependent = prune_redundant(make, space, x, drop="dependent").mixtures()["1"].names
    assert dependent == ("relu", "relu6", "elu", "hard_sigmoid", "identity")


def test_the_models_own_function_can_replace_candidates_at_its_sites() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.LeakyReLU(0.3), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    make, x = relaxing(model, init="original", normaliser="affine"), torch.randn(200, 8)
    pruned = prune_redundant(make, ("relu6", "tanh", "sin"), x, drop="aliases", input_scale=1).mixtures()
    # the own function of the second site replaces relu6, that of the first does not: relu6 is kept
    assert pruned["1"].names == ("relu6", "tanh", "sin", "original")
    assert pruned["3"].names == ("relu6", "tanh", "sin", "relu")
    one = prune_redundant(make, ("tanh", "relu6", "relu"), x, drop="aliases", input_scale=1).mixtures()
    assert one["1"].names == ("tanh", "relu", "original")


def test_a_residual_network_of_torchvision_is_inspected_site_by_site() -> None:
    torch.manual_seed(0)
    space = ["relu", "tanh", "identity", "leaky_relu", "relu6"]
    net = nasact.relax(torchvision.models.resnet18(num_classes=10), space)
    banks = inspect_banks(net, torch.randn(8, 3, 32, 32))
    assert list(banks) == list(net.mixtures())
    assert len(banks) == 17
    assert all(inspected.columns is not None for inspected in banks.values())
    assert all("leaky_relu" in {each.name for each in inspected.redundant} for inspected in banks.values())
    assert all(inspected.condition_centred > 1 and inspected.rank < 5 for inspected in banks.values())
    assert "leaky_relu" in reduce_candidates(space, banks, drop="aliases").dropped


def test_the_three_principles_are_checked() -> None:
    def results(names: list[str], original_function: str, x: Tensor = NORMAL) -> list[tuple[bool | None, str]]:
        return [
            (each.holds, each.found)
            for each in check_principles({"act": bank(names, x, original_function=original_function)})
        ]

    assert results(["sigmoid", "bounded_ramp"], "sigmoid") == [
        (True, "all take any number"),
        (True, "sigmoid has [0, 1], and so have all"),
        (True, "full rank at every site"),
    ]
    domain, same, independent = results(["relu", "relu6", "tanh"], "relu")
    assert domain[0]
    assert same == (False, "relu has [0, inf), but relu6 [0, 6]; tanh [-1, 1]")
    assert independent == (False, "rank 2 of 3 at act")
    assert [holds for holds, _ in results(["relu", "tanh"], "relu", NORMAL[:3])] == [True, False, None]


def test_a_function_that_overflows_violates_the_domain_principle() -> None:
    large = 1e20 * NORMAL
    inspected = bank(["relu", "squared_relu"], large)
    assert inspected.overflows == ("squared_relu",)
    assert check_principles({"act": inspected})[0].found == "squared_relu is not finite at some inputs"
