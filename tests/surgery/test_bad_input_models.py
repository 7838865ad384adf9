"""Models that surgery cannot copy or change are refused in relax(), in one line with the module and the reason."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from equivalence import Net, batch
from refused_models import Parent, assert_refused, assert_the_rest_is_searched
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.errors import NasactError, SurgeryError
from nasact.supernet import Genotype, find_sites, relax


def forward_of(module: nn.Module) -> Callable[[Any, Tensor], Tensor]:
    return lambda self, x: module(x) + F.relu(self.a(x))


ON_THE_INSTANCE: dict[str, Callable[[Any], Any]] = {
    "lambda": lambda net: lambda x: net.b(F.relu(net.a(x))),
    "partial": lambda net: functools.partial(type(net).forward, net),
    "closure over the old forward": lambda net: lambda x, old=net.forward: old(x) * 2,
    "method of another module": lambda net: Net().a.forward,
    "bound function that remembers it": lambda net: types.MethodType(forward_of(net.b), net),
}


class Usual(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@pytest.mark.parametrize("name", ON_THE_INSTANCE)
def test_a_forward_on_the_instance_that_remembers_a_module_is_refused(name: str) -> None:
    """A copy of it would compute with the weights of the original."""
    block = Usual()
    block.forward = ON_THE_INSTANCE[name](block)
    model = Parent(block)
    with pytest.raises(NasactError) as caught:
        relax(model)
    assert "block" in str(caught.value)
    assert "forward" in str(caught.value)


def test_a_forward_on_the_instance_that_is_bound_to_it_is_searched() -> None:
    block = Usual()
    block.forward = types.MethodType(lambda self, x: self.b(F.gelu(self.a(x * 2))), block)
    model = Parent(block)
    assert [site.function for site in find_sites(model).sites] == ["gelu", "tanh"]
    supernet = relax(model, ["relu", "tanh"], normaliser="affine", init="original", kernel="reference")
    assert torch.equal(supernet(batch(0)), model(batch(0)))
    with torch.no_grad():
        supernet.model.block.a.weight.mul_(3)
        assert not torch.equal(supernet(batch(0)), model(batch(0)))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torchscript_is_refused() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.ReLU()))
    traced = torch.jit.trace(nn.Sequential(nn.Linear(6, 6), nn.ReLU()), batch(0))
    for block in (scripted, traced):
        assert_refused(Parent(block), "block", "TorchScript")
        assert_the_rest_is_searched(Parent(block))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_scripted_function_is_refused_or_a_site() -> None:
    def swish(x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)

    class Scripted(Net):
        def __init__(self) -> None:
            super().__init__()
            self.act = torch.jit.script(swish)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.act(self.a(x)))

    report = find_sites(Parent(Scripted()))
    found = [site.function for site in report.sites]
    assert found == ["silu", "tanh"] or "act" in report.unreachable[0].reason


LAZY: dict[str, Callable[[], nn.Module]] = {
    "first layer": lambda: nn.Sequential(nn.LazyLinear(6), nn.ReLU()),
    "norm": lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.LazyBatchNorm1d()),
    "deep": lambda: nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.ReLU(), nn.Sequential(nn.LazyLinear(6)))),
}


@pytest.mark.parametrize("name", LAZY)
def test_lazy_layers_that_have_not_run_are_refused(name: str) -> None:
    with pytest.raises(SurgeryError, match=r"(?i)lazy") as caught:
        relax(LAZY[name]())
    assert "\n" not in str(caught.value)
    model = LAZY[name]()
    model(batch(0))
    assert torch.equal(relax(model, ["relu"], kernel="reference")(batch(0)), model(batch(0)))


def test_a_compiled_model_is_searched_or_refused() -> None:
    """torch.compile wraps the model: either the model in it is searched, or the message says to relax first."""
    model = Parent(Usual())
    compiled = torch.compile(model, backend="eager")
    assert isinstance(compiled, nn.Module)
    try:
        supernet = relax(compiled, ["relu", "tanh"], normaliser="affine", init="original", kernel="reference")
    except SurgeryError as refusal:
        if "compile" in str(refusal):
            return
        raise
    assert len(supernet.mixtures()) == 2
    assert torch.equal(supernet(batch(0)), model(batch(0)))
    net = Genotype.uniform(compiled, "softsign").apply(compiled)
    assert not torch.equal(net(batch(0)), model(batch(0)))


def test_a_part_that_is_compiled_is_searched_or_refused() -> None:
    model = Parent(torch.compile(Usual(), backend="eager"))
    report = find_sites(model)
    found = [site.function for site in report.sites]
    assert found == ["relu", "tanh"] or "compile" in report.unreachable[0].reason


@pytest.mark.parametrize("given", [F.relu, nn.ReLU, "resnet18", None, {"model": nn.ReLU()}, torch.zeros(2)])
def test_what_is_no_module_is_refused(given: Any) -> None:
    for call in (find_sites, relax, lambda model: Genotype.uniform(model, "relu")):
        with pytest.raises(NasactError, match=r"nn\.Module|module"):
            call(given)


class Listed(Net):
    def __init__(self, acts: Any) -> None:
        super().__init__()
        self.acts = acts

    def forward(self, x: Tensor) -> Tensor:
        return self.acts[0](self.b(F.relu(self.a(x))))


def test_a_refused_model_is_left_as_it_was() -> None:
    model = Parent(Listed([nn.ReLU(), nn.Tanh()]))
    before = {name: (type(module), dict(vars(module))) for name, module in model.named_modules()}
    with pytest.raises(SurgeryError):
        relax(model, inplace=True)
    assert {name: (type(module), dict(vars(module))) for name, module in model.named_modules()} == before


def test_how_many_cases_there_are() -> None:
    assert (len(ON_THE_INSTANCE), len(LAZY)) == (5, 3)
