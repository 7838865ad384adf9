"""A copied model computes what the model computes, with weights of its own, or the copy is refused with the reason."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from copied_models import CallsModule, Net, assert_equal, results
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from nasact.errors import SurgeryError
from nasact.supernet import Genotype, relax
from nasact.surgery.copying import copy_model

OLD_NORMS = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")


class CachesActivations(Net):
    """Stores tensors with a history: in an attribute, a list, a dictionary, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.a(x))
        self.last, self.stored = hidden, {"all": [hidden, (hidden * 2,)]}
        self.mean = 0.9 * self.mean + 0.1 * hidden.mean(0)
        y: Tensor = self.b(hidden + self.mean.detach())
        return y


class KeepsAView(Net):
    """Multiplies by a transposed view of a parameter that was made once."""

    def __init__(self) -> None:
        super().__init__()
        self.transposed = self.a.weight.t()
        self.values = self.b.weight.detach()[:2]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        return y @ self.transposed + self.values.sum()


class SharesMemory(nn.Module):
    """Two parameters with the same memory; a third one is a part of a tensor that the model keeps too."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.b.weight.data = self.a.weight.data
        self.flat = torch.randn(30)
        self.c.weight.data = self.flat[5:].view(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c(torch.tanh(self.b(self.a(x)))) + self.flat[5]
        return y


class Tied(nn.Module):
    """A parameter with two names, of which a list holds a third reference; a module in a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)
        self.b.weight = self.a.weight
        self.listed = [self.a.weight, self.b]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.listed[1](self.a(x)) @ self.listed[0]
        return y


def normed(norm: Callable[..., nn.Module]) -> nn.Module:
    return nn.Sequential(norm(nn.Linear(5, 5)), nn.Tanh(), nn.Linear(5, 5))


def pruned() -> nn.Module:
    net = Net()
    prune.l1_unstructured(net.a, "weight", 0.5)
    return net


def bound_forward() -> nn.Module:
    net = Net()
    net.forward = types.MethodType(lambda self, x: self.b(F.gelu(self.a(x * 2))), net)
    return net


def partial_forward() -> nn.Module:
    net = Net()
    net.forward = functools.partial(Net.forward, net)
    return net


def object_forward() -> nn.Module:
    net = Net()
    net.forward = CallsModule(net)
    return net


def bound_hook() -> nn.Module:
    net = Net()
    net.a.register_forward_hook(CallsModule(net).hook)
    return net


def hook_of_an_argument() -> nn.Module:
    net = Net()
    net.a.register_forward_hook(lambda module, args, output: output @ module.weight)
    return net


def masked_gradient() -> nn.Module:
    net = Net()
    mask = (torch.arange(25.0).view(5, 5) % 2).float()
    net.a.weight.register_hook(lambda gradient: gradient * mask)
    net.b.weight.register_post_accumulate_grad_hook(triple_gradient)
    return net


def triple_gradient(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad *= 3


def built_in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        net = Net()
    for module in (net.a, net.b):  # so that the model itself can be trained too
        module.weight, module.bias = nn.Parameter(module.weight.clone()), nn.Parameter(module.bias.clone())
    return net


def compiled_in_place() -> nn.Module:
    net = Net()
    net.compile(backend="eager")
    return net


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": Net,
    "weight_norm": lambda: normed(nn.utils.weight_norm),
    "spectral_norm": lambda: normed(nn.utils.spectral_norm),
    "parametrised_weight_norm": lambda: normed(parametrizations.weight_norm),
    "parametrised_spectral_norm": lambda: normed(parametrizations.spectral_norm),
    "orthogonal": lambda: normed(parametrizations.orthogonal),
    "pruned": pruned,
    "caches_activations": CachesActivations,
    "keeps_a_view": KeepsAView,
    "shares_memory": SharesMemory,
    "tied": Tied,
    "bound_forward": bound_forward,
    "partial_forward": partial_forward,
    "object_forward": object_forward,
    "bound_hook": bound_hook,
    "hook_of_an_argument": hook_of_an_argument,
    "masked_gradient": masked_gradient,
    "built_in_inference_mode": built_in_inference_mode,
    "compiled_in_place": compiled_in_place,
    "graph_module": lambda: fx.symbolic_trace(Net()),
    "data_parallel": lambda: nn.DataParallel(Net()),
    "lstm": lambda: nn.Sequential(nn.Unflatten(1, (1, 5)), nn.LSTM(5, 5, batch_first=True), First(), nn.Flatten()),
}


class First(nn.Module):
    def forward(self, x: tuple[Tensor, Any]) -> Tensor:
        return x[0]


def test_there_are_many_kinds_of_models() -> None:
    assert len(MODELS) >= 22


@OLD_NORMS
@pytest.mark.parametrize("passes", [0, 1])
@pytest.mark.parametrize("name", MODELS)
def test_a_copy_computes_the_same_with_weights_of_its_own(name: str, passes: int) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    for _ in range(passes):
        results(model, True)
    copied = copy_model(model)
    assert type(copied) is type(model) or isinstance(model, fx.GraphModule)
    addresses = [{p.data_ptr() for p in (*net.parameters(), *net.buffers())} for net in (model, copied)]
    assert not addresses[0] & addresses[1]
    for training in (True, False):
        assert_equal(results(copied, training), results(model, training))
    before, state = results(copied, False)["output"], deepcopy(dict(copied.state_dict()))
    assert torch.equal(results(model, False)["output"], before)
    change_parameters(model)
    assert_equal(dict(copied.state_dict()), state)
    change_parameters(copied)
    assert_equal(results(copied, False), results(model, False))
    assert not torch.equal(results(copied, False)["output"], before), "the parameters must have an influence"


def change_parameters(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator))


@OLD_NORMS
@pytest.mark.parametrize("name", ["weight_norm", "pruned", "keeps_a_view", "shares_memory", "masked_gradient"])
def test_the_supernet_and_the_derived_network_start_as_a_model_that_has_run(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    expected = results(model, True)
    supernet = relax(model, normaliser="affine", init="original", kernel="reference")
    assert torch.equal(results(supernet, True)["output"], expected["output"])
    assert torch.equal(results(supernet, True)["gradient of x"], expected["gradient of x"])
    assert_equal(results(Genotype.original(model).apply(model), True), results(model, True))


def test_attributes_of_parameters_are_kept_and_their_gradients_are_not() -> None:
    net = Net()
    net.a.weight.no_weight_decay = True
    results(net, True)
    copied = copy_model(net)
    assert copied.a.weight.no_weight_decay
    assert all(parameter.grad is None for parameter in copied.parameters())
    assert all(parameter.grad is not None for parameter in net.parameters())


class SharesEncoder(nn.Module):
    """Its own __deepcopy__ shares the encoder, on purpose, also with a hook."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(5, 5)
        self.head.register_forward_hook(lambda module, args, output: output + encoder(output))

    def __deepcopy__(self, memo: dict[int, Any]) -> SharesEncoder:
        copied = SharesEncoder(self.encoder)
        copied.head = deepcopy(self.head, memo)
        return copied

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.encoder(x))
        return y


def test_a_class_that_defines_its_own_copy_is_copied_by_it() -> None:
    model = SharesEncoder(nn.Linear(5, 5))
    copied = copy_model(model)
    assert copied.encoder is model.encoder
    assert copied.head is not model.head
    model.encoder = nn.Sequential(model.encoder, nn.Tanh())
    with pytest.raises(SurgeryError, match=r"site 'encoder.1': a copy of the model shares this part"):
        relax(model)
    assert list(relax(model, inplace=True).mixtures()) == ["encoder.1"]
