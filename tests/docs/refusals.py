"""A model for each refusal that docs/surgery.md quotes."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTS = {"relu": torch.relu, "tanh": torch.tanh}
GLOBALS: dict[str, nn.Module] = {}


class Net(nn.Module):
    """Two layers; `forward` is what a subclass has, or what is put on it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.act = nn.Linear(6, 6), nn.Linear(6, 6), nn.LeakyReLU(0.1)
        self.slope, self.rate, self.name = nn.Parameter(torch.ones(6)), 0.2, "relu"

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x))


def body(forward: Callable[[Any, Tensor], Tensor]) -> Callable[[], nn.Module]:
    """A class with this forward."""
    return type("Net", (Net,), {"forward": forward})


class Hidden:
    """A decorator that keeps the function out of reach."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.call = functools.partial(function)

    def __get__(self, owner: Any, kind: Any) -> Callable[..., Tensor]:
        return lambda *args: self.call(owner, *args)


class HiddenForward(Net):
    @Hidden
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x))


def doubled(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(forward)
    def wrapper(self: Any, x: Tensor) -> Tensor:
        return 2 * F.relu(forward(self, x))

    return wrapper


class Decorated(Net):
    @doubled
    def forward(self, x: Tensor) -> Tensor:
        return self.a(x)


class AssignsSelf(Net):
    def forward(self, x: Tensor) -> Tensor:
        self = self.a
        return F.relu(self(x))


class Shadows(Net):
    def forward(self, x: Tensor) -> Tensor:
        return functools.reduce(lambda self, layer: F.relu(layer(self)), (self.a, self.b), x)


class Computed:
    """A descriptor that makes a function."""

    def __get__(self, owner: Any, kind: Any) -> Callable[[Tensor], Tensor]:
        return lambda x: F.gelu(owner.a(x))


class HasADescriptor(Net):
    hidden = Computed()

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden(x)


class ChoosesAMethod(Net):
    def one(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x))

    def forward(self, x: Tensor, name: str = "one") -> Tensor:
        return getattr(self, name)(x)


class Default(Net):
    def forward(self, x: Tensor, act: Any = F.relu) -> Tensor:
        return act(self.a(x))


class Listed(Net):
    def __init__(self) -> None:
        super().__init__()
        self.acts = [nn.ReLU(), nn.Tanh()]


class InAProperty(Net):
    @property
    def applied(self) -> Any:
        return F.gelu(self.seen)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.a(x)
        return self.b(self.applied)


class NamesItsArgument(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Net()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner.act(input=x + 1)


class Chooses(Net):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.ReLU(), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.one if x.sum() > 0 else self.two
        return chosen(self.a(x))


class GoesThroughChildren(Net):
    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = F.relu(child(x))
        return x


class ReadsParameters(Net):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x)) + sum(p.sum() for p in self.parameters())


class ComparesItsType(Net):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x)) if type(self) is ComparesItsType else x


class AsksForTheClass(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.a(x) if isinstance(self.act, nn.LeakyReLU) else x)


class UsesAGlobal(Net):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(GLOBALS["layer"](x))


def without_source() -> nn.Module:
    scope: dict[str, Any] = {"Net": Net, "F": F}
    exec("class Made(Net):\n    def forward(self, x):\n        return F.relu(self.a(x))\n", scope)
    made: nn.Module = scope["Made"]()
    return made


def on_the_instance(remembers: bool) -> nn.Module:
    net, other = Net(), Net()
    layer = net.a if remembers else other.a
    net.forward = lambda x: torch.relu(layer(x))
    return net


def with_hook(hook: Callable[[Net], Callable[..., Any]]) -> nn.Module:
    net = Net()
    net.a.register_forward_hook(hook(net))
    return net


def remembering(name: str, value: Callable[[Net], Any]) -> nn.Module:
    net = Net()
    setattr(net, name, value(net))
    return net


def uses_a_global() -> nn.Module:
    net = UsesAGlobal()
    GLOBALS["layer"] = net.a
    return net


def scripted() -> nn.Module:
    return nn.Sequential(torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.ReLU())), nn.Tanh())


# what `find_sites` reports
OUT_OF_REACH: dict[str, Callable[[], nn.Module]] = {
    "its source is not available (defined by exec, in an interactive session, or compiled)": without_source,
    "is decorated by Hidden, which hides the function": HiddenForward,
    "is decorated by doubled.<locals>.wrapper, which applies 'relu'": Decorated,
    "has no parameter that stays the module": AssignsSelf,
    "relu is applied where 'self' is another object": Shadows,
    "self.hidden is computed, and applies 'gelu'": HasADescriptor,
    "method 'one' applies 'relu', and no code that was read calls it": ChoosesAMethod,
    "its forward was put on the instance as a function, not as a method": lambda: on_the_instance(remembers=False),
    "it is compiled (TorchScript), so that nothing in it can be replaced": scripted,
    "nn.LSTM computes its gates inside one fused kernel": lambda: nn.Sequential(nn.LSTM(6, 6)),
    "relu is handed on to map, not called": body(lambda self, x: torch.stack(list(map(F.relu, self.a(x))))),
    "takes a setting made at run time": body(lambda self, x: F.leaky_relu(self.a(x), self.rate)),
    "F.prelu has trainable slopes of its own": body(lambda self, x: F.prelu(self.a(x), self.slope)),
    "F.rrelu draws its slopes at random": body(lambda self, x: F.rrelu(self.a(x))),
    "writes to out=": body(lambda self, x: torch.tanh(x, out=torch.empty_like(x))),
    "receives unpacked arguments": body(lambda self, x: F.relu(*[self.a(x)])),
    "names its argument": NamesItsArgument,
    "looks 'relu' up by its name": body(lambda self, x: getattr(self.a(x), self.name)()),
    "is looked up in a table in each pass": body(lambda self, x, name="relu": ACTS[name](self.a(x))),
    "chooses 'ReLU' among several in each pass": Chooses,
    "is 'relu' by default": Default,
    "nn.PReLU is made in a forward": body(lambda self, x: nn.PReLU()(self.a(x))),
    "nn.LeakyReLU is made with a setting of the run": body(lambda self, x: nn.LeakyReLU(self.rate)(self.a(x))),
    "nn.Sequential, which applies 'ReLU', is made in a forward": body(lambda self, x: nn.Sequential(nn.ReLU())(x)),
    "is a list that holds activations": Listed,
    "property 'applied' applies gelu": InAProperty,
    "applies 'relu'": lambda: with_hook(lambda net: lambda module, args, output: F.relu(output)),
    "it goes through its own children, which the module of a site would join": GoesThroughChildren,
    "it reads its own parameters, which those of a mixture would join": ReadsParameters,
    "it compares its type, which surgery changes to a subclass": ComparesItsType,
    "asks for the class of an activation, which a site changes": AsksForTheClass,
    "is a setting of an activation, which a site has not": body(lambda self, x: self.act(x) * self.act.negative_slope),
}
# what a pass with an example shows
AUDITED: dict[str, Callable[[], nn.Module]] = {
    "is applied and is no site": body(lambda self, x: operator.attrgetter("relu")(torch)(self.a(x))),
}
# what `relax` raises before it looks for sites
NOT_COPIED: dict[str, Callable[[], nn.Module]] = {
    "it is a lazy module (LazyLinear) whose shapes are not known yet": lambda: nn.Sequential(nn.LazyLinear(6)),
    "it is wrapped by torch.compile": lambda: nn.Sequential(torch.compile(Net(), backend="eager")),
    "its forward was put on the instance as a function that remembers": lambda: on_the_instance(remembers=True),
    "a hook remembers": lambda: with_hook(lambda net: lambda module, args, output: net.b(output)),
    "holds a function that remembers": lambda: remembering("extra", lambda net: lambda x: net.b(x)),
    "through a global name or a closure": uses_a_global,
    "cannot be copied": lambda: remembering("numbers", lambda net: (index for index in range(3))),
}
