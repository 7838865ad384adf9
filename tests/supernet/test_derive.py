"""A derived network with the supernet's trained weights equals the derived model with these weights loaded by name."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.errors import GenotypeError
from nasact.mixture import Bank, Mixture
from nasact.supernet import Genotype, Supernet, derive, relax

SPACE = ["relu", "tanh", "snake"]
X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """Batch normalisation, an in-place module, a functional call and a method."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.a(x)))
        return F.elu(self.b(x)).tanh()


class CalledTwice(nn.Module):
    """A module with a parameter that is called at two places, before a fixed slope."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.PReLU()
        self.a, self.b, self.c = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.b(self.act(self.a(x))))
        return F.leaky_relu(self.c(x), 0.3)


class Hooked(Block):
    """A hook on the activation scales its result."""

    def __init__(self) -> None:
        super().__init__()
        self.act.register_forward_hook(lambda module, args, output: 3 * output)


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True, activation="gelu")
    return nn.Sequential(nn.Linear(5, 4), nn.Unflatten(1, (1, 4)), layer, nn.Flatten())


def shared_by_parents() -> nn.Module:
    act = nn.PReLU()
    return nn.Sequential(nn.Sequential(nn.Linear(5, 4), act), nn.Sequential(nn.Linear(4, 4), act))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "block": Block,
    "called_twice": CalledTwice,
    "hooked": Hooked,
    "transformer": transformer,
    "shared": shared_by_parents,
    "double": lambda: Block().double(),
    "root": nn.Tanh,
}


def trained(model: nn.Module, **options: Any) -> Supernet:
    """A supernet after steps that change every weight, buffer and beta."""
    supernet = relax(model, SPACE, example_input=like(model), kernel="reference", **options).train()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.add_(0.3 * torch.rand_like(parameter))
    optimiser = torch.optim.SGD(supernet.parameters(), lr=0.05)
    for _ in range(2):
        optimiser.zero_grad()
        supernet(like(model)).square().sum().backward()
        optimiser.step()
        supernet.project_()
    return supernet


def like(model: nn.Module) -> Tensor:
    return X.to(next(model.parameters(), X).dtype)


def with_weights_by_name(genotype: Genotype, model: nn.Module, supernet: Supernet) -> nn.Module:
    """The oracle: the genotype applied to the model, with the trained weights loaded by name."""
    net = genotype.apply(model, kernel="reference")
    state = net.state_dict()
    for name, value in supernet.model.state_dict().items():
        for known in (name, name.replace(".bank.original", "")):
            if known in state and (known in model.state_dict() or ".original" in known):
                state[known] = value
    net.load_state_dict(state)
    return net.train(supernet.training)


def assert_equal_networks(net: nn.Module, expected: nn.Module, x: Tensor) -> None:
    assert [name for name, _ in net.named_parameters()] == [name for name, _ in expected.named_parameters()]
    for training in (True, False):
        assert torch.equal(net.train(training)(x), expected.train(training)(x))
    state = net.state_dict()
    assert state.keys() >= expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(value, state[name]), name
        assert value.dtype == state[name].dtype
    x = x.clone().requires_grad_()
    gradients = [torch.autograd.grad(each(x).square().sum(), [x, *each.parameters()]) for each in (net, expected)]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def genotypes(supernet: Supernet, model: nn.Module) -> dict[str, Genotype]:
    """Genotypes of every kind for the supernet's sites."""
    (*_, last) = supernet.mixtures()
    generator = torch.Generator().manual_seed(3)
    return {
        "one": derive(supernet),
        "two": derive(supernet, 2),
        "all": derive(supernet, "all"),
        "random": derive(supernet, 2).random_like([*SPACE, "sin"], generator),
        "original": Genotype.original(model),
        "relu": Genotype.uniform(model, "relu"),
        "last": Genotype.uniform(model, "softsign", include=[last]),
    }


def test_models_and_genotypes_are_found() -> None:
    assert len(MODELS) >= 7
    assert len(genotypes(trained(Block()), Block())) == 7


@pytest.mark.parametrize("init", ["uniform", "original"])
@pytest.mark.parametrize("level", ["layer", "channel", "neuron"])
@pytest.mark.parametrize("name", MODELS)
def test_a_derived_network_has_the_trained_weights_of_the_supernet(name: str, level: str, init: Any) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    x = like(model)
    supernet = trained(model, level=level, init=init, normaliser="affine")
    before = deepcopy(supernet.state_dict())
    for kind, genotype in genotypes(supernet, model).items():
        net = supernet.derive(genotype, kernel="reference")
        assert_equal_networks(net, with_weights_by_name(genotype, model, supernet), x)
        assert not any(isinstance(module, Mixture) for module in net.modules()), kind
        assert not any("alpha" in key for key in net.state_dict()), kind
    assert all(torch.equal(value, before[key]) for key, value in supernet.state_dict().items())


def test_a_network_with_all_functions_equals_the_trained_supernet() -> None:
    model = Block()
    supernet = trained(model, normaliser="softmax").eval()
    net = supernet.derive(derive(supernet, "all"))
    assert type(net).__mro__[1] is Block or type(net) is Block
    assert not net.training
    torch.testing.assert_close(net(X), supernet(X), rtol=1e-5, atol=1e-6)


def test_training_the_derived_network_does_not_change_the_supernet() -> None:
    supernet = trained(Block())
    before = deepcopy(supernet.state_dict())
    net = supernet.derive(derive(supernet, 2))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    first = net(X).square().sum()
    first.backward()
    optimiser.step()
    assert net(X).square().sum() < first
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())


def test_a_derived_network_can_be_copied_and_saved() -> None:
    supernet = trained(CalledTwice(), init="original", normaliser="affine").eval()
    for genotype in (derive(supernet), Genotype.original(CalledTwice())):
        net = supernet.derive(genotype)
        buffer = io.BytesIO()
        torch.save(net, buffer)
        buffer.seek(0)
        loaded = torch.load(buffer, weights_only=False)
        for copied in (deepcopy(net), pickle.loads(pickle.dumps(net)), loaded):
            assert torch.equal(copied(X), net(X))


def test_the_kernel_of_the_mixtures_can_be_chosen() -> None:
    supernet = trained(Block())
    net = supernet.derive(derive(supernet, 2), kernel="fused")
    assert {bank.kernel.name for bank in net.modules() if isinstance(bank, Bank)} == {"fused"}


def test_a_genotype_is_not_applied_to_a_supernet() -> None:
    supernet = trained(Block())
    for model in (supernet, supernet.model):
        with pytest.raises(GenotypeError, match=r"use supernet.derive\(genotype\)"):
            derive(supernet).apply(model)


def test_a_genotype_that_does_not_fit_is_refused_in_one_line() -> None:
    model = Block()
    supernet = relax(model, SPACE, include=["act"], level="channel")
    with pytest.raises(GenotypeError, match=r"site 'elu' does not exist in the supernet \(it has act\)"):
        supernet.derive(Genotype.uniform(model, "tanh"))
    narrow = derive(relax(nn.Sequential(nn.Linear(5, 3), nn.ReLU()), SPACE, level="channel"), 2)
    gene = narrow.sites["1"]
    with pytest.raises(GenotypeError, match=r"site 'act': .* channels of shape \(3,\), but .* have shape \(4,\)"):
        supernet.derive(Genotype({"act": gene}, "channel", "softmax", 2))


def test_a_shared_parameter_is_still_a_parameter_after_a_functional_call_of_the_supernet() -> None:
    """torch.func.functional_call restores the wrong tensor where two modules have one dictionary of parameters."""
    supernet = relax(CalledTwice(), SPACE, init="original", normaliser="affine")
    values = {name: value.detach() + 1 for name, value in supernet.named_parameters(remove_duplicate=False)}
    assert {"model.act.bank.original.weight", "model.act_1.bank.original.weight"} <= set(values)
    before = deepcopy(supernet.state_dict())
    output = supernet(X)
    changed = torch.func.functional_call(supernet, values, (X,), tie_weights=False)
    assert not torch.equal(changed, output)
    assert all(isinstance(value, nn.Parameter) for value in supernet.parameters())
    assert len(list(supernet.parameters())) == len({*supernet.parameters()}) == len(values) - 1
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
    assert torch.equal(supernet(X), output)
