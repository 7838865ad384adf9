"""A mixture with dropped candidates equals the mixture of the others, for any normaliser, level and kernel."""

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
REMAINING = (1, 2, 4)
DROPPED = ("relu", "sigmoid")
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
    """A mixture of five candidates with two of them dropped, and a mixture of the other three with the same alphas."""
    torch.manual_seed(1)
    whole, small = (
        mixture(NAMES, normaliser, level, kernel),
        mixture(tuple(NAMES[k] for k in REMAINING), normaliser, level, kernel),
    )
    with torch.no_grad():
        whole.alpha.copy_(torch.rand_like(whole.alpha) + 0.1)
        whole.project_()
        small.alpha.copy_(whole.alpha[..., REMAINING])
        small.project_()
    whole.drop(DROPPED)
    return whole, small


def test_levels_normalisers_and_kernels_are_found() -> None:
    assert set(LAYOUTS) == set(LEVELS)
    assert len(NORMALISERS) >= 9
    assert len(KERNELS) >= 3


@every_level
@every_normaliser
def test_output_gradients_and_weights_equal_those_of_the_remaining_mixture(normaliser: str, level: str) -> None:
    whole, small = pair(normaliser, level)
    x = torch.randn(4, 3, 2)
    results = []
    for mixed in (whole, small):
        torch.manual_seed(5)  # the same noise for both: it is drawn only for the remaining candidates
        y = mixed.train()(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), (mixed.alpha, *mixed.bank.betas.values()))))
    (y, alpha, beta), (expected, expected_alpha, expected_beta) = results
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(beta, expected_beta, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alpha[..., REMAINING], expected_alpha, rtol=1e-4, atol=1e-5)
    assert bool((alpha[..., (0, 3)] == 0).all()), "a dropped candidate has no gradient"
    torch.testing.assert_close(whole.weights()[..., REMAINING], small.weights())
    assert bool((whole.weights()[..., (0, 3)] == 0).all())
    assert whole.alive.tolist() == [False, True, True, False, True]


@pytest.mark.parametrize("kernel", KERNELS)
@every_level
def test_every_kernel_computes_a_mixture_with_dropped_candidates(level: str, kernel: str) -> None:
    whole, small = pair("softmax", level, kernel)
    x = torch.randn(4, 3, 2)
    torch.testing.assert_close(whole(x), small(x), rtol=1e-5, atol=1e-5)


@every_normaliser
def test_an_optimiser_with_momentum_and_weight_decay_does_not_move_a_dropped_alpha(normaliser: str) -> None:
    torch.manual_seed(0)
    mixed, x = mixture(NAMES, normaliser, "channel"), torch.randn(4, 3, 2)
    optimiser = torch.optim.Adam([mixed.alpha], lr=0.05, weight_decay=0.1)
    for step in range(4):
        if step == 2:
            mixed.drop(DROPPED)
        optimiser.zero_grad()
        mixed(x).square().sum().backward()
        optimiser.step()
        mixed.project_()
    assert bool((mixed.alpha[:, (0, 3)] == 0).all())
    assert bool((mixed.weights()[:, (0, 3)] == 0).all())
    total = NORMALISERS.get(normaliser).total
    p = mixed.weights().abs() if total == "absolute" else mixed.weights()
    if total != "none":
        torch.testing.assert_close(p.sum(-1), torch.ones(3))


@pytest.mark.parametrize("normaliser", [name for name, record in NORMALISERS.items() if record.total != "none"])
def test_a_row_whose_whole_weight_was_dropped_still_sums_to_one(normaliser: str) -> None:
    record = NORMALISERS.get(normaliser)
    mixed = mixture(NAMES, normaliser, "layer")
    with torch.no_grad():
        mixed.alpha.copy_(torch.tensor([1.0, 0, 0, 0, 0]) if record.vertex_slack == 0 else mixed.alpha)
    mixed.drop(["relu"])
    p = mixed.weights()
    assert p[0] == 0
    torch.testing.assert_close((p.abs() if record.total == "absolute" else p).sum(), torch.tensor(1.0))


def test_dropping_in_two_steps_equals_dropping_at_once_and_repeating_a_drop_changes_nothing() -> None:
    at_once, in_turn = mixture(NAMES, "softmax", "layer"), mixture(NAMES, "softmax", "layer")
    at_once.drop(DROPPED)
    in_turn.drop(["sigmoid"])
    in_turn.drop(["sigmoid", "relu"])
    in_turn.drop([])
    assert torch.equal(at_once.alive, in_turn.alive)
    assert torch.equal(at_once.weights(), in_turn.weights())


def test_the_state_of_a_mixture_without_dropped_candidates_does_not_mention_them() -> None:
    mixed = mixture(NAMES, "softmax", "layer")
    mixed.drop([])
    assert mixed.alive.all()
    assert {key for key in mixed.state_dict() if not key.startswith("bank.")} == {"alpha", "temperature"}


def test_the_dropped_candidates_are_saved_and_restored_with_the_state() -> None:
    dropped, fresh = pair("softmax", "layer")[0], mixture(NAMES, "softmax", "layer")
    before = copy.deepcopy(fresh.state_dict())
    fresh.load_state_dict(dropped.state_dict())
    assert torch.equal(fresh.alive, dropped.alive)
    assert torch.equal(fresh.weights(), dropped.weights())
    fresh.drop(["tanh"])
    assert int(dropped.alive.sum()) == 3, "the state must be a copy"
    fresh.load_state_dict(before)
    assert bool(fresh.alive.all())
    assert torch.equal(fresh.weights(), mixture(NAMES, "softmax", "layer").weights())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["gelu"], "mixture: cannot drop 'gelu', which is not in the bank"),
        (list(NAMES), "no candidate would remain"),
    ],
)
def test_an_impossible_drop_is_refused_and_changes_nothing(names: list[str], message: str) -> None:
    mixed = mixture(NAMES, "softmax", "layer")
    with pytest.raises(MixtureError, match=message):
        mixed.drop(names)
    assert bool(mixed.alive.all())


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
def test_a_dropped_candidate_is_never_derived_even_with_the_largest_weight(normaliser: str) -> None:
    net = supernet(normaliser, "channel")
    (mixed,) = net.mixtures().values()
    with torch.no_grad():
        mixed.alpha.copy_(torch.tensor([0.46, 0.01, 0.05, 0.46, 0.02]))
        mixed.project_()
    mixed.drop(DROPPED)
    assert derive(net).functions() == ("prelu",)
    assert not {*DROPPED} & {*derive(net, top_k="all").functions()}


def test_entropy_counts_only_the_remaining_candidates() -> None:
    net = supernet()
    (mixed,) = net.mixtures().values()
    entropies = []
    for dropped in ((), DROPPED, ("tanh", "prelu")):
        mixed.drop(dropped)
        entropies.append(net.entropy()["act"])
    assert entropies == pytest.approx([math.log(5), math.log(3), 0.0], abs=1e-6)


def test_more_functions_than_remain_cannot_be_derived() -> None:
    net = supernet()
    (mixed,) = net.mixtures().values()
    mixed.drop(DROPPED)
    assert derive(net, top_k="all").functions() == ("tanh", "prelu", "identity")
    message = r"site 'act': top_k must be between 1 and 3 \(the number of its candidates; the search dropped 2\)"
    with pytest.raises(GenotypeError, match=message):
        derive(net, top_k=4)


@pytest.mark.parametrize("level", ["layer", "channel"])
def test_a_mixture_with_dropped_candidates_compiles_into_one_graph_and_exports(level: str) -> None:
    net, x = supernet(level=level), torch.randn(5, 4)
    (mixed,) = net.mixtures().values()
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    outputs = []
    for dropped in ((), ("relu",), DROPPED):
        mixed.drop(dropped)
        torch.testing.assert_close(compiled(x), net(x), rtol=1e-5, atol=1e-6)
        outputs.append(net(x))
    assert all(not torch.allclose(a, b) for a, b in itertools.pairwise(outputs))
    program = torch.export.export(net.eval(), (x,))
    torch.testing.assert_close(program.module()(x), net(x), rtol=1e-5, atol=1e-6)
