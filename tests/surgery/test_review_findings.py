"""What a hostile review found: numbers that change, loops, recursion, residuals, TorchScript, dropout in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from equivalence import Net, batch
from softsign_oracle import SoftsignEverywhere
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.errors import SurgeryError
from nasact.supernet import Genotype, find_sites, relax

SCALE, SLOPE = 1.0, 0.01
EXACT: dict[str, Any] = {"normaliser": "affine", "init": "original", "kernel": "reference"}


class ScaledByAGlobal(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)) * SCALE)


class SwishOfAGlobal(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(h * torch.sigmoid(SCALE * h))


class SlopeInAGlobal(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.leaky_relu(self.a(x), SLOPE))


@pytest.mark.parametrize("kind", [ScaledByAGlobal, SwishOfAGlobal, SlopeInAGlobal])
def test_a_global_number_that_changes_is_followed(kind: type[Net], monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = kind(), batch(0)
    supernet = relax(model, ["relu", "tanh"], **EXACT)
    for scale, slope in ((1.0, 0.01), (3.0, 0.5)):
        monkeypatch.setitem(globals(), "SCALE", scale)
        monkeypatch.setitem(globals(), "SLOPE", slope)
        assert torch.equal(supernet(x), model(x))


class CountsInAnInnerFunction(Net):
    def forward(self, x: Tensor) -> Tensor:
        n = 0

        def scaled(v: Tensor) -> Tensor:
            nonlocal n
            n += 1
            return F.relu(v) * n

        return self.b(scaled(self.a(x))) + scaled(x)


class BoundLate(Net):
    def forward(self, x: Tensor) -> Tensor:
        k = 1.0
        function = lambda v: F.relu(v) * k  # noqa: E731
        k = 2.0
        return self.b(function(self.a(x)))


class AssignedInATry(Net):
    def forward(self, x: Tensor) -> Tensor:
        k = 1
        try:
            k = 2
            raise ValueError
        except ValueError:
            h = F.relu(self.a(x)) * k
        return self.b(h)


@pytest.mark.parametrize("kind", [CountsInAnInnerFunction, BoundLate, AssignedInATry])
def test_a_local_number_that_changes_is_no_constant(kind: type[Net]) -> None:
    model, x = kind(), batch(0)
    assert torch.equal(relax(model, ["relu", "tanh"], **EXACT)(x), model(x))


class GrowingSlices(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            for earlier in self.layers[:i]:
                x = F.relu(earlier(layer(x)))
        return x


def repeated(x: Tensor, n: int) -> Tensor:
    return x if n == 0 else repeated(F.relu(x) - 0.1, n - 1)


class CallsItself(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(repeated(self.a(x), 2))


class FunctionsMadeInALoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        functions: list[Callable[[Tensor], Tensor]] = []
        for layer in self.layers:
            functions.append(lambda v, layer=layer: F.relu(layer(v)))
        for function in functions:
            x = function(x)
        return x


@pytest.mark.parametrize(("kind", "count"), [(GrowingSlices, 6), (CallsItself, 1), (FunctionsMadeInALoop, 1)])
def test_every_site_that_is_listed_acts(kind: type[nn.Module], count: int) -> None:
    model, x = kind(), batch(0)
    assert len(find_sites(model).sites) == count
    with SoftsignEverywhere():
        expected = model(x)
    assert not torch.equal(expected, model(x))
    torch.testing.assert_close(Genotype.uniform(model, "softsign").apply(model)(x), expected, rtol=0, atol=0)
    supernet = relax(model, ["relu", "tanh", "sin"], kernel="reference")
    supernet(x).square().sum().backward()
    assert all(alpha.grad is not None and bool((alpha.grad != 0).any()) for alpha in supernet.arch_parameters())


class Residual(nn.Module):
    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return x + self.function(x)


def test_a_residual_around_an_activation_stays() -> None:
    model, x = nn.Sequential(nn.Linear(6, 6), Residual(nn.ReLU())), batch(0)
    h = model[0](x)
    torch.testing.assert_close(Genotype.uniform(model, "tanh").apply(model)(x), h + torch.tanh(h), rtol=0, atol=0)


class Scaled(nn.Tanh):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1.7


def test_a_subclass_that_scales_an_activation_is_a_site() -> None:
    assert [site.function for site in find_sites(nn.Sequential(nn.Linear(6, 6), Scaled(), nn.Linear(6, 2))).sites] == [
        "original"
    ]


class Functional(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torchscript_of_an_exchanged_forward_is_refused() -> None:
    with pytest.raises(SurgeryError, match=r"torch.jit.script would compile the author's file.*torch.export"):
        torch.jit.script(Genotype.uniform(Functional(), "tanh").apply(Functional()))


class DropsInPlace(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.dropout(F.silu(self.a(x)), 0.3, self.training, inplace=True))


@pytest.mark.parametrize("function", ["tanh", "relu", "sigmoid"])
def test_a_dropout_in_place_may_follow_any_function(function: str) -> None:
    modules = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Dropout(0.5, inplace=True), nn.Linear(6, 2))
    for model in (modules, DropsInPlace()):
        Genotype.uniform(model, function).apply(model).train()(batch(0)).sum().backward()


def test_a_network_that_keeps_a_functional_activation_is_searched_again() -> None:
    class Two(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.b(F.relu(self.a(x)) + torch.tanh(x))

    model = Two()
    kept = Genotype.original(model).apply(model)
    assert [(s.name, s.function) for s in find_sites(kept).sites] == [("relu", "relu"), ("tanh", "tanh")]
    assert torch.equal(relax(kept, ["relu"], **EXACT)(batch(0)), model(batch(0)))


class BranchThatIsOff(Net):
    before = False

    def first(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))

    def second(self, x: Tensor) -> Tensor:
        return self.b(F.gelu(self.a(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) if self.before else self.second(x)


def test_a_method_that_a_setting_switches_off_is_not_searched() -> None:
    report = find_sites(BranchThatIsOff())
    assert [site.function for site in report.sites] == ["gelu"]
    assert [(gate.function, gate.role) for gate in report.gates] == [("relu", "unused")]


class Clamped(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).clamp(min=0) + torch.clamp(x, min=-0.5))


def test_a_clamp_in_a_traced_graph_is_a_site_if_it_is_relu() -> None:
    graph, x = torch.fx.symbolic_trace(Clamped()), batch(0)
    assert [site.function for site in find_sites(graph).sites] == ["relu"]
    assert torch.equal(relax(graph, ["relu", "tanh"], **EXACT)(x), graph(x))
    expected = graph.b(torch.tanh(graph.a(x)) + torch.clamp(x, min=-0.5))
    assert torch.equal(Genotype.uniform(graph, "tanh").apply(graph)(x), expected)
