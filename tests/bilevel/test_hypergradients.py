"""What every hypergradient must do besides being correct (test_hypergradient_matrix.py): change nothing, repeat."""

from __future__ import annotations

import pytest
import torch
from bilevel_problems import cnn_case, flat, tensor_copies
from torch import nn

from nasact.bilevel import HYPERGRADIENTS, Batch, SupernetProblem
from nasact.bilevel.differentiable_optimiser import inner_step
from nasact.bilevel.hypergradients.second_order import second_order
from nasact.bilevel.snapshot import same_bits

NAMES = HYPERGRADIENTS.names()


def test_hypergradients_are_registered() -> None:
    assert len(NAMES) >= 6


@pytest.mark.parametrize("optimiser", ["sgd_momentum", "adam"])
@pytest.mark.parametrize("name", NAMES)
def test_a_hypergradient_changes_nothing(name: str, optimiser: str) -> None:
    case = cnn_case(optimiser)
    before, random = tensor_copies(case.supernet), torch.get_rng_state()
    memory = {(id(p), key): value.clone() for p, state in case.optimiser.state.items() for key, value in state.items()}
    case(HYPERGRADIENTS.get(name))
    assert len(before) == 15 + 6
    assert all(same_bits(tensor, before[key]) for key, tensor in tensor_copies(case.supernet).items())
    assert all(p.grad is None and p.requires_grad for p in case.supernet.parameters())
    assert all(
        same_bits(value, memory[id(p), key])
        for p, state in case.optimiser.state.items()
        for key, value in state.items()
    )
    assert torch.equal(torch.get_rng_state(), random), "the seeds are drawn with the problem, not later"


@pytest.mark.parametrize("name", NAMES)
def test_is_deterministic_to_the_bit(name: str) -> None:
    case = cnn_case()
    one, other = case(HYPERGRADIENTS.get(name)), case(HYPERGRADIENTS.get(name))
    assert all(same_bits(a, b) for a, b in zip(one.alpha, other.alpha, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_those_at_w_and_alpha_and_all_tensors_are_detached(name: str) -> None:
    case = cnn_case()
    found = case(HYPERGRADIENTS.get(name))
    assert not any(t.requires_grad for t in (*found.alpha, found.val_loss))
    if name == "first_order":
        assert found.train_loss is None
        assert same_bits(found.val_loss, case.problem.val_loss(case.problem.w, case.problem.alpha))
    else:
        assert found.train_loss is not None
        assert same_bits(found.train_loss, case.problem.train_loss(case.problem.w, case.problem.alpha))


class Separate:
    """alpha[0] reaches the training loss only, alpha[1] the validation loss only, alpha[2] none, w[1] none."""

    def train_loss(self, w, alpha):
        return (w[0] * w[0] * alpha[0]).sum()

    def val_loss(self, w, alpha):
        return (w[0] - 1).square().sum() + alpha[1].sum() * 3


@pytest.mark.parametrize("name", NAMES)
def test_an_alpha_that_reaches_only_one_loss_or_none_gets_only_that_part(name: str) -> None:
    weights = [nn.Parameter(torch.tensor([2.0, 0.5], dtype=torch.float64)), nn.Parameter(torch.ones(1).double())]
    w, alpha = tuple(p.detach() for p in weights), tuple(torch.ones(1, dtype=torch.float64) for _ in range(3))
    inner = inner_step(torch.optim.SGD(weights, lr=0.1, weight_decay=0.5), weights)
    found = HYPERGRADIENTS.get(name)(Separate(), w, alpha, inner).alpha
    stepped = w[0] - 0.1 * (2 * w[0] + 0.5 * w[0])
    inverse = -2 * w[0] * (w[0] - 1)
    expected = {
        "first_order": torch.zeros(2),
        "implicit_conjugate_gradient": inverse,
        "implicit_neumann": inverse * (1 - (1 - 0.01 * 2) ** 11),
    }.get(name, 2 * (stepped - 1) * -0.1 * 2 * w[0])
    torch.testing.assert_close(float(found[0]), float(expected.sum()), rtol=1e-6, atol=1e-9)
    assert [float(found[1]), float(found[2])] == [3.0, 0.0]


class Constant:
    """Losses that depend on nothing."""

    def train_loss(self, w, alpha):
        return torch.tensor(1.0)

    def val_loss(self, w, alpha):
        return torch.tensor(2.0)


@pytest.mark.parametrize("name", NAMES)
def test_losses_that_depend_on_nothing_give_zeros(name: str) -> None:
    weights = [nn.Parameter(torch.ones(2))]
    inner = inner_step(torch.optim.Adam(weights), weights)
    found = HYPERGRADIENTS.get(name)(Constant(), (weights[0].detach(),), (torch.ones(3),), inner)
    assert torch.equal(found.alpha[0], torch.zeros(3))


@pytest.mark.parametrize("name", NAMES)
def test_frozen_weights_are_constants(name: str) -> None:
    case = cnn_case()
    count = len(case.problem.w)
    case.supernet.conv1.requires_grad_(False)
    problem = SupernetProblem(
        case.supernet, case.problem.loss, case.problem.train, case.problem.val, train_seed=1, val_seed=2
    )
    weights = [p for p in case.supernet.weight_parameters() if p.requires_grad]
    found = HYPERGRADIENTS.get(name)(problem, problem.w, problem.alpha, inner_step(case.optimiser, weights))
    assert len(problem.w) == count - 1
    assert flat(found.alpha).norm() > 0


def test_second_order_needs_no_copy_of_the_weights() -> None:
    """The training loss gets `w` as views of the memory of the parameters."""
    addresses: list[int] = []

    class Spy(SupernetProblem):
        def train_loss(self, w, alpha):
            addresses.extend(tensor.data_ptr() for tensor in w)
            return super().train_loss(w, alpha)

    case = cnn_case()
    p = case.problem
    spy = Spy(p.supernet, p.loss, p.train, Batch(p.val.x, p.val.y), p.train_seed, p.val_seed)
    second_order(spy, spy.w, spy.alpha, case.inner)
    assert addresses == [weight.data_ptr() for weight in case.supernet.weight_parameters()]
