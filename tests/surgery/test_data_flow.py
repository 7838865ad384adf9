"""What the audit tells of a site: what its argument depends on, and what its result is first used for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from audited import Net, X, audit
from torch import Tensor, nn
from torch.nn import functional as F


class Prior(Net):
    """A layer with a random weight: its scale is softplus(rho)."""

    def __init__(self) -> None:
        super().__init__(Prior.sample, site=nn.Softplus(), site_data=nn.Softplus(), site_size=nn.Tanh())
        self.rho = nn.Parameter(torch.zeros(6, 6))
        self.register_buffer("shift", torch.ones(6, 6))

    def sample(self, x: Tensor) -> Tensor:
        weight = self.linear.weight + self.site((self.rho + self.shift).expand_as(x.mT @ x)) * torch.randn(6, 6)
        position = self.site_size(torch.arange(x.shape[1], dtype=x.dtype) / x.size(0) + torch.zeros_like(x[0]))
        return self.site_data(F.linear(x, weight)) + position


def test_an_argument_is_told_apart_by_what_it_is_computed_from() -> None:
    result = audit(Prior())
    assert result.arguments == {
        "site": frozenset({"parameter"}),
        "site_data": frozenset({"data"}),
        "site_size": frozenset({"size"}),
    }
    assert result.missed == ()


class Unchanged(torch.autograd.Function):
    """Its result is a new tensor, which no torch call has returned."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


@pytest.mark.parametrize(
    "store",
    [
        lambda h: torch.zeros(4, 6).copy_(h),
        lambda h: torch.stack([*h.unbind()]),
        lambda h: torch.from_numpy(h.detach().numpy()),
        lambda h: torch.tensor(h.tolist()),
        lambda h: Unchanged.apply(h).T.contiguous(),
        lambda h: torch.zeros(6).index_select(0, h[0].argsort()),
    ],
)
def test_an_argument_that_takes_a_detour_is_data(store: Callable[[Tensor], Tensor]) -> None:
    result = audit(Net(lambda net, x: net.site(store(x)) + 1, site=nn.ReLU()))
    assert result.arguments == {"site": frozenset({"data"})}


def test_a_write_into_a_view_makes_its_base_data() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        buffer = torch.zeros(4, 2, 6)
        buffer[:, 0] = x
        whole, half = torch.zeros(4, 12), torch.zeros(4, 12)
        whole.view(4, 2, 6)[:, 1].add_(x)
        return net.site_a(buffer).sum() + net.site_b(whole).sum() + net.site_c(half).sum()

    result = audit(Net(forward, site_a=nn.ReLU(), site_b=nn.ReLU(), site_c=nn.ReLU()))
    assert result.arguments == {
        "site_a": frozenset({"data"}),
        "site_b": frozenset({"data"}),
        "site_c": frozenset({"size"}),
    }


# ---- uses


def transposed(x: Tensor) -> Tensor:
    return x.t()


with warnings.catch_warnings(action="ignore", category=FutureWarning):
    SCRIPTED = torch.jit.script(transposed)


class SqueezeExcitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)
        self.site_hidden, self.site_gate = nn.ReLU(), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        scale = x.mean((2, 3), keepdim=True)
        return x * self.site_gate(self.expand(self.site_hidden(self.reduce(scale))))


def test_the_sigmoid_of_squeeze_and_excitation_is_used_in_a_product() -> None:
    result = audit(SqueezeExcitation(), X.reshape(1, 6, 2, 2))
    assert result.uses == {"site_hidden": {"other"}, "site_gate": {"product"}}


class HandwrittenLSTM(nn.Module):
    """Its gates are computed in place on views of one tensor."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.gates, self.head = nn.Linear(12, 24), nn.Linear(6, 2)
        for name in ("input", "forget", "output"):
            self.add_module(f"site_{name}", nn.Sigmoid())
        self.site_cell, self.site_hidden = nn.Tanh(), nn.Tanh()

    def apply_site(self, site: nn.Module, x: Tensor) -> Tensor:
        return x.copy_(site(x.clone())) if self.in_place else site(x)

    def forward(self, x: Tensor) -> Tensor:
        h, c = x.new_zeros(1, 6), x.new_zeros(1, 6)
        for t in range(x.shape[0]):
            gates = self.gates(torch.cat([x[t : t + 1], h], 1)).view(1, 4, 6).transpose(0, 1)
            i, f, g, o = (gates[position] for position in range(4))
            i, f, o = (
                self.apply_site(site, gate)
                for site, gate in ((self.site_input, i), (self.site_forget, f), (self.site_output, o))
            )
            c = f * c + i * self.apply_site(self.site_cell, g)
            h = o.mul(self.site_hidden(c))
        return self.head(h)


@pytest.mark.parametrize("in_place", [False, True])
def test_the_gates_of_a_handwritten_lstm_are_used_in_products(in_place: bool) -> None:
    result = audit(HandwrittenLSTM(in_place))
    assert len(result.uses) == 5
    assert set(result.uses.values()) == {frozenset({"product"})}
    assert set(result.reached.values()) == {8}
    assert result.train_error == ""
    assert result.missed == ()


def gru(net: Net, x: Tensor) -> Tensor:
    z, r = (0.5 * net.site(net.linear(x))).chunk(2, dim=1)
    return ((1 - z) * x[:, :3] + z * x[:, 3:] + torch.lerp(x[:, :3], x[:, 3:], r)).relu()


def scaled(net: Net, x: Tensor) -> Tensor:
    gate = net.site(net.linear(x)).view(4, 6, 1, 1).expand(4, 6, 2, 2).to(torch.float32)
    gate = F.dropout(gate.contiguous().clone(), 0.1, net.training) * net.linear.bias.view(1, 6, 1, 1)
    image = x.view(4, 6, 1, 1).expand(4, 6, 2, 2)
    return image.mul(other=-gate / 3 * torch.rand(4, 1, 1, 1))


def attention(net: Net, x: Tensor) -> Tensor:
    weights = net.site(net.linear(x) @ net.linear(x).mT).masked_fill(torch.eye(4) > 0, 0)
    return torch.einsum("ij,jk->ik", weights, x)


def added_product(net: Net, x: Tensor) -> Tensor:
    return torch.addcmul(x, net.site(net.linear(x)), x)


def overwritten(net: Net, x: Tensor) -> Tensor:
    gate = net.site(net.linear(x))
    gate *= x
    return F.linear(gate, net.linear.weight) + gate


def through_a_buffer(net: Net, x: Tensor) -> Tensor:
    buffer = torch.empty(4, 6)
    buffer[:, :3] = net.site(net.linear(x))[:, :3]
    return x * buffer


def through_two_parts_of_a_buffer(net: Net, x: Tensor) -> Tensor:
    buffer = torch.empty(4, 6)
    buffer[:, :3] = net.site(net.linear(x))[:, :3]
    buffer[:, 3:] = net.site_next(net.linear(x))[:, 3:]
    return x * buffer


def through_an_older_view(net: Net, x: Tensor) -> Tensor:
    h = net.linear(x)
    view = h.view(2, 12)[:, ::2]
    h.copy_(net.site(h.clone()))
    return view * x.view(2, 12)[:, ::2]


def through_an_older_view_of_a_part(net: Net, x: Tensor) -> Tensor:
    buffer = torch.empty(4, 6)
    buffer[:, :3] = net.site(net.linear(x))[:, :3]
    part = buffer[:, :3]
    buffer[:, 3:] = x[:, 3:]
    return part * x[:, :3]


def through_numpy(net: Net, x: Tensor) -> Tensor:
    return torch.from_numpy(net.site(net.linear(x)).detach().numpy()) * x


def through_torchscript(net: Net, x: Tensor) -> Tensor:
    return SCRIPTED(net.site(net.linear(x))) * x.mT


def constant_mixed(net: Net, x: Tensor) -> Tensor:
    return (net.site(net.linear(x)) * torch.exp(net.linear.bias)).sum()


def by_a_matrix_of_parameters(net: Net, x: Tensor) -> Tensor:
    return net.site(net.linear(x)) @ net.linear.weight.mT


def squared(net: Net, x: Tensor) -> Tensor:
    h = net.site(net.linear(x))
    return h * h


def scaled_by_parameters_then_added(net: Net, x: Tensor) -> Tensor:
    return x + net.site(net.linear(x)) * net.linear.bias


def divided(net: Net, x: Tensor) -> Tensor:
    return net.site(net.linear(x)) / x


def both(net: Net, x: Tensor) -> Tensor:
    h = net.site(net.linear(x))
    return h * x + h.mean()


def to_the_next_site(net: Net, x: Tensor) -> Tensor:
    return net.site_next(net.site(net.linear(x))).sum()


def only_tested(net: Net, x: Tensor) -> Tensor:
    h = net.site(net.linear(x))
    assert h.shape == x.shape
    return x if bool((h > 2).any()) else x + 1


def ends_the_model(net: Net, x: Tensor) -> Tensor:
    return net.site(net.linear(x)).squeeze(-1).float()


def ends_the_model_in_place(net: Net, x: Tensor) -> Tensor:
    h = net.linear(x)
    h[:, :2].copy_(net.site(h[:, :2].clone()))
    return h


def ends_in_a_mapping(net: Net, x: Tensor) -> dict[str, Any]:
    return {"masks": [net.site(net.linear(x)).unbind()], "count": 3}


@dataclass
class Output:
    boxes: Tensor
    scores: tuple[Tensor, ...]


def ends_in_a_record(net: Net, x: Tensor) -> Output:
    return Output(x, (net.site(net.linear(x)),))


USES: Mapping[Callable[..., Any], set[str]] = {
    gru: {"product"},
    scaled: {"product"},
    attention: {"product"},
    added_product: {"product"},
    overwritten: {"product"},
    through_a_buffer: {"product"},
    through_two_parts_of_a_buffer: {"product"},
    through_an_older_view: {"product"},
    through_an_older_view_of_a_part: {"product"},
    through_numpy: {"product"},
    through_torchscript: {"product"},
    constant_mixed: {"product"},
    by_a_matrix_of_parameters: {"other"},
    squared: {"other"},
    scaled_by_parameters_then_added: {"other"},
    divided: {"other"},
    both: {"product", "other"},
    to_the_next_site: {"other"},
    only_tested: set(),
    ends_the_model: {"output"},
    ends_the_model_in_place: {"output"},
    ends_in_a_mapping: {"output"},
    ends_in_a_record: {"output"},
}


@pytest.mark.parametrize("function", USES, ids=lambda function: function.__name__)
def test_the_first_use_of_a_result_is_told(function: Callable[..., Any]) -> None:
    assert len(USES) >= 23
    result = audit(Net(function, site=nn.Sigmoid(), site_next=nn.ReLU()))
    assert result.uses["site"] == USES[function]
    assert result.train_error == ""
