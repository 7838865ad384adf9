"""Inheritance and special classes reach the same code in the supernet as in the model."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from equivalence import Case, Net, Table, claims, written
from helper_layers import Base, Block
from torch import Tensor, nn
from torch.nn import functional as F

INHERITED, SPECIAL = Table(), Table()


@INHERITED("relu", "tanh")
class SuperForward(Base):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(super().forward(x)) @ self.a.weight


@INHERITED("relu")
class TemplateMethod(Base):
    def hidden(self, x: Tensor) -> Tensor:
        return x * 2


@INHERITED("relu", "tanh")
class TemplateMethodWithOne(Base):
    def hidden(self, x: Tensor) -> Tensor:
        return torch.tanh(super().hidden(x))


@INHERITED("relu")
class ParentForward(Base):
    def forward(self, x: Tensor) -> Tensor:
        return Base.forward(self, x) + 1


@INHERITED("relu")
class GrandParentForward(Block):
    def forward(self, x: Tensor) -> Tensor:
        return Base.forward(self, x) * 2


@INHERITED("relu")
class TwoLevelsOfSuper(Block):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * super().forward(x)


class ReluMixin:
    def act(self, x: Tensor) -> Tensor:
        return F.relu(x)


class TanhMixin(ReluMixin):
    def act(self, x: Tensor) -> Tensor:
        return torch.tanh(super().act(x))


@INHERITED("relu")
class Mixin(ReluMixin, Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.a(x)))


@INHERITED(sites=[("relu", "tanh"), ("tanh", "relu"), ("original",)], moves=False)
class MixinOnMixin(TanhMixin, Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.a(x)))


class Left(Base):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(super().forward(x)) @ self.a.weight


class Right(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(super().forward(x)) @ self.b.weight


@INHERITED(sites=[("relu", "gelu", "tanh")])
class Diamond(Left, Right):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class Scaled(Net):
    def __init__(self, scale: float = 1.0, act: Any = F.relu) -> None:
        super().__init__()
        self.scale, self.act = scale, act

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)) * self.scale)


class ScaledMore(Scaled):
    pass


@INHERITED("relu", "relu", "relu", make=lambda kind: kind(Scaled(0.5), Scaled(3.0), ScaledMore(2.0)))
class InstancesThatDiffer(nn.Sequential):
    pass


class Chosen(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.act(self.a(x)))


@INHERITED("relu", "tanh", make=lambda kind: kind(Chosen(act=F.relu), Chosen(act=torch.tanh), nn.Linear(6, 6)))
class InstancesWithTheirFunctions(nn.Sequential):
    pass


def of_text(name: str, body: str) -> nn.Module:
    return getattr(written(body), name)()


TEXTS = {
    "SuperWithArguments": """
class Parent(Net):
    def forward(self, x):
        return self.b(F.relu(self.a(x)))
class SuperWithArguments(Parent):
    def forward(self, x):
        return super(SuperWithArguments, self).forward(x) * 2
""",
    "SuperOfTheParent": """
class Grand(Net):
    def forward(self, x):
        return self.b(F.relu(self.a(x)))
class Parent(Grand):
    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))
class SuperOfTheParent(Parent):
    def forward(self, x):
        return super(Parent, self).forward(x) * 2
""",
    "SuperInANestedFunction": """
class Parent(Net):
    def hidden(self, x):
        return F.relu(self.a(x))
class SuperInANestedFunction(Parent):
    def forward(self, x):
        def inner(h):
            return super(SuperInANestedFunction, self).hidden(h)
        return self.b(inner(x))
""",
    "SuperInAVariable": """
class Parent(Net):
    def hidden(self, x):
        return F.relu(self.a(x))
class SuperInAVariable(Parent):
    def forward(self, x):
        parent = super()
        return self.b(parent.hidden(x))
""",
    "UsesItsClassCell": """
class UsesItsClassCell(Net):
    scale = 2.0
    def forward(self, x):
        return self.b(F.relu(self.a(x))) * __class__.scale
""",
    "SameNameAsItsParent": """
class Twin(Net):
    def __act(self, x):
        return F.relu(x)
    def forward(self, x):
        return self.b(self.__act(self.a(x)))
Parent = Twin
class Twin(Parent):
    def __act(self, x):
        return torch.tanh(x)
SameNameAsItsParent = Twin
""",
}


for each_name, each_body in TEXTS.items():
    moved: dict[str, Any] = {"verdict": "either", "reason": "super|hidden"} if each_name == "SuperInAVariable" else {}
    # a private method of a class is that of its parent, if both classes have one name
    functions = ("tanh",) if each_name == "SameNameAsItsParent" else ("relu",)
    INHERITED.add(each_name, functools.partial(of_text, each_name, each_body), *functions, **moved)


REGISTRY: dict[str, type] = {}


class Registered(Net):
    """A base class that keeps a list of its subclasses and asks each of them for a name."""

    def __init_subclass__(cls, *, key: str, **options: Any) -> None:
        super().__init_subclass__(**options)
        REGISTRY[key] = cls


@SPECIAL("relu", observe=lambda: sorted((key, id(kind)) for key, kind in REGISTRY.items()))
class RegistersItself(Registered, key="net"):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


class Counting(type):
    """A metaclass whose classes count their instances."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        made = super().__call__(*args, **options)
        made.number = 7
        return made


@SPECIAL("relu")
class OfAMetaclass(Net, metaclass=Counting):
    number = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x))) * self.number


class AbstractNet(Net, abc.ABC):
    @abc.abstractmethod
    def hidden(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x))


@SPECIAL("relu")
class Concrete(AbstractNet):
    def hidden(self, x: Tensor) -> Tensor:
        return super().hidden(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.hidden(x))


T = TypeVar("T")


@SPECIAL("relu")
class OfAGeneric(Net, Generic[T]):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@SPECIAL("relu")
@dataclass(eq=False)
class ADataclass(nn.Module):
    width: int = 6

    def __post_init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(self.width, self.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(F.relu(self.a(x)))


@SPECIAL(sites=[("relu",), ("relu", "relu")], learns=False)
class DelegatesAttributes(nn.Module):
    """A wrapper whose unknown attributes are those of the model in it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Base()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.inner, name)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@SPECIAL("relu")
class FreezesItsAttributes(Net):
    """Attributes cannot be added after the constructor."""

    frozen = False

    def __init__(self) -> None:
        super().__init__()
        self.frozen = True

    def __setattr__(self, name: str, value: Any) -> None:
        if self.frozen and not hasattr(self, name):
            raise AttributeError(f"{name} is new")
        super().__setattr__(name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@SPECIAL("relu")
class IsEmptyAndEqual(Net):
    """A module that is false, and equal to all others."""

    def __len__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, nn.Module)

    def __hash__(self) -> int:
        return 1

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@SPECIAL("relu")
class CopiesItself(Net):
    def __deepcopy__(self, memo: dict[int, Any]) -> CopiesItself:
        with torch.random.fork_rng(devices=[]):
            copied = type(self)()
        copied.load_state_dict(self.state_dict())
        copied.train(self.training)
        return copied

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@SPECIAL("relu")
class ForgetsACache(Net):
    cache: list[int] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.cache = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "cache": None}

    def forward(self, x: Tensor) -> Tensor:
        self.cache = [len(x)]
        return self.b(F.relu(self.a(x)))


@INHERITED.parametrize()
@claims
def test_inheritance(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


@SPECIAL.parametrize()
@claims
def test_special_classes(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


def test_how_many_cases_there_are() -> None:
    assert [
        len(table.cases)
        for table in (
            INHERITED,
            SPECIAL,
        )
    ] == [17, 10]
