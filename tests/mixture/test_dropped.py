"""A mixture from which candidates were dropped is the mixture of the others: whatever the normaliser, level, kernel."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from kernel_nets import KERNELS
from torch import Tensor, nn

from nasact.errors import GenotypeError, MixtureError
from nasact.mixture import LEVELS, NORMALISERS, Bank, Layout, Mixture
from nasact.supernet import Supernet, derive, relax

NAMES = ("relu", "tanh", "prelu", "sigmoid", "identity")
LEFT = (1, 2, 4)
GONE = ("relu", "sigmoid")
LAYOUTS = {
    "layer": Layout(level="layer"),
    "channel": Layout(level="channel", shape=(3,)),
    "neuron": Layout(level="neuron", shape=(3, 2)),
}
every_normaliser = pytest.mark.parametrize("normaliser", NORMALISERS.names())
every_level = pytest.mark.parametrize("level", LAYOUTS)


def mixture(names: tuple[str, ...], normaliser: str, level: str, kernel: str = "auto") -> Mixture:
    return Mixture(Bank(names, LAYOUTS[level], kernel=kernel), normaliser=normaliser, temperature=0.7)


def pair(normaliser: str, level: str, kernel: str = "auto") -> tuple[Mixture, Mixture]:
    """One of five candidates, two of them dropped; and one made of the other three, with the same alphas."""
    torch.manual_seed(1)
    whole, small = (
        mixture(NAMES, normaliser, level, kernel),
        mixture(tuple(NAMES[k] for k in LEFT), normaliser, level, kernel),
    )
    with torch.no_grad():
        whole.alpha.copy_(torch.rand_like(whole.alpha) + 0.1)
        whole.project_()
        small.alpha.copy_(whole.alpha[..., LEFT])
        small.project_()
    whole.drop(GONE)
    return whole, small


def test_all_levels_are_here_and_enough_normalisers() -> None:
    assert set(LAYOUTS) == set(LEVELS)
    assert len(NORMALISERS) >= 9
    assert len(KERNELS) >= 3


@every_level
@every_normaliser
def test_it_equals_the_mixture_of_those_left(normaliser: str, level: str) -> None:
    whole, small = pair(normaliser, level)
    x = torch.randn(4, 3, 2)
    ends = []
    for one in (whole, small):
        torch.manual_seed(5)  # samples draw for those alive only
        y = one.train()(x)
        ends.append((y, *torch.autograd.grad(y.square().sum(), (one.alpha, *one.bank.betas.values()))))
    (y, alpha, beta), (expected, its_alpha, its_beta) = ends
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(beta, its_beta, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alpha[..., LEFT], its_alpha, rtol=1e-4, atol=1e-5)
    assert bool((alpha[..., (0, 3)] == 0).all()), "no gradient for whom was dropped"
    torch.testing.assert_close(whole.weights()[..., LEFT], small.weights())
    assert bool((whole.weights()[..., (0, 3)] == 0).all())
    assert whole.alive.tolist() == [False, True, True, False, True]


@pytest.mark.parametrize("kernel", KERNELS)
@every_level
def test_every_kernel_computes_it(level: str, kernel: str) -> None:
    whole, small = pair("softmax", level, kernel)
    x = torch.randn(4, 3, 2)
    torch.testing.assert_close(whole(x), small(x), rtol=1e-5, atol=1e-5)


@every_normaliser
def test_steps_of_an_optimiser_with_memory_and_weight_decay_leave_the_dropped_where_they_are(normaliser: str) -> None:
    torch.manual_seed(0)
    one, x = mixture(NAMES, normaliser, "channel"), torch.randn(4, 3, 2)
    optimiser = torch.optim.Adam([one.alpha], lr=0.05, weight_decay=0.1)
    for step in range(4):
        if step == 2:
            one.drop(GONE)
        optimiser.zero_grad()
        one(x).square().sum().backward()
        optimiser.step()
        one.project_()
    assert bool((one.alpha[:, (0, 3)] == 0).all())
    assert bool((one.weights()[:, (0, 3)] == 0).all())
    total = NORMALISERS.get(normaliser).total
    p = one.weights().abs() if total == "absolute" else one.weights()
    if total != "none":
        torch.testing.assert_close(p.sum(-1), torch.ones(3))


@pytest.mark.parametrize("normaliser", [name for name, record in NORMALISERS.items() if record.total != "none"])
def test_a_row_that_gave_all_its_weight_to_a_dropped_one_still_sums_to_one(normaliser: str) -> None:
    record = NORMALISERS.get(normaliser)
    one = mixture(NAMES, normaliser, "layer")
    with torch.no_grad():
        one.alpha.copy_(torch.tensor([1.0, 0, 0, 0, 0]) if record.vertex_slack == 0 else one.alpha)
    one.drop(["relu"])
    p = one.weights()
    assert p[0] == 0
    torch.testing.assert_close((p.abs() if record.total == "absolute" else p).sum(), torch.tensor(1.0))


def test_to_drop_in_two_steps_is_to_drop_at_once_and_nobody_twice() -> None:
    at_once, in_turn = mixture(NAMES, "softmax", "layer"), mixture(NAMES, "softmax", "layer")
    at_once.drop(GONE)
    in_turn.drop(["sigmoid"])
    in_turn.drop(["sigmoid", "relu"])
    in_turn.drop([])
    assert torch.equal(at_once.alive, in_turn.alive)
    assert torch.equal(at_once.weights(), in_turn.weights())


def test_a_mixture_from_which_nobody_was_dropped_has_the_state_it_always_had() -> None:
    one = mixture(NAMES, "softmax", "layer")
    one.drop([])
    assert one.alive.all()
    assert {key for key in one.state_dict() if not key.startswith("bank.")} == {"alpha", "temperature"}


def test_who_was_dropped_is_part_of_the_state_both_ways() -> None:
    dropped, fresh = pair("softmax", "layer")[0], mixture(NAMES, "softmax", "layer")
    before = copy.deepcopy(fresh.state_dict())
    fresh.load_state_dict(dropped.state_dict())
    assert torch.equal(fresh.alive, dropped.alive)
    assert torch.equal(fresh.weights(), dropped.weights())
    fresh.drop(["tanh"])
    assert int(dropped.alive.sum()) == 3, "a copy, not the same tensor"
    fresh.load_state_dict(before)
    assert bool(fresh.alive.all())
    assert torch.equal(fresh.weights(), mixture(NAMES, "softmax", "layer").weights())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["gelu"], "mixture: cannot drop 'gelu', which is not in the bank"),
        (list(NAMES), "no candidate would be left"),
    ],
)
def test_a_drop_that_cannot_be_is_refused_and_changes_nothing(names: list[str], message: str) -> None:
    one = mixture(NAMES, "softmax", "layer")
    with pytest.raises(MixtureError, match=message):
        one.drop(names)
    assert bool(one.alive.all())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.act(self.first(x)))
        return y


def supernet(normaliser: str = "softmax", level: str = "layer") -> Supernet:
    torch.manual_seed(0)
    return relax(Net(), NAMES, level=level, normaliser=normaliser)


@every_normaliser
def test_the_dropped_are_never_derived_however_much_they_weighed(normaliser: str) -> None:
    net = supernet(normaliser, "channel")
    (one,) = net.mixtures().values()
    with torch.no_grad():
        one.alpha.copy_(torch.tensor([0.46, 0.01, 0.05, 0.46, 0.02]))
        one.project_()
    one.drop(GONE)
    assert derive(net).functions() == ("prelu",)
    assert not {*GONE} & {*derive(net, top_k="all").functions()}


def test_entropy_counts_those_left_only() -> None:
    net = supernet()
    (one,) = net.mixtures().values()
    found = []
    for gone in ((), GONE, ("tanh", "prelu")):
        one.drop(gone)
        found.append(net.entropy()["act"])
    assert found == pytest.approx([math.log(5), math.log(3), 0.0], abs=1e-6)


def test_more_functions_than_are_left_cannot_be_derived() -> None:
    net = supernet()
    (one,) = net.mixtures().values()
    one.drop(GONE)
    assert derive(net, top_k="all").functions() == ("tanh", "prelu", "identity")
    message = r"site 'act': top_k must be between 1 and 3 \(its candidates, 2 having been dropped in the search\)"
    with pytest.raises(GenotypeError, match=message):
        derive(net, top_k=4)


@pytest.mark.parametrize("level", ["layer", "channel"])
def test_it_is_compiled_into_one_graph_and_exported(level: str) -> None:
    net, x = supernet(level=level), torch.randn(5, 4)
    (one,) = net.mixtures().values()
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    seen = []
    for gone in ((), ("relu",), GONE):
        one.drop(gone)
        torch.testing.assert_close(compiled(x), net(x), rtol=1e-5, atol=1e-6)
        seen.append(net(x))
    assert all(not torch.allclose(a, b) for a, b in itertools.pairwise(seen))
    program = torch.export.export(net.eval(), (x,))
    torch.testing.assert_close(program.module()(x), net(x), rtol=1e-5, atol=1e-6)
