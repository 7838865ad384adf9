"""Every activation is a site, a gate, or named as out of reach: none is missed in silence."""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from equivalence import Case, Net, batch, expect_refusal, the_supernet_starts_as_the_model, written
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.errors import SurgeryError
from nasact.supernet import find_sites, relax

HEADER = """
import math
import torch
from torch import Tensor, nn
from torch.nn import functional as F
"""
SPELLINGS = {
    # expression of `h`, and the function that it computes
    "h.clamp(min=0)": "relu",
    "h.clamp(0)": "relu",
    "h.clamp(0, None)": "relu",
    "h.clamp(0.0, float('inf'))": "relu",
    "h.clamp(min=0.0, max=None)": "relu",
    "h.clone().clamp_(min=0)": "relu",
    "h.clamp_min(0)": "relu",
    "h.clone().clamp_min_(0)": "relu",
    "torch.clamp(h, 0)": "relu",
    "torch.clamp(h, min=0.0)": "relu",
    "torch.clamp(input=h, min=0)": "relu",
    "torch.clamp(h, min=torch.zeros(6))": "relu",
    "torch.clamp_min(h, 0)": "relu",
    "torch.clip(h, min=0)": "relu",
    "h.clip(0)": "relu",
    "torch.maximum(h, torch.zeros_like(h))": "relu",
    "torch.maximum(torch.zeros_like(h), h)": "relu",
    "torch.maximum(h, torch.tensor(0.0))": "relu",
    "torch.max(h, 0 * h)": "relu",
    "torch.max(h, torch.zeros(6))": "relu",
    "torch.max(torch.zeros_like(h), h)": "relu",
    "h.max(torch.zeros_like(h))": "relu",
    "h.maximum(h.new_zeros(()))": "relu",
    "torch.fmax(h, torch.zeros_like(h))": "relu",
    "torch.where(h > 0, h, 0)": "relu",
    "torch.where(h > 0, h, torch.zeros_like(h))": "relu",
    "torch.where(h < 0, 0.0, h)": "relu",
    "h.where(h > 0, torch.zeros_like(h))": "relu",
    "torch.where(torch.gt(h, 0), h, h * 0)": "relu",
    "torch.where(h >= 0, h, 0.01 * h)": "leaky_relu",
    "h * (h > 0)": "relu",
    "h * (h > 0).float()": "relu",
    "h * h.gt(0).type_as(h)": "relu",
    "(h > 0).to(h.dtype) * h": "relu",
    "F.threshold(h, 0, 0)": "relu",
    "F.threshold(h, 0.5, 0.1)": "original",
    "F.threshold_(h.clone(), 0.0, 0.0)": "relu",
    "torch.threshold(h, 0.0, 0.0)": "relu",
    "nn.Threshold(0.1, 0.0)(h)": "original",
    "F.prelu(h, self.slope)": "original",
    "torch.prelu(h, self.slope)": "original",
    "h.prelu(self.slope)": "original",
    "nn.functional.rrelu(h)": "original",
    "torch.rrelu(h, 0.1, 0.3, self.training)": "original",
    "torch.special.expit(h)": "sigmoid",
    "torch.special.expit(h).mul(2)": "sigmoid",
    "F.hardtanh(h, 0, 6)": "relu6",
    "h.clamp(0, 6)": "relu6",
    "h.clamp(-1, 1)": "hardtanh",
    "F.hardtanh_(h.clone())": "hardtanh",
    "F.hardshrink(h)": "hardshrink",
    "h.hardshrink(0.5)": "hardshrink",
    "F.celu(h, 2.0)": "original",
}
RARE_SPELLINGS = {
    "-torch.minimum(-h, torch.zeros_like(h))": "relu",
    "h * torch.heaviside(h.detach(), torch.zeros(()))": "relu",
    "h.masked_fill(h < 0, 0.0)": "relu",
    "(h + h.abs()) / 2": "relu",
    "0.5 * (h + torch.abs(h))": "relu",
    "h / (1 + h.abs())": "softsign",
    "1 / (1 + torch.exp(-h))": "sigmoid",
    "torch.reciprocal(1 + (-h).exp())": "sigmoid",
    "torch.log(1 + torch.exp(h))": "softplus",
    "torch.log1p(h.exp())": "softplus",
    "torch.logaddexp(h, torch.zeros_like(h))": "softplus",
    "(torch.exp(h) - torch.exp(-h)) / (torch.exp(h) + torch.exp(-h))": "tanh",
    "torch.where(h > 0, h, torch.exp(h) - 1)": "elu",
    "torch.where(h > 0, h, torch.expm1(h))": "elu",
    "F.relu(h) + F.elu(-F.relu(-h))": "elu",
    "-h.neg().clamp(max=0)": "relu",
    "-torch.clamp_max(-h, 0)": "relu",
}
"""Formulas without a call that is an activation or a bound."""
NOT_ACTIVATIONS = (
    "h.clamp(max=5)",
    "h.clamp(-10, 10)",
    "torch.clamp(h, min=1e-6)",
    "h / h.norm(dim=-1, keepdim=True).clamp(min=1e-8)",
    "h[:, : max(0, 6)]",
    "torch.max(h, dim=1, keepdim=True).values + h",
    "torch.where(torch.isnan(h), 0.0, h)",
    "h.masked_fill(torch.eye(4, 6) > 0, 0.0)",
    "h * (self.slope > 0)",
    "F.max_pool1d(h.unsqueeze(0), 3, 1, 1)[0]",
    "F.pad(h, (torch.tensor(-3).clamp(min=0).item(), 0))",
    "h * torch.arange(6).clamp(min=1)",
)


def spelt(expression: str) -> nn.Module:
    """A model with the expression, and an ordinary tanh after it."""
    text = f"""
class Spelt(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.slope, self.act = nn.Parameter(torch.full((6,), 0.2)), nn.Tanh()
    def forward(self, x):
        h = self.a(x)
        y = {expression}
        return self.c(self.act(self.b(y)))"""
    torch.manual_seed(0)
    return written(text, HEADER).Spelt()


def is_a_site_or_named(expression: str, function: str) -> None:
    report = find_sites(spelt(expression))
    found = [site.function for site in report.sites if site.name != "act"]
    told = [*report.gates, *report.unreachable]
    assert found or told, "missed in silence"
    assert set(found) <= {function}, f"found as {found}"
    assert "act" in [site.name for site in report.sites]


@pytest.mark.parametrize("expression", SPELLINGS)
def test_each_spelling_is_a_site_or_named(expression: str) -> None:
    is_a_site_or_named(expression, SPELLINGS[expression])


@pytest.mark.parametrize("expression", RARE_SPELLINGS)
def test_each_rare_spelling_is_a_site_or_named(expression: str) -> None:
    is_a_site_or_named(expression, RARE_SPELLINGS[expression])


@pytest.mark.parametrize("expression", [*SPELLINGS, *RARE_SPELLINGS])
def test_each_spelling_stays_what_it_is(expression: str) -> None:
    case = Case("spelt", lambda: spelt(expression), (), verdict="either", reason="line|root|forward", tolerance=1e-5)
    the_supernet_starts_as_the_model(case)


@pytest.mark.parametrize("expression", NOT_ACTIVATIONS)
def test_what_is_no_activation_is_no_site(expression: str) -> None:
    model = spelt(expression)
    assert [site.name for site in find_sites(model).sites] == ["act"]
    supernet = relax(model, ["relu", "tanh"], normaliser="affine", init="original", kernel="reference", partial=True)
    assert torch.equal(supernet(batch(0)), model(batch(0)))


def squared(x: Tensor) -> Tensor:
    return F.relu(x) ** 2


def silu_in_a_function(x: Tensor) -> Tensor:
    return F.silu(x)


class Silu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


CALLABLES: dict[str, tuple[Any, str]] = {
    "name": ("gelu", "gelu"),
    "torch function": (F.gelu, "gelu"),
    "torch.tanh": (torch.tanh, "tanh"),
    "module": (nn.SiLU(), "silu"),
    "module of one's own": (Silu(), "silu"),
    "lambda": (lambda x: F.silu(x), "silu"),
    "function": (silu_in_a_function, "silu"),
    "function of two steps": (squared, "squared_relu"),
    "partial": (functools.partial(F.gelu, approximate="tanh"), "gelu_tanh"),
    "partial of a slope": (functools.partial(F.leaky_relu, negative_slope=0.3), "original"),
    "written by hand": (lambda x: x * torch.sigmoid(1.702 * x), "quick_gelu"),
    "method of a tensor": (Tensor.relu, "relu"),
}


def layers(activation: Any) -> Iterator[nn.Module]:
    options: dict[str, Any] = {"dropout": 0.0, "batch_first": True, "activation": activation}
    yield nn.TransformerEncoderLayer(6, 2, 12, **options)
    yield nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 12, **options), 2, enable_nested_tensor=False)
    yield nn.TransformerDecoderLayer(6, 2, 12, **options)


class OfSequences(nn.Module):
    """A transformer layer of torch, and an ordinary tanh after it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.act, self.out = layer, nn.Tanh(), nn.Linear(6, 6)
        self.of_two = isinstance(layer, nn.TransformerDecoderLayer)

    def forward(self, x: Tensor) -> Tensor:
        h = x.unsqueeze(0)
        return self.out(self.act(self.layer(h, h) if self.of_two else self.layer(h)))[0]


@pytest.mark.parametrize("kind", range(3), ids=["encoder layer", "encoder", "decoder layer"])
@pytest.mark.parametrize("name", CALLABLES)
def test_callables_of_torch_s_transformer_layers(name: str, kind: int) -> None:
    callable_, function = CALLABLES[name]

    def build() -> nn.Module:
        torch.manual_seed(0)
        return OfSequences(list(layers(callable_))[kind])

    count = 2 if kind == 1 else 1
    report = find_sites(build())
    named = [site.function for site in report.sites if site.name != "act"]
    assert named == [function] * count or (not named and len(report.unreachable) == count), report
    case = Case("layer", build, (), verdict="either", reason="layer", tolerance=1e-5)
    the_supernet_starts_as_the_model(case)
    if named:
        supernet = relax(build(), ["relu", "tanh"], kernel="reference").eval()
        supernet(batch(0)).sum().backward()
        assert all(alpha.grad is not None for alpha in supernet.arch_parameters())


class Plain(Net):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.b(F.relu(self.a(x))))


def other_forward(self: Any, x: Tensor) -> Tensor:
    return self.act(self.b(F.gelu(self.a(x * 2))))


def on_the_instance(forward: Callable[[Plain], Any]) -> Plain:
    model = Plain()
    model.forward = forward(model)
    return model


def with_hook(register: Callable[[Plain], Any]) -> Plain:
    model = Plain()
    register(model)
    return model


class CallOverridden(Plain):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(F.gelu(x))


class CallIsForward(nn.Module):
    """A block that never had a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 6)

    def __call__(self, x: Tensor) -> Tensor:
        return F.gelu(self.a(x))


class Holds(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block, self.act, self.out = block, nn.Tanh(), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.act(self.block(x)))


class InAProperty(Plain):
    @property
    def features(self) -> Tensor:
        return F.gelu(self.kept)

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.a(x)
        return self.out(self.features)

    def out(self, h: Tensor) -> Tensor:
        return self.b(self.act(h))


class InADescriptor:
    def __get__(self, owner: Any, kind: Any) -> Callable[[Tensor], Tensor]:
        return lambda x: F.gelu(owner.a(x))


class HasADescriptor(Plain):
    hidden = InADescriptor()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.hidden(x)))


class InGetattr(Plain):
    def __getattr__(self, name: str) -> Any:
        if name == "hidden":
            return lambda x: F.gelu(self.a(x))
        return super().__getattr__(name)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.hidden(x)))


class Outer:
    """An object that is no module, and applies an activation to what the model gives it."""

    def __call__(self, x: Tensor) -> Tensor:
        return F.gelu(x)

    def apply(self, x: Tensor) -> Tensor:
        return F.gelu(x)


class UsesAnObject(Plain):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.object, self.how = Outer(), how

    def forward(self, x: Tensor) -> Tensor:
        h = self.object(self.a(x)) if self.how == "call" else self.object.apply(self.a(x))
        return self.b(self.act(h))


NAMED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    # the model applies gelu in a way that reading may not reach: the name of the function, or of the place
    "method of the instance": (lambda: on_the_instance(lambda m: types.MethodType(other_forward, m)), "gelu"),
    "lambda on the instance": (lambda: on_the_instance(lambda m: lambda x: other_forward(m, x)), "forward"),
    "partial on the instance": (lambda: on_the_instance(lambda m: functools.partial(other_forward, m)), "forward"),
    "closure on the instance": (lambda: on_the_instance(lambda m: lambda x, old=m.forward: F.gelu(old(x))), "forward"),
    "forward hook": (lambda: with_hook(lambda m: m.a.register_forward_hook(lambda _, args, out: F.gelu(out))), "hook"),
    "forward pre-hook": (
        lambda: with_hook(lambda m: m.b.register_forward_pre_hook(lambda _, args: (F.gelu(args[0]),))),
        "hook",
    ),
    "hook of the model": (lambda: with_hook(lambda m: m.register_forward_hook(lambda *a: F.gelu(a[-1]))), "hook"),
    "hook of an activation": (
        lambda: with_hook(lambda m: m.act.register_forward_hook(lambda *a: F.gelu(a[-1]))),
        "hook",
    ),
    "__call__ overridden": (lambda: Holds(CallOverridden()), "__call__"),
    "__call__ instead of forward": (lambda: Holds(CallIsForward()), "__call__|gelu"),
    "property": (InAProperty, "features|property|gelu"),
    "descriptor": (HasADescriptor, "hidden|gelu"),
    "__getattr__": (InGetattr, "hidden|gelu|__getattr__"),
    "callable object": (lambda: UsesAnObject("call"), "object|gelu"),
    "method of an object": (lambda: UsesAnObject("apply"), "object|gelu"),
}


@pytest.mark.parametrize("name", NAMED)
def test_an_activation_out_of_reach_is_named(name: str) -> None:
    make, pattern = NAMED[name]

    def build() -> nn.Module:
        torch.manual_seed(0)
        return make()

    case = Case(name, build, (), verdict="either", reason=pattern, after_a_pass=False)
    the_supernet_starts_as_the_model(case)
    try:
        report = find_sites(build())
    except SurgeryError as refusal:
        expect_refusal(case, refusal)
        return
    if "gelu" not in [site.function for site in report.sites]:
        told = "; ".join(f"{each.name}: {each.reason}" for each in report.unreachable)
        assert re.search(pattern, told), f"missed in silence: {told!r} does not name {pattern!r}"
        with pytest.raises(SurgeryError, match=pattern):
            relax(build())


def test_how_many_cases_there_are() -> None:
    assert (len(SPELLINGS), len(RARE_SPELLINGS), len(NOT_ACTIVATIONS)) == (53, 17, 12)
    assert (len(CALLABLES), len(NAMED)) == (12, 15)
