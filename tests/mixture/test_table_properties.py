"""Properties for any bank, shape, level and size of input: the table's bounds, linearity, inputs are not modified."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture_oracles import LEVELS, TABULABLE, double_backward, exact, gradients, layout, make_bank
from test_table_bounds import BOUNDS
from torch import Tensor

from nasact import activations
from nasact.mixture import KERNELS, Bank
from nasact.mixture.table.basis import derivative

EPSILON = 2.0**-23
quick = settings(max_examples=60, deadline=None)


@dataclass(frozen=True)
class Case:
    """A bank, and an input with weights and cotangents for the bank, drawn with `seed`."""

    names: tuple[str, ...]
    level: str
    shape: tuple[int, ...]
    scale: float
    seed: int

    def bank(self, kernel: str = "table") -> Bank:
        return make_bank(self.names, layout(self.level, self.shape), kernel)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return x, weights, g and a."""
        rng = torch.Generator().manual_seed(self.seed)
        units = layout(self.level, self.shape).shape
        x, g, a = (torch.randn(self.shape, generator=rng) for _ in range(3))
        return self.scale * x, torch.randn(*units, len(self.names), generator=rng), g, a


def cases(names: tuple[str, ...] = TABULABLE) -> st.SearchStrategy[Case]:
    return st.builds(
        Case,
        names=st.lists(st.sampled_from(names), min_size=1, max_size=17, unique=True).map(tuple),
        level=st.sampled_from(list(LEVELS)),
        shape=st.lists(st.integers(1, 7), min_size=2, max_size=4).map(tuple),
        scale=st.floats(-4, 3).map(lambda power: 10**power),
        seed=st.integers(0, 2**16),
    )


def per_function(case: Case, x: Tensor, order: int) -> Tensor:
    """The `order`-th derivative of each function of the case at x: (*x.shape, K), float64."""
    functions = (activations.get(name).function for name in case.names)
    return torch.stack([derivative(function, x.double(), order) for function in functions], dim=-1)


@given(case=cases())
@quick
def test_output_and_gradients_are_within_the_bounds_of_the_reference(case: Case) -> None:
    x, weights, g, _ = case.tensors()
    found = gradients(case.bank(), x, weights, g)
    bank = case.bank()
    true = gradients(exact(bank), x.double(), weights.double(), g.double())
    # weights (*units, K), broadcast against (N, *units, K) or, at channel level, against (N, C, ..., K)
    spread = weights.view(*weights.shape[:-1], *[1] * (x.dim() - 2), -1) if case.level == "channel" else weights
    rounding = (len(case.names) + 1) * EPSILON
    for name, order in (("y", 0), ("x", 1)):
        size = (spread.double().abs() * per_function(case, x, order).abs().clamp_min(1)).sum(-1)
        size = size if name == "y" else size * g.double().abs()
        assert ((found[name].double() - true[name]).abs() <= (BOUNDS[order] + rounding) * size).all()
    size = per_function(case, x, 0).abs().clamp_min(1) * g.double().abs().unsqueeze(-1)
    over = {"layer": tuple(range(x.dim())), "channel": (0, *range(2, x.dim())), "neuron": (0,)}[case.level]
    error = (found["weights"].double() - true["weights"]).abs()
    assert (error <= (BOUNDS[0] + x.numel() * EPSILON) * size.sum(over)).all()


@given(case=cases(), factor=st.floats(-3, 3, width=16))
@quick
def test_the_table_is_linear_in_its_weights(case: Case, factor: float) -> None:
    x, p, g, _ = case.tensors()
    q = p.roll(1, 0) - p.flip(-1)
    bank = case.bank()
    one, other, both = bank(x, p), bank(x, q), bank(x, p + factor * q)
    largest = per_function(case, x, 0).abs().sum(-1).max() * (p.abs().max() + abs(factor) * q.abs().max()) + 1
    assert float((both - (one + factor * other)).abs().max()) <= 1e-6 * float(largest)
    assert torch.equal(bank(x, torch.zeros_like(p)), torch.zeros_like(x))
    # so the gradient of the weights does not depend on the weights
    at_p, at_q = gradients(bank, x, p, g)["weights"], gradients(bank, x, q, g)["weights"]
    assert torch.equal(at_p, at_q)


@given(case=cases(activations.names()), kernel=st.sampled_from(KERNELS.names()), last=st.booleans())
@quick
def test_no_kernel_modifies_its_inputs(case: Case, kernel: str, last: bool) -> None:
    if kernel == "table" and ("signed_cbrt" in case.names or not set(case.names) & set(TABULABLE)):
        kernel = "auto"  # a requested table refuses these
    given_tensors = case.tensors()
    if last:
        x, weights, g, a = given_tensors
        given_tensors = x.transpose(0, 1).contiguous().transpose(0, 1), weights, g, a
    before = [tensor.clone() for tensor in given_tensors]
    bank = case.bank(kernel)
    betas = {name: beta.detach().clone() for name, beta in bank.named_parameters()}
    double_backward(bank, *given_tensors)
    assert all(torch.equal(now, then) for now, then in zip(given_tensors, before, strict=True))
    assert all(torch.equal(beta, betas[name]) for name, beta in bank.named_parameters())


@given(case=cases())
@quick
def test_the_output_of_an_element_does_not_depend_on_its_neighbours(case: Case) -> None:
    x, weights, _, _ = case.tensors()
    bank = case.bank()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(case.seed))
    shuffled, many = bank(x[order], weights), bank(torch.cat([x, x]), weights)
    y = bank(x, weights)
    size = 1e-6 * (per_function(case, x, 0).abs().sum(-1) * weights.abs().max() + 1)
    assert ((shuffled - y[order]).abs() <= size[order]).all()
    assert ((many - torch.cat([y, y])).abs() <= torch.cat([size, size])).all()
